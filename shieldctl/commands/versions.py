"""versions: what a file was before, and the way back after an ordinary accident."""

from __future__ import annotations

from typing import Annotated

import typer

from shieldctl import options as o
from shieldctl.render import Screen
from shieldd.errors import ShieldError

Path = Annotated[str, typer.Argument(help="A file of a guarded tree.", metavar="PATH", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Versions: what a file was before it was changed or deleted.")
    group.command("list")(list_)
    group.command("restore")(restore)
    app.add_typer(group, name="versions")


def list_(
    context: typer.Context,
    path: Path,
    lines: o.Count = 1000,
    json: o.Json = False,
) -> None:
    """List what is preserved of a file. Oldest first; the file itself may be gone."""
    screen = Screen(as_json=json)
    found = o.client(context).get("/v1/versions", path=o.query_path(path), limit=lines)
    if o.show(found, screen):
        return
    rows = [
        (
            item["at"],
            item["modified_at"],
            item["kind"] + (" (changed since)" if item["changed"] else ""),
            item["size"],
            f"{item['mode']:04o}",
            f"{item['uid']}:{item['gid']}",
            item["pinned"],
        )
        for item in found["items"]
    ]
    columns = ("at", "modified", "kind", "size", "mode", "owner", "pinned")
    screen.table(columns, rows, empty="no version of it is preserved")


def restore(
    context: typer.Context,
    path: Path,
    *,
    at: Annotated[
        str,
        typer.Option("--at", help="As it was then: 15m, 2d, 2026-11-21T13:00Z.", metavar="TIME", show_default=False),
    ],
    to: Annotated[
        str | None, typer.Option("--to", help="Into this existing directory, not its old place.", metavar="DIR")
    ] = None,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    """Bring one file back as it was. With everything it had; what is there now is set aside as NAME.before-restore."""
    screen = Screen(as_json=json)
    moment = o.since_ns(at)
    if moment is None:
        raise ShieldError("cli.usage", "name a moment with --at")
    wire = o.wire_path(o.absolute(path))
    # a time as the list shows it is cut to the millisecond: the version of that very millisecond is meant
    body: dict[str, object] = {"path": wire, "at_ns": moment + 999_999, "dry_run": dry_run}
    if to is not None:
        body["to"] = o.wire_path(o.absolute(to))
    if not dry_run and not yes:
        would = o.client(context).post("/v1/versions/restore", {**body, "dry_run": True})
        o.confirm(f"bring {would['path']} back to {would['to']} ({would['size']} bytes)?", yes=yes)
    answer = o.client(context).post("/v1/versions/restore", body)
    if not o.show(answer, screen):
        screen.line(f"{'would be restored' if dry_run else 'restored'}: {answer['to']}")
        if answer["reason"] and not dry_run:
            screen.note(answer["reason"])
