"""How the store's parts reach the database: the writer for changes, read-only connections, the numbers of trees."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlite_utils import Database

from shieldd.errors import ShieldError
from shieldd.store.failures import translated
from shieldd.store.opening import reading_connection
from shieldd.store.records import Where
from shieldd.store.writer import Work, Writer

POOL: Final = 8  # idle read connections kept; more are opened under load and closed after
_T = TypeVar("_T")
Row = dict[str, Any]


class Readers:
    """Read-only connections, each in one thread's hands at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Borrow one; SQLite's errors come out as `store.*`."""
        with self._lock:
            if self._closed:
                raise ShieldError("store.closed")
            connection = self._idle.pop() if self._idle else None
        try:
            connection = connection or reading_connection(self._path)
            yield Database(connection, execute_plugins=False)
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            if connection is not None:
                connection.close()
                connection = None
            raise translated(error) from error
        finally:
            if connection is not None:
                self._give_back(connection)

    def close(self) -> None:
        """Close the idle ones; those in use are closed when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < POOL:
                self._idle.append(connection)
                return
        connection.close()


class Access:
    """What every part of the store holds."""

    def __init__(self, writer: Writer, readers: Readers, run: int) -> None:
        """Args:
        run: number of this start of the daemon; acts pending from an earlier one were cut off.
        """
        self.writer = writer
        self.readers = readers
        self.run = run
        self.pid = os.getpid()
        self._ids: tuple[int, ...] = ()
        self._index: dict[int, int] = {}
        self.roots: tuple[bytes, ...] = ()

    def durable(
        self,
        work: Callable[[sqlite3.Connection], _T],
        *,
        essential: bool = False,
        undo: Work | None = None,
        timeout_s: float = 2.0,
    ) -> _T:
        """See `Writer.durable`; refused in a process that was forked off the store's owner."""
        if os.getpid() != self.pid:
            raise ShieldError("store.closed", "the store belongs to another process")
        return self.writer.durable(work, essential=essential, undo=undo, timeout_s=timeout_s)

    def rows(self, sql: str, where: Where | None = None, after: Sequence[object] = ()) -> list[Row]:
        """Run a query; `where` stands for `{where}` in it, `after` are the values behind it."""
        values = [*(where.values if where else ()), *after]
        with self.readers.database() as db:
            return list(db.query(sql.format(where=where or ""), values))

    def records(
        self, make: Callable[[Row], _T], sql: str, where: Where | None = None, after: Sequence[object] = ()
    ) -> list[_T]:
        """Run a query and make a record of each row; `store.damaged` for a row that is none."""
        return [made(make, row) for row in self.rows(sql, where, after)]

    def one(self, sql: str, values: Sequence[object] = ()) -> Row | None:
        """First row of a query, None where there is none."""
        with self.readers.database() as db:
            return next(iter(db.query(sql, list(values))), None)

    def adopt(self, roots: Sequence[bytes]) -> None:
        """Give the trees of the configuration the indices 0, 1, …; trees of earlier ones follow in stable order."""

        def work(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
            connection.executemany("INSERT OR IGNORE INTO trees (root) VALUES (?)", [(root,) for root in roots])
            return connection.execute("SELECT id, root FROM trees ORDER BY id").fetchall()

        known = {root: number for number, root in self.durable(work, essential=True)}
        ordered = [*roots, *(root for root in known if root not in set(roots))]
        if not set(roots) <= known.keys():
            raise ShieldError("store.damaged", "the store does not keep the names of trees; restart sets it aside")
        self._ids = tuple(known[root] for root in ordered)
        self._index = {number: index for index, number in enumerate(self._ids)}
        self.roots = tuple(ordered)

    def tree_id(self, index: int) -> int:
        """The store's number of a tree."""
        if not 0 <= index < len(self._ids):
            raise ShieldError("store.value", f"no tree has the index {index}")
        return self._ids[index]

    def tree_ids(self) -> tuple[int, ...]:
        """All numbers by index."""
        return self._ids

    def tree_index(self, number: int) -> int:
        """Index in `roots` of a stored number."""
        return self._index[number]


def made(make: Callable[[Row], _T], row: Row) -> _T:
    """The record that a row stands for; `store.damaged` where it holds what was never written."""
    try:
        return make(row)
    except (ValueError, KeyError, TypeError) as error:
        raise ShieldError("store.damaged", "a record in the store makes no sense") from error
