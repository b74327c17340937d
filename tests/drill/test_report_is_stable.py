"""What a drill prints: the JSON that programs rely on, the lines that people read, and where it refuses to begin."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shieldctl.drill import render
from shieldctl.drill.daemon import Guarded, beneath, instant_ns, path_of
from shieldctl.drill.drops import Expected
from shieldctl.drill.rehearsal import Report, choose_tree
from shieldctl.drill.score import Count, DropOutcome, Onslaught
from shieldctl.render import Screen
from shieldd.errors import ShieldError

REPORT = Report(
    drill_id="0123456789abcdef0123456789abcdef",
    seed=7,
    scratch=b"/srv/phi/shield-drill-0123456789ab",
    guarded=Guarded(b"/srv/phi", "act"),
    backend="native",
    onslaught=Onslaught("openssl", "", True, 41.0, 42.5, 44.25, 6, 4, 5, 3, 92.34, 2, False),
    count=Count(200, 7_000_000, 193, 5, 1, 2, 3, 0, 0, gone=7, from_versions=2),
    drops=(DropOutcome("incoming/eicar.com", "EICAR test file", Expected.QUARANTINE, True, 12.0, True, ""),),
    threats=("t1",),
    threats_left=(),
    kept="",
    notes=("source native: containment is an alert here; the drill itself ended the attacker after it",),
    passed=True,
)


def shape(value: Any) -> Any:
    """Names and types, without values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def test_the_schema_does_not_move() -> None:
    assert shape(render.as_json(REPORT)) == {
        "schema": "str", "id": "str", "seed": "int", "scratch": "str", "tree": "str", "mode": "str",
        "backend": "str", "passed": "bool",
        "attack": {
            "tool": "str", "decided": "bool", "decision_ms": "float", "heard_ms": "float", "ended_ms": "float",
            "touched": "int", "touched_at_decision": "int", "encrypted": "int", "encrypted_at_decision": "int",
            "rate": "float", "notes": "int", "finished": "bool",
        },
        "files": {
            "total": "int", "bytes": "int", "in_place": "int", "gone": "int", "from_versions": "int",
                "lost": "int", "sealed": "int", "quarantined": "int",
            "brought_back": "int", "not_brought_back": "int", "false_actions": "int",
        },
        "drops": [
            {
                "path": "str", "what": "str", "expected": "str", "handled": "bool", "after_ms": "float",
                "brought_back": "bool", "reason": "str",
            }
        ],
        "threats": ["str"], "threats_left": [], "kept": "str", "notes": ["str"],
    }  # fmt: skip
    assert json.loads(json.dumps(render.as_json(REPORT)))["attack"]["rate"] == 92.3


def test_piped_it_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    render.show(REPORT, Screen())
    out = capsys.readouterr().out
    assert "time to decision\t41 ms after the attack's first write\n" in out
    assert "attacker\topenssl, 92 files/s, not held back\n" in out
    assert "files touched\t4 at the decision, 6 in all\n" in out
    assert "files lost\t5 of 200\n" in out and "from versions\t2 of 7 came back\n" in out
    assert "incoming/eicar.com\tquarantined\tok\t12 ms\tidentical\t\n" in out
    assert out.endswith("passed: the attack was decided on, the drops were taken and came back\n")
    assert "\x1b" not in out


def test_a_failed_drill_does_not_look_passed(capsys: pytest.CaptureFixture[str]) -> None:
    lost = replace(REPORT.onslaught, decided=False, decision_ms=-1.0, heard_ms=-1.0, finished=True)
    render.show(replace(REPORT, onslaught=lost, passed=False, kept="/srv/phi/x"), Screen())
    out = capsys.readouterr().out
    assert "time to decision\tnot decided\n" in out and "by its own end" in out
    assert "kept: /srv/phi/x\n" in out and out.endswith("not passed\n")


def test_on_a_terminal_it_is_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    hostile = replace(REPORT, guarded=Guarded(b"/srv/\x1b[31m[red]\n", "act"))
    render.show(hostile, Screen())
    out = capsys.readouterr().out
    assert "time to decision" in out and "DROP" in out
    assert "[red]" in out and "\x1b[31m[red]" not in out, "names are neither markup nor escapes"


def test_names_and_times_from_the_daemon() -> None:
    assert path_of({"path": "/a/b"}, "path") == b"/a/b"
    assert path_of({"path": "/a/\\xff", "path_b64": "L2Ev/w=="}, "path") == b"/a/\xff"
    assert instant_ns("2026-11-21T13:00:00.123Z") == 1_795_266_000_123_000_000
    assert instant_ns(None) == 0
    assert beneath(b"/a/b", b"/a") and beneath(b"/a", b"/a") and not beneath(b"/ab", b"/a")


def test_where_it_rehearses() -> None:
    trees = (Guarded(b"/srv/shadow", "observe"), Guarded(b"/srv/phi", "act"))
    assert choose_tree(trees, None).root == b"/srv/phi"
    assert choose_tree(trees, Path("/srv/shadow/ward")).mode == "observe"
    for chosen, place in ((trees, Path("/srv/phi2")), (trees[:1], None), ((), None)):
        with pytest.raises(ShieldError) as caught:
            choose_tree(chosen, place)
        assert caught.value.code == "drill.place"
