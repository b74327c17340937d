"""The source over the core's fanotify watcher: whole file systems by one mark each, and who did it.

Needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH, Linux 5.17, and file systems with handles of their own; else
`watch.unsupported`, and `NativeSource` is what is left. What differs from the other sources within the contract:

* Nothing is set up per directory: a start takes the same time for one directory and for 100,000, and no directory can
  be beyond a limit. The status counts one watch per file system, and the directories met so far.
* Events carry the process and, with `actors`, its actor; records of one path merge only where the actor is the same.
  What processes in `own_pids` do is not reported at all.
* The kernel's queue has no bound. While our own is full, events wait there for `patience_s`; only then they are lost.
* There is no known state. After a gap, files whose times say that they changed since are reported; what was removed in
  a gap is not found. `rescan` without a gap ends at once.
* A rename that replaced a file says so (`OVER`) from what the kernel tells of the replaced file's links; where the same
  process removed another file in the same instant, it may say so wrongly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from shieldd.native.actors import Actors
from shieldd.native.observe import Baseline, Windows
from shieldd.native.watch import CAPACITY, FanotifyWatcher
from shieldd.watch import Tree
from shieldd.watch.native_source import COALESCE_MS, CoreSource

PATIENCE_S: Final = 1.0
"""How long events may wait in the kernel's queue while ours is full, s: some 100 MB in a storm of new names."""


class FanotifySource(CoreSource):
    """See `shieldd.watch.Source`, and the module's text.

    Args:
        trees: in the order of their indices.
        inspect: whether files are opened and sampled.
        coalesce_ms: how long a file that is still open for writing waits for its writer, ms.
        capacity: records that wait for the consumer at most.
        baseline: last known fingerprints; one of its own by default.
        windows: memory over actors; one of its own by default.
        actors: who is behind a process; without it each tree is its own actor.
        own_pids: processes whose own operations are not reported; this one by default.
        patience_s: how long a full queue may leave events in the kernel's before they count as lost, s.
        limited: the kernel's queue has its limit, to see it overflow.

    Raises:
        ShieldError: `watch.limit`, `watch.unsupported`, `watch.failed`; `start` raises `watch.unsupported` where the
            file system of a tree cannot be marked, `watch.root` where a root cannot be followed.
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
        actors: Actors | None = None,
        own_pids: Sequence[int] | None = None,
        patience_s: float = PATIENCE_S,
        limited: bool = False,
    ) -> None:
        watcher = FanotifyWatcher(
            [(tree.root, tree.root_fd, tree.exclude) for tree in trees],
            inspect=inspect,
            hold_us=int(coalesce_ms * 1000),
            capacity=capacity,
            baseline=Baseline() if baseline is None else baseline,
            windows=Windows() if windows is None else windows,
            own_pids=[os.getpid()] if own_pids is None else own_pids,
            actors=actors,
            patience_us=int(patience_s * 1e6),
            limited=limited,
        )
        super().__init__(watcher, [tree.root for tree in trees], "fanotify", attribution=True)
