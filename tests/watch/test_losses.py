"""When the kernel or our own queue cannot hold what happens: counted, told, and found by a rescan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shieldd.model.event import EventFlag, Kind
from shieldd.watch.fanotify_source import FanotifySource

from .conftest import INOTIFY, Seen, Watch, Watching

FILE_CLOCK = 5  # CLOCK_REALTIME_COARSE, which the times of files are taken from


@pytest.fixture
def small_queue(backend: type) -> Iterator[None]:
    """A kernel queue of 16 events for instances made meanwhile; put back whatever happens."""
    kind = "fanotify" if backend is FanotifySource else "inotify"
    queue = Path(f"/proc/sys/fs/{kind}/max_queued_events")
    before = queue.read_text()
    queue.write_text("16")
    try:
        yield
    finally:
        queue.write_text(before)


def before(root: Path) -> None:
    """A known state of three files in a directory, and one directory that will go."""
    (root / "d" / "gone").mkdir(parents=True)
    for name in ("kept", "changed", "deleted"):
        (root / "d" / name).write_bytes(b"before")
    (root / "d" / "gone" / "inner").write_bytes(b"before")
    made = os.stat(root / "d" / "gone" / "inner").st_ctime_ns
    while time.clock_gettime_ns(FILE_CLOCK) <= made:  # where times are all that is known, one tick is one time
        continue


def workload(root: Path) -> None:
    """More events than either queue of the tests holds."""
    (root / "d" / "changed").write_bytes(b"after it")
    (root / "d" / "deleted").unlink()
    (root / "d" / "gone" / "inner").unlink()
    (root / "d" / "gone").rmdir()
    for i in range(50):
        (root / "d" / f"m{i}").write_bytes(b"x")
    for i in range(400):
        directory = root / "new" / f"n{i % 20}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{i}").write_bytes(b"x" * i)


def is_whole(seen: list[Seen]) -> bool:
    """Whether all that the workload did has been told."""
    files = {s.path for s in seen if s.kind in (Kind.CREATE, Kind.WRITE, Kind.RENAME)}
    gone = {s.path for s in seen if s.kind is Kind.DELETE}
    return (
        {b"new/n%d/f%d" % (i % 20, i) for i in range(400)} | {b"d/m%d" % i for i in range(50)} <= files
        and any(s.path == b"d/changed" and s.kind is Kind.WRITE for s in seen)
        and b"d/deleted" in gone
        and any(s.path == b"d/gone" and s.kind is Kind.REMOVE_DIR for s in seen)
    )


def recovers(w: Watching) -> None:
    """After a loss the whole truth is found and the blindness ends."""
    workload(w.root)
    w.until(lambda seen: any(s.kind is Kind.OVERFLOW for s in seen))
    w.until(is_whole)
    w.until(lambda seen: any(s.kind is Kind.RESCAN_DONE for s in seen))
    w.until(lambda _: w.source.status().blind_since_ns is None)
    now = w.source.status()
    assert now.events_lost > 0
    assert now.rescans > 0
    assert any(s.flags & EventFlag.SYNTHETIC for s in w.seen)
    assert not [s for s in w.seen if s.path == b"d/kept"]
    (w.root / "new" / "n3" / "later").write_bytes(b"x")  # and the directories that a rescan found are watched
    w.until(lambda seen: any(s.path == b"new/n3/later" for s in seen))


@pytest.mark.root
def test_an_overflow_of_the_kernels_queue_is_told_and_rescanned(small_queue: None, backend: type, watch: Watch) -> None:
    limited = {"limited": True} if backend is FanotifySource else {}
    w = watch(before=before, inspect=False, **limited)
    recovers(w)
    assert w.source.status().overflows > 0


def test_our_own_queue_is_bounded_and_a_rescan_finds_the_rest(watch: Watch) -> None:
    w = watch(before=before, capacity=8)
    recovers(w)
    assert w.source.status().overflows == 0


def test_only_the_tree_that_lost_events_is_rescanned(watch: Watch) -> None:
    w = watch("one", "two", before=before, capacity=8)
    recovers(w)
    assert {s.tree for s in w.seen} == {0}


LIMITED = textwrap.dedent("""
    import json, os, sys, time
    with open("/proc/sys/user/max_inotify_watches", "w") as limit:
        limit.write("4")
    sys.path.insert(0, sys.argv[3])
    from tests.watch.conftest import BACKENDS, build
    from pathlib import Path
    from shieldd.model.event import Kind
    root = Path(sys.argv[2])
    w = build(BACKENDS[sys.argv[1]], [root])
    w.until(lambda seen: any(s.kind is Kind.WATCH_LIMIT for s in seen))
    status = w.source.status()
    blind = [p for p, why in status.not_covered]
    for i in range(10):
        (root / f"d{i}" / "file").write_bytes(b"x")
    w.until(lambda seen: {b"d%d/file" % i for i in range(10)} <= {s.path for s in seen})
    for i in range(10):
        (root / f"d{i}" / "file").unlink()
    w.until(lambda seen: {b"d%d/file" % i for i in range(10)} <= {s.path for s in seen if s.kind is Kind.DELETE})
    with open("/proc/sys/user/max_inotify_watches", "w") as limit:
        limit.write("1000")
    w.until(lambda seen: not w.source.status().not_covered)
    later = w.source.status()
    w.source.stop()
    print(json.dumps({"failures": status.watch_failures, "blind": len(blind), "watches": status.watches,
                      "directories": status.directories, "later": later.watches}))
