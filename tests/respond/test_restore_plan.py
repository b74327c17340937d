"""What a plan says of each file: what is there, what comes back, what stands against it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from shieldd.model.decision import Outcome
from shieldd.model.event import Kind
from shieldd.model.restore import Act, Conflict, Found
from shieldd.model.version import Keep
from tests.respond.restoring import ATTACKER, USER, Scene, garbled, scene, state

__all__ = ["scene"]
ODD = [b"plain.csv", b"two\nlines", b"\x1b[31mred", b"\xff\xfe", b"x" * 250, b"a b", b"-rf"]
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make another owner's file")


@pytest.mark.parametrize("name", ODD, ids=repr)
@pytest.mark.parametrize("attack", ["write", "delete", "rename", "write-rename", "encrypt", "replace"])
def test_every_attack_on_every_name_comes_back(scene: Scene, name: bytes, attack: str) -> None:
    name = name[:200]
    scene.create(name, b"patient data " * 50)
    os.setxattr(scene.full(name), b"user.study", b"A-17")
    scene.chmod(name, 0o640)
    scene.vault.clear()
    scene.vault.add(name, Keep.LINK, at_ns=scene.now_ns)
    before = state(scene.tree.root)
    since = scene.begin()
    match attack:
        case "write":
            scene.write(name, garbled(b"patient data"), ATTACKER)
        case "delete":
            scene.delete(name, ATTACKER)
        case "rename":
            scene.rename(name, name + b".locked", ATTACKER)
        case "write-rename":
            scene.write(name, b"garbage", ATTACKER)
            scene.rename(name, name + b".locked", ATTACKER)
        case "encrypt":
            scene.encrypt(name)
        case "replace":
            scene.create(b"tmp", b"garbage", ATTACKER)
            scene.rename(b"tmp", name, ATTACKER)

    done = scene.restore(since)

    assert {x.outcome for x in done.values()} == {Outcome.DONE}, done
    assert state(scene.tree.root) == before
    if attack in ("encrypt", "write-rename"):
        assert len(list(scene.quarantine.objects())) == 1
    if attack in ("write", "replace"):
        assert scene.vault.kept == [name]


@root_only
@pytest.mark.parametrize("attack", ["write", "delete", "replace"])
def test_owner_access_list_and_privileges_come_back(scene: Scene, attack: str) -> None:
    scene.create(b"a.csv", b"data")
    path = scene.full(b"a.csv")
    os.chown(path, 4711, 4712)
    entries = [(1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 6, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(path, b"system.posix_acl_access", acl)
    os.setxattr(path, b"trusted.label", b"phi")
    os.chmod(path, 0o2660)
    scene.vault.clear()
    scene.vault.add(b"a.csv", Keep.LINK, at_ns=scene.now_ns)
    before = state(scene.tree.root)
    assert len(before[b"a.csv"].xattrs) == 2
    since = scene.begin()
    match attack:
        case "write":
            scene.write(b"a.csv", b"garbage", ATTACKER)
        case "delete":
            scene.delete(b"a.csv", ATTACKER)
        case "replace":
            scene.create(b"tmp", b"garbage", ATTACKER)
            scene.rename(b"tmp", b"a.csv", ATTACKER)

    scene.restore(since)

    assert state(scene.tree.root) == before


def test_a_note_goes_to_quarantine_and_a_lost_file_is_told_of(scene: Scene) -> None:
    scene.create(b"kept.csv", b"data")
    scene.create(b"never.csv", b"data", preserve=False)
    since = scene.begin()
    scene.write(b"never.csv", b"garbage", ATTACKER, preserve=False)
    scene.delete(b"kept.csv", ATTACKER)
    scene.create(b"README.txt", b"pay", ATTACKER)

    plan = scene.plan(since)
    steps = scene.steps(plan)

    assert plan.attributed
    assert (steps[b"never.csv"].lost, steps[b"never.csv"].act) == (True, Act.NOTHING)
    assert steps[b"README.txt"].act is Act.QUARANTINE
    assert steps[b"kept.csv"].act is Act.LINK
    done = scene.run(plan)
    assert done[b"never.csv"].outcome is Outcome.SKIPPED
    assert Path(os.fsdecode(scene.full(b"never.csv"))).read_bytes() == b"garbage"
    (held,) = scene.quarantine.objects()
    assert done[b"README.txt"].reason == f"shieldctl quarantine restore {held}"
    assert sorted(os.listdir(scene.root)) == ["kept.csv", "never.csv"]


def _replaced_by(scene: Scene, what: str) -> None:
    """Somebody else puts something under the name of a file that the attacker deleted."""
    place = scene.full(b"dir/a.csv")
    match what:
        case "file":
            scene.create(b"dir/a.csv", b"typed in again by hand")
        case "owner":
            scene.create(b"dir/a.csv", b"another's")
            os.chown(place, 4711, 4711)
        case "link":
            os.symlink("/etc/passwd", place)
        case "directory":
            scene.make_dir(b"dir/a.csv")
            scene.create(b"dir/a.csv/inside", b"kept")
        case "fifo":
            os.mkfifo(place)
        case "sealed":
            scene.create(b"dir/a.csv.shield", b"sealed")
            scene.lists.sealed_now.clear()


@pytest.mark.parametrize(
    ("what", "conflict"),
    [
        ("file", Conflict.CHANGED_SINCE),
        pytest.param("owner", Conflict.OTHER_OWNER, marks=root_only),
        ("link", Conflict.OTHER_TYPE),
        ("directory", Conflict.OTHER_TYPE),
        ("fifo", Conflict.OTHER_TYPE),
    ],
)
def test_what_somebody_else_put_there_stays_unless_it_is_named(scene: Scene, what: str, conflict: Conflict) -> None:
    scene.make_dir(b"dir")
    scene.create(b"dir/a.csv", b"data")
    since = scene.begin()
    scene.delete(b"dir/a.csv", ATTACKER)
    _replaced_by(scene, what)
    place = scene.full(b"dir/a.csv")
    there = os.lstat(place)

    plan = scene.plan(since)
    step = scene.steps(plan)[b"dir/a.csv"]
    assert step.conflict is conflict
    told = scene.run(plan)[b"dir/a.csv"]
    assert told.outcome is Outcome.SKIPPED
    assert conflict.value in told.reason
    assert os.lstat(place).st_ino == there.st_ino

    taken = scene.restore(since, b"dir/a.csv")[b"dir/a.csv"]
    assert taken.outcome is Outcome.DONE, taken
    assert "a.csv.before-restore" in taken.reason
    assert Path(os.fsdecode(place)).read_bytes() == b"data"
    aside = os.lstat(place + b".before-restore")
    assert aside.st_ino == there.st_ino
    assert sorted(os.listdir(os.path.dirname(place))) == [b"a.csv", b"a.csv.before-restore"]


def test_what_is_set_aside_never_takes_a_name_that_is_used(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    scene.create(b"a.csv.before-restore", b"of last week")
    since = scene.begin()
    scene.delete(b"a.csv", ATTACKER)
    scene.create(b"a.csv", b"by hand")

    scene.restore(since, b"a.csv")

    names = {name: (scene.root / name).read_bytes() for name in os.listdir(scene.root)}
    assert names == {
        "a.csv": b"data",
        "a.csv.before-restore": b"of last week",
        "a.csv.before-restore.1": b"by hand",
    }


def test_a_sealed_form_beside_it_is_told_of(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    since = scene.begin()
    scene.delete(b"a.csv", ATTACKER)
    (scene.root / "a.csv.shield").write_bytes(b"sealed by the daemon itself, which no event tells of")

    assert scene.steps(scene.plan(since))[b"a.csv"].conflict is Conflict.SEALED
    scene.restore(since)
    assert not (scene.root / "a.csv").exists()
    scene.restore(since, b"a.csv")
    assert (scene.root / "a.csv").read_bytes() == b"data"


def test_a_change_in_the_middle_by_somebody_else_is_told_of(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    since = scene.begin()
    scene.write(b"a.csv", b"garbage", ATTACKER)
    scene.write(b"a.csv", b"repaired by hand", USER)
    scene.write(b"a.csv", b"garbage again", ATTACKER)

    step = scene.steps(scene.plan(since))[b"a.csv"]
    assert step.conflict is Conflict.CHANGED_SINCE


def test_what_nobody_is_named_for_during_an_attack_comes_back_too(scene: Scene) -> None:
    """mv(1) for one file can be gone before the kernel's word of it is read."""
    unnamed = scene.tree.index + 1
    for name in (b"a.csv", b"b.csv", b"c.csv", b"later.csv"):
        scene.create(name, b"data")
    since = scene.begin()
    scene.write(b"a.csv", b"garbage", ATTACKER)
    scene.record(Kind.WRITE, b"a.csv", unnamed)
    scene.create(b".r", b"garbage", unnamed, preserve=False)
    scene.rename(b".r", b"b.csv", unnamed)
    scene.delete(b"c.csv", unnamed)
    scene.create(b"somebodys.csv", b"new", unnamed, preserve=False)
    scene.write(b"a.csv", b"garbage", ATTACKER)
    incident = scene.incident(since)
    scene.write(b"later.csv", b"after the attack", unnamed)

    scene.store.flush()
    steps = scene.steps(scene.restorer.plan(incident))
    assert {name: (steps[name].conflict, steps[name].lost) for name in (b"a.csv", b"b.csv", b"c.csv")} == dict.fromkeys(
        (b"a.csv", b"b.csv", b"c.csv"), (Conflict.NONE, False)
    )
    assert "nobody is named" in steps[b"b.csv"].text and "nobody is named" not in steps[b"a.csv"].text
    assert not steps.keys() & {b"somebodys.csv", b"later.csv"}, "what came may be anybody's, and so is what came later"
    assert not any(step.lost for step in steps.values())


