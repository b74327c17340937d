"""Answers about the daemon itself: health, status, checks, configuration, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shieldd.api.answers.instant import Instant


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
    """One guarded tree; `mode` is act, observe or alert-only. `WatchStatus` counts directories, over all trees."""

    root: bytes
    mode: str
    canaries: int


@dataclass(frozen=True, slots=True)
class NotCovered:
    """A place inside a guarded tree that is not watched, and why."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class HoldState:
    """Whether writers wait until the file of before is preserved; counters since start.

    Attributes:
        running: whether they do at this moment, and `since_ns` when that is so or is not.
        means: what that means here, or why it is not so, for people.
        restarts: answerers that were started after the first; kills: those that a stopped heart ended.
        held: opens that waited; denied: refused; preserved: versions made; lost: went on without one.
        longest_us: longest wait of an opener.
        not_covered: what is not held or preserved on this host.
    """

    running: bool
    means: str
    since_ns: Instant
    restarts: int
    kills: int
    held: int
    denied: int
    preserved: int
    lost: int
    longest_us: int
    not_covered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """The source; counters since start.

    Attributes:
        backend: fanotify, native (inotify) or pyinotify.
        attribution: whether events name the process behind them.
        means: what this source can and cannot do here, for people.
    """

    backend: str
    attribution: bool
    means: str
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
    hold: HoldState


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """`state`: active, off, or refused (then the hard rules stand alone and `reason` says why)."""

    state: str
    version: str
    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class VaultState:
    """One vault of preserved versions.

    Attributes:
        trees: places of the trees that it serves in the list of trees.
        linking: files that were there at the start are still being linked.
        versions: all, several of one file among them; files: objects that hold their content.
        gone: of those, files that exist nowhere else any more.
        size: bytes that it keeps from being free.
        pins: open incidents that hold versions.
        degraded: what does not work here, in sentences; empty where all does.
    """

    path: bytes
    trees: tuple[int, ...]
    linking: bool
    versions: int
    files: int
    gone: int
    size: int
    pins: int
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreserveStatus:
    """`state`: on, partly (see the vaults and the troubles), none (no vault could be had), or off.

    Attributes:
        means: what can come back here and what cannot, for people.
    """

    state: str
    means: str
    vaults: tuple[VaultState, ...]


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
    preserve: PreserveStatus
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
