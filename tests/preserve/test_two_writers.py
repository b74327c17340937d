"""An answerer's process makes images while the daemon links, evicts and reads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from .conftest import Bench

pytestmark = pytest.mark.root
ANSWERER = """
import os, sys, time
from shieldd.native.preserve import Vault, VaultOptions
tree, fd = os.fsencode(sys.argv[1]), int(sys.argv[2])
vault = Vault(fd, VaultOptions(trees=((0, tree),), index=False))
for i in range(2000):
    name = b"f%d" % (i % 100)
    with open(os.path.join(tree, name), "rb") as file:
        print(vault.image(file.fileno(), 0, name, actor=i + 1, at_ns=time.time_ns()))
"""


def test_two_processes_at_once(on: Callable[..., Bench]) -> None:
    bench = on()
    for i in range(100):
        bench.write(f"f{i}", bytes([i]) * 3000)
    assert bench.v.status().versions == 0
    fd = os.open(bench.place, os.O_RDONLY)
    command = [sys.executable, "-c", ANSWERER, str(bench.tree), str(fd)]
    made: list[int] = []
    with subprocess.Popen(command, pass_fds=[fd], stdout=subprocess.PIPE, text=True) as answerer:
        assert answerer.stdout is not None
        for line in answerer.stdout:
            made.append(int(line))
            if len(made) % 40 == 0:
                bench.walk()
                bench.v.settle(now_ns=bench.later_ns, budget_bytes=1 << 20)
                bench.evict(now_ns=time.time_ns(), bytes_max=1 << 30)
                bench.v.find(tree=0, limit=10)
    os.close(fd)
    assert answerer.returncode == 0 and len(made) == 2000
    for version in made:
        found = bench.v.version(version)
        assert bench.content(found) == bytes([int(found.path[1:])]) * 3000
    status = bench.again().status()
    assert (status.damaged, status.missing, status.swept, status.versions) == (0, 0, 0, 2100)
