"""A restore that is cut off, has no room, may not write, meets a damaged version: every file is whole all the same."""

from __future__ import annotations

import json
import os
import queue
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome
from shieldd.model.restore import Act, PlanState
from shieldd.model.version import Keep
from shieldd.native import restore as native
from shieldd.native.restore import How, Over
from shieldd.store import ActionFilter
from tests.cut_off import Fault, Worker, at_each, workers
from tests.respond.restore_worker import STATE, put_down, take_up
from tests.respond.restoring import ATTACKER, Scene, garbled, scene, staged, state

__all__ = ["scene"]
COUNT = 13  # files: so many that one syncfs stands for an fsync of each
CALLS = [
    "openat", "linkat", "renameat2", "unlinkat", "unlink", "syncfs", "fsync", "fdatasync", "fchown", "fchmod",
    "utimensat", "pwrite64", "mkdirat", "ftruncate", "copy_file_range", "fallocate",
]  # fmt: skip
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system of its own")


def _attacked(scene: Scene) -> int:
    """A tree after an attack of every kind; returns its beginning."""
    scene.make_dir(b"dir")
    for number in range(COUNT):
        scene.create(b"dir/%d.csv" % number, b"patient %d " % number * 200)
        os.chmod(scene.full(b"dir/%d.csv" % number), 0o640)
    scene.vault.clear()
    for number in range(COUNT):
        scene.vault.add(b"dir/%d.csv" % number, Keep.LINK, at_ns=scene.now_ns)
    return scene.begin()


def _attack(scene: Scene) -> None:
    scene.write(b"dir/0.csv", garbled(b"x"), ATTACKER)
    scene.write(b"dir/1.csv", garbled(b"y"), ATTACKER)
    scene.rename(b"dir/1.csv", b"dir/1.csv.locked", ATTACKER)
    scene.encrypt(b"dir/2.csv")
    scene.rename(b"dir/3.csv", b"dir/3.csv.locked", ATTACKER)
    for number in range(4, COUNT):
        scene.delete(b"dir/%d.csv" % number, ATTACKER)
    scene.create(b"dir/README", b"pay", ATTACKER)


@pytest.fixture(scope="module")
def free() -> Iterator[queue.SimpleQueue[Worker]]:
    with workers("tests.respond.restore_worker") as made:
        yield made


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which kills at a system call")
def test_killed_at_each_call_it_is_gone_on_with(tmp_path: Path, free: queue.SimpleQueue[Worker]) -> None:
    template = tmp_path / "template"
    with staged(template, clean=False) as scene:
        since = _attacked(scene)
        before = state(scene.tree.root)
        _attack(scene)
        scene.plan(since)
        put_down(scene, template)

    def copied(name: str) -> Path:
        place = tmp_path / name
        shutil.copytree(template, place, copy_function=_linked_as_they_were())
        _fit(place)
        return place

    worker = free.get()
    calls = worker.calls(copied("trace"), "run", CALLS, reads=False)
    free.put(worker)
    assert {"linkat", "renameat2", "unlinkat", "fchmod", "utimensat"} <= {one.call for one in calls}

    def one(number: int, fault: Fault) -> None:
        place = copied(str(number))
        worker = free.get()
        outcome = worker.cut_off(place, "run", fault)
        free.put(worker)
        with staged(place) as scene:
            take_up(scene, place)
            plan = scene.store.restores.plans("inc1")[-1]
            if outcome == "killed":
                killed.add(fault.call)
            else:  # the store's writer groups as it comes, and needed fewer calls than under the trace
                assert (outcome, plan.state) == ("done", PlanState.DONE), fault
            if plan.state is not PlanState.DONE:
                list(scene.restorer.run(plan, actor=ATTACKER, why="again"))
            after = state(scene.tree.root)
            assert after == before, (fault, sorted(set(after) ^ set(before)))

    killed: set[str] = set()
    at_each(sorted({replace(fault, what="KILL") for fault in calls}), one)
    assert killed == {fault.call for fault in calls}


def _linked_as_they_were() -> Callable[[str, str], str]:
    """Copies a file; one that was copied under another name already gets a link, as the vault's are."""
    copied: dict[int, str] = {}

    def copy(source: str, target: str) -> str:
        first = copied.setdefault(os.stat(source).st_ino, target)
        if first == target:
            shutil.copy2(source, target)
        else:
            os.link(first, target)
        return target

    return copy


def _fit(place: Path) -> None:
    """A copied scene has other inodes: what was written down of them is brought in line."""
    known = json.loads((place / STATE).read_text())
    inode: dict[int, int] = {}
    for version in known["versions"]:
        link = place / "vault" / "links" / f"{version['object_id']:016x}"
        if version["kind"] == Keep.LINK and link.exists():  # one whose file was written into has been let go
            inode[version["ino"]] = link.stat().st_ino
    for version in known["versions"]:
        version["ino"] = inode.get(version["ino"], version["ino"])
    (place / STATE).write_text(json.dumps(known))
    with sqlite3.connect(place / "state" / "shieldd.db") as db:
        db.execute("UPDATE trees SET root = ?", (os.fsencode(place / "tree"),))
        rows = db.execute("SELECT plan, number, path, other, act, there FROM restore_steps").fetchall()
        for plan, number, path, other, act, there in rows:
            if there is None:
                continue
            seen = os.stat(os.path.join(os.fsencode(place / "tree"), other if act == "move" else path))
            values = json.loads(there)
            values[0], values[1] = seen.st_dev, seen.st_ino
            sql = "UPDATE restore_steps SET there = ? WHERE plan = ? AND number = ?"
            db.execute(sql, (json.dumps(values), plan, number))
    db.close()


