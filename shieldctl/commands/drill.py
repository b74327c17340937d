"""`shieldctl drill`: rehearse an attack in a scratch tree and print what was lost, how fast, what came back."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from shieldctl import options
from shieldctl.render import Screen
from shieldd.errors import ShieldError

FINDINGS = 6  # exit status: it ran, and the daemon did not do what it should


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("drill")(drill)


def drill(
    context: typer.Context,
    *,
    files: Annotated[int, typer.Option("--files", min=1, max=50_000, help="How many files.", metavar="N")] = 200,
    tool: Annotated[
        str, typer.Option("--tool", help="What encrypts: openssl, gpg, age, zip.", metavar="NAME")
    ] = "openssl",
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Same seed, same files; drawn when not given.", metavar="S")
    ] = None,
    place: Annotated[
        Path | None,
        typer.Option("--in", help="Where inside a guarded tree; else the first that is acted in.", metavar="DIR"),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the scratch tree.")] = False,
    as_json: options.Json = False,
) -> None:
    """Rehearse an attack: real tool, made-up patients, a marked scratch tree; exit 6 when it was not dealt with."""
    from shieldctl.drill import render  # noqa: PLC0415  (start-up time of the other commands)
    from shieldctl.drill.daemon import Daemon  # noqa: PLC0415
    from shieldctl.drill.rehearsal import Orders, rehearse  # noqa: PLC0415
    from shieldctl.drill.tools import TOOLS  # noqa: PLC0415

    if tool not in TOOLS:
        raise ShieldError("cli.usage", f"not a tool of the drill: {tool!r}", hint=f"one of {', '.join(TOOLS)}")
    screen = Screen(as_json=as_json)

    def say(text: str) -> None:
        if sys.stderr.isatty():
            screen.note(text)

    chosen = secrets.randbelow(2**31) if seed is None else seed
    report = rehearse(Daemon(options.client(context)), Orders(files, chosen, tool, place, keep), say)
    if not options.show(render.as_json(report), screen):
        render.show(report, screen)
    if not report.passed:
        raise typer.Exit(FINDINGS)
