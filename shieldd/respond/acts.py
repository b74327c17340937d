"""Carries decisions out, on a small pool of threads, one act per file at a time.

Owns: the queue between the pipeline and the responders, its bound, and what is recorded when an act cannot be taken.
The pipeline never waits here: what does not fit is recorded as skipped and told.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import structlog

from shieldd.errors import ShieldError
from shieldd.model.decision import Action, ActionKind, Decision, Outcome
from shieldd.model.event import Batch
from shieldd.model.incident import Incident
from shieldd.respond import Ended, GuardedTree, Ledger, Trees, announced

WORKERS: Final = 2
QUEUE_LIMIT: Final = 10_000  # acts waiting; an attack that makes more is for containment, not for sealing one by one
CONTAIN_REASON: Final = "this event source cannot name or hold the process; a person must stop it now"

log = structlog.get_logger("shieldd.respond")


class Act(Protocol):
    """One responder, as a decision needs it: does the act, records it, or raises `ShieldError`."""

    def __call__(
        self, tree: GuardedTree, path: bytes, *, threat_id: str, why: str, inode: tuple[int, int] | None
    ) -> None:
        """Do it; `inode` is (device, inode) of what was judged: another file by now is left alone (`file.race`)."""


class Containing(Protocol):
    """Holds the processes behind an attack (`shieldd.respond.contain`)."""

    def why_not(self, actor: int) -> str:
        """Why an actor cannot be held, empty where it can: without attribution it is a whole tree."""

    def deny(self, actor: int) -> int:
        """Deny its opens at once; since when (wall clock, ns), 0 where that cannot be done. Never blocks."""

    def contain(self, decision: Decision, incident: Incident, *, held_at_ns: int) -> object:
        """Stop its processes, record and tell it; raises `contain.*`."""


class ActPool:
    """Queue and threads between the pipeline and the responders.

    Containment waits behind nothing and is never refused: the actor's opens are denied on the pipeline's own thread,
    its processes are stopped on a thread that does nothing else.
    """

    def __init__(
        self,
        trees: Trees,
        ledger: Ledger,
        seal: Act,
        quarantine: Act,
        *,
        contain: Containing | None = None,
        guess: Callable[[GuardedTree, bytes], str] = lambda tree, path: "",
        failed: Callable[[str, str], None] = lambda code, text: None,
        workers: int = WORKERS,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        """Args:
        contain: holds processes, None where no source names them.
        guess: who might have changed a file, in words, empty where nothing is known; only ever told, never acted on.
        failed: told of an act that could not be done (code, sentence).
        """
        self._trees = trees
        self._ledger = ledger
        self._acts = {Action.SEAL: seal, Action.QUARANTINE: quarantine}
        self._contain = contain
        self._guess = guess
        self._failed = failed
        self._queue_limit = queue_limit
        self._pool = ThreadPoolExecutor(workers, "shieldd-act")
        self._first = ThreadPoolExecutor(1, "shieldd-contain")
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: set[tuple[int, bytes]] = set()
        self._in_hand = 0
        self.done = 0
        self.failures = 0
        self.refused = 0

    def submit(self, decision: Decision, incident: Incident, batch: Batch, row: int) -> None:
        """Queue one act; never blocks, never raises. A file that has an act waiting gets no second one."""
        key, first = _key(decision), decision.action is Action.CONTAIN
        with self._lock:
            if key in self._waiting:
                return
            full = len(self._waiting) >= self._queue_limit and not first
            if not full:
                self._waiting.add(key)
            else:
                self.refused += 1
        if full:
            log.error("too many acts wait; this one was not done", action=decision.action.name.lower())
            self._failed("respond.full", "too many acts wait; some were not done")
            return
        if first:
            held_ns = 0
            if self._contain is not None and not self._contain.why_not(decision.actor):
                held_ns = self._contain.deny(decision.actor)
            self._first.submit(self._carry_out, decision, incident, None, held_ns)
            return
        event = batch.events[row]
        inode = (int(event["dev"]), int(event["ino"])) if event["ino"] else None
        self._pool.submit(self._carry_out, decision, incident, inode, 0)

    def _carry_out(
        self, decision: Decision, incident: Incident, inode: tuple[int, int] | None, held_at_ns: int
    ) -> None:
        why = decision.rule or (decision.reasons[0].text if decision.reasons else "policy")
        with self._lock:
            self._in_hand += 1
        try:
            if decision.action is Action.CONTAIN:
                self._hold(decision, incident, held_at_ns)
            else:
                self._acts[decision.action](
                    self._trees[decision.tree], decision.path, threat_id=incident.id, why=why, inode=inode
                )
            self.done += 1
        except ShieldError as error:
            if error.code == "file.missing":
                # Gone before we came to it: there is nothing left to act on, and that is no trouble of ours.
                log.info("nothing left to act on", action=decision.action.name.lower())
                return
            self.failures += 1
            log.warning("act failed, every file is whole", action=decision.action.name.lower(), code=error.code)
            self._failed(error.code, f"{decision.action.name.lower()} failed: {error.message}")
        finally:
            with self._lock:
                self._in_hand -= 1
                self._waiting.discard(_key(decision))
                self._idle.notify_all()

    def _hold(self, decision: Decision, incident: Incident, held_at_ns: int) -> None:
        """Stop the processes behind it; where nobody names them, that is a person's to do, with a guess to go by."""
        why_not = self._contain.why_not(decision.actor) if self._contain is not None else CONTAIN_REASON
        if self._contain is not None and not why_not:
            self._contain.contain(decision, incident, held_at_ns=held_at_ns)
            return
        tree = self._trees[decision.tree]
        guessed = self._guess(tree, decision.path)
        reason = f"{why_not}; a guess: {guessed}" if guessed else why_not
        action = announced(ActionKind.CONTAIN, tree, decision.path, threat_id=incident.id, reason=reason)
        self._ledger.intend([action])
        self._ledger.finish([Ended(action.id, Outcome.SKIPPED, reason, "")])
        log.critical(
            "an attack was decided on; stop the process behind it",
            threat=incident.id,
            tree=os.fsdecode(tree.root),
            guess=guessed,
        )

    def waiting(self) -> int:
        """Acts queued or in hand."""
        with self._lock:
            return len(self._waiting)

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing waits; False when the time ran out."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._waiting, timeout_s)

    def close(self, timeout_s: float = 20.0) -> None:
        """Finish what is in hand; drop what only waits (it was never begun, so nothing is half done)."""
        self._first.shutdown(wait=False)
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._idle:
            self._idle.wait_for(lambda: not self._in_hand, timeout_s)


def _key(decision: Decision) -> tuple[int, bytes]:
    """What may have one act at a time: a file, or an actor (no path begins with a NUL)."""
    if decision.action is Action.CONTAIN:
        return decision.tree, b"\0%d" % decision.actor
    return decision.tree, decision.path