def test_a_run_that_its_caller_left_is_gone_on_with(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shieldd.respond.restore_run.GROUP", 2)
    since = _attacked(scene)
    before = state(scene.tree.root)
    _attack(scene)
    plan = scene.plan(since)
    run = scene.restorer.run(plan, actor=ATTACKER, why="test")
    next(run)
    run.close()
    assert scene.restorer.unfinished("inc1") == replace(plan, state=PlanState.RUNNING)

    list(scene.restorer.run(plan, actor=ATTACKER, why="test"))

    assert state(scene.tree.root) == before
    assert scene.restorer.unfinished("inc1") is None
    with pytest.raises(ShieldError) as refused:
        list(scene.restorer.run(scene.store.restores.plan(plan.id), actor=ATTACKER, why="test"))
    assert refused.value.code == "restore.done"


def test_everything_is_on_record(scene: Scene) -> None:
    since = _attacked(scene)
    _attack(scene)
    done = scene.restore(since)
    kinds = {ActionKind.RESTORE: 0, ActionKind.QUARANTINE: 0}
    for action in scene.store.actions(ActionFilter(threat_id="inc1", limit=1000)).items:
        assert action.outcome is Outcome.DONE
        kinds[action.kind] += 1
    away = sum(x.act is Act.QUARANTINE for x in done.values())
    assert kinds == {ActionKind.RESTORE: len(done) - away, ActionKind.QUARANTINE: away}
    assert {path for _, path, _ in scene.lists.expected} >= {x.path for x in done.values()}


@contextmanager
def _own_file_system(directory: Path, size: str) -> Iterator[Path]:
    place = directory / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=False)
        subprocess.run(["umount", "-l", str(place)], check=True)


@root_only
def test_a_full_disk_leaves_every_file_whole_and_the_rest_for_later(tmp_path: Path) -> None:
    with _own_file_system(tmp_path, "64m") as place, staged(place / "scene") as scene:
        for name in (b"a.csv", b"b.csv"):
            scene.create(name, os.urandom(1 << 20))
        scene.vault.clear()
        before = state(scene.tree.root)
        since = scene.begin()
        scene.write(b"a.csv", b"garbage", ATTACKER)
        scene.write(b"b.csv", b"garbage", ATTACKER)
        plan = scene.plan(since)
        ballast = place / "ballast"
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - (600 << 10))

        done = scene.run(plan)

        assert {x.code for x in done.values()} == {"file.full"}
        assert (scene.root / "a.csv").read_bytes() == b"garbage"
        assert sorted(os.listdir(scene.root)) == ["a.csv", "b.csv"]
        ballast.unlink()
        scene.restore(since)
        assert state(scene.tree.root) == before


@root_only
def test_a_read_only_tree_is_left_as_it_is(tmp_path: Path) -> None:
    with staged(tmp_path / "scene") as scene:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(scene.root)], check=True)
        try:
            fd = os.open(scene.root, os.O_RDONLY | os.O_DIRECTORY)
            os.dup2(fd, scene.tree.root_fd)
            os.close(fd)
            scene.create(b"a.csv", b"data", preserve=False)
            scene.vault.add(b"a.csv", Keep.IMAGE, at_ns=scene.now_ns)
            since = scene.begin()
            scene.delete(b"a.csv", ATTACKER)
            plan = scene.plan(since)
            subprocess.run(["mount", "-o", "remount,ro", str(scene.root)], check=True)

            done = scene.run(plan)

            assert (done[b"a.csv"].outcome, done[b"a.csv"].code) == (Outcome.FAILED, "file.readonly")
            subprocess.run(["mount", "-o", "remount,rw", str(scene.root)], check=True)
            scene.restore(since)
            assert (scene.root / "a.csv").read_bytes() == b"data"
        finally:
            subprocess.run(["umount", "-l", str(scene.root)], check=True)


