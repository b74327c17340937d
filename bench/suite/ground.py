"""A file system of its own with a corpus on it, and the real daemon in service mode that guards it.

Owns the mount, the daemon's process and what is asked of it. Everything that an attack touches lies below one marked
directory on that file system; the machine's own file systems are never marked, never guarded, never attacked.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from shieldctl.client import Client
from shieldctl.drill.corpus import CorpusFile, build
from shieldctl.drill.tree import ScratchTree
from shieldd.errors import ShieldError

START_S: Final = 60.0
STOP_S: Final = 30.0
DEADLINE_S: Final = 60.0
_CONFIG: Final = """\
[daemon]
state_dir = "{state}"
socket = "{socket}"
host_id = "ground"
[[tree]]
path = "{tree}"
[keys]
unlock = "keyfile"
{more}
"""

T = TypeVar("T")


def until(what: str, probe: Callable[[], T | None], deadline_s: float = DEADLINE_S) -> T:
    """The first true answer of `probe`.

    Raises:
        TimeoutError: with `what`, at the deadline.
    """
    end = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s:g} s for {what}")
        time.sleep(0.01)


@contextmanager
def own_file_system(at: Path, size_mib: int = 1024) -> Iterator[Path]:
    """A tmpfs at a new directory, detached whatever happens.

    Raises:
        RuntimeError: where the directory is not on a file system of its own afterwards.
    """
    at.mkdir(mode=0o755)
    options = f"size={size_mib}m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)], check=True)
    try:
        _alone(at)
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False)
        at.rmdir()


@contextmanager
def own_disk(at: Path, image: Path, size_mib: int = 4096) -> Iterator[Path]:
    """An ext4 on a loop device at a new directory; `image`, best in memory, is made and removed.

    Raises:
        RuntimeError: where the directory is not on a file system of its own afterwards.
    """
    at.mkdir(mode=0o755)
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, at], check=True)
        try:
            _alone(at)
            yield at
        finally:
            subprocess.run(["umount", "-l", at], check=False)
    finally:
        image.unlink()
        at.rmdir()


def _alone(at: Path) -> None:
    if at.stat().st_dev in {Path(other).stat().st_dev for other in ("/", "/tmp", "/proc", "/dev", "/run")}:
        raise RuntimeError(f"{at} is on the machine's own file system")


@lru_cache(maxsize=1)
def _corpus(files: int, seed: int) -> tuple[tuple[CorpusFile, bytes], ...]:
    """Making 5,000 files takes longer than any attack on them."""
    return tuple(build(files, seed))


class Ground:
    """The tree, the daemon, the command line.

    Args:
        home: directory of ours outside the guarded file system, for state, socket and log; a short path.
        disk: the file system of its own.
        more: further lines of the configuration.
    """

    def __init__(self, home: Path, disk: Path, more: str = "") -> None:
        self.home, self.disk = home, disk
        self.tree = disk / "tree"
        self.tree.mkdir(mode=0o755)
        self.state, self.socket, self.log = home / "state", home / "s", home / "log"
        self.state.mkdir(mode=0o700)
        self.config = home / "shieldd.toml"
        self.config.write_text(_CONFIG.format(state=self.state, socket=self.socket, tree=self.tree, more=more))
        keyfile = self.state / "keyfile"
        keyfile.touch(mode=0o600)
        keyfile.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
        self.client = Client(str(self.socket))
        self.process: subprocess.Popen[bytes] | None = None

    def lay_out(self, files: int, seed: int = 1) -> tuple[ScratchTree, tuple[CorpusFile, ...]]:
        """A marked scratch tree below the guarded one, with the drill's corpus in it."""
        scratch = ScratchTree.make(self.tree)
        for entry, data in _corpus(files, seed):
            scratch.write(entry.path, data)
        return scratch, tuple(entry for entry, _ in _corpus(files, seed))

    def start(self) -> Ground:
        """Start the daemon; returns when it is ready and has come to know every file."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shieldd", "--config", str(self.config)], stdout=out, stderr=out, cwd=self.home
            )
        until("a ready daemon", self._ready, START_S)
        until("every file known", lambda: self.check("survey")["state"] == "ok", START_S)
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon ended: {self.log.read_text()[-2000:]}")
        try:
            health = self.client.get("/v1/health")
        except ShieldError:
            return False
        return health["state"] in {"ready", "degraded"} and health["pid"] == self.process.pid

    def check(self, name: str) -> dict[str, Any]:
        """One check of the doctor's."""
        checks = self.client.get("/v1/doctor")["items"]
        return next(check for check in checks if check["name"] == name)

    def status(self) -> dict[str, Any]:
        """The whole daemon on one page."""
        return dict(self.client.get("/v1/status"))

    def threats(self) -> list[dict[str, Any]]:
        """All threats, newest state."""
        return list(self.client.get("/v1/threats", limit=1000)["items"])

    def contained(self) -> list[dict[str, Any]]:
        """Threats for which processes were held."""
        return [threat for threat in self.threats() if threat["containment"] and threat["contained_at"]]

    def ctl(self, *arguments: str, expect: int | None = 0) -> str:
        """Run shieldctl; what it printed."""
        command = [sys.executable, "-m", "shieldctl", "--socket", str(self.socket), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if expect is not None and done.returncode != expect:
            raise RuntimeError(f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def json(self, *arguments: str, expect: int | None = 0) -> Any:
        """What shieldctl prints with `--json`."""
        return json.loads(self.ctl(*arguments, "--json", expect=expect))

    def fence(self, name: str = "fence") -> None:
        """Returns once everything that happened before is on record."""
        path = self.tree / f"{name}-{time.monotonic_ns()}"
        path.write_bytes(b"fence\n")
        until("the fence to be seen", lambda: self.client.get("/v1/events", under=str(path), limit=1)["items"])

    def stop(self) -> int:
        """End the daemon; its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        finally:
            self.process.kill()
            self.process.wait(STOP_S)


@contextmanager
def ground(home: Path, more: str = "", size_mib: int = 1024) -> Iterator[Ground]:
    """A ground with its file system; the daemon, where one was started, is gone at the end."""
    os.umask(0o022)
    with own_file_system(home / "disk", size_mib) as disk:
        made = Ground(home, disk, more)
        try:
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.stop()
