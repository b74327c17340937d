"""Whatever an attacker does to a tree while others work in it, it is as it was where nobody else interfered."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldd.model.decision import Outcome
from shieldd.model.restore import Act, Conflict
from shieldd.model.version import Keep
from tests.respond.restoring import ANOTHER, ATTACKER, USER, Scene, garbled, staged, state

FILES = [b"a.csv", b"b.csv", b"dir/c.csv", b"dir/d.csv", b"dir/sub/e.csv", b"f\n\xff.csv"]
ACTS = ["write", "delete", "rename", "encrypt", "replace", "chmod", "note", "again"]


def _targets(scene: Scene) -> list[bytes]:
    return sorted(path for path in state(scene.tree.root) if b".shieldd-" not in path)


def _attack(scene: Scene, act: str, pick: int, number: int) -> None:
    """One act of the attacker on one of the files that are there."""
    there = _targets(scene)
    if not there:
        return
    path = there[pick % len(there)]
    other = path + b".%d" % number
    match act:
        case "write" | "again":
            scene.write(path, garbled(b"content %d" % number), ATTACKER)
        case "delete":
            scene.delete(path, ATTACKER)
        case "rename":
            scene.rename(path, other, ATTACKER)
        case "encrypt":
            scene.create(other, garbled(b"x"), ATTACKER)
            scene.delete(path, ATTACKER)
        case "replace":
            scene.create(other, b"planted %d" % number, ATTACKER)
            scene.rename(other, path, ATTACKER)
        case "chmod":
            scene.chmod(path, 0o777, ATTACKER)
        case "note":
            scene.create(b"README.%d" % number, b"pay", ATTACKER)


def _work(scene: Scene, act: str, pick: int, number: int, touched: set[bytes]) -> None:
    """One act of somebody else, on a file of theirs or on one that is there."""
    there = _targets(scene)
    path = there[pick % len(there)] if there else b"new"
    match act:
        case "write" if there:
            scene.write(path, b"work %d" % number, ANOTHER)
            touched.add(path)
        case "delete" if there:
            scene.delete(path, ANOTHER)
            touched.add(path)
        case _:
            scene.create(b"new %d.csv" % number, b"new work", ANOTHER)
            touched.add(b"new %d.csv" % number)


MOVES = st.lists(
    st.tuples(st.sampled_from([ATTACKER, ATTACKER, ATTACKER, USER]), st.sampled_from(ACTS), st.integers(0, 50)),
    max_size=14,
)


def _begun(scene: Scene) -> None:
    scene.make_dir(b"dir")
    scene.make_dir(b"dir/sub")
    for number, path in enumerate(FILES):
        scene.create(path, b"patient %d" % number * 30)
        os.chmod(scene.full(path), (0o600, 0o640, 0o644)[number % 3])
    scene.vault.clear()
    for path in FILES:
        scene.vault.add(path, Keep.LINK, at_ns=scene.now_ns)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 50)), max_size=14))
def test_alone_an_attacker_leaves_nothing_behind(moves: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory, staged(Path(directory) / "scene") as scene:
        _begun(scene)
        before = state(scene.tree.root)
        since = scene.begin()
        for number, (act, pick) in enumerate(moves):
            _attack(scene, act, pick, number)

        done = scene.restore(since)

        assert state(scene.tree.root) == before, done
        assert not [x for x in done.values() if x.outcome is Outcome.FAILED or x.lost or x.conflict], done
        again = scene.restore(since)
        assert not [x for x in again.values() if x.act is not Act.NOTHING], again


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_beside_others_their_work_stays_and_the_rest_comes_back(moves: list[tuple[int, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory, staged(Path(directory) / "scene") as scene:
        _begun(scene)
        before = state(scene.tree.root)
        since = scene.begin()
        touched: set[bytes] = set()
        for number, (who, act, pick) in enumerate(moves):
            if who == ATTACKER:
                _attack(scene, act, pick, number)
            else:
                _work(scene, act, pick, number, touched)
        middle = state(scene.tree.root)

        done = scene.restore(since)

        after = state(scene.tree.root)
        for path in set(before) - _family(touched):
            assert after.get(path) == before[path], (path, done.get(path))
        for path in touched & set(middle):
            step = done.get(path)
            if step is None or step.conflict is not Conflict.NONE:
                assert after[path].data == middle[path].data, (path, step)
        # nothing that anybody else wrote last was taken away
        for path, step in done.items():
            if step.outcome is Outcome.DONE and step.conflict is Conflict.NONE:
                assert path not in touched or step.act is not Act.QUARANTINE, (path, step)


def _family(touched: set[bytes]) -> set[bytes]:
    """Names that others touched, and those that the attacker made these names from."""
    stems = {path.split(b".csv")[0] + b".csv" for path in touched if b".csv" in path}
    return touched | stems
