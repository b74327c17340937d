"""restore: bring back everything that an attack touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from shieldctl import action
from shieldctl import options as o
from shieldctl.client import segment
from shieldctl.render import Screen
from shieldd.errors import ShieldError

PAGE = 1000
Incident = Annotated[
    str, typer.Argument(help="The incident, or the beginning of its id.", metavar="INCIDENT", show_default=False)
]
Take = Annotated[
    list[str] | None,
    typer.Option(
        "--take", help="Bring this file back though somebody else changed it; theirs is set aside.", metavar="PATH"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Restore: everything that an attack touched, as it was before.")
    group.command("plan")(plan)
    group.command("run")(run)
    group.command("status")(status)
    app.add_typer(group, name="restore")


def plan(context: typer.Context, incident: Incident, json: o.Json = False) -> None:
    """Show what would come back. Each file the attack touched: what is there now, what comes back, what is in the way.

    Nothing is done but to write the plan down.
    """
    screen = Screen(as_json=json)
    made = o.client(context).post("/v1/restore/plan", {"id": segment(incident)})
    items = list(_steps(context, made["id"]))
    if o.show({"plan": made, "items": items}, screen):
        return
    rows = [(_will(item), item["found"], item["version_at"] or "-", item["path"], item["text"]) for item in items]
    screen.table(("action", "found", "version", "path", "what"), rows, empty="the attack touched nothing")
    screen.note(_summary(made))
    if not made["attributed"]:
        screen.note("no process was named: all that happened in the incident's own time counts as the attack's")


def run(
    context: typer.Context,
    incident: Incident,
    *,
    take: Take = None,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    """Bring everything back. What somebody else changed since is left alone, and told; a run that was cut off goes on.

    What is replaced is preserved first, and what the attack made goes to quarantine.
    """
    screen = Screen(as_json=json)
    body: dict[str, object] = {"id": segment(incident), "dry_run": dry_run}
    body["take"] = [o.wire_path(o.absolute(path)) for path in take or ()]
    if not dry_run and not yes:
        plans = o.client(context).get("/v1/restore", threat=body["id"])["items"]
        going = [one for one in plans if one["state"] == "running"]
        made = going[-1] if going else o.client(context).post("/v1/restore/plan", {"id": body["id"]})
        body["plan"] = made["id"]
        o.confirm(f"{'go on with' if going else 'restore'}: {_summary(made)}?", yes=yes)
    stream = o.client(context).act("/v1/restore/run", body)
    raise typer.Exit(action.run([stream], screen, "restored", dry_run=dry_run))


def status(context: typer.Context, incident: Incident, json: o.Json = False) -> None:
    """Show the plans of an incident. When they were made and how far they came."""
    screen = Screen(as_json=json)
    plans = o.client(context).get("/v1/restore", threat=segment(incident))
    if o.show(plans, screen):
        return
    rows = [
        (item["id"], item["made_at"], item["state"], item["done"], item["failed"], item["skipped"], item["pending"])
        for item in plans["items"]
    ]
    columns = ("id", "at", "state", "done", "failed", "skipped", "pending")
    screen.table(columns, rows, empty="no plan was made")


def _steps(context: typer.Context, plan_id: str) -> Iterator[dict[str, Any]]:
    after = -1
    while True:
        page = o.client(context).get(f"/v1/restore/{segment(plan_id)}/steps", after=after, limit=PAGE)
        yield from page["items"]
        if not page["more"]:
            return
        if not page["items"]:
            raise ShieldError("cli.protocol")
        after = page["items"][-1]["number"]


def _will(item: dict[str, Any]) -> str:
    if item["lost"]:
        return "lost"
    return f"conflict: {item['conflict']}" if item["conflict"] else str(item["act"])


def _summary(made: dict[str, Any]) -> str:
    parts = [f"{made['back']} come back", f"{made['away']} to quarantine"]
    if made["conflicts"]:
        parts.append(f"{made['conflicts']} changed by somebody else and left alone")
    if made["lost"]:
        parts.append(f"{made['lost']} lost")
    if made["unchanged"]:
        parts.append(f"{made['unchanged']} as they were")
    return ", ".join(parts)
