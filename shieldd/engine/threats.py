"""Events, alerts and incidents as the API shows them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller
from shieldd.engine.parts import Parts, open_beneath, who
from shieldd.engine.streams import KIND_NAMES, NOBODY
from shieldd.errors import ShieldError
from shieldd.model.contained import Containment, Holding
from shieldd.model.decision import Action, Severity
from shieldd.model.event import EVENT, Batch, Kind
from shieldd.model.incident import Incident, Judgement, State
from shieldd.model.match import Match
from shieldd.native.observe import Windows, schema
from shieldd.respond.contain import Contain
from shieldd.store import (
    ActionFilter,
    AlertFilter,
    EventFilter,
    IncidentFilter,
    Label,
    StoredAlert,
    StoredEvent,
)

_T = TypeVar("_T")
ACTIONS_IN_LIST = 10
ACTIONS_SHOWN = 10_000
TIMELINE = 50
KIND_BY_NAME = {name: Kind(number) for number, name in KIND_NAMES.items()}


class Threats:
    """Answers about what happened."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def events(self, query: r.EventsQuery) -> a.Events:
        """Recorded events that match."""
        tree, under = self._place(query.tree, query.under)
        page = self._parts.store.events(
            EventFilter(
                since_ns=query.since_ns,
                until_ns=query.until_ns,
                limit=query.limit,
                after_seq=query.after_seq,
                kind=_named(KIND_BY_NAME, query.kind, "kind"),
                action=_named({x.name.lower(): x for x in Action}, query.action, "action"),
                tree=tree,
                under=under,
            )
        )
        return a.Events(tuple(self._event(x) for x in page.items), page.more)

    def alerts(self, query: r.AlertsQuery) -> a.Alerts:
        """Recorded alerts that match."""
        page = self._parts.store.alerts(
            AlertFilter(since_ns=query.since_ns, limit=query.limit, severity=Severity(query.severity))
        )
        return a.Alerts(tuple(self._alert(x) for x in page.items), page.more)

    def threats(self, query: r.ThreatsQuery) -> a.Threats:
        """Incidents that match."""
        page = self._parts.store.incidents(
            IncidentFilter(
                since_ns=query.since_ns,
                limit=query.limit,
                state=State(query.state) if query.state else None,
                severity=Severity(query.severity),
            )
        )
        return a.Threats(tuple(self._threat(x, ACTIONS_IN_LIST) for x in page.items), page.more)

    def threat(self, request: r.ById) -> a.Threat:
        """One incident with all that was done."""
        return self._threat(self._parts.store.incident(request.id), ACTIONS_SHOWN)

    def resolve(self, caller: Caller, request: r.Resolve) -> a.Threat:
        """Close an incident with a person's word."""
        parts = self._parts
        incident = parts.store.incident(request.id)
        judgement = Judgement(request.verdict.value)
        now = time.time_ns()
        parts.pipeline.resolve(incident.id, judgement, request.note, now)
        closed = replace(
            parts.store.incident(incident.id),
            state=State.RESOLVED,
            judgement=judgement,
            note=request.note,
            closed_at_ns=now,
        )
        parts.store.save_incident(closed)
        parts.custody.resolved(incident.id)
        parts.store.label(Label(incident.id, judgement, request.note, caller.uid, now))
        return self._threat(closed, ACTIONS_SHOWN)

    def release(self, caller: Caller, request: r.Release) -> a.Containment:
        """Let what is held go on; a person's word."""
        incident = self._parts.store.incident(request.id)
        return _containment(self._contain().release(incident.id, why=who(caller, request.reason or "asked for")))

    def kill(self, caller: Caller, request: r.Kill) -> a.Containment:
        """End the processes for good; a person's word."""
        incident = self._parts.store.incident(request.id)
        why = who(caller, request.reason)
        return _containment(self._contain().kill(incident.id, actor=incident.actor_id, tree=incident.tree, why=why))

    def _contain(self) -> Contain:
        if self._parts.contain is None:
            raise ShieldError("contain.none", "no source of events names processes here, so none is held")
        return self._parts.contain

    def explain(self, request: r.ById) -> a.Explanation:
        """Why an incident was decided as it was: its strongest decision, in numbers and words."""
        parts = self._parts
        incident = parts.store.incident(request.id)
        stored = parts.store.decisions(threat_id=incident.id, limit=1000)
        threat = self._threat(incident, ACTIONS_SHOWN)
        timeline = parts.store.events(EventFilter(threat_id=incident.id, after_seq=0, limit=TIMELINE))
        events = tuple(self._event(x) for x in timeline.items)
        if not stored:
            summary = "its decisions are no longer kept; reasons below are the incident's own"
            features = tuple(a.FeatureValue(x.feature, 0.0, "", x.contribution, x.text) for x in incident.reasons)
            return a.Explanation(threat, summary, "", "", "", "", 0, {}, features, events)
        best = max(stored, key=lambda x: (x.decision.action, len(x.decision.reasons), -x.seq))
        decision = best.decision
        row = np.frombuffer(best.observation, np.float32)
        return a.Explanation(
            threat=threat,
            summary=_summary(incident, decision.rule, decision.action, decision.wanted),
            wanted=decision.wanted.name.lower(),
            action=decision.action.name.lower(),
            rule=decision.rule,
            policy_version=decision.policy_version,
            generation=decision.generation,
            probabilities=_probabilities(decision.logits),
            features=tuple(_feature(x.feature, x.contribution, x.text, row) for x in decision.reasons),
            timeline=events,
        )

    def analyze(self, caller: Caller, request: r.Paths) -> a.Analyses:
        """What would be said of files as they lie there now; nothing is done to them."""
        return a.Analyses(tuple(self._analysis(path) for path in request.paths))

    def _analysis(self, absolute: bytes) -> a.Analysis:
        parts = self._parts
        try:
            tree, path = parts.trees.locate(absolute)
            fd = open_beneath(tree.root_fd, path)
            try:
                match = parts.snapshot.scanner.scan(fd, os.path.basename(path))
                seen = os.fstat(fd)
            finally:
                os.close(fd)
        except ShieldError as error:
            return a.Analysis(absolute, "", "", (), (), error.code)
        events = np.zeros(1, EVENT)
        events["kind"], events["ops"], events["seq"], events["tree"] = Kind.CREATE, 1 << Kind.CREATE, 1, tree.index
        events["path_len"], events["mono_ns"], events["mode"] = len(path), time.monotonic_ns(), seen.st_mode
        events["uid"], events["at_ns"] = seen.st_uid, time.time_ns()
        events["mode"] = stat.S_IFMT(seen.st_mode) | stat.S_IMODE(seen.st_mode)
        facts = parts.inspector.inspect_many(tree.root_fd, events, path)
        batch = Batch(events, facts, Windows(1).observe(events, facts), path)
        decision = parts.pipeline.consider(batch, {0: match} if match else {})
        return a.Analysis(
            absolute,
            (decision.action if decision else Action.ALLOW).name.lower(),
            decision.rule if decision else "",
            _match_names(match),
            decision.reasons if decision else (),
            "",
        )

    def _place(self, tree: bytes | None, under: bytes | None) -> tuple[int | None, bytes]:
        trees = self._parts.trees
        if under is not None:
            for known in trees:
                if known.root.rstrip(b"/") == under.rstrip(b"/"):
                    return known.index, b""
            found, path = trees.locate(under)
            return found.index, path
        if tree is not None:
            for known in trees:
                if known.root == tree:
                    return known.index, b""
            raise ShieldError("file.outside", "no guarded tree has that root", path=tree)
        return None, b""

    def _root(self, tree: int | None) -> bytes:
        roots = self._parts.store.roots
        return roots[tree] if tree is not None and tree < len(roots) else b""

    def _event(self, x: StoredEvent) -> a.EventRecord:
        root = self._root(x.tree)
        return a.EventRecord(
            seq=x.seq,
            at_ns=x.at_ns,
            kind=KIND_NAMES[int(x.kind)],
            tree=root,
            path=os.path.join(root, x.path),
            from_path=os.path.join(root, x.from_path) if x.from_path else b"",
            pid=x.pid or -1,
            uid=-1 if x.uid in (NOBODY, -1) or not x.pid else x.uid,
            merged=x.merged,
            action=x.action.name.lower(),
            severity=x.severity,
            threat_id=x.threat_id,
        )

    def _alert(self, x: StoredAlert) -> a.Alert:
        path = os.path.join(self._root(x.tree), x.path) if x.path else b""
        return a.Alert(x.seq, x.at_ns, x.severity, x.threat_id, x.kind, path, x.text)

    def _threat(self, x: Incident, limit: int) -> a.Threat:
        actions = self._parts.store.actions(ActionFilter(threat_id=x.id, limit=limit))
        root = self._root(x.tree)
        actor = a.ActorInfo(x.actor.pid, x.actor.exe, x.actor.cmdline, x.actor.uid) if x.actor else None
        return a.Threat(
            id=x.id,
            opened_at_ns=x.opened_at_ns,
            closed_at_ns=x.closed_at_ns,
            state=x.state,
            severity=x.severity,
            actor=actor,
            tree=root,
            actions=tuple(
                a.ActionRecord(
                    y.id, y.threat_id, y.kind, os.path.join(self._root(y.tree), y.path), y.at_ns, y.outcome, y.reason,
                    y.undo,
                )
                for y in actions.items
            ),
            files_touched=x.files_touched,
            files_preserved=x.files_preserved,
            files_lost=x.files_lost,
            files_per_s=x.files_per_s,
            first_event_at_ns=x.first_event_at_ns,
            decided_at_ns=x.decided_at_ns,
            held_at_ns=x.held_at_ns,
            contained_at_ns=x.contained_at_ns,
            containment=_containment(found) if (found := self._parts.store.containments.of(x.id)) else None,
            reasons=x.reasons,
            attack=x.attack,
            verdict=x.judgement,
            note=x.note,
        )  # fmt: skip


