"""alerts: what a person should look at."""

from __future__ import annotations

from typing import Any

import typer

from shieldctl import options as o
from shieldctl.render import STYLES, Screen
from shieldd.errors import ShieldError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("alerts")(alerts)


def alerts(
    context: typer.Context,
    *,
    follow: o.Follow = False,
    since: o.Since = None,
    lines: o.Count = 50,
    severity: o.MinSeverity = "informational",
    json: o.Json = False,
) -> None:
    """Show the latest alerts. Oldest first; with -f also each as it is raised, one JSON object a line with --json."""
    screen = Screen(as_json=json)
    query: dict[str, object] = {
        "since_ns": o.since_ns(since),
        "limit": lines,
        "severity": o.severity_level(severity),
    }
    if not follow:
        answer = o.client(context).get("/v1/alerts", **query)
        if not o.show(answer, screen):
            columns = ("at", "severity", "kind", "threat", "text", "path")
            screen.table(columns, [_row(alert) for alert in answer["items"]], empty="no alerts")
        return
    for record in o.client(context).follow("/v1/alerts/stream", **query):
        if json:
            screen.json(record)
        elif record["type"] == "alert":
            screen.row(_row(record), STYLES.get(record["severity"], ""))
        elif record["type"] == "missed":
            screen.note(f"{record['count']} alerts are not shown: this reader was too slow")
    raise ShieldError("cli.unreachable", "the daemon has stopped")


def _row(alert: dict[str, Any]) -> tuple[str, ...]:
    return (alert["at"], alert["severity"], alert["kind"], alert["threat_id"], alert["text"], alert["path"])
