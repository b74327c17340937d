"""Keeping preserved versions; `shieldd.respond.versions` finds them again.

The keeper's thread links every guarded file at start and whatever comes after, notes what lost its last name, lets go
what is too old or too much, digests copies in quiet moments, and holds what open incidents need. Copies before a write
are the answerer's; it has a writer of its own on the same vault. Nobody waits for the keeper: what does not fit into
its queue makes it look through the tree once more.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from shieldd.config import PreserveSection
from shieldd.errors import ShieldError
from shieldd.model.event import Batch, EventFlag, Kind
from shieldd.model.version import Keep
from shieldd.native.preserve import Evicted, Names, VaultStatus, Walk
from shieldd.respond import Trees
from shieldd.respond.vaults import Held, open_vaults

QUEUE: Final = 262_144  # events that wait, about 100 bytes each; beyond it the tree is looked through once more
PIECE: Final = 4096  # of them in hand at a time
SLICE: Final = 2_000  # files linked between two looks at what happened meanwhile; about 20 ms
EVICT_S: Final = 2.0
SETTLE_S: Final = 5.0
SETTLE_BYTES: Final = 16 << 20  # digested at a time
SYNC_S: Final = 30.0
LOST_NS: Final = 60_000_000_000  # versions this much older than an incident's first event are held too

_LINKED: Final = np.array([Kind.CREATE, Kind.WRITE, Kind.RENAME])
_ONE_FILE_ONLY: Final = frozenset({"file.missing", "file.not-regular", "file.race", "file.symlink", "file.directory"})

log = structlog.get_logger("shieldd.preserve")


@dataclass(frozen=True, slots=True)
class Preserving:
    """How one vault stands, for the status.

    Attributes:
        path: its directory.
        trees: indices of the trees that it serves.
        linking: trees that are still being linked.
        status: its counters.
        evicted: what the last eviction left.
        degraded: sentences on what does not work here, empty where all does.
    """

    path: bytes
    trees: tuple[int, ...]
    linking: tuple[int, ...]
    status: VaultStatus
    evicted: Evicted | None
    degraded: tuple[str, ...]


class Keeper:
    """Keeps versions; one thread."""

    def __init__(
        self,
        trees: Trees,
        section: PreserveSection,
        *,
        places: Mapping[int, Path] | None = None,
        exclude: Mapping[int, Sequence[bytes]] | None = None,
        failed: Callable[[str, str], None] = lambda code, text: None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open the vaults; nothing is linked before `start`.

        Args:
            places: directories for vaults that the configuration names, by index of the tree.
            exclude: globs of what is not guarded, by index of the tree.
            failed: told of what does not work (code, sentence).
        """
        self._section = section
        self._exclude = dict(exclude or {})
        self._failed = failed
        self._now_ns = now_ns
        self.held, self.refused = open_vaults(tuple(trees), places or {}, section)
        self._by_tree = {tree.index: (held, tree) for held in self.held for tree in held.trees}
        self._changes: deque[tuple[np.ndarray, bytes]] = deque()  # rows of `EVENT`, and the names that they point into
        self._made: list[tuple[int, bytes]] = []  # by us: tree and path
        self._waiting = 0
        self._again: set[int] = set(self._by_tree)
        self._walks: deque[tuple[int, Walk]] = deque()
        self._evicted: dict[int, Evicted] = {}
        self._told: set[tuple[int, str]] = set()
        self._due = {"evict": 0.0, "settle": 0.0, "sync": 0.0}
        self._wake = threading.Condition()
        self._busy = False
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="shieldd-preserve", daemon=True)
        for index, error in self.refused.items():
            log.warning("no versions are preserved of a tree", tree=index, code=error.code, reason=error.message)
            failed(error.code, f"no versions are preserved of a tree: {error.message}")

    def start(self) -> None:
        """Begin to link the trees."""
        self._thread.start()

    def note(self, batch: Batch) -> None:
        """Take note of what happened; never blocks, never raises."""
        if not self._by_tree:
            return
        events = batch.events.copy()  # without the facts and observations that lie in the same piece of memory
        with self._wake:
            if self._waiting + len(events) > QUEUE:
                self._again |= set(np.unique(events["tree"]).tolist()) & self._by_tree.keys()
            else:
                self._changes.append((events, batch.names))
                self._waiting += len(events)
            self._wake.notify()

    def made(self, tree: int, path: bytes) -> None:
        """We made a file, of which no watcher tells: it is linked like all that comes. Never blocks, never raises."""
        if tree not in self._by_tree or not self._section.hardlinks:
            return
        with self._wake:
            if self._waiting >= QUEUE:
                self._again.add(tree)
            else:
                self._made.append((tree, path))
                self._waiting += 1
            self._wake.notify()

    def sealed(self, tree: int, paths: Sequence[bytes]) -> None:
        """Files were sealed or taken away: no link to their content in the clear stays; copies go with their age."""
        if tree not in self._by_tree:
            return
        held = self._by_tree[tree][0]
        with self._going_on(tree):
            last = [x for path in paths for x in held.vault.find(path=path, tree=tree, standing=True, limit=1)]
            links = [x for x in last if x.kind is Keep.LINK]
            if links:
                held.vault.forget([x.id for x in links])
            for link in links:
                if _exists(held.fd, b"links/%016x" % link.object_id):  # it has versions under other names
                    held.vault.forget((), ino=link.ino)

    def pin(self, incident_id: str, actor_key: int, since_ns: int) -> None:
        """Hold the versions of an open incident, durable in every vault when this returns.

        Args:
            actor_key: 0 for any actor.
            since_ns: of the first event, wall clock.
        """
        for held in self.held:
            held.vault.pin(incident_id.encode(), actor_key, max(0, since_ns - LOST_NS))

    def unpin(self, incident_id: str) -> None:
        """An incident is over, its versions age like any."""
        for held in self.held:
            held.vault.unpin(incident_id.encode())

    def status(self) -> tuple[Preserving, ...]:
        """How every vault stands."""
        with self._wake:
            linking = self._again | {index for index, _ in self._walks}
        return tuple(
            Preserving(
                held.path,
                tuple(tree.index for tree in held.trees),
                tuple(sorted(linking & {tree.index for tree in held.trees})),
                status := held.vault.status(),
                self._evicted.get(held.number),
                _degraded(status, self._evicted.get(held.number), self._section),
            )
            for held in self.held
        )

    def troubles(self) -> dict[str, str]:
        """What does not work at this moment: sentences by code."""
        found: dict[str, str] = {}
        for index, error in self.refused.items():
            found.setdefault(error.code, f"no versions are preserved of tree {index}: {error.message}")
        for held in self.held:
            evicted, status = self._evicted.get(held.number), held.vault.status()
            if evicted is not None and evicted.free < held.min_free:
                found.setdefault("preserve.space", "too little space is free: no copies are made, links are")
            if evicted is not None and evicted.over:
                found.setdefault("preserve.quota", "open incidents need more versions than the quota allows")
            if status.damaged or status.missing:
                found.setdefault("preserve.damaged", "preserved versions are damaged, replaced or gone")
        return found

    def settled(self, timeout_s: float) -> bool:
        """Wait until all trees are linked and nothing waits; False when the time ran out."""
        with self._wake:
            return self._wake.wait_for(
                lambda: not (self._changes or self._made or self._again or self._walks or self._busy), timeout_s
            )

    def close(self) -> None:
        """Stop the thread, write out what waits, close the vaults. May be called twice."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        for held in self.held:
            try:
                held.vault.flush(durable=True)
            except ShieldError as error:
                log.warning("a vault could not be written out", code=error.code)
            held.vault.close()
            os.close(held.fd)
            os.close(held.lock)
        self.held = []

    def _run(self) -> None:
        while self._wait():
            self._link_changes()
            self._walk_on()
            self._keep_house()
            with self._wake:
                self._busy = False
                self._wake.notify_all()

    def _wait(self) -> bool:
        with self._wake:
            due = min(self._due.values()) - time.monotonic()
            if not (self._changes or self._made or self._again or self._walks or self._stop) and due > 0:
                self._wake.wait(due)
            self._busy = True
            return not self._stop

    def _link_changes(self) -> None:
        with self._wake:
            changes, self._changes, self._waiting = self._changes, deque(), 0
            made, self._made = self._made, []
        for index in {index for index, _ in made}:
            self._link(index, Names.of([path for tree, path in made if tree == index]), None)
        for events, names in changes:
            for at in range(0, len(events), PIECE):
                piece = events[at : at + PIECE]
                piece = piece[(piece["flags"] & EventFlag.SPECIAL) == 0]
                for index in np.unique(piece["tree"]).tolist():
                    if index in self._by_tree:
                        self._take_in(index, piece[piece["tree"] == index], names)

    def _take_in(self, index: int, events: np.ndarray, names: bytes) -> None:
        """Events of one tree: what came is linked, what went or was replaced is noted."""
        held, _ = self._by_tree[index]
        kinds = events["kind"]
        for event in events[kinds == Kind.RENAME_DIR]:
            start = int(event["path_off"])
            self._begin_walk(index, names[start : start + int(event["path_len"])])
        came = events[np.isin(kinds, _LINKED)]
        if len(came) and self._section.hardlinks:
            self._link(index, Names(names, came["path_off"], came["path_len"]), came["actor"])
        # a name under which something came may have stood for another file before
        gone = events[np.isin(kinds, _LINKED) | (kinds == Kind.DELETE)]
        old = events[(kinds == Kind.RENAME) & (events["from_len"] > 0)]
        offsets = np.concatenate([gone["path_off"], old["from_off"]])
        lengths = np.concatenate([gone["path_len"], old["from_len"]])
        if len(offsets):
            with self._going_on(index):
                held.vault.touched(index, Names(names, offsets, lengths))

    def _link(self, index: int, paths: Names, actors: np.ndarray | None) -> None:
        held, tree = self._by_tree[index]
        by = np.zeros(len(paths), np.uint64) if actors is None else actors
        with self._going_on(index):
            for error in held.vault.link_rows(tree.root_fd, index, paths, by, self._now_ns()):
                if error.code not in _ONE_FILE_ONLY:
                    self._tell(index, error)

    def _begin_walk(self, index: int, beneath: bytes = b"") -> None:
        held, tree = self._by_tree[index]
        if self._section.hardlinks:
            with self._going_on(index):
                walk = held.vault.walk(tree.root_fd, index, self._exclude.get(index, ()), beneath)
                with self._wake:
                    self._walks.append((index, walk))

    def _walk_on(self) -> None:
        with self._wake:
            again, self._again = self._again, set()
        for index in sorted(again):
            self._begin_walk(index)
        if not self._walks:
            return
        index, walk = self._walks[0]
        over = True
        with self._going_on(index):
            over = bool(walk.step(SLICE, self._now_ns()).done)
        if over:
            walk.close()
            with self._wake:
                self._walks.popleft()

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now >= self._due["evict"]:
            self._due["evict"] = now + EVICT_S
            for held in self.held:
                self._evict(held)
        if now >= self._due["settle"]:
            self._due["settle"] = now + SETTLE_S
            for held in self.held:
                with self._going_on(held.trees[0].index):
                    held.vault.settle(now_ns=self._now_ns(), budget_bytes=SETTLE_BYTES)
        if now >= self._due["sync"]:
            first = self._due["sync"] == 0
            self._due["sync"] = now + SYNC_S
            for held in self.held:
                with self._going_on(held.trees[0].index):
                    held.vault.flush(durable=True)
                    if first:
                        held.vault.compact()

    def _evict(self, held: Held) -> None:
        index = held.trees[0].index
        with self._going_on(index):
            evicted = held.vault.evict(
                now_ns=self._now_ns(),
                age_ns=int(self._section.age_s * 1e9),
                bytes_max=held.bytes_max,
                versions_max=self._section.versions_max,
                min_free=held.min_free,
            )
            self._evicted[held.number] = evicted
            if evicted.over:
                self._tell(index, ShieldError("preserve.quota"))
            if evicted.free < held.min_free:
                self._tell(index, ShieldError("preserve.space"))
        status = held.vault.status()
        if status.damaged or status.missing:
            self._tell(index, ShieldError("preserve.damaged"))

    @contextmanager
    def _going_on(self, index: int) -> Iterator[None]:
        """What fails for one vault is told, and the keeper goes on."""
        try:
            yield
        except ShieldError as error:
            self._tell(index, error)

    def _tell(self, index: int, error: ShieldError) -> None:
        """Say a trouble once for each vault; the status shows whether it lasts."""
        key = (self._by_tree[index][0].number, error.code)
        if key not in self._told:
            self._told.add(key)
            log.warning("versions are not all preserved", code=error.code, reason=error.message)
            self._failed(error.code, f"versions are not all preserved: {error.message}")


def _exists(directory_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _degraded(status: VaultStatus, evicted: Evicted | None, section: PreserveSection) -> tuple[str, ...]:
    found: list[str] = []
    if not section.hardlinks:
        found.append("hard links are switched off: deleted and replaced files are not kept")
    elif not status.hardlinks:
        found.append("the file system has no hard links: deleted and replaced files are not kept")
    if status.no_room:
        found.append(f"{status.no_room} copies were not made for want of room")
    if status.damaged or status.missing:
        found.append(f"{status.damaged + status.missing} preserved objects are damaged, replaced or gone")
    if status.damaged_bytes:
        found.append(f"{status.damaged_bytes} bytes of records are torn or damaged")
    if evicted is not None and evicted.over:
        found.append("more is held than may be, since open incidents need it or files live")
    return tuple(found)
