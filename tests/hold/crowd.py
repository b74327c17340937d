"""A crowd of openers from a program of its own (`crowd.c`), which measures how long each waited."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Waited:
    """What a crowd says at its end."""

    opens: int
    refused: int
    failed: int
    longest_ms: float
    median_ms: float


@dataclass
class Crowd:
    """A crowd that is at work."""

    process: subprocess.Popen[str]

    def end(self) -> Waited:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, err
        opens, refused, failed, longest, median = map(int, out.split())
        return Waited(opens, refused, failed, longest / 1000, median / 1000)


def built(where: Path) -> Path:
    """The program, compiled."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        pytest.skip("needs a C compiler")
    out = where / "crowd"
    subprocess.run([compiler, "-O2", "-pthread", "-o", out, HERE / "crowd.c"], check=True)
    return out


@contextmanager
def crowd(
    program: Path, directory: Path, threads: int, seconds: float, *, pause_ms: int = 50, write: bool = True
) -> Iterator[Crowd]:
    """Threads that open their files, from now on for so long; the files are made by who calls."""
    command = [program, directory, str(threads), str(seconds), str(pause_ms), str(int(write))]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield Crowd(process)
    finally:
        process.kill()
        process.wait()
