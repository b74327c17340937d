"""Two sources watch the same trees while the same things happen: they must tell the same story."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from shieldd.model.event import Kind

from .conftest import BACKENDS, Seen, Watching, build, settled

KINDS = ["pyinotify", "fanotify"]
Story = dict[tuple[int, bytes], tuple[bool, frozenset[Kind]]]


def below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


def story(seen: list[Seen]) -> tuple[Story, set[tuple[int, bytes]]]:
    """What a reader of the events in order knows at the end.

    Returns:
        for each file that an event named: whether it is there, and all operations on it through all its names; and the
        directories that were made and are there.
    """
    files: Story = {}
    directories: set[tuple[int, bytes]] = set()
    for s in seen:
        key = (s.tree, s.path)
        if s.kind is Kind.RENAME_DIR:
            assert s.old is not None
            moved = {k: v for k, v in files.items() if k[0] == s.tree and below(k[1], s.old)}
            for (tree, path), value in moved.items():
                del files[tree, path]
                files[tree, s.path + path[len(s.old) :]] = value
            for tree, path in [d for d in directories if d[0] == s.tree and below(d[1], s.old)]:
                directories.remove((tree, path))
                directories.add((tree, s.path + path[len(s.old) :]))
        elif s.kind is Kind.MAKE_DIR:
            directories.add(key)
        elif s.kind is Kind.REMOVE_DIR:
            directories -= {d for d in directories if d[0] == s.tree and below(d[1], s.path)}
            files = {k: v for k, v in files.items() if not (k[0] == s.tree and below(k[1], s.path))}
        elif s.kind <= Kind.ATTRIB:
            before = files.get(key, (False, frozenset()))[1]
            if s.old is not None:
                before |= files.pop((s.tree, s.old), (False, frozenset()))[1]
            files[key] = (s.kind is not Kind.DELETE, before | s.ops)
    return files, directories


class Hands:
    """Does things in two trees, by a seed."""

    def __init__(self, roots: list[Path], seed: int) -> None:
        self.roots, self.random, self.count = roots, random.Random(seed), 0

    def directory(self) -> Path:
        """Any directory there is."""
        root = self.random.choice(self.roots)
        return self.random.choice([root, *(p for p in sorted(root.rglob("*")) if p.is_dir())])

    def file(self) -> Path | None:
        """Any file there is."""
        found = [p for root in self.roots for p in sorted(root.rglob("f*")) if p.is_file()]
        return self.random.choice(found) if found else None

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def files(self) -> None:
        """One thing with a file."""
        file = self.file()
        what = self.random.choice(
            ["create", "create", "write", "append", "rename", "over", "delete", "chmod", "replace"]
        )
        if what == "create" or file is None:
            (self.directory() / self.name("f")).write_bytes(b"x" * self.random.randrange(5000))
        elif what == "write":
            file.write_bytes(b"other")
        elif what == "append":
            with file.open("ab") as stream:
                stream.write(b"more")
        elif what == "rename":
            file.rename(self.directory() / self.name("f"))
        elif what == "over":
            target = self.file()
            if target is not None:
                file.rename(target)
        elif what == "delete":
            file.unlink()
        elif what == "chmod":
            file.chmod(self.random.choice([0o600, 0o644]))
        else:
            beside = file.with_name(self.name("f"))
            beside.write_bytes(b"new version")
            beside.rename(file)

    def directories(self) -> None:
        """One thing with a directory."""
        here = self.directory()
        what = self.random.choice(["mkdir", "mkdir", "deep", "move", "remove"])
        if what == "deep":
            (here / self.name("d") / "a" / "b" / "c").mkdir(parents=True)
        elif what == "mkdir" or here in self.roots:
            (here / self.name("d")).mkdir()
        elif what == "move":
            target = self.directory()
            if not target.is_relative_to(here):
                here.rename(target / self.name("d"))
        elif not any(here.iterdir()):
            here.rmdir()


@contextmanager
def pair(kind: str, place: Path) -> Iterator[tuple[Watching, Watching]]:
    """The native inotify source and another one over the same two trees."""
    roots = [place / "one", place / "two"]
    for root in roots:
        root.mkdir(parents=True)
        # never opened: whoever reads /proc/PID/fd keeps a file open a little longer, and its close would be news to one
        os.mknod(root / "f0", 0o644 | stat.S_IFREG)
        os.truncate(root / "f0", 3)
    native, plain = (build(BACKENDS[one], roots, inspect=False, coalesce_ms=30) for one in ("native", kind))
    try:
        yield native, plain
    finally:
        native.source.stop()
        plain.source.stop()


def agree(native: Watching, plain: Watching) -> tuple[Story, set[tuple[int, bytes]]]:
    """Both have taken everything; what they know."""
    known = [story([s for s in seen if not s.path.startswith(b"marker")]) for seen in settled(native, plain)]
    assert known[0] == known[1]
    return known[0]


def side_by_side(seeds: range, one: Callable[[int], None]) -> None:
    """Each seed in a thread of its own: nearly all of it is waiting."""
    with ThreadPoolExecutor(len(seeds)) as pool:
        for finished in [pool.submit(one, seed) for seed in seeds]:
            finished.result()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_work_gives_the_same_events(kind: str, tmp_path: Path) -> None:
    def one(seed: int) -> None:
        with pair(kind, tmp_path / str(seed)) as (native, plain):
            hands = Hands(native.roots, seed)
            for _ in range(6):
                for _ in range(4):
                    hands.directories()
                    agree(native, plain)  # new directories are watched by both before anything happens in them
                for _ in range(60):
                    hands.files()
            agree(native, plain)

    side_by_side(range(6), one)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_pause_both_end_with_what_is_there(kind: str, tmp_path: Path) -> None:
    def one(seed: int) -> None:
        with pair(kind, tmp_path / str(seed)) as both:
            hands = Hands(both[0].roots, 100 + seed)
            for _ in range(300):
                hands.random.choice([hands.files, hands.files, hands.files, hands.directories])()
            for w, seen in zip(both, settled(*both), strict=True):
                ends_with_what_is_there(w, seen)

    side_by_side(range(4), one)


def ends_with_what_is_there(w: Watching, seen: list[Seen]) -> None:
    files, directories = story([s for s in seen if not s.path.startswith(b"marker")])
    there = {k for k, (alive, _) in files.items() if alive}
    real_files, real_directories = set(), set()
    for tree, root in enumerate(w.roots):
        for path in root.rglob("*"):
            name = os.fsencode(path.relative_to(root))
            if path.is_dir():
                real_directories.add((tree, name))
            elif not name.startswith(b"marker"):
                real_files.add((tree, name))
    untouched = {(0, b"f0"), (1, b"f0")}
    assert there | (untouched & real_files) == real_files
    assert directories == real_directories
