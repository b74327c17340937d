"""Who did it: a first look at a process, later ones, all members of an actor

The processes are real (`sleep`, children of one shell in a session of its own); times are of one thread, medians of
several rounds; a later look is the hash lookup that each event costs beside the one question for each batch.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any

from shieldd.native._abi import call, ffi, lib
from shieldd.native.actors import Actors

COUNT = 200
ROUNDS = 7
LATER = 100_000


def rows() -> Iterable[dict[str, Any]]:
    """The measurements."""
    script = f"for i in $(seq {COUNT}); do sleep 600 & done; wait"
    shell = subprocess.Popen(["/bin/bash", "-c", script], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        pids = _children(shell.pid)
        yield row("first look at a process that acts (worker of a known actor)", _first(pids), "µs", 60)
        yield row("first look at a new actor, its parents looked at too", _alone(pids), "µs", None)
        yield row("later look at a process, for each event", _later(pids), "µs", 0.2)
        actors = Actors(own=[os.getpid()], processes=4096)
        _of(actors, pids)
        key, _ = actors.of(pids[0])
        live = sum(name.isdigit() for name in os.listdir("/proc"))
        took = median(lambda: actors.members(key), 1e3)
        yield row(f"members of an actor of {COUNT + 1}, {live} processes in /proc", took, "ms", None)
        yield row("guess from open descriptors, the same processes", median(lambda: _guess(actors), 1e3), "ms", None)
        yield row(
            "what is known of an actor, into Python, digest known", median(lambda: actors.info(key), 1e6), "µs", None
        )
    finally:
        for pid in [*_children(shell.pid, 0), shell.pid]:
            os.kill(pid, signal.SIGKILL)
        shell.wait()


def row(what: str, value: float, unit: str, target: float | None) -> dict[str, Any]:
    """One line of the page; no peer does this."""
    return {
        "what": what,
        "value": round(value, 3),
        "unit": unit,
        "peer": "",
        "ratio": None,
        "target": f"≤ {target:g} {unit}" if target else "",
        "met": value <= target if target else None,
        "command": "python -m bench actors",
    }


def median(body: Callable[[], object], scale: float) -> float:
    """Median CPU time of a call; scale 1e6 gives microseconds."""
    took = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        body()
        took.append((time.thread_time() - start) * scale)
    return statistics.median(took)


def _of(actors: Actors, pids: list[int]) -> float:
    """CPU seconds of one call for many processes."""
    numbers = ffi.new("int32_t[]", pids)
    keys, certain = ffi.new("uint64_t[]", len(pids)), ffi.new("uint8_t[]", len(pids))
    start = time.thread_time()
    call(lib.shd_actors_of, actors.handle, numbers, len(pids), keys, certain)
    return time.thread_time() - start


def _first(pids: list[int]) -> float:
    took = []
    for _ in range(ROUNDS):
        actors = Actors(own=[os.getpid()])
        actors.of(pids[0])
        took.append(_of(actors, pids[1:]) / (len(pids) - 1) * 1e6)
    return statistics.median(took)


def _alone(pids: list[int]) -> float:
    took = []
    for pid in pids[:50]:
        actors = Actors(own=[os.getpid()])
        actors.of(1)  # its threads run
        took.append(_of(actors, [pid]) * 1e6)
    return statistics.median(took)


def _later(pids: list[int]) -> float:
    took = []
    actors = Actors(own=[os.getpid()])
    many = (pids * (LATER // len(pids) + 1))[:LATER]
    for _ in range(ROUNDS):
        _of(actors, pids)
        took.append(_of(actors, many) / LATER * 1e6)
    return statistics.median(took)


def _guess(actors: Actors) -> object:
    return actors.guess([b"/nowhere"], budget_s=5)


def _children(pid: int, count: int = COUNT) -> list[int]:
    end = time.monotonic() + 30
    while True:
        with open(f"/proc/{pid}/task/{pid}/children") as listed:
            found = [int(x) for x in listed.read().split()]
        if len(found) >= count and all(os.readlink(f"/proc/{x}/exe").endswith("/sleep") for x in found):
            return found
        if time.monotonic() > end:
            raise TimeoutError("the processes did not start")
