"""Acts on files: seal, open, quarantine, restore. Every act is announced before and recorded after.

Contract of every responder here:

* The intent is durable in the `Ledger` before the first system call that changes anything, the result after the last.
  What is still pending after a crash is finished or rolled back by the core's journal and then closed.
* An act that fails raises `ShieldError`, leaves every file whole, and is recorded as failed with its code; nobody
  retries.
* The watcher is told of our own changes before they happen (`Notice.expect`): they are not judged as somebody's.
* Nothing is overwritten, no link is followed, names are bytes, paths are resolved beneath a tree's root descriptor.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome
from shieldd.model.event import Kind
from shieldd.model.incident import TakenAction


@dataclass(frozen=True, slots=True)
class GuardedTree:
    """A guarded tree as responders see it: where it is, and the descriptor that everything is resolved beneath."""

    index: int
    root: bytes
    root_fd: int

    def absolute(self, path: bytes) -> bytes:
        """The full name of a path of this tree."""
        return os.path.join(self.root, path)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an announced act ended."""

    id: str
    outcome: Outcome
    reason: str
    undo: str


class Ledger(Protocol):
    """Durable record of what we do (the store implements it)."""

    def intend(self, actions: Sequence[TakenAction]) -> None:
        """Make the intents durable before returning; raises `store.*`, and then nothing may be done."""

    def finish(self, ended: Sequence[Ended]) -> None:
        """Record how they ended; durable before returning."""


class Notice(Protocol):
    """The watcher's ear for our own writes."""

    def expect(self, tree: int, path: bytes, kinds: int, *, count: int = 1, ttl_s: float = 10.0) -> None:
        """So many events of these kinds (bits `1 << Kind`) on this path are ours."""


ACT_S = 3600.0  # longer than any act; what was announced ends with it
GRACE_S = 0.25  # after an act, until the watcher has read what the kernel queued of it


@contextmanager
def announced_to(notice: Notice, tree: GuardedTree, changes: Mapping[bytes, int]) -> Iterator[None]:
    """Tell the watcher of our own changes, and that they are over when they are.

    One operation of each kind is ours and no more: whatever comes after, on the same name, is somebody's.

    Args:
        changes: kinds (bits `1 << Kind`) by path.
    """
    for path, kinds in changes.items():
        notice.expect(tree.index, path, kinds, count=1, ttl_s=ACT_S)
    try:
        yield
    finally:
        for path in changes:
            notice.expect(tree.index, path, 0, count=0, ttl_s=GRACE_S)


OURS_GONE = 1 << Kind.DELETE | 1 << Kind.RENAME | 1 << Kind.ATTRIB
OURS_MADE = 1 << Kind.CREATE | 1 << Kind.RENAME | 1 << Kind.ATTRIB


class Trees:
    """The guarded trees by index and by absolute path."""

    def __init__(self, trees: Sequence[GuardedTree]) -> None:
        self._trees = tuple(trees)

    def __iter__(self) -> Iterator[GuardedTree]:
        return iter(self._trees)

    def __getitem__(self, index: int) -> GuardedTree:
        return self._trees[index]

    def __len__(self) -> int:
        return len(self._trees)

    def locate(self, absolute: bytes) -> tuple[GuardedTree, bytes]:
        """Split an absolute path into its tree and the path beneath it.

        Only text is compared; whether the way there is free of links is the kernel's to say when it is opened.

        Raises:
            ShieldError: `file.name` for a path that is empty, relative, has NUL or `..`; `file.outside` elsewhere.
        """
        if not absolute.startswith(b"/") or b"\0" in absolute:
            raise ShieldError("file.name", "not an absolute path", path=absolute)
        parts = [part for part in absolute.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise ShieldError("file.name", "a path with '..' is not accepted", path=absolute)
        clean = b"/" + b"/".join(parts)
        for tree in self._trees:
            root = tree.root.rstrip(b"/")
            if clean.startswith(root + b"/"):
                return tree, clean[len(root) + 1 :]
            if clean == root:
                raise ShieldError("file.directory", "that is the root of a guarded tree", path=absolute)
        raise ShieldError("file.outside", path=absolute)


def still_the_one(tree: GuardedTree, path: bytes, inode: tuple[int, int] | None) -> None:
    """Refuse to act where the name stands for another file by now than the one that was judged.

    Between this look and the act a swap is still possible; what happens then is done to the new file, in full and
    with its undo, and the core itself refuses a file that changes while it is worked on.

    Raises:
        ShieldError: `file.missing`, `file.race`.
    """
    if inode is None:
        return
    try:
        found = os.stat(path, dir_fd=tree.root_fd, follow_symlinks=False)
    except FileNotFoundError as error:
        raise ShieldError("file.missing", errno=error.errno, path=path) from error
    except OSError as error:
        raise ShieldError("file.io", errno=error.errno, path=path) from error
    if found.st_ino != inode[1]:
        raise ShieldError("file.race", "another file has that name by now; nothing was done", path=path)


def still_there(tree: GuardedTree) -> None:
    """Refuse to act where the tree's name stands for another directory by now (moved, replaced, unmounted, mounted).

    Raises:
        ShieldError: `watch.gone`.
    """
    held = os.fstat(tree.root_fd)
    try:
        named = os.stat(tree.root, follow_symlinks=False)
    except OSError as error:
        raise ShieldError("watch.gone", errno=error.errno, path=tree.root) from error
    if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
        raise ShieldError("watch.gone", "another directory has the tree's name by now", path=tree.root)


def new_id(prefix: str) -> str:
    """A sortable, unguessable id: milliseconds since 1970 in hex, then 40 random bits."""
    return f"{prefix}{time.time_ns() // 1_000_000:011x}{secrets.token_hex(5)}"


def announced(
    kind: ActionKind, tree: GuardedTree, path: bytes, *, threat_id: str, reason: str, undo: str = ""
) -> TakenAction:
    """An act about to be done, for the ledger."""
    return TakenAction(new_id("a"), threat_id, kind, tree.index, path, time.time_ns(), Outcome.PENDING, reason, undo)


@contextmanager
def recorded(
    ledger: Ledger, action: TakenAction, *, done: Callable[[], tuple[str, str]] | None = None
) -> Iterator[TakenAction]:
    """Intent before, result after, around one act.

    A `ShieldError` from the act is recorded as failed with its code and raised on.

    Args:
        done: asked after the act for its reason and its undo, where only the act itself can say them.
    """
    ledger.intend([action])
    try:
        yield action
    except ShieldError as error:
        ledger.finish([failed(action, error)])
        raise
    reason, undo = done() if done is not None else (action.reason, action.undo)
    ledger.finish([Ended(action.id, Outcome.DONE, reason, undo)])


def failed(action: TakenAction, error: ShieldError) -> Ended:
    """The record of an act that failed."""
    return Ended(action.id, Outcome.FAILED, f"{error.code}: {error.message}", "")
