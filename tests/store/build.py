"""Values to put into a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shieldd.model.decision import Action, ActionKind, Decision, Outcome, Reason, Severity, Verdict
from shieldd.model.event import EVENT, FACTS, Batch, Kind
from shieldd.model.incident import Actor, Incident, State, TakenAction

ROOTS = (b"/srv/imaging", b"/srv/ehr\xff")


@dataclass(frozen=True)
class End:
    id: str
    outcome: Outcome = Outcome.DONE
    reason: str = ""
    undo: str = ""


def batch(paths: Sequence[bytes], *, first_seq: int = 1, at_ns: int = 1_000, tree: int = 0) -> Batch:
    """Events on these paths, one ns apart."""
    events = np.zeros(len(paths), EVENT)
    names, offset = b"".join(paths), 0
    for row, path in enumerate(paths):
        events[row]["seq"] = first_seq + row
        events[row]["at_ns"] = at_ns + row
        events[row]["path_off"], events[row]["path_len"] = offset, len(path)
        events[row]["kind"] = Kind.WRITE
        events[row]["tree"] = tree
        events[row]["pid"], events[row]["uid"] = -1, 0xFFFFFFFF
        events[row]["actor"] = 2**64 - 1
        events[row]["merged"] = 1
        offset += len(path)
    return Batch(events, np.zeros(len(paths), FACTS), np.ones((len(paths), 4), np.float32), names)


def decision(seq: int, *, action: Action = Action.SEAL, path: bytes = b"a") -> Decision:
    return Decision(
        seq=seq, tree=0, actor=2**64 - 1, path=path, wanted=action, action=action, verdict=Verdict.PASSED, rule="",
        logits=(0.5, -1.25, 2.0, 0.0, -3.0), reasons=(Reason("entropy_head", 0.75, "rose to 7.99 bits"),),
        severity=Severity.HIGH, policy_version="1", generation=3, at_ns=1_000, mono_ns=5,
    )  # fmt: skip


def action(number: str, *, at_ns: int = 1_000, threat: str = "t1", path: bytes = b"x\xff\n") -> TakenAction:
    return TakenAction(
        number, threat, ActionKind.SEAL, 1, path, at_ns, Outcome.PENDING, "asked for", f"shieldctl files open {number}"
    )


def incident(number: str, *, opened_at_ns: int = 1_000, state: State = State.OPEN, touched: int = 1) -> Incident:
    return Incident(
        id=number, opened_at_ns=opened_at_ns, closed_at_ns=0, state=state, severity=Severity.CRITICAL,
        actor=Actor(77, b"/usr/bin/\xffx", b"x\0y", 1000), actor_id=2**63 + 9, tree=1,
        files_touched=touched, files_lost=0,
        first_event_at_ns=1, decided_at_ns=2, contained_at_ns=0,
        reasons=(Reason("renames_10s", 1.5, "many"),), attack=("T1486",), note="ünïcode",
    )  # fmt: skip


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
