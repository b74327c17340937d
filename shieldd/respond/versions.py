"""Finding preserved versions, giving out their content, sealing them for other places."""

from __future__ import annotations

import os
from collections.abc import Sequence

from shieldd.errors import ShieldError
from shieldd.model.version import Keep, Version
from shieldd.native import envelope
from shieldd.respond.preserve import Keeper
from shieldd.respond.vaults import Held


class Versions:
    """Finds preserved versions and gives out their content."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def versions_of(self, tree: int, path: bytes, *, until_ns: int = 0, limit: int = 1000) -> list[Version]:
        """Versions of a name, the oldest first; links to files that still have a name are among them."""
        held = self._held(tree)
        return held.vault.find(path=path, tree=tree, until_ns=until_ns, standing=True, limit=limit)

    def versions_by(self, actor_key: int, since_ns: int) -> list[Version]:
        """Versions made before acts of an actor, of all vaults, the oldest first."""
        found: list[Version] = []
        for held in self._keeper.held:
            found += held.vault.find(actor=actor_key, since_ns=since_ns)
        return sorted(found, key=lambda version: (version.at_ns, version.id))

    def lost_since(self, tree: int, since_ns: int) -> list[Version]:
        """Versions of a tree that stand for files without a name: links whose file was deleted or replaced, as far as
        that was noticed; made before or after `since_ns`, lost since then (the ctime of the object says when)."""
        found = self._held(tree).vault.find(tree=tree)
        return [version for version in found if version.kind is Keep.LINK and self._lost_ns(version) >= since_ns]

    def version(self, vault: int, version_id: int) -> Version:
        """One version.

        Raises:
            ShieldError: `preserve.missing`.
        """
        return self._vault(vault).vault.version(version_id)

    def open(self, version: Version, *, current_fd: int | None = None) -> int:
        """A descriptor of the verified content; the caller closes.

        Args:
            current_fd: the file as it is now; needed for `Keep.RANGE`, which holds only what was overwritten.

        Raises:
            ShieldError: `preserve.missing`, `preserve.damaged`.
        """
        vault = self._vault(version.vault).vault
        if version.kind is Keep.RANGE and current_fd is not None:
            return vault.assemble(version.id, current_fd)
        return vault.open(version.id)

    def export(
        self,
        version: Version,
        directory_fd: int,
        keyring: envelope.Keyring,
        journal: envelope.Journal,
        *,
        host_id: bytes,
        current_fd: int | None = None,
    ) -> envelope.Sealed:
        """Seal a version into a directory, on whatever file system, as `ID.shield`, with the key for such.

        Raises:
            ShieldError: as `open`; `file.exists`, `file.full`, `keys.locked`.
        """
        fd = self.open(version, current_fd=current_fd)
        options = envelope.SealOptions(
            purpose=envelope.Purpose.PRESERVE, why=f"preserved version {version.name}", host_id=host_id
        )
        name = f"{version.name}.shield".encode()
        try:
            return envelope.seal_descriptor(fd, version.path, directory_fd, name, keyring, journal, options)
        finally:
            os.close(fd)

    def forget(self, versions: Sequence[Version]) -> int:
        """Let versions go for good; bytes given back."""
        return sum(self._vault(version.vault).vault.forget([version.id]) for version in versions)

    def pin(self, incident_id: str, actor_key: int, since_ns: int) -> None:
        """As the keeper's."""
        self._keeper.pin(incident_id, actor_key, since_ns)

    def unpin(self, incident_id: str) -> None:
        """As the keeper's."""
        self._keeper.unpin(incident_id)

    def _lost_ns(self, version: Version) -> int:
        fd = self._vault(version.vault).vault.open(version.id, verify=False)
        try:
            return os.fstat(fd).st_ctime_ns if version.orphan else 0
        finally:
            os.close(fd)

    def _held(self, tree: int) -> Held:
        for held in self._keeper.held:
            if any(one.index == tree for one in held.trees):
                return held
        raise self._keeper.refused.get(tree) or ShieldError("preserve.off")

    def _vault(self, number: int) -> Held:
        for held in self._keeper.held:
            if held.number == number:
                return held
        raise ShieldError("preserve.missing", "no such vault")
