"""Real processes that tests start, find and put away again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shieldd.native.actors import Actors

DEADLINE_S = 30.0


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for something, at most until the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def session(sid: int) -> set[int]:
    """Living processes of a session."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_of(int(name))) and int(fields[3]) == sid and fields[0] != "Z":
            found.add(int(name))
    return found


def children(pid: int) -> list[int]:
    """Processes that it started and has not waited for; quick enough to catch short-lived ones."""
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stat_of(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name; empty where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text[text.rindex(b")") + 2 :].decode().split()


def start_ticks(pid: int) -> int:
    """Start of a process, clock ticks since boot."""
    return int(stat_of(pid)[19])


@dataclass(slots=True)
class Processes:
    """Starts processes; all of their sessions end with the test."""

    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, *command: str | bytes | Path, new_session: bool = True, **options: object) -> subprocess.Popen[bytes]:
        """Start a program, in a session of its own unless told otherwise."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.DEVNULL)
        process: subprocess.Popen[bytes] = subprocess.Popen(command, start_new_session=new_session, **options)  # type: ignore[call-overload]
        self.started.append(process)
        return process

    def shell(self, script: str, count: int = 1) -> set[int]:
        """Run a script in a session of its own; returns when that has so many processes beside the shell."""
        top = self.run("/bin/bash", "-c", script + "\n:")
        until(lambda: len(session(top.pid)) > count, f"{count} processes of {script!r}")
        return session(top.pid)

    def end(self) -> None:
        """End all of them."""
        for process in self.started:
            for pid in session(process.pid) | {process.pid}:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait(DEADLINE_S)


@pytest.fixture
def processes() -> Iterator[Processes]:
    started = Processes()
    yield started
    started.end()


@pytest.fixture
def actors() -> Actors:
    """A table of its own; the test itself is "ours"."""
    return Actors(own=[os.getpid()])
