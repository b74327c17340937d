"""A tree that people and an attacker work in, with a vault of plain files, a real store and a real quarantine.

The vault keeps what the product's keeps: a link of each file when it is made, a copy from before each write. Events are
recorded as the watcher would, one for each act, under the key of whoever acts.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from shieldd.errors import ShieldError
from shieldd.model.decision import Severity
from shieldd.model.event import EVENT, FACTS, Batch, Kind
from shieldd.model.incident import Incident, State
from shieldd.model.restore import Act, Plan, Step
from shieldd.model.version import Keep, Version
from shieldd.native import envelope
from shieldd.native.restore import digest_of
from shieldd.respond import GuardedTree, Trees
from shieldd.respond.quarantine import Quarantine
from shieldd.respond.restore import Restorer
from shieldd.respond.restore_look import xattrs_of
from shieldd.store import Store
from tests.respond.conftest import MemoryLists

ATTACKER = (1 << 63) + 7
USER = (1 << 63) + 8
ANOTHER = (1 << 63) + 9


@dataclass
class FileVault:
    """Versions as plain files: `links/N` and `images/N` in a directory beside the tree."""

    place: Path
    tree: GuardedTree
    records: list[Version] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    pins: dict[str, tuple[int, int]] = field(default_factory=dict)
    full: bool = False
    linked: list[bytes] = field(default_factory=list)

    def _object(self, version: Version) -> Path:
        return self.place / ("links" if version.kind is Keep.LINK else "images") / f"{version.object_id:016x}"

    def add(self, path: bytes, kind: Keep, *, actor: int = 0, at_ns: int) -> Version:
        number = 1 + max([0, *(int(x.name, 16) for x in self.place.glob("*/*"))])
        source = os.path.join(self.tree.root, path)
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            seen, attributes = os.fstat(fd), xattrs_of(fd)
            names = seen.st_nlink - sum(os.stat(x).st_ino == seen.st_ino for x in self.place.glob("links/*"))
            version = Version(
                id=number, vault=0, kind=kind, tree=0, path=path, at_ns=at_ns, actor=actor, object_id=number,
                ino=seen.st_ino, size=seen.st_size, stored=seen.st_blocks * 512, mode=seen.st_mode, uid=seen.st_uid,
                gid=seen.st_gid, nlink=names, atime_ns=seen.st_atime_ns, mtime_ns=seen.st_mtime_ns,
                ctime_ns=seen.st_ctime_ns, xattrs=attributes, xattrs_partial=False,
                digest=digest_of(fd) if kind is Keep.IMAGE else None, pinned=False, orphan=False, changed=False,
            )  # fmt: skip
            target = self._object(version)
            target.parent.mkdir(exist_ok=True)
            if kind is Keep.LINK:
                os.link(source, target, follow_symlinks=False)
            else:
                out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                _copy(fd, out, seen.st_size)
                os.close(out)
        finally:
            os.close(fd)
        self.records.append(version)
        return version

    def clear(self) -> None:
        """No version at all."""
        for version in self.records:
            self._object(version).unlink(missing_ok=True)
        self.records.clear()

    def let_go(self, ino: int) -> None:
        """Links of an inode go when it is about to be written into: they would hold what is written. Records stay."""
        for version in self.records:
            if version.ino == ino and version.kind is Keep.LINK:
                self._object(version).unlink(missing_ok=True)

    # the contract
    def versions_of(self, tree: int, path: bytes) -> Sequence[Version]:
        return [x for x in self.records if (x.tree, x.path) == (tree, path)]

    def versions_by(self, actor: int, since_ns: int) -> Sequence[Version]:
        return [x for x in self.records if x.actor == actor and x.at_ns >= since_ns]

    def get(self, vault: int, version_id: int) -> Version | None:
        return next((x for x in self.records if (x.vault, x.id) == (vault, version_id)), None)

    def came_back(self, tree: int, paths: Sequence[bytes]) -> None:
        self.linked += paths

    def open(self, version: Version, *, now: bytes = b"") -> int:
        try:
            return os.open(self._object(version), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ShieldError("restore.version") from error

    def keep(self, tree: int, path: bytes, *, actor: int) -> None:
        if self.full:
            raise ShieldError("file.full")
        self.add(path, Keep.LINK, actor=actor, at_ns=1 << 62)
        self.kept.append(path)

    def pin(self, incident_id: str, actor: int, since_ns: int) -> None:
        self.pins[incident_id] = (actor, since_ns)

    def unpin(self, incident_id: str) -> None:
        self.pins.pop(incident_id, None)

    def damage(self, path: bytes) -> None:
        """Turn one bit of every copy of a file."""
        for version in self.records:
            if version.path == path and version.kind is Keep.IMAGE:
                data = bytearray(self._object(version).read_bytes())
                data[0] ^= 1
                self._object(version).write_bytes(bytes(data))


def _copy(source: int, target: int, size: int) -> None:
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            return
        data = os.pread(source, 1 << 16, at)
        os.pwrite(target, data, at)
        at += len(data)


@dataclass
class Scene:
    """One tree with everything around it. Acts are the methods below, each under an actor's key."""

    root: Path
    tree: GuardedTree
    store: Store
    vault: FileVault
    quarantine: Quarantine
    restorer: Restorer
    lists: MemoryLists
    now_ns: int
    events: int = 0
    real: bool = False  # times are those of the clock

    def tick(self) -> int:
        """A moment later: wall clock of a file's change is set by hand, so that times in tests are exact."""
        self.now_ns = time.time_ns() if self.real else self.now_ns + 10_000_000_000
        return self.now_ns

    def full(self, path: bytes) -> bytes:
        return os.path.join(self.tree.root, path)

    def record(self, kind: Kind, path: bytes, who: int, old: bytes = b"") -> None:
        self.events += 1
        event = np.zeros(1, EVENT)
        event["seq"], event["kind"], event["actor"], event["at_ns"] = self.events, kind, who, self.now_ns
        event["path_len"], event["from_off"], event["from_len"] = len(path), len(path), len(old)
        event["merged"], event["pid"] = 1, -1
        batch = Batch(event, np.zeros(1, FACTS), np.ones((1, 4), np.float32), path + old)
        self.store.record_events(batch)

    # acts
    def create(self, path: bytes, data: bytes, who: int = USER, *, preserve: bool = True) -> None:
        at = self.tick()
        Path(os.fsdecode(self.full(path))).write_bytes(data)
        os.utime(self.full(path), ns=(at, at))
        self.record(Kind.CREATE, path, who)
        if preserve and who != ATTACKER:
            self.vault.add(path, Keep.LINK, actor=who, at_ns=at)

    def write(self, path: bytes, data: bytes, who: int = USER, *, preserve: bool = True) -> None:
        at = self.tick()
        if preserve and os.stat(self.full(path)).st_size:
            self.vault.add(path, Keep.IMAGE, actor=who, at_ns=at - 1)
            if who == ATTACKER:
                self.vault.let_go(os.stat(self.full(path)).st_ino)
        with open(self.full(path), "r+b") as file:
            file.truncate(0)
            file.write(data)
        os.utime(self.full(path), ns=(at, at))
        self.record(Kind.WRITE, path, who)

    def delete(self, path: bytes, who: int = USER) -> None:
        self.tick()
        os.unlink(self.full(path))
        self.record(Kind.DELETE, path, who)

    def rename(self, old: bytes, new: bytes, who: int = USER) -> None:
        self.tick()
        directory = os.path.isdir(self.full(old))
        os.rename(self.full(old), self.full(new))
        self.record(Kind.RENAME_DIR if directory else Kind.RENAME, new, who, old)

    def chmod(self, path: bytes, mode: int, who: int = USER) -> None:
        self.tick()
        os.chmod(self.full(path), mode)
        self.record(Kind.ATTRIB, path, who)

    def make_dir(self, path: bytes, who: int = USER, mode: int = 0o755) -> None:
        self.tick()
        os.mkdir(self.full(path), mode)
        self.record(Kind.MAKE_DIR, path, who)

    def remove_tree(self, path: bytes, who: int = ATTACKER) -> None:
        for top, directories, names in os.walk(self.full(path), topdown=False):
            for name in names:
                self.delete(os.path.relpath(os.path.join(top, name), self.tree.root), who)
            for name in directories:
                self._remove_dir(os.path.relpath(os.path.join(top, name), self.tree.root), who)
        self._remove_dir(path, who)

    def _remove_dir(self, path: bytes, who: int) -> None:
        self.tick()
        os.rmdir(self.full(path))
        self.record(Kind.REMOVE_DIR, path, who)

    def encrypt(self, path: bytes, who: int = ATTACKER) -> None:
        """Make an unreadable copy under another name, then delete the file."""
        self.create(path + b".enc", garbled(Path(os.fsdecode(self.full(path))).read_bytes()), who)
        self.delete(path, who)

    # the incident
    def incident(self, since_ns: int, actor: int = ATTACKER) -> Incident:
        return Incident(
            id="inc1", opened_at_ns=since_ns, closed_at_ns=0, state=State.OPEN, severity=Severity.CRITICAL, actor=None,
            actor_id=actor, tree=0, files_touched=0, files_lost=0, first_event_at_ns=since_ns, decided_at_ns=since_ns,
            contained_at_ns=self.now_ns, reasons=(), attack=(),
        )  # fmt: skip

    def begin(self) -> int:
        """The moment before an attack."""
        return self.tick() + 10_000_000_000

    def plan(self, since_ns: int, actor: int = ATTACKER) -> Plan:
        self.store.flush()
        return self.restorer.plan(self.incident(since_ns, actor))

    def steps(self, plan: Plan) -> dict[bytes, Step]:
        """Steps by path; directories have theirs apart."""
        found = self.store.restores.steps(plan.id, limit=100_000)
        return {x.path: x for x in found if x.act is not Act.DIRECTORY}

    def run(self, plan: Plan, *take: bytes) -> dict[bytes, Step]:
        wanted = [self.full(path) for path in take]
        done = list(self.restorer.run(plan, actor=ATTACKER, why="test", take=wanted))
        return {x.path: x for x in done if x.act is not Act.DIRECTORY}

    def restore(self, since_ns: int, *take: bytes) -> dict[bytes, Step]:
        return self.run(self.plan(since_ns), *take)


