"""What lies where: sealed files, objects in quarantine, canaries. The first two can be rebuilt from the objects."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from shieldd.errors import ShieldError
from shieldd.store.access import Access, Row, made
from shieldd.store.coding import storable
from shieldd.store.ledger import unique
from shieldd.store.records import Canary, Page, QuarantineRecord, SealedRecord, Where, page

_FILE: Final = f"INSERT OR REPLACE INTO files VALUES ({','.join('?' * 12)})"  # noqa: S608
_QUARANTINE: Final = f"INSERT OR REPLACE INTO quarantine VALUES ({','.join('?' * 17)})"  # noqa: S608
TIMEOUT_S: Final = 10.0


class SealedFiles:
    """Inventory of sealed files, by tree and path."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def upsert(self, records: Sequence[SealedRecord]) -> None:
        """Insert or replace, durable before returning."""
        rows = [self._row(record) for record in records]
        self._access.durable(lambda c: c.executemany(_FILE, rows), essential=True, timeout_s=TIMEOUT_S)

    def remove(self, paths: Iterable[tuple[int, bytes]]) -> None:
        """Take out (tree, path of the sealed file); what is not there is left alone."""
        rows = [(self._access.tree_id(tree), path) for tree, path in paths]
        sql = "DELETE FROM files WHERE tree = ? AND path = ?"
        self._access.durable(lambda c: c.executemany(sql, rows), essential=True, timeout_s=TIMEOUT_S)

    def get(self, tree: int, path: bytes) -> SealedRecord | None:
        """One by the path of the sealed file."""
        sql = "SELECT * FROM files WHERE tree = ? AND path = ?"
        row = self._access.one(sql, [self._access.tree_id(tree), path])
        return made(self._record, row) if row else None

    def list(
        self, *, tree: int | None = None, under: bytes = b"", after: tuple[int, bytes] | None = None, limit: int = 1000
    ) -> Page[SealedRecord]:
        """By tree and path; `after` is (tree, path) of the last one of the page before."""
        where = Where().add("tree = ?", None if tree is None else self._access.tree_id(tree)).under("path", under)
        if after is not None:
            where.add("(tree, path) > (?, ?)", self._access.tree_id(after[0]), after[1])
        found = self._access.records(
            self._record, "SELECT * FROM files{where} ORDER BY tree, path LIMIT ?", where, [limit + 1]
        )
        return page(found, limit, newest_first=False)

    def not_under(
        self, key_id: bytes, *, after: tuple[int, bytes] | None = None, limit: int = 1000
    ) -> Page[SealedRecord]:
        """Files whose header is wrapped by another key than this one: what a rewrap has still to do."""
        where = Where().add("key_id <> ?", key_id)
        if after is not None:
            where.add("(tree, path) > (?, ?)", self._access.tree_id(after[0]), after[1])
        found = self._access.records(
            self._record, "SELECT * FROM files{where} ORDER BY tree, path LIMIT ?", where, [limit + 1]
        )
        return page(found, limit, newest_first=False)

    def rewrapped(self, done: Iterable[tuple[int, bytes, bytes, int, int]]) -> None:
        """Note (tree, path, key id, key version, header generation) of files whose header was re-wrapped."""
        rows = [(key, version, number, self._access.tree_id(tree), path) for tree, path, key, version, number in done]
        sql = "UPDATE files SET key_id = ?, key_version = ?, generation = ? WHERE tree = ? AND path = ?"
        self._access.durable(lambda c: c.executemany(sql, rows), essential=True, timeout_s=TIMEOUT_S)

    def rebuild(self, tree: int, records: Iterable[SealedRecord]) -> int:
        """Replace all of a tree's inventory by what was found on the disk, in one transaction; returns how many."""
        rows = [self._row(record) for record in records]
        number = self._access.tree_id(tree)

        def work(connection: sqlite3.Connection) -> int:
            connection.execute("DELETE FROM files WHERE tree = ?", (number,))
            connection.executemany(_FILE, rows)
            return len(rows)

        return self._access.durable(work, timeout_s=60.0)

    def count(self) -> int:
        """How many there are."""
        return _count(self._access, "files")

    def _row(self, x: SealedRecord) -> tuple[object, ...]:
        return (
            self._access.tree_id(x.tree), x.path, x.original, x.size, x.sealed_at_ns, storable(x.why), x.threat_id,
            x.file_id, x.key_id, x.key_version, x.digest, x.generation,
        )  # fmt: skip

    def _record(self, row: Row) -> SealedRecord:
        return SealedRecord(**{**row, "tree": self._access.tree_index(row["tree"])})


