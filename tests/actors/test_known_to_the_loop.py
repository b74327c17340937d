"""What the loop learns of the actors of a batch: trust only for what earned it, incidents without secrets."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shieldd.actors import HOLDS_NS, Known
from shieldd.model.event import EVENT, FACTS, Batch, EventFlag
from shieldd.native.actors import Actors

from .conftest import Processes, until

BASH = Path("/usr/bin/bash")


class Clock:
    """A clock that tests turn."""

    now = 1

    def __call__(self) -> int:
        return self.now


def batch_of(*rows: tuple[int, int]) -> Batch:
    """Events of (actor, flags)."""
    events = np.zeros(len(rows), EVENT)
    for row, (actor, flags) in enumerate(rows):
        events[row]["actor"], events[row]["flags"] = actor, flags
    return Batch(events, np.zeros(len(rows), FACTS), np.zeros((len(rows), 1), np.float32), b"")


@pytest.fixture
def bash() -> bytes:
    return hashlib.sha256(BASH.read_bytes()).digest()


def waiting_shell(processes: Processes) -> subprocess.Popen[bytes]:
    process = processes.run(BASH, "-c", "read x; exec sleep 100", stdin=subprocess.PIPE)
    until(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(BASH), "exec")
    until(lambda: Path(f"/proc/{process.pid}/environ").read_bytes(), "its environment")
    return process


def test_a_trusted_program_is_named_until_it_runs_another(actors: Actors, processes: Processes, bash: bytes) -> None:
    clock = Clock()
    known = Known(actors, lambda: frozenset({bash}), clock=clock)
    process = waiting_shell(processes)
    key, _ = actors.of(process.pid)
    batch = batch_of((key, EventFlag.ATTRIBUTED))
    identity = known.identities(batch)[key]
    assert (identity.pid, identity.exe_sha256) == (process.pid, bash)
    assert process.stdin is not None
    process.stdin.close()
    until(lambda: os.readlink(f"/proc/{process.pid}/exe") == shutil.which("sleep"), "exec")
    assert known.identities(batch), "good for a moment"
    clock.now += HOLDS_NS
    assert known.identities(batch) == {}


def test_a_guess_and_a_tree_earn_no_trust(actors: Actors, processes: Processes, bash: bytes) -> None:
    known = Known(actors, lambda: frozenset({bash}))
    key, _ = actors.of(waiting_shell(processes).pid)
    assert known.identities(batch_of((key, EventFlag.ATTRIBUTED | EventFlag.GUESSED), (1, 0), (key, 0))) == {}
    assert known.identities(batch_of((key ^ 1, EventFlag.ATTRIBUTED))) == {}


def test_nobody_is_looked_at_where_nobody_is_trusted(actors: Actors, processes: Processes) -> None:
    known = Known(actors, frozenset)
    key, _ = actors.of(waiting_shell(processes).pid)
    assert known.identities(batch_of((key, EventFlag.ATTRIBUTED))) == {}


def test_an_incident_shows_no_secret(actors: Actors, processes: Processes) -> None:
    known = Known(actors, frozenset)
    process = processes.run(BASH, "-c", "read x; :", "--passphrase", "hunter2", stdin=subprocess.PIPE)
    until(lambda: b"hunter2" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), "exec")
    key, _ = actors.of(process.pid)
    shown = known.actor(key)
    assert shown is not None and (shown.pid, shown.exe) == (process.pid, bytes(BASH))
    assert b"hunter2" not in shown.cmdline and b"--passphrase\0***\0" in shown.cmdline
    assert known.actor(1) is None, "a tree is nobody"
