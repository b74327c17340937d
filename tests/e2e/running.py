"""A real daemon on a real directory, worked as an admin works it: processes, signals, the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from shieldctl.client import Client
from shieldd.errors import ShieldError

START_S = 60.0
STOP_S = 30.0
SEEN_S = 60.0
COMMAND_S = 300.0
T = TypeVar("T")


def until(what: str, probe: Callable[[], T | None], deadline_s: float = SEEN_S) -> T:
    """The first true answer of `probe`; fails with `what` at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited {deadline_s:g} s for {what}"
        time.sleep(0.02)


class Running:
    """One daemon and its places below `ground`: `tree` is guarded, `state` and `s` (the socket) are its own.

    Args:
        ground: a directory that everybody may enter and only this test uses.
    """

    def __init__(self, ground: Path) -> None:
        self.ground = ground
        self.tree = ground / "tree"
        self.tree.mkdir(mode=0o755, exist_ok=True)
        self.state = ground / "state"
        self.socket = ground / "s"
        self.log = ground / "log"
        self.client = Client(str(self.socket))
        self.process: subprocess.Popen[bytes] | None = None
        self._fences = 0

    def command(self) -> list[str]:
        """How it is started in personal mode."""
        return [
            sys.executable, "-m", "shieldd", "run",
            "--protect", str(self.tree), "--socket", str(self.socket), "--state", str(self.state),
        ]  # fmt: skip

    def start(self, command: list[str] | None = None) -> Running:
        """Starts it and waits until it is ready."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command or self.command(), stdout=out, stderr=out, cwd=self.ground)
        until("a ready daemon", self._ready, START_S)
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended: {self.log.read_text()[-2000:]}"
        try:
            health = self.client.get("/v1/health")
        except ShieldError:
            return False
        return health["state"] in {"ready", "degraded"} and health["pid"] == self.process.pid

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait(STOP_S)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_S)

    def ctl(self, *arguments: str | Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Runs shieldctl; `expect` is the exit status, None for any."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "shieldctl",
                "--socket",
                str(self.socket),
                *(os.fspath(argument) for argument in arguments),
            ],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )
        assert expect is None or done.returncode == expect, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *arguments: str | Path, expect: int | None = 0) -> Any:
        """What shieldctl prints with `--json`."""
        return json.loads(self.ctl(*arguments, "--json", expect=expect).stdout)

    def fence(self) -> None:
        """Returns once the daemon has on record everything that happened in the tree before now."""
        self._fences += 1
        path = self.tree / f"fence-{os.getpid()}-{self._fences}"
        path.write_bytes(b"fence\n")
        until("the fence to be seen", lambda: self.client.get("/v1/events", under=str(path), limit=1)["items"])

    def quarantined(self, below: Path | None = None) -> list[dict[str, Any]]:
        """Objects in quarantine that came from `below`, by default from anywhere."""
        items: list[dict[str, Any]] = self.client.get("/v1/quarantine", limit=10_000)["items"]
        return [item for item in items if below is None or item["original"].startswith(str(below))]

    def sealed(self, below: Path | None = None) -> list[dict[str, Any]]:
        """Sealed files below a directory."""
        items: list[dict[str, Any]] = self.client.get("/v1/files", under=str(below or self.tree), limit=10_000)["items"]
        return items

    def actions(self) -> list[dict[str, Any]]:
        """Everything but alerts that was done, over all threats."""
        threats = self.client.get("/v1/threats", limit=10_000)["items"]
        return [action for threat in threats for action in threat["actions"] if action["kind"] != "alert"]

    def contained(self) -> list[dict[str, Any]]:
        """Alerts that say `contain`."""
        items = self.client.get("/v1/alerts", limit=10_000)["items"]
        return [item for item in items if item["kind"] == "contain"]


def needs(*programs: str) -> str:
    """Why a test cannot run here: the programs that are missing, empty when none are."""
    missing = [program for program in programs if not shutil.which(program)]
    return f"not installed: {', '.join(missing)}" if missing else ""
