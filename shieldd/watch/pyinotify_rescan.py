"""Rescans of the pyinotify source: directories compared with the known state, in slices.

Owns the walk in progress and its rest. Emits records with the flag `SYNTHETIC`, ended by `RESCAN_DONE`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from shieldd.model.event import EventFlag, Kind
from shieldd.watch.directories import NONE, OPEN_DIR, mount_of, open_dir
from shieldd.watch.pyinotify_state import State
from shieldd.watch.records import Place, Record
from shieldd.watch.tree_state import stamp

POLL_NS = 1_000_000_000
"""Least time between two looks at directories without a watch and at roots that are gone."""

REST = 10
"""A walk is followed by so many times its own duration of rest."""

ROWS = 1024
"""Records of one slice at most (a directory is not cut)."""


@dataclass(slots=True)
class Walk:
    """A walk in progress: ids of directories still to be compared."""

    tree: int
    stack: list[int]
    whole: bool
    found: int = 0
    began_ns: int = field(default_factory=time.monotonic_ns)


class Rescans:
    """Carries rescans out."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._walk: Walk | None = None
        self._due: list[Record] = []
        self._rest_until_ns = 0
        self._roots_ns = 0

    def next_ns(self, now_ns: int) -> int | None:
        """When there is something to do (monotonic, ns), None where nothing is asked for."""
        wanted = any(t.rescan or t.gone for t in self._state.trees) or bool(self._state.directories.unwatched())
        if self._walk is None and not wanted:
            return None
        return max(now_ns, self._rest_until_ns)

    def check_roots(self, now_ns: int) -> None:
        """Look, once a second, whether each root still stands under its path: its removal may send no event."""
        if now_ns < self._roots_ns:
            return
        self._roots_ns = now_ns + POLL_NS
        for index, tree in enumerate(self._state.trees):
            if tree.gone:
                continue
            here = os.fstat(tree.fd)
            try:
                there = os.stat(tree.tree.root)
                same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
            except PermissionError:  # the path may be closed to us while the descriptor is not
                same = here.st_nlink > 0
            except OSError:
                same = False
            if not same:
                self._state.root_gone(index)

    def work(self) -> list[Record]:
        """Go on with a walk, or begin one that is due; returns what it found."""
        self._due = []
        self._slice()
        return self._due

    def _slice(self) -> None:
        now_ns = time.monotonic_ns()
        if self._walk is None:
            if now_ns < self._rest_until_ns:
                return
            self._begin(now_ns)
        walk = self._walk
        if walk is None:
            return
        while walk.stack and len(self._due) < ROWS:
            self._compare(walk, walk.stack.pop())
        if walk.stack:
            return
        self._walk = None
        pause_ns = (time.monotonic_ns() - walk.began_ns) * REST
        self._rest_until_ns = time.monotonic_ns() + max(pause_ns, 0 if walk.whole else POLL_NS)
        if walk.whole:
            self._state.counts.rescans += 1
            tree = self._state.trees[walk.tree]
            if not tree.rescan and not tree.gone:
                tree.blind_since_ns = 0
            done = self._state.record(Kind.RESCAN_DONE, walk.tree, (NONE, b""), b"")
            done.merged = walk.found
            self._due.append(done)

    def _begin(self, now_ns: int) -> None:
        self._state.at_ns, self._state.mono_ns = time.time_ns(), now_ns
        for index, tree in enumerate(self._state.trees):
            if tree.gone:
                self._come_back(index)
        whole = next((i for i, t in enumerate(self._state.trees) if t.rescan and not t.gone), None)
        if whole is not None:
            self._state.trees[whole].rescan = False
            self._walk = Walk(whole, [self._state.trees[whole].id], whole=True)
        elif self._state.directories.unwatched():
            self._walk = Walk(0, self._state.directories.unwatched(), whole=False)
        else:
            self._rest_until_ns = now_ns + POLL_NS if any(t.gone for t in self._state.trees) else 0

    def _come_back(self, index: int) -> None:
        tree = self._state.trees[index]
        try:
            fd = os.open(tree.tree.root, OPEN_DIR)
        except OSError:
            return
        os.close(tree.fd)
        tree.fd, tree.mount = fd, mount_of(fd)
        if self._state.scans.watch_root(index):
            tree.gone, tree.rescan = False, True

    def _compare(self, walk: Walk, id_: int) -> None:
        entry, path = self._state.directories.by_id.get(id_), self._state.directories.path(id_)
        if entry is None or path is None:
            return
        root = self._state.trees[entry.tree]
        place = (entry.parent, entry.name)
        try:
            fd = open_dir(root.fd, path, root.mount)
        except PermissionError:
            return
        except OSError:
            if entry.parent != NONE:
                self._vanished(walk, entry.tree, id_, place, path)
            return
        try:
            wd = self._state.queue.watch(fd, self._state.queue.mask)
        except OSError:
            wd = id_
        finally:
            os.close(fd)
        if wd != id_ and id_ < 0 and wd not in self._state.directories.by_id:
            self._state.unwatched.pop(id_, None)
            self._state.directories.rekey(id_, wd)
            self._state.known[wd] = self._state.known.pop(id_, {})
            id_ = wd
        elif wd != id_ and entry.parent != NONE and id_ > 0:
            self._state.forget(id_)
            walk.found += 1
            self._state.directory_came(place)
            return
        if walk.whole:
            walk.stack.extend(entry.children.values())
        self._differences(walk, entry.tree, id_)

    def _vanished(self, walk: Walk, tree: int, id_: int, place: Place, path: bytes) -> None:
        for name in self._state.known.get(id_, {}):
            self._synthetic(walk, Kind.DELETE, tree, (id_, name), path + b"/" + name)
        self._state.forget(id_)
        self._synthetic(walk, Kind.REMOVE_DIR, tree, place, path)

    def _synthetic(self, walk: Walk, kind: Kind, tree: int, place: Place, path: bytes) -> None:
        walk.found += 1
        record = self._state.record(kind, tree, place, path)
        record.flags = EventFlag.SYNTHETIC
        self._due.append(record)

    def _differences(self, walk: Walk, tree: int, id_: int) -> None:
        known = self._state.known.setdefault(id_, {})
        seen: set[bytes] = set()
        for name, directory, status in self._state.scans.listing(tree, id_):
            place = (id_, name)
            if directory:
                if self._state.directories.child(*place) is None:
                    walk.found += 1
                    self._state.directory_came(place)
            elif status is not None:
                seen.add(name)
                before, now = known.get(name), stamp(status)
                if before == now:
                    continue
                if before is None or before[0] != now[0]:
                    kind = Kind.CREATE
                else:
                    kind = Kind.WRITE if before[1:3] != now[1:3] else Kind.ATTRIB
                known[name] = now
                self._synthetic(walk, kind, tree, place, self._state.path(place))
        for name in known.keys() - seen:
            del known[name]
            self._synthetic(walk, Kind.DELETE, tree, (id_, name), self._state.path((id_, name)))
