"""Answers about what is kept: sealed files, quarantine, keys, and the steps of long actions."""

from __future__ import annotations

from dataclasses import dataclass

from shieldd.api.answers.instant import Instant
from shieldd.model.decision import Outcome


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
