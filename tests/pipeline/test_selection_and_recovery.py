"""What a request means, and how acts that a crash cut off are closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shieldd.engine.selection import choose
from shieldd.model.decision import ActionKind, Outcome
from shieldd.model.incident import TakenAction
from shieldd.recovery import _closed
from shieldd.respond import GuardedTree, Trees
from shieldd.store import ActionFilter, SealedRecord, Store


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Trees]:
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    for name in ("a.txt", "d/b.txt", "d/c.txt.shield", "d/canary.pdf"):
        (root / name).write_bytes(b"x")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield Trees([GuardedTree(0, os.fsencode(root), fd)])
    os.close(fd)


def _canary(tree: GuardedTree, path: bytes) -> str:
    return "file.canary" if path.endswith(b"canary.pdf") else ""


def test_a_directory_stands_for_its_plain_files_and_never_for_canaries(trees: Trees) -> None:
    root = trees[0].root
    chosen = [x.path for x in choose(trees, [root], recursive=True, left_out=_canary)]
    assert chosen == [b"a.txt", b"d/b.txt"]
    assert [x.path for x in choose(trees, [root + b"/d"], recursive=True, suffix=b".shield")] == [b"d/c.txt.shield"]
    (named,) = choose(trees, [root + b"/d/canary.pdf"], recursive=False, left_out=_canary)
    assert named.error is not None and named.error.code == "file.canary"


def test_a_link_on_the_way_is_refused_and_a_file_stands_for_itself(trees: Trees, tmp_path: Path) -> None:
    root = trees[0].root
    (tmp_path / "outside" / "hidden").mkdir(parents=True)
    (tmp_path / "outside" / "hidden" / "secret.shield").write_bytes(b"x")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "tree" / "in").symlink_to("d")
    for name in (b"/link/hidden", b"/link", b"/in"):
        for suffix in (None, b".shield"):
            (one,) = choose(trees, [root + name], recursive=True, suffix=suffix)
            assert one.error is not None and one.error.code == "file.symlink", name
    (one,) = choose(trees, [root + b"/nothing"], recursive=True)
    assert one.error is not None and one.error.code == "file.missing"
    os.mkfifo(tmp_path / "tree" / "pipe")
    for name in (b"a.txt", b"pipe"):
        (one,) = choose(trees, [root + b"/" + name], recursive=True)
        assert (one.error, one.path) == (None, name)
    listed = [x.path for x in choose(trees, [root + b"/"], recursive=True, suffix=b".shield")]
    assert listed == [b"d/c.txt.shield"], "a walk goes through no link"


def _act(kind: ActionKind, undo: str, path: bytes = b"a.txt") -> TakenAction:
    return TakenAction("a1", "t1", kind, 0, path, 1, Outcome.PENDING, "why", undo)


def test_an_act_that_was_done_before_the_crash_is_closed_as_done_with_its_undo(tmp_path: Path) -> None:
    trees = Trees([GuardedTree(0, b"/t", -1)])
    with Store(tmp_path / "state" / "shieldd.db", roots=[b"/t"]) as store:
        undo = "shieldctl quarantine restore q1"
        done = _closed(store, trees, {"q1"}, _act(ActionKind.QUARANTINE, undo))
        assert (done.outcome, done.undo) == (Outcome.DONE, undo)
        assert _closed(store, trees, set(), _act(ActionKind.QUARANTINE, undo)).outcome is Outcome.FAILED
        seal = _act(ActionKind.SEAL, "")
        assert _closed(store, trees, set(), seal).outcome is Outcome.FAILED
        whole = SealedRecord(0, b"a.txt.shield", b"a.txt", 1, 0, "why", "", b"f" * 16, b"k" * 16, 1, b"d" * 32)
        store.files.upsert([whole])
        assert _closed(store, trees, set(), seal).outcome is Outcome.FAILED, "that one was sealed before the act began"
        store.files.upsert([replace(whole, path=b"a.txt.2.shield", sealed_at_ns=1)])
        done = _closed(store, trees, set(), seal)
        assert (done.outcome, done.undo) == (Outcome.DONE, "shieldctl files open /t/a.txt.2.shield")
        assert store.actions(ActionFilter()).items == ()
