"""The real program as a process, against a real server around the engine in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.api.conftest import Served, serve

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str


@dataclass
class Shell:
    """Runs shieldctl."""

    served: Served
    home: Path

    def environment(self, **changes: str) -> dict[str, str]:
        """A small, fixed environment; the socket is found by SHIELD_SOCKET."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "SHIELD_SOCKET": self.served.path,
            **changes,
        }

    def run(
        self, *arguments: str | bytes, stdin: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Ended:
        """One command line, not on a terminal."""
        done = subprocess.run(
            [sys.executable, "-m", "shieldctl", *arguments],
            input=stdin.encode(),
            capture_output=True,
            timeout=DEADLINE_S,
            env=self.environment() if env is None else dict(env),
            cwd=cwd or Path(__file__).resolve().parents[2],
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def opened() -> Iterator[Shell]:
    """A shell with a daemon that was just started."""
    home = Path(tempfile.mkdtemp(prefix="shieldd-cli-"))
    home.chmod(0o755)
    running = serve(home)
    try:
        yield Shell(running, home)
    finally:
        running.server.stop()
        shutil.rmtree(home)


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A shell with a daemon of the test's own."""
    with opened() as one:
        yield one
