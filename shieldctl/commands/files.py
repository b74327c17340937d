"""files: seal, open, read, look at sealed files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from shieldctl import action
from shieldctl import options as o
from shieldctl.render import Screen, cell, size, write_bytes
from shieldd.errors import CODES, ShieldError
from shieldd.model.names import shell_word

FINDINGS: Final = 6
Paths = Annotated[list[str], typer.Argument(help="Files.", metavar="PATH…", show_default=False)]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="For a directory, every regular file below it.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Sealed files: seal, open, read, look.")
    group.command("seal")(seal)
    group.command("open")(open_)
    group.command("cat")(cat)
    group.command("status")(status)
    group.command("verify")(verify)
    group.command("list")(list_)
    app.add_typer(group, name="files")


def seal(
    context: typer.Context,
    paths: Paths,
    *,
    recursive: Recursive = False,
    why: Annotated[str, typer.Option("--why", help="A reason, sealed inside.")] = "asked for",
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Seal files. Each FILE becomes FILE.shield, readable through shieldd only."""
    rest = {"recursive": recursive, "why": why, "dry_run": dry_run}
    streams = (o.client(context).act("/v1/files/seal", {"paths": part, **rest}) for part in o.bodies(paths))
    raise typer.Exit(action.run(streams, Screen(as_json=json), "sealed", dry_run=dry_run))


def open_(
    context: typer.Context,
    paths: Paths,
    *,
    recursive: Recursive = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Open sealed files. Back to their own names, with owner, mode and times; nothing is overwritten."""
    rest = {"recursive": recursive, "dry_run": dry_run}
    streams = (o.client(context).act("/v1/files/open", {"paths": part, **rest}) for part in o.bodies(paths))
    raise typer.Exit(action.run(streams, Screen(as_json=json), "opened", dry_run=dry_run))


def cat(
    context: typer.Context,
    path: Annotated[str, typer.Argument(help="A sealed file.", metavar="PATH", show_default=False)],
) -> None:
    """Print what a sealed file holds. Each part after its check; the file stays sealed."""
    body = {"path": o.wire_path(o.absolute(path))}
    try:
        for chunk in o.client(context).content("/v1/files/cat", body):
            write_bytes(chunk)
    except ShieldError as error:
        if error.code == "cli.cut":
            error.hint = f"shieldctl files status --verify {shell_word(os.fsencode(path))}"
        raise


def status(
    context: typer.Context,
    paths: Paths,
    *,
    recursive: Recursive = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read sealed files to the end and check every byte.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Show the state of files. Plain, sealed, quarantined, missing; exit status 6 where a check fails, 4 if missing."""
    screen = Screen(as_json=json)
    items: list[dict[str, Any]] = []
    for portion in o.bodies(paths):
        body = {"paths": portion, "recursive": recursive, "verify": verify}
        items += o.client(context).post("/v1/files/status", body)["items"]
    if not o.show({"items": items}, screen):
        _print(items, screen)
    codes = {item["code"] for item in items if item["code"]}
    if any(code.startswith(("envelope.", "keys.")) for code in codes):
        raise typer.Exit(6)
    if codes:
        raise typer.Exit(max(CODES[code].exit if code in CODES else 1 for code in codes))


def verify(
    context: typer.Context,
    paths: Annotated[
        list[str] | None, typer.Argument(help="Sealed files.", metavar="[PATH…]", show_default=False)
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All of the inventory and of the quarantine.")] = False,
    recursive: Recursive = False,
    json: o.Json = False,
) -> None:
    """Check every byte of sealed files. Shows what does not hold; exit status 6 when something does not."""
    if bool(paths) == everything:
        raise ShieldError("cli.usage", "name files, or say --all", hint="shieldctl files verify --help")
    rest = {"recursive": recursive}
    portions = [[]] if everything else o.bodies(paths or [])
    streams = (o.client(context).act("/v1/files/verify", {"paths": part, **rest}) for part in portions)
    status = action.run(streams, Screen(as_json=json), "verified", quiet=True)
    raise typer.Exit(FINDINGS if status else 0)


def _print(items: list[dict[str, Any]], screen: Screen) -> None:
    if len(items) == 1:
        item = items[0]
        sealed = item["state"] == "sealed"
        key = f"version {item['key_version']} ({item['key_id']})"
        trouble = f"{item['reason']} [{item['code']}]".strip()
        screen.pairs(
            [
                ("path", item["path"]),
                ("state", item["state"]),
                *([("error", trouble)] if item["code"] else []),
                ("size", size(item["size"])),
                *(
                    [("original", item["original"]), ("sealed", item["sealed_at"]), ("why", item["why"])]
                    if sealed
                    else []
                ),
                *([("key", key), ("cipher", item["suite"])] if sealed else []),
                *([("verified", item["verified"])] if item["verified"] is not None else []),
            ]
        )
        return
    rows = [(item["state"], item["size"], item["sealed_at"] or "-", _verified(item), item["path"]) for item in items]
    screen.table(("state", "size", "sealed", "check", "path"), rows, empty="no files")


def _verified(item: dict[str, Any]) -> str:
    if item["code"]:
        return str(item["code"])
    return "-" if item["verified"] is None else cell(item["verified"])


def list_(
    context: typer.Context,
    under: Annotated[str | None, typer.Option("--under", help="Only below this directory.", metavar="DIR")] = None,
    json: o.Json = False,
) -> None:
    """List all sealed files. By path, from the inventory."""
    screen = Screen(as_json=json)
    items = list(_all(context, under))
    if not o.show({"items": items}, screen):
        rows = [(item["sealed_at"], item["size"], item["why"], item["key_version"], item["path"]) for item in items]
        screen.table(("sealed", "size", "why", "key", "path"), rows, empty="no sealed files")


def _all(context: typer.Context, under: str | None) -> Iterator[dict[str, Any]]:
    """Page by page; a page goes on after the last path of the one before."""
    after: bytes | None = None
    while True:
        page = o.client(context).get("/v1/files", under=o.query_path(under), after=after, limit=1000)
        yield from page["items"]
        if not page["more"] or not page["items"]:
            return
        after = o.bytes_of(page["items"][-1], "path")
