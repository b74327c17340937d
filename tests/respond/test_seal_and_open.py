"""Sealing on request: grouped, recorded, never half done."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome
from shieldd.respond import GuardedTree, Trees
from shieldd.respond.seal import GROUP

from .conftest import Bench


def test_a_sealed_file_comes_back_and_the_list_follows(bench: Bench) -> None:
    file = bench.root / "report.csv"
    file.write_bytes(b"patient,value\n" * 1000)

    sealed = bench.sealer.seal(bench.tree, b"report.csv", why="exposed", threat_id="t1")

    assert sealed.to == b"report.csv.shield"
    assert not file.exists()
    assert b"patient" not in (bench.root / "report.csv.shield").read_bytes()
    entry = bench.lists.sealed_now[(0, b"report.csv.shield")]
    assert (entry.original, entry.why, entry.threat_id, entry.key_version) == (b"report.csv", "exposed", "t1", 1)
    assert bench.ledger.ended[0].undo.endswith("report.csv.shield")

    opened = bench.sealer.open(bench.tree, b"report.csv.shield", why="asked for")

    assert (opened.to, opened.size) == (b"report.csv", 14_000)
    assert file.read_bytes() == b"patient,value\n" * 1000
    assert bench.lists.sealed_now == {}
    assert [x.kind for x in bench.ledger.intents] == [ActionKind.SEAL, ActionKind.OPEN]


def test_many_files_one_bad_one_does_not_stop_the_others(bench: Bench) -> None:
    names = [b"f%04d" % number for number in range(GROUP + 3)]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(bench.root), name))).write_bytes(name)
    (bench.root / "f0001").unlink()
    os.link(bench.root / "f0002", bench.root / "second-name")

    results = list(bench.sealer.seal_many(bench.tree, names, why="asked for"))

    failed = {x.path: x.code for x in results if x.outcome is Outcome.FAILED}
    assert failed == {b"f0001": "file.missing", b"f0002": "file.hardlinks"}
    assert len(bench.lists.sealed_now) == len(names) - 2
    assert (bench.root / "f0002").read_bytes() == b"f0002"
    assert bench.counted == [GROUP, 3]
    assert len(bench.ledger.intents) == len(bench.ledger.ended) == len(names)


def test_the_watcher_is_told_before_and_not_of_writes(bench: Bench) -> None:
    (bench.root / "a").write_bytes(b"x")
    bench.sealer.seal(bench.tree, b"a", why="x")
    paths = {path for _, path, _ in bench.lists.expected}
    assert paths == {b"a", b"a.shield"}
    write = 1 << 2
    assert all(not kinds & write for _, _, kinds in bench.lists.expected), "a write to it afterwards is somebody else's"


def test_sealing_twice_is_refused(bench: Bench) -> None:
    (bench.root / "a").write_bytes(b"x")
    bench.sealer.seal(bench.tree, b"a", why="x")
    with pytest.raises(ShieldError) as refused:
        bench.sealer.seal(bench.tree, b"a.shield", why="x")
    assert refused.value.code == "envelope.already"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"relative", "file.name"),
        (b"/srv/data/../etc/shadow", "file.name"),
        (b"/srv/data/a\0b", "file.name"),
        (b"/srv/database/x", "file.outside"),
        (b"/etc/shadow", "file.outside"),
        (b"/srv/data", "file.directory"),
        (b"", "file.name"),
    ],
)
def test_paths_outside_the_trees_are_refused(path: bytes, code: str) -> None:
    trees = Trees([GuardedTree(0, b"/srv/data", -1)])
    with pytest.raises(ShieldError) as refused:
        trees.locate(path)
    assert refused.value.code == code


def test_a_path_inside_is_split_and_cleaned() -> None:
    trees = Trees([GuardedTree(0, b"/srv/data", -1), GuardedTree(1, b"/srv/x/", -1)])
    assert trees.locate(b"/srv/data//a/./b")[1] == b"a/b"
    assert trees.locate(b"/srv/x/\xff")[0].index == 1


def test_what_was_announced_is_called_over_even_when_the_act_fails(bench: Bench) -> None:
    (bench.root / "a").write_bytes(b"x")
    os.link(bench.root / "a", bench.root / "b")
    with pytest.raises(ShieldError):
        bench.sealer.seal(bench.tree, b"a", why="x")
    assert sorted(bench.lists.ended) == sorted({path for _, path, _ in bench.lists.expected}) == [b"a", b"a.shield"]


def test_our_own_products_are_made_known(bench: Bench) -> None:
    (bench.root / "a").write_bytes(b"x")
    bench.sealer.seal(bench.tree, b"a", why="x")
    bench.sealer.open(bench.tree, b"a.shield", why="x")
    assert bench.lists.learned == [b"a.shield", b"a"]


def test_nothing_is_done_in_a_tree_whose_name_stands_for_another(bench: Bench) -> None:
    (bench.root / "a").write_bytes(b"x")
    moved = bench.root.with_name("moved")
    bench.root.rename(moved)
    bench.root.mkdir()
    (bench.root / "a").write_bytes(b"y")
    with pytest.raises(ShieldError) as refused:
        bench.sealer.seal(bench.tree, b"a", why="x")
    assert refused.value.code == "watch.gone"
    assert [x.code for x in bench.sealer.seal_many(bench.tree, [b"a"], why="x")] == ["watch.gone"]
    assert (moved / "a").read_bytes() == b"x"
    assert all(x.outcome is Outcome.FAILED for x in bench.ledger.ended)


@pytest.mark.parametrize(
    "name", [b"$(touch pwned).csv", b"a'b\\c;d.csv", b"\xff\x01 x.csv", b"-rf.csv", "\u202etxt".encode()]
)
@pytest.mark.parametrize("many", [False, True])
def test_the_undo_is_safe_to_paste_and_names_the_file_that_there_is(bench: Bench, name: bytes, many: bool) -> None:
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("not installed: bash")
    root = os.fsencode(bench.root)
    for content in (b"first", b"second"):
        with open(os.path.join(root, name), "wb") as file:
            file.write(content)
        if many:
            (result,) = bench.sealer.seal_many(bench.tree, [name], why="test")
        else:
            result = bench.sealer.seal(bench.tree, name, why="test")
    assert result.to == name + b".2.shield"
    undo = bench.ledger.ended[-1].undo
    assert undo.isascii() or undo.isprintable()
    shown = subprocess.run([shell, "-c", f"shieldctl() {{ printf '%s\\0' \"$@\"; }}; {undo}"], capture_output=True)
    assert shown.stdout.split(b"\0") == [b"files", b"open", os.path.join(root, result.to), b""]
    assert not (bench.root / "pwned").exists()


def test_a_decision_to_seal_is_moot_once_the_file_is_open_to_nobody_else(bench: Bench) -> None:
    """A copy that is open to all until its last step gets the mode of what it is a copy of."""
    where = bench.root / "copy.csv"
    where.write_bytes(b"patients")
    where.chmod(0o640)
    bench.sealer.act(bench.tree, b"copy.csv", threat_id="t1", why="exposed", inode=None)
    assert where.read_bytes() == b"patients"
    where.chmod(0o644)
    bench.sealer.act(bench.tree, b"copy.csv", threat_id="t1", why="exposed", inode=None)
    assert not where.exists() and where.with_name("copy.csv.shield").exists()
