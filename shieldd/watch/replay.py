"""Recorded batches: a file of what a source saw, and a source that hands it out again.

A trace is an `.npz` of plain arrays (no pickle): `magic`, `schema` (version of the observation table), `dtypes` (of
events and facts), `events`, `facts`, `names`, and `batches` (end of each batch: rows, bytes of names). Observations are
not stored: replaying sends events and facts through the same windows as live ones. Names of a hospital's files are in
it: it is written 0600 and belongs to whoever may see them.
"""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from shieldd.errors import ShieldError
from shieldd.model.event import EVENT, FACTS, Batch
from shieldd.native.observe import Windows, schema
from shieldd.watch import SourceStatus

MAGIC: Final = "shieldd trace 1"
LIMIT_ROWS: Final = 50_000_000
LIMIT_NAMES: Final = 8 << 30
_PARTS: Final = ("magic", "schema", "dtypes", "events", "facts", "names", "batches")


def _layout() -> str:
    return f"{EVENT.descr} {FACTS.descr}"


def record(path: Path, batches: Iterable[Batch]) -> int:
    """Write batches to a new trace, mode 0600; returns the number of events.

    Raises:
        ShieldError: `file.exists` where there is something already.
    """
    kept = list(batches)
    ends, names_end, rows_end = [], 0, 0
    for batch in kept:
        rows_end, names_end = rows_end + len(batch), names_end + len(batch.names)
        ends.append((rows_end, names_end))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise ShieldError("file.exists", path=os.fsencode(path)) from error
    with os.fdopen(fd, "wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            magic=np.array(MAGIC),
            schema=np.array(schema().version),
            dtypes=np.array(_layout()),
            events=np.concatenate([b.events for b in kept]) if kept else np.empty(0, EVENT),
            facts=np.concatenate([b.facts for b in kept]) if kept else np.empty(0, FACTS),
            names=np.frombuffer(b"".join(b.names for b in kept), np.uint8),
            batches=np.array(ends, np.uint64).reshape(-1, 2),
        )
    return rows_end


def read(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, bytes]]:
    """Events, facts and names of each batch of a trace.

    Raises:
        ShieldError: `watch.trace` for a truncated, damaged or foreign file, `watch.trace-version` for one of another
            version, observation table or record layout, `file.missing`, `file.budget`.
    """
    name = os.fsencode(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile) or set(archive.files) != set(_PARTS):
                raise ShieldError("watch.trace", path=name)
            if str(archive["magic"]) != MAGIC or int(archive["schema"]) != schema().version:
                raise ShieldError("watch.trace-version", path=name)
            if str(archive["dtypes"]) != _layout():
                raise ShieldError("watch.trace-version", path=name)
            parts = {part: archive[part] for part in _PARTS[3:]}
    except FileNotFoundError as error:
        raise ShieldError("file.missing", path=name) from error
    # an archive names its compression and encryption itself: RuntimeError (NotImplementedError too), zlib.error
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ShieldError("watch.trace", f"trace cannot be read: {type(error).__name__}", path=name) from error
    events, facts, names, ends = parts["events"], parts["facts"], parts["names"], parts["batches"]
    _check(events, facts, names, ends, name)
    return _cut(events, facts, names, ends)


def _check(events: np.ndarray, facts: np.ndarray, names: np.ndarray, ends: np.ndarray, path: bytes) -> None:
    typed = events.dtype == EVENT and facts.dtype == FACTS and names.dtype == np.uint8 and ends.dtype == np.uint64
    shaped = events.ndim == facts.ndim == names.ndim == 1 and ends.ndim == 2 and ends.shape[1] == 2
    if not (typed and shaped and len(events) == len(facts)):
        raise ShieldError("watch.trace", path=path)
    if len(events) > LIMIT_ROWS or len(names) > LIMIT_NAMES:
        raise ShieldError("file.budget", path=path)
    last = (int(ends[-1, 0]), int(ends[-1, 1])) if len(ends) else (0, 0)
    if last != (len(events), len(names)) or np.any(ends[1:] < ends[:-1]):
        raise ShieldError("watch.trace", path=path)
    sizes = np.diff(ends[:, 1], prepend=np.uint64(0))
    counts = np.diff(ends[:, 0], prepend=np.uint64(0))
    room = np.repeat(sizes, counts.astype(np.int64))
    for off, length in (("path_off", "path_len"), ("from_off", "from_len")):
        if np.any(events[off].astype(np.uint64) + events[length] > room):
            raise ShieldError("watch.trace", path=path)


def _cut(
    events: np.ndarray, facts: np.ndarray, names: np.ndarray, ends: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, bytes]]:
    row, byte = 0, 0
    for row_end, byte_end in ends.astype(np.int64).tolist():
        yield events[row:row_end], facts[row:row_end], names[byte:byte_end].tobytes()
        row, byte = row_end, byte_end


class ReplaySource:
    """A trace as a source (see `shieldd.watch.Source`): as fast as it is asked, then silence until `stop`.

    Args:
        path: of the trace.
        windows: memory over actors; one of its own by default.

    Raises:
        ShieldError: as `read`.
    """

    def __init__(self, path: Path, *, windows: Windows | None = None) -> None:
        self._batches = read(path)
        self._windows = Windows() if windows is None else windows
        self._stopped = threading.Event()
        self._events = 0
        self.finished = False

    def start(self) -> None:
        """Nothing is watched."""

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next recorded batch; None after the last."""
        if self._stopped.is_set():
            raise ShieldError("watch.stopped")
        following = next(self._batches, None)
        if following is None:
            self.finished = True
            if self._stopped.wait(max(0.0, timeout_s)):
                raise ShieldError("watch.stopped")
            return None
        events, facts, names = following
        self._events += len(events)
        return Batch(events, facts, self._windows.observe(events, facts), names)

    def expect(self, tree: int, path: bytes, kinds: int, *, count: int = 1, ttl_s: float = 10.0) -> None:
        """What was recorded was recorded."""

    def rescan(self, tree: int) -> None:
        """There is nothing to scan."""

    def status(self) -> SourceStatus:
        """Counters as of now."""
        return SourceStatus(
            backend="replay",
            watches=0,
            directories=0,
            overflows=0,
            events_lost=0,
            watch_failures=0,
            rescans=0,
            blind_since_ns=None,
            queue_depth=0,
            events=self._events,
            merged=0,
            own=0,
            not_covered=(),
        )

    def stop(self) -> None:
        """End."""
        self._stopped.set()
