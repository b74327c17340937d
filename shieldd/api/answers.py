"""What the daemon answers: frozen values with bytes and nanoseconds inside; `encode.py` makes the JSON.

In JSON a `bytes` field `path` becomes `path` (printable) and, where that lost anything, `path_b64`; a field of type
`Instant` named `*_ns` loses the suffix and becomes RFC 3339 UTC with milliseconds, null for 0; enums become their
values, severities their names in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from shieldd.model.decision import ActionKind, Outcome, Reason, Severity
from shieldd.model.incident import Judgement, State

INSTANT: Final = "instant"
Instant = Annotated[int, INSTANT]  # wall clock, ns since 1970; 0 = has not happened


class Health(StrEnum):
    """State of the daemon. `BLIND`: events are being lost or a tree is not seen at this moment."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    BLIND = "blind"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """Cheap: `ping` and probes ask it."""

    state: Health
    version: str
    pid: int
    since_ns: Instant


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is not as it should be, for as long as it lasts."""

    code: str
    text: str
    hint: str
    since_ns: Instant


@dataclass(frozen=True, slots=True)
class TreeStatus:
    """One guarded tree; `mode` is act, observe or alert-only."""

    root: bytes
    mode: str
    directories: int
    canaries: int


@dataclass(frozen=True, slots=True)
class NotCovered:
    """A place inside a guarded tree that is not watched, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """The source; counters since start."""

    backend: str
    watches: int
    directories: int
    events: int
    merged: int
    overflows: int
    lost: int
    watch_failures: int
    rescans: int
    queue_depth: int
    blind_since_ns: Instant
    not_covered: tuple[NotCovered, ...]


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """`state`: active, off, or refused (then the hard rules stand alone and `reason` says why)."""

    state: str
    version: str
    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals of the store (not since start)."""

    threats_open: int
    threats: int
    sealed: int
    quarantined: int
    events: int


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The whole daemon on one page.

    Attributes:
        mode: service or personal.
        state_dir: where store, keys and quarantine are.
        abi: version of the compiled core's interface.
        generation: of the configuration in force.
        keys: ready, locked or damaged, in words.
        troubles: empty when all is well; `shieldctl status` exits 6 when it is not.
    """

    state: Health
    version: str
    abi: str
    pid: int
    since_ns: Instant
    mode: str
    host_id: str
    state_dir: bytes
    generation: int
    config_source: bytes
    trees: tuple[TreeStatus, ...]
    watch: WatchStatus
    policy: PolicyStatus
    keys: str
    counts: Counts
    troubles: tuple[Trouble, ...]


class CheckState(StrEnum):
    """Result of one check of the doctor."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `hint` is the next command or setting, empty when ok."""

    name: str
    state: CheckState
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class Checks:
    """All checks of the doctor, in a fixed order."""

    items: tuple[Check, ...]


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
class Threat:
    """What one actor did in one tree, and what was done about it."""

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
class Begun:
    """First item of a long action: how many there are to do, -1 where that is not known yet."""

    total: int


@dataclass(frozen=True, slots=True)
class FileDone:
    """One file of a long action.

    Attributes:
        outcome: done, failed, skipped, or pending for a dry run ("would be done").
        to: where it is now (the sealed file, the opened file), empty where nothing was made.
        id: of the object in quarantine, where there is one.
        code, reason: of the error when it failed, why when it was skipped.
        size: bytes of content.
    """

    path: bytes
    outcome: Outcome
    to: bytes
    id: str
    size: int
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileStatus:
    """State of one file: plain, sealed, quarantined, missing or error (then code and reason tell).

    Attributes:
        path: as asked for.
        original: own name of a sealed file.
        verified: True and False only where a verification was asked for.
    """

    path: bytes
    state: str
    original: bytes
    size: int
    sealed_at_ns: Instant
    why: str
    key_id: str
    key_version: int
    suite: str
    digest: str
    verified: bool | None
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileStatuses:
    """In the order asked for, directories expanded."""

    items: tuple[FileStatus, ...]


@dataclass(frozen=True, slots=True)
class SealedFile:
    """One line of the inventory; `path` is the sealed file, `original` its own name."""

    path: bytes
    original: bytes
    size: int
    sealed_at_ns: Instant
    why: str
    key_version: int
    threat_id: str


@dataclass(frozen=True, slots=True)
class SealedFiles:
    """By path."""

    items: tuple[SealedFile, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class QuarantineItem:
    """One object in quarantine; `mode`, `owner` and times are the original's."""

    id: str
    original: bytes
    size: int
    at_ns: Instant
    why: str
    threat_id: str
    mode: int
    uid: int
    gid: int
    modified_at_ns: Instant
    digest: str
    key_version: int


@dataclass(frozen=True, slots=True)
class QuarantineItems:
    """Oldest first."""

    items: tuple[QuarantineItem, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key version; never the key. `objects` is -1 where it is not counted."""

    id: str
    purpose: str
    version: int
    state: str
    provider: str
    created_at_ns: Instant
    objects: int


@dataclass(frozen=True, slots=True)
class Keys:
    """By purpose, then version."""

    items: tuple[KeyInfo, ...]


@dataclass(frozen=True, slots=True)
class Rotated:
    """The new active versions (or, for a dry run, those that would be made)."""

    items: tuple[KeyInfo, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One key provider; `latency_ms` of the last probe, -1 where there was none."""

    name: str
    kind: str
    state: str
    latency_ms: float
    detail: str


@dataclass(frozen=True, slots=True)
class Providers:
    """The active one first."""

    items: tuple[ProviderInfo, ...]


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


@dataclass(frozen=True, slots=True)
class ConfigAnswer:
    """The configuration in force; secrets never stand in it."""

    source: bytes
    generation: int
    mode: str
    loaded_at_ns: Instant
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One fault of a configuration file."""

    file: bytes
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConfigCheck:
    """What a reload would say now; empty problems: it would be taken."""

    file: bytes
    problems: tuple[ConfigProblem, ...]


class MetricKind(StrEnum):
    """Prometheus types in use."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value with its labels; labels never hold names of files or people."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family; `name` in Prometheus form with unit, such as `shieldd_events_total`."""

    name: str
    kind: MetricKind
    text: str
    samples: tuple[Sample, ...]
