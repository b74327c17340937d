"""Configurations with a keystore of each kind, and a ledger in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from shieldd.config import Config, Unlock
from shieldd.keys import KeyRecord

CREDENTIAL = bytes(range(40))
PASSPHRASE = b"four words and a number 7"


class MemoryLedger:
    """`KeyLedger` without a disk."""

    def __init__(self) -> None:
        self.seen: tuple[str, int] | None = None
        self.records: dict[bytes, KeyRecord] = {}
        self.wrapped: dict[bytes, int] = {}

    def keystore(self) -> tuple[str, int] | None:
        return self.seen

    def record(self, keystore_id: str, generation: int, records: Sequence[KeyRecord]) -> None:
        self.seen = (keystore_id, generation)
        for record in records:
            old = self.records.get(record.key_id)
            self.records[record.key_id] = replace(record, uses=old.uses if old else 0)

    def versions(self, purpose: int | None = None) -> list[KeyRecord]:
        found = [record for record in self.records.values() if purpose in (None, record.purpose)]
        return sorted(found, key=lambda record: (record.purpose, record.version))

    def used(self, counts: Mapping[bytes, int]) -> None:
        for key_id, count in counts.items():
            self.records[key_id] = replace(self.records[key_id], uses=self.records[key_id].uses + count)

    def objects(self) -> dict[bytes, int]:
        return dict(self.wrapped)


def personal(place: Path) -> Config:
    """Personal mode, key file."""
    (place / "tree").mkdir(parents=True, exist_ok=True)
    return Config.personal([place / "tree"], state_dir=place / "state")


def unlocked_by(place: Path, method: Unlock) -> Config:
    """Service mode with this method; the credential directory is `place/credentials`."""
    config = personal(place)
    keys = config.keys.model_copy(update={"unlock": method})
    daemon = config.daemon.model_copy(update={"mode": "service"})
    return config.model_copy(update={"keys": keys, "daemon": daemon})


def credentials(place: Path, secret: bytes) -> Path:
    """A credential directory as the service manager makes it."""
    directory = place / "credentials"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "shieldd.keystore").write_bytes(secret)
    return directory