def _containment(x: Containment) -> a.Containment:
    left_ns = x.release_boot_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    ends = bool(x.release_boot_ns) and x.state is Holding.HELD
    return a.Containment(
        threat_id=x.threat_id,
        state=x.state.value,
        at_ns=x.at_ns,
        changed_at_ns=x.changed_at_ns,
        release_at_ns=time.time_ns() + left_ns if ends else 0,
        cgroup=x.cgroup,
        note=x.note,
        processes=tuple(
            a.HeldProcess(y.member.pid, y.member.start_ticks, y.exe, y.fate.name.lower(), y.note) for y in x.members
        ),
    )


def _named(known: Mapping[str, _T], name: str | None, what: str) -> _T | None:
    if name is None:
        return None
    if name not in known:
        raise ShieldError("api.invalid", f"no such {what}: {name}")
    return known[name]


def _match_names(match: Match | None) -> tuple[str, ...]:
    return (f"{match.kind.value}:{match.rule}",) if match else ()


def _probabilities(logits: Sequence[float]) -> dict[str, float]:
    if not logits:
        return {}
    raw = np.asarray(logits, np.float64)
    share = np.exp(raw - raw.max())
    share /= share.sum()
    return {action.name.lower(): float(share[action]) for action in Action}


def _feature(name: str, contribution: float, text: str, row: np.ndarray) -> a.FeatureValue:
    table = schema()
    at = table.index.get(name)
    if at is None or at >= len(row):
        return a.FeatureValue(name, 0.0, "", contribution, text)
    return a.FeatureValue(name, float(row[at]), table.features[at].unit, contribution, text)


def _summary(incident: Incident, rule: str, action: Action, wanted: Action) -> str:
    first = f"{incident.files_touched} files touched, {incident.files_lost} lost"
    if rule:
        return f"{first}; the guard's rule {rule!r} decided: {action.name.lower()}"
    if action is not wanted:
        return f"{first}; the policy asked for {wanted.name.lower()}, {action.name.lower()} was done"
    return f"{first}; the policy decided: {action.name.lower()}"
