"""What the pyinotify source keeps, and how each kernel event changes it; the twin of `state.rs`.

Owns: watches, watch table, open moves, waiting records, the known state's files. Does not own batches or rescans.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence

from shieldd.model.event import EventFlag, Kind
from shieldd.native.files import is_own_name
from shieldd.native.watch import excluded
from shieldd.watch import Tree
from shieldd.watch.directories import NONE, Directories, mount_of
from shieldd.watch.kernel_queue import KernelQueue, Raw, records
from shieldd.watch.pyinotify_scan import Scans
from shieldd.watch.records import Announcements, Place, Record, Records
from shieldd.watch.tree_state import Counts, Move, Stamp, Watched, refresh

MOVE_WAIT_NS = 20_000_000  # how long the second half of a move may take


class State:
    """Everything but the consumer's side.

    Raises:
        ShieldError: `watch.limit`, `watch.unsupported`.
    """

    def __init__(self, trees: Sequence[Tree], capacity: int) -> None:
        self.queue = KernelQueue()
        self.trees = [Watched(t, os.dup(t.root_fd), mount_of(t.root_fd)) for t in trees]
        self.directories = Directories()
        self.records = Records(capacity)
        self.announced = Announcements()
        self.notices: dict[tuple[Kind, int], Record] = {}
        self.moves: list[Move] = []
        self.known: dict[int, dict[bytes, Stamp]] = {}
        self.unwatched: dict[int, int] = {}
        self.scans = Scans(self)
        self.left_out: dict[bytes, str] = {}
        self.counts = Counts()
        self.at_ns, self.mono_ns = time.time_ns(), time.monotonic_ns()
        self.scanned: dict[int, tuple[set[bytes], int]] = {}
        self.bytes_read = self.began_at = 0  # of the queue; when the read began that is being applied
        names = self.queue.names
        self._simple = (
            (names.IN_CREATE, Kind.CREATE, True, True),
            (names.IN_MODIFY, Kind.WRITE, True, False),
            (names.IN_CLOSE_WRITE, Kind.WRITE, False, True),
            (names.IN_ATTRIB, Kind.ATTRIB, None, True),
            (names.IN_DELETE, Kind.DELETE, False, True),
        )

    def read(self) -> None:
        """Apply all that waits in the kernel's queue."""
        while data := self.queue.read():
            self.at_ns, self.mono_ns = time.time_ns(), time.monotonic_ns()
            self.began_at, self.bytes_read = self.bytes_read, self.bytes_read + len(data)
            for raw in records(data):
                self.counts.events += 1
                self._apply(raw)
            self.scanned = {k: v for k, v in self.scanned.items() if v[1] > self.bytes_read}
        self.mono_ns = time.monotonic_ns()
        while self.moves and self.mono_ns - self.moves[0].at_ns >= MOVE_WAIT_NS:
            self._ended(self.moves.pop(0))
        self.scans.meet_now()

    def _apply(self, raw: Raw) -> None:
        n = self.queue.names
        if raw.mask & n.IN_Q_OVERFLOW:
            self._overflowed()
            return
        entry = self.directories.by_id.get(raw.wd)
        if entry is None:
            return
        if raw.mask & (n.IN_UNMOUNT | n.IN_DELETE_SELF | n.IN_MOVE_SELF):
            if entry.parent == NONE:
                self.root_gone(entry.tree)
        elif raw.mask & n.IN_IGNORED:
            self._ignored(raw.wd)
        elif raw.name:
            directory, place = bool(raw.mask & n.IN_ISDIR), (raw.wd, raw.name)
            own = not directory and is_own_name(raw.name)
            if raw.mask & n.IN_CREATE:
                self._taken_again(place)
            if raw.mask & n.IN_MOVED_FROM:
                self.scans.forget(place)
                unseen = own or self.excluded(entry.tree, self.path(place), directory=directory)
                self.moves.append(Move(raw.cookie, place, entry.tree, self.mono_ns, directory, unseen))
            elif raw.mask & n.IN_MOVED_TO:
                self._arrived(entry.tree, place, raw.cookie, directory=directory, own=own)
            elif own:
                return
            elif directory and raw.mask & n.IN_CREATE:
                self.directory_came(place)
            elif directory and raw.mask & n.IN_DELETE:
                self._directory_gone(place)
            elif not directory:
                self._file(raw, entry.tree, place)

    def _file(self, raw: Raw, tree: int, place: Place) -> None:
        for mask, kind, held, ends in self._simple:
            if raw.mask & mask:
                if kind is Kind.CREATE and self._was_scanned(place):
                    return
                self._operation(tree, place, kind, held=held, ends=ends)
                return

    def path(self, place: Place) -> bytes:
        """Path of a place relative to its tree's root."""
        above = self.directories.path(place[0]) or b""
        return above + b"/" + place[1] if above else place[1]

    def excluded(self, tree: int, path: bytes, *, directory: bool) -> bool:
        """Whether the configuration leaves a path out."""
        globs = self.trees[tree].tree.exclude
        return bool(globs) and excluded(globs, path, directory=directory)

    def _was_scanned(self, place: Place) -> bool:
        names = self.scanned.get(place[0], (set(), 0))[0]
        found = place[1] in names
        names.discard(place[1])
        return found

    def record(self, kind: Kind, tree: int, place: Place, path: bytes) -> Record:
        """A new record of now."""
        return Record(self.at_ns, self.mono_ns, tree, kind, path, place)

    def add(self, record: Record) -> None:
        """Put a record into the queue, or count it as lost."""
        if self.records.full:
            self._lose(record.tree)
        else:
            self.records.add(record)

    def _operation(self, tree: int, place: Place, kind: Kind, *, held: bool | None, ends: bool = True) -> None:
        path = self.path(place)
        if self.announced.takes(tree, path, (kind,), self.mono_ns, self.began_at, ends=ends):
            refresh(self.known.setdefault(place[0], {}), place[1], self.trees[tree].fd, path)
            return
        live = self.records.live(place)
        if live is not None:
            self.counts.merged += 1
            self.records.merge(live, kind, held=held)
        elif not self.excluded(tree, path, directory=False):
            record = self.record(kind, tree, place, path)
            record.held = bool(held)
            self.add(record)

    def _lose(self, tree: int) -> None:
        self.counts.lost += 1
        self.blind(tree)
        self.notice(Kind.OVERFLOW, tree, b"")

    def blind(self, tree: int) -> None:
        """Something of this tree may have been missed: a rescan is due."""
        self.trees[tree].rescan = True
        self.trees[tree].blind_since_ns = self.trees[tree].blind_since_ns or self.at_ns

    def notice(self, kind: Kind, tree: int, path: bytes) -> None:
        """Tell of something once, and count the rest."""
        notice = self.notices.get((kind, tree))
        if notice is None:
            self.notices[kind, tree] = self.record(kind, tree, (NONE, path), path)
        else:
            notice.merged += 1

    def _overflowed(self) -> None:
        self.counts.overflows += 1
        self.counts.lost += 1
        for index, tree in enumerate(self.trees):
            if not tree.gone:
                self.blind(index)
                self.notice(Kind.OVERFLOW, index, b"")
        self.records.barrier()
        self.moves.clear()
        self.scans.clear()

    def _ignored(self, wd: int) -> None:
        entry = self.directories.by_id[wd]
        if entry.parent == NONE:
            self.root_gone(entry.tree)
            return
        new = self.directories.unwatched_id()
        self.directories.rekey(wd, new)
        self.unwatched[new] = errno.ENOENT
        self.known[new] = self.known.pop(wd, {})

    def root_gone(self, index: int) -> None:
        tree = self.trees[index]
        if tree.id == NONE:
            return
        self.forget(tree.id)
        self.blind(index)
        tree.gone, tree.id, tree.rescan = True, NONE, False
        self.notice(Kind.ROOT_GONE, index, b"")

    def forget(self, id_: int) -> None:
        """Take a directory and all below it out of the table and give its watches back."""
        for gone in self.directories.remove(id_):
            if gone > 0:
                self.queue.unwatch(gone)
            self.unwatched.pop(gone, None)
            self.scanned.pop(gone, None)
            self.known.pop(gone, None)

    def _arrived(self, tree: int, place: Place, cookie: int, *, directory: bool, own: bool) -> None:
        source = next((m for m in reversed(self.moves) if m.cookie == cookie), None)
        if source is not None:
            self.moves.remove(source)
        self._taken_again(place)
        hidden = own or self.excluded(tree, self.path(place), directory=directory)
        if source is None or source.unseen or hidden or source.tree != tree:
            if source is not None:
                self._ended(source)
            if not hidden:
                self._moved_in(tree, place, directory=directory)
        elif directory:
            self._directory_moved(tree, source, place)
        else:
            self._renamed(tree, source, place)

    def _taken_again(self, place: Place) -> None:
        """A name that something moved away from is in use again: whatever left went out of our sight."""
        for source in [move for move in self.moves if move.place == place]:
            self.moves.remove(source)
            self._ended(source)

    def _ended(self, source: Move) -> None:
        if source.unseen or source.place[0] not in self.directories.by_id:
            return
        if source.directory:
            if self.directories.child(*source.place) is not None or not self.scans.was_ahead(source.place, None):
                self._directory_gone(source.place)
        elif not self.announced.takes(
            source.tree, self.path(source.place), (Kind.RENAME,), self.mono_ns, self.began_at
        ):
            self._operation(source.tree, source.place, Kind.DELETE, held=False)

    def _moved_in(self, tree: int, place: Place, *, directory: bool) -> None:
        if directory:
            self.directory_came(place)
        elif not self._was_scanned(place) and not self.announced.takes(
            tree, self.path(place), (Kind.RENAME,), self.mono_ns, self.began_at
        ):
            self._operation(tree, place, Kind.CREATE, held=False)

    def _renamed(self, tree: int, source: Move, place: Place) -> None:
        path = self.path(place)
        if self.announced.takes(tree, path, (Kind.RENAME, Kind.CREATE), self.mono_ns, self.began_at):
            refresh(self.known.setdefault(place[0], {}), place[1], self.trees[tree].fd, path)
            return
        live = self.records.live(source.place)
        if live and live.kind is not Kind.DELETE and not live.old_path and not self.records.touched(place):
            self.counts.merged += 2
            self.records.carry(live, path, place)
            return
        target = self.records.live(place)
        record = self.record(Kind.RENAME, tree, place, path)
        record.merged = 2
        record.old_path, record.old_place = self.path(source.place), source.place
        if target is not None and target.kind is not Kind.DELETE:
            record.flags |= EventFlag.OVER
        self.counts.merged += 1
        self.add(record)

    def directory_came(self, place: Place) -> None:
        """A directory appeared: report it, watch it, list it."""
        entry = self.directories.by_id[place[0]]
        path = self.path(place)
        if self.directories.child(*place) is not None or self.excluded(entry.tree, path, directory=True):
            return
        if not self.announced.takes(entry.tree, path, (Kind.MAKE_DIR,), self.mono_ns, self.began_at):
            self.add(self.record(Kind.MAKE_DIR, entry.tree, place, path))
        self.scans.enter(entry.tree, place)

    def _directory_gone(self, place: Place) -> None:
        self.scans.forget(place)
        tree, path = self.directories.by_id[place[0]].tree, self.path(place)
        known = self.directories.child(*place)
        if known is not None:
            self.forget(known)
        elif self.excluded(tree, path, directory=True):
            return
        if not self.announced.takes(tree, path, (Kind.REMOVE_DIR,), self.mono_ns, self.began_at):
            self.add(self.record(Kind.REMOVE_DIR, tree, place, path))
        self.records.barrier()  # a new directory of this name may follow

    def _directory_moved(self, tree: int, source: Move, place: Place) -> None:
        id_, over = self.directories.child(*source.place), self.directories.child(*place)
        old_path = self.path(source.place)
        if id_ is not None:
            if over is not None and over != id_:
                self.forget(over)  # an empty directory was replaced
            self.directories.move(id_, *place)
            self.scans.check_moved(id_, tree, place)
        elif self.scans.was_ahead(source.place, place):
            return
        self.report_moved(tree, (source.place, old_path), place)
        if id_ is None and over is None:  # it was moved on before it could be opened under its first name
            self.scans.enter(tree, place)

    def report_moved(self, tree: int, old: tuple[Place, bytes], place: Place) -> None:
        """Tell that a directory has a new name; `old` is its place and its path before."""
        path = self.path(place)
        if not self.announced.takes(tree, path, (Kind.RENAME_DIR, Kind.RENAME), self.mono_ns, self.began_at):
            record = self.record(Kind.RENAME_DIR, tree, place, path)
            record.merged = 2
            record.old_place, record.old_path = old
            self.add(record)
        self.records.barrier()
