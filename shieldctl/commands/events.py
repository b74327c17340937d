"""events: what happened in the guarded trees, and what was decided about it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shieldctl import options as o
from shieldctl.render import Screen
from shieldd.errors import ShieldError

ACTIONS = "allow|alert|seal|quarantine|contain"
KINDS = "create|write|delete|rename|attrib|make-dir|remove-dir|rename-dir|overflow"
COLUMNS = ("at", "kind", "action", "uid", "pid", "path")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("events")(events)


def events(
    context: typer.Context,
    *,
    follow: o.Follow = False,
    since: o.Since = None,
    lines: o.Count = 50,
    kind: Annotated[str | None, typer.Option("--kind", help="Only these.", metavar=KINDS)] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only these.", metavar=ACTIONS)] = None,
    under: Annotated[str | None, typer.Option("--under", help="Only below this directory.", metavar="DIR")] = None,
    json: o.Json = False,
) -> None:
    """Show the latest events. Oldest first; with -f also each as it happens, as one JSON object a line with --json."""
    screen = Screen(as_json=json)
    query: dict[str, object] = {
        "since_ns": o.since_ns(since),
        "limit": lines,
        "kind": kind,
        "action": action,
        "under": o.query_path(under),
    }
    if not follow:
        answer = o.client(context).get("/v1/events", **query)
        if not o.show(answer, screen):
            screen.table(COLUMNS, [_row(event) for event in answer["items"]], empty="no events")
            if answer["more"] and lines:
                screen.note(f"older ones are not shown: -n {min(lines * 10 or 50, 10_000)} for more")
        return
    for record in o.client(context).follow("/v1/events/stream", **query):
        if json:
            screen.json(record)
        elif record["type"] == "event":
            screen.row(_row(record), _STYLE.get(record["action"], ""))
        elif record["type"] == "missed":
            screen.note(f"{record['count']} events are not shown: this reader was too slow")
    raise ShieldError("cli.unreachable", "the daemon has stopped")


_STYLE = {"alert": "yellow", "seal": "cyan", "quarantine": "red", "contain": "bold red"}


def _row(event: dict[str, Any]) -> tuple[object, ...]:
    path = event["path"] if not event["from_path"] else f"{event['from_path']} -> {event['path']}"
    who = [None if event[key] == -1 else event[key] for key in ("uid", "pid")]
    return (
        event["at"],
        event["kind"],
        event["action"],
        *("-" if part is None else part for part in who),
        path,
    )
