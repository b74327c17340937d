"""The product as one loop: batch → score → guard → act → record.

Owns: the order of things and the thread they run on. Does not own: any of the parts; it knows their contracts only.

What may fail here and what happens then:

| fault | what is done | counter |
| --- | --- | --- |
| the policy raises or its numbers are not finite | hard rules alone for that batch | `policy_failures` |
| a record cannot be written | the store counts and reports; deciding goes on | of the store |
| an act fails | recorded as failed with its code; the file is whole; nobody retries | `failures` of the acts |
| the acts' queue is full | the act is not done, `respond.full` says so | `refused` of the acts |
| the content scan falls behind | the oldest wait, the newest are not scanned and counted | `unscanned` |
| events were lost | an alert, a rescan by the source, trouble until it is done | of the source |
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import structlog

from shieldd.contracts import (
    Acts,
    Batches,
    Guard,
    Incidents,
    Keeps,
    Nobody,
    NothingKept,
    Policy,
    Records,
    Scans,
    Tell,
    Who,
)
from shieldd.errors import ShieldError
from shieldd.model.decision import Action, Decision, Severity
from shieldd.model.event import Batch, Kind
from shieldd.model.incident import Incident
from shieldd.model.incident import Judgement as Verdict
from shieldd.model.match import Match

WAIT_S: Final = 0.5  # longest wait for a batch: the pace of the heart-beat when nothing happens
SCAN_WAIT_S: Final = 0.005  # while a scan is on: its match is decided that soon
LATENCIES: Final = 8192  # newest decision times kept for the quantiles in metrics
LOST_KINDS: Final = {Kind.OVERFLOW: Severity.HIGH, Kind.WATCH_LIMIT: Severity.HIGH, Kind.ROOT_GONE: Severity.CRITICAL}
LOST_TEXT: Final = {
    Kind.OVERFLOW: "the kernel's event queue overflowed; the tree is being rescanned",
    Kind.WATCH_LIMIT: "a directory could not be watched; it is looked at by rescans until it can be",
    Kind.ROOT_GONE: "a guarded tree went away or was replaced; nothing is done in it until shieldd is restarted",
}
LOST_CODE: Final = {Kind.OVERFLOW: "watch.overflow", Kind.WATCH_LIMIT: "watch.limit", Kind.ROOT_GONE: "watch.gone"}
LOSS_PACE_NS: Final = 10 * 10**9

log = structlog.get_logger("shieldd.pipeline")


@dataclass(slots=True)
class Counters:
    """Totals since start; read by the API without a lock (ints only grow)."""

    batches: int = 0
    events: int = 0
    decisions: dict[Action, int] = field(default_factory=lambda: dict.fromkeys(Action, 0))
    policy_failures: int = 0
    latencies_ns: deque[int] = field(default_factory=lambda: deque(maxlen=LATENCIES))

    def quantiles_ms(self) -> tuple[float, float]:
        """p50 and p99 of event read → decided, ms; zeros before the first."""
        kept = sorted(self.latencies_ns)
        if not kept:
            return 0.0, 0.0
        return kept[len(kept) // 2] / 1e6, kept[min(len(kept) - 1, len(kept) * 99 // 100)] / 1e6


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a configuration generation decides with: swapped as one."""

    generation: int
    policy: Policy | None
    guard: Guard
    fresh_guard: Callable[[], Guard]
    take_over: Callable[[], None] = lambda: None


