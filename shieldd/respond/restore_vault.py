"""The vaults as restoring needs them: `Versions` of `restore_contract` on `shieldd.respond.versions`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from shieldd.errors import ShieldError
from shieldd.model.version import Keep, Version
from shieldd.native import files
from shieldd.respond import Trees
from shieldd.respond import versions as preserved
from shieldd.respond.preserve import Keeper
from shieldd.respond.vaults import Held


class VaultVersions:
    """Finds versions, keeps what is about to be replaced, and links what came back."""

    def __init__(self, keeper: Keeper, trees: Trees) -> None:
        self._found = preserved.Versions(keeper)
        self._keeper = keeper
        self._trees = trees

    def versions_of(self, tree: int, path: bytes) -> Sequence[Version]:
        """All versions of a name, oldest first; none where the tree has no vault."""
        try:
            return self._found.versions_of(tree, path)
        except ShieldError:
            if self._held(tree) is None:
                return ()  # no vault: then nothing is preserved, and the plan says "lost"
            raise

    def versions_by(self, actor: int, since_ns: int) -> Sequence[Version]:
        """All versions that were kept for an actor's acts."""
        return self._found.versions_by(actor, since_ns)

    def get(self, vault: int, version_id: int) -> Version | None:
        """One version; None where it is no more."""
        try:
            return self._found.version(vault, version_id)
        except ShieldError as error:
            if error.code != "preserve.missing":
                raise
            return None

    def open(self, version: Version, *, now: bytes = b"") -> int:
        """The whole content of a version; the caller closes.

        Args:
            now: where the file is, for a version that holds only the ranges that were overwritten.
        """
        if version.kind is not Keep.RANGE:
            return self._found.open(version)
        fd = files.open_beneath(self._trees[version.tree].root_fd, now or version.path, os.O_NONBLOCK)
        try:
            if os.fstat(fd).st_ino != version.ino:
                raise ShieldError("restore.version", "the file that its ranges belong to is not there any more")
            return self._found.open(version, current_fd=fd)
        finally:
            os.close(fd)

    def keep(self, tree: int, path: bytes, *, actor: int) -> None:
        """Preserve a file as it is now: a link, or a copy where links are not made."""
        held = self._held(tree)
        if held is None:
            raise ShieldError("preserve.off")
        root_fd, now = self._trees[tree].root_fd, time.time_ns()
        (kept,) = held.vault.link_many(root_fd, tree, [path], [actor], now)
        if not isinstance(kept, ShieldError):
            return
        fd = files.open_beneath(root_fd, path, os.O_NONBLOCK)
        try:
            held.vault.image(fd, tree, path, actor=actor, at_ns=now)
        finally:
            os.close(fd)

    def came_back(self, tree: int, paths: Sequence[bytes]) -> None:
        """Files have these names again: the watcher says nothing of it, so they are linked here."""
        held = self._held(tree)
        if held is None or not paths:
            return
        held.vault.touched(tree, paths)
        held.vault.link_many(self._trees[tree].root_fd, tree, paths, [0] * len(paths), time.time_ns())

    def pin(self, incident_id: str, actor: int, since_ns: int) -> None:
        """Keep an incident's versions from being evicted."""
        self._found.pin(incident_id, actor, since_ns)

    def unpin(self, incident_id: str) -> None:
        """Let them go with the others."""
        self._found.unpin(incident_id)

    def _held(self, tree: int) -> Held | None:
        return next((held for held in self._keeper.held if any(one.index == tree for one in held.trees)), None)
