"""The vault's hard link is no other name: files can be sealed and quarantined, foreign links are refused as ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from shieldd.errors import ShieldError
from shieldd.native import envelope

from .conftest import Bench

pytestmark = pytest.mark.root


def seal(bench: Bench, name: bytes) -> envelope.Sealed:
    journal_dir = bench.base / "journal"
    journal_dir.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(journal_dir, os.O_RDONLY)
    options = envelope.SealOptions(purpose=envelope.Purpose.FILES, why="test", host_id=b"host", durable=False)
    try:
        with envelope.Keyring() as keyring, envelope.Journal(fd) as journal:
            key = envelope.random_bytes(32)
            keyring.add(key_id=bytes(16), version=1, purpose=envelope.Purpose.FILES, key=key, seals=True)
            return envelope.seal(bench.root, name, keyring, journal, options)
    finally:
        os.close(fd)


def test_a_linked_file_is_sealed(on: Callable[..., Bench]) -> None:
    bench = on()
    bench.write("f", b"patient")
    (version,) = bench.link("f")
    ino = os.stat(bench.tree / "f").st_ino
    seal(bench, b"f")
    assert sorted(os.listdir(bench.tree)) == ["f.shield"]
    assert bench.content(version) == b"patient"
    assert bench.v.forget([], ino=ino) > 0  # no copy in the clear stays, where the sealer says so
    assert os.listdir(bench.place / "links") == []


def test_a_foreign_link_is_refused_beside_ours(on: Callable[..., Bench]) -> None:
    bench = on()
    path = bench.write("f", b"patient")
    bench.link("f")
    os.link(path, bench.base / "elsewhere")
    with pytest.raises(ShieldError) as error:
        seal(bench, b"f")
    assert error.value.code == "file.hardlinks" and "2 hard links" in error.value.message
    (bench.base / "elsewhere").unlink()
    seal(bench, b"f")


def test_a_link_is_ours_only_while_the_vault_is_open(on: Callable[..., Bench]) -> None:
    bench = on()
    bench.write("f", b"patient")
    bench.link("f")
    bench.v.close()
    bench.vault = None
    with pytest.raises(ShieldError) as error:
        seal(bench, b"f")
    assert error.value.code == "file.hardlinks"
    bench.again()  # known again from its records
    seal(bench, b"f")


def test_a_forgotten_link_gives_the_count_back(on: Callable[..., Bench]) -> None:
    bench = on()
    path = bench.write("f", b"patient")
    versions = bench.link("f")
    assert os.stat(path).st_nlink == 2
    bench.v.forget(versions)
    assert os.stat(path).st_nlink == 1
    os.link(path, bench.base / "elsewhere")
    with pytest.raises(ShieldError):
        seal(bench, b"f")


def test_a_file_is_sealed_while_it_is_linked(on: Callable[..., Bench]) -> None:
    """The keeper links what the sealer has in hand: the new ctime is ours, and the seal goes through."""
    bench = on()
    names = [f"f{i}" for i in range(60)]
    for name in names:
        bench.write(name, bytes(300_000))
    keeper = threading.Thread(target=lambda: bench.v.walk(bench.root, 0).step(1000, 1))
    assert bench.v.status().links == 0
    keeper.start()
    for name in names:
        seal(bench, name.encode())
    keeper.join()
    assert sorted(os.listdir(bench.tree)) == sorted(f"{name}.shield" for name in names)
