"""What the pyinotify source keeps, and how each kernel event changes it; the twin of `state.rs` and `scan.rs`.

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
from shieldd.watch.directories import NONE, Directories, MountPointError, list_dir, mount_of, open_dir
from shieldd.watch.kernel_queue import KernelQueue, Raw, records
from shieldd.watch.records import Announcements, Place, Record, Records
from shieldd.watch.tree_state import Counts, Move, Stamp, Watched, refresh, stamp

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
        self.left_out: dict[bytes, str] = {}
        self.counts = Counts()
        self.at_ns, self.mono_ns = time.time_ns(), time.monotonic_ns()
        self._scanned: dict[int, tuple[set[bytes], int]] = {}
        self._bytes_read = 0
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
            self._bytes_read += len(data)
            for raw in records(data):
                self.counts.events += 1
                self._apply(raw)
            self._scanned = {k: v for k, v in self._scanned.items() if v[1] > self._bytes_read}
        self.mono_ns = time.monotonic_ns()
        while self.moves and self.mono_ns - self.moves[0].at_ns >= MOVE_WAIT_NS:
            self._ended(self.moves.pop(0))

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
                unseen = own or self._excluded(entry.tree, self.path(place), directory=directory)
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

    def _excluded(self, tree: int, path: bytes, *, directory: bool) -> bool:
        globs = self.trees[tree].tree.exclude
        return bool(globs) and excluded(globs, path, directory=directory)

    def _was_scanned(self, place: Place) -> bool:
        names = self._scanned.get(place[0], (set(), 0))[0]
        found = place[1] in names
        names.discard(place[1])
        return found

    def record(self, kind: Kind, tree: int, place: Place, path: bytes) -> Record:
        """A new record of now."""
        return Record(self.at_ns, self.mono_ns, tree, kind, path, place)

    def _add(self, record: Record) -> None:
        if self.records.full:
            self._lose(record.tree)
        else:
            self.records.add(record)

    def _operation(self, tree: int, place: Place, kind: Kind, *, held: bool | None, ends: bool = True) -> None:
        path = self.path(place)
        if self.announced.takes(tree, path, (kind,), self.mono_ns, ends=ends):
            refresh(self.known.setdefault(place[0], {}), place[1], self.trees[tree].fd, path)
            return
        live = self.records.live(place)
        if live is not None:
            self.counts.merged += 1
            self.records.merge(live, kind, held=held)
        elif not self._excluded(tree, path, directory=False):
            record = self.record(kind, tree, place, path)
            record.held = bool(held)
            self._add(record)

    def _lose(self, tree: int) -> None:
        self.counts.lost += 1
        self.blind(tree)
        self._notice(Kind.OVERFLOW, tree, b"")

    def blind(self, tree: int) -> None:
        """Something of this tree may have been missed: a rescan is due."""
        self.trees[tree].rescan = True
        self.trees[tree].blind_since_ns = self.trees[tree].blind_since_ns or self.at_ns

    def _notice(self, kind: Kind, tree: int, path: bytes) -> None:
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
                self._notice(Kind.OVERFLOW, index, b"")
        self.records.barrier()
        self.moves.clear()

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
        self._notice(Kind.ROOT_GONE, index, b"")

    def forget(self, id_: int) -> None:
        """Take a directory and all below it out of the table and give its watches back."""
        for gone in self.directories.remove(id_):
            if gone > 0:
                self.queue.unwatch(gone)
            self.unwatched.pop(gone, None)
            self._scanned.pop(gone, None)
            self.known.pop(gone, None)

    def _arrived(self, tree: int, place: Place, cookie: int, *, directory: bool, own: bool) -> None:
        source = next((m for m in reversed(self.moves) if m.cookie == cookie), None)
        if source is not None:
            self.moves.remove(source)
        self._taken_again(place)
        hidden = own or self._excluded(tree, self.path(place), directory=directory)
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
            self._directory_gone(source.place)
        elif not self.announced.takes(source.tree, self.path(source.place), (Kind.RENAME,), self.mono_ns):
            self._operation(source.tree, source.place, Kind.DELETE, held=False)

    def _moved_in(self, tree: int, place: Place, *, directory: bool) -> None:
        if directory:
            self.directory_came(place)
        elif not self._was_scanned(place) and not self.announced.takes(
            tree, self.path(place), (Kind.RENAME,), self.mono_ns
        ):
            self._operation(tree, place, Kind.CREATE, held=False)

    def _renamed(self, tree: int, source: Move, place: Place) -> None:
        path = self.path(place)
        if self.announced.takes(tree, path, (Kind.RENAME, Kind.CREATE), self.mono_ns):
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
        self._add(record)

    def directory_came(self, place: Place) -> None:
        """A directory appeared: report it, watch it, list it."""
        entry = self.directories.by_id[place[0]]
        path = self.path(place)
        if self.directories.child(*place) is not None or self._excluded(entry.tree, path, directory=True):
            return
        if not self.announced.takes(entry.tree, path, (Kind.MAKE_DIR,), self.mono_ns):
            self._add(self.record(Kind.MAKE_DIR, entry.tree, place, path))
        self._enter(entry.tree, place)

    def _enter(self, tree: int, place: Place) -> None:
        if (met := self._meet(tree, place)) is not None:
            self.follow(tree, met, report=True)

    def _directory_gone(self, place: Place) -> None:
        tree, path = self.directories.by_id[place[0]].tree, self.path(place)
        known = self.directories.child(*place)
        if known is not None:
            self.forget(known)
        elif self._excluded(tree, path, directory=True):
            return
        if not self.announced.takes(tree, path, (Kind.REMOVE_DIR,), self.mono_ns):
            self._add(self.record(Kind.REMOVE_DIR, tree, place, path))
        self.records.barrier()  # a new directory of this name may follow

    def _directory_moved(self, tree: int, source: Move, place: Place) -> None:
        id_, over = self.directories.child(*source.place), self.directories.child(*place)
        old_path = self.path(source.place)
        if id_ is not None:
            if over is not None and over != id_:
                self.forget(over)  # an empty directory was replaced
            self.directories.move(id_, *place)
        path = self.path(place)
        if not self.announced.takes(tree, path, (Kind.RENAME_DIR, Kind.RENAME), self.mono_ns):
            record = self.record(Kind.RENAME_DIR, tree, place, path)
            record.merged = 2
            record.old_path, record.old_place = old_path, source.place
            self._add(record)
        self.records.barrier()
        if id_ is None and over is None:  # it was moved on before it could be opened under its first name
            self._enter(tree, place)

    def watch_root(self, index: int) -> bool:
        """Watch the root of a tree; False where it cannot be opened."""
        tree = self.trees[index]
        try:
            fd = open_dir(tree.fd, b"", tree.mount)
        except OSError:
            return False
        try:
            tree.id = self.queue.watch(fd, self.queue.mask | self.queue.root_mask)
        except OSError as error:
            tree.id = self._not_watched(index, (NONE, b""), b"", error.errno or errno.EIO)
        else:
            self.directories.add(tree.id, NONE, b"", index)
        finally:
            os.close(fd)
        return True

    def _not_watched(self, tree: int, place: Place, path: bytes, code: int) -> int:
        known = self.directories.child(*place)
        id_ = known if known is not None and known < 0 else self.directories.unwatched_id()
        if id_ != known:
            self.directories.add(id_, *place, tree)
        self.unwatched[id_] = code
        self.counts.watch_failures += 1
        self._notice(Kind.WATCH_LIMIT, tree, path)
        return id_

    def _meet(self, tree: int, place: Place) -> int | None:
        """Watch a directory; its id where it is new, None where it is gone, known, or not to be followed."""
        path, root = self.path(place), self.trees[tree]
        try:
            fd = open_dir(root.fd, path, root.mount)
        except MountPointError:
            self.left_out[os.path.join(root.tree.root, path)] = "another file system is mounted here"
            return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return (
                None if error.errno == errno.ELOOP else self._not_watched(tree, place, path, error.errno or errno.EIO)
            )
        try:
            id_ = self.queue.watch(fd, self.queue.mask)
        except OSError as error:
            return self._not_watched(tree, place, path, error.errno or errno.EIO)
        finally:
            os.close(fd)
        known = self.directories.by_id.get(id_)
        if known is None:
            self.directories.add(id_, *place, tree)
            return id_
        if known.tree != tree or known.parent == NONE:
            self.left_out[os.path.join(root.tree.root, path)] = "another guarded tree begins here"
        elif (known.parent, known.name) != place:
            self.directories.move(id_, *place)
            self.records.barrier()
        return None

    def follow(self, tree: int, top: int, *, report: bool) -> None:
        """List a watched directory and all below it; report what is there, or take it as known."""
        stack = [top]
        while stack:
            id_ = stack.pop()
            for name, directory, status in self.listing(tree, id_):
                place = (id_, name)
                if directory:
                    if report and self.directories.child(*place) is None:
                        record = self.record(Kind.MAKE_DIR, tree, place, self.path(place))
                        record.flags = EventFlag.SYNTHETIC
                        self._add(record)
                    if (met := self._meet(tree, place)) is not None:
                        stack.append(met)
                elif not report and status is not None:
                    self.known.setdefault(id_, {})[name] = stamp(status)
                elif report and not self.records.touched(place):
                    self._found(tree, place)

    def _found(self, tree: int, place: Place) -> None:
        record = self.record(Kind.CREATE, tree, place, self.path(place))
        record.flags = EventFlag.SYNTHETIC
        self._add(record)
        until = self._bytes_read + self.queue.waiting()
        names = self._scanned.get(place[0], (set(), 0))[0]
        self._scanned[place[0]] = (names | {place[1]}, until)

    def listing(self, tree: int, id_: int) -> list[tuple[bytes, bool, os.stat_result | None]]:
        """What is in a directory now, without what is left out; empty where it is gone."""
        root, path = self.trees[tree], self.directories.path(id_)
        if path is None:
            return []
        found = list_dir(root.fd, path, root.mount)
        if found is None:
            self.blind(tree)  # an unreadable end of a listing: the rescan tells
            return []
        prefix = path + b"/" if path else b""
        return [e for e in found if not self._excluded(tree, prefix + e[0], directory=e[1])]
