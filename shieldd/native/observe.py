"""What the core says of files and actors: schema, baseline, inspector, windows.

Owns the typed face of `native/ffi/src/observe.rs`. Does not own any number: all are computed in the core, the same
for live events, recorded traces and the simulator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from shieldd.errors import ShieldError
from shieldd.model.event import EVENT, FACTS, Kind
from shieldd.native._abi import call, ffi, lib

CAPACITY: Final = 500_000
"""Fingerprints that a baseline holds unless told otherwise: about 70 MB when full."""

ACTORS: Final = 1_024
"""Actors that windows remember unless told otherwise: about 20 MB when full."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of an observation.

    Attributes:
        name: stable name.
        part: `file`, `operation`, `actor` or `context`.
        unit: of the raw number; normalisation lives inside the model.
        min: smallest value.
        max: largest value.
        unknown: whether -1 means that it could not be known.
        help: what it says, for an admin.
    """

    name: str
    part: str
    unit: str
    min: float
    max: float
    unknown: bool
    help: str


@dataclass(frozen=True, slots=True)
class Schema:
    """The core's table of observations.

    Attributes:
        version: of the table; a model made for another one is refused.
        features: columns, in order.
        actions: names of the policy's logits, in order.
        formats: names of the formats; `FACTS.format` is an index into them, 0 is unknown.
        index: column of each feature by name.
    """

    version: int
    features: tuple[Feature, ...]
    actions: tuple[str, ...]
    formats: tuple[str, ...]
    index: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.features)


@cache
def schema() -> Schema:
    """The table, as the core has it."""
    length = ffi.new("uintptr_t *")
    call(lib.shd_observation_schema, ffi.NULL, 0, length)
    buffer = ffi.new("uint8_t[]", length[0])
    call(lib.shd_observation_schema, buffer, length[0], length)
    data = json.loads(ffi.buffer(buffer)[:])
    features = tuple(Feature(**feature) for feature in data["features"])
    return Schema(
        version=data["version"],
        features=features,
        actions=tuple(data["actions"]),
        formats=tuple(data["formats"]),
        index=MappingProxyType({feature.name: i for i, feature in enumerate(features)}),
    )


@dataclass(frozen=True, slots=True)
class BaselineStats:
    """Fingerprints held, most that will be held, and how many left because the table was full."""

    entries: int
    capacity: int
    evictions: int


class Baseline:
    """Last known fingerprint of each file, bounded; the least recently used leaves and is counted.

    May be shared with a watcher and an inspector; every call locks.

    Args:
        capacity: most files it remembers, at least 1.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        out = ffi.new("ShdBaseline **")
        call(lib.shd_baseline_new, _count(capacity), out)
        self.handle: Any = ffi.gc(out[0], lib.shd_baseline_free)

    def stats(self) -> BaselineStats:
        """Its counters."""
        out = ffi.new("BaselineStats *")
        call(lib.shd_baseline_stats, self.handle, out)
        return BaselineStats(out.entries, out.capacity, out.evictions)

    def path_hash(self, tree: int, path: bytes) -> int:
        """What stands for a path of a tree in the facts of all that share this baseline.

        Args:
            tree: index of the tree.
            path: relative to its root.
        """
        out = ffi.new("uint64_t *")
        call(lib.shd_baseline_path_hash, self.handle, tree, ffi.from_buffer(path), len(path), out)
        return int(out[0])

    def save(self, fd: int) -> None:
        """Write it to a descriptor at its offset, with a digest; durability is the caller's.

        Raises:
            ShieldError: `file.io`.
        """
        call(lib.shd_baseline_save, self.handle, fd)

    def load(self, fd: int) -> None:
        """Replace its content by what `save` wrote, read from the descriptor's offset to its end.

        Raises:
            ShieldError: `baseline.corrupt`, `baseline.version` (it is then unchanged), `file.io`.
        """
        call(lib.shd_baseline_load, self.handle, fd)


@dataclass(frozen=True, slots=True)
class InspectorStats:
    """Files read, files that could not be read, objects that are no regular files, bytes read."""

    looked: int
    unseen: int
    special: int
    bytes: int


