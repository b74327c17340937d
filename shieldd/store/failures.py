"""SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
from typing import Final

from shieldd.errors import ShieldError

_FULL: Final = frozenset({sqlite3.SQLITE_FULL})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_VALUE: Final = frozenset({sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG})


def translated(error: Exception) -> ShieldError:
    """A `sqlite3.Error` (or a value that SQLite cannot take) as `ShieldError`; the text holds no record's values."""
    if isinstance(error, UnicodeError):
        return ShieldError("store.damaged", "a text in the store is none; restart sets the store aside")
    if isinstance(error, OverflowError | TypeError | ValueError):
        return ShieldError("store.value")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    primary = code & 0xFF
    if primary in _FULL:
        return ShieldError("store.full")
    if primary in _DAMAGED:
        return ShieldError("store.damaged", f"store is damaged ({name}); restart sets it aside")
    if primary in _VALUE or isinstance(error, sqlite3.InterfaceError):
        return ShieldError("store.value", f"record is not acceptable to the store ({name})")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ShieldError("store.busy")
    return ShieldError("store.io", f"input/output error on the store ({name})")
