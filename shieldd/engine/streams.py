"""What the pipeline tells, as the API's records, to whoever subscribed; and the alerts kept for the next who asks."""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from shieldd.api import answers as a
from shieldd.api.engine import Cancel
from shieldd.errors import ShieldError
from shieldd.model.decision import Action, ActionKind, Decision, Severity, headline
from shieldd.model.event import Batch, EventFlag, Kind
from shieldd.model.incident import Incident
from shieldd.respond import Trees
from shieldd.store import StoredAlert

Record = TypeVar("Record")

ALERTS_WAITING: Final = 10_000  # not yet on the disk
INCIDENTS_TOLD: Final = 4096  # remembered, so that an incident is not told again for each of its events
NOBODY: Final = 0xFFFFFFFF
KIND_NAMES: Final = {int(kind): kind.name.lower().replace("_", "-") for kind in Kind}
KIND_OF: Final = {
    Action.ALERT: ActionKind.ALERT,
    Action.SEAL: ActionKind.SEAL,
    Action.QUARANTINE: ActionKind.QUARANTINE,
    Action.CONTAIN: ActionKind.CONTAIN,
}


def event_records(
    first: int, batch: Batch, decisions: Sequence[Decision], threats: Mapping[int, str], trees: Trees
) -> list[a.EventRecord]:
    """A decided batch as the API shows it."""
    decided = {decision.seq: decision for decision in decisions}
    out: list[a.EventRecord] = []
    for row, event in enumerate(batch.events):
        seq = int(event["seq"])
        tree = trees[int(event["tree"])]
        decision = decided.get(seq)
        old = batch.old_path(row)
        attributed = int(event["flags"]) & EventFlag.ATTRIBUTED
        out.append(
            a.EventRecord(
                seq=first + row,
                at_ns=int(event["at_ns"]),
                kind=KIND_NAMES[int(event["kind"])],
                tree=tree.root,
                path=tree.absolute(batch.path(row)),
                from_path=tree.absolute(old) if old is not None else b"",
                pid=int(event["pid"]) if attributed else -1,
                uid=int(event["uid"]) if attributed and event["uid"] != NOBODY else -1,
                merged=int(event["merged"]),
                action=(decision.action if decision else Action.ALLOW).name.lower(),
                severity=decision.severity if decision else Severity.INFORMATIONAL,
                threat_id=threats.get(seq, ""),
            )
        )
    return out


