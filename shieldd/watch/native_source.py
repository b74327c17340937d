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


class CoreSource:
    """What the sources over the core's watchers have alike; see `shieldd.watch.Source`.

    Args:
        watcher: prepared, not started.
        roots: of its trees.
        backend: its name in the status.
        attribution: whether it knows who did what.
    """

    def __init__(self, watcher: Watcher, roots: Sequence[bytes], backend: str, *, attribution: bool) -> None:
        self._watcher = watcher
        self._roots = tuple(roots)
        self._backend = backend
        self._attribution = attribution

    def start(self) -> None:
        """Watch, then let the reader run."""
        self._watcher.start()

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next events, None where there are none in time."""
        return self._watcher.next_batch(timeout_s)

    def expect(self, tree: int, path: bytes, kinds: int, *, count: int = 1, ttl_s: float = 10.0) -> None:
        """Announce own operations, where the source does not know by itself whose they are."""
        self._watcher.expect(tree, path, kinds, count, ttl_s)

    def rescan(self, tree: int) -> None:
        """Ask for what changed in a tree while something may have been missed."""
        self._watcher.rescan(tree)

    def status(self) -> SourceStatus:
        """Counters as of now."""
        now = self._watcher.counts()
        return SourceStatus(
            backend=self._backend,
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
                (os.path.join(self._roots[tree], path) if path else self._roots[tree], reason)
                for tree, path, reason in self._watcher.not_covered()
            ),
            attribution=self._attribution,
        )

    def stop(self) -> None:
        """End the reader and wake `next_batch`."""
        self._watcher.stop()


class NativeSource(CoreSource):
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
        watcher = Watcher(
            [(tree.root, tree.root_fd, tree.exclude) for tree in trees],
            inspect=inspect,
            hold_us=int(coalesce_ms * 1000),
            capacity=capacity,
            baseline=Baseline() if baseline is None else baseline,
            windows=Windows() if windows is None else windows,
        )
        super().__init__(watcher, [tree.root for tree in trees], "native", attribution=False)
