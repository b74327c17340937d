"""Where the daemon's own words go: the journal's native protocol under systemd, else JSON or plain lines on stderr.

No path, identifier or content of a guarded file is logged above debug; records of those live in the store.
The journal's binary framing carries newlines as data, so that no field can forge another line.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from typing import Any, Final

import structlog

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"
PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def journal_record(fields: dict[str, str]) -> bytes:
    """Encode fields in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    out = bytearray()
    for name, text in fields.items():
        data = text.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            out += name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
        else:
            out += name.encode() + b"=" + data + b"\n"
    return bytes(out)


def _field(key: str) -> str:
    return "SHIELDD_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in key).upper()[:50]


class JournalLogger:
    """Last stage of structlog: one datagram a line; falls back to stderr when the journal does not take it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # a full journal must never hold up a decision

    def msg(self, message: dict[str, str]) -> None:
        """Write one record; the name is structlog's."""
        record = journal_record(message)
        try:
            self._socket.sendto(record, JOURNAL_SOCKET)
        except OSError:
            sys.stderr.write(message.get("MESSAGE", "") + "\n")

    log = debug = info = warning = error = critical = exception = msg


def _to_journal(_: object, method: str, event: structlog.typing.EventDict) -> tuple[tuple[Any, ...], dict[str, Any]]:
    fields = {"PRIORITY": str(PRIORITY.get(method, 6)), "SYSLOG_IDENTIFIER": "shieldd"}
    text = str(event.pop("event", ""))
    rest = {key: str(value) for key, value in event.items()}
    fields["MESSAGE"] = text + "".join(f" {key}={value}" for key, value in rest.items())
    fields.update({_field(key): value for key, value in rest.items()})
    return (fields,), {}


def _under_journal() -> bool:
    stream = os.environ.get("JOURNAL_STREAM", "")
    if ":" not in stream or not os.path.exists(JOURNAL_SOCKET):
        return False
    found = os.fstat(2)
    return stream == f"{found.st_dev}:{found.st_ino}"


class _Forward(logging.Handler):
    """Lines of libraries that use the standard library's logging, in the same place and form."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line; the name is logging's."""
        structlog.get_logger(record.name).log(record.levelno, record.getMessage())


def configure(level: str = "info", *, plain: bool | None = None) -> None:
    """Set up structlog once, in the composition root.

    Args:
        level: lowest level that is written.
        plain: lines for people instead of JSON on stderr; by default when stderr is a terminal.
    """
    threshold = getattr(logging, level.upper())
    shared: list[Any] = [structlog.contextvars.merge_contextvars, structlog.processors.add_log_level]
    factory: Any
    if _under_journal():
        factory = lambda *_: JournalLogger()  # noqa: E731
        final: list[Any] = [structlog.processors.format_exc_info, _to_journal]
    else:
        factory = structlog.PrintLoggerFactory(sys.stderr)
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        people = sys.stderr.isatty() if plain is None else plain
        last = structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer()
        final = [stamp, structlog.processors.format_exc_info, last]
    root = logging.getLogger()
    root.handlers[:] = [_Forward()]
    root.setLevel(logging.WARNING)
    structlog.configure(
        processors=shared + final,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
