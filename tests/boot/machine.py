"""A real systemd in a container, on a tmpfs over the host's root: everything it writes is gone when it stops.

`systemd-nspawn` runs in a mount namespace of its own, unregistered, so it leaves no trace on the host. Commands enter
the container's namespaces with nsenter. The container shares the host's kernel and, without its own cgroup tree, does
not enforce MemoryMax.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

PYTHON: Final = "/opt/python"
DEPENDENCIES: Final = "/opt/dependencies"
CHECKOUT: Final = "/opt/checkout"
DEADLINE_S: Final = 60.0

T = TypeVar("T")

# $1 scratch directory; the rest: arguments for systemd-nspawn
_START: Final = """
set -e
scratch=$1; shift
mount -t tmpfs -o mode=0755 tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$scratch/root"
mount -t tmpfs tmpfs /run/systemd
rm -f "$scratch/root/etc/machine-id"
echo 0123456789abcdef0123456789abcdef >"$scratch/root/etc/machine-id"
rm -rf "$scratch/root/opt" "$scratch/root/etc/shieldd" "$scratch/root/var/lib/shieldd"
mkdir -p "$scratch/root/opt/python" "$scratch/root/opt/dependencies" "$scratch/root/opt/checkout"
exec systemd-nspawn --quiet --directory="$scratch/root" --register=no --keep-unit --console=pipe --capability=all \\
    --system-call-filter="fanotify_init fanotify_mark open_by_handle_at pidfd_getfd" \\
    "$@" --boot systemd.unit=basic.target
"""


class Machine:
    """One boot; a context manager that shuts it down.

    Args:
        scratch: an empty directory; a tmpfs is mounted on it in a namespace of its own.
        checkout: the repository, seen read-only as /opt/checkout.
        binds: more directories to show read-only, from inside to outside.
    """

    def __init__(self, scratch: Path, checkout: Path, binds: Mapping[str, Path] | None = None) -> None:
        packages = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
        shown = {
            # The interpreter and its packages lie where the unit's sandbox hides nothing (ProtectHome, PrivateTmp).
            PYTHON: Path(sys.base_prefix),
            DEPENDENCIES: packages,
            CHECKOUT: checkout,
            **(binds or {}),
        }
        self._console = scratch.with_name(scratch.name + ".console")
        self._command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh", str(scratch)]
        self._command += [f"--bind-ro={outside}:{inside}" for inside, outside in shown.items()]
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )
        try:
            self._leader = self.until(self._find_leader, "systemd started")
            self.until(lambda: self.run("systemctl", "is-active", "--quiet", "basic.target").returncode == 0, "boot")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        assert self._process is not None
        if self._leader:
            self.run("systemctl", "--no-block", "exit", "0")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _find_leader(self) -> int:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"no boot: {self.console()}")
        todo = [self._process.pid]
        while todo:
            pid = todo.pop()
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except FileNotFoundError:
                continue
            if name == "systemd":
                return pid
            todo += map(int, children)
        return 0

    def run(self, *command: str, stdin: str = "", timeout_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
        """Runs a command as the container's root; output captured, status not checked."""
        return subprocess.run(
            ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--", *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )

    def check(self, *command: str, stdin: str = "", timeout_s: float = DEADLINE_S) -> str:
        """As `run`, for commands that must succeed; returns what was printed."""
        done = self.run(*command, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.journal()}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Writes a file in the container, parents included."""
        self.check("mkdir", "-p", os.path.dirname(path))
        self.check("tee", path, stdin=text)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit, as `systemctl show` prints it."""
        return self.check("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str = "shieldd*") -> str:
        """The last lines of a unit's journal."""
        return self.run("journalctl", "--no-pager", "--lines=60", "--unit", unit).stdout

    def console(self) -> str:
        """What the boot printed."""
        return self._console.read_text(errors="replace")

    def until(self, ask: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
        """Asks until the answer is true; fails with the journal when it is not in time."""
        end = time.monotonic() + deadline_s
        while True:
            answer = ask()
            if answer:
                return answer
            if time.monotonic() > end:
                raise AssertionError(
                    f"not in {deadline_s:.0f} s: {what}\n{self.journal() if self._leader else self.console()}"
                )
            time.sleep(0.05)
