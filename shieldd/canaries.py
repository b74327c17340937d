"""Plants canary files in the trees, remembers them, knows them again, and takes them away.

What to plant is `shieldd.detect.canary`'s; which files are canaries is known from our own index alone, nothing in a
file says so. The index (canaries.json, 0600) lies in the state directory; a canary that is gone is planted again at the
next start. A canary has the owner of its directory and mode 0640, so that it neither exposes nor stands out.
"""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import structlog

from shieldd.errors import ShieldError
from shieldd.model.event import Batch, FactFlag, Kind
from shieldd.native import envelope, files
from shieldd.respond import OURS_MADE, GuardedTree, Notice

DIRECTORIES_LOOKED_AT: Final = 2000  # of a tree, when choosing places
MODE: Final = 0o640
SECRET_BYTES: Final = 32
log = structlog.get_logger("shieldd.canaries")


@dataclass(frozen=True, slots=True)
class Planted:
    """One canary that lies in a tree."""

    tree: bytes
    path: bytes


class ToPlant(Protocol):
    """A file as `shieldd.detect.canary` plans it."""

    @property
    def path(self) -> bytes: ...
    @property
    def content(self) -> bytes: ...
    @property
    def age_s(self) -> int: ...


Planner = Callable[[Mapping[bytes, Sequence[bytes]], bytes, int], Sequence[ToPlant]]
PathHash = Callable[[GuardedTree, bytes], int]


