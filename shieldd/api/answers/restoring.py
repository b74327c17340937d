"""Answers about bringing files back: plans, their steps, preserved versions."""

from __future__ import annotations

from dataclasses import dataclass

from shieldd.api.answers.instant import Instant
from shieldd.model.decision import Outcome
from shieldd.model.restore import Act, Conflict, Found, PlanState


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """A plan in numbers.

    Attributes:
        attributed: whether the kernel named the actor; else all that happened in the incident's time counts as its.
        back: files that come back; `away`: files of the actor that go to quarantine.
        conflicts: files that somebody else changed since; they are left alone unless they are named.
        lost: files of which no version exists; `unchanged`: files that are as they were.
        done, failed, skipped, pending: steps by how they ended.
    """

    id: str
    threat_id: str
    tree: bytes
    made_at_ns: Instant
    ended_at_ns: Instant
    state: PlanState
    attributed: bool
    steps: int
    back: int
    away: int
    conflicts: int
    lost: int
    unchanged: int
    done: int
    failed: int
    skipped: int
    pending: int


@dataclass(frozen=True, slots=True)
class RestorePlans:
    """Oldest first."""

    items: tuple[RestorePlan, ...]


@dataclass(frozen=True, slots=True)
class RestoreStep:
    """One file of a plan.

    Attributes:
        path: absolute; `other` is where the file is now, of a move, or the name that it shares, of a twin.
        act: what will be done, unless there is a conflict.
        found: what stands under the name now.
        version_at_ns: when the version to come back was made.
        size: its bytes, -1 where nothing comes back.
        text: one sentence: what was found and what will happen.
        outcome: pending until it was tried; then `code` and `reason` say how it went.
    """

    number: int
    path: bytes
    act: Act
    found: Found
    conflict: Conflict
    lost: bool
    version_at_ns: Instant
    size: int
    other: bytes
    text: str
    outcome: Outcome
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class RestoreSteps:
    """By number; `more` where the limit cut others off."""

    items: tuple[RestoreStep, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One preserved version of a file.

    Attributes:
        at_ns: when it was made; modified_at_ns: last change of the content that it has.
        kind: link, image or range.
        actor: key of the process group whose act it was kept for, empty for nobody.
        digest: BLAKE3 of the content, empty before it was computed.
        pinned: an open incident keeps it.
        changed: of a link: it was written into since, so it is not the content of then.
    """

    id: str
    path: bytes
    at_ns: Instant
    modified_at_ns: Instant
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    actor: str
    digest: str
    pinned: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class VersionInfos:
    """Oldest first; `more` where the limit cut older ones off."""

    items: tuple[VersionInfo, ...]
    more: bool
