"""Looks at every file of the trees once, after the start, so that a later loss is known as one.

What a file was before is what makes "destroyed" a fact: without a fingerprint from before, an encrypted file is only a
new one. The watcher keeps fingerprints from its own start on; this thread takes those of the files that were there
already, at low priority, in small groups so that events never wait for it. Where a fingerprint of the last run is
known, what changed while nobody watched is counted and told.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from shieldd.errors import ShieldError
from shieldd.model.event import EVENT, FactFlag, Kind
from shieldd.native import watch
from shieldd.native.files import is_own_name
from shieldd.native.observe import Inspector
from shieldd.respond import GuardedTree

GROUP: Final = 32  # files a turn: about 2 ms in which the fingerprints are locked
NICE: Final = 10

log = structlog.get_logger("shieldd.survey")


@dataclass(frozen=True, slots=True)
class Found:
    """What a survey saw.

    Attributes:
        files: looked at.
        changed: other than when they were last known.
        garbled: of those: were of a known format and are of none now.
    """

    files: int
    changed: int
    garbled: int


class Survey:
    """One pass over the trees, on a thread of its own."""

    def __init__(
        self,
        trees: Sequence[tuple[GuardedTree, Sequence[bytes]]],
        inspector: Inspector,
        told: Callable[[Found], None],
        *,
        turn: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        trees: with the globs of what is left out.
        inspector: on the baseline that the watcher uses.
        told: called once, at the end of a whole pass.
        turn: called between groups.
        """
        self._trees = trees
        self._inspector = inspector
        self._told = told
        self._turn = turn
        self._stopping = threading.Event()
        self.files = 0
        self.changed = 0
        self.garbled = 0
        self.done = False

    def stop(self) -> None:
        """End after the group in hand."""
        self._stopping.set()

    def run(self) -> None:
        """The pass; returns early after `stop`."""
        # where a sandbox says no, it is in the way of others a little more
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        for tree, globs in self._trees:
            for group in _groups(tree, globs):
                if self._stopping.is_set():
                    return
                self._look(tree, group)
                self._turn()
        self.done = True
        log.info("files known", files=self.files, changed=self.changed, garbled=self.garbled)
        self._told(Found(self.files, self.changed, self.garbled))

    def _look(self, tree: GuardedTree, paths: Sequence[bytes]) -> None:
        events = np.zeros(len(paths), EVENT)
        lengths = np.array([len(path) for path in paths], np.uint32)
        events["kind"], events["tree"], events["path_len"] = Kind.ATTRIB, tree.index, lengths
        events["path_off"][1:] = np.cumsum(lengths)[:-1]
        try:
            facts = self._inspector.inspect_many(tree.root_fd, events, b"".join(paths))
        except ShieldError as error:
            log.warning("some files could not be looked at", code=error.code)
            return
        flags = facts["flags"]
        both = (flags & np.uint64(FactFlag.KNOWN_BEFORE | FactFlag.LOOKED)) == (FactFlag.KNOWN_BEFORE | FactFlag.LOOKED)
        unlike = (facts["similarity"] >= 0) & (facts["similarity"] < 0.5)
        changed = both & ((facts["size"] != facts["prev_size"]) | unlike)
        self.files += len(paths)
        self.changed += int(changed.sum())
        self.garbled += int((changed & (facts["prev_format"] != 0) & (facts["format"] == 0)).sum())


def _groups(tree: GuardedTree, globs: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Paths of the regular files beneath a tree, a group at a time; mounts, links and what is left out are not entered.

    A directory that cannot be read is passed over here; the watcher tells of it.
    """
    device = os.fstat(tree.root_fd).st_dev
    group: list[bytes] = []
    for top, directories, names, fd in os.fwalk(b".", dir_fd=tree.root_fd, follow_symlinks=False):
        if os.fstat(fd).st_dev != device:
            directories.clear()
            continue
        base = b"" if top == b"." else top.removeprefix(b"./") + b"/"
        directories[:] = [x for x in directories if not watch.excluded(globs, base + x, directory=True)]
        for name in names:
            path = base + name
            if is_own_name(name) or watch.excluded(globs, path, directory=False):
                continue
            try:
                if not stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    continue
            except OSError:
                continue
            group.append(path)
            if len(group) >= GROUP:
                yield group
                group = []
    if group:
        yield group
