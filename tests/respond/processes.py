"""Real processes to be stopped, each family below a directory that the test made and marked; they end with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shieldd.model.contained import Member
from tests.conftest import SCRATCH_MARK

DEADLINE_S = 20.0
LIFE_S = 30.0
#: What every program begins with: it works in its own directory and nowhere else, says when it is ready, and ends by
#: itself, with all that it made, should the test be killed before it could end it.
HEAD = f"""
import os, signal, sys, time
END = time.monotonic() + {LIFE_S}
os.chdir(sys.argv[1])
assert os.path.exists({SCRATCH_MARK!r})
def ready(name): open(name, "w").close()
def late(): return time.monotonic() > END
def rest():
    while not late(): time.sleep(0.1)
    os._exit(0)
def work(name):
    n = 0
    while not late():
        n += 1
        with open(name, "w") as f: f.write(str(n))
    os._exit(0)
"""


def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for something to be so."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, what or "it did not happen in time"
        time.sleep(0.005)


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def state(pid: int) -> str:
    """State letter; `-` where it is gone."""
    return (stat(pid) or ["-"])[0]


def member(pid: int) -> Member:
    """A process by number and start."""
    return Member(pid, int(stat(pid)[19]))


def session(sid: int) -> list[int]:
    """Living processes of a session."""
    pids = [int(x) for x in os.listdir("/proc") if x.isdigit()]
    found = [(pid, stat(pid)) for pid in pids]
    return [pid for pid, fields in found if fields and fields[3] == str(sid) and fields[0] not in "ZX"]


class Zoo:
    """Starts programs, each in a session of its own, and ends them all."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, *, ready: str = "ready", argv: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Run Python text; returns when the file `ready` is there."""
        assert (self.scratch / SCRATCH_MARK).exists()
        (self.scratch / ready).unlink(missing_ok=True)
        # argv[0] of a copy or link, where a test wants one
        command = [*(argv or (sys.executable,)), "-S", "-c", HEAD + program, str(self.scratch)]
        process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
        self._started.append(process)
        until((self.scratch / ready).exists, f"{ready} did not come")
        return process

    def own(self, process: subprocess.Popen[bytes]) -> None:
        """End this one too."""
        self._started.append(process)

    def advances(self, name: str) -> bool:
        """Whether a worker that writes this file is at work."""
        path = self.scratch / name
        seen = {self._written(path)}
        end = time.monotonic() + 0.25
        while time.monotonic() < end and len(seen) == 1:
            time.sleep(0.005)
            seen.add(self._written(path))
        return len(seen) > 1

    @staticmethod
    def _written(path: Path) -> int:
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def end(self) -> None:
        """Kill every session that was started here, and whoever works in the scratch directory."""
        for process in self._started:
            for pid in session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait(DEADLINE_S)
        for pid in inside(self.scratch):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def inside(scratch: Path) -> Iterator[int]:
    """Processes whose working directory is the scratch tree: those that left their session too."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/cwd") == str(scratch):
                    yield int(name)