def garbled(data: bytes) -> bytes:
    """What an attacker makes of a file."""
    return bytes(byte ^ 0x5A for byte in data) + b"salt"


@dataclass(frozen=True)
class Whole:
    """All of a file that must come back."""

    data: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    group: frozenset[bytes]


def state(root: bytes) -> dict[bytes, Whole]:
    """Every file of a tree with everything that it has; names of one inode stand together."""
    found: dict[bytes, tuple[int, Whole]] = {}
    inodes: dict[int, set[bytes]] = {}
    for top, _, names in os.walk(root):
        for name in names:
            full = os.path.join(top, name)
            path = os.path.relpath(full, root)
            seen = os.stat(full, follow_symlinks=False)
            fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                data = os.read(fd, 1 << 30)
                one = Whole(data, seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, xattrs_of(fd), frozenset())
            finally:
                os.close(fd)
            inodes.setdefault(seen.st_ino, set()).add(path)
            found[path] = (seen.st_ino, one)
    return {path: replace(one, group=frozenset(inodes[ino])) for path, (ino, one) in found.items()}


@contextmanager
def staged(directory: Path, *, clean: bool = True) -> Iterator[Scene]:
    """A scene in a directory, which goes afterwards unless it is to be taken up again."""
    root, journal_dir, held, vault_dir = (directory / x for x in ("tree", "journal", "held", "vault"))
    for one in (root, journal_dir, held, vault_dir):
        one.mkdir(mode=0o700, exist_ok=True, parents=True)
    fds = [os.open(x, os.O_RDONLY | os.O_DIRECTORY) for x in (root, journal_dir, held)]
    tree = GuardedTree(0, os.fsencode(root), fds[0])
    lists = MemoryLists()
    with (
        Store(directory / "state" / "shieldd.db", roots=[tree.root]) as store,
        envelope.Keyring() as keyring,
        envelope.Journal(fds[1]) as journal,
    ):
        keyring.add(key_id=bytes(16), version=1, purpose=envelope.Purpose.QUARANTINE, key=bytes(32), seals=True)
        # what a crash cut off in the quarantine is ended first, as the daemon does when it starts
        journal.recover({tree.root: fds[0], os.fsencode(held): fds[2]}, keyring)
        trees = Trees([tree])
        quarantine = Quarantine(fds[2], keyring, journal, store, lists, lists, trees, host_id=b"host")
        vault = FileVault(vault_dir, tree)
        scene = Scene(root, tree, store, vault, quarantine, None, lists, 1_700_000_000_000_000_000)  # type: ignore[arg-type]
        scene.restorer = Restorer(
            trees,
            vault,
            store.restores,
            store.restores,
            store,
            lists,
            quarantine,
            known=lists.learn,
            clock_ns=lambda: scene.now_ns + 1,
        )
        yield scene
    for fd in fds:
        os.close(fd)
    if clean:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene of its own."""
    with staged(tmp_path / "scene") as one:
        yield one
