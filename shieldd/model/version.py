"""A preserved version of a guarded file: what it was, when, because of whom, and whether it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Keep(IntEnum):
    """How a version is kept (`version.rs`).

    LINK: a hard link to the file; its content is whatever the file held when its last name went.
    IMAGE: a copy of the whole content.
    RANGE: copies of what was overwritten of a large file; `Versions.content` puts them together with the file of now.
    """

    LINK = 1
    IMAGE = 2
    RANGE = 3


@dataclass(frozen=True, slots=True)
class Version:
    """One preserved version.

    Attributes:
        id: unique in its vault; printed as 16 hex digits.
        vault: number of the vault that holds it.
        tree: index of the guarded tree.
        path: relative to its root, as it was when the version was made.
        at_ns: when it was made, wall clock, ns.
        actor: key of the actor before whose act it was made; 0: made at start or for nobody.
        object_id: the object with the content; equal ones have equal content.
        ino: inode of the file; versions with the same one are of the same file under whatever name.
        size: bytes, holes included.
        stored: bytes that it takes in the vault.
        mode: type and permission bits.
        nlink: names that the file had, the vault's own not counted.
        atime_ns, mtime_ns, ctime_ns: the file's times, ns.
        xattrs: extended attributes, access lists among them, sorted by name.
        xattrs_partial: not all of them could be kept.
        digest: BLAKE3 of the content, None before it was computed (copies only).
        pinned: an open incident needs it.
        orphan: of a link: the file has no name any more but the vault's.
        changed: of a link: the file was written after the version was made, so this is not its content of then.
    """

    id: int
    vault: int
    kind: Keep
    tree: int
    path: bytes
    at_ns: int
    actor: int
    object_id: int
    ino: int
    size: int
    stored: int
    mode: int
    uid: int
    gid: int
    nlink: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    xattrs_partial: bool
    digest: bytes | None
    pinned: bool
    orphan: bool
    changed: bool

    @property
    def name(self) -> str:
        """Its id as people see it."""
        return f"{self.id:016x}"
