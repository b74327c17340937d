"""What the pyinotify source remembers of trees, files and half-seen moves."""

from __future__ import annotations

import os
from dataclasses import dataclass

from shieldd.watch import Tree
from shieldd.watch.directories import NONE
from shieldd.watch.records import Place

Stamp = tuple[int, int, int, int]
"""Inode, size, time of content and of status, ns: what tells one state of a file from another."""


@dataclass(slots=True)
class Watched:
    """A guarded tree, its own descriptor, the mount it is on, and what it lacks."""

    tree: Tree
    fd: int
    mount: int
    id: int = NONE
    gone: bool = False
    rescan: bool = False
    blind_since_ns: int = 0


@dataclass(slots=True)
class Move:
    """First half of a move."""

    cookie: int
    place: Place
    tree: int
    at_ns: int
    directory: bool
    unseen: bool


@dataclass(slots=True)
class Counts:
    """Counts since the start."""

    overflows: int = 0
    lost: int = 0
    watch_failures: int = 0
    rescans: int = 0
    events: int = 0
    merged: int = 0


def stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def refresh(files: dict[bytes, Stamp], name: bytes, root_fd: int, path: bytes) -> None:
    """Take the outcome of one of our own operations into the known state."""
    try:
        files[name] = stamp(os.stat(path, dir_fd=root_fd, follow_symlinks=False))
    except OSError:
        files.pop(name, None)
