"""threats: what one actor did in one tree, why it was judged so, and a person's verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from shieldctl import options as o
from shieldctl.client import segment
from shieldctl.render import Screen
from shieldd.errors import CODES


class Judgement(StrEnum):
    """A person's verdict."""

    MALICIOUS = "malicious"
    BENIGN = "benign"


class State(StrEnum):
    """Life of a threat."""

    OPEN = "open"
    RESOLVED = "resolved"


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Threats: what was found, why, and your verdict.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("explain")(explain)
    group.command("resolve")(resolve)
    group.command("release")(release)
    group.command("kill")(kill)
    group.command("analyze")(analyze)
    app.add_typer(group, name="threats")


def list_(
    context: typer.Context,
    *,
    state: Annotated[State | None, typer.Option("--state", help="Only these.", metavar="open|resolved")] = None,
    severity: o.MinSeverity = "informational",
    since: o.Since = None,
    lines: o.Count = 50,
    json: o.Json = False,
) -> None:
    """List the latest threats. Oldest first."""
    screen = Screen(as_json=json)
    answer = o.client(context).get(
        "/v1/threats",
        state=state.value if state else None,
        severity=o.severity_level(severity),
        since_ns=o.since_ns(since),
        limit=lines,
    )
    if not o.show(answer, screen):
        columns = ("id", "opened", "state", "severity", "touched", "lost", "did", "actor", "tree")
        screen.table(columns, [_row(threat) for threat in answer["items"]], empty="no threats")


def _row(threat: dict[str, Any]) -> tuple[object, ...]:
    return (
        threat["id"],
        threat["opened_at"],
        threat["verdict"] or threat["state"],
        threat["severity"],
        threat["files_touched"],
        threat["files_lost"],
        _did(threat),
        _who(threat["actor"]),
        threat["tree"],
    )


def _did(threat: dict[str, Any]) -> str:
    return ",".join(dict.fromkeys(action["kind"] for action in threat["actions"])) or "-"


def _who(actor: dict[str, Any] | None) -> str:
    return f"{actor['exe']} (pid {actor['pid']}, uid {actor['uid']})" if actor else "unknown"


def show(context: typer.Context, id: o.Id, json: o.Json = False) -> None:
    """Show one threat. With all that was done about it, and how to undo it."""
    screen = Screen(as_json=json)
    answer = o.client(context).get(f"/v1/threats/{segment(id)}")
    if not o.show(answer, screen):
        _print(answer, screen)


def _print(threat: dict[str, Any], screen: Screen) -> None:
    actor = threat["actor"]
    screen.pairs(
        [
            ("id", threat["id"]),
            ("state", threat["state"]),
            ("severity", threat["severity"]),
            ("tree", threat["tree"]),
            ("actor", _who(actor)),
            *([("command", actor["cmdline"])] if actor else []),
            ("first event", threat["first_event_at"]),
            ("decided", threat["decided_at"]),
            ("held", threat["held_at"]),
            ("contained", threat["contained_at"]),
            ("closed", threat["closed_at"]),
            ("files touched", threat["files_touched"]),
            ("preserved", threat["files_preserved"]),
            ("files lost", threat["files_lost"]),
            ("rate", f"{threat['files_per_s']:g} files/s" if threat["files_per_s"] else None),
            ("technique", " ".join(threat["attack"]) or None),
            ("verdict", threat["verdict"]),
            *([("note", threat["note"])] if threat["note"] else []),
            *[("because", reason["text"] or reason["feature"]) for reason in threat["reasons"]],
        ]
    )
    if threat["containment"]:
        _print_held(threat["containment"], screen)
    for action in threat["actions"]:
        why = f" ({action['reason']})" if action["reason"] else ""
        screen.line(f"{action['at']}  {action['kind']} {action['outcome']}: {action['path']}{why}")
        if action["undo"]:
            screen.line(f"    undo: {action['undo']}", "cyan")


def _print_held(held: dict[str, Any], screen: Screen) -> None:
    until = f", until {held['release_at']}" if held["release_at"] else ""
    note = f" ({held['note']})" if held["note"] else ""
    screen.line(f"processes {held['state']} since {held['changed_at']}{until}{note}")
    for process in held["processes"]:
        note = f": {process['note']}" if process["note"] else ""
        screen.line(f"    {process['pid']} {process['exe'] or '-'} {process['fate']}{note}")


