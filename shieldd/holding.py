"""Held opens in the running daemon: whether writers are held here, what is told of them, and what that means.

Owns: the decision whether opens are held at all (configuration, source, vaults), the words for people, and the look at
what changed since a second ago (mounts, openers that had to be let go). Does not own: the two processes
(`shieldd.hold`), what a verdict is for (`shieldd.respond.contain`), the versions (`shieldd.respond.preserve`).

Without it the daemon runs as ever: changes are then seen when they are done, and `status` says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from shieldd.config import Config, DaemonMode
from shieldd.errors import ShieldError
from shieldd.hold import Hold
from shieldd.model.held import Cover, HeldOpen, HoldOptions, HoldStatus
from shieldd.native.hold import HoldTree
from shieldd.respond import Trees
from shieldd.respond.preserve import Keeper

MOUNTS: Final = Path("/proc/self/mountinfo")
MOST_BYTES: Final = 2**64 - 1
LOST: Final = "hold.lost"
NOTHING: Final = "writers are not held; changes are seen after they were made"
OFF: Final = "the configuration wants none held (watch.hold)"
PERSONAL: Final = "personal mode holds nobody; the service does"
UNNAMED: Final = "events come from inotify here, which names nobody who could be held"

log = structlog.get_logger("shieldd.holding")


class Troubles(Protocol):
    """What is not as it should be (`shieldd.engine.troubles`)."""

    def report(self, code: str, text: str) -> None:
        """Something happened."""

    def hold(self, code: str, text: str) -> None:
        """A state: shown until it is cleared."""

    def clear(self, code: str) -> None:
        """The state is over."""


class Holding:
    """Held opens as the daemon knows them; `opens` is None where nobody is held, and `why_not` says why."""

    def __init__(
        self,
        config: Config,
        trees: Trees,
        keeper: Keeper | None,
        exclude: Mapping[int, Sequence[bytes]],
        troubles: Troubles,
        *,
        state_fd: int,
        named: bool,
    ) -> None:
        """Prepare; nothing is held before `start`.

        Args:
            keeper: owns the vaults; they are open for as long as this is.
            exclude: globs of what is not guarded, by index of the tree.
            state_fd: directory of the daemon's state.
            named: whether events name the processes behind them.

        Raises:
            ShieldError: `hold.failed`.
        """
        self._troubles = troubles
        self._since_ns = time.time_ns()
        self._lock = threading.Lock()
        self._lost = self._told = 0
        self._mounts = _mounts()
        self.why_not = _why_not(config, named=named)
        self.opens: Hold | None = None
        if self.why_not:
            return
        vaults = keeper.held if keeper is not None else []
        vault_of = {tree.index: at for at, held in enumerate(vaults) for tree in held.trees}
        preserve = config.preserve
        self.opens = Hold(
            [
                HoldTree(tree.root, tree.root_fd, vault_of.get(tree.index), exclude.get(tree.index, ()))
                for tree in trees
            ],
            [held.fd for held in vaults],
            records=self._records,
            trouble=self._trouble,
            options=HoldOptions(
                whole_limit_bytes=preserve.whole_limit_bytes,
                ranges=config.watch.hold_ranges,
                # of the largest vault: what is left in each is told by its keeper, which looks every few seconds
                quota_bytes=max((held.bytes_max for held in vaults), default=MOST_BYTES),
                min_free_bytes=min((held.min_free for held in vaults), default=0),
            ),
            state_fd=state_fd,
        )

    def start(self) -> None:
        """Begin to hold; where that does not succeed in time, it goes on trying and says so."""
        if self.opens is not None and not self.opens.start():
            log.warning("writers are not held", reason=self.opens.status().reason)

    def status(self) -> HoldStatus | None:
        """How things stand; None where nobody is to be held."""
        return self.opens.status() if self.opens is not None else None

    @property
    def since_ns(self) -> int:
        """Since when it is as it is, wall clock."""
        now = self.status()
        return now.since_ns if now is not None else self._since_ns

    def look(self) -> None:
        """Once a second: find out what is outside anew where mounts changed; say who had to be let go."""
        if self.opens is None:
            return
        mounts = _mounts()
        if mounts != self._mounts:
            self._mounts = mounts
            self.opens.moved()
        with self._lock:
            lost = self._lost
        let_go = self.opens.status().counts.let_go
        if lost + let_go > self._told:
            self._told = lost + let_go
            text = f"{lost + let_go} writers went on without a version of before ({let_go} came in too large a crowd)"
            self._troubles.report(LOST, text)

    def stop(self) -> None:
        """Let everybody go and end both processes; before the vaults are closed."""
        if self.opens is not None:
            self.opens.stop()

    def _records(self, records: Sequence[HeldOpen]) -> None:
        lost = [one for one in records if one.lost]
        if lost:
            last = lost[-1]
            why = f"{last.kept.name.lower()} (errno {last.errno or 0}, {last.held_us} us)"
            log.warning("writers went on without a version", count=len(lost), why=why)
            with self._lock:
                self._lost += len(lost)

    def _trouble(self, code: str, text: str | None) -> None:
        if text is None:
            self._troubles.clear(code)
        else:
            self._troubles.hold(code, text)


def _why_not(config: Config, *, named: bool) -> str:
    if not config.watch.hold:
        return OFF
    if config.daemon.mode is DaemonMode.PERSONAL:
        return PERSONAL
    return "" if named else UNNAMED


def uncovered(holding: Holding) -> tuple[str, ...]:
    """What is not held or preserved here, in words."""
    now = holding.status()
    return now.not_covered if now is not None else (NOTHING,)


def words(holding: Holding) -> str:
    """How things stand, in a sentence."""
    now = holding.status()
    if now is None:
        return f"off: {holding.why_not}"
    if not now.running:
        return f"not at this moment: {now.reason}"
    lacks = [] if now.covers & Cover.REALTIME else ["without real-time priority"]
    lacks += [] if now.covers & Cover.LOCKED else ["not locked in memory"]
    return ", ".join(["a writer waits until the file of before is preserved", *lacks])


def _mounts() -> int:
    try:
        return hash(MOUNTS.read_bytes())
    except OSError as error:
        raise ShieldError("actors.proc", "mounts cannot be looked at", errno=error.errno) from error
