"""Looks into new and changed files for signatures, on a thread of its own, and hands what it finds to the pipeline.

Owns: the queue, its bound, and the honest count of what was not looked at. Files are opened beneath their tree's root,
never through a link, never anything but a regular file, and only if it still is the one that was seen.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from shieldd.errors import ShieldError
from shieldd.model.event import Batch
from shieldd.model.match import Match

BATCH_LIMIT: Final = 256  # files of one batch: a bulk copy must not keep a single drop waiting for minutes
QUEUE_LIMIT: Final = 50_000  # files waiting; each holds its batch, about 100 B a row
log = structlog.get_logger("shieldd.lookout")


class Scanner(Protocol):
    """What finds signatures (`shieldd.scan`)."""

    @property
    def scan_limit_bytes(self) -> int:
        """So much of a file is read, from its start."""

    def scan(self, fd: int, name: bytes) -> Match | None:
        """The first match, None where there is none."""


Opener = Callable[[int, bytes], int]


class Lookout:
    """The scan queue and its thread."""

    def __init__(
        self,
        scanner: Scanner,
        opener: Opener,
        found: Callable[[Batch, int, Match], None],
        *,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        """Args:
        scanner: rules in force.
        opener: opens (tree, path) read-only beneath the tree; the caller closes.
        found: told of each match, on this thread.
        """
        self._scanner = scanner
        self._opener = opener
        self._found = found
        self._queue_limit = queue_limit
        self._queue: deque[tuple[Batch, int]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._busy = False
        self.scanned = 0
        self.unscanned = 0  # those of `partial` among them
        self.partial = 0  # larger than the scan's limit: nobody looked at their rest
        self.matches = 0
        self.failures = 0

    def swap(self, scanner: Scanner) -> None:
        """Take new rules from the next file on."""
        self._scanner = scanner

    def submit(self, batch: Batch, rows: Sequence[int]) -> None:
        """Queue files, the first of a batch first; what does not fit is counted as unscanned."""
        with self._wake:
            room = max(min(self._queue_limit - len(self._queue), BATCH_LIMIT), 0)
            self._queue.extend((batch, row) for row in rows[:room])
            self.unscanned += max(0, len(rows) - room)
            self._wake.notify()

    @property
    def waiting(self) -> int:
        """Files queued or in hand."""
        return len(self._queue) + self._busy

    def run(self) -> None:
        """The thread; returns after `stop`."""
        while True:
            with self._wake:
                self._busy = False
                self._wake.wait_for(lambda: self._queue or self._stopping)
                if self._stopping:
                    return
                batch, row = self._queue.popleft()
                self._busy = True
            self._look(batch, row)

    def stop(self) -> None:
        """End after the file in hand."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def _look(self, batch: Batch, row: int) -> None:
        event = batch.events[row]
        path = batch.path(row)
        try:
            fd = self._opener(int(event["tree"]), path)
        except ShieldError:
            # Gone or out of reach by now: whatever comes after it has an event of its own.
            self.unscanned += 1
            return
        try:
            seen = os.fstat(fd)
            if not stat.S_ISREG(seen.st_mode) or (event["ino"] and seen.st_ino != event["ino"]):
                self.unscanned += 1
                return
            scanner = self._scanner
            match = scanner.scan(fd, os.path.basename(path))
            whole = os.fstat(fd).st_size <= scanner.scan_limit_bytes
        except ShieldError as error:
            self.failures += 1
            log.warning("a file could not be scanned; it was left alone", code=error.code)
            return
        finally:
            os.close(fd)
        if whole:
            self.scanned += 1
        else:
            self.unscanned += 1
            self.partial += 1
        if match is not None:
            self.matches += 1
            self._found(batch, row, match)
