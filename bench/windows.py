"""Windows: events through the decaying memory on one core, by number of actors."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from shieldd.model.event import EVENT, FACTS, FactFlag, Kind
from shieldd.native.observe import Windows, schema

EVENTS: Final = 200_000
RUNS: Final = 7
TARGET: Final = 1_000_000
COMMAND: Final = "python -m bench windows"


def rows() -> Iterable[dict[str, Any]]:
    """The measurements, pinned to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    bare = per_second_bare()
    for actors, hostile in ((1, False), (40, False), (900, False), (40, True), (100_000, False)):
        rate = per_second(actors, hostile)
        what = f"events through windows, {actors:,} actor{'s' * (actors > 1)}" + (" that encrypt" if hostile else "")
        yield {
            "what": what, "value": round(rate), "unit": "events/s",
            "peer": f"filling the same matrix with numpy: {bare:,.0f}", "ratio": round(rate / bare, 2),
            "target": f"≥ {TARGET} events/s" if actors <= 1000 else "–",
            "met": rate >= TARGET if actors <= 1000 else None, "command": COMMAND,
        }  # fmt: skip


def per_second(actors: int, hostile: bool) -> float:
    """Median of events per CPU second; allocation of the matrix included."""
    events, facts = trace(actors, hostile)
    windows = Windows()
    rates = []
    for i in range(RUNS + 1):
        windows.reset()
        began = time.process_time()
        windows.observe(events, facts)
        if i:
            rates.append(EVENTS / (time.process_time() - began))
    return statistics.median(rates)


def per_second_bare() -> float:
    """Rows per second that numpy can merely set."""
    rates = []
    for _ in range(RUNS):
        began = time.process_time()
        np.full((EVENTS, schema().width), 0.5, np.float32)
        rates.append(EVENTS / (time.process_time() - began))
    return statistics.median(rates)


def trace(actors: int, hostile: bool) -> tuple[np.ndarray, np.ndarray]:
    """Documents made, written, renamed and deleted; hostile ones are written anew as noise, then renamed."""
    rng = np.random.default_rng(1)
    events, facts = np.zeros(EVENTS, EVENT), np.zeros(EVENTS, FACTS)
    events["mono_ns"] = 10**12 + np.cumsum(rng.integers(10**4, 10**6, EVENTS))
    events["actor"] = rng.integers(1, actors + 1, EVENTS)
    events["kind"] = rng.choice([Kind.CREATE, Kind.WRITE, Kind.RENAME, Kind.DELETE], EVENTS, p=[0.3, 0.4, 0.1, 0.2])
    flags = FactFlag.LOOKED | FactFlag.MAGIC_KNOWN | FactFlag.STRUCTURE_OK | FactFlag.TAIL_OK
    facts["flags"] = np.uint64(FactFlag.LOOKED if hostile else flags)
    facts["flags"] |= np.where(rng.random(EVENTS) < 0.6, np.uint64(FactFlag.KNOWN_BEFORE), np.uint64(0))
    for name in ("path_hash", "name_hash", "stem_hash", "content_hash", "prev_content_hash", "from_hash"):
        facts[name] = rng.integers(1, 2**60, 50_000, np.uint64)[rng.integers(0, 50_000, EVENTS)]
    facts["dir_hash"] = rng.integers(1, 2**60, 300, np.uint64)[rng.integers(0, 300, EVENTS)]
    facts["size"], facts["prev_size"] = rng.integers(100, 10**6, EVENTS), 5000
    facts["format"], facts["prev_format"] = 0 if hostile else 27, 27
    facts["entropy"], facts["prev_entropy"] = rng.uniform(3, 8, (EVENTS, 3)), 5
    facts["similarity"], facts["encrypted_like"] = (0.0, 0.9) if hostile else (0.8, 0.1)
    return events, facts