""")


@pytest.mark.parametrize("backend", list(INOTIFY))
def test_directories_beyond_the_watch_limit_are_told_and_polled(backend: str, tmp_path: Path, checkout: Path) -> None:
    for i in range(10):
        (tmp_path / f"d{i}").mkdir()
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", LIMITED, backend, tmp_path, checkout],
        capture_output=True, text=True, timeout=240, cwd=checkout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["watches"] <= 4
    assert said["directories"] == 11
    assert said["blind"] == 11 - said["watches"]
    assert said["failures"] >= said["blind"]
    assert said["later"] == 11


DENIED = textwrap.dedent("""
    import os, sys
    sys.path.insert(0, sys.argv[3])
    from pathlib import Path
    from tests.watch.conftest import BACKENDS, build
    from shieldd.model.event import Kind
    from shieldd.watch.kernel_queue import binding
    binding()  # the interpreter's own files may be closed to the other user
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    root = Path(sys.argv[2])
    w = build(BACKENDS[sys.argv[1]], [root])
    w.until(lambda seen: any(s.kind is Kind.WATCH_LIMIT and s.path == b"closed" for s in seen))
    assert [p for p, why in w.source.status().not_covered] == [os.fsencode(root / "closed")]
    print("blind", flush=True)
    input()
    w.until(lambda seen: any(s.path == b"closed/file" for s in seen))
    assert not w.source.status().not_covered
    w.source.stop()
""")


@pytest.mark.root
@pytest.mark.parametrize("backend", list(INOTIFY))
def test_a_closed_directory_is_told_and_seen_once_it_opens(backend: str, tmp_path: Path, checkout: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "closed").mkdir(parents=True)
    (tree / "closed" / "file").write_bytes(b"x")
    for directory in (tree, tmp_path, tmp_path.parent, tmp_path.parent.parent):
        directory.chmod(0o755)
    (tree / "closed").chmod(0o700)
    command = [sys.executable, "-c", DENIED, backend, tree, checkout]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "blind\n"
        (tree / "closed").chmod(0o755)
        child.stdin.write("\n")
        child.stdin.close()
        assert child.wait(120) == 0


@pytest.fixture
def own_mount(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of the test's own, gone afterwards whatever happens."""
    place = tmp_path / "tree"
    place.mkdir()
    mount(place)
    yield place
    while os.path.ismount(place):
        subprocess.run(["umount", "-l", place], check=True)


def mount(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "shieldd-test", place], check=True)


@pytest.mark.root
def test_an_unmounted_tree_is_told_and_found_again(own_mount: Path, watch: Watch) -> None:
    w = watch()
    (own_mount / "f").write_bytes(b"x")
    w.until(lambda seen: any(s.path == b"f" for s in seen))
    subprocess.run(["umount", "-l", own_mount], check=True)
    w.until(lambda seen: any(s.kind is Kind.ROOT_GONE for s in seen))
    assert w.source.status().blind_since_ns is not None
    mount(own_mount)
    (own_mount / "g").write_bytes(b"x")
    w.until(lambda seen: any(s.path == b"g" for s in seen))
    w.until(lambda _: w.source.status().blind_since_ns is None)


@pytest.mark.root
def test_a_mount_inside_a_tree_is_not_followed_and_said_so(watch: Watch, tmp_path: Path) -> None:
    inner = tmp_path / "tree" / "inner"
    inner.mkdir(parents=True)
    mount(inner)
    try:
        w = watch()
        (inner / "unseen").write_bytes(b"x")
        (w.root / "seen").write_bytes(b"x")
        assert {s.path for s in w.settle()} == {b"seen"}
        assert w.source.status().not_covered == ((os.fsencode(inner), "another file system is mounted here"),)
    finally:
        subprocess.run(["umount", "-l", inner], check=True)


@pytest.mark.root
def test_a_bind_mount_inside_a_tree_is_not_followed(watch: Watch, tmp_path: Path) -> None:
    inner, other = tmp_path / "tree" / "inner", tmp_path / "other"
    inner.mkdir(parents=True)
    other.mkdir()
    subprocess.run(["mount", "--bind", other, inner], check=True)
    try:
        w = watch()
        (other / "unseen").write_bytes(b"x")
        assert w.settle() == []
        assert [path for path, _ in w.source.status().not_covered] == [os.fsencode(inner)]
    finally:
        subprocess.run(["umount", "-l", inner], check=True)
