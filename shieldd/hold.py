"""Openers held before they write: the daemon's side.

Starts the answerer and its supervisor, hands over verdicts, drains records, notices when the answerer is gone, starts
it again (0.2 s later, then twice as long each time up to 5 s), and says how things stand. Owns both processes and what
is shared with them. Does not own what a record means or whom a verdict is on; does not open vaults.

If this process ends, however it ends, the life-line hangs up and both processes end: openers go on unguarded.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from shieldd.model.held import AnswererState, Cover, HeldOpen, HoldOptions, HoldStatus, Verdict, not_covered
from shieldd.native.hold import ControlBlock, HoldTree

BACKOFF_S: Final = (0.2, 5.0)
CALM_S: Final = 30.0  # an answerer that has run so long begins the back-off anew
STALE_S: Final = 0.3  # the supervisor has 0.2 s; this is for the case that it is stopped, too
START_S: Final = 10.0
STOP_S: Final = 2.0
TURN_S: Final = 0.1
TROUBLE: Final = "watch.hold"
FINAL: Final = frozenset({"hold.unsupported", "hold.filesystem", "hold.deadlock", "native.argument"})

log = structlog.get_logger("shieldd.hold")


@dataclass(slots=True)
class _Answerer:
    """One answerer with its supervisor."""

    process: subprocess.Popen[bytes]
    pidfd: int
    report: int
    began: float
    supervisor: subprocess.Popen[bytes] | None = None
    running: bool = False


class Hold:
    """Held opens on the file systems of some trees. `set_verdict`, `moved` and `status` may be called from any thread.

    Args:
        trees: in the order of their indices.
        vault_fds: open vaults, which the trees name by index.
        state_fd: directory of the daemon's own state, None for none.
        records: is given what was held, in order, by the thread of this part; must not take long.
        trouble: is given code and text while nothing is held, and `None` as text when it is over.

    Raises:
        ShieldError: `hold.failed`.
    """

    def __init__(
        self,
        trees: Sequence[HoldTree],
        vault_fds: Sequence[int],
        *,
        records: Callable[[Sequence[HeldOpen]], None],
        trouble: Callable[[str, str | None], None],
        options: HoldOptions | None = None,
        state_fd: int | None = None,
    ) -> None:
        self._trees, self._vault_fds, self._state_fd = trees, tuple(vault_fds), state_fd
        self._options = options or HoldOptions()
        self._records, self._trouble = records, trouble
        self._control = ControlBlock()
        self._lifeline_r, self._lifeline_w = os.pipe2(os.O_CLOEXEC)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ending = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._me = os.pidfd_open(os.getpid())
        self._lock = threading.Lock()
        self._now: _Answerer | None = None
        self._left: list[_Answerer] = []
        self._since_ns, self._reason, self._code = time.time_ns(), "not started", ""
        self._holding, self._started = False, 0
        self._backoff_s = BACKOFF_S[0]
        self._thread = threading.Thread(target=self._run, name="hold", daemon=True)
        self._closed = False

    def start(self, timeout_s: float = START_S) -> bool:
        """Start both processes; wait until opens are held. False where they are not in time: it goes on trying."""
        self._thread.start()
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and self._thread.is_alive():
            if self._holding or self._code in FINAL:
                break
            time.sleep(0.005)
        return self._holding

    def set_verdict(self, actor: int, verdict: Verdict) -> None:
        """What becomes of an actor's opens from now on; who waits for it is answered.

        Raises:
            ShieldError: `hold.verdicts`, `native.argument`.
        """
        self._control.set_verdict(actor, verdict)
        self._poke(self._wake)

    def verdict(self, actor: int) -> Verdict:
        """The verdict on an actor."""
        return self._control.verdict(actor)

    def moved(self) -> None:
        """A directory came into a tree, left one, or mounts changed: which directories are outside is found out anew.

        Needed only where `Cover.MOVES` is not covered, and for mounts.
        """
        self._control.refresh()
        self._poke(self._wake)

    def status(self) -> HoldStatus:
        """How things stand now."""
        counts = self._control.counts()
        with self._lock:
            return HoldStatus(
                running=self._holding,
                since_ns=self._since_ns,
                reason=self._reason,
                code=self._code,
                restarts=max(self._started - 1, 0),
                kills=counts.kills,
                covers=counts.covers if self._holding else Cover(0),
                not_covered=not_covered(counts, holding=self._holding),
                counts=counts,
            )

    def pids(self) -> tuple[int, ...]:
        """Our two processes, as far as they run."""
        with self._lock:
            now = self._now
            found = [] if now is None else [now.process, now.supervisor]
            return tuple(process.pid for process in found if process is not None and process.returncode is None)

    def stop(self) -> None:
        """End both processes; whoever is held goes on. May be called twice."""
        self._poke(self._ending)
        if self._thread.ident is not None:
            self._thread.join()
        if self._closed:
            return
        self._closed = True
        for fd in (self._lifeline_r, self._wake, self._told, self._ending, self._me):
            os.close(fd)

    def _poke(self, fd: int) -> None:
        # full: whoever reads it is being woken already
        with contextlib.suppress(BlockingIOError, OSError):
            os.eventfd_write(fd, 1)

    # the rest runs in the thread of this part

    def _run(self) -> None:
        retry_at = 0.0
        while not self._due(self._ending, 0):
            if self._now is None and time.monotonic() >= retry_at and self._code not in FINAL:
                self._launch()
            self._due(self._told, TURN_S if self._now else min(TURN_S, max(retry_at - time.monotonic(), 0.001)))
            self._drain()
            if self._now is not None and (why := self._ended(self._now)):
                self._forget(self._now, why)
                retry_at = time.monotonic() + self._backoff_s
                self._backoff_s = min(self._backoff_s * 2, BACKOFF_S[1])
            self._left = [old for old in self._left if not self._reap(old)]
        os.close(self._lifeline_w)
        self._finish()
        self._drain()

    def _due(self, fd: int, timeout_s: float) -> bool:
        """Whether an eventfd is set, waiting for it, an ending or a death; it is taken back."""
        watched = [fd, self._ending] + ([self._now.pidfd] if self._now else [])
        poll = select.poll()
        for each in watched:
            poll.register(each, select.POLLIN)
        ready = {each for each, _ in poll.poll(timeout_s * 1000)}
        if fd in ready and fd != self._ending:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(fd)
        return fd in ready

    def _drain(self) -> None:
        while records := self._control.take():
            self._records(records)

    def _launch(self) -> None:
        report_r, report_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        setup = os.memfd_create("shieldd-setup", os.MFD_CLOEXEC)
        self._control.prepare()
        try:
            os.write(setup, json.dumps(self._setup(report_w)).encode())
            process = self._spawn([str(setup)], [setup, report_w, *self._shared(), *self._files()])
        except OSError as error:
            os.close(report_r)
            self._down("hold.failed", f"the answerer cannot be started: {error.strerror}")
            return
        finally:
            os.close(report_w)
            os.close(setup)
        now = _Answerer(process, os.pidfd_open(process.pid), report_r, time.monotonic())
        with self._lock:
            self._now = now
        self._started += 1
        self._supervise(now)

    def _supervise(self, now: _Answerer) -> None:
        fds = [self._control.fd, self._lifeline_r, now.pidfd, self._me]
        try:
            now.supervisor = self._spawn(["--supervise", *map(str, fds)], fds)
        except OSError as error:
            log.error("no supervisor", reason=error.strerror)

    def _shared(self) -> list[int]:
        return [self._control.fd, self._lifeline_r, self._wake, self._told]

    def _files(self) -> list[int]:
        state = [] if self._state_fd is None else [self._state_fd]
        return [*self._vault_fds, *(tree.root_fd for tree in self._trees), *state]

    def _spawn(self, arguments: Sequence[str], fds: Sequence[int]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "shieldd.answerer", *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(set(fds)),
            cwd="/",
            start_new_session=True,
        )

    def _setup(self, report: int) -> dict[str, Any]:
        def text(data: bytes) -> str:
            return b64encode(data).decode()

        options = self._options
        control, lifeline, wake, told = self._shared()
        plain = {
            "control_fd": control, "lifeline_fd": lifeline, "wake_fd": wake, "told_fd": told,
            "state_fd": self._state_fd, "vault_fds": self._vault_fds, "own": [os.getpid()],
            "bound_ns": int(options.bound_ms * 1e6), "hold_ns": int(options.hold_ms * 1e6),
            "whole_limit_bytes": options.whole_limit_bytes, "ranges": options.ranges,
            "quota_bytes": options.quota_bytes, "min_free_bytes": options.min_free_bytes,
        }  # fmt: skip
        trees = [
            {"path": text(tree.path), "root_fd": tree.root_fd, "vault": tree.vault,
             "exclude": [text(glob) for glob in tree.exclude]}
            for tree in self._trees
        ]  # fmt: skip
        return {"report": report, "trees": trees, "servers": [text(path) for path in options.servers], "plain": plain}

    def _ended(self, now: _Answerer) -> str:
        """Why it does not answer any more; empty while it does, or may soon."""
        counts = self._control.counts()
        if now.process.poll() is not None:
            return "it ended" if now.process.returncode >= 0 else f"it was killed (signal {-now.process.returncode})"
        mine = counts.pid == now.process.pid
        if mine and counts.state == AnswererState.ENDED:
            return "its heart stopped and the supervisor killed it"
        ran_s = time.monotonic() - now.began
        if mine and counts.state == AnswererState.RUNNING and counts.covers & Cover.OPENS:
            if not now.running:
                now.running = True
                self._up()
            if ran_s > CALM_S:
                self._backoff_s = BACKOFF_S[0]
            if time.monotonic_ns() - counts.beat_ns > STALE_S * 1e9:
                return "its heart stopped"
        elif ran_s > START_S:
            return "it did not begin in time"
        if now.supervisor is None or now.supervisor.poll() is not None:
            self._supervise(now)
        return ""

    def _forget(self, now: _Answerer, why: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(now.pidfd, signal.SIGKILL)
        failure: dict[str, Any] = {}
        with contextlib.suppress(BlockingIOError, ValueError):
            failure = json.loads(os.read(now.report, 4096) or b"{}")
        with self._lock:
            self._now = None
        self._left.append(now)
        reason = failure.get("message") or f"the answerer is gone: {why}"
        self._down(failure.get("code", "hold.failed"), reason)

    def _reap(self, old: _Answerer) -> bool:
        """Whether nothing is left of it; a keeper that sleeps in a dead file system leaves a process for long."""
        gone = old.process.poll() is not None and (old.supervisor is None or old.supervisor.poll() is not None)
        if gone:
            os.close(old.pidfd)
            os.close(old.report)
        return gone

    def _up(self) -> None:
        with self._lock:
            self._holding, self._reason, self._code = True, "", ""
            self._since_ns = time.time_ns()
        log.info("opens are held", pid=self._now.process.pid if self._now else None)
        self._trouble(TROUBLE, None)

    def _down(self, code: str, reason: str) -> None:
        with self._lock:
            if self._holding or not self._code:
                self._since_ns = time.time_ns()
            self._holding, self._reason, self._code = False, reason, code
        log.warning("opens are not held", code=code, reason=reason)
        self._trouble(TROUBLE, f"writers are not held: {reason}")

    def _finish(self) -> None:
        with self._lock:
            now, self._now = self._now, None
        self._left += [now] if now else []
        end = time.monotonic() + STOP_S
        for old in self._left:
            for process in (old.process, old.supervisor):
                if process is None:
                    continue
                try:
                    process.wait(max(end - time.monotonic(), 0.01))
                except subprocess.TimeoutExpired:
                    process.kill()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.5)
            self._reap(old)
        with self._lock:
            self._holding, self._reason, self._code, self._since_ns = False, "stopped", "", time.time_ns()