class Canaries:
    """The canaries of all trees."""

    def __init__(self, index_path: bytes, secret: bytes, planner: Planner, path_hash: PathHash) -> None:
        """Args:
        index_path: of canaries.json.
        secret: of this host, at least 16 bytes.
        planner: (names of files by directory, secret, count) → what to plant.
        path_hash: key of a path in the core's facts.
        """
        self._index_path = index_path
        self._secret = secret
        self._planner = planner
        self._path_hash = path_hash
        self._planted: set[Planted] = set()
        self._hashes = np.zeros(0, np.uint64)
        self._trees: tuple[GuardedTree, ...] = ()
        self._load()

    def __len__(self) -> int:
        return len(self._planted)

    def in_tree(self, tree: GuardedTree) -> list[bytes]:
        """Paths of the canaries of a tree."""
        return sorted(x.path for x in self._planted if x.tree == tree.root)

    def is_one(self, tree: GuardedTree, path: bytes) -> bool:
        """Whether a canary lies there."""
        return Planted(tree.root, path) in self._planted

    def plant(self, tree: GuardedTree, count: int, notice: Notice | None) -> int:
        """Bring a tree to `count` canaries (0 takes them away); how many lie there then.

        A tree that cannot be written gets none, and that is logged.
        """
        present = [path for path in self.in_tree(tree) if _is_there(tree, path)]
        for path in present[count:]:
            self._remove(tree, path, notice)
        self._planted -= {x for x in self._planted if x.tree == tree.root and x.path not in present[:count]}
        if len(present) < count:
            taken = set(present)
            for canary in self._planner(_directories(tree), self._secret, count):
                if len(taken) >= count or canary.path in taken:
                    continue
                if self._write(tree, canary, notice):
                    taken.add(canary.path)
                    self._planted.add(Planted(tree.root, canary.path))
        self._save()
        self._index([tree])
        return len(self.in_tree(tree))

    def remember(self, trees: Sequence[GuardedTree]) -> None:
        """Compute the keys by which batches are marked."""
        self._trees = tuple(trees)
        self._index(trees)

    def mark(self, batch: Batch) -> None:
        """Set `FactFlag.CANARY` on the rows whose file (or whose file before a rename) is a canary.

        Canaries below a directory that was renamed are known by their new names from the next batch on.
        """
        if not len(self._hashes) or not len(batch):
            return
        for row in np.flatnonzero(batch.events["kind"] == Kind.RENAME_DIR).tolist():
            self._moved(int(batch.events[row]["tree"]), batch.old_path(row) or b"", batch.path(row))
        hit = np.isin(batch.facts["path_hash"], self._hashes) | np.isin(batch.facts["from_hash"], self._hashes)
        if hit.any():
            hit &= batch.events["kind"] <= Kind.ATTRIB
            batch.facts["flags"][hit] |= np.uint64(FactFlag.CANARY)

    def _moved(self, index: int, old: bytes, new: bytes) -> None:
        tree = next((x for x in self._trees if x.index == index), None)
        if tree is None or not old:
            return
        below = {x for x in self._planted if x.tree == tree.root and x.path.startswith(old + b"/")}
        if below:
            self._planted -= below
            self._planted |= {Planted(tree.root, new + x.path[len(old) :]) for x in below}
            self._save()
            self._index([tree])

    def _index(self, trees: Sequence[GuardedTree]) -> None:
        keys = {x.root: x for x in trees}
        found = [self._path_hash(keys[x.tree], x.path) for x in self._planted if x.tree in keys]
        self._hashes = np.unique(np.concatenate([self._hashes, np.array(found, np.uint64)]))

    def _write(self, tree: GuardedTree, canary: ToPlant, notice: Notice | None) -> bool:
        directory, name = os.path.split(canary.path)
        try:
            where = files.open_beneath(tree.root_fd, directory, os.O_DIRECTORY)
        except ShieldError:
            return False
        try:
            if notice is not None:
                notice.expect(tree.index, canary.path, OURS_MADE | 1 << Kind.WRITE, count=6)
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE, dir_fd=where)
            try:
                os.fchmod(fd, MODE)  # the daemon's umask leaves nothing to the group
                os.write(fd, canary.content)
                owner = os.fstat(where)
                if os.geteuid() == 0:
                    os.fchown(fd, owner.st_uid, owner.st_gid)
                then = time.time() - canary.age_s
                os.utime(fd, (then, then))
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("a canary could not be planted", errno=error.errno)
            return False
        finally:
            os.close(where)
        return True

    def _remove(self, tree: GuardedTree, path: bytes, notice: Notice | None) -> None:
        if notice is not None:
            notice.expect(tree.index, path, 1 << Kind.DELETE)
        directory, name = os.path.split(path)
        try:
            where = files.open_beneath(tree.root_fd, directory, os.O_DIRECTORY)
            try:
                os.unlink(name, dir_fd=where)
            finally:
                os.close(where)
        except (OSError, ShieldError) as error:
            log.warning("a canary could not be taken away", errno=error.errno)

    def _load(self) -> None:
        try:
            with open(self._index_path, "rb") as file:
                entries = json.load(file)
            self._planted = {Planted(b64decode(x["tree"]), b64decode(x["path"])) for x in entries}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            # Without the index old canaries are ordinary files: harmless, and new ones are planted.
            log.warning("the index of canaries cannot be read; canaries are planted anew")

    def _save(self) -> None:
        entries = [
            {"tree": b64encode(x.tree).decode(), "path": b64encode(x.path).decode()}
            for x in sorted(self._planted, key=lambda x: (x.tree, x.path))
        ]
        temporary = self._index_path + b".new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(entries, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, self._index_path)


def canary_secret(state_fd: int) -> bytes:
    """Random bytes of this host by which canaries are named, kept 0600 in the state directory."""
    fd = os.open(b"canary-secret", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=state_fd)
    try:
        found = os.read(fd, 64)
        if len(found) < SECRET_BYTES:
            found = bytes(envelope.random_bytes(SECRET_BYTES))
            os.pwrite(fd, found, 0)
            os.fsync(fd)
        return found
    finally:
        os.close(fd)


def _is_there(tree: GuardedTree, path: bytes) -> bool:
    try:
        os.stat(path, dir_fd=tree.root_fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def _directories(tree: GuardedTree) -> dict[bytes, list[bytes]]:
    """Names of the regular files in the first directories of a tree."""
    found: dict[bytes, list[bytes]] = {}
    for top, directories, names, _ in os.fwalk(b".", dir_fd=tree.root_fd, follow_symlinks=False):
        directories[:] = sorted(x for x in directories if not x.startswith(b"."))
        found[os.path.normpath(top) if top != b"." else b""] = [x for x in names if not x.endswith(b".shield")]
        if len(found) >= DIRECTORIES_LOOKED_AT:
            break
    return found
