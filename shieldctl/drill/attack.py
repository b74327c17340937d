"""Starts the attacker in a process group of its own, follows what it reports, and ends it.

The drill never slows the attacker: it reads a pipe. Times are monotonic, ns, taken by the attacker itself.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shieldctl.drill.tools import Armed
from shieldctl.drill.tree import ScratchTree
from shieldd.errors import ShieldError

_END_S: Final = 10.0  # SIGKILL is not refused; a process in an uninterruptible wait may take this long


@dataclass(frozen=True, slots=True)
class Course:
    """How far the attacker came.

    Attributes:
        first_write_ns: monotonic time just before the tool was started on the first file, 0 if it never was: the
            first write can only be later, so a time to decision counted from here is never flattering.
        last_ns: monotonic time of its last report.
        begun: (time, index) of each file that the tool was started on.
        gone: (time, index) of each file whose original it deleted.
        notes: ransom notes left.
        finished: it came to the end of its list by itself.
    """

    first_write_ns: int
    last_ns: int
    begun: tuple[tuple[int, int], ...]
    gone: tuple[tuple[int, int], ...]
    notes: int
    finished: bool

    @property
    def rate(self) -> float:
        """Files encrypted and deleted per second, over its whole life; 0 when there are none."""
        elapsed = self.last_ns - self.first_write_ns
        return len(self.gone) * 1e9 / elapsed if self.gone and elapsed > 0 else 0.0


class Attacker:
    """A running attack.

    Args:
        tree: the marked scratch tree; its descriptor is inherited.
        tool: what encrypts.
        paths: relative paths in the order in which they are attacked.
    """

    def __init__(self, tree: ScratchTree, tool: Armed, paths: Sequence[bytes]) -> None:
        tree.check()
        orders = {
            "argv": tool.argv,
            "suffix": tool.suffix,
            "paths": [base64.b64encode(path).decode() for path in paths],
        }
        self._lines: list[tuple[str, int, int]] = []
        self.started = threading.Event()  # the first file is under attack, or there will be none
        self.over = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "shieldctl.drill.attacker", str(tree.root_fd), tree.mark.drill_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(tree.root_fd,),
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        self._reader = threading.Thread(target=self._follow, name="drill-attacker", daemon=True)
        self._reader.start()
        try:
            with self._process.stdin as orders_pipe:
                orders_pipe.write(json.dumps(orders).encode())
        except BrokenPipeError as error:
            self.end()
            raise ShieldError("drill.tool", "the attacker's process did not start") from error

    def _follow(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            word, at, index = line.split()
            self._lines.append((word.decode(), int(at), int(index)))
            self.started.set()
        self.started.set()
        self.over.set()

    def end(self) -> Course:
        """Kills the whole process group, waits for it, and returns how far it came. May be called twice."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.over.wait(_END_S)  # it ended by itself
        self._process.wait(_END_S)
        self._reader.join(_END_S)
        return self.course()

    def course(self) -> Course:
        """How far it came until now."""
        lines = list(self._lines)
        begun = tuple((at, index) for word, at, index in lines if word == "begin")
        return Course(
            first_write_ns=begun[0][0] if begun else 0,
            last_ns=lines[-1][1] if lines else 0,
            begun=begun,
            gone=tuple((at, index) for word, at, index in lines if word == "gone"),
            notes=sum(word == "note" for word, _, _ in lines),
            finished=self.over.is_set() and self._process.returncode == 0,
        )
