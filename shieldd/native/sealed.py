"""Values that describe sealed files and what was done to them; `shieldd.native.envelope` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

BUDGET_BYTES: Final = 1 << 40
"""Default for the most data that one file may have: beyond it a seal would block responses for hours."""


class Purpose(IntEnum):
    """What a key seals. A key of one purpose never seals for another."""

    FILES = 1
    QUARANTINE = 2
    PRESERVE = 3
    AUDIT = 4


@dataclass(frozen=True, slots=True)
class SealOptions:
    """How to seal.

    Attributes:
        purpose: whose sealing key is used.
        why: reason for people, at most 1,024 bytes of UTF-8; it is sealed inside.
        host_id: this host, at most 256 bytes; it is sealed inside.
        threads: for one large file, or across many; 0 is one for each core.
        durable: the sealed file is on disk before the original goes; False only where losing power may lose both.
        keep_original: seal a copy, remove nothing (allowed for files with several hard links).
        budget_bytes: most bytes of data (holes do not count); beyond: `file.budget`.
    """

    purpose: Purpose
    why: str
    host_id: bytes
    threads: int = 0
    durable: bool = True
    keep_original: bool = False
    budget_bytes: int = BUDGET_BYTES


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file that was sealed. `path` is the sealed file's, beneath its root (the store's for `seal_into`)."""

    file_id: bytes
    path: bytes
    size: int
    sealed_size: int
    blake3: bytes
    key_id: bytes
    key_version: int
    sealed_at_ns: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a sealed file knows of its original.

    Attributes:
        file_id: random name of the sealed file, 16 bytes.
        path: original path, relative to its tree.
        mode: permission bits, set-id bits among them.
        user, group: names on the sealing host, empty where unknown.
        size: bytes, holes included; `data_size` without them.
        blake3: of the data, holes left out; of the whole file where `extents` is 1.
        extents: regions of data.
        xattr_names: extended attributes and ACLs that were sealed.
    """

    file_id: bytes
    path: bytes
    mode: int
    uid: int
    gid: int
    user: bytes
    group: bytes
    atime_ns: int
    mtime_ns: int
    size: int
    data_size: int
    extents: int
    blake3: bytes
    purpose: Purpose
    why: str
    sealed_at_ns: int
    host_id: bytes
    xattr_names: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that was opened. `path` is the plain file's beneath its root (empty for a stream); `skipped` names the
    extended attributes that could not be put back there."""

    path: bytes
    metadata: Metadata
    skipped: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Recipient:
    """A key that can open the file. `kind` 1 is a local key-encryption key."""

    kind: int
    key_id: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Header:
    """What anybody can read of a sealed file. `slots` counts the whole header slots, 1 or 2."""

    suite: int
    chunk_bytes: int
    generation: int
    payload_size: int
    file_id: bytes
    slots: int
    recipients: tuple[Recipient, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """Every tag, both slots, the commitment and the digest hold."""

    metadata: Metadata
    chunks: int


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """A file whose data key is wrapped for the sealing key now; `changed` is False where it was already."""

    file_id: bytes
    generation: int
    changed: bool


class Act(IntEnum):
    """What a crash cut off."""

    SEAL = 1
    OPEN = 2


class Outcome(IntEnum):
    """How recovery ended it. KEPT: others changed the files since, nothing was removed. WAITING: tree not given."""

    FINISHED = 1
    ROLLED_BACK = 2
    KEPT = 3
    WAITING = 4


@dataclass(frozen=True, slots=True)
class Recovered:
    """One act that a crash cut off, and its end."""

    act: Act
    outcome: Outcome
    file_id: bytes
    path: bytes
    sealed_path: bytes
