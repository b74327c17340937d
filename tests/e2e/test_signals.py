"""Signals end the daemon cleanly or not at all, however they come."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .running import Running, until


def configured(daemon: Running, more: str = "") -> list[str]:
    """The command line of a daemon with a configuration file, so that SIGHUP has something to do."""
    daemon.state.mkdir(mode=0o700, exist_ok=True)
    file = daemon.ground / "shieldd.toml"
    file.write_text(
        f'[daemon]\nmode = "personal"\nstate_dir = "{daemon.state}"\nsocket = "{daemon.socket}"\n'
        f'[[tree]]\npath = "{daemon.tree}"\n[keys]\nunlock = "keyfile"\n{more}'
    )
    return [*daemon.command()[:3], "--config", str(file)]


def test_a_reload_and_an_end_a_moment_apart(ground: Path) -> None:
    def rounds(name: str) -> None:
        (ground / name).mkdir()
        daemon = Running(ground / name)
        command = configured(daemon)
        for number in range(4):
            daemon.start(command)
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            time.sleep(0.003)
            assert daemon.stop() == 0, f"round {number}: {daemon.log.read_text()[-2000:]}"

    with ThreadPoolExecutor(3) as pool:
        for ended in [pool.submit(rounds, name) for name in "abc"]:
            ended.result()


def test_stopped_continued_and_flooded_it_goes_on(daemon: Running) -> None:
    assert daemon.process is not None
    pid = daemon.process.pid
    for _ in range(5):
        os.kill(pid, signal.SIGSTOP)
        until("a stopped daemon", lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        os.kill(pid, signal.SIGCONT)
        daemon.fence()
    for _ in range(3000):
        os.kill(pid, signal.SIGHUP)
    daemon.fence()
    assert daemon.stop() == 0


@pytest.mark.parametrize("key", ["digests", "yara_rules"])
def test_a_fifo_in_the_configuration_does_not_hold_the_reload(ground: Path, key: str) -> None:
    daemon = Running(ground)
    command = configured(daemon)
    daemon.start(command)
    os.mkfifo(ground / "pipe")
    configured(daemon, f'[guard]\n{key} = ["{ground}/pipe"]\n')
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    codes = lambda: [x["code"] for x in daemon.client.get("/v1/status")["troubles"]]  # noqa: E731
    until("a refused reload", lambda: any(code.startswith("scan.") for code in codes()))
    assert daemon.stop() == 0
