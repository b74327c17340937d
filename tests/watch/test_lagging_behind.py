"""Directories change faster than the queue is read: none of them is lost from sight, and each is told where it is."""

from __future__ import annotations

import pytest

from shieldd.model.event import Kind

from .conftest import Seen, Watch

TIMES = 200


def _written(seen: list[Seen], name: bytes) -> set[tuple[int, bytes]]:
    return {(s.tree, s.path) for s in seen if s.path.endswith(name) and Kind.WRITE in s.ops}


def test_a_directory_whose_parents_are_renamed_before_it_can_be_opened(watch: Watch) -> None:
    w = watch(before=lambda root: [(root / f"a{i}" / "b").mkdir(parents=True) for i in range(TIMES)], inspect=False)
    for i in range(TIMES):
        (w.root / f"a{i}" / "b" / "new").mkdir()
        (w.root / f"a{i}").rename(w.root / f"z{i}")
    w.settle()
    for i in range(TIMES):
        (w.root / f"z{i}" / "b" / "new" / "late").write_bytes(b"x")
    assert _written(w.settle(), b"late") == {(0, b"z%d/b/new/late" % i) for i in range(TIMES)}
    assert w.source.status().directories == 1 + 3 * TIMES


def test_a_name_that_another_directory_takes_before_the_first_is_opened(watch: Watch) -> None:
    w = watch(before=lambda root: (root / "a").mkdir(), inspect=False)
    for i in range(TIMES):
        (w.root / "a" / "new").mkdir()
        (w.root / "a").rename(w.root / f"z{i}")
        (w.root / "a").mkdir()
    (w.root / "a" / "new").mkdir()
    w.settle()
    for i in range(TIMES):
        (w.root / f"z{i}" / "new" / "late").write_bytes(b"x")
    (w.root / "a" / "new" / "late").write_bytes(b"x")
    expected = {(0, b"z%d/new/late" % i) for i in range(TIMES)} | {(0, b"a/new/late")}
    assert _written(w.until(lambda seen: expected <= _written(seen, b"late")), b"late") == expected
    w.until(lambda _: w.source.status().blind_since_ns is None)  # where names were mixed up, all is compared anew


@pytest.mark.parametrize("across", [False, True], ids=["same tree", "another tree"])
def test_a_directory_moved_into_a_new_one_before_that_is_watched(watch: Watch, across: bool) -> None:
    w = watch("one", "two", inspect=False)
    for i in range(TIMES):
        (w.roots[0] / f"d{i}" / "deep").mkdir(parents=True)
        (w.roots[0] / f"d{i}" / "deep" / "early").write_bytes(b"x")
    w.settle()
    there = w.roots[1] if across else w.roots[0]
    for i in range(TIMES):
        (there / f"n{i}" / "m").mkdir(parents=True)
        (w.roots[0] / f"d{i}").rename(there / f"n{i}" / "m" / "d")
        (there / f"n{i}" / "m" / "d" / "deep" / "early").unlink()
    seen = w.settle()
    gone = {(s.tree, s.path) for s in seen if s.kind in (Kind.DELETE, Kind.REMOVE_DIR)}
    for i in range(TIMES):
        (there / f"n{i}" / "m" / "d" / "deep" / "late").write_bytes(b"x")
    assert _written(w.settle(), b"late") == {(int(across), b"n%d/m/d/deep/late" % i) for i in range(TIMES)}
    for i in range(TIMES):  # its end is told under its name, old or new, or with the directory that left the tree
        new = (int(across), b"n%d/m/d/deep/early" % i)
        assert gone & {new, (0, b"d%d/deep/early" % i), (0, b"d%d" % i)}, i
