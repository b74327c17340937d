"""The scan thread and the canaries, on real files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shieldd.canaries import Canaries
from shieldd.detect import canary
from shieldd.lookout import BATCH_LIMIT, Lookout
from shieldd.model.event import EVENT, FACTS, Batch, FactFlag, Kind
from shieldd.model.match import Match
from shieldd.native import files, observe
from shieldd.respond import GuardedTree
from shieldd.scan import EICAR, Scanner


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[GuardedTree]:
    root = tmp_path / "tree"
    (root / "reports").mkdir(parents=True)
    for number in range(5):
        (root / "reports" / f"r{number}.pdf").write_bytes(b"%PDF-1.4\n")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield GuardedTree(0, os.fsencode(root), fd)
    os.close(fd)


def _batch(tree: GuardedTree, *paths: bytes) -> Batch:
    events, names = np.zeros(len(paths), EVENT), b""
    for at, path in enumerate(paths):
        events[at]["kind"], events[at]["path_off"], events[at]["path_len"] = Kind.CREATE, len(names), len(path)
        names += path
    return Batch(events, np.zeros(len(paths), FACTS), np.zeros((len(paths), 1), np.float32), names)


def _run(lookout: Lookout, until: threading.Event) -> None:
    thread = threading.Thread(target=lookout.run)
    thread.start()
    assert until.wait(10)
    lookout.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_the_match_is_found_among_what_cannot_be_read(tree: GuardedTree, tmp_path: Path) -> None:
    root = Path(os.fsdecode(tree.root))
    (root / "eicar.com").write_bytes(EICAR)
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to(root / "eicar.com")
    found: list[bytes] = []
    last = threading.Event()

    def tell(batch: Batch, row: int, match: Match) -> None:
        found.append(batch.path(row))
        last.set()

    lookout = Lookout(Scanner.load([], []), lambda _, path: files.open_beneath(tree.root_fd, path, os.O_NONBLOCK), tell)
    lookout.submit(_batch(tree, b"pipe", b"link", b"gone", b"reports", b"eicar.com"), range(5))
    _run(lookout, last)
    assert found == [b"eicar.com"]
    assert lookout.scanned == 1
    assert lookout.unscanned == 4


def test_past_the_limit_files_are_counted_as_unscanned(tree: GuardedTree) -> None:
    lookout = Lookout(Scanner.load([], []), lambda *_: -1, lambda *_: None, queue_limit=2)
    lookout.submit(_batch(tree, b"a", b"b", b"c"), range(3))
    assert (lookout.waiting, lookout.unscanned) == (2, 1)


def test_what_is_larger_than_the_limit_counts_as_not_scanned(tree: GuardedTree) -> None:
    root = Path(os.fsdecode(tree.root))
    found: list[bytes] = []
    last = threading.Event()

    def tell(batch: Batch, row: int, match: Match) -> None:
        found.append(batch.path(row))
        last.set()

    (root / "exact").write_bytes(bytes(4096))
    (root / "more").write_bytes(bytes(4097))
    (root / "last").write_bytes(EICAR)
    scanner = Scanner.load([], [], scan_limit_bytes=4096)
    lookout = Lookout(scanner, lambda _, path: files.open_beneath(tree.root_fd, path, os.O_NONBLOCK), tell)
    lookout.submit(_batch(tree, b"exact", b"more", b"last"), range(3))
    _run(lookout, last)
    assert (lookout.scanned, lookout.unscanned, lookout.partial) == (2, 1, 1)


def test_of_one_batch_so_many_wait_and_the_others_are_counted(tree: GuardedTree) -> None:
    lookout = Lookout(Scanner.load([], []), lambda *_: -1, lambda *_: None)
    lookout.submit(_batch(tree, *(b"%d" % number for number in range(BATCH_LIMIT + 3))), range(BATCH_LIMIT + 3))
    assert (lookout.waiting, lookout.unscanned) == (BATCH_LIMIT, 3)


def _canaries(tmp_path: Path, baseline: observe.Baseline | None = None) -> Canaries:
    known = baseline or observe.Baseline(64)
    return Canaries(
        os.fsencode(tmp_path / "canaries.json"),
        b"s" * 32,
        lambda directories, secret, count: canary.plan(directories, secret, count=count),
        lambda tree, path: known.path_hash(tree.index, path),
    )


def test_canaries_are_planted_known_again_and_taken_away(tree: GuardedTree, tmp_path: Path) -> None:
    canaries = _canaries(tmp_path)
    assert canaries.plant(tree, 3, None) == 3
    paths = canaries.in_tree(tree)
    for path in paths:
        found = os.stat(path, dir_fd=tree.root_fd)
        assert found.st_mode & 0o777 == 0o640
        assert found.st_mtime < os.stat(b"reports/r0.pdf", dir_fd=tree.root_fd).st_mtime - 86_400

    again = _canaries(tmp_path)
    assert again.plant(tree, 3, None) == 3
    assert again.in_tree(tree) == paths, "a restart plants none beside those that lie there"
    os.unlink(paths[0], dir_fd=tree.root_fd)
    assert again.plant(tree, 3, None) == 3

    assert again.plant(tree, 0, None) == 0
    left = [name for _, _, names in os.walk(tree.root) for name in names]
    assert sorted(left) == [b"r%d.pdf" % number for number in range(5)]


def test_touching_a_canary_is_marked_and_nothing_else_is(tree: GuardedTree, tmp_path: Path) -> None:
    baseline = observe.Baseline(64)
    canaries = _canaries(tmp_path, baseline)
    canaries.plant(tree, 2, None)
    canaries.remember([tree])
    touched = canaries.in_tree(tree)[0]
    batch = _batch(tree, touched, b"reports/r1.pdf")
    facts = observe.Inspector(baseline).inspect_many(tree.root_fd, batch.events, batch.names)
    marked = Batch(batch.events, facts, batch.observations, batch.names)
    canaries.mark(marked)
    assert [bool(x & FactFlag.CANARY) for x in marked.facts["flags"].tolist()] == [True, False]


def test_a_damaged_index_is_no_reason_to_fail(tree: GuardedTree, tmp_path: Path) -> None:
    (tmp_path / "canaries.json").write_bytes(b'[{"tree": 1')
    assert _canaries(tmp_path).plant(tree, 2, None) == 2
