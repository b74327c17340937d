"""The pool between decisions and acts: bounded, one act a file, nothing lost in silence."""

from __future__ import annotations

import threading

import numpy as np

from shieldd.errors import ShieldError
from shieldd.model.decision import Action, Decision, Outcome, Severity, Verdict
from shieldd.model.event import EVENT, FACTS, Batch, Kind
from shieldd.model.incident import Incident, State
from shieldd.respond import GuardedTree, Trees
from shieldd.respond.acts import ActPool

from .conftest import MemoryLedger

TREES = Trees([GuardedTree(0, b"/guarded", -1)])


def _decision(path: bytes, action: Action) -> Decision:
    return Decision(
        1, 0, 1, path, action, action, Verdict.PASSED, "rule", (), (), Severity.HIGH, "", 1, 1, 1
    )  # fmt: skip


def _incident() -> Incident:
    return Incident("t1", 1, 0, State.OPEN, Severity.HIGH, None, 1, 0, 1, 0, 1, 1, 0, (), ())


def _batch(path: bytes) -> Batch:
    events = np.zeros(1, EVENT)
    events["kind"], events["ino"], events["dev"], events["path_len"] = Kind.CREATE, 77, 5, len(path)
    return Batch(events, np.zeros(1, FACTS), np.zeros((1, 1), np.float32), path)


class Recorder:
    """An act that notes what it was asked, and can be held back."""

    def __init__(self, error: ShieldError | None = None) -> None:
        self.calls: list[tuple[bytes, str, tuple[int, int] | None]] = []
        self.go = threading.Event()
        self.go.set()
        self._error = error

    def __call__(
        self, tree: GuardedTree, path: bytes, *, threat_id: str, why: str, inode: tuple[int, int] | None
    ) -> None:
        assert self.go.wait(10)
        self.calls.append((path, threat_id, inode))
        if self._error is not None:
            raise self._error


def test_an_act_gets_the_inode_that_was_judged() -> None:
    seal, quarantine = Recorder(), Recorder()
    pool = ActPool(TREES, MemoryLedger(), seal, quarantine)
    pool.submit(_decision(b"a", Action.QUARANTINE), _incident(), _batch(b"a"), 0)
    assert pool.settle(10)
    assert quarantine.calls == [(b"a", "t1", (5, 77))]
    assert seal.calls == []
    pool.close()


def test_one_file_has_one_act_at_a_time() -> None:
    seal = Recorder()
    seal.go.clear()
    pool = ActPool(TREES, MemoryLedger(), seal, seal)
    for _ in range(50):
        pool.submit(_decision(b"a", Action.SEAL), _incident(), _batch(b"a"), 0)
    assert pool.waiting() == 1
    seal.go.set()
    assert pool.settle(10)
    assert len(seal.calls) == 1
    pool.close()


def test_past_the_limit_acts_are_refused_and_told() -> None:
    seal, told = Recorder(), list[tuple[str, str]]()
    seal.go.clear()
    pool = ActPool(
        TREES, MemoryLedger(), seal, seal, failed=lambda code, text: told.append((code, text)), queue_limit=3
    )
    for number in range(4):
        pool.submit(_decision(b"%d" % number, Action.SEAL), _incident(), _batch(b"%d" % number), 0)
    assert pool.refused == 1
    assert [code for code, _ in told] == ["respond.full"]
    seal.go.set()
    assert pool.settle(10)
    assert len(seal.calls) == 3
    pool.close()


def test_a_failed_act_is_told_and_the_pool_goes_on() -> None:
    told: list[tuple[str, str]] = []
    broken, fine = Recorder(ShieldError("file.busy")), Recorder()
    pool = ActPool(TREES, MemoryLedger(), broken, fine, failed=lambda code, text: told.append((code, text)))
    pool.submit(_decision(b"a", Action.SEAL), _incident(), _batch(b"a"), 0)
    pool.submit(_decision(b"b", Action.QUARANTINE), _incident(), _batch(b"b"), 0)
    assert pool.settle(10)
    assert (pool.done, pool.failures) == (1, 1)
    assert told[0][0] == "file.busy"
    pool.close()


def test_containment_is_recorded_as_left_to_a_person() -> None:
    ledger = MemoryLedger()
    pool = ActPool(TREES, ledger, Recorder(), Recorder())
    pool.submit(_decision(b"a", Action.CONTAIN), _incident(), _batch(b"a"), 0)
    assert pool.settle(10)
    assert [x.outcome for x in ledger.ended] == [Outcome.SKIPPED]
    pool.close()


def test_closing_waits_for_what_is_in_hand_and_drops_what_waits() -> None:
    seal = Recorder()
    seal.go.clear()
    pool = ActPool(TREES, MemoryLedger(), seal, seal, workers=1)
    for name in (b"a", b"b"):
        pool.submit(_decision(name, Action.SEAL), _incident(), _batch(name), 0)
    closing = threading.Thread(target=pool.close)
    closing.start()
    seal.go.set()
    closing.join(10)
    assert not closing.is_alive()
    assert len(seal.calls) <= 2
