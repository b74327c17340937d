"""Answers about what happened and how it was judged: events, alerts, threats, policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shieldd.api.answers.instant import Instant
from shieldd.model.decision import ActionKind, Outcome, Reason, Severity
from shieldd.model.incident import Judgement, State


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One coalesced event with what was decided about it.

    Attributes:
        path, from_path: absolute; `from_path` empty where there is none.
        kind: create, write, delete, rename, … (`shieldd.model.event.Kind` in lower case, `_` as `-`).
        pid, uid: -1 where the source does not tell.
        merged: operations folded into this event.
        action: allow, alert, seal, quarantine, contain.
        threat_id: empty where the event belongs to none.
    """

    seq: int
    at_ns: Instant
    kind: str
    tree: bytes
    path: bytes
    from_path: bytes
    pid: int
    uid: int
    merged: int
    action: str
    severity: Severity
    threat_id: str


@dataclass(frozen=True, slots=True)
class Events:
    """Oldest first; `more` where the limit cut older ones off."""

    items: tuple[EventRecord, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person should look at. `seq` grows by one with each alert; `path` may be empty."""

    seq: int
    at_ns: Instant
    severity: Severity
    threat_id: str
    kind: ActionKind
    path: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Alerts:
    """Oldest first."""

    items: tuple[Alert, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ActorInfo:
    """The process behind a threat, where the kernel told it."""

    pid: int
    exe: bytes
    cmdline: bytes
    uid: int


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One thing done; `undo` is the command that takes it back, `path` absolute."""

    id: str
    threat_id: str
    kind: ActionKind
    path: bytes
    at_ns: Instant
    outcome: Outcome
    reason: str
    undo: str


@dataclass(frozen=True, slots=True)
class HeldProcess:
    """One process of a containment; `start_ticks` tells it from a later one with the same number.

    Attributes:
        fate: done (stopped, resumed or killed as asked), pending, gone, spared, denied, already (stopped by others).
        note: what a person should know of it.
    """

    pid: int
    start_ticks: int
    exe: bytes
    fate: str
    note: str


@dataclass(frozen=True, slots=True)
class Containment:
    """Processes that are or were held for a threat.

    Attributes:
        state: held, released, killed, gone.
        release_at_ns: when it ends by itself; null for never.
        cgroup: control group that was frozen too, empty where none was.
    """

    threat_id: str
    state: str
    at_ns: Instant
    changed_at_ns: Instant
    release_at_ns: Instant
    cgroup: bytes
    note: str
    processes: tuple[HeldProcess, ...]


@dataclass(frozen=True, slots=True)
class Threat:
    """What one actor did in one tree, and what was done about it.

    Attributes:
        first_event_at_ns, decided_at_ns, held_at_ns, contained_at_ns: its first act, the decision, from when on its
            opens were denied, when the last of its processes stood still.
        files_preserved: destroyed, with a version from before; files_lost: destroyed without one.
        files_per_s: the attacker's rate; 0 before its second file.
        containment: null where nothing was ever held.
    """

    id: str
    opened_at_ns: Instant
    closed_at_ns: Instant
    state: State
    severity: Severity
    actor: ActorInfo | None
    tree: bytes
    actions: tuple[ActionRecord, ...]
    files_touched: int
    files_lost: int
    first_event_at_ns: Instant
    decided_at_ns: Instant
    contained_at_ns: Instant
    reasons: tuple[Reason, ...]
    attack: tuple[str, ...]
    verdict: Judgement | None
    note: str
    held_at_ns: Instant
    files_preserved: int
    files_per_s: float
    containment: Containment | None


@dataclass(frozen=True, slots=True)
class Threats:
    """Oldest first; in lists `actions` may be cut to the latest ten."""

    items: tuple[Threat, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class FeatureValue:
    """One number that the decision rested on, with its unit and meaning."""

    name: str
    value: float
    unit: str
    contribution: float
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a threat was decided as it was.

    Attributes:
        summary: one or two sentences for an admin.
        wanted, action: what the policy asked for, and what the guard let be done.
        rule: the guard's rule that decided, empty where none did.
        probabilities: action → probability by the policy; empty without one.
        features: largest contribution first.
        timeline: first events of the threat, oldest first.
    """

    threat: Threat
    summary: str
    wanted: str
    action: str
    rule: str
    policy_version: str
    generation: int
    probabilities: Mapping[str, float]
    features: tuple[FeatureValue, ...]
    timeline: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the daemon would say of a file as it lies there now; nothing is done to it."""

    path: bytes
    action: str
    rule: str
    matches: tuple[str, ...]
    reasons: tuple[Reason, ...]
    error: str


@dataclass(frozen=True, slots=True)
class Analyses:
    """In the order asked for."""

    items: tuple[Analysis, ...]


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """The policy in full; `card` is its model card (markdown), empty where there is none."""

    state: str
    version: str
    digest: str
    reason: str
    schema_version: int
    features: tuple[str, ...]
    actions: tuple[str, ...]
    metadata: Mapping[str, str]
    card: str


@dataclass(frozen=True, slots=True)
class PolicyEvaluation:
    """The policy over a trace.

    Attributes:
        source: the trace, or "shipped".
        agreement: share of rows with the label's action, -1 where the trace has no labels.
        actions: action → number of rows.
        passed: the policy does on its own golden rows what it did when it was signed.
    """

    version: str
    source: str
    rows: int
    rows_per_s: float
    agreement: float
    actions: Mapping[str, int]
    passed: bool
