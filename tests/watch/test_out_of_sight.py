"""What leaves the tree, comes back, is cut short, or gets another name from above: nothing of it is missed."""

from __future__ import annotations

import os
from pathlib import Path

from shieldd.model.event import EventFlag, FactFlag, Kind
from shieldd.native.observe import Baseline
from shieldd.watch import Tree
from shieldd.watch.native_source import NativeSource

from .conftest import DEADLINE_S, Seen, Watch


def _filled(root: Path) -> None:
    (root / "ward" / "deep").mkdir(parents=True)
    (root / "ward" / "a").write_bytes(b"1")
    (root / "ward" / "deep" / "b").write_bytes(b"2")


def _kinds(seen: list[Seen], path: bytes) -> list[Kind]:
    return [s.kind for s in seen if s.path == path]


def test_a_directory_that_left_and_came_back_is_watched_on(watch: Watch, tmp_path: Path) -> None:
    w = watch(before=_filled)
    outside = tmp_path / "outside"
    os.rename(w.root / "ward", outside)
    os.rename(outside, w.root / "ward")
    w.settle()
    (w.root / "ward" / "deep" / "b").write_bytes(b"changed")
    (w.root / "ward" / "new").write_bytes(b"3")
    seen = w.settle()
    assert Kind.WRITE in {k for s in seen if s.path == b"ward/deep/b" for k in s.ops}
    assert b"ward/new" in {s.path for s in seen}
    assert Kind.REMOVE_DIR in _kinds(seen, b"ward") and Kind.MAKE_DIR in _kinds(seen, b"ward")


def test_a_file_that_left_and_one_that_took_its_name_end_as_they_are(watch: Watch, tmp_path: Path) -> None:
    w = watch(before=lambda root: (root / "f").write_bytes(b"old"))
    os.rename(w.root / "f", tmp_path / "f")
    (w.root / "f").write_bytes(b"new")
    seen = w.settle()
    assert _kinds(seen, b"f")[-1] is not Kind.DELETE


def test_removing_a_directory_tells_each_file_once(watch: Watch) -> None:
    w = watch(before=_filled)
    for path in ("ward/a", "ward/deep/b"):
        (w.root / path).unlink()
    (w.root / "ward" / "deep").rmdir()
    (w.root / "ward").rmdir()
    seen = w.settle()
    assert _kinds(seen, b"ward/a") == [Kind.DELETE] and _kinds(seen, b"ward/deep/b") == [Kind.DELETE]


def _source(root: Path) -> NativeSource:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        source = NativeSource([Tree(os.fsencode(root), fd)], baseline=Baseline(64))
    finally:
        os.close(fd)
    source.start()
    return source


def _until(source: NativeSource, path: bytes, kind: Kind, flags: EventFlag) -> int:
    """Flags of the facts of the first event of this kind on a path, all of whose own flags are `flags`."""
    for _ in range(int(DEADLINE_S / 0.1)):
        batch = source.next_batch(0.1)
        for row in range(len(batch) if batch is not None else 0):
            assert batch is not None
            event = batch.events[row]
            if batch.path(row) == path and event["kind"] == kind and event["flags"] == flags:
                return int(batch.facts[row]["flags"])
    raise AssertionError("no such event")


def test_a_file_below_a_renamed_directory_is_still_known(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    source = _source(tmp_path)
    try:
        (tmp_path / "ward" / "f").write_bytes(b"x" * 5000)
        _until(source, b"ward/f", Kind.CREATE, EventFlag(0))
        (tmp_path / "ward").rename(tmp_path / "wing")
        (tmp_path / "wing").rename(tmp_path / "hall")
        _until(source, b"hall", Kind.RENAME_DIR, EventFlag(0))
        (tmp_path / "hall" / "f").write_bytes(b"y" * 5000)
        assert _until(source, b"hall/f", Kind.WRITE, EventFlag(0)) & FactFlag.KNOWN_BEFORE
    finally:
        source.stop()


def test_a_file_cut_by_name_is_looked_at_although_nobody_closes_it(tmp_path: Path) -> None:
    source = _source(tmp_path)
    try:
        (tmp_path / "f").write_bytes(b"x" * 5000)
        _until(source, b"f", Kind.CREATE, EventFlag(0))
        os.truncate(tmp_path / "f", 0)
        _until(source, b"f", Kind.WRITE, EventFlag.OPEN)
        assert _until(source, b"f", Kind.WRITE, EventFlag(0)) & FactFlag.KNOWN_BEFORE
    finally:
        source.stop()
