"""Opens the database file: makes it, checks it, brings it to this version, or sets it aside with a report.

Nothing is ever deleted: what cannot be used is renamed to `NAME.damaged-TIME` beside it.
"""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from shieldd.errors import ShieldError
from shieldd.store import schema
from shieldd.store.failures import translated
from shieldd.store.statedir import StateDir

QUICK_CHECK_LIMIT_BYTES: Final = 256 << 20  # beyond it a cleanly closed store is not read through at start (0.5 s)
FULL_CHECK_LIMIT_BYTES: Final = 16 << 20  # up to it the indices are compared with their tables too
_PRAGMAS: Final = (
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "secure_delete = FAST",
    "cache_size = -16384",  # 16 MiB: the leaves of every index that an event touches
    "wal_autocheckpoint = 4096",  # 16 MiB: one fold into the file for some 60,000 events
    "journal_size_limit = 67108864",
)
_COMPANIONS: Final = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Report:
    """Something found while opening that a person should know.

    Attributes:
        code: of the error table.
        text: one sentence.
        aside: where the file lies now, empty where nothing was moved.
    """

    code: str
    text: str
    aside: bytes = b""


def open_database(path: Path, state: StateDir) -> tuple[sqlite3.Connection, list[Report]]:
    """Open for writing.

    Returns:
        A connection in autocommit mode (WAL) that any one thread may use, and what was found on the way.

    Raises:
        ShieldError: `store.newer`, `store.unsafe`, `store.full`, `store.io`.
    """
    reports: list[Report] = []
    noted = state.epochs()
    if _stale_log(path, noted):
        aside = _set_aside(path.with_name(path.name + "-wal"))
        reports.append(Report("store.damaged", "a write-ahead log of another database lay beside the store", aside))
    try:
        connection = _open_checked(path)
    except ShieldError as error:
        if error.code != "store.damaged":
            raise
        aside = _set_aside(path)
        reports.append(Report(error.code, f"{error.message}; a new store was begun", aside))
        connection = _open_checked(path)
    try:
        _begin_epoch(connection, state, noted or [])
    except (sqlite3.Error, UnicodeError) as error:
        connection.close()
        raise translated(error) from error
    return connection, reports


def reading_connection(path: Path) -> sqlite3.Connection:
    """A connection that can only read; one thread at a time may use it."""
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def _open_checked(path: Path) -> sqlite3.Connection:
    _made_by_us(path)
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )
    try:
        _prepare(connection, path)
    except (sqlite3.Error, UnicodeError) as error:
        connection.close()
        raise translated(error) from error
    except ShieldError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    fresh = path.stat().st_size == 0
    if fresh:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only heeded while the file is empty
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    if _number(connection, "application_id") != schema.APPLICATION_ID:
        raise ShieldError("store.damaged", "the file is not a store of shieldd", path=os.fsencode(path))
    version = _number(connection, "user_version")
    if version > schema.VERSION:
        text = f"store has version {version}, this shieldd knows {schema.VERSION}"
        raise ShieldError("store.newer", text, path=os.fsencode(path))
    if not fresh and version:
        _check(connection, path, version)
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise ShieldError("store.io", "the file system of the state directory does not carry a write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    schema.migrate(Database(connection), version)


def _check(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Read the store through, unless it is large and was closed cleanly."""
    clean = _meta(connection, "clean") == "1"
    size = path.stat().st_size
    if not clean or size <= QUICK_CHECK_LIMIT_BYTES:
        check = "integrity_check" if size <= FULL_CHECK_LIMIT_BYTES else "quick_check"
        found = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
        if found != "ok":
            raise ShieldError("store.damaged", "the store did not pass its check", path=os.fsencode(path))
    if (
        not (_meta(connection, "run") or "0").isdecimal()
        or not (_meta(connection, "keystore.generation") or "0").isdecimal()
    ):
        raise ShieldError("store.damaged", "the store has lost count", path=os.fsencode(path))
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if version == schema.VERSION and schema.TABLES - there:
        raise ShieldError("store.damaged", "the store lacks some of its tables", path=os.fsencode(path))


def _begin_epoch(connection: sqlite3.Connection, state: StateDir, noted: list[str]) -> None:
    """Mark the database with a new random epoch, in the file itself and not only in its log."""
    epoch = secrets.token_hex(16)
    old = _meta(connection, "epoch")
    state.note([epoch, *([old] if old else []), *noted[:1]])
    rows = [("epoch", epoch), ("clean", "0")]
    connection.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", rows)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    state.note([epoch])


def _stale_log(path: Path, noted: list[str] | None) -> bool:
    """Whether the log beside the database was written for another one."""
    log = path.with_name(path.name + "-wal")
    try:
        if log.stat().st_size == 0 or path.stat().st_size == 0:
            return False
    except FileNotFoundError:
        return False
    if noted is None:
        return False
    try:
        with closing(sqlite3.connect(f"file:{_quoted(path)}?immutable=1", uri=True)) as connection:
            epoch = _meta(connection, "epoch")
    except (sqlite3.Error, UnicodeError):
        # Unreadable without its log: the check after replaying it has the last word.
        return False
    return epoch not in noted


def _meta(connection: sqlite3.Connection, key: str) -> str | None:
    there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone()
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone() if there else None
    return str(row[0]) if row else None


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _made_by_us(path: Path) -> None:
    """Make the file owner-only where it is missing; refuse one that is a link, foreign, or open to others."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        unsafe = error.errno in (errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = "store.unsafe" if unsafe else "store.full" if full else "store.io"
        text = f"store cannot be opened: {os.strerror(error.errno or 0).lower()}"
        raise ShieldError(code, text, errno=error.errno, path=os.fsencode(path)) from error
    try:
        info = os.fstat(fd)
        if info.st_uid != os.geteuid() or info.st_mode & 0o037:
            raise ShieldError("store.unsafe", "store is open to others", path=os.fsencode(path))
    finally:
        os.close(fd)


def _set_aside(path: Path) -> bytes:
    """Rename the file and what belongs to it; never over something."""
    base = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    target = path.with_name(base)
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{base}.{number}")
    path.rename(target)
    for suffix in _COMPANIONS:
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(target.with_name(target.name + suffix))
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return os.fsencode(target)


def _quoted(path: Path) -> str:
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "/._-~") else "".join(f"%{byte:02x}" for byte in raw)
        for char in str(path)
        for raw in (os.fsencode(char),)
    )
