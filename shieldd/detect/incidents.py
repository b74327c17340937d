"""Folds decisions into incidents: one actor in one tree without a long pause is one incident.

Owns the open incidents, in bounded memory: beyond `OPEN_LIMIT` the longest quiet one closes. What the store keeps is
the caller's affair: each fold returns the whole, current incident.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from shieldd.detect.losses import PATH_LIMIT, Losses
from shieldd.detect.techniques import techniques
from shieldd.model.decision import Action, Decision, Reason, Severity
from shieldd.model.event import FactFlag
from shieldd.model.incident import Actor, Incident, Judgement, State

OPEN_LIMIT: Final = 1024
REASON_LIMIT: Final = 8
GAP_NS: Final = 300 * 10**9


@dataclass(slots=True)
class _Open:
    incident: Incident
    last_mono_ns: int
    last_event_at_ns: int = 0
    destroyed: int = 0
    counted: tuple[int, int] = (0, 0)  # destroyed when it was last looked for versions, and without one then
    touched: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)


class Incidents:
    """Open incidents by actor and tree. Not thread-safe: the pipeline's thread owns it."""

    def __init__(self, losses: Losses | None = None, *, gap_ns: int = GAP_NS, open_limit: int = OPEN_LIMIT) -> None:
        """Args:
        losses: the guard's counts; with them an incident knows what was lost before its first decision.
        gap_ns: a longer pause begins a new incident.
        open_limit: incidents kept open.
        """
        self._losses = losses
        self._gap_ns = gap_ns
        self._open_limit = open_limit
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def fold(self, decision: Decision, facts_row: np.void, *, actor: Actor | None = None) -> tuple[Incident, bool]:
        """Add a decision.

        Args:
            decision: what the guard decided; an allow counts only towards an incident that is open already.
            facts_row: the `FACTS` row it was decided on.
            actor: who did it, where it is known.

        Returns:
            The incident as it is now, and whether it is new.
        """
        key = (decision.actor, decision.tree)
        now = self._open.get(key)
        new = now is None or decision.mono_ns - now.last_mono_ns > self._gap_ns
        if now is None or new:
            now = self._open[key] = _Open(_begin(decision, actor), decision.mono_ns)
        self._open.move_to_end(key)
        now.last_mono_ns = decision.mono_ns
        now.last_event_at_ns = max(now.last_event_at_ns, decision.event_at_ns or decision.at_ns)
        path = int(facts_row["path_hash"])
        _remember(now.touched, path)
        if _lost(decision, facts_row):
            _remember(now.lost, path)
        now.incident = self._grown(now, decision, int(facts_row["flags"]), actor)
        while len(self._open) > self._open_limit:
            self._open.popitem(last=False)
        return now.incident, new

    def contained(self, threat_id: str, at_ns: int, held_at_ns: int = 0) -> Incident | None:
        """Note when containment took hold, and since when the actor's opens are denied.

        Args:
            at_ns: when the last of its processes stood still, wall clock, ns; 0: none was there.
            held_at_ns: since when its opens are denied, 0: they cannot be.

        Returns:
            The incident as it is now, None where it is not open.
        """
        for now in self._open.values():
            if now.incident.id == threat_id:
                now.incident = replace(
                    now.incident,
                    contained_at_ns=now.incident.contained_at_ns or at_ns,
                    held_at_ns=now.incident.held_at_ns or held_at_ns,
                )
                return now.incident
        return None

    def preserved(self, threat_id: str, kept: int, lost: int) -> Incident | None:
        """Note of how many of the files that it destroyed a version from before exists.

        Args:
            kept: files whose content is gone and of which there is a version.
            lost: files whose content is gone and of which there is none.

        Returns:
            The incident as it is now, None where it is not open.
        """
        for now in self._open.values():
            if now.incident.id == threat_id:
                now.counted = (now.destroyed, lost)
                kept = max(kept, now.incident.files_preserved)  # what came back meanwhile had been preserved
                touched = max(now.incident.files_touched, kept + lost)
                now.incident = replace(now.incident, files_touched=touched, files_preserved=kept, files_lost=lost)
                return now.incident
        return None

    def resolve(self, threat_id: str, judgement: Judgement, note: str, at_ns: int) -> Incident | None:
        """Close an open incident with a person's word; the actor's next event begins a new one."""
        for key, now in self._open.items():
            if now.incident.id == threat_id:
                del self._open[key]
                return replace(now.incident, state=State.RESOLVED, judgement=judgement, note=note, closed_at_ns=at_ns)
        return None

    def quiet(self, mono_ns: int) -> list[Incident]:
        """Forget the incidents whose pause has been long enough; returns them as they stood, still unresolved."""
        over = [key for key, now in self._open.items() if mono_ns - now.last_mono_ns > self._gap_ns]
        return [self._open.pop(key).incident for key in over]

    def _grown(self, now: _Open, decision: Decision, flags: int, actor: Actor | None) -> Incident:
        old = now.incident
        streak = self._losses.of(decision.actor, decision.tree, decision.mono_ns) if self._losses else None
        now.destroyed = max(len(now.lost), streak.lost if streak else 0, now.destroyed)
        first = min(old.first_event_at_ns, streak.first_at_ns) if streak else old.first_event_at_ns
        decided = old.decided_at_ns or (decision.at_ns if decision.action > Action.ALLOW else 0)
        touched = max(len(now.touched), now.destroyed, old.files_touched)
        return replace(
            old,
            severity=max(old.severity, decision.severity),
            actor=old.actor or actor,
            files_touched=touched,
            files_lost=now.counted[1] + max(now.destroyed - now.counted[0], 0),
            files_per_s=_rate(touched, now.last_event_at_ns - first) or old.files_per_s,
            first_event_at_ns=first,
            decided_at_ns=decided,
            reasons=_merged(old.reasons, decision.reasons),
            attack=tuple(dict.fromkeys((*old.attack, *techniques(decision, flags)))),
        )


