"""What the answerer of held opens tells the daemon: verdicts, records, counters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

BOUND_MS: Final = 5.0
HOLD_MS: Final = 250.0  # with the 0.2 s of a stopped heart on top it stays below half a second
WHOLE_LIMIT_BYTES: Final = 64 << 20


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
    herds: int
    let_go: int


@dataclass(frozen=True, slots=True)
class HoldOptions:
    """How openers are held.

    Attributes:
        bound_ms: longest wait for a verdict.
        hold_ms: longest wait for a version.
        whole_limit_bytes: files up to this size are kept whole when they are opened for writing.
        ranges: whether ranges of larger files and truncate(2) are seen, where the kernel can (Linux 6.14; it costs a
            round trip for each read and write on the file system).
        servers: executables that work for clients, by absolute path.
        quota_bytes: most that a vault may hold.
        min_free_bytes: no version is made that would leave less.
    """

    bound_ms: float = BOUND_MS
    hold_ms: float = HOLD_MS
    whole_limit_bytes: int = WHOLE_LIMIT_BYTES
    ranges: bool = True
    servers: tuple[bytes, ...] = ()
    quota_bytes: int = 2**64 - 1
    min_free_bytes: int = 0


@dataclass(frozen=True, slots=True)
class HoldStatus:
    """How things stand.

    Attributes:
        running: opens are held now.
        since_ns: wall clock since when that is so, or is not.
        reason: why nothing is held; empty where it is.
        code: of that failure.
        restarts: answerers started after the first.
        kills: answerers that the supervisor ended.
        not_covered: what is not held or preserved, in words.
    """

    running: bool
    since_ns: int
    reason: str
    code: str
    restarts: int
    kills: int
    covers: Cover
    not_covered: tuple[str, ...]
    counts: HoldCounts


def not_covered(counts: HoldCounts, *, holding: bool) -> tuple[str, ...]:
    """What is not held or preserved now, in words."""
    if not holding:
        return ("writers are not held; changes are seen after they were made",)
    found = ["writes through descriptors and mappings that were open before the guard", "writes to the raw device"]
    if not counts.covers & Cover.RANGES:
        found.append(
            "truncate(2) by path, and files above the limit for whole copies (needs Linux 6.14 and ext4, xfs or btrfs)"
        )
    if counts.stuck_since_ns:
        found.append("all versions: the vault does not answer")
    return tuple(found)
