"""The contract of a source, on every source that watches."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from shieldd.errors import ShieldError
from shieldd.model.event import EventFlag, Kind
from shieldd.native.files import hidden_name
from shieldd.native.observe import schema

from .conftest import Seen, Watch


def of(seen: list[Seen], path: bytes) -> list[Seen]:
    """Events of a path."""
    return [s for s in seen if s.path == path]


def test_a_written_file_is_one_event_with_facts_and_an_observation(watch: Watch) -> None:
    w = watch()
    (w.root / "a.txt").write_bytes(b"x" * 1000)
    batch = None
    while batch is None:
        batch = w.source.next_batch(1)
    assert len(batch) == 1
    assert batch.path(0) == b"a.txt"
    assert batch.old_path(0) is None
    event = batch.events[0]
    assert event["kind"] == Kind.CREATE
    assert int(event["ops"]) == 1 << Kind.CREATE | 1 << Kind.WRITE
    assert event["ino"] == (w.root / "a.txt").stat().st_ino
    assert event["uid"] == os.getuid()
    assert event["merged"] >= 3
    assert event["seq"] == 1
    assert batch.facts[0]["size"] == 1000
    assert batch.observations.shape == (1, schema().width)
    assert batch.observations.dtype == np.float32
    assert np.isfinite(batch.observations).all()


def test_what_was_there_before_is_not_reported(watch: Watch) -> None:
    w = watch(before=lambda root: (root / "old").write_bytes(b"old"))
    (w.root / "new").write_bytes(b"new")
    assert {s.path for s in w.settle()} == {b"new"}


def test_numbers_have_no_gaps_and_time_does_not_run_back(watch: Watch) -> None:
    w = watch()
    for i in range(300):
        (w.root / f"f{i}").write_bytes(b"x")
    w.settle()
    assert [s.seq for s in w.seen] == list(range(1, len(w.seen) + 1))


def test_delete_attributes_and_links(watch: Watch) -> None:
    def before(root: Path) -> None:
        (root / "gone").write_bytes(b"1")
        (root / "mode").write_bytes(b"2")

    w = watch(before=before)
    (w.root / "gone").unlink()
    (w.root / "mode").chmod(0o604)
    os.link(w.root / "mode", w.root / "second")
    seen = w.settle()
    assert [s.kind for s in of(seen, b"gone")] == [Kind.DELETE]
    assert [s.kind for s in of(seen, b"mode")] == [Kind.ATTRIB]
    assert [s.kind for s in of(seen, b"second")] == [Kind.CREATE]


def test_a_rename_has_both_names(watch: Watch) -> None:
    def before(root: Path) -> None:
        (root / "a").write_bytes(b"1")
        (root / "target").write_bytes(b"2")

    w = watch(before=before)
    (w.root / "a").rename(w.root / "b")
    (w.root / "b").rename(w.root / "target")
    seen = w.settle()
    assert {s.kind for s in seen} == {Kind.RENAME}
    assert (seen[0].old, seen[-1].path) == (b"a", b"target")
    assert seen[-1].flags & EventFlag.OVER


def test_a_file_written_beside_and_moved_over_ends_as_the_new_one(watch: Watch) -> None:
    w = watch(before=lambda root: (root / "doc").write_bytes(b"old"))
    for i in range(20):
        (w.root / "doc.tmp").write_bytes(b"new" * i)
        (w.root / "doc").unlink()
        (w.root / "doc.tmp").rename(w.root / "doc")
    seen = w.settle()
    names: set[bytes] = {b"doc"}
    for s in seen:  # reading in order gives the true end state
        if s.kind is Kind.DELETE:
            names.discard(s.path)
        elif s.kind is Kind.RENAME:
            assert s.old is not None
            names.discard(s.old)
            names.add(s.path)
        elif s.kind is Kind.CREATE:
            names.add(s.path)
    assert names == {b"doc"}


def test_moved_in_out_and_across_trees(watch: Watch, tmp_path: Path) -> None:
    def before(root: Path) -> None:
        if root.name == "one":
            (root / "out").write_bytes(b"1")
            (root / "across").write_bytes(b"2")

    w = watch("one", "two", before=before)
    (tmp_path / "in").write_bytes(b"3")
    (tmp_path / "in").rename(w.roots[1] / "in")
    (w.roots[0] / "out").rename(tmp_path / "out")
    (w.roots[0] / "across").rename(w.roots[1] / "across")
    seen = w.settle()
    assert {(s.tree, s.kind, s.path) for s in seen} == {
        (1, Kind.CREATE, b"in"),
        (0, Kind.DELETE, b"out"),
        (0, Kind.DELETE, b"across"),
        (1, Kind.CREATE, b"across"),
    }


def test_directories_are_followed_through_renames(watch: Watch, tmp_path: Path) -> None:
    w = watch(before=lambda root: (root / "a" / "b").mkdir(parents=True))
    (w.root / "a").rename(w.root / "z")
    (w.root / "z" / "b" / "f").write_bytes(b"x")
    seen = w.settle()
    assert [(s.kind, s.old, s.path) for s in seen if s.kind is Kind.RENAME_DIR] == [(Kind.RENAME_DIR, b"a", b"z")]
    assert of(seen, b"z/b/f")
    (w.root / "z").rename(tmp_path / "outside")
    (tmp_path / "outside" / "b" / "g").write_bytes(b"x")
    w.settle()
    (tmp_path / "outside" / "b" / "h").write_bytes(b"x")
    seen = w.settle()
    assert Kind.REMOVE_DIR in {s.kind for s in of(seen, b"z")}
    assert not of(seen, b"z/b/h")
    assert w.source.status().directories == 1


def test_a_directory_moved_in_is_reported_with_all_that_is_in_it(watch: Watch, tmp_path: Path) -> None:
    w = watch()
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").write_bytes(b"x")
    (tmp_path / "d").rename(w.root / "d")
    seen = w.settle()
    assert {(s.kind, s.path) for s in seen} == {
        (Kind.MAKE_DIR, b"d"),
        (Kind.MAKE_DIR, b"d/e"),
        (Kind.CREATE, b"d/e/f"),
    }
    (w.root / "d" / "e" / "f").write_bytes(b"yy")
    assert [s.kind for s in of(w.settle(), b"d/e/f")] == [Kind.CREATE, Kind.WRITE]


def test_files_in_directories_made_a_moment_before_are_all_seen(watch: Watch) -> None:
    w = watch(inspect=False)
    for i in range(300):
        deep = w.root / f"t{i}" / "a" / "b" / "c" / "d"
        deep.mkdir(parents=True)
        (deep / "file").write_bytes(b"x")
    seen = w.settle()
    files = [s.path for s in seen if s.kind is Kind.CREATE]
    assert len(files) == len(set(files)) == 300
    made = [s.path for s in seen if s.kind is Kind.MAKE_DIR]
    assert len(made) == len(set(made)) == 1500


@pytest.mark.parametrize(
    "name", [b"two\nlines", b"\xff\xfe\x01", b"x" * 255, b" ", b"\\", "\u202egnp.exe".encode(), b"-rf"]
)
def test_names_are_bytes(watch: Watch, name: bytes) -> None:
    w = watch()
    path = os.path.join(os.fsencode(w.root), name)
    with open(path, "wb") as file:
        file.write(b"x")
    os.rename(path, path[:-1] + b"!")
    os.mkdir(path)
    with open(os.path.join(path, name), "wb") as file:
        file.write(b"x")
    paths = {s.path for s in w.settle()}
    assert {name[:-1] + b"!", name, name + b"/" + name} <= paths


def test_special_files_are_flagged_and_never_opened(watch: Watch) -> None:
    w = watch()
    os.mkfifo(w.root / "fifo")
    (w.root / "link").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(os.fspath(w.root / "socket"))
    seen = {s.path: s for s in w.settle()}
    for name in (b"fifo", b"link", b"socket"):
        assert seen[name].flags & EventFlag.SPECIAL
        assert not seen[name].looked


def test_excluded_names_and_our_own_are_not_reported(watch: Watch) -> None:
    w = watch(exclude=(b"*.tmp", b"cache/", b"/top/deep"))
    for directory in ("cache", "top/deep", "top/x/cache"):
        (w.root / directory).mkdir(parents=True)
        (w.root / directory / "f").write_bytes(b"x")
    (w.root / "a.tmp").write_bytes(b"x")
    own = os.fsdecode(hidden_name())
    (w.root / own).write_bytes(b"x")
    (w.root / "a.tmp").rename(w.root / "kept")
    (w.root / own).rename(w.root / "sealed.shield")
    (w.root / "kept").rename(w.root / "b.tmp")
    paths = {(s.kind, s.path) for s in w.settle()}
    assert {p for _, p in paths} == {b"top", b"top/x", b"kept", b"sealed.shield"}
    assert (Kind.CREATE, b"sealed.shield") in paths
    assert (Kind.DELETE, b"kept") in paths
    assert w.source.status().directories == 3


def test_announced_operations_are_dropped_and_others_are_not(watch: Watch) -> None:
    w = watch(before=lambda root: (root / "doc").write_bytes(b"x"))
    w.source.expect(0, b"doc", 1 << Kind.DELETE)
    w.source.expect(0, b"doc.shield", 1 << Kind.CREATE | 1 << Kind.RENAME | 1 << Kind.WRITE | 1 << Kind.ATTRIB)
    own = os.fsdecode(hidden_name())
    (w.root / own).write_bytes(b"sealed")
    (w.root / own).rename(w.root / "doc.shield")
    (w.root / "doc.shield").chmod(0o600)
    (w.root / "doc").unlink()
    assert w.settle() == []
    assert w.source.status().own >= 2
    (w.root / "doc").write_bytes(b"again")
    (w.root / "doc").unlink()
    (w.root / "doc.shield").unlink()
    paths = [s.path for s in w.settle()]
    assert b"doc" in paths
    assert b"doc.shield" in paths


def test_a_name_that_only_looks_like_ours_hides_nothing(watch: Watch) -> None:
    w = watch(before=lambda root: (root / "doc").write_bytes(b"x"))
    (w.root / ".shieldd-payload").write_bytes(b"x")
    (w.root / ".shieldd-dir").mkdir()
    (w.root / ".shieldd-dir" / "inside").write_bytes(b"x")
    (w.root / "doc").rename(w.root / (".shieldd-" + "0" * 24))
    seen = {(s.kind, s.path) for s in w.settle()}
    assert (Kind.CREATE, b".shieldd-payload") in seen
    assert (Kind.CREATE, b".shieldd-dir/inside") in seen
    assert (Kind.RENAME, b".shieldd-" + b"0" * 24) in seen


def test_what_was_announced_is_over_when_the_act_is(watch: Watch) -> None:
    w = watch(before=lambda root: (root / "doc").write_bytes(b"x"))
    w.source.expect(0, b"doc", 1 << Kind.DELETE | 1 << Kind.ATTRIB, ttl_s=60)
    w.source.expect(0, b"doc", 0, count=0, ttl_s=0.0)
    (w.root / "doc").chmod(0o666)
    (w.root / "doc").unlink()
    assert [s.kind for s in w.settle()][-1] is Kind.DELETE


def test_what_an_act_did_is_ours_however_late_it_is_read(watch: Watch) -> None:
    w = watch(before=lambda root: [(root / f"doc{i}").write_bytes(b"x") for i in range(200)])
    for i in range(200):
        name = b"doc%d" % i
        w.source.expect(0, name, 1 << Kind.DELETE | 1 << Kind.ATTRIB, ttl_s=60)
        (w.root / os.fsdecode(name)).unlink()
        w.source.expect(0, name, 0, count=0, ttl_s=0.0)
    assert w.settle() == []
    (w.root / "doc7").write_bytes(b"somebody else's")
    assert [s.path for s in w.settle()] == [b"doc7"]


def test_an_announcement_ends_with_its_time(watch: Watch) -> None:
    w = watch(before=lambda root: (root / "doc").write_bytes(b"x"))
    w.source.expect(0, b"doc", 1 << Kind.DELETE, ttl_s=0.0)
    (w.root / "doc").unlink()
    assert [s.kind for s in w.settle()] == [Kind.DELETE]


def test_a_file_that_stays_open_is_reported_as_open(watch: Watch) -> None:
    w = watch(coalesce_ms=10)
    with open(w.root / "log", "wb", buffering=0) as file:
        file.write(b"first")
        w.until(lambda seen: any(s.path == b"log" for s in seen))
        assert w.seen[0].flags & EventFlag.OPEN
    last = of(w.settle(), b"log")[-1]
    assert not last.flags & EventFlag.OPEN


def test_a_removed_root_is_told_and_found_again(watch: Watch) -> None:
    w = watch()
    shutil.rmtree(w.root)
    w.until(lambda seen: any(s.kind is Kind.ROOT_GONE for s in seen))
    now = w.source.status()
    assert now.blind_since_ns is not None
    assert (os.fsencode(w.root), "the root of the tree is gone") in now.not_covered
    w.root.mkdir()
    (w.root / "back").write_bytes(b"x")
    w.until(lambda seen: any(s.path == b"back" for s in seen))
    w.until(lambda seen: any(s.kind is Kind.RESCAN_DONE for s in seen))
    assert w.source.status().blind_since_ns is None
    (w.root / "later").write_bytes(b"x")
    w.until(lambda seen: any(s.path == b"later" for s in seen))


def test_a_root_that_is_no_directory_is_refused(backend: type, tmp_path: Path) -> None:
    from shieldd.watch import Tree

    (tmp_path / "file").write_bytes(b"x")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    source = backend([Tree(os.fsencode(tmp_path / "file"), fd)])
    with pytest.raises(ShieldError) as refused:
        source.start()
    assert refused.value.code == "watch.root"
    source.stop()
    os.close(fd)


def test_a_rescan_without_a_loss_finds_nothing(watch: Watch) -> None:
    w = watch(before=lambda root: subprocess.run(["cp", "-r", "/usr/include/linux", root / "t"], check=True))
    (w.root / "t" / "new").write_bytes(b"x")
    w.settle()
    w.source.rescan(0)
    w.until(lambda seen: any(s.kind is Kind.RESCAN_DONE for s in seen))
    done = next(s for s in w.seen if s.kind is Kind.RESCAN_DONE)
    assert not [s for s in w.seen if s.flags & EventFlag.SYNTHETIC]
    assert done.merged == 0
    assert w.source.status().rescans == 1


def test_a_tree_in_a_tree_is_watched_once_and_said_so(backend: type, tmp_path: Path) -> None:
    from .conftest import build

    inner = tmp_path / "inner"
    inner.mkdir()
    w = build(backend, [tmp_path, inner])
    (inner / "f").write_bytes(b"x")
    (tmp_path / "g").write_bytes(b"x")
    seen = w.settle()
    assert {(s.tree, s.path) for s in seen} == {(1, b"f"), (0, b"g")}
    assert [p for p, why in w.source.status().not_covered] == [os.fsencode(inner)]
    w.source.stop()


def test_stop_wakes_the_consumer_and_is_final(watch: Watch) -> None:
    w = watch()
    ended: list[object] = []

    def consume() -> None:
        try:
            while True:
                w.source.next_batch(30)
        except ShieldError as error:
            ended.append(error.code)

    thread = threading.Thread(target=consume)
    thread.start()
    began = time.monotonic()
    w.source.stop()
    thread.join(10)
    assert ended == ["watch.stopped"]
    assert time.monotonic() - began < 5
    w.source.stop()
    with pytest.raises(ShieldError) as refused:
        w.source.next_batch(0)
    assert refused.value.code == "watch.stopped"


def test_stop_under_load(watch: Watch) -> None:
    w = watch()
    running = threading.Event()
    running.set()

    def storm() -> None:
        i = 0
        while running.is_set():
            i += 1
            path = w.root / f"f{i % 500}"
            path.write_bytes(b"x")
            path.unlink()

    thread = threading.Thread(target=storm)
    thread.start()
    w.until(lambda seen: len(seen) > 200)
    w.source.stop()
    running.clear()
    thread.join(10)
    with pytest.raises(ShieldError):
        w.source.next_batch(0)


def test_a_timeout_is_kept(watch: Watch) -> None:
    w = watch()
    began = time.monotonic()
    assert w.source.next_batch(0.05) is None
    assert w.source.next_batch(0) is None
    assert time.monotonic() - began < 2
