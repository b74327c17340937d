"""Where events come from: one contract, several sources.

A source watches guarded trees and hands out batches of coalesced events with what is known of each file. Owns the
contract; `native_source`, `fanotify_source`, `pyinotify_source` and `replay` implement it. A source sees; it never
judges or acts.

The contract, which one test suite runs on every source:

* `start` returns once every directory is watched; what changes from then on is reported, what was there before is the
  known state and is not.
* Every change gives at least one event, or is covered by an `OVERFLOW` or `WATCH_LIMIT` event and found by the rescan
  that follows (events with the flag `SYNTHETIC`, ended by `RESCAN_DONE`). Directories that change names faster than
  the queue is read may call for such a rescan too: `blind_since_ns` says so. Nothing is missed in silence.
* Events of one path merge while they wait; reading events in order always gives the true end state.
* `seq` has no gaps; `mono_ns` is when the first of the merged kernel events was read.
* Hidden names that the core made a moment ago, excluded names and announced own operations (`expect`) are not
  reported. A name that only looks like one of ours is anybody's.
* A file moved into a tree is a `CREATE`, out of it (or to another tree) a `DELETE`, inside it a `RENAME` with `from`.
* FIFOs, sockets, devices and links are reported with the flag `SPECIAL` and never opened.
* One thread takes batches; `stop`, `expect`, `rescan` and `status` may be called from others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shieldd.model.event import Batch


@dataclass(frozen=True, slots=True)
class Tree:
    """A guarded tree.

    Attributes:
        root: its path, to find it again after an unmount.
        root_fd: its directory, open; the source makes a duplicate of it.
        exclude: globs of what is left out, as `shieldd.native.watch.excluded` reads them.
        index: its number; equals its place in the list that a source is given.
    """

    root: bytes
    root_fd: int
    exclude: tuple[bytes, ...] = ()
    index: int = 0


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a source says of itself.

    Attributes:
        backend: `native`, `fanotify`, `pyinotify` or `replay`.
        watches: directories watched by the kernel; file systems marked with fanotify.
        directories: directories known, watched or polled.
        overflows: overflows of the kernel's queue.
        events_lost: exact where our own queue was full, one for each overflow of the kernel's.
        watch_failures: times that a directory could not be watched.
        rescans: rescans of whole trees that ended.
        blind_since_ns: wall clock since when something may have been missed, None where nothing was.
        queue_depth: records that wait for the consumer.
        events: kernel events seen.
        merged: kernel events merged into the record of another.
        own: own operations that were announced and dropped.
        not_covered: (path with the tree's root, reason) of places that are not watched.
        attribution: whether the source knows who did it.
    """

    backend: str
    watches: int
    directories: int
    overflows: int
    events_lost: int
    watch_failures: int
    rescans: int
    blind_since_ns: int | None
    queue_depth: int
    events: int
    merged: int
    own: int
    not_covered: tuple[tuple[bytes, str], ...]
    attribution: bool = False


class Source(Protocol):
    """A source of events; the module's text is its contract."""

    def start(self) -> None:
        """Watch, then scan. Returns once every directory is watched.

        Raises:
            ShieldError: `watch.root` where a root cannot be followed, `watch.failed`; nothing runs then.
        """

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next events in order, None where there are none in time.

        Raises:
            ShieldError: `watch.stopped` after `stop`.
        """

    def expect(self, tree: int, path: bytes, kinds: int, *, count: int = 1, ttl_s: float = 10.0) -> None:
        """Announce own operations before doing them.

        Args:
            tree: index of the tree.
            path: relative to its root.
            kinds: bits `1 << Kind`; `count` operations of each are not reported. A whole write (any number of
                `write(2)` up to `close(2)`) counts once; changes of attributes are not counted, they end with the time.
            count: 0 ends what was announced of the path after `ttl_s`, if that is sooner.
            ttl_s: seconds after which the announcement ends.
        """

    def rescan(self, tree: int) -> None:
        """Ask for a rescan of a tree against the known state."""

    def status(self) -> SourceStatus:
        """Counters as of now."""

    def stop(self) -> None:
        """End; wakes `next_batch`. May be called twice."""


__all__ = ["Source", "SourceStatus", "Tree"]
