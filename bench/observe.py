"""Observe: changed files inspected on one core: open, stat, three samples, all facts; page cache warm."""

from __future__ import annotations

import gzip
import os
import random
import statistics
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from shieldd.model.event import EVENT, Kind
from shieldd.native.observe import Baseline, Inspector

FILES: Final = 3_000
RUNS: Final = 7
TARGET: Final = 15_000
COMMAND: Final = "python -m bench observe"


def rows() -> Iterable[dict[str, Any]]:
    """The measurements, pinned to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="shieldd-bench-") as name:
        root = Path(name)
        kinds = corpus()
        for kind, contents in kinds.items():
            yield measure(root / kind, kind, contents, TARGET if kind == "a mixture" else None)


def measure(root: Path, kind: str, contents: list[bytes], target: int | None) -> dict[str, Any]:
    """Files of one kind, beside bare system calls on the same files."""
    events, names = lay(root, contents)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    inspector = Inspector(Baseline(FILES * 2))
    paths = [names[e["path_off"] : e["path_off"] + e["path_len"]] for e in events]
    rate, wall = per_second(lambda: inspector.inspect_many(fd, events, names))
    bare, _ = per_second(lambda: read_bare(fd, paths))
    os.close(fd)
    return {
        "what": f"inspect changed files, {kind}", "value": round(rate), "unit": "files per CPU s",
        "peer": f"Python open, fstat, 3 preads: {bare:,.0f}; by the clock of this loaded machine: {wall:,.0f}",
        "ratio": round(rate / bare, 2), "target": "–" if target is None else f"≥ {target} files/s",
        "met": None if target is None else rate >= target, "command": COMMAND,
    }  # fmt: skip


def per_second(body: Callable[[], object]) -> tuple[float, float]:
    """Medians of files per CPU second and per second of the clock."""
    body()
    cpu, wall = [], []
    for _ in range(RUNS):
        c, w = time.process_time(), time.perf_counter()
        body()
        cpu.append(FILES / (time.process_time() - c))
        wall.append(FILES / (time.perf_counter() - w))
    return statistics.median(cpu), statistics.median(wall)


def read_bare(root: int, paths: list[bytes]) -> None:
    """The same system calls with nothing computed."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root)
        size = os.fstat(fd).st_size
        for offset in (0, size // 2, max(size - 4096, 0)):
            os.pread(fd, 4096, offset)
        os.close(fd)


def lay(root: Path, contents: list[bytes]) -> tuple[np.ndarray, bytes]:
    """Write the files and make one event for each."""
    root.mkdir()
    events = np.zeros(FILES, EVENT)
    events["kind"] = Kind.WRITE
    arena = b""
    for i in range(FILES):
        name = b"ward%d/file%05d.dat" % (i % 30, i)
        path = root / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents[i % len(contents)])
        events[i]["path_off"], events[i]["path_len"] = len(arena), len(name)
        arena += name
    return events, arena


def corpus() -> dict[str, list[bytes]]:
    """Contents of one kind each, and a mixture, as a hospital's share has them; the same in every run."""
    rng = random.Random(2)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(800)]

    def text(size: int) -> bytes:
        out = b"\n".join(b" ".join(rng.choices(words, k=11)) for _ in range(size // 60))
        return out + b"\nMRN: 4829131 seen 2026-01-01\n"

    def dicom(size: int) -> bytes:
        meta = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
        name = struct.pack("<HH2sH", 0x10, 0x10, b"PN", 8) + b"DOE^JANE"
        tags = b"".join(struct.pack("<HH2sHH", 0x28, n, b"US", 2, 512) for n in (0x10, 0x11, 0x100, 0x101))
        pixels = b"".join(struct.pack("<H", 900 + rng.randint(0, 60)) for _ in range(size // 2))
        return (
            b"\0" * 128
            + b"DICM"
            + meta
            + name
            + tags
            + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, len(pixels))
            + pixels
        )

    sizes = [1_500, 9_000, 40_000, 150_000]
    kinds = {
        "text": [text(n) for n in sizes],
        "gzip": [gzip.compress(text(n * 3)) for n in sizes],
        "dicom": [dicom(n) for n in sizes],
        "cipher": [rng.randbytes(n) for n in sizes],
        "zlib": [zlib.compress(text(n * 3)) for n in sizes],
    }
    mixture = [content for contents in zip(*kinds.values(), strict=True) for content in contents]
    return {"a mixture": mixture} | kinds
