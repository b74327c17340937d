"""Hard rules win over the policy, with it, without it and against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shieldd.detect.guard import Guard
from shieldd.model.decision import Action, Decision, Reason, Severity, Verdict
from shieldd.model.event import Batch, FactFlag, Kind
from shieldd.model.match import Match, MatchKind
from tests.detect.batches import ACT, batch, lost, wish

NOW_NS = 1_700_000_100 * 10**9
BAD = Match(MatchKind.EICAR, "eicar", "EICAR anti-malware test file", True, b"\0" * 32, True)


def decide(guard: Guard, seen: Batch, logits: np.ndarray | None = None, **more: Any) -> list[Decision]:
    last_ns = int(seen.events["mono_ns"].max())
    return guard.decide(
        seen,
        logits,
        content=more.pop("content", {}),
        generation=7,
        now_ns=NOW_NS,
        mono_ns=more.pop("mono_ns", last_ns),
        **more,
    )


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.DELETE, Kind.RENAME])
def test_a_touched_canary_contains_even_when_the_policy_allows(kind: Kind) -> None:
    (decision,) = decide(Guard(ACT), batch({"flags": FactFlag.CANARY, "kind": kind}), wish(Action.ALLOW))
    assert (decision.action, decision.verdict, decision.rule) == (Action.CONTAIN, Verdict.RAISED, "canary")
    assert decision.severity is Severity.CRITICAL and decision.wanted is Action.ALLOW and decision.generation == 7


@pytest.mark.parametrize("kind", [Kind.CREATE, Kind.READ])
def test_planting_or_reading_a_canary_is_nothing(kind: Kind) -> None:
    assert decide(Guard(ACT), batch({"flags": FactFlag.CANARY, "kind": kind})) == []


def test_a_changed_mode_of_a_canary_is_an_alert() -> None:
    (decision,) = decide(Guard(ACT), batch({"flags": FactFlag.CANARY, "kind": Kind.ATTRIB}))
    assert decision.action is Action.ALERT


def test_a_known_bad_signature_is_quarantined_without_a_policy() -> None:
    (decision,) = decide(Guard(ACT), batch({}), content={0: BAD})
    assert (decision.action, decision.verdict, decision.rule) == (Action.QUARANTINE, Verdict.ALONE, "signature:eicar")


def test_a_rule_that_only_informs_is_an_alert() -> None:
    match = Match(MatchKind.YARA, "odd", "odd text", False, b"\0" * 32, True)
    (decision,) = decide(Guard(ACT), batch({}), wish(Action.ALLOW), content={0: match})
    assert decision.action is Action.ALERT


def test_five_lost_contents_in_ten_seconds_contain_without_the_model_and_four_do_not() -> None:
    assert decide(Guard(ACT), batch(*lost(4)), wish(Action.ALLOW, 4)) == []
    decisions = decide(Guard(ACT), batch(*lost(5)), wish(Action.ALLOW, 5))
    assert [x.action for x in decisions] == [Action.CONTAIN]
    assert decisions[0].seq == 5 and decisions[0].rule == "destroyed"


def test_five_losses_over_a_long_time_are_not_five_in_ten_seconds() -> None:
    rows = [dict(row, at_s=at * 4.0) for at, row in enumerate(lost(8))]
    assert decide(Guard(ACT), batch(*rows)) == []


def test_losses_of_different_actors_do_not_add_up() -> None:
    rows = [dict(row, actor=at + 1) for at, row in enumerate(lost(8))]
    assert decide(Guard(ACT), batch(*rows)) == []


def test_plain_deletions_are_asked_about_and_not_stopped() -> None:
    decisions = decide(Guard(ACT), batch(*lost(30, kind=Kind.DELETE)))
    assert {x.action for x in decisions} == {Action.ALERT} and {x.rule for x in decisions} == {"removed"}


def test_deletions_beside_unreadable_new_content_count_as_lost_content() -> None:
    decisions = decide(Guard(ACT), batch(*lost(5, kind=Kind.DELETE, bad_pairs_10s=1)))
    assert [x.action for x in decisions] == [Action.CONTAIN]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_row_whose_logits_are_not_finite_goes_by_the_rules_alone(number: float) -> None:
    logits = wish(Action.QUARANTINE, 2)
    logits[0, 3] = number
    seen = batch({"flags": FactFlag.EXECUTABLE}, {"flags": FactFlag.EXECUTABLE})
    decisions = decide(Guard(ACT), seen, logits)
    assert [(x.seq, x.action) for x in decisions] == [(2, Action.QUARANTINE)]
    hit = batch({"flags": FactFlag.CANARY}, {})
    (decision,) = decide(Guard(ACT), hit, np.full((2, 5), number, np.float32))
    assert decision.verdict is Verdict.ALONE and decision.logits == ()


class Named:
    """A policy that explains everything alike."""

    version = "p1"

    def explain(self, row: np.ndarray, action: Action) -> tuple[Reason, ...]:
        return (Reason("destroyed", 2.0, "files destroyed"),)


def test_a_decision_names_its_policy_and_its_reasons() -> None:
    guard = Guard(ACT, policy=Named())
    (decision,) = decide(guard, batch({"destroyed_60s": 1}), wish(Action.CONTAIN))
    assert decision.policy_version == "p1" and decision.verdict is Verdict.PASSED
    assert [x.feature for x in decision.reasons] == ["destroyed"] and len(decision.logits) == 5


def test_reports_of_the_watch_itself_are_not_judged() -> None:
    rows = [{"kind": kind} for kind in (Kind.OVERFLOW, Kind.WATCH_LIMIT, Kind.RESCAN_DONE, Kind.MAKE_DIR)]
    assert decide(Guard(ACT), batch(*rows), wish(Action.ALERT, len(rows))) == []
    assert decide(Guard(ACT), batch({"path": b"gone"}), wish(Action.ALLOW)) == []
    assert Guard(ACT).decide(batch(), None, content={}, generation=1, now_ns=0, mono_ns=0) == []


def test_only_new_or_changed_regular_files_are_scanned_and_the_suspicious_first() -> None:
    seen = batch(
        {"kind": Kind.WRITE},
        {"kind": Kind.DELETE},
        {"kind": Kind.CREATE, "flags": FactFlag.EXECUTABLE},
        {"kind": Kind.WRITE, "flags": FactFlag.SEALED},
        {"kind": Kind.WRITE, "size": 0},
        {"kind": Kind.WRITE, "event_flags": 8},
    )
    assert Guard(ACT).look(seen).tolist() == [2, 0, 3], "a header of ours is no pass: anybody can write one"


@pytest.mark.parametrize("contained", [False, True])
def test_what_the_file_itself_calls_for_is_done_whoever_else_is_at_work(contained: bool) -> None:
    guard = Guard(ACT)
    if contained:
        assert any(x.action is Action.CONTAIN for x in decide(guard, batch(*lost(6))))
    program = {"kind": Kind.CREATE, "disguised": 1, "executable": 1, "flags": FactFlag.EXECUTABLE, "at_s": 1}
    export = {"kind": Kind.CREATE, "phi": 2, "exposed_read": 1, "flags": FactFlag.PHI_TEXT, "at_s": 1}
    store = {"kind": Kind.CREATE, "phi": 3, "exposed_read": 1, "flags": FactFlag.PHI_DICOM, "at_s": 1}
    for row, action in ((program, Action.QUARANTINE), (export, Action.SEAL)):
        for logits in (wish(Action.ALLOW), wish(Action.CONTAIN) if contained else wish(Action.ALERT), None):
            more = {"destroyed_60s": 5.0} if contained else {}
            (decision,) = decide(guard, batch({**row, **more}), logits)
            assert decision.action is action
    assert decide(guard, batch(store), wish(Action.ALLOW)) == []
