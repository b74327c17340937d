"""Which directory each watch stands for, and where that is now; opening directories without being led astray.

Owns the table and the descriptors' rules. Does not own watches or events.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from shieldd.native.files import is_own_name

NONE: Final = 0
OPEN_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class MountPointError(OSError):
    """Another file system is mounted on the way."""


@dataclass(slots=True)
class Directory:
    """A directory: parent's id (`NONE` for a root), name in it, tree, children by name."""

    parent: int
    name: bytes
    tree: int
    children: dict[bytes, int] = field(default_factory=dict)


class Directories:
    """The table. An id is the watch descriptor; negative where there is no watch."""

    def __init__(self) -> None:
        self.by_id: dict[int, Directory] = {}
        self._last_unwatched = 0

    def unwatched_id(self) -> int:
        """A new id for a directory without a watch."""
        self._last_unwatched -= 1
        return self._last_unwatched

    def unwatched(self) -> list[int]:
        """Ids without a watch."""
        return [id_ for id_ in self.by_id if id_ < 0]

    def add(self, id_: int, parent: int, name: bytes, tree: int) -> None:
        """Put a directory in."""
        self.by_id[id_] = Directory(parent, name, tree)
        if parent != NONE:
            self.by_id[parent].children[name] = id_

    def child(self, parent: int, name: bytes) -> int | None:
        """Id of a directory by its place."""
        above = self.by_id.get(parent)
        return None if above is None else above.children.get(name)

    def _unlink(self, id_: int) -> None:
        entry = self.by_id[id_]
        above = self.by_id.get(entry.parent)
        if above is not None and above.children.get(entry.name) == id_:
            del above.children[entry.name]

    def subtree(self, id_: int) -> list[int]:
        """The directory and all below it, top first."""
        found = [id_]
        for at in found:
            found.extend(self.by_id[at].children.values())
        return found

    def remove(self, id_: int) -> list[int]:
        """Take a directory and all below it out; returns their ids."""
        if id_ not in self.by_id:
            return []
        ids = self.subtree(id_)
        self._unlink(id_)
        for gone in ids:
            del self.by_id[gone]
        return ids

    def move(self, id_: int, parent: int, name: bytes) -> None:
        """Give a directory another place."""
        self._unlink(id_)
        entry = self.by_id[id_]
        entry.parent, entry.name = parent, name
        self.by_id[parent].children[name] = id_

    def rekey(self, old: int, new: int) -> None:
        """Give a directory another id."""
        entry = self.by_id.pop(old)
        self.by_id[new] = entry
        if entry.parent != NONE:
            self.by_id[entry.parent].children[entry.name] = new
        for child in entry.children.values():
            self.by_id[child].parent = new

    def path(self, id_: int) -> bytes | None:
        """Path relative to the root, empty for the root, None where the id is not known."""
        names: list[bytes] = []
        entry = self.by_id.get(id_)
        while entry is not None:
            if entry.parent == NONE:
                return b"/".join(reversed(names))
            names.append(entry.name)
            entry = self.by_id.get(entry.parent)
        return None


def mount_of(fd: int) -> int:
    """Id of the mount that a descriptor is on (`fdinfo`), so that bind mounts are seen too."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        for line in info:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    raise MountPointError


def open_dir(root_fd: int, path: bytes, mount: int) -> int:
    """Open a directory below a root, one name at a time: no link and no mount point is crossed.

    Raises:
        MountPointError: another file system is mounted on the way.
        OSError: as `open` does.
    """
    fd = os.open(b".", OPEN_DIR, dir_fd=root_fd)
    arrived = False
    try:
        for name in filter(None, path.split(b"/")):
            deeper = os.open(name, OPEN_DIR, dir_fd=fd)
            os.close(fd)
            fd = deeper
        if mount_of(fd) != mount:
            raise MountPointError
        arrived = True
    finally:
        if not arrived:
            os.close(fd)
    return fd


def entries(fd: int) -> Iterator[tuple[bytes, bool, os.stat_result | None]]:
    """Entries of an open directory but our own: name, whether it is a directory, status (None where gone)."""
    with os.scandir(fd) as listing:
        for entry in listing:
            name = os.fsencode(entry.name)
            if is_own_name(name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                status = None
            yield name, entry.is_dir(follow_symlinks=False), status


def list_dir(root_fd: int, path: bytes, mount: int) -> list[tuple[bytes, bool, os.stat_result | None]] | None:
    """`entries` of a directory below a root; empty where it is gone, None where its listing broke off."""
    try:
        fd = open_dir(root_fd, path, mount)
    except OSError:
        return []
    try:
        return list(entries(fd))
    except OSError:
        return None
    finally:
        os.close(fd)
