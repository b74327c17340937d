"""Episodes: who does what in which tree, at what pace, seen through the native windows.

An episode is what one actor does, as the policy would see it: rows of observations in order of time with the truth of
each row. Without attribution the actor is the tree, and ordinary work goes on between the acts of an attack.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from shieldd.learn import attacks, benign, benign_held_out
from shieldd.learn.attacks import Family
from shieldd.learn.content import DOCUMENTS, Generator
from shieldd.learn.world import Truth, World, format_table
from shieldd.native.observe import Windows, schema

ROWS_LIMIT: Final = 96


@dataclass(frozen=True, slots=True)
class Episode:
    """One actor's rows.

    Attributes:
        family: names of the families in it, the attack first; joined by `+`.
        observations: float32 (T, F).
        truth: int8 (T,), `Truth`.
        lost: int8 (T,), files lost by the row.
        kinds: uint8 (T,), `Kind` of each event.
    """

    family: str
    observations: np.ndarray
    truth: np.ndarray
    lost: np.ndarray
    kinds: np.ndarray

    @property
    def hostile(self) -> bool:
        """Whether anything in it destroys."""
        return bool((self.truth == Truth.ATTACK).any())


@dataclass(frozen=True, slots=True)
class Families:
    """What may be drawn, and how often an episode is hostile."""

    attacks: Mapping[str, Family]
    benign: Mapping[str, Family]
    hostile_share: float = 0.5


TRAINED: Final = Families(attacks.TRAINED, benign.TRAINED)
HELD_OUT: Final = Families(attacks.HELD_OUT, benign_held_out.HELD_OUT)


def simulate(rng: Generator, families: Families, count: int, *, rows_limit: int = ROWS_LIMIT) -> list[Episode]:
    """Draw episodes.

    Args:
        rng: all randomness; the same state gives the same episodes.
        families: what may be drawn.
        count: episodes.
        rows_limit: an episode is cut there.

    Returns:
        `count` episodes, none empty.
    """
    formats = format_table(tuple(schema().formats))
    episodes: list[Episode] = []
    while len(episodes) < count:
        hostile = rng.random() < families.hostile_share
        episode = _episode(rng, families, formats, hostile, rows_limit)
        if episode is not None:
            episodes.append(episode)
    return episodes


def _episode(
    rng: Generator, families: Families, formats: dict[str, int], hostile: bool, rows_limit: int
) -> Episode | None:
    world = World(rng, formats, open_tree=rng.random() < 0.35, blind=float(rng.choice([0.0, 0.05, 0.3])))
    world.split = float(rng.choice([0.0, 0.1, 0.5]))
    kinds = tuple(rng.choice(DOCUMENTS, size=int(rng.integers(2, 8)), replace=False).tolist())
    world.populate(int(rng.integers(30, 120)), int(rng.integers(1, 12)), kinds, phi=float(rng.uniform(0, 1)))
    attributed = rng.random() < 0.4
    names: list[str] = []
    actors: list[tuple[float, int, Iterator[float]]] = []
    attacker = 0
    if hostile:
        name = str(rng.choice(list(families.attacks)))
        names.append(name)
        attacker = 4242 if attributed else 0
        late = float(rng.uniform(0, 20)) if rng.random() < 0.5 else 0.0
        for _ in range(int(rng.integers(2, 5)) if rng.random() < 0.15 else 1):  # some attacks are several processes
            actors.append((late, attacker, families.attacks[name](world, rng)))
        if not attributed and rng.random() < 0.3:  # without attribution, drops and exports fall into an attack's time
            beside = str(rng.choice(list(families.attacks)))
            names.append(beside)
            actors.append((late + float(rng.uniform(0, 3)), 0, families.attacks[beside](world, rng)))
    benign_count = int(rng.integers(0, 3)) if hostile else int(rng.integers(1, 3))
    for number in range(benign_count):
        name = str(rng.choice(list(families.benign)))
        names.append(name)
        actor = 100 + number if attributed else 0
        actors.append((float(rng.uniform(0, 10)), actor, families.benign[name](world, rng)))
    _run(world, actors, rows_limit * 4)
    watched = attacker if hostile else (100 if attributed else 0)
    return _seen(world, names, watched or 1, rows_limit)


def _run(world: World, actors: list[tuple[float, int, Iterator[float]]], acts_limit: int) -> None:
    """Let the actors take turns by their own clocks."""
    start = world.now_ns
    turns = [(start + int(at * 1e9), number, actor, work) for number, (at, actor, work) in enumerate(actors)]
    heapq.heapify(turns)
    while turns and len(world.rows) < acts_limit:
        at_ns, number, actor, work = heapq.heappop(turns)
        world.now_ns = max(world.now_ns, at_ns)
        world.actor = actor
        try:
            pause = next(work, None)
        except KeyError:  # another actor took its file away: tools stop there too
            continue
        if pause is not None:
            heapq.heappush(turns, (world.now_ns + int(pause * 1e9), number, actor, work))


def _seen(world: World, names: list[str], actor: int, rows_limit: int) -> Episode | None:
    """The rows of one actor, as the windows give them; all actors' events pass through the same windows."""
    events, facts, truth, lost = world.arrays()
    if not len(events):
        return None
    observations = Windows().observe(events, facts)
    mine = np.flatnonzero(events["actor"] == actor)[:rows_limit]
    if not len(mine):
        return None
    return Episode("+".join(names), observations[mine].copy(), truth[mine], lost[mine], events["kind"][mine].copy())
