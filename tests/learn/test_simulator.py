"""The simulator: the same seed gives the same rows, and every row went through the native windows."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")

from shieldd.learn import attacks, benign, benign_held_out
from shieldd.learn.rewards import rewards, under_attack
from shieldd.learn.simulator import HELD_OUT, TRAINED, Episode, Families, simulate
from shieldd.learn.world import Truth, World, format_table
from shieldd.model.decision import Action
from shieldd.model.event import EVENT, FACTS
from shieldd.native.observe import Windows, schema


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_the_same_seed_gives_the_same_episodes_and_another_gives_others() -> None:
    first, second = simulate(rng(), TRAINED, 12), simulate(rng(), TRAINED, 12)
    for one, two in zip(first, second, strict=True):
        assert one.family == two.family
        np.testing.assert_array_equal(one.observations, two.observations)
    assert any(x.family != y.family for x, y in zip(first, simulate(rng(2), TRAINED, 12), strict=True))


@pytest.mark.parametrize("families", [TRAINED, HELD_OUT])
def test_rows_stay_within_the_tables_ranges(families: Families) -> None:
    low = np.array([x.min for x in schema().features], np.float32)
    high = np.array([x.max for x in schema().features], np.float32)
    for episode in simulate(rng(3), families, 30):
        seen = episode.observations
        assert np.isfinite(seen).all() and (seen >= low).all() and (seen <= high).all()
        assert len(seen) == len(episode.truth) == len(episode.lost) == len(episode.kinds) <= 96


@pytest.mark.parametrize("name", sorted({**attacks.TRAINED, **attacks.HELD_OUT}))
def test_every_hostile_family_leaves_rows_of_its_truth(name: str) -> None:
    family = {name: {**attacks.TRAINED, **attacks.HELD_OUT}[name]}
    episodes = simulate(rng(4), Families(family, benign.TRAINED, hostile_share=1.0), 6)
    told = set(np.concatenate([x.truth for x in episodes]).tolist()) - {int(Truth.BENIGN)}
    assert told <= {Truth.ATTACK, Truth.DROP, Truth.EXPOSURE, Truth.DOUBTFUL} and told


@pytest.mark.parametrize("name", sorted({**benign.TRAINED, **benign_held_out.HELD_OUT}))
def test_no_ordinary_family_is_hostile(name: str) -> None:
    family = {name: {**benign.TRAINED, **benign_held_out.HELD_OUT}[name]}
    for episode in simulate(rng(5), Families({}, family, hostile_share=0.0), 4):
        assert not episode.hostile and not episode.lost.any()
        assert set(episode.truth.tolist()) <= {Truth.BENIGN, Truth.DOUBTFUL}


def test_destroyed_files_show_in_the_windows() -> None:
    only = Families({"encrypt_in_place": attacks.encrypt_in_place}, benign.TRAINED, hostile_share=1.0)
    episodes = simulate(rng(6), only, 10)
    destroys = schema().index["destroys"]
    lost = sum(int(x.lost.sum()) for x in episodes)
    seen = sum(int(((x.observations[:, destroys] > 0.5) & (x.lost > 0)).sum()) for x in episodes)
    assert lost > 40 and seen > 0.7 * lost


def test_replaying_a_recorded_stream_gives_the_same_observations() -> None:
    generator = rng(7)
    world = World(generator, format_table(schema().formats))
    world.populate(40, 4, ("text", "pdf"))
    for _ in attacks.new_then_delete(world, generator):
        world.wait(0.01)
    events, facts, _, _ = world.arrays()
    assert events.dtype == EVENT and facts.dtype == FACTS
    whole = Windows().observe(events, facts)
    parts, windows = [], Windows()
    for at in range(0, len(events), 7):
        parts.append(windows.observe(events[at : at + 7], facts[at : at + 7]))
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_rewards_price_the_right_action_highest() -> None:
    width = schema().width
    truth = np.array([Truth.BENIGN, Truth.ATTACK, Truth.DROP, Truth.EXPOSURE, Truth.DOUBTFUL], np.int8)
    blank = np.zeros(5, np.int8)
    episode = Episode("x", np.zeros((5, width), np.float32), truth, blank, blank)
    calm = Episode("x", episode.observations[:1], truth[:1], blank[:1], blank[:1])
    assert rewards(calm).argmax(axis=1).tolist() == [Action.ALLOW]
    assert rewards(calm)[0, Action.CONTAIN] == -150
    alone = [
        rewards(Episode("x", episode.observations[:1], truth[i : i + 1], blank[:1], blank[:1])) for i in range(1, 5)
    ]
    assert [int(x.argmax()) for x in alone] == [Action.CONTAIN, Action.QUARANTINE, Action.SEAL, Action.ALERT]
    assert under_attack(episode).tolist() == [False, True, True, True, True]
