"""Batches made by hand: a few rows with the flags and columns that a test is about."""

from __future__ import annotations

from typing import Any

import numpy as np

from shieldd.detect.rules import GuardRules, Mode
from shieldd.model.decision import Action
from shieldd.model.event import EVENT, FACTS, Batch, EventFlag, FactFlag, Kind
from shieldd.native.observe import schema

S = 10**9
ACT = GuardRules(modes=(Mode.ACT,))


def batch(*rows: dict[str, Any]) -> Batch:
    """One event per row. Keys: kind, actor, pid, tree, at_s, flags (facts), event_flags, path, and any column."""
    events, facts = np.zeros(len(rows), EVENT), np.zeros(len(rows), FACTS)
    seen = np.zeros((len(rows), schema().width), np.float32)
    names = b""
    for at, row in enumerate(rows):
        left = dict(row)
        path = left.pop("path", b"file%d" % at)
        moment = int(left.pop("at_s", at * 0.01) * S)
        events[at]["seq"] = at + 1
        events[at]["at_ns"] = 1_700_000_000 * S + moment
        events[at]["mono_ns"] = 1000 * S + moment
        events[at]["kind"] = left.pop("kind", Kind.WRITE)
        events[at]["actor"] = left.pop("actor", 1)
        events[at]["pid"] = left.pop("pid", 0)
        events[at]["tree"] = left.pop("tree", 0)
        events[at]["flags"] = left.pop("event_flags", 0)
        events[at]["path_off"], events[at]["path_len"] = len(names), len(path)
        names += path
        facts[at]["flags"] = int(left.pop("flags", 0))
        facts[at]["size"] = left.pop("size", 100)
        facts[at]["path_hash"] = hash(path) & 0xFFFFFFFF
        for name, value in left.items():
            seen[at, schema().index[name]] = value
    return Batch(events, facts, seen, names)


def wish(action: Action, rows: int = 1) -> np.ndarray:
    """Logits that name one action for every row."""
    logits = np.zeros((rows, len(Action)), np.float32)
    logits[:, action] = 5.0
    return logits


def lost(rows: int, **more: Any) -> list[dict[str, Any]]:
    """Rows that each destroy a known file in place."""
    one = {"destroys": 1, "destroyed_60s": 1, "flags": FactFlag.KNOWN_BEFORE, **more}
    return [dict(one, path=b"lost%d" % at) for at in range(rows)]


ATTRIBUTED = int(EventFlag.ATTRIBUTED)
