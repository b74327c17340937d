"""Which preserved version of a file comes back, and what the file is to be then.

A copy (image, ranges) is the content from before the act that it was made for; a link is the inode itself, so its
content is the last that anybody wrote into it, which is newer than any copy of the same inode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from shieldd.errors import ShieldError
from shieldd.model.restore import Wanted
from shieldd.model.version import Keep, Version
from shieldd.respond.restore_contract import Versions
from shieldd.respond.restore_look import xattrs_of
from shieldd.respond.restore_trails import Trail

TICK_NS: Final = 10_000_000  # the longest tick of the kernel's clock for inodes
LATE_NS: Final = 1_000_000_000  # an event is read that much after the act at most, where nothing was lost


@dataclass(frozen=True, slots=True)
class Chosen:
    """The version, and what the file is to be; `relink` where the preserved inode itself may come back."""

    version: Version
    wanted: Wanted
    relink: bool


@contextmanager
def opened(versions: Versions, version: Version, now: bytes = b"") -> Iterator[int]:
    """The version's content for the length of a block; `now` is where the file is, if not under the version's name."""
    fd = versions.open(version, now=now)
    try:
        yield fd
    finally:
        os.close(fd)


def key_of(version: Version) -> str:
    """How a step names a version."""
    return f"{version.vault}-{version.id:016x}"


def of_key(versions: Versions, key: str) -> Version:
    """The version that a step names.

    Raises:
        ShieldError: `restore.version` where it is no more.
    """
    vault, _, number = key.partition("-")
    found = versions.get(int(vault), int(number, 16)) if number else None
    if found is None:
        raise ShieldError("restore.version", "the version is not in the vault any more")
    return found


def choose(versions: Versions, tree: int, trail: Trail, now_ino: int) -> Chosen | None:
    """The version from before the actor: of all names that the file had, the latest that is whole.

    Args:
        now_ino: inode that has the name now, 0 for none.
    """
    found = {(x.vault, x.id): x for x in _candidates(versions, tree, trail)}
    # of two of the same moment the link: its content is what the copy was made of
    order = sorted(found.values(), key=lambda x: (x.at_ns, x.kind is Keep.LINK, x.id), reverse=True)
    for version in _links_first(order):
        chosen = _usable(versions, version, trail, now_ino, _untouched_until(order, version, trail))
        if chosen is not None:
            return _dressed(chosen, order, trail)
    return None


def _untouched_until(order: Sequence[Version], version: Version, trail: Trail) -> int:
    """When somebody began to write into a version's inode, near the actor's first act; wall clock, ns.

    An event is told when it is read, after the act; a copy is made before it. Times in an inode are a tick behind.
    """
    near = trail.first_ns - LATE_NS
    copies = [x.at_ns for x in order if x.kind is not Keep.LINK and x.ino == version.ino and x.at_ns >= near]
    return min([trail.first_ns, *copies]) - TICK_NS


def _dressed(chosen: Chosen, order: Sequence[Version], trail: Trail) -> Chosen:
    """With owner, mode and attributes from before the actor touched those, if it did that first."""
    if not trail.dressed_ns:
        return chosen
    like = next((x for x in order if x.at_ns <= trail.dressed_ns and x.ino == chosen.version.ino), None)
    if like is None:
        return chosen
    old = recorded(like)
    wanted = replace(
        chosen.wanted, mode=old.mode, uid=old.uid, gid=old.gid, xattrs=old.xattrs, xattrs_whole=old.xattrs_whole
    )
    return replace(chosen, wanted=wanted)


def _candidates(versions: Versions, tree: int, trail: Trail) -> Iterator[Version]:
    """Versions of the file from before its content ended; under a later name only those since it had that."""
    limit = trail.content_ns or 1 << 63
    for name in dict.fromkeys([trail.origin or b"", *trail.names]):
        since = 0 if name in (trail.origin, trail.names[0]) else trail.first_ns
        yield from (x for x in versions.versions_of(tree, name) if since <= x.at_ns <= limit)


def _links_first(order: Sequence[Version]) -> list[Version]:
    """Before each copy, the latest link of the same inode: it has what was written after the copy was made."""
    out: dict[tuple[int, int], Version] = {}
    for version in order:
        if version.kind is not Keep.LINK:
            link = next((x for x in order if x.kind is Keep.LINK and x.ino == version.ino), None)
            if link is not None:
                out.setdefault((link.vault, link.id), link)
        out.setdefault((version.vault, version.id), version)
    return list(out.values())


def _usable(versions: Versions, version: Version, trail: Trail, now_ino: int, untouched_ns: int) -> Chosen | None:
    try:
        with opened(versions, version, trail.place or b"") as fd:
            if version.kind is not Keep.LINK:
                return Chosen(version, recorded(version), relink=False)
            seen = os.fstat(fd)
            as_recorded = (seen.st_size, seen.st_mtime_ns) == (version.size, version.mtime_ns)
            if trail.wrote and not (as_recorded and seen.st_ino != now_ino and seen.st_mtime_ns < untouched_ns):
                return None
            if as_recorded:
                # owner and mode as they are: somebody may have changed them rightly since the link was made
                wanted = replace(as_it_is(fd, seen), digest=version.digest or b"")
                return Chosen(version, wanted, relink=True)
            if seen.st_mtime_ns >= untouched_ns:
                return None
            # written into by somebody before the actor came: what it is now is what it was then
            return Chosen(version, as_it_is(fd, seen), relink=True)
    except ShieldError:
        return None


def recorded(version: Version) -> Wanted:
    """What a file was when its version was made."""
    return Wanted(
        size=version.size,
        mode=version.mode & 0o7777,
        uid=version.uid,
        gid=version.gid,
        atime_ns=version.atime_ns,
        mtime_ns=version.mtime_ns,
        digest=version.digest or b"",
        xattrs=tuple(version.xattrs),
        xattrs_whole=not version.xattrs_partial,
    )


def as_it_is(fd: int, seen: os.stat_result) -> Wanted:
    """What a file is."""
    return Wanted(
        size=seen.st_size,
        mode=seen.st_mode & 0o7777,
        uid=seen.st_uid,
        gid=seen.st_gid,
        atime_ns=seen.st_atime_ns,
        mtime_ns=seen.st_mtime_ns,
        xattrs=xattrs_of(fd),
        xattrs_whole=True,
    )


def at_time(versions: Sequence[Version], at_ns: int) -> Version | None:
    """The version with the latest content that is not newer than a moment; None where all are newer."""
    fitting = [x for x in versions if min(x.mtime_ns, x.at_ns) <= at_ns and not x.changed]
    return max(fitting, key=lambda x: (min(x.mtime_ns, x.at_ns), x.at_ns), default=None)
