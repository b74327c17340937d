"""What restoring does is announced to the watcher: it is not judged as somebody's, and what comes after is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from shieldd.model.decision import Outcome
from shieldd.model.restore import Act
from shieldd.respond import Trees
from shieldd.respond.restore import Restorer
from shieldd.watch import Tree
from shieldd.watch.native_source import NativeSource
from tests.respond.restoring import ATTACKER, Scene, scene

__all__ = ["scene"]
DEADLINE_S = 20.0


@pytest.fixture
def source(scene: Scene) -> Iterator[NativeSource]:
    """The real watcher on the scene's tree, not started yet."""
    one = NativeSource([Tree(root=scene.tree.root, root_fd=scene.tree.root_fd, exclude=(), index=0)])
    yield one
    one.stop()


def _until(source: NativeSource, name: bytes) -> set[bytes]:
    """Names of all events up to one on `name`."""
    seen: set[bytes] = set()
    deadline = time.monotonic() + DEADLINE_S
    while name not in seen:
        assert time.monotonic() < deadline, seen
        batch = source.next_batch(0.2)
        for row in range(len(batch) if batch else 0):
            assert batch is not None
            seen.add(batch.path(row))
    return seen


def test_nothing_that_restoring_does_is_reported(scene: Scene, source: NativeSource) -> None:
    for number in range(5):
        scene.create(b"%d.csv" % number, b"data %d" % number)
    since = scene.begin()
    scene.write(b"0.csv", b"garbage", ATTACKER)
    scene.delete(b"1.csv", ATTACKER)
    scene.rename(b"2.csv", b"2.csv.locked", ATTACKER)
    scene.write(b"3.csv", b"garbage", ATTACKER)
    scene.write(b"3.csv", b"repaired by hand")
    scene.create(b"README", b"pay", ATTACKER)
    trees = Trees([scene.tree])
    quarantine = scene.quarantine
    quarantine._notice = source
    restorer = Restorer(
        trees,
        scene.vault,
        scene.store.restores,
        scene.store.restores,
        scene.store,
        source,
        quarantine,
        clock_ns=lambda: scene.now_ns + 1,
    )
    scene.store.flush()
    plan = restorer.plan(scene.incident(since))
    source.start()
    (scene.root / "begun").write_bytes(b"x")
    _until(source, b"begun")

    done = list(restorer.run(plan, actor=ATTACKER, why="test", take=[scene.full(b"3.csv")]))
    (scene.root / "ended").write_bytes(b"x")

    assert {x.outcome for x in done} == {Outcome.DONE}
    assert {x.act for x in done} == {Act.COPY, Act.LINK, Act.MOVE, Act.QUARANTINE}
    seen = _until(source, b"ended")
    assert seen - {b"begun", b"ended"} <= {b"3.csv.before-restore"}
    deadline = time.monotonic() + DEADLINE_S
    while b"0.csv" not in seen:
        assert time.monotonic() < deadline
        (scene.root / "0.csv").write_bytes(os.urandom(8))
        batch = source.next_batch(0.2)
        seen |= {batch.path(row) for row in range(len(batch))} if batch else set()
