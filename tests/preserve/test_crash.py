"""Killed at any moment, or refused any system call: what was said to be kept is kept, and the vault is whole."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from .conftest import Bench
from .crash_worker import content, write

pytestmark = pytest.mark.root
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CALLS = ("openat", "linkat", "unlinkat", "write", "pwrite64", "fdatasync")


def worker(bench: Bench, seed: int, turns: int, *before: str) -> subprocess.Popen[str]:
    for i in range(50):
        path = os.fsencode(bench.tree / f"f{i}")
        if not os.path.exists(path):
            write(path, i)
    command = [*before, sys.executable, "-m", "tests.preserve.crash_worker", str(bench.tree), str(seed), str(turns)]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen(command, stdout=pipe, stderr=null, text=True, cwd=ROOT)


def check(bench: Bench, said: list[str]) -> None:
    """Every version that was told of is there, with the content of then."""
    status = bench.again().status()
    assert (status.damaged, status.missing) == (0, 0)
    for line in said:
        if not line.endswith("\n") or len(line.split()) != 3:
            continue
        kind, version, seed = line.split()
        data = bench.content(int(version))
        if kind == "link":  # written on since
            seed = str(int.from_bytes(data[:8], "little"))
        # the file itself may have been half written when an earlier worker was killed
        assert data == b"" or content(int(seed)).startswith(data)
    objects = {version.object_id for version in bench.v.find(tree=0, standing=True)}
    here = {int(name, 16) for where in ("links", "images") for name in os.listdir(bench.place / where)}
    assert objects == here


def test_killed_at_random(on: Callable[..., Bench]) -> None:
    bench = on()
    draw = random.Random(3)
    for seed in range(12):
        with worker(bench, seed, 100_000) as process:
            assert process.stdout is not None
            said = []
            for _ in range(draw.randrange(1, 250)):
                said.append(process.stdout.readline())
            process.kill()
            said += process.stdout.readlines()
        check(bench, said)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=EIO", "error=ENOSPC"])
def test_a_fault_at_a_system_call(on: Callable[..., Bench], call: str, fault: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace here: faults at single system calls are not tested")
    bench = on()
    inject = f"inject={call}:{fault}:when={21 if call == 'write' else 7}"
    # only names in the vault: those of the interpreter's start are not ours to survive
    places = [bench.place, *(bench.place / name for name in ("links", "images", "index"))]
    traced = [x for place in places for x in ("-P", str(place))] if call.endswith("at") else []
    bench.again()
    with worker(bench, 4, 200, "strace", "-f", "-qq", "-o", "/dev/null", *traced, "-e", inject) as process:
        said = list(process.stdout or ())
    check(bench, said)
