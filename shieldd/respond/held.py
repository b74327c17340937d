"""What is held at this moment, and who looks after it.

Who was woken by another is stopped again, who belongs to the actor and comes late is stopped too, who has gone is told,
and what has a time ends by itself. The records are kept in step; one that cannot be written now is owed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from shieldd.errors import ShieldError
from shieldd.model.contained import Containment, Fate, Holding, Sent, Trait
from shieldd.model.decision import Severity
from shieldd.model.incident import TakenAction
from shieldd.respond import Ended
from shieldd.respond.containing import Means
from shieldd.respond.telling import described

PACE_S: Final = 0.5  # of looking after what is held
GRACE_NS: Final = 60 * 10**9  # an actor without processes for so long is over
WOKEN_PACE_NS: Final = 60 * 10**9  # one word a minute on who is woken again and again

log = structlog.get_logger("shieldd.contain")


class Held:
    """Containments in force. The owner of `lock` may call; `stop` and `now` anybody."""

    def __init__(self, means: Means, expire: Callable[[str], object]) -> None:
        """Args:
        expire: lets an incident's processes go on, whose time is over.
        """
        self.lock = threading.RLock()
        self._means = means
        self._expire = expire
        self._held: dict[str, Containment] = {}
        self._owed: list[tuple[TakenAction, Ended]] = []
        self._empty_since: dict[str, int] = {}
        self._woken_at: dict[str, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def now(self) -> tuple[Containment, ...]:
        """All of them."""
        return tuple(self._held.values())

    def get(self, threat_id: str) -> Containment | None:
        """That of an incident."""
        return self._held.get(threat_id)

    def put(self, containment: Containment) -> None:
        """In force from now on, and looked after."""
        self._held[containment.threat_id] = containment
        self._watch()

    def forget(self, threat_id: str) -> None:
        """Not in force any more."""
        self._held.pop(threat_id, None)
        self._empty_since.pop(threat_id, None)
        self._woken_at.pop(threat_id, None)

    def record(self, action: TakenAction, ended: Ended, now: Containment | None) -> None:
        """Write down an act that is done; what cannot be written is owed, and the slip stays until it is paid."""
        try:
            self._means.ledger.intend([action])
            self._means.ledger.finish([ended])
            if now is not None:
                self._means.holdings.save(now)
            self._means.notes.clear()
        except ShieldError as error:
            self._owed.append((action, ended))
            self._means.tell.trouble(error.code, f"what is held could not be recorded yet: {error.message}")
            self._watch()

    def take_over(self, found: Containment) -> None:
        """Go on with what an earlier run began; what ended with its host is told."""
        if found.boot_id != self._means.boot_id:
            self._gone(found, "the host was started again; the processes ended with it")
            return
        self._means.verdicts.deny(found.actor_id)
        self.put(found)
        self._save(found)
        self._look_after(found, taking_over=True)
        log.warning("processes are held since before this start", threat=found.threat_id, count=len(found.stopped))

    def look_after(self) -> None:
        """One look at all that is held."""
        with self.lock:
            self._pay()
            for held in list(self._held.values()):
                if held.release_boot_ns and time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= held.release_boot_ns:
                    self._expire(held.threat_id)
                else:
                    self._look_after(held)

    def stop(self) -> None:
        """End the thread. What is held stays held."""
        self._stopping.set()
        thread = self._thread
        if thread is not None:
            thread.join(5.0)

    def _look_after(self, held: Containment, *, taking_over: bool = False) -> None:
        known = {x.member: x for x in held.members}
        late = [x for x in self._means.members(held.actor_id) if x not in known]
        sent = self._means.signals().stop([*held.stopped, *late])
        now = dict(known)
        for x in sent.told:
            old, new = known.get(x.member), described(x, known.get(x.member))
            if taking_over and old is None and new.fate is Fate.ALREADY:
                # It belongs to what we held and stands still: the earlier run did that and could not say so any more.
                new = replace(new, fate=Fate.DONE, note="stopped by an earlier run")
            if old is None or new.fate is not old.fate:
                now[x.member] = new
        if now != known:
            held = replace(held, members=tuple(now.values()), changed_at_ns=time.time_ns())
            self._held[held.threat_id] = held
            self._save(held)
        self._report(held, sent, {x for x, y in known.items() if y.fate is Fate.DONE}, set(known))
        self._end_if_empty(held)

    def _report(self, held: Containment, sent: Sent, stopped: set[object], known: set[object]) -> None:
        running = [x for x in sent.told if x.fate in (Fate.DONE, Fate.PENDING) and Trait.TRACED not in x.traits]
        woken, late = [x for x in running if x.member in stopped], [x for x in running if x.member not in known]
        if late:
            text = f"{len(late)} more processes of the attack were found and stopped"
            self._means.tell.alert(Severity.CRITICAL, text, held.threat_id, held.tree)
        now = time.monotonic_ns()
        if woken and now - self._woken_at.get(held.threat_id, -WOKEN_PACE_NS) >= WOKEN_PACE_NS:
            self._woken_at[held.threat_id] = now
            text = f"{len(woken)} stopped processes were woken by another; they were stopped again"
            self._means.tell.trouble("contain.woken", text)
            self._means.tell.alert(Severity.CRITICAL, text, held.threat_id, held.tree)

    def _end_if_empty(self, held: Containment) -> None:
        """An actor of short-lived processes has none at times; only after a while it counts as gone."""
        if any(x.fate not in (Fate.GONE, Fate.SPARED) for x in held.members):
            self._empty_since.pop(held.threat_id, None)
            return
        since = self._empty_since.setdefault(held.threat_id, time.monotonic_ns())
        if time.monotonic_ns() - since >= GRACE_NS:
            self._gone(held, "all its processes have ended")

    def _gone(self, held: Containment, note: str) -> None:
        self._means.verdicts.clear(held.actor_id)
        self.forget(held.threat_id)
        self._save(replace(held, state=Holding.GONE, changed_at_ns=time.time_ns(), note=note))
        self._means.tell.alert(Severity.MEDIUM, f"nothing is held any more: {note}", held.threat_id, held.tree)

    def _pay(self) -> None:
        """Write down what could not be written before."""
        while self._owed:
            action, ended = self._owed[0]
            try:
                self._means.ledger.intend([action])
            except ShieldError as error:
                if error.code != "store.value":  # that one is there: only its end was missing
                    return
            try:
                self._means.ledger.finish([ended])
                if action.threat_id in self._held:
                    self._means.holdings.save(self._held[action.threat_id])
                self._means.notes.clear()
            except ShieldError as error:
                log.warning("still owed to the store", code=error.code)
                return
            self._owed.pop(0)

    def _save(self, containment: Containment) -> None:
        try:
            self._means.holdings.save(containment)
        except ShieldError as error:
            self._means.tell.trouble(error.code, f"what is held could not be recorded: {error.message}")

    def _watch(self) -> None:
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="shieldd-held", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Until nothing is held."""
        while not self._stopping.wait(PACE_S):
            try:
                self.look_after()
            except ShieldError as error:
                log.error("what is held could not be looked after", code=error.code)
                self._means.tell.trouble(error.code, f"what is held could not be looked after: {error.message}")
            with self.lock:
                if not self._held and not self._owed:
                    self._thread = None
                    return
