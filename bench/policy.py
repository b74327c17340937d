"""Policy: rows scored on one core, time of a batch of 64, a recorded trace through windows and policy, decisions."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from shieldd.detect.guard import Guard
from shieldd.detect.manifest import KEY_NAME, read_key
from shieldd.detect.policy import Policy
from shieldd.detect.rules import GuardRules, Mode
from shieldd.model.decision import Action
from shieldd.model.event import EVENT, FACTS, Batch, FactFlag, Kind
from shieldd.native.observe import Windows, schema

DIRECTORY: Final = Path(__file__).resolve().parents[1] / "shieldd/policy"
EVENTS: Final = 200_000
BATCH: Final = 512
RUNS: Final = 5
COMMAND: Final = "python -m bench policy"


def rows() -> Iterable[dict[str, Any]]:
    """The measurements, one after the other, pinned to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    policy = Policy.load(DIRECTORY, schema(), read_key(DIRECTORY / KEY_NAME))
    events, facts = trace(EVENTS)
    observations = Windows().observe(events, facts)

    rate = EVENTS / timed(lambda: in_batches(policy.score, observations))
    matrix = EVENTS / timed(lambda: in_batches(three_products(), observations))
    yield row(
        "rows scored, batches of 512", rate, "rows/s", "numpy: the three matrix products alone", rate / matrix, 200_000
    )

    p99_ms = percentile(lambda: policy.score(observations[:64]), 2000, 99) * 1e3
    yield row("p99 of a batch of 64", p99_ms, "ms", "none", None, 1.0, least=False)

    windows_only = EVENTS / timed(lambda: Windows().observe(events, facts))
    yield row("recorded trace through the windows", windows_only, "events/s", "none", None, 1_000_000)

    both = EVENTS / timed(lambda: replay(policy, None, events, facts))
    yield row(
        "recorded trace through windows and policy", both, "events/s", "windows alone", both / windows_only, 200_000
    )

    whole = EVENTS / timed(lambda: replay(policy, fresh_guard(policy), events, facts))
    yield row(
        "recorded trace through windows, policy, guard", whole, "events/s", "without guard", whole / both, 200_000
    )

    guard = fresh_guard(policy)
    quiet = Batch(events[:BATCH], facts[:BATCH], observations[:BATCH], b"")
    calm = np.zeros((BATCH, len(Action)), np.float32)
    calm[:, Action.ALLOW] = 1.0
    each_us = percentile(lambda: decide(guard, quiet, calm), 500, 50) / BATCH * 1e6
    yield row("guard, one plain allow", each_us, "µs", "none", None, 1.0, least=False)

    seen = observations[np.abs(observations).sum(axis=1).argmax()]
    explain_ms = percentile(lambda: policy.explain(seen, Action.CONTAIN), 500, 50) * 1e3
    yield row("explanation of one decision", explain_ms, "ms", "none", None, 5.0, least=False)


def row(
    what: str, value: float, unit: str, peer: str, ratio: float | None, target: float, *, least: bool = True
) -> dict[str, Any]:
    """One row; `least` says that the target is a floor."""
    met = value >= target if least else value <= target
    told = f"{'≥' if least else '≤'} {target:g} {unit}"
    return {
        "what": what, "value": round(value, 3 if value < 100 else 0), "unit": unit, "peer": peer,
        "ratio": None if ratio is None else round(ratio, 2), "target": told, "met": bool(met), "command": COMMAND,
    }  # fmt: skip


def trace(count: int) -> tuple[np.ndarray, np.ndarray]:
    """An ordinary day: 40 actors write, make, rename and delete documents; the same in every run."""
    rng = np.random.default_rng(1)
    events, facts = np.zeros(count, EVENT), np.zeros(count, FACTS)
    events["seq"] = np.arange(1, count + 1)
    events["mono_ns"] = 10**12 + np.cumsum(rng.integers(10**5, 10**7, count))
    events["at_ns"] = events["mono_ns"]
    events["actor"] = rng.integers(1, 41, count)
    events["kind"] = rng.choice(
        [Kind.CREATE, Kind.WRITE, Kind.RENAME, Kind.DELETE, Kind.ATTRIB], count, p=[0.3, 0.4, 0.1, 0.1, 0.1]
    )
    events["ops"] = 1 << events["kind"].astype(np.uint16)
    known = (rng.random(count) < 0.6) & (events["kind"] != Kind.DELETE)
    facts["flags"] = np.uint64(FactFlag.LOOKED | FactFlag.MAGIC_KNOWN | FactFlag.STRUCTURE_OK | FactFlag.TAIL_OK)
    facts["flags"] |= np.where(known, np.uint64(FactFlag.KNOWN_BEFORE), np.uint64(0))
    for name in ("path_hash", "name_hash", "stem_hash", "content_hash"):
        facts[name] = rng.integers(1, 50_000, count)
    facts["dir_hash"] = rng.integers(1, 300, count)
    facts["size"], facts["prev_size"] = rng.integers(100, 10**6, count), 5000
    facts["format"] = facts["prev_format"] = 27
    facts["entropy"] = rng.uniform(3, 7.9, (count, 3))
    facts["similarity"] = 0.8
    return events, facts


def three_products() -> Callable[[np.ndarray], np.ndarray]:
    """The floor beneath any two-layer network of this size."""
    width = schema().width
    first, second, third = (np.ones(shape, np.float32) for shape in ((width, 96), (96, 96), (96, 5)))
    return lambda x: np.maximum(np.maximum(x @ first, 0) @ second, 0) @ third


def in_batches(score: Callable[[np.ndarray], np.ndarray], observations: np.ndarray) -> None:
    """Score all rows, `BATCH` at a time."""
    for at in range(0, len(observations), BATCH):
        score(observations[at : at + BATCH])


def replay(policy: Policy, guard: Guard | None, events: np.ndarray, facts: np.ndarray) -> None:
    """A recorded trace, batch by batch, through windows, policy and, where given, guard."""
    windows = Windows()
    for at in range(0, len(events), BATCH):
        part = Batch(events[at : at + BATCH], facts[at : at + BATCH], np.empty((0, 0)), b"")
        seen = windows.observe(part.events, part.facts)
        logits = policy.score(seen)
        if guard is not None:
            decide(guard, Batch(part.events, part.facts, seen, b""), logits)


def fresh_guard(policy: Policy) -> Guard:
    """A guard with its defaults over one tree."""
    return Guard(GuardRules(modes=(Mode.ACT,)), policy=policy)


def decide(guard: Guard, batch: Batch, logits: np.ndarray) -> None:
    """One call of the guard at the batch's own time."""
    last_ns = int(batch.events["mono_ns"][-1])
    guard.decide(batch, logits, content={}, generation=1, now_ns=last_ns, mono_ns=last_ns)


def timed(work: Callable[[], object]) -> float:
    """Median seconds of `RUNS` runs, after one that is not counted."""
    work()
    return statistics.median(percentile(work, 1, 50) for _ in range(RUNS))


def percentile(work: Callable[[], object], runs: int, percent: float) -> float:
    """Seconds of one run at a percentile of many."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.percentile(times, percent))
