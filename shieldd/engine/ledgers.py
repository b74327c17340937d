"""Adapters: what the responders note, as the store keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from shieldd.errors import ShieldError
from shieldd.respond import Trees
from shieldd.respond.quarantine import SUFFIX, Held
from shieldd.respond.seal import SealedEntry
from shieldd.store import QuarantineRecord, SealedRecord, Store


class SealedIndex:
    """`shieldd.respond.seal.Inventory` on the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def sealed(self, entries: Sequence[SealedEntry]) -> None:
        """Add or replace entries."""
        self._store.files.upsert(
            [
                SealedRecord(
                    tree=x.tree,
                    path=x.path,
                    original=x.original,
                    size=x.size,
                    sealed_at_ns=x.sealed_at_ns,
                    why=x.why,
                    threat_id=x.threat_id,
                    file_id=x.file_id,
                    key_id=x.key_id,
                    key_version=x.key_version,
                    digest=x.digest,
                )
                for x in entries
            ]
        )

    def opened(self, tree: int, path: bytes) -> None:
        """Drop an entry."""
        self._store.files.remove([(tree, path)])


class HeldIndex:
    """`shieldd.respond.quarantine.Index` on the store."""

    def __init__(self, store: Store, trees: Trees) -> None:
        self._store = store
        self._trees = trees

    def held(self, entry: Held) -> None:
        """Add or replace an entry."""
        tree, original = self._place(entry.original)
        self._store.quarantine.upsert(
            [
                QuarantineRecord(
                    id=entry.id,
                    tree=tree,
                    original=original,
                    name=entry.id.encode() + SUFFIX,
                    size=entry.size,
                    at_ns=entry.at_ns,
                    why=entry.why,
                    threat_id=entry.threat_id,
                    mode=entry.mode,
                    uid=entry.uid,
                    gid=entry.gid,
                    modified_at_ns=entry.modified_at_ns,
                    digest=entry.digest,
                    file_id=entry.file_id,
                    key_id=entry.key_id,
                    key_version=entry.key_version,
                    generation=entry.generation,
                )
            ]
        )

    def released(self, object_id: str) -> None:
        """Drop an entry."""
        self._store.quarantine.remove([object_id])

    def _place(self, absolute: bytes) -> tuple[int, bytes]:
        """Tree and path; a tree that is not guarded any more is known by its root, or else by the full name."""
        try:
            tree, path = self._trees.locate(absolute)
        except ShieldError:
            for index, root in enumerate(self._store.roots):
                if absolute.startswith(root.rstrip(b"/") + b"/"):
                    return index, absolute[len(root.rstrip(b"/")) + 1 :]
            return 0, absolute
        return tree.index, path
