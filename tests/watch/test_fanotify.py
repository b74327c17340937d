"""What the fanotify source does beyond the contract: who did it, whole file systems, cold trees."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shieldd.errors import ShieldError
from shieldd.model.event import EventFlag, Kind
from shieldd.native.actors import Actors
from shieldd.watch import Tree
from shieldd.watch.fanotify_source import FanotifySource

from .conftest import Seen, Watching, build

pytestmark = pytest.mark.root

Watch = Callable[..., Watching]
RENAME_EXCHANGE = 2


def tmpfs(place: Path, _: Path) -> None:
    """A file system in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "shieldd-test", place], check=True)


def ext4(place: Path, image: Path) -> None:
    """A file system in an image."""
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no loop device to be had")


@pytest.fixture(params=[tmpfs, ext4], ids=lambda make: make.__name__)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of the test's own."""
    where = tmp_path / "own"
    where.mkdir()
    request.param(where, tmp_path / "image")
    yield where
    subprocess.run(["umount", "-l", where], check=True)


@pytest.fixture
def watch(place: Path) -> Iterator[Watch]:
    """Makes sources over directories of the file system; all are stopped at the end."""
    running: list[Watching] = []

    def make(*names: str, **options: object) -> Watching:
        roots = [place / name for name in names or ("tree",)]
        for root in roots:
            root.mkdir(exist_ok=True)
        running.append(build(FanotifySource, roots, **options))
        return running[-1]

    yield make
    for watching in running:
        watching.source.stop()


def ends(seen: list[Seen]) -> set[bytes]:
    """Files that are there for a reader of the events in order."""
    files: set[bytes] = set()
    for s in seen:
        if s.old is not None:
            files.discard(s.old)
        if s.kind is Kind.DELETE:
            files.discard(s.path)
        elif s.kind <= Kind.ATTRIB:
            files.add(s.path)
    return files


def run(script: str, *command: str, cwd: Path) -> int:
    """A process that does something; its number."""
    child = subprocess.Popen([*command, "sh", "-c", script], cwd=cwd)
    assert child.wait(60) == 0
    return child.pid


WRITER_MS = 5_000.0  # a writer that the machine holds up must not be told of twice: this is not about open files


def attributed(w: Watching, path: bytes) -> list[tuple[int, int, EventFlag]]:
    """Process, actor and flags of the events of a path."""
    found: list[tuple[int, int, EventFlag]] = []
    w_end = w.root / "end"
    w_end.write_bytes(b"x")
    while True:
        batch = w.source.next_batch(5)
        assert batch is not None, "the end was not seen"
        for row, event in enumerate(batch.events):
            if batch.path(row) == path:
                found.append((int(event["pid"]), int(event["actor"]), EventFlag(int(event["flags"]))))
            if batch.path(row) == b"end":
                return found


def test_events_carry_process_and_actor(watch: Watch) -> None:
    w = watch(actors=Actors(own=[os.getpid()]), coalesce_ms=WRITER_MS)
    pid = run("echo x > f", cwd=w.root)
    ((seen, actor, flags),) = attributed(w, b"f")
    assert seen == pid
    assert flags & EventFlag.ATTRIBUTED or flags & EventFlag.GUESSED or actor == 1
    assert w.source.status().attribution