class Pipeline:
    """Runs batches through the parts, one after the other, on one thread."""

    def __init__(
        self,
        source: Batches,
        judgement: Judgement,
        incidents: Incidents,
        records: Records,
        acts: Acts,
        scans: Scans | None,
        tell: Tell,
        *,
        who: Who | None = None,
        keeps: Keeps | None = None,
        mark: Callable[[Batch], None] = lambda batch: None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Args:
        who: knows the processes behind the actors.
        keeps: keeps versions of files.
        mark: flags the rows of canary files.
        alive: called at least every `WAIT_S` from the loop itself; feeds the watchdog.
        """
        self._source = source
        self._judgement = judgement
        self._taken = judgement
        self._incidents = incidents
        self._records = records
        self._acts = acts
        self._scans = scans
        self._tell = tell
        self._who: Who = who or Nobody()
        self._keeps: Keeps = keeps or NothingKept()
        self._mark = mark
        self._alive = alive
        self._found: deque[tuple[Batch, int, Match]] = deque()
        self._words: deque[tuple[str, Verdict, str, int]] = deque()
        self._told: deque[Callable[[], Incident | None]] = deque()
        self._losses_told: dict[tuple[Kind, int], tuple[int, int]] = {}
        self._stopping = threading.Event()
        self.counters = Counters()

    def swap(self, judgement: Judgement) -> None:
        """Take a new configuration from the next batch on."""
        self._judgement = judgement

    def found(self, batch: Batch, row: int, match: Match) -> None:
        """A scan's result, from its thread; decided with the next turn of the loop."""
        self._found.append((batch, row, match))

    def resolve(self, threat_id: str, judgement: Verdict, note: str, at_ns: int) -> None:
        """A person's word on an incident; taken with the next turn of the loop, which owns the open incidents."""
        self._words.append((threat_id, judgement, note, at_ns))

    def contained(self, threat_id: str, at_ns: int, held_at_ns: int = 0) -> None:
        """The actor of an incident was stopped (and its opens denied); noted with the next turn of the loop."""
        self._told.append(lambda: self._incidents.contained(threat_id, at_ns, held_at_ns))

    def preserved(self, threat_id: str, kept: int, lost: int) -> None:
        """Of the files that were destroyed in an incident so many can come back; noted with the next turn."""
        self._told.append(lambda: self._incidents.preserved(threat_id, kept, lost))

    def consider(self, batch: Batch, content: Mapping[int, Match]) -> Decision | None:
        """What would be decided of one file now, by a fresh guard: nothing is counted, recorded or done."""
        judgement = self._judgement
        decisions = judgement.fresh_guard().decide(
            batch,
            self._score(judgement.policy, batch),
            content=content,
            generation=judgement.generation,
            now_ns=time.time_ns(),
            mono_ns=time.monotonic_ns(),
        )
        return decisions[0] if decisions else None

    def stop(self) -> None:
        """End the loop after the batch in hand."""
        self._stopping.set()

    def run(self) -> None:
        """The loop; returns after `stop`, or when the source is stopped."""
        while not self._stopping.is_set():
            self._alive()
            try:
                scanning = self._scans is not None and self._scans.waiting
                batch = self._source.next_batch(SCAN_WAIT_S if scanning or self._found else WAIT_S)
            except ShieldError as error:
                if error.code == "watch.stopped":
                    return
                raise
            while self._words:
                closed = self._incidents.resolve(*self._words.popleft())
                if closed is not None:
                    self._judgement.guard.release(closed.actor_id, closed.tree)
            while self._told:
                grown = self._told.popleft()()
                if grown is not None:
                    self._records.save_incident(grown, wait=False)
            if batch is not None and len(batch):
                self.step(batch)
            while self._found:
                self.judge_match(*self._found.popleft())

    def step(self, batch: Batch) -> list[Decision]:
        """One batch, all the way."""
        judgement = self._current()
        self._mark(batch)
        logits = self._score(judgement.policy, batch)
        actors, now_ns, mono_ns = self._who.identities(batch), time.time_ns(), time.monotonic_ns()
        generation = judgement.generation
        decisions = judgement.guard.decide(
            batch, logits, content={}, generation=generation, now_ns=now_ns, mono_ns=mono_ns, actors=actors
        )
        decided_ns = time.time_ns()
        counters = self.counters
        counters.batches += 1
        counters.events += len(batch)
        counters.decisions[Action.ALLOW] += len(batch) - len(decisions)
        counters.latencies_ns.extend((decided_ns - batch.events["at_ns"][:64].astype(np.int64)).tolist())
        threats = self._follow(batch, decisions)
        self._keeps.note(batch)
        self._report_losses(batch)
        first = self._records.record_events(batch, decisions, threats)
        self._tell.events(first, batch, decisions, threats)
        if self._scans is not None:
            rows = judgement.guard.look(batch)
            if len(rows):
                self._scans.submit(batch, rows.tolist())
        return decisions

    def judge_match(self, batch: Batch, row: int, match: Match) -> None:
        """Decide one file again, now that its content is known; what it did before is not counted twice."""
        again = Batch(
            batch.events[row : row + 1].copy(),
            batch.facts[row : row + 1].copy(),
            np.zeros_like(batch.observations[row : row + 1]),
            batch.names,
        )
        judgement = self._judgement
        decisions = judgement.guard.decide(
            again,
            None,
            content={0: match},
            generation=judgement.generation,
            now_ns=time.time_ns(),
            mono_ns=time.monotonic_ns(),
            actors=self._who.identities(again),
        )
        self._follow(again, decisions)

    def _current(self) -> Judgement:
        """The judgement in force; a new one takes the guard's rules over on this thread, which owns the guard."""
        judgement = self._judgement
        if judgement is not self._taken:
            judgement.take_over()
            self._taken = judgement
        return judgement

    def _score(self, policy: Policy | None, batch: Batch) -> np.ndarray | None:
        if policy is None:
            return None
        try:
            return policy.score(batch.observations)
        except ShieldError as error:
            self.counters.policy_failures += 1
            log.error("policy failed, hard rules alone", code=error.code)
            self._tell.trouble("policy.failed", "the policy failed; hard rules alone", Severity.HIGH, 0, b"")
            return None

    def _follow(self, batch: Batch, decisions: Sequence[Decision]) -> dict[int, str]:
        """Fold decisions into incidents, record, tell, and act."""
        threats: dict[int, str] = {}
        if not decisions:
            return threats
        row_of = {int(seq): row for row, seq in enumerate(batch.events["seq"].tolist())}
        for decision in decisions:
            row = row_of[decision.seq]
            self.counters.decisions[decision.action] += 1
            if decision.action is Action.ALLOW:
                continue
            actor = self._who.actor(decision.actor)
            incident, new = self._incidents.fold(decision, batch.facts[row], actor=actor)
            threats[decision.seq] = incident.id
            self._records.save_incident(incident, wait=False)
            self._keeps.follow(incident)
            self._tell.alert(decision, incident, new=new)
            if decision.action is not Action.ALERT:
                self._acts.submit(decision, incident, batch, row)
        return threats

    def _report_losses(self, batch: Batch) -> None:
        """Tell of lost events: at once, then at most once in `LOSS_PACE_NS` of each kind and tree, with the count."""
        kinds = batch.events["kind"]
        for row in np.flatnonzero((kinds >= Kind.OVERFLOW) & (kinds <= Kind.ROOT_GONE)).tolist():
            kind, tree = Kind(int(kinds[row])), int(batch.events[row]["tree"])
            if kind not in LOST_KINDS:
                continue
            last_ns, kept_back = self._losses_told.get((kind, tree), (-LOSS_PACE_NS, 0))
            now_ns = int(batch.events[row]["mono_ns"])
            if 0 <= now_ns - last_ns < LOSS_PACE_NS:
                self._losses_told[kind, tree] = (last_ns, kept_back + 1)
                continue
            self._losses_told[kind, tree] = (now_ns, 0)
            text = LOST_TEXT[kind] + (f" ({kept_back} more times since it was last told)" if kept_back else "")
            log.warning(text, tree=tree, kind=kind.name.lower())
            self._tell.trouble(LOST_CODE[kind], text, LOST_KINDS[kind], tree, batch.path(row))
