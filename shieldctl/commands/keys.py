"""keys: versions, rotation, re-wrapping, providers. No key ever passes here."""

from __future__ import annotations

from typing import Annotated

import typer

from shieldctl import action
from shieldctl import options as o
from shieldctl.render import Screen

Purpose = Annotated[
    str | None, typer.Option("--purpose", help="Only these.", metavar="files|quarantine|preserve|audit")
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Keys: versions, rotation, re-wrapping, providers.")
    group.command("list")(list_)
    group.command("rotate")(rotate)
    group.command("rewrap")(rewrap)
    group.command("providers")(providers)
    app.add_typer(group, name="keys")


def list_(context: typer.Context, json: o.Json = False) -> None:
    """List all key versions. With their states."""
    screen = Screen(as_json=json)
    answer = o.client(context).get("/v1/keys")
    if not o.show(answer, screen):
        _print(answer["items"], screen)


def _print(items: list[dict[str, object]], screen: Screen, empty: str = "no keys") -> None:
    rows = [
        (
            item["purpose"],
            item["version"],
            item["state"],
            item["provider"],
            item["created_at"],
            "-" if item["objects"] == -1 else item["objects"],
            item["id"],
        )
        for item in items
    ]
    screen.table(("purpose", "version", "state", "provider", "created", "objects", "id"), rows, empty=empty)


def rotate(
    context: typer.Context,
    *,
    purpose: Purpose = None,
    due: Annotated[bool, typer.Option("--due", help="Only where one is due by age or use.")] = False,
    dry_run: o.DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Taken for scripts; nothing is asked.")] = False,
    json: o.Json = False,
) -> None:
    """Make new key versions. What was sealed before still opens."""
    screen = Screen(as_json=json)
    body: dict[str, object] = {"dry_run": dry_run, "due": due}
    if purpose is not None:
        body["purpose"] = purpose
    answer = o.client(context).post("/v1/keys/rotate", body)
    if not o.show(answer, screen):
        if dry_run:
            screen.note("would be made:")
        _print(answer["items"], screen, empty="nothing is due" if due else "no keys")


def rewrap(
    context: typer.Context,
    *,
    purpose: Purpose = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Also take the older recipients out, so that old keys open nothing.")
    ] = False,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    json: o.Json = False,
) -> None:
    """Bring headers to the newest version. The content of sealed objects is not touched."""
    body: dict[str, object] = {"dry_run": dry_run, "revoke": revoke}
    if purpose is not None:
        body["purpose"] = purpose
    if revoke and not dry_run:
        o.confirm("older keys and backups of headers will not open these objects any more; go on?", yes=yes)
    streams = (o.client(context).act("/v1/keys/rewrap", body) for _ in range(1))
    raise typer.Exit(action.run(streams, Screen(as_json=json), "re-wrapped", dry_run=dry_run))


def providers(context: typer.Context, json: o.Json = False) -> None:
    """Show key providers. Their state and the time of the last probe."""
    screen = Screen(as_json=json)
    answer = o.client(context).get("/v1/keys/providers")
    if not o.show(answer, screen):
        rows = [
            (
                item["name"],
                item["kind"],
                item["state"],
                "-" if item["latency_ms"] is None or item["latency_ms"] < 0 else f"{item['latency_ms']:.1f} ms",
                item["detail"],
            )
            for item in answer["items"]
        ]
        screen.table(("name", "kind", "state", "latency", "detail"), rows, empty="no providers")
