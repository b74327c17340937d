"""What the answerer of held opens tells the daemon: verdicts, records, counters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag


class Verdict(IntEnum):
    """What the policy says of an actor; `native/sys/src/hold/verdicts.rs`."""

    NONE = 0
    ALLOW = 1
    DENY = 2
    ASK = 3


class HeldKind(IntEnum):
    """What was held; `native/sys/src/hold/ring.rs`. `ASK`: the opener waits for a verdict still."""

    OPEN = 1
    TRUNCATE = 2
    RANGE = 3
    ASK = 4


class Kept(IntEnum):
    """What became of the version. `NONE`: none was needed, the open was refused."""

    NONE = 0
    YES = 1
    FULL = 2
    LATE = 3
    FAILED = 4
    ABSENT = 5


class AnswererState(IntEnum):
    """State of the answerer."""

    STARTING = 0
    RUNNING = 1
    ENDED = 2


class Cover(IntFlag):
    """What an answerer covers; `native/sys/src/hold/control.rs`."""

    OPENS = 1
    RANGES = 2
    LOCKED = 4
    REALTIME = 8
    MOVES = 16


@dataclass(frozen=True, slots=True)
class HeldOpen:
    """An opener that was held, or is.

    Attributes:
        tree: index of the tree, None where it could not be told (a foreign mount); the path is whole then.
        path: relative to the tree.
        at_ns: wall clock of the answer.
        actor: key, 0 where it could not be told.
        version: in the vault of the tree, None where there is none.
        start_ticks: start of the process, clock ticks since boot.
        held_us: how long it was held.
        size_bytes: of the file before.
        undecoded: the access could not be decoded and was taken for a write.
        errno: what the vault said.
    """

    kind: HeldKind
    kept: Kept
    tree: int | None
    path: bytes
    at_ns: int
    actor: int
    version: int | None
    pid: int
    tid: int
    start_ticks: int
    held_us: int
    size_bytes: int
    verdict: Verdict
    undecoded: bool
    errno: int | None

    @property
    def lost(self) -> bool:
        """Whether it went on without a version."""
        return self.kept in {Kept.FULL, Kept.LATE, Kept.FAILED, Kept.ABSENT}


@dataclass(frozen=True, slots=True)
class HoldCounts:
    """The words of the control block, in its order; times in ns. What they mean: `Word` in `control.rs`."""

    beat_ns: int
    state: AnswererState
    pid: int
    supervisor_beat_ns: int
    kills: int
    killed_at_ns: int
    covers: Cover
    denied: int
    refreshed: int
    head: int
    tail: int
    failure: int
    events: int
    reads: int
    own: int
    outside: int
    empty: int
    undecoded: int
    foreign: int
    held: int
    denials: int
    asked: int
    unasked: int
    preserved: int
    preserved_bytes: int
    lost_full: int
    lost_late: int
    lost_failed: int
    accesses: int
    ranges: int
    records: int
    records_lost: int
    ignored: int
    longest_ns: int
    pending: int
    stuck: int
    stuck_since_ns: int