class _Subscribers(Generic[Record]):
    """Who listens to one kind of record."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deliver: tuple[Callable[[Sequence[Record]], None], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._deliver)

    def add(self, deliver: Callable[[Sequence[Record]], None]) -> Cancel:
        with self._lock:
            self._deliver += (deliver,)

        def cancel() -> None:
            with self._lock:
                self._deliver = tuple(x for x in self._deliver if x is not deliver)

        return cancel

    def send(self, records: Sequence[Record]) -> None:
        for deliver in self._deliver:
            deliver(records)


class AlertLog(Protocol):
    """Where alerts are kept (the store)."""

    def alert(
        self,
        severity: Severity,
        text: str,
        *,
        at_ns: int,
        kind: ActionKind,
        threat_id: str,
        tree: int | None,
        path: bytes,
    ) -> StoredAlert:
        """Record one durably; it comes back with its number."""


@dataclass(frozen=True, slots=True)
class _Word:
    at_ns: int
    severity: Severity
    threat_id: str
    kind: ActionKind
    tree: int | None
    path: bytes
    text: str


class Streams:
    """Tells subscribers. Alerts are written durably first, on a thread of their own, so that deciding never waits."""

    def __init__(
        self,
        trees: Trees,
        alerts: AlertLog,
        trouble: Callable[[str, str], None],
        hold: Callable[[str, str], None] = lambda code, text: None,
    ) -> None:
        """Args:
        trouble: keeps a trouble for `status` (code, sentence).
        hold: keeps one that only a restart ends.
        """
        self._hold = hold
        self._trees = trees
        self._alert_log = alerts
        self._trouble = trouble
        self._events: _Subscribers[a.EventRecord] = _Subscribers()
        self._alert_readers: _Subscribers[a.Alert] = _Subscribers()
        self._waiting: queue.Queue[_Word | None] = queue.Queue(ALERTS_WAITING)
        self._told: OrderedDict[str, tuple[Severity, set[Action]]] = OrderedDict()
        self.alerts_dropped = 0

    def subscribe_events(self, deliver: Callable[[Sequence[a.EventRecord]], None]) -> Cancel:
        """Every event from now on, in order."""
        return self._events.add(deliver)

    def subscribe_alerts(self, deliver: Callable[[Sequence[a.Alert]], None]) -> Cancel:
        """Every alert from now on, in order."""
        return self._alert_readers.add(deliver)

    def events(self, first: int, batch: Batch, decisions: Sequence[Decision], threats: Mapping[int, str]) -> None:
        """A batch as it was decided; costs nothing while nobody listens."""
        if self._events:
            self._events.send(event_records(first, batch, decisions, threats, self._trees))

    def alert(self, decision: Decision, incident: Incident, *, new: bool) -> None:
        """A decision that a person should see: each act, and of mere alerts the first of its weight in an incident."""
        if not self._is_news(decision, incident, new=new):
            return
        text = headline(decision.reasons) or decision.rule or f"the policy asked for {decision.wanted.name.lower()}"
        if decision.action is Action.CONTAIN:
            # Where the actor is processes they are being stopped already; a tree is all that is known otherwise.
            text = f"attack decided on{'' if decision.actor >> 63 else ', stop the process behind it'}: {text}"
        kind = KIND_OF[decision.action]
        self._say(_Word(decision.at_ns, decision.severity, incident.id, kind, decision.tree, decision.path, text))

    def say(self, severity: Severity, text: str, threat_id: str, tree: int, kind: ActionKind) -> None:
        """A sentence about an incident, from whoever acted on it."""
        self._say(_Word(time.time_ns(), severity, threat_id, kind, tree, b"", text))

    def trouble(self, code: str, text: str, severity: Severity, tree: int, path: bytes) -> None:
        """Something that limits what is seen: kept for `status`, and told at once."""
        (self._hold if code == "watch.gone" else self._trouble)(code, text)
        self._say(_Word(time.time_ns(), severity, "", ActionKind.ALERT, tree, path, text))

    def run(self) -> None:
        """The alerts' thread; returns after `stop`, with everything said before written."""
        while (word := self._waiting.get()) is not None:
            try:
                stored = self._alert_log.alert(
                    word.severity,
                    word.text,
                    at_ns=word.at_ns,
                    kind=word.kind,
                    threat_id=word.threat_id,
                    tree=word.tree,
                    path=word.path,
                )
                seq = stored.seq
            except ShieldError as error:
                # An alert that cannot be kept is told all the same, with the number 0.
                self._trouble(error.code, f"an alert could not be recorded: {error.message}")
                seq = 0
            where = self._trees[word.tree].absolute(word.path) if word.tree is not None and word.path else b""
            self._alert_readers.send(
                [a.Alert(seq, word.at_ns, word.severity, word.threat_id, word.kind, where, word.text)]
            )

    def stop(self) -> None:
        """End the alerts' thread after what waits."""
        self._waiting.put(None)

    def _is_news(self, decision: Decision, incident: Incident, *, new: bool) -> bool:
        severity, actions = self._told.pop(incident.id, (Severity.INFORMATIONAL, set()))
        news = new or decision.severity > severity or decision.action not in actions
        news = news or decision.action in (Action.SEAL, Action.QUARANTINE)
        self._told[incident.id] = (max(severity, decision.severity), actions | {decision.action})
        while len(self._told) > INCIDENTS_TOLD:
            self._told.popitem(last=False)
        return news

    def _say(self, word: _Word) -> None:
        try:
            self._waiting.put_nowait(word)
        except queue.Full:
            self.alerts_dropped += 1
            self._trouble("alerts.full", "alerts come faster than they can be recorded; some were only counted")
