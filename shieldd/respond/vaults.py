"""Where vaults lie, and opening them: one for each file system that holds guarded trees.

A hard link can only be made within one mount, so the vault must be reached through the same mount as its trees. The
default place is the top of that mount as this process sees it: the root of the file system, or, where a service
manager's sandbox binds single directories, the directory that is bound. Where we may not write there: as high as we
may.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shieldd.config import PreserveSection
from shieldd.errors import ShieldError
from shieldd.native import preserve
from shieldd.respond import GuardedTree

_MOUNT: Final = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)
_ELSEWHERE: Final = frozenset({"file.denied", "file.readonly"})


@dataclass(frozen=True, slots=True)
class Held:
    """One open vault.

    Attributes:
        number: its place in the list of vaults; versions bear it.
        path: of its directory, for people; it may be known under other names.
        fd: its directory.
        trees: the trees whose files it keeps.
        inside: it lies in a guarded tree, and whoever watches that tree must leave it out.
        lock: holds the vault for this process; no other may evict and pin in it.
        bytes_max, min_free: quota and floor of free space, bytes.
    """

    number: int
    path: bytes
    fd: int
    vault: preserve.Vault
    trees: tuple[GuardedTree, ...]
    inside: bool
    lock: int
    bytes_max: int
    min_free: int


def open_vaults(
    trees: Sequence[GuardedTree], places: Mapping[int, Path], section: PreserveSection
) -> tuple[list[Held], dict[int, ShieldError]]:
    """Open a vault for every file system of the trees.

    Args:
        places: directories that the configuration names, by index of the tree.

    Returns:
        The vaults, and for each tree that has none the reason.
    """
    directories: dict[int, list[GuardedTree]] = {}
    found: dict[tuple[int, int], int] = {}
    refused: dict[int, ShieldError] = {}
    for tree in trees:
        try:
            fd = _directory(tree, places.get(tree.index))
        except (ShieldError, OSError) as error:
            refused[tree.index] = _said(error, tree)
            continue
        info = os.fstat(fd)
        known = found.setdefault((info.st_dev, info.st_ino), fd)
        if known != fd:
            os.close(fd)
        directories.setdefault(known, []).append(tree)
    held: list[Held] = []
    for fd, some in directories.items():
        try:
            held.append(_open(len(held), fd, some, trees, section))
        except (ShieldError, OSError) as error:
            refused |= {tree.index: _said(error, tree) for tree in some}
            os.close(fd)
    return held, refused


def _open(
    number: int, fd: int, some: Sequence[GuardedTree], trees: Sequence[GuardedTree], section: PreserveSection
) -> Held:
    room = os.fstatvfs(fd)
    size = room.f_blocks * room.f_frsize
    bytes_max = section.quota_bytes or size * section.quota_percent // 100
    min_free = size * section.min_free_percent // 100
    options = preserve.VaultOptions(
        whole_limit=section.whole_limit_bytes,
        quota=bytes_max,
        min_free=min_free,
        hardlinks=section.hardlinks,
        trees=tuple((tree.index, tree.root) for tree in trees),
    )
    path = os.readlink(b"/proc/self/fd/%d" % fd)
    inside = any(path == tree.root or path.startswith(tree.root.rstrip(b"/") + b"/") for tree in trees)
    lock = _locked(fd)
    try:
        vault = preserve.Vault(fd, options, number)
    except ShieldError:
        os.close(lock)
        raise
    return Held(number, path, fd, vault, tuple(some), inside, lock, bytes_max, min_free)


def _locked(fd: int) -> int:
    """A descriptor of its own, so that the lock ends with this process whoever was handed the vault's.

    Raises:
        ShieldError: `preserve.unsafe` where another daemon has it.
    """
    lock = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ShieldError("preserve.unsafe", "another daemon keeps its versions in that vault") from error
    return lock


def _directory(tree: GuardedTree, named: Path | None) -> int:
    """The vault's directory for a tree; the caller closes.

    Raises:
        ShieldError: `preserve.unsafe`, `preserve.unsupported` where no place can be had.
    """
    if named is not None:
        return _named(tree, named)
    last: ShieldError | None = None
    parents = _upwards(tree.root_fd)
    try:
        for parent in parents:
            try:
                return preserve.make(parent)
            except ShieldError as error:
                if error.code not in _ELSEWHERE:
                    raise
                last = error
    finally:
        for parent in parents:
            os.close(parent)
    raise ShieldError("preserve.unsupported", "no directory on the tree's file system can hold the vault") from last


def _named(tree: GuardedTree, named: Path) -> int:
    parent = os.open(named.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = preserve.make(parent, os.fsencode(named.name))
    finally:
        os.close(parent)
    if os.fstat(fd).st_dev != os.fstat(tree.root_fd).st_dev:
        os.close(fd)
        raise ShieldError("preserve.unsupported", "the vault that is named is not on the tree's file system")
    return fd


def _upwards(root_fd: int) -> list[int]:
    """Directories above a tree within its mount, the highest first; the tree itself only where it is the highest.

    The caller closes them.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    chain = [os.dup(root_fd)]
    mount = _mount_of(root_fd)
    while True:
        try:
            up = os.open("..", flags, dir_fd=chain[-1])
        except OSError:
            break
        here, above = os.fstat(chain[-1]), os.fstat(up)
        if above.st_dev != here.st_dev or above.st_ino == here.st_ino or _mount_of(up) != mount:
            os.close(up)
            break
        chain.append(up)
    if len(chain) > 1:
        os.close(chain.pop(0))
    return chain[::-1]


def _mount_of(fd: int) -> str:
    """The kernel's number of the mount that a descriptor was opened through."""
    found = _MOUNT.search(Path(f"/proc/self/fdinfo/{fd}").read_text("ascii"))
    return found[1] if found else ""


def _said(error: ShieldError | OSError, tree: GuardedTree) -> ShieldError:
    if isinstance(error, ShieldError):
        return error
    said = ShieldError("preserve.unsupported", os.strerror(error.errno or 0).lower(), errno=error.errno, path=tree.root)
    said.__cause__ = error
    return said
