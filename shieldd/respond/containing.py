"""What containment works with: each part by its contract, and all of them in one hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from shieldd.model.contained import Containment, Member, Sent
from shieldd.model.decision import Severity
from shieldd.respond import Ledger, Trees
from shieldd.respond.notes import Notes

PROCESS_KEY: Final = 1 << 63  # actors that are processes have this bit (`native/sys/src/actors.rs`); trees have not


class Signals(Protocol):
    """Signals to groups of processes (`shieldd.native.freeze.Freezer`)."""

    def stop(self, members: Sequence[Member]) -> Sent:
        """SIGSTOP to these and all who belong to them."""

    def resume(self, members: Sequence[Member]) -> Sent:
        """SIGCONT to these alone."""

    def kill(self, members: Sequence[Member]) -> Sent:
        """SIGKILL to these and all who belong to them."""

    def freeze_group(self, pids: Sequence[int]) -> bytes:
        """Freeze the control group that holds nobody else; raises `contain.cgroup`."""

    def thaw_group(self, directory: bytes) -> None:
        """Thaw it again; raises `contain.cgroup`."""


class Groups(Protocol):
    """Which processes are one actor (`shieldd.actors`)."""

    def members(self, actor: int) -> Sequence[Member]:
        """Those that live now."""

    def of_the_host(self, actor: int) -> bool:
        """Whether it is the host's own work (service manager, a server as a whole), which is never held."""


class Verdicts(Protocol):
    """What the kernel answers an actor's opens (`shieldd.hold`)."""

    def deny(self, actor: int) -> bool:
        """Deny its opens for writing from now on; False where nothing can be denied here. Never blocks."""

    def clear(self, actor: int) -> None:
        """No verdict any more."""


class Holdings(Protocol):
    """Durable list of what is held (`shieldd.store`)."""

    def save(self, containment: Containment) -> None:
        """Insert or replace, durable before returning."""

    def of(self, threat_id: str) -> Containment | None:
        """That of an incident."""

    def held(self) -> list[Containment]:
        """Those in force."""


class Tell(Protocol):
    """Whoever must know; none of these waits."""

    def alert(self, severity: Severity, text: str, threat_id: str, tree: int) -> None:
        """A sentence for people."""

    def trouble(self, code: str, text: str) -> None:
        """Something that is not as it should be."""

    def stopped(self, threat_id: str, held_at_ns: int, contained_at_ns: int) -> None:
        """When the actor's opens were denied (0: they cannot be), and when the last of its processes stood still."""


@dataclass(frozen=True, slots=True)
class Means:
    """All of it.

    Attributes:
        signals: gives the sender in force; another one after a reload.
        hold_s: seconds after which what is held in a tree goes on by itself, 0 for never.
        boot_id: of the running kernel.
    """

    signals: Callable[[], Signals]
    groups: Groups
    verdicts: Verdicts
    holdings: Holdings
    ledger: Ledger
    notes: Notes
    tell: Tell
    trees: Trees
    boot_id: str
    hold_s: Callable[[int], float]

    def members(self, actor: int) -> Sequence[Member]:
        """Processes of an actor that live now; none where the actor is a tree."""
        return self.groups.members(actor) if actor & PROCESS_KEY else ()