class Quarantined:
    """Inventory of the quarantine, by id."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def upsert(self, records: Sequence[QuarantineRecord]) -> None:
        """Insert or replace, durable before returning."""
        rows = [self._row(record) for record in records]
        self._access.durable(lambda c: c.executemany(_QUARANTINE, rows), essential=True, timeout_s=TIMEOUT_S)

    def remove(self, ids: Iterable[str]) -> None:
        """Take out; what is not there is left alone."""
        rows = [(number,) for number in ids]
        sql = "DELETE FROM quarantine WHERE id = ?"
        self._access.durable(lambda c: c.executemany(sql, rows), essential=True, timeout_s=TIMEOUT_S)

    def get(self, prefix: str) -> QuarantineRecord:
        """One by its id or a beginning of it that no other has; raises `api.not-found`, `api.ambiguous`."""
        return made(self._record, unique(self._access, "quarantine", prefix))

    def list(self, *, after: str | None = None, limit: int = 1000) -> Page[QuarantineRecord]:
        """Oldest first; `after` is the id of the last one of the page before."""
        where = Where()
        if after is not None:
            last = self._access.one("SELECT at_ns, id FROM quarantine WHERE id = ?", [after])
            if last is None:
                raise ShieldError("api.not-found", "the object to go on after is gone; begin the list again")
            where.add("(at_ns, id) > (?, ?)", last["at_ns"], last["id"])
        found = self._access.records(
            self._record, "SELECT * FROM quarantine{where} ORDER BY at_ns, id LIMIT ?", where, [limit + 1]
        )
        return page(found, limit, newest_first=False)

    def places(self) -> dict[bytes, str]:
        """Absolute path that each object was taken from -> its id, the latest where there are several."""
        roots, at = self._access.roots, self._access.tree_index
        rows = self._access.rows("SELECT id, tree, original FROM quarantine ORDER BY at_ns, id")
        return {os.path.join(roots[at(row["tree"])], row["original"]): row["id"] for row in rows}

    def not_under(self, key_id: bytes, *, after: str = "", limit: int = 1000) -> Page[QuarantineRecord]:
        """Objects wrapped by another key than this one, by id."""
        where = Where().add("key_id <> ?", key_id).add("id > ?", after)
        found = self._access.records(
            self._record, "SELECT * FROM quarantine{where} ORDER BY id LIMIT ?", where, [limit + 1]
        )
        return page(found, limit, newest_first=False)

    def rewrapped(self, done: Iterable[tuple[str, bytes, int, int]]) -> None:
        """Note (id, key id, key version, header generation) of objects whose header was re-wrapped."""
        rows = [(key, version, number, name) for name, key, version, number in done]
        sql = "UPDATE quarantine SET key_id = ?, key_version = ?, generation = ? WHERE id = ?"
        self._access.durable(lambda c: c.executemany(sql, rows), essential=True, timeout_s=TIMEOUT_S)

    def rebuild(self, records: Iterable[QuarantineRecord]) -> int:
        """Replace the list by what was found in the objects; returns how many."""
        rows = [self._row(record) for record in records]

        def work(connection: sqlite3.Connection) -> int:
            connection.execute("DELETE FROM quarantine")
            connection.executemany(_QUARANTINE, rows)
            return len(rows)

        return self._access.durable(work, timeout_s=60.0)

    def count(self) -> int:
        """How many there are."""
        return _count(self._access, "quarantine")

    def _row(self, x: QuarantineRecord) -> tuple[object, ...]:
        return (
            x.id, self._access.tree_id(x.tree), x.original, x.name, x.size, x.at_ns, storable(x.why), x.threat_id,
            x.mode, x.uid, x.gid, x.modified_at_ns, x.digest, x.file_id, x.key_id, x.key_version, x.generation,
        )  # fmt: skip

    def _record(self, row: Row) -> QuarantineRecord:
        return QuarantineRecord(**{**row, "tree": self._access.tree_index(row["tree"])})


class Canaries:
    """Which files are canaries; only this list says so."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def add(self, canaries: Sequence[Canary]) -> None:
        """Insert or replace, durable before returning (and so before the file is planted)."""
        rows = [(self._access.tree_id(x.tree), x.path, x.digest, x.planted_at_ns) for x in canaries]
        self._access.durable(lambda c: c.executemany("INSERT OR REPLACE INTO canaries VALUES (?, ?, ?, ?)", rows))

    def remove(self, paths: Iterable[tuple[int, bytes]]) -> None:
        """Take out (tree, path)."""
        rows = [(self._access.tree_id(tree), path) for tree, path in paths]
        self._access.durable(lambda c: c.executemany("DELETE FROM canaries WHERE tree = ? AND path = ?", rows))

    def list(self, tree: int | None = None) -> list[Canary]:
        """By tree and path."""
        where = Where().add("tree = ?", None if tree is None else self._access.tree_id(tree))
        return self._access.records(self._canary, "SELECT * FROM canaries{where} ORDER BY tree, path", where)

    def _canary(self, row: Row) -> Canary:
        return Canary(self._access.tree_index(row["tree"]), row["path"], row["digest"], row["planted_at_ns"])


def _count(access: Access, table: str) -> int:
    return int(access.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])  # noqa: S608 - a constant of ours
