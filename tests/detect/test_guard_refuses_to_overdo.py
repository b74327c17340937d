"""Ground, protection, trust, modes and limits: what keeps the guard from doing harm itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shieldd.detect.guard import Guard
from shieldd.detect.rules import GuardRules, Identity, Mode, Trust
from shieldd.model.decision import Action, Severity, Verdict
from shieldd.model.event import EventFlag, FactFlag, Kind
from shieldd.model.match import Match, MatchKind
from tests.detect.batches import ACT, ATTRIBUTED, S, batch, lost, wish
from tests.detect.test_guard_hard_rules import BAD, decide

EXE = b"\1" * 32
TRUST = Trust(EXE, tree=0, budget=10)
TRUSTING = replace(ACT, trust=(TRUST,))
WHO = {9: Identity(pid=900, exe_sha256=EXE)}


def attack(**more: object) -> dict[str, object]:
    return {"destroyed_60s": 1, "actor": 9, "pid": 900, "event_flags": ATTRIBUTED, **more}


@pytest.mark.parametrize(
    ("action", "row"),
    [
        (Action.SEAL, {"flags": FactFlag.PHI_TEXT}),
        (Action.SEAL, {"exposed_read": 1}),
        (Action.SEAL, {"exposed_read": 1, "flags": FactFlag.PHI_TEXT | FactFlag.SEALED}),
        (Action.QUARANTINE, {"flags": FactFlag.PHI_TEXT}),
        (Action.CONTAIN, {}),
    ],
)
def test_a_wish_without_ground_becomes_an_alert(action: Action, row: dict[str, object]) -> None:
    (decision,) = decide(Guard(ACT), batch(row), wish(action))
    assert (decision.action, decision.verdict, decision.wanted) == (Action.ALERT, Verdict.LOWERED, action)


@pytest.mark.parametrize(
    ("action", "row"),
    [
        (Action.SEAL, {"exposed_read": 1, "flags": FactFlag.PHI_TEXT}),
        (Action.SEAL, {"exposed_write": 1, "flags": FactFlag.PHI_DICOM}),
        (Action.QUARANTINE, {"flags": FactFlag.EXECUTABLE}),
        (Action.QUARANTINE, {"flags": FactFlag.SCRIPT}),
        (Action.QUARANTINE, {"flags": FactFlag.NOTE_LIKE}),
        (Action.CONTAIN, {"destroyed_60s": 1}),
    ],
)
def test_a_wish_with_ground_passes(action: Action, row: dict[str, object]) -> None:
    (decision,) = decide(Guard(ACT), batch(row), wish(action))
    assert (decision.action, decision.verdict) == (action, Verdict.PASSED)


@pytest.mark.parametrize("pid", [1, 555])
def test_the_first_process_and_shieldd_itself_are_never_contained(pid: int) -> None:
    guard = Guard(replace(ACT, own_pids=frozenset({555})))
    (decision,) = decide(guard, batch(attack(pid=pid)), wish(Action.CONTAIN))
    assert (decision.action, decision.rule) == (Action.ALERT, "protected")
    behind = {9: Identity(pid=pid, exe_sha256=EXE)}
    (decision,) = decide(Guard(guard.rules), batch(attack(pid=77)), wish(Action.CONTAIN), actors=behind)
    assert decision.rule == "protected"


def test_a_trusted_program_within_its_budget_is_left_alone() -> None:
    (decision,) = decide(Guard(TRUSTING), batch(attack()), wish(Action.CONTAIN), actors=WHO)
    assert (decision.action, decision.verdict, decision.rule) == (Action.ALLOW, Verdict.LOWERED, "trust")


@pytest.mark.parametrize(
    "trick",
    [
        {"tree": 1},  # trusted elsewhere
        {"event_flags": 0},  # nobody said who it was
        {"event_flags": ATTRIBUTED | int(EventFlag.GUESSED)},  # a guess
        {"actor": 10},  # another actor
    ],
)
def test_trust_is_not_borrowed(trick: dict[str, object]) -> None:
    guard = Guard(replace(TRUSTING, modes=(Mode.ACT, Mode.ACT)))
    (decision,) = decide(guard, batch(attack(**trick)), wish(Action.CONTAIN), actors=WHO)
    assert decision.action is Action.CONTAIN


def test_trust_is_the_bytes_of_the_program_not_its_name_or_file_name() -> None:
    changed = {9: Identity(pid=900, exe_sha256=b"\2" * 32)}
    (decision,) = decide(Guard(TRUSTING), batch(attack(path=b"backup/rsync.db")), wish(Action.CONTAIN), actors=changed)
    assert decision.action is Action.CONTAIN


def test_trust_ends_with_its_budget_and_with_its_time() -> None:
    rows = [dict(row, **attack(path=row["path"])) for row in lost(12)]
    decisions = decide(Guard(TRUSTING), batch(*rows), wish(Action.CONTAIN, 12), actors=WHO)
    assert [x.rule for x in decisions[:10]] == ["trust"] * 10
    assert decisions[10].action is Action.CONTAIN
    late = replace(ACT, trust=(replace(TRUST, until_ns=1),))
    (decision,) = decide(Guard(late), batch(attack()), wish(Action.CONTAIN), actors=WHO)
    assert decision.action is Action.CONTAIN


def test_trust_covers_neither_a_bad_signature_nor_a_canary() -> None:
    (decision,) = decide(Guard(TRUSTING), batch(attack()), content={0: BAD}, actors=WHO)
    assert decision.action is Action.QUARANTINE
    (decision,) = decide(Guard(TRUSTING), batch(attack(flags=FactFlag.CANARY)), actors=WHO)
    assert (decision.action, decision.rule) == (Action.ALERT, "trust-canary")


def test_a_trust_without_a_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="sha-256"):
        Trust(b"rsync", 0, 5)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ALERT_ONLY])
@pytest.mark.parametrize("action", [Action.SEAL, Action.QUARANTINE, Action.CONTAIN])
def test_observing_turns_every_action_into_an_alert(mode: Mode, action: Action) -> None:
    guard = Guard(GuardRules(modes=(mode,)))
    flags = FactFlag.EXECUTABLE | FactFlag.PHI_TEXT
    (decision,) = decide(guard, batch({"flags": flags, "exposed_read": 1, "destroyed_60s": 1}), wish(action))
    assert (decision.action, decision.rule) == (Action.ALERT, "mode")
    assert decision.severity >= Severity.MEDIUM
    hard = decide(guard, batch({"flags": FactFlag.CANARY}))
    assert hard[0].action is Action.ALERT and hard[0].severity is Severity.HIGH


def test_an_alert_only_tree_may_hold_for_a_while_and_nothing_else() -> None:
    rules = GuardRules(modes=(Mode.ALERT_ONLY, Mode.OBSERVE), hold_in_alert_only=True)
    flags = FactFlag.EXECUTABLE | FactFlag.PHI_TEXT
    row = {"flags": flags, "exposed_read": 1, "destroyed_60s": 1}
    assert decide(Guard(rules), batch(row), wish(Action.CONTAIN))[0].action is Action.CONTAIN
    for action in (Action.SEAL, Action.QUARANTINE):
        assert decide(Guard(rules), batch(row), wish(action))[0].action is Action.ALERT
    assert decide(Guard(rules), batch({**row, "tree": 1}), wish(Action.CONTAIN))[0].action is Action.ALERT
    guard = Guard(rules)  # what is contained already: the files beside it are not touched either
    decide(guard, batch(row), wish(Action.CONTAIN))
    again = decide(guard, batch({**row, "disguised": 1, "executable": 1}), wish(Action.CONTAIN))
    assert {x.action for x in again} == {Action.ALERT}


def test_a_tree_without_a_mode_is_only_observed() -> None:
    (decision,) = decide(Guard(ACT), batch({"destroyed_60s": 1, "tree": 3}), wish(Action.CONTAIN))
    assert decision.action is Action.ALERT


def test_no_more_than_three_containments_in_ten_minutes() -> None:
    guard = Guard(ACT)
    rows = [{"destroyed_60s": 1, "actor": actor} for actor in range(1, 6)]
    decisions = decide(guard, batch(*rows), wish(Action.CONTAIN, 5))
    assert [x.action for x in decisions] == [Action.CONTAIN] * 3 + [Action.ALERT] * 2
    assert decisions[3].rule == "contain-limit" and decisions[3].severity is Severity.HIGH
    assert guard.lowered_by_limit == 2
    later_ns = decisions[0].mono_ns + 600 * S
    (decision,) = decide(guard, batch({"destroyed_60s": 1, "actor": 8}), wish(Action.CONTAIN), mono_ns=later_ns)
    assert decision.action is Action.CONTAIN


def test_an_actor_is_contained_once_and_again_after_a_minute() -> None:
    guard = Guard(ACT)
    decisions = decide(guard, batch(*[{"destroyed_60s": 1}] * 4), wish(Action.CONTAIN, 4))
    assert [x.action for x in decisions] == [Action.CONTAIN] + [Action.ALERT] * 3
    assert decisions[1].rule == "contained"
    later_ns = decisions[0].mono_ns + 61 * S
    assert (
        decide(guard, batch({"destroyed_60s": 1}), wish(Action.CONTAIN), mono_ns=later_ns)[0].action is Action.CONTAIN
    )


@pytest.mark.parametrize(
    ("action", "row", "limits"),
    [
        (Action.QUARANTINE, {"flags": FactFlag.EXECUTABLE}, {"quarantine_limit": 2}),
        (Action.SEAL, {"flags": FactFlag.PHI_TEXT, "exposed_read": 1}, {"seal_limit": 2}),
    ],
)
def test_quarantine_and_seal_have_limits_too(action: Action, row: dict[str, object], limits: dict[str, int]) -> None:
    decisions = decide(Guard(replace(ACT, **limits)), batch(*[row] * 3), wish(action, 3))
    assert [x.action for x in decisions] == [action, action, Action.ALERT]


def test_a_swap_of_configuration_keeps_the_limits_in_force() -> None:
    guard = Guard(ACT)
    decide(guard, batch(*[{"destroyed_60s": 1, "actor": x} for x in range(1, 4)]), wish(Action.CONTAIN, 3))
    guard.swap(replace(ACT, destroyed_limit=9), None)
    (decision,) = decide(guard, batch({"destroyed_60s": 1, "actor": 7}), wish(Action.CONTAIN))
    assert decision.rule == "contain-limit"


def test_a_plain_allow_makes_no_decision_and_keeps_no_memory() -> None:
    guard = Guard(ACT)
    seen = batch(*[{"kind": Kind.CREATE}] * 50)
    assert decide(guard, seen, wish(Action.ALLOW, 50)) == []
    assert decide(guard, seen, None) == []
    assert guard.losses.of(1, 0, 1000 * S) is None


def test_memory_of_losses_is_bounded() -> None:
    guard = Guard(ACT)
    rows = [dict(row, actor=at + 1) for at, row in enumerate(lost(5000))]
    decide(guard, batch(*rows))
    assert guard.losses.forgotten == 5000 - 4096


def test_replay_of_the_same_events_gives_the_same_decisions() -> None:
    rng = np.random.default_rng(3)
    rows = [dict(row, actor=int(rng.integers(1, 4))) for row in lost(60)]
    logits = rng.normal(size=(60, 5)).astype(np.float32)
    first = decide(Guard(ACT), batch(*rows), logits)
    assert first == decide(Guard(ACT), batch(*rows), logits)


def test_a_match_asks_for_quarantine_only_where_its_rule_says_so() -> None:
    informs = Match(MatchKind.YARA, "r", "t", False, b"", False)
    (decision,) = decide(Guard(ACT), batch({"flags": FactFlag.EXECUTABLE}), None, content={0: informs})
    assert decision.action is Action.ALERT


def test_a_drop_beside_a_contained_attack_is_still_taken_away() -> None:
    guard = Guard(ACT)
    logits = np.array([[0, 0, -9, 4, 9], [0, 0, -9, 4, 9], [0, 0, -9, -4, 9]], np.float32)
    drop = {"destroyed_60s": 1, "flags": FactFlag.EXECUTABLE}
    decisions = decide(guard, batch({"destroyed_60s": 1}, drop, drop), logits)
    assert [x.action for x in decisions] == [Action.CONTAIN, Action.QUARANTINE, Action.ALERT]
    assert decisions[1].rule == "beside-contained"
    assert decide(guard, batch({"destroyed_60s": 1}), logits[:1])[0].action is Action.ALERT  # no ground for the file


def test_a_closed_incident_frees_its_actor_and_its_place_in_the_limit() -> None:
    guard = Guard(replace(ACT, contain_limit=1))
    first = decide(guard, batch(*lost(6)), mono_ns=1000 * S)
    assert sum(x.action is Action.CONTAIN for x in first) == 1
    assert not any(x.action is Action.CONTAIN for x in decide(guard, batch(*lost(6, at_s=70)), mono_ns=1070 * S))
    guard.release(1, 0)
    assert any(x.action is Action.CONTAIN for x in decide(guard, batch(*lost(6, at_s=80)), mono_ns=1080 * S))
