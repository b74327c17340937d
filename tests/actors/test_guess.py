"""The best guess where the kernel does not say who: open descriptors, in bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from shieldd.native.actors import Actors

from .conftest import Processes


def holding(processes: Processes, *paths: tuple[Path, str]) -> int:
    """A process that has files open in given modes."""
    opened = ", ".join(f"open({str(path)!r}, {mode!r})" for path, mode in paths)
    process = processes.run(
        sys.executable,
        "-c",
        f"x = [{opened}]; print(flush=True); input()",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process.pid


def test_writers_come_first_and_others_do_not_come(actors: Actors, processes: Processes, tmp_path: Path) -> None:
    trees = [tmp_path / "one", tmp_path / "two"]
    for tree in (*trees, tmp_path / "one-beside"):
        tree.mkdir()
        (tree / "f").write_text("x")
    reader = holding(processes, *[(trees[0] / "f", "r")] * 5)
    writer = holding(processes, (trees[0] / "f", "r+"), (trees[0] / "f", "r"))
    other = holding(processes, (trees[1] / "g", "w"))
    holding(processes, (tmp_path / "one-beside" / "f", "r+"))
    found = actors.guess([os.fsencode(tree) for tree in trees], budget_s=5)
    assert [(x.root, x.pid, x.writing, x.open) for x in found] == [
        (0, writer, 1, 1),
        (0, reader, 0, 5),
        (1, other, 1, 0),
    ]
    assert found[0].key == actors.of(writer)[0]
    info = actors.info(found[0].key, guessed=True)
    assert info is not None and info.guessed and info.sole_digest is None and info.exe_sha256


def test_a_working_directory_counts(actors: Actors, processes: Processes, tmp_path: Path) -> None:
    process = processes.run("sleep", "100", cwd=tmp_path)
    assert [(x.pid, x.writing, x.open) for x in actors.guess([os.fsencode(tmp_path)], budget_s=5)] == [
        (process.pid, 0, 1)
    ]


def test_we_are_never_the_guess(actors: Actors, tmp_path: Path) -> None:
    with (tmp_path / "f").open("w"):
        assert actors.guess([os.fsencode(tmp_path)], budget_s=5) == []


def test_time_is_bounded(actors: Actors) -> None:
    start = time.thread_time()
    actors.guess([b"/"], budget_s=0)
    assert time.thread_time() - start < 0.02
