"""A drill's report as a person reads it, and as a program does (`--json`, schema `drill/1`)."""

from __future__ import annotations

from typing import Any, Final

from shieldctl.drill.rehearsal import Report
from shieldctl.render import Screen, size
from shieldd.model.names import path_json, printable

SCHEMA: Final = "drill/1"


def as_json(report: Report) -> dict[str, Any]:
    """Stable: names are only added. Times are ms, -1 for what did not happen; `rate` is files per second."""
    onslaught, count = report.onslaught, report.count
    return {
        "schema": SCHEMA,
        "id": report.drill_id,
        "seed": report.seed,
        **path_json(report.scratch, "scratch"),
        **path_json(report.guarded.root, "tree"),
        "mode": report.guarded.mode,
        "backend": report.backend,
        "passed": report.passed,
        "attack": {
            "tool": onslaught.tool,
            "decided": onslaught.decided,
            "decision_ms": round(onslaught.decision_ms, 3),
            "heard_ms": round(onslaught.heard_ms, 3),
            "ended_ms": round(onslaught.ended_ms, 3),
            "touched": onslaught.touched,
            "touched_at_decision": onslaught.touched_at_decision,
            "encrypted": onslaught.encrypted,
            "encrypted_at_decision": onslaught.encrypted_at_decision,
            "rate": round(onslaught.rate, 1),
            "notes": onslaught.notes,
            "finished": onslaught.finished,
        },
        "files": {
            "total": count.files,
            "bytes": count.size_bytes,
            "in_place": count.in_place,
            "gone": count.gone,
            "from_versions": count.from_versions,
            "lost": count.lost,
            "sealed": count.sealed,
            "quarantined": count.quarantined,
            "brought_back": count.brought_back,
            "not_brought_back": count.not_brought_back,
            "false_actions": count.false_actions,
        },
        "drops": [
            {
                "path": drop.path,
                "what": drop.what,
                "expected": drop.expected.value,
                "handled": drop.handled,
                "after_ms": round(drop.after_ms, 3),
                "brought_back": drop.returned,
                "reason": drop.reason,
            }
            for drop in report.drops
        ],
        "threats": list(report.threats),
        "threats_left": list(report.threats_left),
        "kept": report.kept,
        "notes": list(report.notes),
    }


def show(report: Report, screen: Screen) -> None:
    """The table, the drops, and what it means."""
    onslaught, count = report.onslaught, report.count
    decided = f"{_ms(onslaught.decision_ms)} after the attack's first write" if onslaught.decided else "not decided"
    screen.pairs(
        [
            ("drill", f"{report.drill_id[:12]}, seed {report.seed}, in {printable(report.guarded.root)}"),
            ("corpus", f"{count.files} files, {size(count.size_bytes)}"),
            ("attacker", f"{onslaught.tool}, {onslaught.rate:.0f} files/s, not held back"),
            ("time to decision", decided),
            ("decision heard", _ms(onslaught.heard_ms)),
            (
                "attacker ended",
                f"{_ms(onslaught.ended_ms)}, by {'its own end' if onslaught.finished else 'this drill'}",
            ),
            ("files touched", f"{onslaught.touched_at_decision} at the decision, {onslaught.touched} in all"),
            ("files gone", f"{count.gone} of {count.files} after the attack"),
            ("from versions", f"{count.from_versions} of {count.gone} came back"),
            ("files lost", f"{count.lost} of {count.files}"),
            ("files in place", count.in_place),
            ("files sealed", count.sealed),
            ("files quarantined", count.quarantined),
            ("brought back", f"{count.brought_back} of {count.brought_back + count.not_brought_back}"),
            ("false actions", f"{count.false_actions} on untouched files"),
        ]
    )
    screen.table(
        ("drop", "should be", "state", "after", "came back", "reason"),
        [
            (
                drop.path,
                {"quarantine": "quarantined", "seal": "sealed"}[drop.expected],
                "ok" if drop.handled else "missing",
                _ms(drop.after_ms),
                "identical" if drop.returned else "no",
                drop.reason,
            )
            for drop in report.drops
        ],
        empty="nothing was dropped",
    )
    for note in report.notes:
        screen.line(note)
    if report.kept:
        screen.line(f"kept: {report.kept}")
    if report.passed:
        screen.line("passed: the attack was decided on, the drops were taken and came back", "green")
    else:
        screen.line("not passed", "red")


def _ms(value: float) -> str:
    if value < 0:
        return "-"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"
