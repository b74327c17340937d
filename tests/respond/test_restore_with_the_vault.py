"""Restoring from the vault itself, at full size: what the keeper linked and what was copied before each write."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shieldd.config import PreserveSection
from shieldd.model.decision import Outcome
from shieldd.model.event import Kind
from shieldd.model.restore import Act
from shieldd.respond import Trees
from shieldd.respond.preserve import Keeper
from shieldd.respond.restore import Restorer
from shieldd.respond.restore_vault import VaultVersions
from tests.respond.restoring import ATTACKER, Scene, garbled, scene, state

__all__ = ["scene"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the vault is root's alone")
DEADLINE_S = 60.0


@pytest.fixture
def keeper(scene: Scene, tmp_path: Path) -> Iterator[Keeper]:
    """A vault beside the tree, named so that none is made at the top of this machine's own file system."""
    scene.real = True
    trees = Trees([scene.tree])
    one = Keeper(trees, PreserveSection(), places={0: tmp_path / "real-vault"})
    assert not one.refused
    versions = VaultVersions(one, trees)
    scene.restorer = Restorer(
        trees, versions, scene.store.restores, scene.store.restores, scene.store, scene.lists, scene.quarantine
    )
    yield one
    one.close()


def _preserve(scene: Scene, keeper: Keeper, path: bytes) -> None:
    """What the answerer does when the attacker opens a file for writing."""
    fd = os.open(scene.full(path), os.O_RDONLY)
    keeper.held[0].vault.image(fd, 0, path, actor=ATTACKER, at_ns=time.time_ns())
    os.close(fd)


def test_what_the_keeper_kept_comes_back(scene: Scene, keeper: Keeper) -> None:
    for number in range(8):
        scene.create(b"%d.csv" % number, b"patient %d " % number * 50, preserve=False)
        os.chmod(scene.full(b"%d.csv" % number), 0o640)
        os.setxattr(scene.full(b"%d.csv" % number), b"user.study", b"%d" % number)
    keeper.start()
    assert keeper.settled(DEADLINE_S)
    before = state(scene.tree.root)
    since = time.time_ns()
    for number in range(4):
        name = b"%d.csv" % number
        _preserve(scene, keeper, name)
        scene.write(name, garbled(b"x"), ATTACKER, preserve=False)
    scene.rename(b"1.csv", b"1.csv.locked", ATTACKER)
    for number in (4, 5):
        scene.delete(b"%d.csv" % number, ATTACKER)
    scene.rename(b"6.csv", b"6.csv.locked", ATTACKER)
    scene.create(b"README", b"pay", ATTACKER)
    keeper.held[0].vault.touched(0, [b"4.csv", b"5.csv"])

    done = scene.restore(since)

    assert {x.outcome for x in done.values()} == {Outcome.DONE}, done
    assert state(scene.tree.root) == before
    kept = scene.restorer.versions_of(scene.full(b"0.csv"))
    assert len(kept) >= 2

    # and an ordinary accident: the file as it was, beside what it is now
    scene.write(b"7.csv", b"a mistake", preserve=False)
    version = scene.restorer.versions_of(scene.full(b"2.csv"))
    brought = scene.restorer.bring(scene.full(b"2.csv"), version[0].at_ns, to=None, why="test")
    assert brought.aside == scene.full(b"2.csv.before-restore")
    assert state(scene.tree.root)[b"2.csv"].data == before[b"2.csv"].data


@pytest.mark.parametrize("then", ["stays", "is renamed"])
def test_a_large_file_is_put_together_from_what_was_overwritten(scene: Scene, keeper: Keeper, then: str) -> None:
    scene.create(b"big.img", os.urandom(1 << 20), preserve=False)
    before = state(scene.tree.root)
    since = time.time_ns()
    fd = os.open(scene.full(b"big.img"), os.O_RDWR)
    for at in (0, 400_000):
        vault = keeper.held[0].vault
        vault.keep_range(fd, 0, b"big.img", actor=ATTACKER, at_ns=time.time_ns(), offset=at, length=8192)
        os.pwrite(fd, b"garbage", at)
    os.close(fd)
    scene.tick()
    scene.record(Kind.WRITE, b"big.img", ATTACKER)
    if then == "is renamed":
        scene.rename(b"big.img", b"big.img.locked", ATTACKER)

    done = scene.restore(since)

    assert {x.outcome for x in done.values()} == {Outcome.DONE}, done
    assert state(scene.tree.root) == before


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["write", "delete"])
def test_a_thousand_files_a_second(scene: Scene, keeper: Keeper, attack: str) -> None:
    count = 2000
    for number in range(count):
        path = Path(os.fsdecode(scene.full(b"%d.csv" % number)))
        path.write_bytes(b"%08d" % number * 1024)
    keeper.start()
    assert keeper.settled(DEADLINE_S)
    before = state(scene.tree.root)
    since = time.time_ns()
    for number in range(count):
        name = b"%d.csv" % number
        if attack == "write":
            _preserve(scene, keeper, name)
        if attack == "write":
            scene.write(name, b"garbage", ATTACKER, preserve=False)
        else:
            scene.delete(name, ATTACKER)
    keeper.held[0].vault.touched(0, [b"%d.csv" % number for number in range(count)])

    began = time.perf_counter()
    plan = scene.plan(since)
    planned = time.perf_counter()
    done = scene.run(plan)
    ended = time.perf_counter()

    assert {(x.act, x.outcome) for x in done.values()} == {(Act.COPY if attack == "write" else Act.LINK, Outcome.DONE)}
    assert state(scene.tree.root) == before
    rate = count / (ended - planned)
    print(f"{attack}: plan {count / (planned - began):,.0f} files/s, run {rate:,.0f} files/s")
    assert rate > 300, "far below what it is built for (1,000 files/s), even on a busy machine"