def test_what_came_back_is_not_taken_away_by_the_restore_of_another_incident(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    since = scene.begin()
    scene.create(b".r", b"garbage", ATTACKER)
    scene.rename(b".r", b"a.csv", ATTACKER)
    for turn in range(2):
        done = scene.restore(since)
        assert scene.full(b"a.csv") and (scene.root / "a.csv").read_bytes() == b"data", turn
        assert done[b"a.csv"].act is (Act.NOTHING if turn else Act.LINK)


@pytest.mark.parametrize("way", ["link", "file", "outside"])
def test_a_way_through_a_link_is_never_gone(scene: Scene, tmp_path: Path, way: str) -> None:
    scene.make_dir(b"dir")
    scene.create(b"dir/a.csv", b"data")
    since = scene.begin()
    scene.delete(b"dir/a.csv", ATTACKER)
    os.rmdir(scene.full(b"dir"))
    outside = tmp_path / "outside"
    outside.mkdir()
    if way == "file":
        (scene.root / "dir").write_bytes(b"a file now")
    elif way == "link":
        (scene.root / "real").mkdir()
        (scene.root / "dir").symlink_to("real")
    else:
        (scene.root / "dir").symlink_to(outside)

    plan = scene.plan(since)
    step = scene.steps(plan)[b"dir/a.csv"]
    assert (step.found, step.conflict) == (Found.WAY, Conflict.WAY)
    assert scene.run(plan, b"dir/a.csv")[b"dir/a.csv"].outcome is Outcome.SKIPPED
    assert list(outside.iterdir()) == []


def test_directories_that_are_gone_are_made_again(scene: Scene) -> None:
    scene.make_dir(b"study")
    scene.make_dir(b"study/one")
    scene.make_dir(b"study/empty")
    scene.create(b"study/one/a.csv", b"data")
    scene.create(b"study/b.csv", b"more")
    before = state(scene.tree.root)
    since = scene.begin()
    scene.remove_tree(b"study")

    scene.restore(since)

    assert state(scene.tree.root) == before
    assert (scene.root / "study" / "empty").is_dir()


def test_a_renamed_directory_gets_its_name_back_with_what_is_in_it(scene: Scene) -> None:
    scene.make_dir(b"study")
    for name in (b"a.csv", b"b.csv", b"c.csv"):
        scene.create(b"study/" + name, name)
    before = state(scene.tree.root)
    since = scene.begin()
    scene.rename(b"study", b"locked", ATTACKER)
    scene.write(b"locked/a.csv", b"garbage", ATTACKER)
    scene.encrypt(b"locked/b.csv")

    done = scene.restore(since)

    assert {x.outcome for x in done.values()} == {Outcome.DONE}, done
    assert state(scene.tree.root) == before


def test_hard_links_are_one_file_again(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    os.link(scene.full(b"a.csv"), scene.full(b"b.csv"))
    os.link(scene.full(b"a.csv"), scene.full(b"untouched.csv"))
    scene.vault.clear()
    before = state(scene.tree.root)
    since = scene.begin()
    scene.write(b"a.csv", b"garbage", ATTACKER)
    scene.write(b"b.csv", b"garbage twice", ATTACKER)

    done = scene.restore(since)

    assert {x.outcome for x in done.values()} == {Outcome.DONE}, done
    assert state(scene.tree.root) == before


def test_only_owner_and_mode_come_back_where_only_they_were_touched(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    scene.vault.clear()
    scene.vault.add(b"a.csv", Keep.IMAGE, at_ns=scene.now_ns)
    before = state(scene.tree.root)
    ino = os.stat(scene.full(b"a.csv")).st_ino
    since = scene.begin()
    scene.chmod(b"a.csv", 0o777, ATTACKER)

    done = scene.restore(since)

    assert done[b"a.csv"].act is Act.DRESS
    assert os.stat(scene.full(b"a.csv")).st_ino == ino
    assert state(scene.tree.root) == before


def test_a_write_that_no_event_tells_of_is_known_from_its_copy(scene: Scene) -> None:
    for name in (b"a.csv", b"b.csv"):
        scene.create(name, b"data")
    since = scene.begin()
    at = scene.tick()
    for name in (b"a.csv", b"b.csv"):
        scene.vault.add(name, Keep.IMAGE, actor=ATTACKER, at_ns=at)
    (scene.root / "a.csv").write_bytes(b"garbage")
    os.utime(scene.full(b"a.csv"), ns=(at, at))

    done = scene.restore(since)

    assert (done[b"a.csv"].outcome, done[b"b.csv"].found) == (Outcome.DONE, Found.SAME)
    assert (scene.root / "a.csv").read_bytes() == b"data"


def test_a_write_that_only_the_rename_after_it_tells_of_is_known_from_its_copy(scene: Scene) -> None:
    """The kernel merges both into one event, told after them; the time in the inode is a tick behind."""
    scene.create(b"a.csv", b"data")
    since = scene.begin()
    at = scene.tick()
    scene.vault.add(b"a.csv", Keep.IMAGE, actor=ATTACKER, at_ns=at)
    (scene.root / "a.csv").write_bytes(b"gone")
    os.utime(scene.full(b"a.csv"), ns=(at - 3_000_000, at - 3_000_000))
    scene.rename(b"a.csv", b"a.csv.locked", ATTACKER)

    done = scene.restore(since)

    assert done[b"a.csv"].outcome is Outcome.DONE
    assert (scene.root / "a.csv").read_bytes() == b"data"


def test_what_is_as_it_was_is_left_alone(scene: Scene) -> None:
    scene.create(b"a.csv", b"data")
    scene.vault.add(b"a.csv", Keep.IMAGE, at_ns=scene.now_ns)
    since = scene.begin()
    scene.chmod(b"a.csv", 0o644, ATTACKER)

    step = scene.restore(since)[b"a.csv"]

    assert (step.found, step.act, step.outcome) == (Found.SAME, Act.NOTHING, Outcome.SKIPPED)


def test_what_others_wrote_before_the_attack_comes_back_not_what_was_before_that(scene: Scene) -> None:
    """The copy that a colleague's edit left is newer than the link, but the link has the edit."""
    scene.create(b"a.csv", b"first")
    scene.write(b"a.csv", b"second", USER)
    since = scene.begin()
    scene.delete(b"a.csv", ATTACKER)

    scene.restore(since)

    assert (scene.root / "a.csv").read_bytes() == b"second"


def test_a_name_that_stood_for_nothing_before_is_the_actors(scene: Scene) -> None:
    """There is a version, of a file that its owner deleted long before."""
    scene.create(b"old.csv", b"of last year")
    scene.delete(b"old.csv", USER)
    scene.create(b"elsewhere", b"x")
    since = scene.begin()
    scene.create(b"old.csv", b"planted", ATTACKER)

    done = scene.restore(since)

    assert done[b"old.csv"].act is Act.QUARANTINE
    assert not (scene.root / "old.csv").exists()


def test_without_a_named_actor_only_the_incidents_own_time_counts(scene: Scene) -> None:
    tree = 1  # the key that stands for the tree itself
    scene.create(b"a.csv", b"data", tree)
    scene.create(b"b.csv", b"data", tree)
    since = scene.begin()
    scene.write(b"a.csv", b"garbage", tree)
    scene.tick()
    ended = scene.now_ns
    scene.tick()
    scene.write(b"b.csv", b"work of the day after", tree)
    scene.store.flush()
    incident = scene.incident(since, tree)
    from dataclasses import replace

    plan = scene.restorer.plan(replace(incident, contained_at_ns=ended))

    assert not plan.attributed
    assert list(scene.steps(plan)) == [b"a.csv"]


def test_a_sparse_file_stays_sparse(scene: Scene) -> None:
    scene.create(b"big.img", b"")
    with open(scene.full(b"big.img"), "r+b") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"island" * 1000)
    scene.vault.clear()
    blocks = os.stat(scene.full(b"big.img")).st_blocks
    before = state(scene.tree.root)
    since = scene.begin()
    scene.write(b"big.img", b"garbage", ATTACKER)

    scene.restore(since)

    assert state(scene.tree.root) == before
    assert os.stat(scene.full(b"big.img")).st_blocks <= blocks + 256
