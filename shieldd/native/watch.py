"""The native watchers as Python values: a handle, its batches, its counters.

Owns the typed face of `native/ffi/src/watch.rs` and `fanotify.rs`. Does not own any state of a watcher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from shieldd.errors import ShieldError
from shieldd.model.event import EVENT, FACTS, Batch
from shieldd.native._abi import call, ffi, lib
from shieldd.native.actors import Actors
from shieldd.native.observe import Baseline, Windows

CAPACITY: Final = 65_536
"""Records that wait for the consumer at most; about 20 MB when full of long names."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a watcher says of itself; see `ShdWatchStatus`.

    Attributes:
        blind_since_ns: `CLOCK_REALTIME` since when something may have been missed, 0 where nothing was.
        lost: events lost, exact where the core's own queue was full, one for each overflow of the kernel's.
        own: own operations dropped.
        known_beyond: files that did not fit into the known state.
    """

    watches: int
    directories: int
    overflows: int
    lost: int
    watch_failures: int
    rescans: int
    blind_since_ns: int
    queued: int
    events: int
    merged: int
    own: int
    reads: int
    known: int
    known_beyond: int


class Watcher:
    """A watcher of some trees.

    Args:
        trees: (path of the root, open descriptor of it, globs of what is left out) each; descriptors are duplicated.
        inspect: whether files are opened and sampled; without it facts hold names only.
        hold_us: how long a file that is open for writing waits for its writer, microseconds.
        capacity: records kept for the consumer at most.
        baseline: shared, kept up to date by the inspection.
        windows: shared, fed with every event.

    Raises:
        ShieldError: `watch.limit`, `watch.unsupported`, `watch.failed`.
    """

    def __init__(
        self,
        trees: Sequence[tuple[bytes, int, Sequence[bytes]]],
        *,
        inspect: bool,
        hold_us: int,
        capacity: int,
        baseline: Baseline,
        windows: Windows,
    ) -> None:
        records, alive = _trees(trees)
        out = ffi.new("ShdWatcher **")
        call(
            lib.shd_watch_new,
            records,
            len(trees),
            inspect,
            hold_us,
            capacity,
            baseline.handle,
            windows.handle,
            out,
        )
        del alive
        self._handle: Any = ffi.gc(out[0], lib.shd_watch_free)

    def start(self) -> None:
        """Watch every directory, then let the reader run.

        Raises:
            ShieldError: `watch.root`, `watch.failed`.
        """
        call(lib.shd_watch_start, self._handle)

    def next_batch(self, timeout_s: float) -> Batch | None:
        """Events, or None where nothing happened in time. The GIL is released meanwhile.

        Raises:
            ShieldError: `watch.stopped`.
        """
        out = ffi.new("ShdBatch *")
        call(lib.shd_watch_next, self._handle, int(max(timeout_s, 0) * 1e9), out)
        if not out.rows:
            return None
        rows = ffi.buffer(ffi.gc(out.rows, lib.shd_batch_free, out.size), out.size)
        count, width = out.count, out.width
        return Batch(
            events=np.frombuffer(rows, EVENT, count),
            facts=np.frombuffer(rows, FACTS, count, out.facts_at),
            observations=np.frombuffer(rows, np.float32, count * width, out.observations_at).reshape(count, width),
            names=rows[out.names_at : out.size],
        )

    def expect(self, tree: int, path: bytes, kinds: int, count: int, ttl_s: float) -> None:
        """Announce own operations: `count` of each kind in `kinds` (bits `1 << kind`) on a path are not reported."""
        call(lib.shd_watch_expect, self._handle, tree, path, len(path), kinds, count, int(ttl_s * 1e9))

    def rescan(self, tree: int) -> None:
        """Ask for a rescan against the known state.

        Raises:
            ShieldError: `native.argument` for a tree that is not there.
        """
        call(lib.shd_watch_rescan, self._handle, tree)

    def counts(self) -> Counts:
        """Its counters as of now."""
        out = ffi.new("ShdWatchStatus *")
        call(lib.shd_watch_status, self._handle, out)
        return Counts(*(getattr(out, name) for name in Counts.__slots__))

    def not_covered(self) -> list[tuple[int, bytes, str]]:
        """Places that are not watched: tree, path relative to its root, reason."""
        length, capacity = ffi.new("uintptr_t *"), 0
        while True:  # the list may grow between two calls
            buffer = ffi.new("uint8_t[]", max(capacity, 1))
            call(lib.shd_watch_not_covered, self._handle, buffer, capacity, length)
            if length[0] <= capacity:
                return _places(bytes(ffi.buffer(buffer, length[0])))
            capacity = length[0]

    def stop(self) -> None:
        """End the reader and wake who waits in `next_batch`; may be called twice and from another thread."""
        call(lib.shd_watch_stop, self._handle)


class FanotifyWatcher(Watcher):
    """A watcher that marks whole file systems, and knows who did it.

    Args:
        trees, inspect, hold_us, capacity, baseline, windows: as for `Watcher`.
        own_pids: processes whose own operations are not reported.
        actors: who is behind a process; without it each tree is its own actor.
        patience_us: how long a full queue of ours may leave events in the kernel's, which has no bound, before they
            count as lost, microseconds.
        limited: the kernel's queue has its limit (`fs.fanotify.max_queued_events`).

    Raises:
        ShieldError: `watch.limit`; `watch.unsupported` without CAP_SYS_ADMIN and before Linux 5.17; `watch.failed`.
            `start` raises `watch.unsupported` where a file system cannot be marked, besides `watch.root`.
    """

    def __init__(
        self,
        trees: Sequence[tuple[bytes, int, Sequence[bytes]]],
        *,
        inspect: bool,
        hold_us: int,
        capacity: int,
        baseline: Baseline,
        windows: Windows,
        own_pids: Sequence[int],
        actors: Actors | None,
        patience_us: int,
        limited: bool,
    ) -> None:
        records, alive = _trees(trees)
        settings = ffi.new("ShdFanotify *")
        pids = ffi.new("int32_t[]", list(own_pids))
        settings.own_pids, settings.own_count = pids, len(own_pids)
        settings.patience_us, settings.limited = patience_us, limited
        settings.actors = ffi.NULL if actors is None else actors.handle
        out = ffi.new("ShdWatcher **")
        call(
            lib.shd_fanotify_new,
            records,
            len(trees),
            inspect,
            hold_us,
            capacity,
            settings,
            baseline.handle,
            windows.handle,
            out,
        )
        del alive
        self._handle = ffi.gc(out[0], lib.shd_watch_free)


def _trees(trees: Sequence[tuple[bytes, int, Sequence[bytes]]]) -> tuple[Any, list[Any]]:
    """Trees as the core reads them, and the buffers that must live as long."""
    records = ffi.new("ShdTree[]", len(trees))
    alive: list[Any] = []
    for record, (path, root_fd, exclude) in zip(records, trees, strict=True):
        globs = b"".join(glob + b"\0" for glob in exclude)
        path_buffer, globs_buffer = ffi.from_buffer(path or b"\0"), ffi.from_buffer(globs or b"\0")
        alive += [path_buffer, globs_buffer]
        record.path, record.path_len, record.root_fd = path_buffer, len(path), root_fd
        record.exclude, record.exclude_len = globs_buffer, len(globs)
    return records, alive


def _places(data: bytes) -> list[tuple[int, bytes, str]]:
    places: list[tuple[int, bytes, str]] = []
    at = 0
    while at < len(data):
        tree = int.from_bytes(data[at : at + 2], "little")
        end = at + 6 + int.from_bytes(data[at + 2 : at + 6], "little")
        path = data[at + 6 : end]
        at = end + 4 + int.from_bytes(data[end : end + 4], "little")
        places.append((tree, path, data[end + 4 : at].decode("utf-8", "replace")))
    return places


def excluded(globs: Sequence[bytes], path: bytes, *, directory: bool) -> bool:
    """Whether a path relative to a tree's root is left out by globs.

    Without a slash a glob matches the last name at any depth, with one it is anchored at the root; `*` and `?` stay
    inside a name, `**` crosses, `[a-z]` and `[!a-z]` are sets, a backslash quotes, a final slash: directories only.

    Raises:
        ShieldError: `native.argument` for a glob with a zero byte.
    """
    if any(b"\0" in glob for glob in globs):
        raise ShieldError("native.argument", "a glob holds a zero byte")
    table = b"".join(glob + b"\0" for glob in globs)
    out = ffi.new("uint8_t *")
    call(lib.shd_watch_excluded, table, len(table), path, len(path), directory, out)
    return bool(out[0])
