"""The first look: files that were there before are known, and what changed while nobody watched is counted."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shieldd.model.event import EVENT, FactFlag, Kind
from shieldd.native.files import hidden_name
from shieldd.native.observe import Baseline, Inspector
from shieldd.respond import GuardedTree
from shieldd.survey import Found, Survey


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[GuardedTree]:
    root = tmp_path / "tree"
    for number in range(100):
        directory = root / f"d{number % 7}" / "deep"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}.gz").write_bytes(gzip.compress(b"patient %d " % number * 500))
    (root / "skip").mkdir()
    (root / "skip" / "x.gz").write_bytes(b"x")
    (root / ".shieldd-123").write_bytes(b"somebody's")
    (root / os.fsdecode(hidden_name())).write_bytes(b"ours")
    (root / "link").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"odd\n\xff.txt")).write_text("text")
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield GuardedTree(0, os.fsencode(root), fd)
    os.close(fd)


def _survey(tree: GuardedTree, baseline: Baseline) -> Found:
    told: list[Found] = []
    survey = Survey([(tree, [b"skip/"])], Inspector(baseline), told.append)
    survey.run()
    assert survey.done
    return told[0]


def test_files_from_before_are_known_afterwards(tree: GuardedTree) -> None:
    baseline = Baseline(1000)
    assert _survey(tree, baseline) == Found(102, 0, 0)
    event = np.zeros(1, EVENT)
    event["kind"], event["path_len"] = Kind.DELETE, len(b"d0/deep/f0.gz")
    facts = Inspector(baseline).inspect_many(tree.root_fd, event, b"d0/deep/f0.gz")
    assert int(facts["flags"][0]) & FactFlag.KNOWN_BEFORE


def test_what_changed_meanwhile_is_counted(tree: GuardedTree) -> None:
    baseline = Baseline(1000)
    _survey(tree, baseline)
    root = Path(os.fsdecode(tree.root))
    (root / "d0" / "deep" / "f0.gz").write_bytes(os.urandom(4096))
    (root / "d1" / "deep" / "f1.gz").write_bytes(gzip.compress(b"a new report " * 900))
    assert _survey(tree, baseline) == Found(102, 2, 1)


def test_a_stop_ends_it_early(tree: GuardedTree) -> None:
    told: list[Found] = []
    survey = Survey([(tree, [])], Inspector(Baseline(1000)), told.append)
    survey.stop()
    survey.run()
    assert told == [] and not survey.done
