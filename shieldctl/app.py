"""The command tree: options before the command, and one module per group."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from shieldctl.client import Client
from shieldctl.commands import (
    alerts,
    config,
    daemon,
    drill,
    events,
    files,
    keys,
    policy,
    quarantine,
    restore,
    threats,
    versions,
)
from shieldctl.options import Session
from shieldd.errors import ShieldError

GROUPS = (daemon, events, alerts, threats, files, quarantine, restore, versions, keys, policy, config, drill)


def _version(context: typer.Context, wanted: bool) -> None:
    """Our own version; the daemon's beside it where one answers."""
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  (start-up time)

    try:
        own = version("shieldd")
    except PackageNotFoundError:
        own = "(run from its source, not installed)"
    typer.echo(f"shieldctl {own}")
    try:
        status = Client(context.params.get("socket") or os.environ.get("SHIELD_SOCKET")).get("/v1/status")
    except ShieldError:
        raise typer.Exit from None  # no daemon, or not for us: our own version is the answer
    model = f"policy {status['policy']['version']} {status['policy']['digest'][:12]}".rstrip()
    typer.echo(f"shieldd {status['version']} (running), abi {status['abi']}, {model}")
    raise typer.Exit


def _options(
    context: typer.Context,
    socket: Annotated[
        str | None,
        typer.Option(
            "--socket",
            envvar="SHIELD_SOCKET",
            show_envvar=False,
            help="Socket of the daemon.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Print versions and end.")] = False,
) -> None:
    """Work with shieldd, the guard of the trees that hold patient data. See shieldctl(1)."""
    context.obj = Session(Client(socket or None))


def build() -> typer.Typer:
    """The whole command tree, made anew."""
    app = typer.Typer(
        name="shieldctl",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for group in GROUPS:
        group.register(app)
    return app
