"""A decision about one event, and the action taken on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import Final


class Action(IntEnum):
    """What the policy may ask for, in the order of its logits."""

    ALLOW = 0
    ALERT = 1
    SEAL = 2
    QUARANTINE = 3
    CONTAIN = 4


class Severity(IntEnum):
    """OCSF severity_id."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


class Verdict(Enum):
    """What the guard did to the policy's wish."""

    PASSED = "passed"
    RAISED = "raised"  # a hard rule asked for more than the policy
    LOWERED = "lowered"  # trust, a limit or the mode allowed less
    ALONE = "alone"  # no policy: hard rules only


@dataclass(frozen=True, slots=True)
class Reason:
    """One contribution to a decision: a feature (or guard rule) and its share; positive speaks for the action."""

    feature: str
    contribution: float
    text: str = ""


# how much happened, in one way or another: true of any busy hour, and no reason that tells a person anything
_VOLUME: Final = frozenset(
    {"writes", "creates", "renames", "deletes", "directories", "merged", "actor_age", "actor_events", "size_log2"}
)


def headline(reasons: Sequence[Reason]) -> str:
    """The one sentence of an alert: the strongest reason that speaks for the action by something that was seen.

    What was not there ("no files made") and mere volume carry margins too; they stand in the explanation. Empty where
    there are no reasons.
    """
    speaks = [x for x in reasons if x.contribution > 0 and not x.text.startswith(("no ", "not so: "))]
    telling = [x for x in speaks if x.feature not in _VOLUME]
    return next((x.text for x in (*telling, *speaks, *reasons)), "")


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one event, and why.

    Attributes:
        seq: number of the event.
        tree: index of the guarded tree.
        path: relative to the tree's root.
        wanted: action with the highest logit, `ALLOW` when there is no policy.
        action: what will be done, after the guard.
        verdict: what the guard did.
        rule: name of the guard's rule that decided, empty when it passed.
        logits: five numbers, empty without a policy.
        reasons: top contributions, largest first.
        policy_version: of the model that scored it, empty without one.
        generation: of the configuration it was decided under.
        at_ns: wall clock when it was decided, ns.
        mono_ns: monotonic clock then, ns.
        event_at_ns: wall clock when the event was read, ns; 0 where that is not kept.
    """

    seq: int
    tree: int
    actor: int
    path: bytes
    wanted: Action
    action: Action
    verdict: Verdict
    rule: str
    logits: tuple[float, ...]
    reasons: tuple[Reason, ...]
    severity: Severity
    policy_version: str
    generation: int
    at_ns: int
    mono_ns: int
    event_at_ns: int = 0


class ActionKind(StrEnum):
    """What was done, as it stands in records."""

    ALERT = "alert"
    SEAL = "seal"
    QUARANTINE = "quarantine"
    CONTAIN = "contain"
    RESTORE = "restore"
    OPEN = "open"


class Outcome(StrEnum):
    """How it ended. `PENDING` is the durable intent; what is still pending after a restart reads as failed."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
