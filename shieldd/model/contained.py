"""A containment: which processes were stopped for an incident, what became of each, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum


class Fate(IntEnum):
    """What became of a process that a signal was meant for (`native/sys/src/freeze/group.rs`)."""

    DONE = 1
    PENDING = 2
    GONE = 3
    SPARED = 4
    DENIED = 5
    ALREADY = 6


class Spared(IntEnum):
    """Why a process was left alone (`native/sys/src/freeze/spared.rs`)."""

    NOT = 0
    FIRST = 1
    KERNEL = 2
    OURSELVES = 3
    ANCESTOR = 4
    MANAGER = 5
    SERVER = 6
    LISTED = 7


class Trait(IntFlag):
    """What a person should know of a process that was signalled."""

    THREADS = 1
    TRACED = 2
    UNINTERRUPTIBLE = 4
    FOUND = 8
    TRACER = 16
    HEADLESS = 32


class Holding(StrEnum):
    """Life of a containment."""

    HELD = "held"
    RELEASED = "released"
    KILLED = "killed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Member:
    """One process: number and start, in clock ticks since boot. The pair names it for as long as the host is up."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """What one call did to one process."""

    member: Member
    ppid: int
    fate: Fate
    spared: Spared
    traits: Trait
    errno: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What one call did to a group.

    Attributes:
        told: everybody concerned, those that were found on the way included.
        passes: looks at all processes that it took.
        complete: a last look found nobody new with everybody at rest.
        first_ns, elapsed_ns: from the call until all that were named had the signal, until all were at rest.
    """

    told: tuple[Signalled, ...]
    passes: int
    complete: bool
    first_ns: int
    elapsed_ns: int


@dataclass(frozen=True, slots=True)
class ContainedProcess:
    """One process of a containment; `exe` is empty where it was gone before it could be looked at."""

    member: Member
    exe: bytes
    fate: Fate
    note: str


@dataclass(frozen=True, slots=True)
class Containment:
    """What is held for one incident.

    Attributes:
        actor_id: key of the actor; its opens are denied for as long as it is held.
        boot_id: of the kernel that the processes live under; after another boot they are gone.
        release_boot_ns: `CLOCK_BOOTTIME` when it ends by itself, 0 for never.
        cgroup: directory of the control group that was frozen, empty where none was.
        note: what a person should know of it; never a path of a guarded file.
    """

    threat_id: str
    tree: int
    actor_id: int
    state: Holding
    at_ns: int
    changed_at_ns: int
    boot_id: str
    release_boot_ns: int
    cgroup: bytes
    note: str
    members: tuple[ContainedProcess, ...]

    @property
    def stopped(self) -> tuple[Member, ...]:
        """Those that were stopped by us."""
        return tuple(x.member for x in self.members if x.fate in (Fate.DONE, Fate.PENDING))


@dataclass(frozen=True, slots=True)
class Standing:
    """What a process runs at this moment.

    Attributes:
        dev, ino: of its executable.
        exe_sha256: 32 bytes.
        foreign: what is in it that did not come with the executable and root's libraries; empty where nothing is.
        spared: why it would be left alone.
    """

    dev: int
    ino: int
    exe_sha256: bytes
    foreign: str
    spared: Spared
