"""An incident ("threat" in the API): what one actor did in one tree, and what was done about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shieldd.model.decision import ActionKind, Outcome, Reason, Severity


class State(StrEnum):
    """Life of an incident."""

    OPEN = "open"
    RESOLVED = "resolved"


class Judgement(StrEnum):
    """What a person said of it."""

    MALICIOUS = "malicious"
    BENIGN = "benign"


@dataclass(frozen=True, slots=True)
class Actor:
    """The process behind an incident, where the kernel told it."""

    pid: int
    exe: bytes
    cmdline: bytes
    uid: int


@dataclass(frozen=True, slots=True)
class TakenAction:
    """One action of an incident, with how to undo it.

    Attributes:
        undo: the next command that takes it back, empty where nothing needs it.
    """

    id: str
    threat_id: str
    kind: ActionKind
    tree: int
    path: bytes
    at_ns: int
    outcome: Outcome
    reason: str
    undo: str


@dataclass(frozen=True, slots=True)
class Incident:
    """What one actor did in one tree. All times are wall clock, ns; 0 where it has not happened.

    Attributes:
        first_event_at_ns, decided_at_ns, held_at_ns, contained_at_ns: the attacker's first act, our decision, from when
            on the actor's opens were denied, and when the last of its processes stood still.
        files_touched: changed by it; files_preserved: of those destroyed, the ones that have a version from before;
        files_lost: destroyed without one.
        files_per_s: the attacker's rate, first to latest file; 0 before the second.
    """

    id: str
    opened_at_ns: int
    closed_at_ns: int
    state: State
    severity: Severity
    actor: Actor | None
    actor_id: int
    tree: int
    files_touched: int
    files_lost: int
    first_event_at_ns: int
    decided_at_ns: int
    contained_at_ns: int
    reasons: tuple[Reason, ...]
    attack: tuple[str, ...]
    judgement: Judgement | None = None
    note: str = ""
    held_at_ns: int = 0
    files_preserved: int = 0
    files_per_s: float = 0.0
