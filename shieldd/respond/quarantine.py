"""Quarantine: a malicious file leaves its tree, sealed and owner-only, and can come back with everything it had.

Each object describes itself (its sealed metadata holds where it was, what it was, when and why it left), so the list
can be rebuilt from the objects alone. Objects lie in a directory of the state, named `ID.shield`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote_from_bytes, unquote_to_bytes

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind
from shieldd.model.incident import TakenAction
from shieldd.native import envelope
from shieldd.respond import (
    OURS_GONE,
    OURS_MADE,
    GuardedTree,
    Ledger,
    Notice,
    Trees,
    announced,
    announced_to,
    new_id,
    recorded,
    still_the_one,
    still_there,
)
from shieldd.respond.privileges import left_out, told

SUFFIX: Final = b".shield"
WHY_LIMIT: Final = 1024  # bytes that the core seals as the reason
NAME: Final = re.compile(rb"q[0-9a-f]{21}\.shield")


@dataclass(frozen=True, slots=True)
class Held:
    """One object in quarantine, as its own sealed metadata tells it.

    Attributes:
        original: absolute path it was taken from.
        mode, uid, gid, modified_at_ns: the original's.
        digest: BLAKE3 of the content, 32 bytes.
    """

    id: str
    original: bytes
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
    generation: int


class Index(Protocol):
    """List of what is held (the store implements it); the objects themselves are the truth."""

    def held(self, entry: Held) -> None:
        """Add or replace an entry."""

    def released(self, object_id: str) -> None:
        """Drop an entry."""


class Quarantine:
    """Takes files out of the trees and brings them back. Thread-safe as far as its parts are."""

    def __init__(
        self,
        directory_fd: int,
        keyring: envelope.Keyring,
        journal: envelope.Journal,
        ledger: Ledger,
        index: Index,
        notice: Notice,
        trees: Trees,
        *,
        host_id: bytes,
        count: Callable[[int], None] = lambda uses: None,
        known: Callable[[GuardedTree, bytes], None] = lambda tree, path: None,
        gone: Callable[[GuardedTree, Sequence[bytes]], None] = lambda tree, paths: None,
        threads: int = 0,
    ) -> None:
        """Args:
        directory_fd: of the quarantine directory, mode 0700.
        known: told of each file that came back.
        gone: told of the files that was taken away: nothing of it in the clear shall stay.
        """
        self.directory_fd = directory_fd
        self._keyring = keyring
        self._journal = journal
        self._ledger = ledger
        self._index = index
        self._notice = notice
        self._trees = trees
        self._host_id = host_id
        self._count = count
        self._known = known
        self._gone = gone
        self._threads = threads

    def add(
        self, tree: GuardedTree, path: bytes, *, threat_id: str = "", why: str, inode: tuple[int, int] | None = None
    ) -> Held:
        """Take a file away; it leaves its place only when the sealed copy is durable."""
        object_id = new_id("q")
        undo = f"shieldctl quarantine restore {object_id}"
        action = announced(ActionKind.QUARANTINE, tree, path, threat_id=threat_id, reason=why, undo=undo)
        options = envelope.SealOptions(
            purpose=envelope.Purpose.QUARANTINE,
            why=_provenance(tree.root, threat_id, why),
            host_id=self._host_id,
            threads=self._threads,
        )
        with recorded(self._ledger, action), announced_to(self._notice, tree, {path: OURS_GONE}):
            still_there(tree)
            name = object_id.encode() + SUFFIX
            still_the_one(tree, path, inode)
            self._count(1)
            envelope.seal_into(tree.root_fd, path, self.directory_fd, name, self._keyring, self._journal, options)
            self._gone(tree, [path])
            held = self.describe(object_id)
            self._index.held(held)
        return held

    def act(self, tree: GuardedTree, path: bytes, *, threat_id: str, why: str, inode: tuple[int, int] | None) -> None:
        """`add`, as a decision asks for it."""
        self.add(tree, path, threat_id=threat_id, why=why, inode=inode)

    def describe(self, object_id: str) -> Held:
        """An object by its own sealed metadata."""
        name = object_id.encode() + SUFFIX
        found = envelope.metadata(self.directory_fd, name, self._keyring)
        header = envelope.header(self.directory_fd, name)
        root, threat_id, why = _told(found.why)
        return Held(
            id=object_id,
            original=os.path.join(root, found.path),
            size=found.size,
            at_ns=found.sealed_at_ns,
            why=why,
            threat_id=threat_id,
            mode=stat.S_IMODE(found.mode),
            uid=found.uid,
            gid=found.gid,
            modified_at_ns=found.mtime_ns,
            digest=found.blake3,
            file_id=found.file_id,
            key_id=header.recipients[0].key_id,
            key_version=header.recipients[0].version,
            generation=header.generation,
        )

    def objects(self) -> Iterator[str]:
        """Ids of all objects that lie in the directory, oldest first."""
        with os.scandir(self.directory_fd) as entries:
            names = sorted(os.fsencode(entry.name) for entry in entries)
        for name in names:
            if NAME.fullmatch(name):
                yield name[: -len(SUFFIX)].decode()

    def rebuild(self) -> tuple[int, list[tuple[str, ShieldError]]]:
        """Fill the index from the objects alone; how many, and those that could not be read."""
        bad: list[tuple[str, ShieldError]] = []
        count = 0
        for object_id in self.objects():
            try:
                self._index.held(self.describe(object_id))
                count += 1
            except ShieldError as error:
                bad.append((object_id, error))
        return count, bad

    def restore(self, object_id: str, *, to: bytes | None = None, why: str) -> tuple[Held, bytes, str]:
        """Bring an object back to its place, or into the existing directory `to`; never overwrites.

        Returns:
            What it was, the absolute path where it is now, and what it was not given back (empty: nothing).

        Raises:
            ShieldError: `file.exists` and nothing is changed; `file.outside` where its tree is not guarded any more
                and no directory was named.
        """
        held = self.describe(object_id)
        place = held.original if to is None else os.path.join(to, os.path.basename(held.original))
        why = why if to is None else f"{why}; to another directory"
        action = self._about(held, ActionKind.RESTORE, why)
        try:
            tree, path = self._trees.locate(place)
        except ShieldError:
            if to is None:
                raise
            tree, path = None, b""
        changes = {path: OURS_MADE} if tree is not None else {}
        left = ""
        with (
            recorded(self._ledger, action, done=lambda: (told(why, left), "")),
            announced_to(self._notice, tree or self._trees[0], changes),
        ):
            name = object_id.encode() + SUFFIX
            if tree is not None:
                still_there(tree)
                opened = envelope.open_into(self.directory_fd, name, tree.root_fd, path, self._keyring, self._journal)
                self._known(tree, path)
            else:
                fd = open_directory(os.path.dirname(place))
                try:
                    base = os.path.basename(place)
                    opened = envelope.open_into(self.directory_fd, name, fd, base, self._keyring, self._journal)
                finally:
                    os.close(fd)
            self._index.released(object_id)
            left = left_out(opened)
        return held, place, left

    def _about(self, held: Held, kind: ActionKind, why: str) -> TakenAction:
        """An act on an object, under the tree that it came from (or the first, with the full name, if that is gone)."""
        try:
            tree, path = self._trees.locate(held.original)
        except ShieldError:
            tree, path = self._trees[0], held.original
        return announced(kind, tree, path, threat_id=held.threat_id, reason=why)

    def purge(self, object_id: str, *, why: str) -> Held:
        """Destroy an object for good; a person asked for it by name."""
        held = self.describe(object_id)
        action = self._about(held, ActionKind.QUARANTINE, f"purged: {why}")
        with recorded(self._ledger, action):
            try:
                os.unlink(object_id.encode() + SUFFIX, dir_fd=self.directory_fd)
                os.fsync(self.directory_fd)
            except OSError as error:
                raise ShieldError("file.io", errno=error.errno) from error
            self._index.released(object_id)
        return held


def _provenance(root: bytes, threat_id: str, why: str) -> str:
    """The tree's root, the incident and the reason in one line that is sealed inside (percent-encoded root)."""
    head = f"{quote_from_bytes(root)}|{threat_id}|"
    if len(head) > WHY_LIMIT - 64:
        raise ShieldError("file.name", "the tree's own name is too long for a quarantine object", path=root)
    return head + why.encode()[: WHY_LIMIT - len(head)].decode("utf-8", "ignore")


