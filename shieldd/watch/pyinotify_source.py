"""The source in plain Python over pyinotify: used where the native watcher may not run, and the oracle of its tests.

Same contract, same order of things (watch, then list), same rules of merging; slower by an order of magnitude. The
kernel's queue is read inside `next_batch`, so a consumer that stays away meets an overflow sooner.
"""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from collections.abc import Sequence

import numpy as np

from shieldd.errors import ShieldError
from shieldd.model.event import EVENT, FACTS, Batch, EventFlag, Kind
from shieldd.native.observe import Baseline, Inspector, Windows
from shieldd.native.watch import CAPACITY
from shieldd.watch import SourceStatus, Tree
from shieldd.watch.native_source import COALESCE_MS
from shieldd.watch.pyinotify_rescan import Rescans
from shieldd.watch.pyinotify_state import MOVE_WAIT_NS, State
from shieldd.watch.records import Record
from shieldd.watch.tree_state import stamp

ROWS = 1024
"""Rows of one batch at most."""


class PyinotifySource:
    """See `shieldd.watch.Source`; the arguments are those of `NativeSource`.

    Raises:
        ShieldError: `watch.limit`, `watch.unsupported`.
    """

    def __init__(
        self,
        trees: Sequence[Tree],
        *,
        inspect: bool = True,
        coalesce_ms: float = COALESCE_MS,
        capacity: int = CAPACITY,
        baseline: Baseline | None = None,
        windows: Windows | None = None,
    ) -> None:
        self._state = State(trees, capacity)
        self._rescans = Rescans(self._state)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._inspect = inspect
        self._inspector = Inspector(baseline)
        self._windows = Windows() if windows is None else windows
        self._hold_ns = int(coalesce_ms * 1e6)
        self._due: list[Record] = []
        self._seq = 0
        self._lock = threading.RLock()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch every directory; what is there now becomes the known state."""
        with self._lock:
            for index in range(len(self._state.trees)):
                if not self._state.scans.watch_root(index):
                    raise ShieldError("watch.root", path=self._state.trees[index].tree.root)
            for index, tree in enumerate(self._state.trees):
                self._state.scans.follow(index, tree.id, report=False)

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next events, None where there are none in time."""
        deadline_ns = time.monotonic_ns() + int(max(timeout_s, 0) * 1e9)
        while True:
            if self._stopped.is_set():
                raise ShieldError("watch.stopped")
            with self._lock:
                self._state.read()
                self._rescans.check_roots(time.monotonic_ns())
                if not self._due:
                    self._gather()
                if self._due:
                    return self._batch()
                now_ns = time.monotonic_ns()
                wake_ns = min(deadline_ns, self._next_ns(now_ns))
            if now_ns >= deadline_ns:
                return None
            poller = select.poll()
            poller.register(self._state.queue.fd, select.POLLIN)
            poller.register(self._wake, select.POLLIN)
            poller.poll(max(0, wake_ns - now_ns) / 1e6)

    def expect(self, tree: int, path: bytes, kinds: int, *, count: int = 1, ttl_s: float = 10.0) -> None:
        """Announce own operations."""
        now_ns = time.monotonic_ns()
        with self._lock:
            until_ns = now_ns + int(ttl_s * 1e9)
            if count:
                self._state.announced.add(tree, path, kinds, count, until_ns, now_ns)
            else:  # exact: it is read under this lock, and what the act did is queued by now
                last = self._state.bytes_read + self._state.queue.waiting()
                self._state.announced.end(tree, path, until_ns, last)

    def rescan(self, tree: int) -> None:
        """Ask for a rescan of a tree."""
        with self._lock:
            if not 0 <= tree < len(self._state.trees):
                raise ShieldError("native.argument", "no such tree")
            self._state.trees[tree].rescan = True
        os.eventfd_write(self._wake, 1)

    def status(self) -> SourceStatus:
        """Counters as of now."""
        with self._lock:
            unwatched = len(self._state.directories.unwatched())
            blind = [t.blind_since_ns for t in self._state.trees if t.blind_since_ns]
            places = [*self._state.left_out.items()]
            places += [(t.tree.root, "the root of the tree is gone") for t in self._state.trees if t.gone]
            for id_, code in self._state.unwatched.items():
                entry, path = self._state.directories.by_id.get(id_), self._state.directories.path(id_)
                if entry is not None and path is not None:
                    places.append(
                        (os.path.join(self._state.trees[entry.tree].tree.root, path), os.strerror(code).lower())
                    )
            return SourceStatus(
                backend="pyinotify",
                watches=len(self._state.directories.by_id) - unwatched,
                directories=len(self._state.directories.by_id),
                overflows=self._state.counts.overflows,
                events_lost=self._state.counts.lost,
                watch_failures=self._state.counts.watch_failures,
                rescans=self._state.counts.rescans,
                blind_since_ns=min(blind) if blind else None,
                queue_depth=len(self._state.records.records) + len(self._due),
                events=self._state.counts.events,
                merged=self._state.counts.merged,
                own=self._state.announced.dropped,
                not_covered=tuple(places),
            )

    def stop(self) -> None:
        """End; wakes `next_batch`."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        os.eventfd_write(self._wake, 1)
        with self._lock:
            self._state.queue.close()
            for tree in self._state.trees:
                os.close(tree.fd)

    def _gather(self) -> None:
        self._due = self._state.records.take(time.monotonic_ns(), self._hold_ns)
        self._due += self._state.notices.values()
        self._state.notices = {}
        if not self._due:
            self._due = self._rescans.work()

    def _next_ns(self, now_ns: int) -> int:
        due_ns = self._state.records.due_in(now_ns, self._hold_ns)
        times = [now_ns + 1_000_000_000]
        if due_ns is not None:
            times.append(now_ns + due_ns)
        if self._state.moves:
            times.append(self._state.moves[0].at_ns + MOVE_WAIT_NS)
        if self._state.scans.waiting:
            times.append(now_ns + 5_000_000)
        work_ns = self._rescans.next_ns(now_ns)
        if work_ns is not None:
            times.append(work_ns)
        return min(times)

    def _batch(self) -> Batch:
        rows, self._due = self._due[:ROWS], self._due[ROWS:]
        events = np.zeros(len(rows), EVENT)
        names = bytearray()
        for row, record in enumerate(rows):
            self._seq += 1
            event = events[row]
            event["seq"], event["at_ns"], event["mono_ns"] = self._seq, record.at_ns, record.mono_ns
            event["actor"], event["tree"], event["merged"] = record.tree + 1, record.tree, record.merged
            event["path_off"], event["path_len"] = len(names), len(record.path)
            names += record.path
            if record.old_path:
                event["from_off"], event["from_len"] = len(names), len(record.old_path)
                names += record.old_path
            event["uid"] = 0xFFFFFFFF
            self._look(record, event)
            event["kind"], event["ops"], event["flags"] = record.kind, record.ops, record.flags
        arena = bytes(names)
        facts = self._facts(events, arena)
        return Batch(events, facts, self._windows.observe(events, facts), arena)

    def _look(self, record: Record, event: np.void) -> None:
        """Fill in what the inode says, and keep the known state."""
        files = self._state.known.setdefault(record.place[0], {}) if record.kind <= Kind.ATTRIB else {}
        if record.kind is Kind.DELETE:
            files.pop(record.place[1], None)
        if record.kind is Kind.RENAME:
            if record.place[1] in files:
                record.flags |= EventFlag.OVER
            self._state.known.get(record.old_place[0], {}).pop(record.old_place[1], None)
        if record.kind not in (Kind.CREATE, Kind.WRITE, Kind.RENAME, Kind.ATTRIB, Kind.MAKE_DIR):
            return
        try:
            status = os.stat(record.path, dir_fd=self._state.trees[record.tree].fd, follow_symlinks=False)
        except OSError:
            return
        event["dev"], event["ino"], event["uid"], event["mode"] = (
            status.st_dev,
            status.st_ino,
            status.st_uid,
            status.st_mode,
        )
        if record.kind is Kind.MAKE_DIR:
            return
        if not stat.S_ISREG(status.st_mode):
            record.flags |= EventFlag.SPECIAL
        if record.kind is Kind.CREATE and record.flags & EventFlag.SYNTHETIC and status.st_size > 0:
            record.ops |= 1 << Kind.WRITE
        files[record.place[1]] = stamp(status)

    def _facts(self, events: np.ndarray, names: bytes) -> np.ndarray:
        facts = np.zeros(len(events), FACTS)
        for index, tree in enumerate(self._state.trees):
            rows = np.flatnonzero((events["tree"] == index) & (events["path_len"] > 0))
            if len(rows):
                asked = events[rows]
                if not self._inspect:
                    asked["kind"] = Kind.READ  # names only
                facts[rows] = self._inspector.inspect_many(tree.fd, asked, names)
        return facts
