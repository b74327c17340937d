"""What the store takes and gives beyond the model's own values. All times are wall clock, ns; paths are bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from shieldd.errors import ShieldError
from shieldd.model.decision import Action, ActionKind, Decision, Outcome, Severity
from shieldd.model.event import Kind
from shieldd.model.incident import Judgement, State

LIMIT_MAX: Final = 100_000  # records in one answer; a page of events is some 50 MB then
_T = TypeVar("_T")


class Ended(Protocol):
    """How an announced act ended (`shieldd.respond.Ended` is one)."""

    @property
    def id(self) -> str: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def reason(self) -> str: ...
    @property
    def undo(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """Some of what matches; `more` where the limit cut others off."""

    items: tuple[_T, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Span:
    """What all filters share: the newest `limit` of those with `since_ns` <= time < `until_ns`, given oldest first.

    A limit of 0 asks for none: who follows may want only what comes.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= LIMIT_MAX:
            raise ShieldError("store.value", f"limit must be 0 to {LIMIT_MAX}")


@dataclass(frozen=True, slots=True)
class EventFilter(Span):
    """Which events.

    Attributes:
        after_seq: only newer ones; then the *oldest* `limit` of them, so that a reader can page on.
        tree: index in `Store.roots`.
        under: path relative to the tree: that file, or all beneath that directory.
        least_action: that action or a stronger one.
    """

    after_seq: int | None = None
    kind: Kind | None = None
    action: Action | None = None
    least_action: Action = Action.ALLOW
    tree: int | None = None
    under: bytes = b""
    threat_id: str | None = None


@dataclass(frozen=True, slots=True)
class AlertFilter(Span):
    """Which alerts; `after_seq` as with events."""

    after_seq: int | None = None
    severity: Severity = Severity.INFORMATIONAL


@dataclass(frozen=True, slots=True)
class IncidentFilter(Span):
    """Which incidents; `since_ns` is about when they were opened."""

    state: State | None = None
    severity: Severity = Severity.INFORMATIONAL
    tree: int | None = None


@dataclass(frozen=True, slots=True)
class ActionFilter(Span):
    """Which acts."""

    threat_id: str | None = None
    kind: ActionKind | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event as it was recorded; `seq` is the store's own and grows over restarts. `from_path` may be empty."""

    seq: int
    at_ns: int
    kind: Kind
    tree: int
    path: bytes
    from_path: bytes
    pid: int
    uid: int
    mode: int
    merged: int
    actor: int
    action: Action
    severity: Severity
    threat_id: str


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision with the store's number of its event and the observation (float32, little-endian) it rests on."""

    seq: int
    threat_id: str
    decision: Decision
    observation: bytes


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """Something a person should look at; `tree` is None and `path` empty where it is about no file."""

    seq: int
    at_ns: int
    severity: Severity
    threat_id: str
    kind: ActionKind
    tree: int | None
    path: bytes
    text: str


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """One sealed file of the inventory.

    Attributes:
        path: the sealed file, relative to the tree; original: its own name there.
        file_id: of the envelope, 16 bytes; generation: of its header as last seen (an older one is a rollback).
        digest: BLAKE3 of the content, 32 bytes.
    """

    tree: int
    path: bytes
    original: bytes
    size: int
    sealed_at_ns: int
    why: str
    threat_id: str
    file_id: bytes
    key_id: bytes
    key_version: int
    digest: bytes
    generation: int = 1


@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """One object in quarantine; `name` is its file in the quarantine directory, mode to times are the original's."""

    id: str
    tree: int
    original: bytes
    name: bytes
    size: int
    at_ns: int
    why: str
    threat_id: str
    mode: int
    uid: int
    gid: int
    modified_at_ns: int
    digest: bytes
    file_id: bytes
    key_id: bytes
    key_version: int
    generation: int = 1


@dataclass(frozen=True, slots=True)
class Canary:
    """A file planted to be touched by nobody."""

    tree: int
    path: bytes
    digest: bytes
    planted_at_ns: int


@dataclass(frozen=True, slots=True)
class Label:
    """A person's word on an incident."""

    threat_id: str
    judgement: Judgement
    note: str
    uid: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """Records that retention took."""

    events: int
    decisions: int
    incidents: int
    actions: int
    alerts: int


class Where:
    """A WHERE clause that grows; values only ever go in as parameters."""

    def __init__(self) -> None:
        self._terms: list[str] = []
        self.values: list[object] = []

    def add(self, term: str, *values: object) -> Where:
        """Add a term; skipped where its only value is None."""
        if values != (None,):
            self._terms.append(term)
            self.values += values
        return self

    def span(self, column: str, span: Span) -> Where:
        """The time range of a filter."""
        return self.add(f"{column} >= ?", span.since_ns).add(f"{column} < ?", span.until_ns)

    def under(self, column: str, directory: bytes) -> Where:
        """That path, or all beneath it as a directory (`/` is followed by `0` in ASCII)."""
        if directory:
            clean = directory.rstrip(b"/")
            term = f"({column} = ? OR ({column} >= ? AND {column} < ?))"
            self.add(term, clean, clean + b"/", clean + b"0")
        return self

    def __str__(self) -> str:
        return " WHERE " + " AND ".join(self._terms) if self._terms else ""


def page(rows: Sequence[_T], limit: int, *, newest_first: bool) -> Page[_T]:
    """Cut what was fetched with one more than the limit, and give it oldest first."""
    kept = rows[:limit]
    return Page(tuple(reversed(kept)) if newest_first else tuple(kept), len(rows) > limit)
