"""What the commands share: the options that look the same everywhere, and values as a person types them."""

from __future__ import annotations

import base64
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from shieldctl.client import Client
from shieldctl.render import Screen, clean
from shieldd.errors import ShieldError

UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
BODY_BYTES: Final = 700_000  # of paths in one request; the daemon takes 1 MiB

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one stable schema.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to the question.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", help="Not older than: 90s, 15m, 1h, 2d, 1w, 2026-11-21, 2026-11-21T13:00Z.", metavar="WHEN"
    ),
]
Count = Annotated[int, typer.Option("--lines", "-n", min=0, max=10_000, help="How many, the latest.", metavar="N")]
MinSeverity = Annotated[
    str, typer.Option("--severity", help="At least this.", metavar="informational|low|medium|high|critical")
]
Id = Annotated[str, typer.Argument(help="The id, or the beginning of it.", metavar="ID", show_default=False)]
SEVERITIES: Final = ("informational", "low", "medium", "high", "critical")


@dataclass(slots=True)
class Session:
    """What the options before the command say."""

    client: Client = field(default_factory=Client)


def client(context: typer.Context) -> Client:
    """The daemon of this invocation."""
    session: Session = context.ensure_object(Session)
    return session.client


def since_ns(text: str | None, *, now_ns: int | None = None) -> int | None:
    """A point in time as typed, in ns since 1970: an age, a date, or RFC 3339; local time where no zone is named.

    Raises:
        ShieldError: `cli.usage`.
    """
    if text is None:
        return None
    now = time.time_ns() if now_ns is None else now_ns
    age = re.fullmatch(r"([0-9]{1,9})([smhdw])", text.strip())
    if age:
        return max(0, now - int(age[1]) * UNITS_S[age[2]] * 1_000_000_000)
    try:
        moment = datetime.fromisoformat(text.strip())
        seconds = moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError) as error:
        raise ShieldError("cli.usage", f"not a time: {text!r}", hint="use 15m, 1h, 2d or 2026-11-21T13:00Z") from error
    if seconds < 0:
        raise ShieldError("cli.usage", f"before 1970: {text!r}")
    return int(seconds * 1_000_000_000)


def severity_level(text: str) -> int:
    """1 to 5 for a severity as typed.

    Raises:
        ShieldError: `cli.usage`.
    """
    if text not in SEVERITIES:
        raise ShieldError("cli.usage", f"not a severity: {text!r}", hint=f"one of {', '.join(SEVERITIES)}")
    return SEVERITIES.index(text) + 1


def absolute(argument: str) -> bytes:
    """A path as typed, against the current directory; links stay, the daemon follows none."""
    return os.path.abspath(os.fsencode(argument))


def wire_path(path: bytes) -> object:
    """A path for a request: a string, or base64 where it is not UTF-8."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return {"path_b64": base64.b64encode(path).decode()}


def query_path(argument: str | None) -> bytes | None:
    """A path for a query string (percent-encoded bytes)."""
    return None if argument is None else absolute(argument)


def bodies(paths: Sequence[str]) -> list[list[object]]:
    """Paths in portions that fit into one request each."""
    portions: list[list[object]] = [[]]
    used = 0
    for argument in paths:
        path = absolute(argument)
        cost = len(path) * 3 + 32
        if portions[-1] and (used + cost > BODY_BYTES or len(portions[-1]) >= 10_000):
            portions.append([])
            used = 0
        portions[-1].append(wire_path(path))
        used += cost
    return portions


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal; refuse where there is none.

    Raises:
        ShieldError: `cli.confirm`, `cli.aborted`.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ShieldError("cli.confirm", f"needs a yes, and there is no terminal to ask on: {clean(question)}")
    sys.stderr.write(f"{clean(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ShieldError("cli.aborted")


def show(value: Any, screen: Screen) -> bool:
    """Print as JSON where that was asked for; True when it was."""
    if screen.as_json:
        screen.json(value)
    return screen.as_json


def bytes_of(item: dict[str, Any], key: str) -> bytes:
    """The bytes of a name in an answer: from base64 where there is one, else the text as it stands."""
    encoded = item.get(f"{key}_b64")
    return base64.b64decode(encoded) if encoded is not None else str(item[key]).encode()
