"""Records from the daemon's threads to slow readers, bounded, without ever making a thread of the daemon wait.

`Feed` is for subscriptions: when a reader is behind, its oldest records go and it is told how many. `Pump` is for long
actions: nothing may be left out, so the worker thread waits for the reader, and stops the action when it has gone.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from shieldd.errors import ShieldError

log = logging.getLogger("shieldd.api")

FEED_MAX: Final = 10_000  # records a reader may be behind, about 5 MB at most
PUMP_MAX: Final = 4_096
BATCH_MAX: Final = 512  # records encoded in one go
T = TypeVar("T")


class Feed(Generic[T]):
    """A bounded buffer between `deliver` (any thread, never blocks) and one reader on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wanted: Callable[[T], bool], capacity: int = FEED_MAX) -> None:
        self._loop = loop
        self._wanted = wanted
        self._capacity = capacity
        self._lock = threading.Lock()
        self._records: deque[T] = deque()
        self._missed = 0
        self._ready = asyncio.Event()
        self._waking = False
        self.closed = False

    def close(self) -> None:
        """On the loop: no more will come; the reader takes what is there and ends."""
        self.closed = True
        self._ready.set()

    def deliver(self, records: Sequence[T]) -> None:
        """Take records in order; what is beyond the capacity pushes the oldest out and is counted."""
        chosen = [record for record in records if self._wanted(record)]
        if not chosen:
            return
        with self._lock:
            self._records.extend(chosen)
            excess = len(self._records) - self._capacity
            for _ in range(excess):
                self._records.popleft()
            self._missed += max(excess, 0)
            wake, self._waking = not self._waking, True
        if wake:
            self._wake()

    async def take(self, timeout_s: float) -> tuple[int, list[T]]:
        """How many were missed before these, and the next records; both empty after `timeout_s` without any."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    await self._ready.wait()
                    missed, batch = self._drain()
                    if batch or self.closed:
                        return missed, batch
        except TimeoutError:
            return 0, []

    def _drain(self) -> tuple[int, list[T]]:
        with self._lock:
            missed, self._missed = self._missed, 0
            batch = [self._records.popleft() for _ in range(min(BATCH_MAX, len(self._records)))]
            if not self._records and not self.closed:
                self._ready.clear()
                self._waking = False
        return missed, batch

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)


class Pump(Generic[T]):
    """Runs an iterator on a worker thread and hands its items over in batches, in order, none left out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._room = threading.Condition()
        self._items: deque[T] = deque()
        self._error: ShieldError | None = None
        self._done = False
        self._gone = False
        self._ready = asyncio.Event()

    def run(self, start: Callable[[], Iterator[T]]) -> None:
        """On a worker thread: drive the iterator to its end, or until the reader has gone.

        Whatever other than `ShieldError` comes out of it is raised here after the reader has been told `api.internal`.
        """
        error: ShieldError | None = ShieldError("api.internal")
        try:
            items = start()
            try:
                for item in items:
                    if not self._put(item):
                        break
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
            error = None
        except ShieldError as raised:
            error = raised
        finally:
            fault = sys.exc_info()
            if fault[0] is not None and not isinstance(fault[1], ShieldError):
                # type and place only: the text of a fault may hold a path or a name
                place = traceback.extract_tb(fault[2])[-1]
                log.error("fault in a long action: %s at %s:%s", fault[0].__name__, place.filename, place.lineno)
            with self._room:
                self._error = error
                self._done = True
            self._wake()

    def abandon(self) -> None:
        """The reader has gone: the item in hand is the last."""
        with self._room:
            self._gone = True
            self._room.notify_all()

    async def take(self, timeout_s: float) -> tuple[list[T], bool, ShieldError | None]:
        """Next items, whether that was all, and the error it ended with; no items after `timeout_s` without any."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    await self._ready.wait()
                    batch, done, error = self._drain()
                    if batch or done:
                        return batch, done, error
        except TimeoutError:
            return [], False, None

    def _drain(self) -> tuple[list[T], bool, ShieldError | None]:
        with self._room:
            batch = [self._items.popleft() for _ in range(min(BATCH_MAX, len(self._items)))]
            self._room.notify_all()
            if self._items:
                return batch, False, None
            if not self._done:
                self._ready.clear()
            return batch, self._done, self._error

    def _put(self, item: T) -> bool:
        with self._room:
            while len(self._items) >= PUMP_MAX and not self._gone:
                self._room.wait()
            if self._gone:
                return False
            self._items.append(item)
            first = len(self._items) == 1
        if first:
            self._wake()
        return True

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)