def _rate(files: int, span_ns: int) -> float:
    """Files a second: steps from the first to the latest over the time between; 0.0 where there is only one."""
    return round((files - 1) * 1e9 / span_ns, 1) if files > 1 and span_ns > 0 else 0.0


def _begin(decision: Decision, actor: Actor | None) -> Incident:
    seed = b"%d:%d:%d:%d" % (decision.actor, decision.tree, decision.seq, decision.at_ns)
    name = base64.b32encode(hashlib.sha256(seed).digest()[:10]).decode().lower()
    return Incident(
        id=name,
        opened_at_ns=decision.at_ns,
        closed_at_ns=0,
        state=State.OPEN,
        severity=Severity.INFORMATIONAL,
        actor=actor,
        actor_id=decision.actor,
        tree=decision.tree,
        files_touched=0,
        files_lost=0,
        first_event_at_ns=decision.event_at_ns or decision.at_ns,
        decided_at_ns=0,
        contained_at_ns=0,
        reasons=(),
        attack=(),
    )


def _lost(decision: Decision, facts: np.void) -> bool:
    """Whether the row itself shows a file of before whose content is gone; the guard's count is the exact one."""
    flags = int(facts["flags"])
    if not flags & FactFlag.KNOWN_BEFORE or flags & FactFlag.REPLACED:
        return False
    garbled = bool(facts["prev_format"]) and not facts["format"] and bool(flags & FactFlag.LOOKED)
    return decision.wanted is Action.CONTAIN and garbled


def _remember(paths: set[int], path: int) -> None:
    if len(paths) < PATH_LIMIT:
        paths.add(path)


def _merged(old: tuple[Reason, ...], new: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Of each feature the strongest word so far; the strongest features first."""
    best = {reason.feature: reason for reason in old}
    for reason in new:
        if reason.feature not in best or abs(reason.contribution) > abs(best[reason.feature].contribution):
            best[reason.feature] = reason
    return tuple(sorted(best.values(), key=lambda x: -abs(x.contribution))[:REASON_LIMIT])
