"""Seals files in place and opens them again, with intent, result, and an inventory of what is sealed.

The core does the crash-safe work (`shield-envelope(5)`); this module says it before, records it after, keeps the
watcher from judging it, and turns a request for many files into group commits.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome
from shieldd.model.names import shell_word
from shieldd.native import envelope
from shieldd.respond import (
    OURS_GONE,
    OURS_MADE,
    Ended,
    GuardedTree,
    Ledger,
    Notice,
    announced,
    announced_to,
    failed,
    recorded,
    still_the_one,
    still_there,
)
from shieldd.respond.privileges import left_out, told

SUFFIX: Final = b".shield"
GROUP: Final = 256  # files sealed with one flush of the file system


@dataclass(frozen=True, slots=True)
class SealedEntry:
    """One line of the inventory.

    Attributes:
        path: of the sealed file, relative to its tree.
        original: its own name, relative to its tree.
        size: of the content, bytes.
    """

    tree: int
    path: bytes
    original: bytes
    size: int
    file_id: bytes
    key_id: bytes
    key_version: int
    why: str
    threat_id: str
    sealed_at_ns: int
    digest: bytes


class Inventory(Protocol):
    """What is sealed (the store implements it)."""

    def sealed(self, entries: Sequence[SealedEntry]) -> None:
        """Add or replace entries."""

    def opened(self, tree: int, path: bytes) -> None:
        """Drop an entry."""


@dataclass(frozen=True, slots=True)
class Result:
    """One file of a request: done, failed or skipped, never an exception."""

    path: bytes
    outcome: Outcome
    to: bytes = b""
    size: int = 0
    code: str = ""
    reason: str = ""


def sealed_name(path: bytes) -> bytes:
    """Where the sealed form of a file will be (the core has the last word for names that are too long)."""
    return path + SUFFIX


def opens(tree: GuardedTree, path: bytes) -> str:
    """The command that takes a seal back: of the name that the sealed file really has, and safe to paste."""
    return f"shieldctl files open {shell_word(tree.absolute(path))}"


def original_name(path: bytes) -> bytes:
    """What a sealed file's own name most likely is; the sealed metadata has the last word."""
    return path.removesuffix(SUFFIX)


def _seal_changes(paths: Sequence[bytes]) -> dict[bytes, int]:
    changes = dict.fromkeys(paths, OURS_GONE)
    changes.update(dict.fromkeys(map(sealed_name, paths), OURS_MADE))
    return changes


