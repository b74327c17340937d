"""config: the configuration in force, and the check of a file before it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from shieldctl import options as o
from shieldctl.render import Screen, clean
from shieldd.errors import ShieldError

DEFAULT: Final = "/etc/shieldd/shieldd.toml"
CHECK_S: Final = 30.0


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, help="Configuration: what is in force, and check a file.")
    group.command("show")(show)
    group.command("check")(check)
    app.add_typer(group, name="config")


def show(context: typer.Context, json: o.Json = False) -> None:
    """Show the configuration in force. Secrets never stand in it."""
    screen = Screen(as_json=json)
    answer = o.client(context).get("/v1/config")
    if not o.show(answer, screen):
        screen.pairs(
            [
                ("source", answer["source"] or "built in"),
                ("generation", answer["generation"]),
                ("mode", answer["mode"]),
                ("loaded", answer["loaded_at"]),
                *_flat(answer["values"], ""),
            ]
        )


def _flat(value: Any, prefix: str) -> list[tuple[str, object]]:
    """Nested tables as dotted keys, arrays of tables with their number."""
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in _flat(inner, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        return [row for index, inner in enumerate(value) for row in _flat(inner, f"{prefix}[{index}]")]
    if isinstance(value, list):
        return [(prefix, ", ".join(str(inner) for inner in value) or None)]
    return [(prefix, value)]


def check(
    file: Annotated[
        str | None,
        typer.Argument(help=f"A configuration file; {DEFAULT} without.", metavar="[FILE]", show_default=False),
    ] = None,
    json: o.Json = False,
) -> None:
    """Check a configuration file. Without a daemon; exit status 7 when it would be refused."""
    path = file or DEFAULT
    program = _daemon_program()
    try:
        done = subprocess.run(
            [*program, "--check-config", path],
            capture_output=True,
            timeout=CHECK_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShieldError("cli.protocol", f"cannot run {program[0]!r}", hint="reinstall shieldd") from error
    text = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
    lines = [line for line in text.splitlines() if line.strip()]
    screen = Screen(as_json=json)
    if json:
        screen.json({"file": clean(path), "ok": done.returncode == 0, "problems": [] if not done.returncode else lines})
    else:
        for line in lines:
            screen.line(clean(line))
        if not done.returncode and not lines:
            screen.line(f"{path}: ok")
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode in (1, 2, 4, 5, 7) else 7)


def _daemon_program() -> list[str]:
    """`shieldd` beside this program (same environment), else from the path, else through the interpreter."""
    beside = Path(sys.argv[0]).resolve().with_name("shieldd")
    if beside.is_file():
        return [str(beside)]
    found = shutil.which("shieldd")
    return [found] if found else [sys.executable, "-m", "shieldd"]
