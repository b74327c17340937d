"""The guard: hard rules in plain code that always win over the learned policy.

Order of a row's judgement, each step able to change the last:

1. wish: the policy's highest logit, or allow where there is no policy or its numbers are not finite;
2. ground: seal only what is patient data and exposed, quarantine only executable, script, note or signature content,
   contain only where something was destroyed; a wish without ground becomes an alert;
3. hard rules: canary touched -> contain; known-bad signature -> quarantine; five contents lost in 10 s -> contain;
4. protection: never contain PID 1, ourselves, or what is trusted (executable digest + tree + budget);
5. mode: `observe` and `alert-only` trees get alerts;
6. limits: containments, quarantines and seals per window; beyond them alerts.

Owns the counters that these need; the clock is an argument. Rows that stay "allow" cost a few numpy comparisons.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from shieldd.detect.judged import Judged
from shieldd.detect.losses import Losses, Streak
from shieldd.detect.rules import GuardRules, Identity
from shieldd.model.decision import Action, Decision, Reason, Severity, Verdict
from shieldd.model.event import Batch, EventFlag, FactFlag, Kind
from shieldd.model.match import Match
from shieldd.native.observe import Schema
from shieldd.native.observe import schema as core_schema

CONTAINED_LIMIT: Final = 1024
GROUND_DESTROYED: Final = 0.2  # decayed over a minute: one lost file grounds a containment for 97 s
EXPLAIN_LIMIT: Final = 8  # explanations per batch; an attack's thousandth file has the reasons of its first
EXPLAIN_PACE_NS: Final = 10**9
_S: Final = 10**9
_FILE_KINDS: Final = (Kind.CREATE, Kind.WRITE, Kind.DELETE, Kind.RENAME, Kind.ATTRIB, Kind.READ)
_TOUCHES_CANARY: Final = (Kind.WRITE, Kind.DELETE, Kind.RENAME)
_LOOKED_AT: Final = (Kind.CREATE, Kind.WRITE, Kind.RENAME, Kind.ATTRIB)
_IS_FILE: Final = np.isin(np.arange(256), _FILE_KINDS)
_IS_LOOKED_AT: Final = np.isin(np.arange(256), _LOOKED_AT)
_MALICIOUS_CONTENT: Final = FactFlag.EXECUTABLE | FactFlag.SCRIPT | FactFlag.NOTE_LIKE
_PHI: Final = FactFlag.PHI_DICOM | FactFlag.PHI_HL7 | FactFlag.PHI_FHIR | FactFlag.PHI_TEXT
_SEVERITY: Final = {
    Action.ALLOW: Severity.INFORMATIONAL,
    Action.ALERT: Severity.LOW,
    Action.SEAL: Severity.MEDIUM,
    Action.QUARANTINE: Severity.HIGH,
    Action.CONTAIN: Severity.CRITICAL,
}


@dataclass(frozen=True, slots=True)
class _Row:
    """What a judgement looks at: one row of a batch, and the clocks."""

    event: np.void
    facts: np.void
    seen: np.ndarray
    match: Match | None
    streak: Streak | None
    identity: Identity | None
    now_ns: int
    mono_ns: int

    @property
    def flags(self) -> int:
        return int(self.facts["flags"])

    @property
    def tree(self) -> int:
        return int(self.event["tree"])


class Explainer(Protocol):
    """What the guard needs of a policy: who it is, and why."""

    version: str

    def explain(self, row: np.ndarray, action: Action) -> tuple[Reason, ...]:
        """Top contributions to an action."""
        ...


class Guard:
    """Decides. One instance per daemon; not thread-safe: the pipeline's thread owns it."""

    def __init__(self, rules: GuardRules, *, policy: Explainer | None = None, schema: Schema | None = None) -> None:
        """Args:
        rules: the configuration's snapshot.
        policy: names and explains decisions; scoring itself is the caller's.
        schema: the observation table; the core's own unless a test says otherwise.
        """
        self.rules = rules
        self.policy = policy
        names = [x.name for x in (schema or core_schema()).features]
        self._column = {name: at for at, name in enumerate(names)}
        self.losses = Losses()
        self._contained: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._explained: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._acted: dict[Action, deque[int]] = {x: deque() for x in (Action.SEAL, Action.QUARANTINE, Action.CONTAIN)}
        self.lowered_by_limit = 0

    def swap(self, rules: GuardRules, policy: Explainer | None) -> None:
        """Take a new configuration; counters and limits go on."""
        self.rules, self.policy = rules, policy

    def release(self, actor: int, tree: int) -> None:
        """A person closed the incident: the actor may be contained again, the limit counts one less, and what it
        destroyed is not counted again."""
        self.losses.drop(actor, tree)
        contained = self._contained.pop((actor, tree), None)
        if contained is not None and contained in self._acted[Action.CONTAIN]:
            self._acted[Action.CONTAIN].remove(contained)

    def look(self, batch: Batch) -> np.ndarray:
        """Rows whose content should be scanned for signatures, most suspicious first.

        Args:
            batch: events and facts.

        Returns:
            int64 row numbers. New or changed regular files that still exist.
        """
        facts, events = batch.facts, batch.events
        wanted = _IS_LOOKED_AT[events["kind"]] & ((events["flags"] & (EventFlag.SPECIAL | EventFlag.OPEN)) == 0)
        wanted &= facts["size"] > 0
        rows = np.flatnonzero(wanted)
        suspicious = (facts["flags"][rows] & np.uint64(_MALICIOUS_CONTENT)) != 0
        return rows[np.argsort(~suspicious, kind="stable")]

    def decide(
        self,
        batch: Batch,
        logits: np.ndarray | None,
        *,
        content: Mapping[int, Match],
        generation: int,
        now_ns: int,
        mono_ns: int,
        actors: Mapping[int, Identity] | None = None,
    ) -> list[Decision]:
        """Judge a batch.

        Args:
            batch: events, facts and observations.
            logits: float32 (N, 5) of the policy, None where there is none; rows that are not finite count as none.
            content: signature matches by row number of the batch.
            generation: of the configuration.
            now_ns: wall clock.
            mono_ns: monotonic clock.
            actors: who an attributed actor is; an actor that is missing here is trusted with nothing.

        Returns:
            Decisions in the order of the events, only for rows that are not a plain allow.
        """
        if not len(batch):
            return []
        finite = np.zeros(len(batch), bool) if logits is None else np.isfinite(logits).all(axis=1)
        wanted = np.zeros(len(batch), np.int64)
        if logits is not None:
            wanted[finite] = logits[finite].argmax(axis=1)
        files = _IS_FILE[batch.events["kind"]]
        destroys = files & (batch.observations[:, self._column["destroys"]] > 0.5)
        canary = files & ((batch.facts["flags"] & np.uint64(FactFlag.CANARY)) != 0)
        interesting = (files & (wanted != Action.ALLOW)) | destroys | canary | self._plain_cases(batch)
        interesting[[row for row in content if 0 <= row < len(batch)]] = True
        decisions: list[Decision] = []
        explained = 0
        for row in np.flatnonzero(interesting).tolist():
            scores = tuple(logits[row].tolist()) if logits is not None and finite[row] else ()
            wish = Action(int(wanted[row]))
            seen = _Row(
                event=batch.events[row],
                facts=batch.facts[row],
                seen=batch.observations[row],
                match=content.get(row),
                streak=self._lose(batch, row) if destroys[row] else None,
                identity=_identity(batch.events[row], actors or {}),
                now_ns=now_ns,
                mono_ns=mono_ns,
            )
            judged = self._judge(seen, wish, scores)
            if judged.action is Action.ALLOW and judged.verdict in (Verdict.PASSED, Verdict.ALONE):
                continue
            due = scores and wish is not Action.ALLOW and explained < EXPLAIN_LIMIT
            if self.policy is not None and due and self._wants_reasons(seen, judged.action):
                judged.reasons += self.policy.explain(batch.observations[row], wish)
                explained += 1
            decisions.append(self._decision(seen, batch.path(row), wish, judged, scores=scores, generation=generation))
        return decisions

    def _wants_reasons(self, row: _Row, action: Action) -> bool:
        """Reasons take milliseconds: every act has them, of one actor's alerts one a second."""
        if action > Action.ALERT:
            return True
        key = (int(row.event["actor"]), row.tree)
        if row.mono_ns - self._explained.get(key, -EXPLAIN_PACE_NS) < EXPLAIN_PACE_NS:
            return False
        self._explained[key] = row.mono_ns
        self._explained.move_to_end(key)
        while len(self._explained) > CONTAINED_LIMIT:
            self._explained.popitem(last=False)
        return True

    def _plain_cases(self, batch: Batch) -> np.ndarray:
        """Rows that a hard rule on the file itself concerns, whatever its actor does: bool (N,)."""
        disguised, exported = self._disguised_exported(batch.observations)
        cases: np.ndarray = _IS_LOOKED_AT[batch.events["kind"]] & (disguised | exported)
        return cases

    def _disguised_exported(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., F) -> a native program under a document's extension; text (no clinical format: those lie in stores)
        with several patient identifiers that everybody may read."""
        at = self._column
        disguised = (seen[..., at["disguised"]] > 0.5) & (seen[..., at["executable"]] > 0.5)
        return disguised, (seen[..., at["exposed_read"]] > 0.5) & (seen[..., at["phi"]] == 2)

    def _lose(self, batch: Batch, row: int) -> Streak:
        """Count a destroyed file: content lost under the actor's hand, or only a name removed."""
        event, seen = batch.events[row], batch.observations[row]
        removed = event["kind"] == Kind.DELETE and seen[self._column["bad_pairs_10s"]] < 0.5
        return self.losses.add(event, batch.facts[row], of_content=not removed)

    def _judge(self, row: _Row, wish: Action, scores: tuple[float, ...]) -> Judged:
        scored = bool(scores)
        judged = Judged(wish, Verdict.PASSED if scored else Verdict.ALONE)
        self._ground(judged, row)
        self._hard_rules(judged, row, Verdict.RAISED if scored else Verdict.ALONE)
        judged.severity = _SEVERITY[judged.action]
        if judged.action > Action.ALERT:
            asked = judged.action
            self._protect(judged, row)
            if judged.action > Action.ALERT and not self.rules.may(row.tree, judged.action):
                judged.lower_to(Action.ALERT, "mode", f"the tree is in mode {self.rules.mode(row.tree)}")
            if judged.action > Action.ALERT:
                self._limit(judged, row)
            if judged.rule == "contained":
                self._beside(judged, row, scores)
            if judged.action is not asked and judged.rule != "trust":
                judged.severity = Severity(max(int(_SEVERITY[asked]) - 1, int(Severity.MEDIUM)))
        return judged

    def _ground(self, judged: Judged, row: _Row) -> None:
        """Turn a wish that the facts do not bear out into an alert."""
        if judged.action is Action.SEAL:
            exposed = max(row.seen[self._column["exposed_read"]], row.seen[self._column["exposed_write"]]) > 0.5
            if not (row.flags & _PHI and exposed) or row.flags & FactFlag.SEALED:
                judged.lower_to(Action.ALERT, "seal-ground", "no exposed patient data to seal")
        elif judged.action is Action.QUARANTINE:
            if not row.flags & _MALICIOUS_CONTENT and row.match is None:
                judged.lower_to(Action.ALERT, "quarantine-ground", "neither executable, script, note nor signature")
        elif judged.action is Action.CONTAIN:
            lost = max(row.seen[self._column["destroyed_60s"]], row.seen[self._column["tree_destroyed_60s"]])
            if not lost >= GROUND_DESTROYED:
                judged.lower_to(Action.ALERT, "contain-ground", "nothing was destroyed")

    def _hard_rules(self, judged: Judged, row: _Row, raised: Verdict) -> None:
        if row.flags & FactFlag.CANARY:
            if row.event["kind"] in _TOUCHES_CANARY:
                judged.raise_to(Action.CONTAIN, "canary", "a canary file was touched", raised)
            elif row.event["kind"] == Kind.ATTRIB:
                judged.raise_to(Action.ALERT, "canary", "mode or owner of a canary file was changed", raised)
        if row.match is not None:
            action = Action.QUARANTINE if row.match.quarantine else Action.ALERT
            judged.raise_to(action, f"signature:{row.match.rule}", row.match.text, raised)
        if _IS_LOOKED_AT[row.event["kind"]]:
            disguised, exported = self._disguised_exported(row.seen)
            if disguised:
                judged.raise_to(Action.QUARANTINE, "disguised", "a program under a document's name", raised)
            elif exported and not row.flags & FactFlag.SEALED:
                text = "text with several patient identifiers that everybody may read"
                judged.raise_to(Action.SEAL, "exposed-export", text, raised)
        if row.streak is None:
            return
        span_s, mono_ns = self.rules.destroyed_window_s, int(row.event["mono_ns"])
        lost = row.streak.within(row.streak.content_mono_ns, int(span_s * _S), mono_ns)
        removed = row.streak.within(row.streak.removed_mono_ns, int(span_s * _S), mono_ns)
        if lost >= self.rules.destroyed_limit:
            text = f"{lost} known files lost their content within {span_s:g} s"
            judged.raise_to(Action.CONTAIN, "destroyed", text, raised)
        elif removed >= self.rules.removed_limit:
            text = f"{removed} known files deleted within {span_s:g} s with nothing in their place"
            judged.raise_to(Action.ALERT, "removed", text, raised)

    def _protect(self, judged: Judged, row: _Row) -> None:
        """PID 1, ourselves and the trusted are never contained; the trusted may do what their budget covers."""
        pids = {int(row.event["pid"])} | ({row.identity.pid} if row.identity else set())
        if judged.action is Action.CONTAIN and (1 in pids or pids & self.rules.own_pids):
            judged.lower_to(Action.ALERT, "protected", "never contain the first process or shieldd itself")
        elif row.identity is not None and self._trusted(row.identity, row):
            if judged.rule == "canary":
                judged.lower_to(Action.ALERT, "trust-canary", "a trusted program touched a canary file")
            elif not judged.rule.startswith("signature:"):  # a bad signature is bad whoever brings it
                judged.lower_to(Action.ALLOW, "trust", "trusted executable in this tree, within its budget")

    def _trusted(self, identity: Identity, row: _Row) -> bool:
        streak = self.losses.of(int(row.event["actor"]), row.tree, int(row.event["mono_ns"]))
        lost = streak.lost if streak else 0
        return any(
            x.exe_sha256 == identity.exe_sha256
            and x.tree == row.tree
            and lost <= x.budget
            and (not x.until_ns or row.now_ns < x.until_ns)
            for x in self.rules.trust
        )

    def _beside(self, judged: Judged, row: _Row, scores: tuple[float, ...]) -> None:
        """The actor is contained already: what the policy would do with the file itself still holds.

        Where the actor is a whole tree, everybody's drops and exports come in its name while an attack is on.
        """
        disguised, exported = self._disguised_exported(row.seen)
        plain = [x for x, holds in ((Action.QUARANTINE, disguised), (Action.SEAL, exported)) if holds]
        liked = [x for x in (Action.QUARANTINE, Action.SEAL) if scores and scores[x] > scores[Action.ALLOW]]
        for action in (*plain, *sorted(liked, key=lambda x: -scores[x])):
            second = Judged(action if self.rules.may(row.tree, action) else Action.ALERT, Verdict.PASSED)
            self._ground(second, row)
            if second.action is action:
                self._limit(second, row)
            if second.action is action:
                text = f"the file itself calls for {action.name.lower()}"
                judged.raise_to(action, "beside-contained", text, Verdict.LOWERED)
                return

    def _limit(self, judged: Judged, row: _Row) -> None:
        """Contain an actor once, and do no more of anything destructive than the window allows."""
        key = (int(row.event["actor"]), row.tree)
        if judged.action is Action.CONTAIN:
            since = self._contained.get(key)
            if since is not None and row.mono_ns - since < self.rules.contained_for_s * _S:
                judged.lower_to(Action.ALERT, "contained", "this actor was contained a moment ago")
                return
        limit = {
            Action.SEAL: self.rules.seal_limit,
            Action.QUARANTINE: self.rules.quarantine_limit,
            Action.CONTAIN: self.rules.contain_limit,
        }[judged.action]
        acted = self._acted[judged.action]
        while acted and row.mono_ns - acted[0] >= self.rules.limit_window_s * _S:
            acted.popleft()
        if len(acted) >= limit:
            name = judged.action.name.lower()
            self.lowered_by_limit += 1
            text = f"more than {limit} of {name} within {self.rules.limit_window_s:g} s"
            judged.lower_to(Action.ALERT, f"{name}-limit", text)
            return
        acted.append(row.mono_ns)
        if judged.action is Action.CONTAIN:
            self._contained[key] = row.mono_ns
            self._contained.move_to_end(key)
            while len(self._contained) > CONTAINED_LIMIT:
                self._contained.popitem(last=False)

    def _decision(
        self, row: _Row, path: bytes, wish: Action, judged: Judged, *, scores: tuple[float, ...], generation: int
    ) -> Decision:
        return Decision(
            seq=int(row.event["seq"]),
            tree=row.tree,
            actor=int(row.event["actor"]),
            path=path,
            wanted=wish,
            action=judged.action,
            verdict=judged.verdict,
            rule=judged.rule,
            logits=scores,
            reasons=judged.reasons,
            severity=judged.severity,
            policy_version=self.policy.version if self.policy is not None and scores else "",
            generation=generation,
            at_ns=row.now_ns,
            mono_ns=row.mono_ns,
            event_at_ns=int(row.event["at_ns"]),
        )


def _identity(event: np.void, actors: Mapping[int, Identity]) -> Identity | None:
    """Who did it, only where the kernel itself named the process; a guess earns no trust."""
    flags = int(event["flags"])
    if not flags & EventFlag.ATTRIBUTED or flags & EventFlag.GUESSED:
        return None
    return actors.get(int(event["actor"]))