def explain(context: typer.Context, id: o.Id, json: o.Json = False) -> None:
    """Explain a decision. The numbers behind it, the policy's and the guard's part, the first events."""
    screen = Screen(as_json=json)
    answer = o.client(context).get(f"/v1/threats/{segment(id)}/explain")
    if o.show(answer, screen):
        return
    screen.line(answer["summary"], "bold")
    if answer["action"]:
        screen.line(_decided(answer))
    if answer["probabilities"]:
        screen.line("  ".join(f"{name} {share:.1%}" for name, share in answer["probabilities"].items()))
    features = [(f["name"], f["value"], f["unit"], f["contribution"], f["text"]) for f in answer["features"]]
    screen.table(("feature", "value", "unit", "share", "meaning"), features, empty="no features recorded")
    timeline = [(event["at"], event["kind"], event["path"]) for event in answer["timeline"]]
    screen.table(("at", "kind", "path"), timeline, empty="no events recorded")


def _decided(answer: dict[str, Any]) -> str:
    guard = f" by the rule {answer['rule']!r}" if answer["rule"] else ""
    asked = (
        f"policy {answer['policy_version']} asked for {answer['wanted']}" if answer["policy_version"] else "no policy"
    )
    return f"{asked}; the guard made it {answer['action']}{guard}"


def resolve(
    context: typer.Context,
    id: o.Id,
    verdict: Annotated[
        Judgement, typer.Option("--verdict", help="What it was.", metavar="malicious|benign", show_default=False)
    ],
    note: Annotated[str, typer.Option("--note", help="A sentence for the record; no patient data.")] = "",
    json: o.Json = False,
) -> None:
    """Close a threat with your verdict. It is kept as a label."""
    screen = Screen(as_json=json)
    answer = o.client(context).post(f"/v1/threats/{segment(id)}/resolve", {"verdict": verdict.value, "note": note})
    if not o.show(answer, screen):
        screen.line(f"{answer['id']} {answer['state']}: {answer['verdict']}")


def release(
    context: typer.Context,
    id: o.Id,
    *,
    reason: Annotated[str, typer.Option("--reason", help="A sentence for the record; no patient data.")] = "",
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    """Let what is held go on. Its processes and its opens."""
    screen = Screen(as_json=json)
    target = f"/v1/threats/{segment(id)}"
    if not yes:
        threat = o.client(context).get(target)
        o.confirm(f"let {_whom(threat)} go on in {threat['tree']}?", yes=yes)
    _ended(o.client(context).post(f"{target}/release", {"reason": reason}), screen)


def kill(
    context: typer.Context,
    id: o.Id,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record; no patient data.", show_default=False)],
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    """Kill the processes of a threat. This cannot be undone."""
    screen = Screen(as_json=json)
    target = f"/v1/threats/{segment(id)}"
    if not yes:
        o.confirm(f"kill {_whom(o.client(context).get(target))} for good?", yes=yes)
    _ended(o.client(context).post(f"{target}/kill", {"reason": reason}), screen)


def _whom(threat: dict[str, Any]) -> str:
    held = threat["containment"]
    count = sum(process["fate"] in ("done", "pending") for process in held["processes"]) if held else 0
    what = f"{count} processes" if count else "the processes"
    return f"{what} of {threat['id']} ({_who(threat['actor'])})"


def _ended(held: dict[str, Any], screen: Screen) -> None:
    if not o.show(held, screen):
        screen.line(f"{held['threat_id']} {held['state']}: {held['note']}")


def analyze(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(help="Files in guarded trees.", metavar="PATH…", show_default=False)],
    json: o.Json = False,
) -> None:
    """Judge files as they lie there. Nothing is done to them; exit status 6 on findings."""
    screen = Screen(as_json=json)
    items: list[dict[str, Any]] = []
    for portion in o.bodies(paths):
        items += o.client(context).post("/v1/threats/analyze", {"paths": portion})["items"]
    if not o.show({"items": items}, screen):
        rows = [
            (
                item["path"],
                item["action"] or "-",
                item["rule"] or "-",
                " ".join(item["matches"]) or "-",
                _sentence(item["error"]) or "-",
            )
            for item in items
        ]
        screen.table(("path", "action", "rule", "matches", "error"), rows, empty="nothing to say")
    if any(item["action"] not in ("allow", "") for item in items):
        raise typer.Exit(6)
    codes = {item["error"] for item in items if item["error"]}
    if codes:
        raise typer.Exit(max(CODES[code].exit if code in CODES else 1 for code in codes))


def _sentence(code: str) -> str:
    title = CODES[code].title if code in CODES else ""
    return f"{title} [{code}]".lstrip() if code else ""
