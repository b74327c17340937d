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


class ActPool:
    """Queue and threads between the pipeline and the responders."""

    def __init__(
        self,
        trees: Trees,
        ledger: Ledger,
        seal: Act,
        quarantine: Act,
        *,
        failed: Callable[[str, str], None] = lambda code, text: None,
        workers: int = WORKERS,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        """Args:
        failed: told of an act that could not be done (code, sentence).
        """
        self._trees = trees
        self._ledger = ledger
        self._acts = {Action.SEAL: seal, Action.QUARANTINE: quarantine}
        self._failed = failed
        self._queue_limit = queue_limit
        self._pool = ThreadPoolExecutor(workers, "shieldd-act")
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: set[tuple[int, bytes]] = set()
        self._in_hand = 0
        self.done = 0
        self.failures = 0
        self.refused = 0

    def submit(self, decision: Decision, incident: Incident, batch: Batch, row: int) -> None:
        """Queue one act; never blocks, never raises. A file that has an act waiting gets no second one."""
        key = (decision.tree, decision.path)
        with self._lock:
            if key in self._waiting:
                return
            full = len(self._waiting) >= self._queue_limit
            if not full:
                self._waiting.add(key)
            else:
                self.refused += 1
        if full:
            log.error("too many acts wait; this one was not done", action=decision.action.name.lower())
            self._failed("respond.full", "too many acts wait; some were not done")
            return
        event = batch.events[row]
        inode = (int(event["dev"]), int(event["ino"])) if event["ino"] else None
        self._pool.submit(self._carry_out, decision, incident.id, inode)

    def _carry_out(self, decision: Decision, threat_id: str, inode: tuple[int, int] | None) -> None:
        why = decision.rule or (decision.reasons[0].text if decision.reasons else "policy")
        with self._lock:
            self._in_hand += 1
        try:
            if decision.action is Action.CONTAIN:
                self._contain(decision, threat_id)
            else:
                self._acts[decision.action](
                    self._trees[decision.tree], decision.path, threat_id=threat_id, why=why, inode=inode
                )
            self.done += 1
        except ShieldError as error:
            if error.code == "file.missing":
                # Gone before we came to it: there is nothing left to act on, and that is no trouble of ours.
                log.info("nothing left to act on", action=decision.action.name.lower())
                return
            self.failures += 1
            log.warning("act failed, the file is whole", action=decision.action.name.lower(), code=error.code)
            self._failed(error.code, f"{decision.action.name.lower()} failed: {error.message}")
        finally:
            with self._lock:
                self._in_hand -= 1
                self._waiting.discard((decision.tree, decision.path))
                self._idle.notify_all()

    def _contain(self, decision: Decision, threat_id: str) -> None:
        """Containment is decided and counted; without a source that names the process it is a person's to carry out."""
        tree = self._trees[decision.tree]
        action = announced(ActionKind.CONTAIN, tree, decision.path, threat_id=threat_id, reason=CONTAIN_REASON)
        self._ledger.intend([action])
        self._ledger.finish([Ended(action.id, Outcome.SKIPPED, CONTAIN_REASON, "")])
        log.critical(
            "an attack was decided on; stop the process behind it", threat=threat_id, tree=os.fsdecode(tree.root)
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
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._idle:
            self._idle.wait_for(lambda: not self._in_hand, timeout_s)
