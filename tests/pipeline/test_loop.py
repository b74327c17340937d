"""The loop with real guard, incidents and store, and sources and policies that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shieldd.detect.guard import Guard
from shieldd.detect.incidents import Incidents
from shieldd.detect.rules import GuardRules, Mode
from shieldd.errors import ShieldError
from shieldd.model.decision import Action, Decision, Severity
from shieldd.model.event import Batch, FactFlag, Kind
from shieldd.model.incident import Incident
from shieldd.model.incident import Judgement as Word
from shieldd.model.match import Match, MatchKind
from shieldd.pipeline import Judgement, Pipeline

from ..detect.batches import ACT, batch, lost


@dataclass
class Ears:
    """Records, acts, scans and streams in one, for reading back."""

    recorded: list[tuple[int, dict[int, str]]] = field(default_factory=list)
    saved: list[Incident] = field(default_factory=list)
    acts: list[tuple[Action, bytes]] = field(default_factory=list)
    alerts: list[tuple[Action, bool]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    scans: list[int] = field(default_factory=list)
    waiting: int = 0
    acted: threading.Event = field(default_factory=threading.Event)

    def record_events(self, batch: Batch, decisions: Sequence[Decision], threats: Mapping[int, str]) -> int:
        self.recorded.append((len(batch), dict(threats)))
        return 1

    def save_incident(self, incident: Incident, *, wait: bool) -> None:
        assert not wait, "deciding never waits for the disk"
        self.saved.append(incident)

    def events(self, first: int, batch: Batch, decisions: Sequence[Decision], threats: Mapping[int, str]) -> None:
        return

    def alert(self, decision: Decision, incident: Incident, *, new: bool) -> None:
        self.alerts.append((decision.action, new))

    def trouble(self, code: str, text: str, severity: Severity, tree: int, path: bytes) -> None:
        self.troubles.append(code)
        self.words.append(text)

    def submit(self, decision: Decision, incident: Incident, batch: Batch, row: int) -> None:
        self.acts.append((decision.action, decision.path))
        self.acted.set()


@dataclass
class Scans:
    """A scan queue that only remembers."""

    rows: list[int] = field(default_factory=list)
    waiting: int = 0

    def submit(self, batch: Batch, rows: Sequence[int]) -> None:
        self.rows += rows


class Broken:
    """A policy that fails."""

    version = "broken"

    def score(self, observations: np.ndarray) -> np.ndarray:
        raise ShieldError("policy.output")


class Fixed:
    """A policy that always says the same."""

    version = "fixed"

    def __init__(self, action: Action, value: float = 9.0) -> None:
        self._action, self._value = action, value

    def score(self, observations: np.ndarray) -> np.ndarray:
        out = np.zeros((len(observations), len(Action)), np.float32)
        out[:, self._action] = self._value
        return out


class Queue:
    """A source that hands out what it was given, then stops."""

    def __init__(self, *batches: Batch) -> None:
        self._batches = list(batches)

    def next_batch(self, timeout_s: float) -> Batch | None:
        if not self._batches:
            raise ShieldError("watch.stopped")
        return self._batches.pop(0)


def _pipeline(source: object, policy: object, ears: Ears, rules: GuardRules = ACT, **more: object) -> Pipeline:
    guard = Guard(rules)
    judgement = Judgement(1, policy, guard, lambda: Guard(rules))  # type: ignore[arg-type]
    scans = more.pop("scans", None)
    return Pipeline(source, judgement, Incidents(guard.losses), ears, ears, scans, ears, **more)  # type: ignore[arg-type]


def test_a_policy_that_fails_leaves_the_hard_rules() -> None:
    ears = Ears()
    pipeline = _pipeline(Queue(batch(*lost(6))), Broken(), ears)
    pipeline.run()
    assert pipeline.counters.policy_failures == 1
    assert ears.troubles == ["policy.failed"]
    assert ears.acts[0][0] is Action.CONTAIN
    assert ears.recorded[0][0] == 6


def test_numbers_that_are_not_finite_leave_the_hard_rules() -> None:
    ears = Ears()
    pipeline = _pipeline(Queue(batch(*lost(6))), Fixed(Action.QUARANTINE, float("nan")), ears)
    pipeline.run()
    assert [action for action, _ in ears.acts] == [Action.CONTAIN]


def test_without_a_policy_plain_work_passes_and_is_recorded() -> None:
    ears = Ears()
    pipeline = _pipeline(Queue(batch({}, {}, {})), None, ears)
    pipeline.run()
    assert ears.acts == [] and ears.alerts == []
    assert ears.recorded == [(3, {})]
    assert pipeline.counters.decisions[Action.ALLOW] == 3


def test_lost_events_are_told_with_their_code() -> None:
    ears = Ears()
    rows = [{"kind": kind} for kind in (Kind.OVERFLOW, Kind.WATCH_LIMIT, Kind.ROOT_GONE, Kind.RESCAN_DONE)]
    _pipeline(Queue(batch(*rows)), None, ears).run()
    assert ears.troubles == ["watch.overflow", "watch.limit", "watch.gone"]


def test_a_flood_of_losses_is_told_once_and_counted() -> None:
    ears = Ears()
    flood = [{"kind": Kind.OVERFLOW, "at_s": number * 0.01} for number in range(200)]
    later = [{"kind": Kind.OVERFLOW, "at_s": 60}]
    _pipeline(Queue(batch(*flood), batch(*later)), None, ears).run()
    assert ears.troubles == ["watch.overflow", "watch.overflow"]
    assert "199 more times" in ears.words[-1]


def test_a_match_is_decided_though_the_policy_allowed_and_counts_no_loss_twice() -> None:
    ears, scans = Ears(), Scans()
    rows = batch({"kind": Kind.CREATE, "path": b"bad.com", "destroys": 1})
    pipeline = _pipeline(Queue(rows, batch({})), Fixed(Action.ALLOW), ears, scans=scans)
    pipeline.found(rows, 0, Match(MatchKind.EICAR, "eicar", "test file", True, b"\0" * 32, True))
    pipeline.run()
    assert scans.rows == [0, 0]
    assert ears.acts == [(Action.QUARANTINE, b"bad.com")]
    assert ears.saved[-1].files_lost <= 1


def test_alert_only_trees_are_never_acted_in() -> None:
    ears = Ears()
    rules = GuardRules(modes=(Mode.ALERT_ONLY,))
    _pipeline(Queue(batch(*lost(8))), None, ears, rules).run()
    assert ears.acts == []
    assert ears.alerts and all(action is Action.ALERT for action, _ in ears.alerts)


def test_canaries_are_marked_before_deciding() -> None:
    ears = Ears()

    def mark(rows: Batch) -> None:
        rows.facts["flags"] |= np.uint64(FactFlag.CANARY)

    _pipeline(Queue(batch({"kind": Kind.WRITE})), None, ears, mark=mark).run()
    assert [action for action, _ in ears.acts] == [Action.CONTAIN]


def test_a_new_judgement_is_taken_over_by_the_loops_own_thread() -> None:
    ears, taken = Ears(), list[str]()
    pipeline = _pipeline(Queue(batch({}), batch({})), None, ears)
    guard = Guard(ACT)
    pipeline.swap(Judgement(2, None, guard, lambda: guard, lambda: taken.append(threading.current_thread().name)))
    runner = threading.Thread(target=pipeline.run, name="loop")
    runner.start()
    runner.join(10)
    assert taken == ["loop"], "once, at the first batch after the swap"


def test_a_persons_word_closes_the_incident() -> None:
    ears = Ears()
    pipeline = _pipeline(Queue(batch(*lost(6)), batch(*lost(6, at_s=100))), None, ears)
    first = pipeline._source.next_batch(0)  # type: ignore[attr-defined]
    pipeline.step(first)
    opened = ears.saved[-1].id
    pipeline.resolve(opened, Word.BENIGN, "", 1)
    pipeline.run()
    assert ears.saved[-1].id != opened