class Inspector:
    """Bounded sampling of files by descriptor: at most 12 KiB of each are read, whatever its size.

    Never opens a FIFO or device for more than a look at its inode, never follows a link, never leaves the root.

    Args:
        baseline: compared with and kept up to date; a small one of its own by default.
    """

    def __init__(self, baseline: Baseline | None = None) -> None:
        self.baseline = Baseline() if baseline is None else baseline
        out = ffi.new("ShdInspector **")
        call(lib.shd_inspector_new, self.baseline.handle, out)
        self._handle = ffi.gc(out[0], lib.shd_inspector_free)

    def inspect(
        self, root_fd: int, path: bytes, from_path: bytes | None = None, kind: int = Kind.WRITE, *, tree: int = 0
    ) -> np.ndarray:
        """Look at one file.

        Args:
            root_fd: open directory; the path is resolved beneath it.
            path: relative to it.
            from_path: old path of a rename.
            kind: a `Kind`: a deleted file is not looked for, its fingerprint leaves; a renamed one's follows it.
            tree: number of the guarded tree; part of the fingerprint's key.

        Returns:
            array of `FACTS`, shape (1,). What could not be read has the flag `UNSEEN`; this never raises for a file.
        """
        event = np.zeros(1, EVENT)
        event["kind"] = kind
        event["tree"] = tree
        event["path_len"] = len(path)
        event["from_off"] = len(path)
        event["from_len"] = len(from_path or b"")
        return self.inspect_many(root_fd, event, path + (from_path or b""))

    def inspect_many(self, root_fd: int, events: np.ndarray, names: bytes) -> np.ndarray:
        """Look at the file of each event.

        Args:
            events: array of `EVENT`, shape (N,), whose paths lie in `names`.
            names: arena of paths.

        Returns:
            array of `FACTS`, shape (N,).
        """
        events = _records(events, EVENT)
        out = np.zeros(len(events), FACTS)
        arena = names or b"\0"
        call(
            lib.shd_inspector_inspect,
            self._handle,
            root_fd,
            ffi.from_buffer("Event *", events),
            len(events),
            ffi.from_buffer(arena),
            len(names),
            ffi.from_buffer("Facts *", out, require_writable=True),
        )
        return out

    def stats(self) -> InspectorStats:
        """Its counters."""
        out = ffi.new("InspectorStats *")
        call(lib.shd_inspector_stats, self._handle, out)
        return InspectorStats(out.looked, out.unseen, out.special, out.bytes)


@dataclass(frozen=True, slots=True)
class WindowsStats:
    """Actors remembered, most that will be, how many left for it, events seen, events whose time ran backwards."""

    actors: int
    capacity: int
    evicted: int
    events: int
    clock_steps: int


class Windows:
    """Decaying memory over actors and trees; turns events and facts into observations.

    May be shared with a watcher; every call locks. The same object serves live events, traces and the simulator.

    Args:
        actors: most actors it remembers, at least 1; the oldest quiet ones leave and are counted.
    """

    def __init__(self, actors: int = ACTORS) -> None:
        out = ffi.new("ShdWindows **")
        call(lib.shd_windows_new, _count(actors), out)
        self.handle: Any = ffi.gc(out[0], lib.shd_windows_free)

    def observe(self, events: np.ndarray, facts: np.ndarray) -> np.ndarray:
        """Count events in, in order.

        Args:
            events: array of `EVENT`, shape (N,); `mono_ns` is the clock of all windows.
            facts: array of `FACTS`, shape (N,).

        Returns:
            float32 matrix, shape (N, F), columns as `schema()` lists them; every number finite and in its range.

        Raises:
            ShieldError: `native.argument` for arrays of another type or of different lengths.
        """
        events, facts = _records(events, EVENT), _records(facts, FACTS)
        if len(events) != len(facts):
            raise ShieldError("native.argument", "events and facts differ in length")
        out = np.empty((len(events), schema().width), np.float32)
        call(
            lib.shd_windows_observe,
            self.handle,
            ffi.from_buffer("Event *", events),
            ffi.from_buffer("Facts *", facts),
            len(events),
            ffi.from_buffer("float *", out, require_writable=True),
        )
        return out

    def reset(self) -> None:
        """Forget all actors and trees; the counters stay."""
        call(lib.shd_windows_reset, self.handle)

    def stats(self) -> WindowsStats:
        """Its counters."""
        out = ffi.new("WindowsStats *")
        call(lib.shd_windows_stats, self.handle, out)
        return WindowsStats(out.actors, out.capacity, out.evicted, out.events, out.clock_steps)


def _count(number: int) -> int:
    if not 1 <= number < 1 << 31:
        raise ShieldError("native.argument", f"{number} is not a usable capacity")
    return number


def _records(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The array itself where it is usable in place, else a contiguous copy; another type is refused."""
    if array.dtype != dtype or array.ndim != 1:
        raise ShieldError("native.argument", f"array of {array.dtype}, shape {array.shape} where records are meant")
    return np.require(array, requirements=["C", "A"])
