"""A root, a store, a journal and keys of one's own, on a scratch file system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shieldd.native import envelope as native

KEY_ID = b"files-key-000001"
STORE_KEY_ID = b"store-key-000001"


@dataclass
class Bench:
    """Where a test seals and opens."""

    base: Path
    keyring: native.Keyring
    journal: native.Journal = field(init=False)
    root: int = field(init=False)
    store: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("tree", "store", "journal"):
            (self.base / name).mkdir(mode=0o700, exist_ok=True)
        self.root = os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY)
        self.store = os.open(self.base / "store", os.O_RDONLY | os.O_DIRECTORY)
        journal = os.open(self.base / "journal", os.O_RDONLY | os.O_DIRECTORY)
        self.journal = native.Journal(journal)
        os.close(journal)

    @property
    def tree(self) -> Path:
        return self.base / "tree"

    @property
    def roots(self) -> dict[bytes, int]:
        return {bytes(self.tree): self.root, bytes(self.base / "store"): self.store}

    def write(self, name: bytes | str, content: bytes, mode: int = 0o640) -> bytes:
        path = os.path.join(bytes(self.tree), os.fsencode(name))
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        return os.fsencode(name)

    def read(self, name: bytes | str) -> bytes:
        with open(os.path.join(bytes(self.tree), os.fsencode(name)), "rb") as file:
            return file.read()

    def names(self) -> list[bytes]:
        return sorted(os.listdir(bytes(self.tree)))

    def seal(self, path: bytes, **options: object) -> native.Sealed:
        return native.seal(self.root, path, self.keyring, self.journal, files_options(**options))

    def open(self, path: bytes, **options: object) -> native.Opened:
        return native.open_sealed(self.root, path, self.keyring, self.journal, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        self.journal.close()
        os.close(self.root)
        os.close(self.store)


def files_options(**changes: object) -> native.SealOptions:
    return native.SealOptions(purpose=native.Purpose.FILES, why="test", host_id=b"host", **changes)  # type: ignore[arg-type]


def store_options(**changes: object) -> native.SealOptions:
    return native.SealOptions(purpose=native.Purpose.QUARANTINE, why="test", host_id=b"host", **changes)  # type: ignore[arg-type]


@pytest.fixture
def keyring() -> Iterator[native.Keyring]:
    with native.Keyring() as ring:
        for key_id, purpose in ((KEY_ID, native.Purpose.FILES), (STORE_KEY_ID, native.Purpose.QUARANTINE)):
            ring.add(key_id=key_id, version=1, purpose=purpose, key=native.random_bytes(32), seals=True)
        yield ring


@pytest.fixture
def bench(tmp_path: Path, keyring: native.Keyring) -> Iterator[Bench]:
    made = Bench(tmp_path, keyring)
    yield made
    made.close()
