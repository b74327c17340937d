"""The source over the core's inotify watcher: its own thread, no GIL, whole batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from shieldd.model.event import Batch
from shieldd.native.observe import Baseline, Windows
from shieldd.native.watch import CAPACITY, Watcher
from shieldd.watch import SourceStatus, Tree

COALESCE_MS: Final = 20.0
"""How long a file that is still open for writing waits for its writer, ms; one that was closed never waits."""


def status_of(watcher: Watcher, roots: Sequence[bytes], backend: str, *, attribution: bool = False) -> SourceStatus:
    """The counters of a native watcher of any kind."""
    now = watcher.counts()
    return SourceStatus(
        backend=backend,
        watches=now.watches,
        directories=now.directories,
        overflows=now.overflows,
        events_lost=now.lost,
        watch_failures=now.watch_failures,
        rescans=now.rescans,
        blind_since_ns=now.blind_since_ns or None,
        queue_depth=now.queued,
        events=now.events,
        merged=now.merged,
        own=now.own,
        not_covered=tuple(
            (os.path.join(roots[tree], path) if path else roots[tree], reason)
            for tree, path, reason in watcher.not_covered()
        ),
        attribution=attribution,
    )


class NativeSource:
    """See `shieldd.watch.Source`.

    Args:
        trees: in the order of their indices.
        inspect: whether files are opened and sampled.
        coalesce_ms: how long a file that is still open for writing waits for its writer, ms.
        capacity: records that wait for the consumer at most; beyond it events count as lost, a rescan finds them.
        baseline: last known fingerprints; one of its own by default.
        windows: memory over actors; one of its own by default.

    Raises:
        ShieldError: `watch.limit`, `watch.unsupported`, `watch.failed`.
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
        self._roots = [tree.root for tree in trees]
        self._watcher = Watcher(
            [(tree.root, tree.root_fd, tree.exclude) for tree in trees],
            inspect=inspect,
            hold_us=int(coalesce_ms * 1000),
            capacity=capacity,
            baseline=Baseline() if baseline is None else baseline,
            windows=Windows() if windows is None else windows,
        )

    def start(self) -> None:
        """Watch every directory, then let the reader run."""
        self._watcher.start()

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next events, None where there are none in time."""
        return self._watcher.next_batch(timeout_s)

    def expect(self, tree: int, path: bytes, kinds: int, *, count: int = 1, ttl_s: float = 10.0) -> None:
        """Announce own operations."""
        self._watcher.expect(tree, path, kinds, count, ttl_s)

    def rescan(self, tree: int) -> None:
        """Ask for a rescan of a tree."""
        self._watcher.rescan(tree)

    def status(self) -> SourceStatus:
        """Counters as of now."""
        return status_of(self._watcher, self._roots, "native")

    def stop(self) -> None:
        """End the reader and wake `next_batch`."""
        self._watcher.stop()
