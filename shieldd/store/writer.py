"""The one writer: a thread that owns the writing connection and commits what waits, in groups.

Two lanes. *Durable* jobs (intents, results, incidents, keys) are committed at `synchronous=FULL`: the caller waits
until they are on the disk, and all that wait at once share one fsync. *Plain* jobs (events) are committed at `NORMAL`
after them, are bounded by a count of records, and beyond it are dropped and counted; a durable job is never dropped.

A full disk: the job fails with `store.full` and nothing of it is in the store. An *essential* job (the result of an act
that has been done) is then tried again with the reserve given up, a file of `RESERVE_BYTES` that exists for this; until
the reserve is back, other durable jobs are refused, so that no act is begun whose result could not be written.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from shieldd.errors import ShieldError
from shieldd.store.failures import translated

RESERVE_BYTES: Final = 4 << 20
GROUP_RECORDS: Final = 20_000  # one transaction of events; bounds the wait of a durable job behind it to some 50 ms
_T = TypeVar("_T")
Work = Callable[[sqlite3.Connection], Any]


def give_up(reserve: Path) -> bool:
    """Give its room to the disk; False where there is no reserve."""
    try:
        os.truncate(reserve, 0)
    except FileNotFoundError:
        return False
    return True


@dataclass(slots=True, eq=False)
class _Durable:
    work: Work
    essential: bool
    undo: Work | None
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: ShieldError | None = None
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class _Plain:
    count: int
    work: Work


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """Counters since start.

    Attributes:
        waiting: plain records not yet committed.
        dropped: plain records refused because too many waited.
        failed: plain records lost because they could not be written.
        full: whether the disk is full and durable jobs are refused.
        damaged: whether SQLite found the file damaged while in use.
    """

    waiting: int
    dropped: int
    failed: int
    full: bool
    damaged: bool


class Writer:
    """Owns a connection in autocommit mode; every other thread only hands jobs in."""

    def __init__(self, connection: sqlite3.Connection, reserve: Path, *, queue_records: int) -> None:
        self._connection = connection
        self._reserve = reserve
        self._limit = queue_records
        self._durable: deque[_Durable] = deque()
        self._plain: deque[_Plain] = deque()
        self._wake = threading.Condition()
        self._waiting = self._dropped = self._failed = 0
        self._reserved = self._full = self._damaged = self._stopping = False
        self._synchronous = ""
        self._hold()
        self._thread = threading.Thread(target=self._loop, name="shieldd-store", daemon=True)
        self._thread.start()

    def plain(self, count: int, work: Work) -> bool:
        """Queue records that may be dropped; False (and counted) where too many wait. Never blocks."""
        with self._wake:
            if self._stopping:
                raise ShieldError("store.closed")
            if self._waiting + count > self._limit:
                self._dropped += count
                return False
            self._waiting += count
            self._plain.append(_Plain(count, work))
            self._wake.notify()
        return True

    def durable(
        self,
        work: Callable[[sqlite3.Connection], _T],
        *,
        essential: bool = False,
        undo: Work | None = None,
        timeout_s: float = 2.0,
    ) -> _T:
        """Run `work` in a transaction and return its result once it is on the disk.

        Args:
            work: gets the connection, inside a savepoint of its own.
            essential: may use the reserve.
            undo: run later if the caller gave up waiting while the work was under way.
            timeout_s: how long to wait; then `store.busy`, and the work is withdrawn or undone.

        Raises:
            ShieldError: `store.*`; nothing of the work is in the store then.
        """
        job = self._hand_in(work, essential=essential, undo=undo)
        if not job.done.wait(timeout_s):
            with self._wake:
                if not job.done.is_set():
                    job.abandoned = True
                    raise ShieldError("store.busy")
        if job.error is not None:
            raise job.error
        result: _T = job.result
        return result

    def behind(self, work: Work) -> None:
        """Queue a durable job without waiting for it; one that fails is counted as a failed record."""
        self._hand_in(work, essential=False, undo=None)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return when all that was queued is committed or counted as failed; raises `store.busy` if it is not."""
        deadline = time.monotonic() + timeout_s
        with self._wake:
            if not self._wake.wait_for(self._idle, max(0.0, deadline - time.monotonic())):
                raise ShieldError("store.busy")

    def stop(self) -> None:
        """Commit what waits, then end the thread. May be called twice."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join()

    def status(self) -> WriterStatus:
        """Counters as they are now."""
        with self._wake:
            return WriterStatus(self._waiting, self._dropped, self._failed, self._full, self._damaged)

    def _hand_in(self, work: Work, *, essential: bool, undo: Work | None) -> _Durable:
        job = _Durable(work, essential, undo)
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                raise ShieldError("store.closed")
            self._durable.append(job)
            self._wake.notify()
        return job

    def _idle(self) -> bool:
        return not (self._durable or self._waiting)

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._durable or self._plain or self._stopping)
                if not self._durable and not self._plain:
                    return
                durable = list(self._durable)
                plain = [] if durable else self._take_plain()
            if durable:
                self._write_durable(durable)
            if plain:
                self._write_plain(plain)

    def _take_plain(self) -> list[_Plain]:
        taken: list[_Plain] = []
        count = 0
        while self._plain and (not taken or count + self._plain[0].count <= GROUP_RECORDS):
            taken.append(self._plain.popleft())
            count += taken[-1].count
        return taken

    def _write_durable(self, jobs: list[_Durable]) -> None:
        self._hold()
        refused = self._full
        self._try(jobs if not refused else [job for job in jobs if job.essential])
        for job in jobs:
            if refused and not job.essential:
                job.error = ShieldError("store.full")
        if any(job.essential and job.error and job.error.code == "store.full" for job in jobs):
            self._give_up_reserve()
            again = [job for job in jobs if job.essential and job.error and job.error.code == "store.full"]
            self._try(again)
        self._answer(jobs)

    def _answer(self, jobs: list[_Durable]) -> None:
        with self._wake:
            for job in jobs:
                self._durable.popleft()
                job.done.set()
                if job.abandoned and job.undo is not None and job.error is None:
                    self._durable.append(_Durable(job.undo, True, None))
            self._wake.notify_all()

    def _try(self, jobs: list[_Durable]) -> None:
        """One transaction for all; a job that fails alone is taken out by its savepoint."""
        if not jobs:
            return
        failure: ShieldError | None = None
        for job in jobs:
            job.error = None
        try:
            self._begin("FULL")
            for job in jobs:
                self._step(job)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            failure = self._seen(error)
            self._roll_back()
        for job in jobs:
            job.error = job.error or failure

    def _step(self, job: _Durable) -> None:
        if job.abandoned:
            job.error = ShieldError("store.busy")
            return
        self._connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._connection)
        except ShieldError as error:
            job.error = error
        except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
            job.error = self._seen(error)
            if not self._connection.in_transaction:
                raise  # SQLite gave up the whole group, as it does when the disk is full
        if job.error is not None:
            self._connection.execute("ROLLBACK TO job")
        self._connection.execute("RELEASE job")

    def _write_plain(self, jobs: list[_Plain]) -> None:
        count = sum(job.count for job in jobs)
        lost = 0
        try:
            if not self._reserved:
                self._hold()
            if self._reserved:
                self._begin("NORMAL")
                for job in jobs:
                    job.work(self._connection)
                self._connection.execute("COMMIT")
            else:
                lost = count  # what room there is without the reserve is for results, and for the next start
        except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
            self._seen(error)
            self._roll_back()
            lost = count
        with self._wake:
            self._failed += lost
            self._waiting -= count
            self._wake.notify_all()

    def _begin(self, synchronous: str) -> None:
        if self._synchronous != synchronous:
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous
        self._connection.execute("BEGIN IMMEDIATE")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _seen(self, error: Exception) -> ShieldError:
        failure = translated(error)
        self._full = self._full or failure.code == "store.full"
        self._damaged = self._damaged or failure.code == "store.damaged"
        return failure

    def _hold(self) -> None:
        """Make the reserve where it is missing; the disk counts as full until that works."""
        if self._reserved:
            # The reserve stands, so what made a write fail is tried anew by the next job itself.
            self._full = False
            return
        try:
            fd = os.open(self._reserve, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            self._full = True
            return
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
            self._reserved, self._full = True, False
        except OSError:
            # Half a reserve is no reserve, and would take the room that results need.
            os.ftruncate(fd, 0)
            self._full = True
        finally:
            os.close(fd)

    def _give_up_reserve(self) -> None:
        self._reserved = False
        self._full = not give_up(self._reserve) or self._full