def _told(line: str) -> tuple[bytes, str, str]:
    """Root, incident and reason back from `_provenance`."""
    parts = line.split("|", 2)
    if len(parts) != 3 or not parts[0].startswith("/"):
        raise ShieldError("envelope.metadata", "the sealed file was not made for quarantine")
    return unquote_to_bytes(parts[0]), parts[1], parts[2]


def open_directory(path: bytes) -> int:
    """Open an existing directory by its absolute name, step by step and through no link; the caller closes.

    Raises:
        ShieldError: `file.name`, `file.missing`, `file.symlink` (or no directory), `file.denied`, `file.io`.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if not path.startswith(b"/") or b".." in parts:
        raise ShieldError("file.name", "not an absolute path without '..'", path=path)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(b"/", flags)
    try:
        for part in parts:
            above, fd = fd, os.open(part, flags, dir_fd=fd)
            os.close(above)
    except OSError as error:
        os.close(fd)
        raise _refused(error, path) from error
    return fd


def _refused(error: OSError, path: bytes) -> ShieldError:
    match error.errno:
        case errno.ENOENT:
            return ShieldError("file.missing", "no such directory", errno=error.errno, path=path)
        case errno.EACCES | errno.EPERM:
            return ShieldError("file.denied", errno=error.errno, path=path)
        case errno.ENOTDIR | errno.ELOOP:
            return ShieldError("file.symlink", "not a directory, or a link on the way", errno=error.errno, path=path)
    return ShieldError("file.io", errno=error.errno, path=path)
