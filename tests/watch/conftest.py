"""Sources over trees of their own, and ways to wait for what they say."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shieldd.model.event import Batch, EventFlag, Kind
from shieldd.watch import Source, Tree
from shieldd.watch.fanotify_source import FanotifySource
from shieldd.watch.native_source import NativeSource
from shieldd.watch.pyinotify_source import PyinotifySource

INOTIFY = {"native": NativeSource, "pyinotify": PyinotifySource}
BACKENDS = {**INOTIFY, "fanotify": FanotifySource}
DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One event, plain."""

    seq: int
    kind: Kind
    tree: int
    path: bytes
    old: bytes | None
    ops: frozenset[Kind]
    flags: EventFlag
    merged: int
    size: int
    looked: int


def rows(batch: Batch) -> list[Seen]:
    """A batch as plain events."""
    return [
        Seen(
            seq=int(event["seq"]),
            kind=Kind(int(event["kind"])),
            tree=int(event["tree"]),
            path=batch.path(row),
            old=batch.old_path(row),
            ops=frozenset(kind for kind in Kind if int(event["ops"]) & (1 << kind)),
            flags=EventFlag(int(event["flags"])),
            merged=int(event["merged"]),
            size=int(batch.facts[row]["size"]),
            looked=int(batch.facts[row]["flags"]) & 1,
        )
        for row, event in enumerate(batch.events)
    ]


@dataclass(slots=True)
class Watching:
    """A running source and what it said so far."""

    source: Source
    roots: list[Path]
    seen: list[Seen] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The first tree."""
        return self.roots[0]

    def take(self, timeout_s: float = 0.05) -> list[Seen]:
        """One batch."""
        batch = self.source.next_batch(timeout_s)
        new = [] if batch is None else rows(batch)
        self.seen += new
        return new

    def until(self, holds: Callable[[list[Seen]], bool]) -> list[Seen]:
        """Take batches until something holds of all events so far; fails after a deadline."""
        end = time.monotonic() + DEADLINE_S
        while not holds(self.seen):
            assert time.monotonic() < end, f"still waiting after {len(self.seen)} events: {self.seen[-20:]}"
            self.take()
        return self.seen

    def mark(self) -> set[tuple[int, bytes]]:
        """Make a marker file in each tree."""
        name = f"marker-{len(self.seen)}-{time.monotonic_ns()}"
        for root in self.roots:
            (root / name).write_bytes(b"m")
        return {(index, os.fsencode(name)) for index in range(len(self.roots))}

    def settle(self) -> list[Seen]:
        """Take until a marker file of ours has been seen: everything before it was delivered then."""
        return settled(self)[0]


def settled(*sources: Watching) -> list[list[Seen]]:
    """What each of several sources over the same trees knows of what happened before now."""
    marks = sources[0].mark()
    for source in sources:
        source.until(lambda seen: marks <= {(s.tree, s.path) for s in seen if Kind.WRITE in s.ops})
    # a half move or an open file may lag behind: until none of them has said anything for a while
    while any(taken for taken in [source.take(0.06) for source in sources]):
        continue
    return [[s for s in source.seen if not s.path.startswith(b"marker-")] for source in sources]


Watch = Callable[..., Watching]


def build(kind: type, roots: list[Path], *, exclude: tuple[bytes, ...] = (), **options: object) -> Watching:
    """A started source over directories."""
    if kind is FanotifySource:
        for root in roots:
            assert root.stat().st_dev != os.stat("/").st_dev, "a mark on the root's file system is everybody's business"
        options.setdefault("own_pids", ())  # the tests themselves do what is to be seen
    fds = [os.open(root, os.O_RDONLY | os.O_DIRECTORY) for root in roots]
    trees = [Tree(os.fsencode(r), fd, exclude, i) for i, (r, fd) in enumerate(zip(roots, fds, strict=True))]
    source = kind(trees, **options)
    for fd in fds:
        os.close(fd)
    source.start()
    return Watching(source, roots)


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory of the test's own; on a file system of its own where fanotify is used."""
    call = getattr(request.node, "callspec", None)
    if call is None or "fanotify" not in call.params.values():
        yield tmp_path
        return
    if os.geteuid() != 0:
        pytest.skip("fanotify needs root and a file system of its own")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "shieldd-test", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> type:
    """Each source in turn."""
    return BACKENDS[request.param]


@pytest.fixture
def watch(backend: type, tmp_path: Path) -> Iterator[Watch]:
    """Makes sources of one backend over named directories below tmp_path; all are stopped at the end."""
    running: list[Watching] = []

    def make(*names: str, before: Callable[[Path], None] | None = None, **options: object) -> Watching:
        roots = [tmp_path / name for name in names or ("tree",)]
        for root in roots:
            root.mkdir(exist_ok=True)
            if before is not None:
                before(root)
        running.append(build(backend, roots, **options))
        return running[-1]

    yield make
    for watching in running:
        watching.source.stop()
