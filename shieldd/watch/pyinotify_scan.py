"""How the pyinotify source follows directories: watch first, then list; the twin of `scan.rs` and `later.rs`.

The queue says that a directory appeared, but a path is all there is to open it by, and what is above it may have moved
since; such a directory is tried again when the queue is empty. The other way round, a listing shows a directory under a
name that its move will tell of later.

Owns the rules of meeting a directory. Does not own watches, the table or records: they are the state's.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from shieldd.model.event import EventFlag, Kind
from shieldd.watch.directories import NONE, OPEN_DIR, MountPointError, list_dir, open_dir
from shieldd.watch.records import Place
from shieldd.watch.tree_state import stamp

if TYPE_CHECKING:
    from shieldd.watch.pyinotify_state import State

LATER: Final = 4096
"""Directories that wait to be met, and those met ahead of their move; beyond it their tree is rescanned."""
TRIES: Final = 40
"""Times that one is looked for with the queue empty before its tree is rescanned instead."""


class Scans:
    """Meets and lists directories for one state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._unmet: dict[Place, tuple[int, bool]] = {}
        self._ahead: list[tuple[Place, int]] = []

    @property
    def waiting(self) -> bool:
        """Whether a directory is yet to be met."""
        return bool(self._unmet)

    def clear(self) -> None:
        """The kernel lost events: a rescan is due, and what would have been told of these may be among them."""
        self._unmet.clear()
        self._ahead.clear()

    def forget(self, place: Place) -> None:
        """A name went away, so nothing is to be met under it."""
        self._unmet.pop(place, None)

    def was_ahead(self, source: Place, target: Place | None) -> bool:
        """Whether a move from this place was told of when a listing met the directory elsewhere.

        `target` is where this step of it led; where that is not its last, the next step is told of too.
        """
        for index, (old, id_) in enumerate(self._ahead):
            if old == source:
                del self._ahead[index]
                entry = self._state.directories.by_id.get(id_)
                if entry is not None and target is not None and (entry.parent, entry.name) != target:
                    self._met_ahead(target, id_)
                return True
        return False

    def _met_ahead(self, old: Place, id_: int) -> None:
        if len(self._ahead) >= LATER:
            del self._ahead[0]
        self._ahead.append((old, id_))

    def meet_now(self) -> None:
        """Try those that wait, once all events are read and every path is as true as it gets."""
        if not self._unmet or self._state.queue.waiting():
            return
        waiting, self._unmet = self._unmet, {}
        for place, (tries, told) in waiting.items():
            entry = self._state.directories.by_id.get(place[0])
            if entry is None or self._state.directories.child(*place) is not None:
                continue
            if tries >= TRIES:
                self._state.blind(entry.tree)
                continue
            self.enter(entry.tree, place, told=told)
            if place in self._unmet:
                self._unmet[place] = (tries + 1, told)

    def check_moved(self, id_: int, tree: int, place: Place) -> None:
        """See whether the name that a move gave to a directory holds another one.

        A path had led to the wrong one before, then, and only a rescan can tell which is where.
        """
        state = self._state
        root = state.trees[tree]
        if id_ <= NONE:
            return
        try:
            fd = open_dir(root.fd, state.path(place), root.mount)
        except OSError:
            return  # it moved on, and that will be read
        try:
            found = state.queue.watch(fd, state.queue.mask)
        except OSError:
            return
        finally:
            os.close(fd)
        if found != id_:
            if found not in state.directories.by_id:
                state.queue.unwatch(found)
            state.blind(tree)

    def watch_root(self, index: int) -> bool:
        """Watch the root of a tree; False where it cannot be opened."""
        state = self._state
        tree = state.trees[index]
        try:
            fd = open_dir(tree.fd, b"", tree.mount)
        except OSError:
            return False
        try:
            tree.id = state.queue.watch(fd, state.queue.mask | state.queue.root_mask)
        except OSError as error:
            tree.id = self._not_watched(index, (NONE, b""), b"", error.errno or errno.EIO)
        else:
            state.directories.add(tree.id, NONE, b"", index)
        finally:
            os.close(fd)
        return True

    def enter(self, tree: int, place: Place, *, told: bool = True) -> None:
        """Watch a directory that appeared and report what is in it, and it itself where it was not told of."""
        if (met := self._meet(tree, place, told=told)) is not None:
            if not told:
                self._report(tree, place)
            self.follow(tree, met, report=True)

    def follow(self, tree: int, top: int, *, report: bool) -> None:
        """List a watched directory and all below it; report what is there, or take it as known."""
        state = self._state
        stack = [top]
        while stack:
            id_ = stack.pop()
            for name, directory, status in self.listing(tree, id_):
                place = (id_, name)
                if directory:
                    if (met := self._meet(tree, place, told=not report)) is not None:
                        if report:
                            self._report(tree, place)
                        stack.append(met)
                elif not report and status is not None:
                    state.known.setdefault(id_, {})[name] = stamp(status)
                elif report and not state.records.touched(place):
                    self._found(tree, place)

    def listing(self, tree: int, id_: int) -> list[tuple[bytes, bool, os.stat_result | None]]:
        """What is in a directory now, without what is left out; empty where it is gone."""
        state = self._state
        root, path = state.trees[tree], state.directories.path(id_)
        if path is None:
            return []
        found = list_dir(root.fd, path, root.mount)
        if found is None:
            state.blind(tree)  # an unreadable end of a listing: the rescan tells
            return []
        prefix = path + b"/" if path else b""
        return [e for e in found if not state.excluded(tree, prefix + e[0], directory=e[1])]

    def _report(self, tree: int, place: Place) -> None:
        record = self._state.record(Kind.MAKE_DIR, tree, place, self._state.path(place))
        record.flags = EventFlag.SYNTHETIC
        self._state.add(record)

    def _found(self, tree: int, place: Place) -> None:
        state = self._state
        record = state.record(Kind.CREATE, tree, place, state.path(place))
        record.flags = EventFlag.SYNTHETIC
        state.add(record)
        until = state.bytes_read + state.queue.waiting()
        names = state.scanned.get(place[0], (set(), 0))[0]
        state.scanned[place[0]] = (names | {place[1]}, until)

    def _not_watched(self, tree: int, place: Place, path: bytes, code: int) -> int:
        state = self._state
        known = state.directories.child(*place)
        id_ = known if known is not None and known < 0 else state.directories.unwatched_id()
        if id_ != known:
            state.directories.add(id_, *place, tree)
        state.unwatched[id_] = code
        state.counts.watch_failures += 1
        state.notice(Kind.WATCH_LIMIT, tree, path)
        return id_

    def _later(self, tree: int, place: Place, *, told: bool) -> None:
        if len(self._unmet) >= LATER:
            self._state.blind(tree)
        else:
            self._unmet.setdefault(place, (0, told))

    def _meet(self, tree: int, place: Place, *, told: bool) -> int | None:
        """Watch a directory; its id where it is new, None where it is gone, known, or not to be followed."""
        state = self._state
        path, root = state.path(place), state.trees[tree]
        try:
            fd = open_dir(root.fd, path, root.mount)
        except MountPointError:
            state.left_out[os.path.join(root.tree.root, path)] = "another file system is mounted here"
            return None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self._later(tree, place, told=told)
                return None
            return self._not_watched(tree, place, path, error.errno or errno.EIO)
        try:
            if not self._lies_in(fd, place[0]):
                self._later(tree, place, told=told)
                return None
            id_ = state.queue.watch(fd, state.queue.mask)
            known = state.directories.by_id.get(id_)
            if known is not None and known.parent != NONE and known.tree != tree:
                id_, known = self._from_another_tree(id_, fd), None
        except OSError as error:
            return self._not_watched(tree, place, path, error.errno or errno.EIO)
        finally:
            os.close(fd)
        if known is None:
            state.directories.add(id_, *place, tree)
            return id_
        if known.parent == NONE:
            state.left_out[os.path.join(root.tree.root, path)] = "another guarded tree begins here"
        elif (known.parent, known.name) != place:
            old = (known.parent, known.name)
            old_path = state.path(old)
            self._met_ahead(old, id_)
            state.directories.move(id_, *place)
            # told now: what happened in it since is read under its new name
            state.report_moved(tree, (old, old_path), place)
            try:
                os.close(open_dir(root.fd, old_path, root.mount))
            except OSError:
                return None
            # another one is where it was; that one's coming may have been taken for this one's
            self._later(tree, old, told=False)
        return None

    def _lies_in(self, fd: int, parent: int) -> bool:
        """Whether an open directory lies in the one that an id stands for, whatever path led to it."""
        if parent <= NONE:
            return True
        state = self._state
        above = os.open(b"..", OPEN_DIR, dir_fd=fd)
        try:
            # a directory has one watch in a queue: the kernel names the one that it has already
            found = state.queue.watch(above, state.queue.mask)
        finally:
            os.close(above)
        if found != parent and found not in state.directories.by_id:
            state.queue.unwatch(found)
        return found == parent

    def _from_another_tree(self, id_: int, fd: int) -> int:
        """A directory came over from another tree before that move was read: there it is gone, here it is new."""
        state = self._state
        entry = state.directories.by_id[id_]
        old = (entry.parent, entry.name)
        record = state.record(Kind.REMOVE_DIR, entry.tree, old, state.path(old))
        self._met_ahead(old, NONE)
        state.forget(id_)
        state.add(record)
        state.records.barrier()
        return state.queue.watch(fd, state.queue.mask)