def test_a_living_process_is_certain_and_two_actors_do_not_merge(watch: Watch) -> None:
    w = watch(actors=Actors(), coalesce_ms=WRITER_MS)
    script = "echo x >> f; echo done; read end"
    children = [
        subprocess.Popen(["setsid", "sh", "-c", script], cwd=w.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"done\n"
    said = attributed(w, b"f")
    for child in children:
        child.communicate(b"\n")
    assert len(said) == len({actor for _, actor, _ in said}) == 2
    assert {pid for pid, _, _ in said} == {child.pid for child in children}
    assert all(flags & EventFlag.ATTRIBUTED and actor >> 63 for _, actor, flags in said)


def test_without_actors_the_tree_is_the_actor(watch: Watch) -> None:
    w = watch(coalesce_ms=WRITER_MS)
    pid = run("echo x > f", cwd=w.root)
    assert attributed(w, b"f") == [(pid, 1, EventFlag(0))]


def test_what_we_do_ourselves_is_not_reported(watch: Watch) -> None:
    w = watch(own_pids=[os.getpid()])
    (w.root / "ours").write_bytes(b"x")
    (w.root / "dir").mkdir()
    (w.root / "dir").rename(w.root / "other")
    run("echo x > other/theirs; echo x > end", cwd=w.root)
    w.until(lambda seen: any(s.path == b"end" for s in seen))
    assert {s.path for s in w.seen} == {b"other/theirs", b"end"}
    assert w.source.status().own > 0


def test_nothing_is_set_up_for_each_directory(watch: Watch, place: Path) -> None:
    for i in range(500):
        (place / "tree" / f"d{i}" / "e").mkdir(parents=True)
    w = watch()
    now = w.source.status()
    assert (now.watches, now.directories) == (1, 1)
    (w.root / "d7" / "e" / "f").write_bytes(b"x")
    assert [s.path for s in w.settle()] == [b"d7/e/f"]
    assert w.source.status().directories == 3


def test_trees_of_one_file_system_share_a_mark(watch: Watch, place: Path) -> None:
    w = watch("one", "two", "three")
    assert w.source.status().watches == 1
    for i, root in enumerate(w.roots):
        (root / f"f{i}").write_bytes(b"x")
    (place / "outside").write_bytes(b"x")
    assert sorted((s.tree, s.path) for s in w.settle()) == [(0, b"f0"), (1, b"f1"), (2, b"f2")]


def test_a_tree_removed_at_once_is_told_name_by_name(watch: Watch, place: Path) -> None:
    files = {f"cold/d{i}/e{j}/f{k}" for i in range(5) for j in range(5) for k in range(5)}
    for file in files:
        (place / "tree" / file).parent.mkdir(parents=True, exist_ok=True)
        (place / "tree" / file).write_bytes(b"x")
    (place / "beside" / "d").mkdir(parents=True)
    w = watch()
    run("rm -rf cold ../beside", cwd=w.root)
    seen = w.settle()
    assert {os.fsdecode(s.path) for s in seen if s.kind is Kind.DELETE} == files
    gone = {s.path for s in seen if s.kind is Kind.REMOVE_DIR}
    assert len(gone) == 31
    assert w.source.status().events_lost == 0
    assert not [s for s in seen if s.path.startswith(b"d/")]


def test_a_file_moved_out_of_a_directory_that_is_gone(watch: Watch, place: Path) -> None:
    (place / "tree" / "cold" / "d").mkdir(parents=True)
    (place / "tree" / "cold" / "d" / "f").write_bytes(b"x")
    w = watch()
    run("mv cold/d/f kept; rm -r cold", cwd=w.root)
    assert ends(w.settle()) == {b"kept"}


def test_a_directory_made_used_and_removed_at_once(watch: Watch) -> None:
    w = watch()
    run("for i in $(seq 50); do mkdir -p t/a; echo x > t/a/f; mv t/a/f kept$i; rm -r t; done", cwd=w.root)
    seen = w.settle()
    assert ends(seen) == {b"kept%d" % i for i in range(1, 51)}
    made = [s.kind for s in seen if s.path == b"t" and s.kind in (Kind.MAKE_DIR, Kind.REMOVE_DIR)]
    assert made == [Kind.MAKE_DIR, Kind.REMOVE_DIR] * 50


def test_a_rename_over_a_file_never_seen_says_so(watch: Watch, place: Path) -> None:
    (place / "tree").mkdir()
    for name in ("a", "b", "c", "over"):
        (place / "tree" / name).write_bytes(name.encode())
    w = watch()
    (w.root / "a").rename(w.root / "over")
    (w.root / "b").rename(w.root / "new")
    (w.root / "c").unlink()
    flags = {s.path: s.flags for s in w.settle() if s.kind is Kind.RENAME}
    assert flags[b"over"] & EventFlag.OVER
    assert not flags[b"new"] & EventFlag.OVER


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


def test_what_the_kernel_merged_ends_as_it_is(watch: Watch, place: Path) -> None:
    (place / "tree").mkdir()
    for name in ("back", "one", "other", "open", "linked"):
        (place / "tree" / name).write_bytes(b"x")
    w = watch()
    for _ in range(3):  # there and back, then gone: told as removed before it was renamed
        (w.root / "back").rename(w.root / "away")
        (w.root / "away").rename(w.root / "back")
    (w.root / "back").unlink()
    exchange(w.root / "one", w.root / "other")
    with open(w.root / "open", "r+b", buffering=0) as file:
        file.write(b"y")
        w.until(lambda seen: any(s.path == b"open" for s in seen))
        (w.root / "open").unlink()
        w.until(lambda seen: any(s.path == b"open" and s.kind is Kind.DELETE for s in seen))
        file.write(b"z")  # it has no name any more
    for _ in range(2):
        os.link(w.root / "linked", w.root / "link")
        (w.root / "link").unlink()
    os.link(w.root / "linked", w.root / "link")
    real = {os.fsencode(p.name) for p in w.root.iterdir()}
    w.settle()
    w.until(lambda seen: ends(seen) - {b"linked"} >= real - {b"linked"} and b"open" not in ends(seen))
    there = {p for p in ends(w.seen) if not p.startswith(b"marker-")}
    assert there | {b"linked"} == real


def test_writes_through_another_mount_and_namespace_are_seen(watch: Watch, place: Path, tmp_path: Path) -> None:
    w = watch()
    other = tmp_path / "bound"
    other.mkdir()
    subprocess.run(["mount", "--bind", w.root, other], check=True)
    try:
        run("mkdir d; echo x > d/bound", cwd=other)
        script = f"mount -t tmpfs none {tmp_path}/bound && cd {place}/tree && echo x > d/namespace"
        run(script, "unshare", "--mount", cwd=tmp_path)
        files = {s.path for s in w.settle() if s.kind is Kind.CREATE}
        assert files == {b"d/bound", b"d/namespace"}
    finally:
        subprocess.run(["umount", "-l", other], check=True)


def test_a_tree_that_is_a_bind_mount_sees_only_itself(watch: Watch, place: Path, tmp_path: Path) -> None:
    (place / "real" / "d").mkdir(parents=True)
    (place / "beside").mkdir()
    bound = tmp_path / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", place / "real", bound], check=True)
    try:
        w = build(FanotifySource, [bound])
        (place / "real" / "d" / "f").write_bytes(b"x")
        (place / "beside" / "g").write_bytes(b"x")
        assert {s.path for s in w.settle()} == {b"d/f"}
        w.source.stop()
    finally:
        subprocess.run(["umount", "-l", bound], check=True)


def test_a_root_that_another_directory_replaces(watch: Watch, place: Path) -> None:
    w = watch()
    (place / "next").mkdir()
    (place / "next" / "there").write_bytes(b"x")
    w.root.rename(place / "before")
    (place / "next").rename(w.root)
    w.until(lambda seen: any(s.kind is Kind.ROOT_GONE for s in seen))
    w.until(lambda seen: any(s.path == b"there" and s.flags & EventFlag.SYNTHETIC for s in seen))
    w.until(lambda _: w.source.status().blind_since_ns is None)
    (place / "before" / "not-ours").write_bytes(b"x")
    (w.root / "ours").write_bytes(b"x")
    w.settle()
    assert b"ours" in {s.path for s in w.seen}
    assert b"not-ours" not in {s.path for s in w.seen}


def test_a_full_queue_of_ours_waits_before_it_loses(watch: Watch) -> None:
    w = watch(capacity=6000, patience_s=30.0, inspect=False)
    run("for i in $(seq 20); do mkdir d$i; (cd d$i && touch $(seq 500)); done", cwd=w.root)
    w.until(lambda seen: sum(s.kind is Kind.CREATE for s in seen) >= 10_000)
    assert w.source.status().events_lost == 0


def test_file_systems_without_handles_are_refused() -> None:
    fd = os.open("/proc/sys", os.O_RDONLY | os.O_DIRECTORY)
    source = FanotifySource([Tree(b"/proc/sys", fd)])
    os.close(fd)
    with pytest.raises(ShieldError) as refused:
        source.start()
    assert refused.value.code == "watch.unsupported"
    assert "/proc/sys" in str(refused.value)
    source.stop()


UNPRIVILEGED = textwrap.dedent("""
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from shieldd.errors import ShieldError
    from shieldd.watch import Tree
    from shieldd.watch.fanotify_source import FanotifySource
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        FanotifySource([Tree(b"/tmp", os.open("/tmp", os.O_RDONLY))])
    except ShieldError as error:
        print(error.code, error)
""")


def test_without_the_capability_it_says_what_is_missing(checkout: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, checkout], capture_output=True, text=True, cwd=checkout, check=True
    )
    assert done.stdout.startswith("watch.unsupported")
    assert "CAP_SYS_ADMIN" in done.stdout


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="no mkfs.ext4 here")
def test_an_overlay_is_watched_or_refused(place: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (place / name).mkdir()
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    made = subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "shieldd-test", place / "merged"], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no overlay to be had")
    try:
        w = build(FanotifySource, [place / "merged"])
    except ShieldError as refused:
        assert refused.code == "watch.unsupported"
    else:
        (w.root / "f").write_bytes(b"x")
        assert {s.path for s in w.settle()} == {b"f"}
        w.source.stop()
    finally:
        subprocess.run(["umount", "-l", place / "merged"], check=True)
