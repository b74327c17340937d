"""Decisions of one actor in one tree become one incident, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shieldd.detect.guard import Guard
from shieldd.detect.incidents import Incidents
from shieldd.detect.techniques import techniques
from shieldd.model.decision import Action, Decision, Reason, Severity, Verdict
from shieldd.model.event import FACTS, FactFlag
from shieldd.model.incident import Judgement, State
from tests.detect.batches import ACT, S, batch, lost, wish
from tests.detect.test_guard_hard_rules import decide


def decision(**more: object) -> Decision:
    base = Decision(
        seq=1, tree=0, actor=5, path=b"a", wanted=Action.CONTAIN, action=Action.CONTAIN, verdict=Verdict.PASSED,
        rule="", logits=(), reasons=(Reason("destroyed", 2.0, "files destroyed"),), severity=Severity.CRITICAL,
        policy_version="", generation=1, at_ns=100 * S, mono_ns=50 * S,
    )  # fmt: skip
    return replace(base, **more)


def facts(path: int = 1, flags: int = 0) -> np.void:
    row = np.zeros(1, FACTS)
    row["path_hash"], row["flags"] = path, flags
    return row[0]


def test_decisions_of_one_actor_fold_into_one_incident() -> None:
    incidents = Incidents()
    first, new = incidents.fold(decision(action=Action.ALERT, severity=Severity.LOW), facts(1))
    assert new and first.files_touched == 1 and first.severity is Severity.LOW and first.state is State.OPEN
    second, new = incidents.fold(decision(seq=2, mono_ns=60 * S, at_ns=110 * S), facts(2))
    assert not new and second.id == first.id
    assert second.files_touched == 2 and second.severity is Severity.CRITICAL
    assert second.opened_at_ns == second.decided_at_ns == 100 * S


@pytest.mark.parametrize("other", [{"actor": 6}, {"tree": 1}, {"mono_ns": 50 * S + 301 * S}])
def test_another_actor_tree_or_time_is_another_incident(other: dict[str, int]) -> None:
    incidents = Incidents()
    first, _ = incidents.fold(decision(), facts())
    second, new = incidents.fold(decision(seq=2, **other), facts())
    assert new and second.id != first.id


def test_losses_before_the_first_decision_are_counted() -> None:
    guard = Guard(ACT)
    incidents = Incidents(guard.losses)
    seen = batch(*lost(5, actor=5))
    (contained,) = decide(guard, seen, wish(Action.ALLOW, 5))
    incident, _ = incidents.fold(contained, seen.facts[4])
    assert incident.files_lost == 5 and incident.files_touched == 5
    assert incident.first_event_at_ns == int(seen.events[0]["at_ns"])


def test_what_was_resolved_is_no_part_of_the_next_incident() -> None:
    guard = Guard(ACT)
    incidents = Incidents(guard.losses)
    seen = batch(*lost(5, actor=5))
    (contained,) = decide(guard, seen, wish(Action.ALLOW, 5))
    incident, _ = incidents.fold(contained, seen.facts[4])
    assert incidents.resolve(incident.id, Judgement.BENIGN, "", 1) is not None
    guard.release(5, 0)
    again = batch(dict(lost(1, actor=5)[0], path=b"next", at_s=2))
    (alert,) = decide(guard, again, wish(Action.ALERT, 1))
    fresh, new = incidents.fold(alert, again.facts[0])
    assert new and fresh.id != incident.id
    assert (fresh.files_lost, fresh.files_touched) == (1, 1)
    assert fresh.first_event_at_ns == int(again.events[0]["at_ns"])


def test_the_same_file_counts_once() -> None:
    incidents = Incidents()
    for seq in range(10):
        incident, _ = incidents.fold(decision(seq=seq), facts(1))
    assert incident.files_touched == 1


def test_reasons_keep_the_strongest_word_of_each_feature() -> None:
    incidents = Incidents()
    incidents.fold(decision(reasons=(Reason("a", 1.0), Reason("b", -3.0))), facts())
    incident, _ = incidents.fold(decision(reasons=(Reason("a", 2.0), Reason("b", 0.1))), facts())
    assert incident.reasons == (Reason("b", -3.0), Reason("a", 2.0))


def test_a_persons_word_closes_it_and_the_next_event_opens_another() -> None:
    incidents = Incidents()
    first, _ = incidents.fold(decision(), facts())
    closed = incidents.resolve(first.id, Judgement.BENIGN, "our backup", 200 * S)
    assert closed is not None and closed.state is State.RESOLVED and closed.note == "our backup"
    assert incidents.resolve(first.id, Judgement.BENIGN, "", 0) is None
    _, new = incidents.fold(decision(seq=9), facts())
    assert new


def test_when_containment_took_hold_is_noted_once() -> None:
    incidents = Incidents()
    first, _ = incidents.fold(decision(), facts())
    assert incidents.contained(first.id, 7).contained_at_ns == 7  # type: ignore[union-attr]
    assert incidents.contained(first.id, 9).contained_at_ns == 7  # type: ignore[union-attr]
    assert incidents.contained("other", 9) is None


def test_what_is_preserved_is_not_lost() -> None:
    guard = Guard(ACT)
    incidents = Incidents(guard.losses)
    seen = batch(*lost(5, actor=5))
    (contained,) = decide(guard, seen, wish(Action.ALLOW, 5))
    incident, _ = incidents.fold(contained, seen.facts[4])
    assert (incident.files_preserved, incident.files_lost) == (0, 5)
    incident = incidents.preserved(incident.id, 4, 1)  # type: ignore[assignment]
    assert (incident.files_preserved, incident.files_lost) == (4, 1)
    again, _ = incidents.fold(decision(seq=9, actor=5, mono_ns=contained.mono_ns), seen.facts[4])
    assert (again.files_preserved, again.files_lost) == (4, 1), "a later decision does not undo it"
    assert incidents.preserved("other", 1, 0) is None
    late = incidents.preserved(incident.id, 4, 60)
    assert late is not None and late.files_touched >= 64, "what was lost was touched"


def test_since_when_it_is_held_is_noted_once() -> None:
    incidents = Incidents()
    first, _ = incidents.fold(decision(), facts())
    held = incidents.contained(first.id, 9, 7)
    assert held is not None and (held.held_at_ns, held.contained_at_ns) == (7, 9)
    again = incidents.contained(first.id, 19, 17)
    assert again is not None and (again.held_at_ns, again.contained_at_ns) == (7, 9)


def test_the_rate_counts_steps_over_the_time_between() -> None:
    incidents = Incidents()
    one, _ = incidents.fold(decision(event_at_ns=100 * S), facts(1))
    assert one.files_per_s == 0.0
    for n in range(1, 11):
        last, _ = incidents.fold(decision(seq=n, event_at_ns=100 * S + n * S // 4), facts(n + 1))
    assert last.files_touched == 11 and last.files_per_s == 4.0


def test_memory_is_bounded_and_the_quiet_leave() -> None:
    incidents = Incidents(open_limit=10)
    for actor in range(50):
        incidents.fold(decision(actor=actor), facts())
    assert len(incidents) == 10
    assert len(incidents.quiet(50 * S + 301 * S)) == 10 and len(incidents) == 0


def test_the_same_decisions_give_the_same_names() -> None:
    assert Incidents().fold(decision(), facts())[0] == Incidents().fold(decision(), facts())[0]


@pytest.mark.parametrize(
    ("made", "flags", "expected"),
    [
        ({"reasons": (Reason("encrypted_outputs", 1.0),)}, 0, ("T1486",)),
        ({"reasons": (Reason("deletes", 1.0),)}, 0, ("T1485",)),
        ({"reasons": ()}, FactFlag.KNOWN_BEFORE | FactFlag.LOOKED, ("T1485", "T1565.001")),
        ({"wanted": Action.QUARANTINE, "action": Action.QUARANTINE}, FactFlag.EXECUTABLE, ("T1204.002",)),
        (
            {"wanted": Action.QUARANTINE, "action": Action.QUARANTINE},
            FactFlag.EXECUTABLE | FactFlag.EXT_KNOWN,
            ("T1204.002", "T1036.008"),
        ),
        ({"wanted": Action.SEAL, "action": Action.SEAL}, FactFlag.PHI_TEXT, ("T1222.002",)),
        ({"wanted": Action.ALLOW, "action": Action.ALERT, "rule": "removed"}, 0, ("T1485",)),
        ({"wanted": Action.ALERT, "action": Action.ALERT}, 0, ()),
    ],
)
def test_techniques(made: dict[str, object], flags: int, expected: tuple[str, ...]) -> None:
    assert techniques(decision(**made), int(flags)) == expected