class Sealer:
    """Seals and opens files of the guarded trees. Thread-safe as far as its parts are."""

    def __init__(
        self,
        keyring: envelope.Keyring,
        journal: envelope.Journal,
        ledger: Ledger,
        inventory: Inventory,
        notice: Notice,
        *,
        host_id: bytes,
        count: Callable[[int], None] = lambda uses: None,
        known: Callable[[GuardedTree, bytes], None] = lambda tree, path: None,
        gone: Callable[[GuardedTree, Sequence[bytes]], None] = lambda tree, paths: None,
        threads: int = 0,
        durable: bool = True,
    ) -> None:
        """Args:
        known: told of each file that we made.
        gone: told of the files that we took away: nothing of it in the clear shall stay.
        """
        self._keyring = keyring
        self._journal = journal
        self._ledger = ledger
        self._inventory = inventory
        self._notice = notice
        self._host_id = host_id
        self._count = count
        self._known = known
        self._gone = gone
        self._threads = threads
        self._durable = durable

    def options(self, why: str) -> envelope.SealOptions:
        """Options of the core for one request."""
        return envelope.SealOptions(
            purpose=envelope.Purpose.FILES,
            why=why,
            host_id=self._host_id,
            threads=self._threads,
            durable=self._durable,
        )

    def seal(
        self, tree: GuardedTree, path: bytes, *, threat_id: str = "", why: str, inode: tuple[int, int] | None = None
    ) -> Result:
        """Seal one file; raises `ShieldError` with nothing lost when it cannot be done."""
        action = announced(ActionKind.SEAL, tree, path, threat_id=threat_id, reason=why)
        done: envelope.Sealed
        with (
            recorded(self._ledger, action, done=lambda: (why, opens(tree, done.path))),
            announced_to(self._notice, tree, _seal_changes([path])),
        ):
            still_there(tree)
            still_the_one(tree, path, inode)
            self._count(1)
            done = envelope.seal(tree.root_fd, path, self._keyring, self._journal, self.options(why))
            self._known(tree, done.path)
            self._gone(tree, [path])
            self._inventory.sealed([self._entry(tree, path, done, why, threat_id)])
        return Result(path, Outcome.DONE, done.path, done.size)

    def act(self, tree: GuardedTree, path: bytes, *, threat_id: str, why: str, inode: tuple[int, int] | None) -> None:
        """`seal`, as a decision asks for it: of a file that everybody may get at, if that is still so.

        Copies are often open to all until their last step, which gives them the mode of what they are copies of.
        """
        if not _open_to_all(tree, path):
            action = announced(ActionKind.SEAL, tree, path, threat_id=threat_id, reason=why)
            self._ledger.intend([action])
            self._ledger.finish([Ended(action.id, Outcome.SKIPPED, "no longer open to everybody", "")])
            return
        self.seal(tree, path, threat_id=threat_id, why=why, inode=inode)

    def seal_many(
        self, tree: GuardedTree, paths: Sequence[bytes], *, threat_id: str = "", why: str
    ) -> Iterator[Result]:
        """Seal files of one tree in groups; each group is durable before its originals go."""
        for at in range(0, len(paths), GROUP):
            yield from self._seal_group(tree, paths[at : at + GROUP], threat_id, why)

    def _seal_group(self, tree: GuardedTree, paths: Sequence[bytes], threat_id: str, why: str) -> list[Result]:
        actions = [announced(ActionKind.SEAL, tree, path, threat_id=threat_id, reason=why) for path in paths]
        self._ledger.intend(actions)
        try:
            still_there(tree)
            self._count(len(paths))
        except ShieldError as error:
            self._ledger.finish([failed(action, error) for action in actions])
            return [Result(path, Outcome.FAILED, code=error.code, reason=error.message) for path in paths]
        with announced_to(self._notice, tree, _seal_changes(paths)):
            outcomes = envelope.seal_many(tree.root_fd, list(paths), self._keyring, self._journal, self.options(why))
            for outcome in outcomes:
                if not isinstance(outcome, ShieldError):
                    self._known(tree, outcome.path)
            done = zip(paths, outcomes, strict=True)
            self._gone(tree, [path for path, outcome in done if not isinstance(outcome, ShieldError)])
        results: list[Result] = []
        entries: list[SealedEntry] = []
        ended: list[Ended] = []
        for path, action, outcome in zip(paths, actions, outcomes, strict=True):
            if isinstance(outcome, ShieldError):
                ended.append(failed(action, outcome))
                results.append(Result(path, Outcome.FAILED, code=outcome.code, reason=outcome.message))
                continue
            ended.append(Ended(action.id, Outcome.DONE, action.reason, opens(tree, outcome.path)))
            entries.append(self._entry(tree, path, outcome, why, threat_id))
            results.append(Result(path, Outcome.DONE, outcome.path, outcome.size))
        self._inventory.sealed(entries)
        self._ledger.finish(ended)
        return results

    def open(self, tree: GuardedTree, path: bytes, *, threat_id: str = "", why: str) -> Result:
        """Open a sealed file back to its own name; never overwrites."""
        action = announced(ActionKind.OPEN, tree, path, threat_id=threat_id, reason=why)
        changes = {path: OURS_GONE}
        if path.endswith(SUFFIX):
            changes[original_name(path)] = OURS_MADE
        left = ""
        with (
            recorded(self._ledger, action, done=lambda: (told(why, left), "")),
            announced_to(self._notice, tree, changes),
        ):
            still_there(tree)
            done = envelope.open_sealed(tree.root_fd, path, self._keyring, self._journal)
            self._known(tree, done.path)
            self._inventory.opened(tree.index, path)
            left = left_out(done)
        return Result(path, Outcome.DONE, done.path, done.metadata.size, reason=left)

    def _entry(self, tree: GuardedTree, path: bytes, done: envelope.Sealed, why: str, threat_id: str) -> SealedEntry:
        return SealedEntry(
            tree=tree.index,
            path=done.path,
            original=path,
            size=done.size,
            file_id=done.file_id,
            key_id=done.key_id,
            key_version=done.key_version,
            why=why,
            threat_id=threat_id,
            sealed_at_ns=done.sealed_at_ns,
            digest=done.blake3,
        )


def _open_to_all(tree: GuardedTree, path: bytes) -> bool:
    """Whether the mode lets others read or write it; what cannot be looked at is for the act itself to refuse."""
    try:
        mode = os.stat(path, dir_fd=tree.root_fd, follow_symlinks=False).st_mode
    except OSError:
        return True
    return bool(mode & (stat.S_IROTH | stat.S_IWOTH))