@contextmanager
def _formatted(directory: Path, kind: str) -> Iterator[Path]:
    """A file system of this kind in a file, on a loop device."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs mkfs.{kind}")
    image, place = directory / "image", directory / "mounted"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    subprocess.run([f"mkfs.{kind}", str(image)], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", "-t", kind, str(image), str(place)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"this kernel does not mount {kind} here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@root_only
@pytest.mark.parametrize("kind", ["btrfs", "xfs", "ext2"])
def test_on_other_file_systems(tmp_path: Path, kind: str) -> None:
    """btrfs and xfs share blocks with the version; ext2 has none of the newer things."""
    with _formatted(tmp_path, kind) as place, staged(place / "scene") as scene:
        since = _attacked(scene)
        before = state(scene.tree.root)
        _attack(scene)

        done = scene.restore(since)

        assert {x.outcome for x in done.values()} == {Outcome.DONE}, done
        assert state(scene.tree.root) == before


@root_only
def test_on_an_overlay(tmp_path: Path) -> None:
    with _own_file_system(tmp_path, "64m") as place:
        for name in ("lower", "upper", "work", "merged"):
            (place / name).mkdir()
        options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        mounted = ["mount", "-t", "overlay", "-o", options, "overlay", str(place / "merged")]
        if subprocess.run(mounted, check=False, capture_output=True).returncode:
            pytest.skip("this kernel does not mount an overlay here")
        try:
            with staged(place / "merged" / "scene") as scene:
                since = _attacked(scene)
                before = state(scene.tree.root)
                _attack(scene)

                done = scene.restore(since)

                assert {x.outcome for x in done.values()} == {Outcome.DONE}, done
                assert state(scene.tree.root) == before
        finally:
            subprocess.run(["umount", "-l", str(place / "merged")], check=True)


def test_a_damaged_version_is_never_written(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    since = scene.begin()
    scene.write(b"a.csv", b"garbage", ATTACKER)
    plan = scene.plan(since)
    scene.vault.damage(b"a.csv")

    done = scene.run(plan)

    assert (done[b"a.csv"].outcome, done[b"a.csv"].code) == (Outcome.FAILED, "restore.digest")
    assert (scene.root / "a.csv").read_bytes() == b"garbage"
    assert os.listdir(scene.root) == ["a.csv"]


def test_a_version_that_went_since_the_plan_fails_alone(scene: Scene) -> None:
    for name in (b"a.csv", b"b.csv"):
        scene.create(name, b"data")
    since = scene.begin()
    for name in (b"a.csv", b"b.csv"):
        scene.write(name, b"garbage", ATTACKER)
    plan = scene.plan(since)
    scene.vault.records = [x for x in scene.vault.records if x.path != b"a.csv"]

    done = scene.run(plan)

    assert (done[b"a.csv"].code, done[b"b.csv"].outcome) == ("restore.version", Outcome.DONE)


def test_a_change_between_plan_and_run_is_not_overwritten(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    scene.create(b"b.csv", b"data")
    since = scene.begin()
    scene.write(b"a.csv", b"garbage", ATTACKER)
    scene.delete(b"b.csv", ATTACKER)
    plan = scene.plan(since)
    (scene.root / "a.csv").write_bytes(b"typed in by hand")
    (scene.root / "b.csv").write_bytes(b"typed in by hand")

    done = scene.run(plan)

    assert {x.code for x in done.values()} == {"file.race", "file.exists"}
    assert (scene.root / "a.csv").read_bytes() == (scene.root / "b.csv").read_bytes() == b"typed in by hand"
    assert sorted(os.listdir(scene.root)) == ["a.csv", "b.csv"]


def test_where_what_is_replaced_cannot_be_preserved_it_is_set_aside(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    since = scene.begin()
    scene.write(b"a.csv", b"garbage", ATTACKER)
    scene.vault.full = True

    scene.restore(since)

    assert (scene.root / "a.csv").read_bytes() == b"data"
    assert (scene.root / "a.csv.before-restore").read_bytes() == b"garbage"


def test_a_directory_swapped_for_a_link_leads_nowhere(scene: Scene, tmp_path: Path) -> None:
    scene.make_dir(b"dir")
    scene.create(b"dir/a.csv", b"data")
    since = scene.begin()
    scene.delete(b"dir/a.csv", ATTACKER)
    plan = scene.plan(since)
    outside = tmp_path / "outside"
    outside.mkdir()
    os.rmdir(scene.full(b"dir"))
    (scene.root / "dir").symlink_to(outside)

    done = scene.run(plan)

    assert (done[b"dir/a.csv"].outcome, done[b"dir/a.csv"].code) == (Outcome.FAILED, "file.symlink")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("path", [b"/etc/passwd", b"../a", b"a/../../b", b"", b"a\0b"])
def test_the_core_refuses_a_way_out(scene: Scene, path: bytes) -> None:
    scene.create(b"a.csv", b"data")
    fd = os.open(scene.full(b"a.csv"), os.O_RDONLY)
    item = native.Item(path, How.COPY, Over.NOTHING, b".shieldd-x", native.NOTHING, version_fd=fd)
    (answer,) = native.run(scene.tree.root_fd, [item])
    os.close(fd)
    assert isinstance(answer, ShieldError)
    assert answer.code in ("file.outside", "file.name")
    assert os.listdir(scene.root) == ["a.csv"]


def test_two_runs_at_once_are_refused(scene: Scene) -> None:
    since = _attacked(scene)
    _attack(scene)
    plan = scene.plan(since)
    run = scene.restorer.run(plan, actor=ATTACKER, why="test")
    next(run)
    with pytest.raises(ShieldError) as refused:
        next(scene.restorer.run(plan, actor=ATTACKER, why="test"))
    assert refused.value.code == "restore.busy"
    run.close()
