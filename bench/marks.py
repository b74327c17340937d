"""Guarding a whole file system by one mark: shieldd's fanotify source beside bare C, and 100,000 directories.

The storm, the backlog and the live run are those of `watch`, on a tmpfs that nobody else uses; readers take turns in
each round. A merged record counts once for each operation of the storm, in C as here: what is counted is six a file.

Why the processor time of the live storm is above 0.35 s per 1M events: the bare C reader with the same pauses, which
finds no names, shows what the kernel's part is. Why the memory is above 40 MB: Python, numpy and our modules are most
of it before there is a tree; 100,000 directories add 12 MiB.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.watch import FILES, Row, backlog, build, end_reader, live, median, nested, row, start_reader

DIRECTORIES: Final = 100_000
ROUNDS: Final = 5
COMMAND: Final = "python -m bench marks"
OURS: Final = "fanotify"
Run = dict[str, float]
WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")


@contextmanager
def own(where: Path) -> Iterator[Path]:
    """A file system in memory that nobody else uses: a mark is on all of it."""
    place = where / "own"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shieldd-bench", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def in_turns(names: Sequence[str], run: Callable[[str], Run], rounds: int) -> dict[str, list[Run]]:
    """Every reader once in each round, so that what else happens on the machine meets all of them."""
    kept: dict[str, list[Run]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            kept[name].append(run(name))
    return kept


def storm_rows(where: Path, files: int, rounds: int) -> Iterator[Row]:
    """Drain, live storm, directories made a moment before."""
    with own(where) as place:
        drains = in_turns([OURS, "fanotify C"], lambda name: backlog(where, name, files, place), rounds)
        peers = ("fanotify C", "fanotify C moderated")
        storms = in_turns([OURS, *peers], lambda name: live(where, name, files, place), rounds)
        seen = [nested(where, OURS, place) for _ in range(3)]
    ours, bare = (median(drains[name], "rate") for name in drains)
    lost = max(run["lost"] for run in drains[OURS])
    yield row("drain to Python batches with names and actors, backlog", round(ours), "events/s",
              f"bare C {bare:,.0f}/s", round(ours / bare, 2), "≥ 0.75 of bare C", met=ours >= 0.75 * bare and not lost,
              command=COMMAND)  # fmt: skip
    spent = median(storms[OURS], "cpu_per_million")
    beside = ", ".join(f"{name.removeprefix('fanotify ')} {median(storms[name], 'cpu_per_million'):.2f}"
                       for name in peers)  # fmt: skip
    yield row("processor time of the live storm", round(spent, 3), "CPU s per 1M events", beside,
              round(spent / median(storms[peers[1]], "cpu_per_million"), 2), "≤ 0.35", met=spent <= 0.35,
              command=COMMAND)  # fmt: skip
    yield row("the storm itself beside our reader", round(median(storms[OURS], "storm_s"), 2), "s",
              f"beside bare C {median(storms[peers[0]], 'storm_s'):.2f}", command=COMMAND)  # fmt: skip
    lost = max(run["lost"] for run in storms[OURS])
    yield row(f"lost in the live storm of {files * 5:,} operations (worst of {rounds})", lost, "events", "", None, "0",
              met=lost == 0, command=COMMAND)  # fmt: skip
    yield row("files in directories made a moment before, seen of 300, three runs", min(seen), "files",
              " ".join(map(str, seen)), None, "300", met=min(seen) == 300, command=COMMAND)  # fmt: skip


def _guarded(where: Path, name: str, tree: Path) -> Run:
    """One start on a tree: seconds, and resident memory before and after."""
    began = time.perf_counter()
    reader = start_reader(where, name, tree)
    took = time.perf_counter() - began
    pages = int(Path(f"/proc/{reader.pid}/statm").read_text().split()[1])
    (tree / "END").write_bytes(b"x")
    said = {"start_s": took, "start_rss_kib": pages * os.sysconf("SC_PAGE_SIZE") / 1024, "bare_rss_kib": 0.0}
    said |= end_reader(reader)
    (tree / "END").unlink()
    return said


def directory_rows(where: Path, directories: int, rounds: int) -> Iterator[Row]:
    """What it takes until a tree of so many directories is guarded."""
    with own(where) as place:
        tree = place / "tree"
        for i in range(directories // 100):
            for j in range(100):
                (tree / f"{i}" / f"{j}").mkdir(parents=True)
        names = (OURS, "native", "C")
        runs = in_turns(names, lambda name: _guarded(where, name, tree), rounds)
        shutil.rmtree(tree)
    took, plain, bare = (median(runs[name], "start_s") for name in names)
    count = f"{directories:,} directories guarded"
    yield row(f"{count}, by a mark (root)", round(took * 1e3, 2), "ms", "", None, "≤ 10 ms", met=took <= 0.01,
              command=COMMAND)  # fmt: skip
    yield row(f"{count}, by inotify", round(plain, 2), "s", f"bare C {bare:.2f} s", round(plain / bare, 2), "≤ 1.5 s",
              met=plain <= 1.5, command=COMMAND)  # fmt: skip
    mib = {name: median(runs[name], "start_rss_kib") / 1024 for name in names}
    before = statistics.median(run["bare_rss_kib"] for run in runs["native"]) / 1024
    yield row(f"{count}, by inotify: resident memory of the reader, Python and numpy in it", round(mib["native"], 1),
              "MiB", f"{before:.1f} before the tree; by a mark {mib[OURS]:.1f}; bare C {mib['C']:.1f}", None, "≤ 40 MB",
              met=mib["native"] * 1.048576 <= 40, command=COMMAND)  # fmt: skip


def rows() -> Iterable[Row]:
    """The measurements; none where this is not root."""
    if os.geteuid() != 0:
        return
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="shieldd-bench-", dir=memory) as name:
        where = Path(name)
        build(where)
        yield from storm_rows(where, FILES, ROUNDS)
        if int(WATCHES.read_text()) > DIRECTORIES:
            yield from directory_rows(where, DIRECTORIES, ROUNDS)
