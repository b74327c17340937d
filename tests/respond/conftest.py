"""Real keys, a real journal, real trees; the ledger and the lists are in memory, so that a test reads them back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shieldd.model.incident import TakenAction
from shieldd.native import envelope
from shieldd.respond import Ended, GuardedTree, Trees
from shieldd.respond.quarantine import Held, Quarantine
from shieldd.respond.seal import SealedEntry, Sealer


@dataclass
class MemoryLedger:
    """A ledger that can be told to refuse."""

    intents: list[TakenAction] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    refuse: Exception | None = None

    def intend(self, actions: Sequence[TakenAction]) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.intents += actions

    def finish(self, ended: Sequence[Ended]) -> None:
        self.ended += ended


@dataclass
class MemoryLists:
    """Both inventories and the watcher's ear."""

    sealed_now: dict[tuple[int, bytes], SealedEntry] = field(default_factory=dict)
    held_now: dict[str, Held] = field(default_factory=dict)
    expected: list[tuple[int, bytes, int]] = field(default_factory=list)
    ended: list[bytes] = field(default_factory=list)
    learned: list[bytes] = field(default_factory=list)

    def sealed(self, entries: Sequence[SealedEntry]) -> None:
        self.sealed_now.update({(x.tree, x.path): x for x in entries})

    def opened(self, tree: int, path: bytes) -> None:
        self.sealed_now.pop((tree, path), None)

    def held(self, entry: Held) -> None:
        self.held_now[entry.id] = entry

    def released(self, object_id: str) -> None:
        self.held_now.pop(object_id, None)

    def expect(self, tree: int, path: bytes, kinds: int, *, count: int = 1, ttl_s: float = 10.0) -> None:
        if count:
            self.expected.append((tree, path, kinds))
        else:
            self.ended.append(path)

    def learn(self, tree: GuardedTree, path: bytes) -> None:
        self.learned.append(path)


@dataclass
class Bench:
    """Everything one test of a responder needs."""

    root: Path
    tree: GuardedTree
    trees: Trees
    ledger: MemoryLedger
    lists: MemoryLists
    sealer: Sealer
    quarantine: Quarantine
    store: Path
    counted: list[int]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    root, journal_dir, store = tmp_path / "tree", tmp_path / "journal", tmp_path / "held"
    for directory in (root, journal_dir, store):
        directory.mkdir(mode=0o700)
    fds = [os.open(x, os.O_RDONLY | os.O_DIRECTORY) for x in (root, journal_dir, store)]
    tree = GuardedTree(0, os.fsencode(root), fds[0])
    trees, ledger, lists, counted = Trees([tree]), MemoryLedger(), MemoryLists(), []
    with envelope.Keyring() as keyring, envelope.Journal(fds[1]) as journal:
        for number, purpose in enumerate((envelope.Purpose.FILES, envelope.Purpose.QUARANTINE)):
            key = envelope.random_bytes(32)
            keyring.add(key_id=bytes([number]) * 16, version=1, purpose=purpose, key=key, seals=True)
        sealer = Sealer(
            keyring, journal, ledger, lists, lists, host_id=b"host", count=counted.append, known=lists.learn
        )
        quarantine = Quarantine(
            fds[2],
            keyring,
            journal,
            ledger,
            lists,
            lists,
            trees,
            host_id=b"host",
            count=counted.append,
            known=lists.learn,
        )
        yield Bench(root, tree, trees, ledger, lists, sealer, quarantine, store, counted)
    for fd in fds:
        os.close(fd)
