"""quarantine: what was taken away, and the way back."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shieldctl import action
from shieldctl import options as o
from shieldctl.client import segment
from shieldctl.render import Screen, size

Paths = Annotated[list[str], typer.Argument(help="Files.", metavar="PATH…", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Quarantine: what was taken away, and the way back.")
    group.command("list")(list_)
    group.command("show")(show)
    group.command("add")(add)
    group.command("restore")(restore)
    group.command("purge")(purge)
    app.add_typer(group, name="quarantine")


def list_(context: typer.Context, json: o.Json = False) -> None:
    """List all objects. Oldest first."""
    screen = Screen(as_json=json)
    items: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        page = o.client(context).get("/v1/quarantine", after=after, limit=1000)
        items += page["items"]
        if not page["more"] or not page["items"]:
            break
        after = page["items"][-1]["id"]
    if not o.show({"items": items}, screen):
        rows = [(item["id"], item["at"], item["size"], item["why"], item["original"]) for item in items]
        screen.table(("id", "at", "size", "why", "original"), rows, empty="quarantine is empty")


def show(context: typer.Context, id: o.Id, json: o.Json = False) -> None:
    """Show one object. What it was, when and why it was taken."""
    screen = Screen(as_json=json)
    item = o.client(context).get(f"/v1/quarantine/{segment(id)}")
    if not o.show(item, screen):
        screen.pairs(
            [
                ("id", item["id"]),
                ("original", item["original"]),
                ("size", size(item["size"])),
                ("taken", item["at"]),
                ("why", item["why"]),
                ("threat", item["threat_id"] or None),
                ("mode", f"{item['mode']:04o}"),
                ("owner", f"{item['uid']}:{item['gid']}"),
                ("modified", item["modified_at"]),
                ("digest", item["digest"] or None),
                ("key", f"version {item['key_version']}"),
            ]
        )


def add(
    context: typer.Context,
    paths: Paths,
    *,
    why: Annotated[str, typer.Option("--why", help="A reason, kept with the object.")] = "asked for",
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Put files into quarantine by hand."""
    rest = {"why": why, "dry_run": dry_run}
    streams = (o.client(context).act("/v1/quarantine/add", {"paths": part, **rest}) for part in o.bodies(paths))
    raise typer.Exit(action.run(streams, Screen(as_json=json), "quarantined", dry_run=dry_run))


def restore(
    context: typer.Context,
    id: o.Id,
    *,
    to: Annotated[
        str | None, typer.Option("--to", help="Into this existing directory, not its old place.", metavar="DIR")
    ] = None,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    """Bring an object back. With everything it had; nothing is overwritten, no link is followed."""
    screen = Screen(as_json=json)
    body: dict[str, object] = {"dry_run": dry_run}
    if to is not None:
        body["to"] = o.wire_path(o.absolute(to))
    target = f"/v1/quarantine/{segment(id)}"
    if not dry_run and not yes:
        item = o.client(context).get(target)
        where = to or item["original"]
        o.confirm(f"bring {item['original']} back to {where} (taken because: {item['why']})?", yes=yes)
    answer = o.client(context).post(f"{target}/restore", body)
    if not o.show(answer, screen):
        screen.line(f"{'would be restored' if dry_run else 'restored'}: {answer['to']}")
        if answer["reason"] and not dry_run:
            screen.note(answer["reason"])


def purge(
    context: typer.Context, id: o.Id, dry_run: o.DryRun = False, yes: o.Yes = False, json: o.Json = False
) -> None:
    """Destroy an object for good. This cannot be undone."""
    screen = Screen(as_json=json)
    target = f"/v1/quarantine/{segment(id)}"
    if not dry_run and not yes:
        item = o.client(context).get(target)
        o.confirm(f"destroy {item['id']} ({item['original']}, {size(item['size'])}) for good?", yes=yes)
    answer = o.client(context).post(f"{target}/purge", {"dry_run": dry_run})
    if not o.show(answer, screen):
        screen.line(f"{'would be destroyed' if dry_run else 'destroyed'}: {answer['id']} ({answer['path']})")
