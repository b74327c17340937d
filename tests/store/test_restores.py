"""Plans and steps as they are kept: over a restart, with every odd byte, and out when their time is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from shieldd.errors import ShieldError
from shieldd.model.decision import Outcome
from shieldd.model.event import Kind
from shieldd.model.restore import Act, Conflict, Found, Plan, PlanState, Step, There, Wanted
from shieldd.store import Keep, Store
from tests.store.build import batch

PLAN = Plan("p1", "t1", 1, 1_000, PlanState.PLANNED, True, 2)
WANTED = Wanted(9, 0o640, 2**32 - 2, 0, -5, 2**62, b"\xab" * 32, ((b"user.\xff", b"\0\xff"), (b"user.b", b"")), True)
STEP = Step(
    number=0, tree=1, path=b"a\xff\n", act=Act.COPY, found=Found.CHANGED, conflict=Conflict.CHANGED_SINCE, lost=False,
    version="0-00ff", at_ns=7, other=b"", wanted=WANTED, there=There(1, 2**63 - 1, 3, -4, 5, 0o100644, 1000),
    text="changed", hidden=b".shieldd-" + b"0" * 24,
)  # fmt: skip
STEPS = [STEP, replace(STEP, number=1, text="x", wanted=None, there=None, lost=True)]


def test_a_plan_comes_back_as_it_was_after_a_restart(store: Store, reopen: Callable[[], Store]) -> None:
    store.restores.begin(PLAN, STEPS)
    store.close()
    again = reopen().restores
    assert again.plan("p1") == PLAN
    assert list(again.steps("p1")) == STEPS
    assert list(again.steps("p1", after=0)) == STEPS[1:]


def test_a_step_goes_from_its_intent_to_its_result(store: Store) -> None:
    store.restores.begin(PLAN, STEPS)
    store.restores.mark("p1", PlanState.RUNNING)
    store.restores.intend("p1", [replace(STEPS[0], aside=True)])
    assert store.restores.begun("p1") == {0}
    assert [x.id for x in store.restores.unfinished()] == ["p1"]
    store.restores.result("p1", [replace(STEPS[0], outcome=Outcome.FAILED, code="file.io", reason="r \udcff")])
    (done, _) = store.restores.steps("p1")
    assert (done.outcome, done.code, done.reason, done.aside) == (Outcome.FAILED, "file.io", "r ?", True)
    assert store.restores.begun("p1") == set()
    store.restores.mark("p1", PlanState.DONE)
    assert store.restores.unfinished() == []
    assert store.restores.counts("p1") == {
        ("copy", "changed-since", False, "failed"): 1,
        ("copy", "changed-since", True, "pending"): 1,
    }


def test_a_new_plan_takes_the_place_of_one_that_was_never_begun(store: Store) -> None:
    store.restores.begin(PLAN, STEPS)
    store.restores.begin(replace(PLAN, id="p2"), STEPS)
    assert [x.id for x in store.restores.plans("t1")] == ["p2"]
    assert list(store.restores.steps("p1")) == []
    store.restores.mark("p2", PlanState.RUNNING)
    store.restores.begin(replace(PLAN, id="p3", made_at_ns=2_000), STEPS)
    assert [x.id for x in store.restores.plans("t1")] == ["p2", "p3"]
    with pytest.raises(ShieldError) as refused:
        store.restores.plan("p")
    assert refused.value.code == "api.ambiguous"


def test_plans_go_when_their_time_is_over_but_not_while_they_run(store: Store) -> None:
    store.restores.begin(PLAN, STEPS)
    store.restores.mark("p1", PlanState.RUNNING)
    store.restores.begin(replace(PLAN, id="p2"), STEPS)
    store.prune(Keep(1, 10, 1, 1), now_ns=10**18)
    assert [x.id for x in store.restores.plans("t1")] == ["p1"]
    assert len(list(store.restores.steps("p1"))) == 2
    assert list(store.restores.steps("p2")) == []


def test_the_history_is_told_in_order_and_by_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shieldd.store.restores.PAGE", 3)
    store.record_events(batch([b"%d" % number for number in range(10)], at_ns=1_000))
    store.record_events(batch([b"elsewhere"], at_ns=1_000, tree=1))
    store.flush()
    found = list(store.restores.touches(0, 1_002, 1_009))
    assert [x.path for x in found] == [b"%d" % number for number in range(2, 9)]
    assert {x.kind for x in found} == {Kind.WRITE}
    assert found[0].actor == 2**64 - 1
    assert list(store.restores.touches(0, 5_000, 9_000)) == []
