"""Slow plain-Python twins of the core: statistics of samples, and the memory over actors, from their definitions.

Nothing is shared with the core: decayed counts are sums over all events, not running values.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from shieldd.model.event import EventFlag, FactFlag, Kind
from shieldd.native.observe import schema

WINDOW = 4096
TAUS = (1.0, 10.0, 60.0)
CEILING = 1e6


def windows_of(content: bytes) -> list[bytes]:
    """Head, middle and tail as the core samples them."""
    n = len(content)
    if n <= WINDOW:
        return [content] * 3
    middle = (n - WINDOW) // 2 if n <= 3 * WINDOW else 1 << ((n // 2).bit_length() - 1)
    return [content[:WINDOW], content[middle : middle + WINDOW], content[-WINDOW:]]


def entropy(sample: bytes) -> float:
    """Shannon entropy, bits per byte."""
    n = len(sample)
    return -sum(c / n * math.log2(c / n) for c in Counter(sample).values()) if n else 0.0


def chi_square(sample: bytes) -> float:
    """Against uniform bytes."""
    if not sample:
        return 0.0
    expected = len(sample) / 256
    counts = Counter(sample)
    return sum((counts.get(v, 0) - expected) ** 2 / expected for v in range(256))


def serial(sample: bytes) -> float:
    """Circular serial correlation; 1 for constant bytes."""
    n = len(sample)
    if not n:
        return 0.0
    total = sum(sample)
    spread = n * sum(x * x for x in sample) - total * total
    if not spread:
        return 1.0
    return (n * sum(sample[i] * sample[(i + 1) % n] for i in range(n)) - total * total) / spread


def statistics(content: bytes) -> dict[str, Any]:
    """What the facts of a file with this content say of its bytes."""
    samples = windows_of(content)
    distinct = samples[:1] if len(content) <= WINDOW else samples
    joined = b"".join(samples)
    printable = sum(1 for b in joined if b in (9, 10, 13) or 0x20 <= b < 0x7F)
    blocks = [entropy(s[i : i + 1024]) for s in distinct for i in range(0, len(s) - 1023, 1024)]
    return {
        "entropy": [entropy(s) for s in samples],
        "chi_square": [math.log10(1 + chi_square(s)) for s in samples],
        "ascii": printable / max(len(joined), 1),
        "zero": joined.count(0) / max(len(joined), 1),
        "serial": sum(serial(s) for s in samples) / 3,
        "block_spread": max(blocks) - min(blocks) if blocks else 0.0,
    }


@dataclass
class _Actor:
    first: int
    events: int = 0
    sums: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    directories: dict[int, int] = field(default_factory=dict)
    names: dict[int, tuple[int, int]] = field(default_factory=dict)


class Memory:
    """Counts of an actor as sums of exponentials over its whole past; no judgement of content."""

    def __init__(self) -> None:
        self.actors: dict[int, _Actor] = {}
        self.now = 0

    def observe(self, event: Any, facts: Any) -> dict[str, float]:
        """The columns that this twin knows, after one event."""
        self.now = max(self.now, int(event["mono_ns"]))
        now = self.now
        actor = self.actors.setdefault(int(event["actor"]), _Actor(now))
        actor.events += 1
        kind, ops = int(event["kind"]), int(event["ops"]) | 1 << int(event["kind"])
        flags = FactFlag(int(facts["flags"]))
        of_file = Kind.CREATE <= kind <= Kind.ATTRIB or kind == Kind.READ
        of_directory = Kind.MAKE_DIR <= kind <= Kind.RENAME_DIR

        def did(what: Kind) -> bool:
            return bool(ops >> what & 1)

        def add(name: str, yes: bool) -> None:
            if yes:
                actor.sums[name].append((now, 1.0))

        if facts["dir_hash"] and (of_file or of_directory):
            actor.directories[int(facts["dir_hash"])] = now
        add("renames", did(Kind.RENAME_DIR))
        if of_file:
            known = bool(flags & FactFlag.KNOWN_BEFORE)
            looked = bool(flags & FactFlag.LOOKED)
            entropies = [float(x) for x in facts["entropy"] if x >= 0]
            mean = sum(entropies) / len(entropies) if entropies else -1.0
            add("writes", did(Kind.WRITE))
            add("creates", did(Kind.CREATE))
            add("renames", did(Kind.RENAME))
            add("deletes", kind == Kind.DELETE)
            add("reads", did(Kind.READ))
            add("ext_changes", did(Kind.RENAME) and bool(flags & FactFlag.EXT_CHANGED))
            add(
                "entropy_rises",
                known and looked and facts["prev_entropy"] >= 0 and mean - float(facts["prev_entropy"]) >= 1,
            )
            formats = schema().formats
            none = {"unknown", "base64", "base85", "hex"}
            lost = formats[facts["prev_format"]] not in none and formats[facts["format"]] in none
            add("header_losses", known and looked and lost)
            wordy = bool(flags & (FactFlag.TEXT | FactFlag.NOTE_LIKE))
            if not known and wordy and (did(Kind.CREATE) or did(Kind.WRITE)):
                name, directory = int(facts["name_hash"]), int(facts["dir_hash"])
                before = actor.names.get(name)
                elsewhere = before is not None and before[0] != directory and now - before[1] <= 60_000_000_000
                add("same_notes", elsewhere)
                actor.names[name] = (directory, now)
        return self._row(actor, event)

    def _row(self, actor: _Actor, event: Any) -> dict[str, float]:
        row: dict[str, float] = {}
        now = self.now
        names = "writes creates renames deletes ext_changes entropy_rises header_losses same_notes reads"
        for name in names.split():
            for tau in TAUS:
                total = sum(a * math.exp(-(now - t) / 1e9 / tau) for t, a in actor.sums[name])
                row[f"{name}_{tau:.0f}s"] = min(total, CEILING)
        for tau in TAUS:
            row[f"directories_{tau:.0f}s"] = sum(math.exp(-(now - t) / 1e9 / tau) for t in actor.directories.values())
        row["actor_age"] = math.log2(1 + (now - actor.first) / 1e9)
        row["actor_events"] = math.log2(1 + actor.events)
        row["attributed"] = float(bool(event["flags"] & EventFlag.ATTRIBUTED))
        row["synthetic"] = float(bool(event["flags"] & EventFlag.SYNTHETIC))
        row["merged"] = math.log2(max(int(event["merged"]), 1))
        return row
