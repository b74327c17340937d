"""Training: exact gradient, reproducible to the digest, and the runtime computes what the trainer computed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")

import jax.numpy as jnp

from shieldd.detect.manifest import KEY_NAME, MANIFEST_NAME, MODEL_NAME, read_key
from shieldd.detect.policy import Policy
from shieldd.learn import export
from shieldd.learn.__main__ import main
from shieldd.learn.environment import ActorEnv
from shieldd.learn.evaluate import Share, damage_rule, evaluate, scorer
from shieldd.learn.simulator import TRAINED, simulate
from shieldd.learn.trainer import Settings, expected_return, train
from shieldd.model.decision import Action
from shieldd.native.observe import schema
from tests.detect.models import model, parameters, rows

SHIPPED = Path(__file__).resolve().parents[2] / "shieldd/policy"


def test_the_exact_return_is_the_mean_over_all_action_sequences() -> None:
    """Against brute force: three rows, five actions, every sequence weighted by its probability."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(5), size=3)
    reward, loss, end = rng.normal(size=(3, 5)), rng.normal(size=3), -10.0
    mean = 0.0
    for sequence in itertools.product(range(5), repeat=3):
        weight, total, stopped = 1.0, 0.0, False
        for t, action in enumerate(sequence):
            weight *= chances[t, action]
            if not stopped:
                total += reward[t, action] + loss[t]
                stopped = action == Action.CONTAIN
        mean += weight * (total + (0 if stopped else end))
    live = jnp.ones((1, 3))
    ours = expected_return(
        jnp.array(chances)[None], jnp.array(reward)[None], jnp.array(loss)[None], jnp.array([end]), live
    )
    assert float(ours[0]) == pytest.approx(mean, abs=1e-4)


def test_the_runtime_computes_what_the_trainer_computed() -> None:
    params, norm = parameters()
    raw = model().SerializeToString(deterministic=True)
    assert export.parity(raw, params, norm, rows(500, 9)) <= 1e-5


def test_training_improves_and_beats_chance_soon() -> None:
    episodes = simulate(np.random.Generator(np.random.PCG64(1)), TRAINED, 60)
    trained = train(episodes, seed=1, settings=Settings(steps=25, batch=16))
    assert trained.curve[-1][1] > trained.curve[0][1] + 10


@pytest.mark.slow
def test_one_command_makes_the_same_model_twice(tmp_path: Path) -> None:
    small = ["train", "--seed", "5", "--episodes", "16", "--steps", "4", "--trials", "8", "--commit", "none"]
    assert main([*small, "--out", str(tmp_path / "a")]) == 0
    assert main([*small, "--out", str(tmp_path / "b")]) == 0
    first, second = (tmp_path / "a" / MODEL_NAME).read_bytes(), (tmp_path / "b" / MODEL_NAME).read_bytes()
    assert first == second
    assert (tmp_path / "a" / KEY_NAME).read_text() != (tmp_path / "b" / KEY_NAME).read_text()
    policy = Policy.load(tmp_path / "a", schema(), read_key(tmp_path / "a" / KEY_NAME))
    assert policy.version.startswith("sim-5-")
    card = (tmp_path / "a/MODEL_CARD.md").read_text()
    for told in (policy.version, policy.sha256.hex(), "seed 5", "logistic regression", "Limits", "encode_then_delete"):
        assert told in card
    assert (tmp_path / "a/curve.svg").read_text().startswith("<svg")
    with pytest.raises(Exception, match="signature"):
        Policy.load(tmp_path / "a", schema(), read_key(tmp_path / "b" / KEY_NAME))


def test_a_site_signs_with_its_own_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tests.detect.models import place

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "site.pem").write_bytes(pem)
    place(tmp_path / "p")
    assert main(["sign", "--policy", str(tmp_path / "p"), "--key", str(tmp_path / "site.pem")]) == 0
    assert Policy.load(tmp_path / "p", schema(), key.public_key()).version == "test-1"


def test_the_environment_keeps_gymnasiums_contract() -> None:
    from gymnasium.utils.env_checker import check_env

    env = ActorEnv()
    check_env(env, skip_render_check=True)
    first, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    ended, steps = False, 0
    while not ended:
        _, reward, ended, _, info = env.step(np.int64(Action.ALLOW))
        assert np.isfinite(reward) and not info["masked"]
        steps += 1
    assert 1 <= steps <= 96


def test_intervals_are_wilsons() -> None:
    low, high = Share(0, 300).interval
    assert low == 0.0 and high == pytest.approx(0.0126, abs=1e-3)  # 300 clean trials only say "below 1.3 %"
    low, high = Share(8, 10).interval
    assert (low, high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))


def test_the_shipped_policy_is_what_its_card_says() -> None:
    policy = Policy.load(SHIPPED, schema(), read_key(SHIPPED / KEY_NAME))
    card = (SHIPPED / "MODEL_CARD.md").read_text()
    assert policy.version in card and policy.sha256.hex() in card
    told = json.loads(policy.metadata["evaluation"])
    assert told["data"] == "simulator" and told["trials"] >= 300
    assert {"policy_version", "training_commit", "data_card", "features", "actions"} <= set(policy.metadata)
    assert len((SHIPPED / MODEL_NAME).read_bytes()) <= 1 << 20
    assert (SHIPPED / MANIFEST_NAME).exists() and not list(SHIPPED.glob("*.pem"))


def test_the_shipped_policy_stops_attacks_and_leaves_work_alone() -> None:
    policy = Policy.load(SHIPPED, schema(), read_key(SHIPPED / KEY_NAME))
    episodes = simulate(np.random.Generator(np.random.PCG64(99)), TRAINED, 150)
    ours, rule = evaluate(scorer(policy.score), episodes), evaluate(damage_rule, episodes)
    assert ours.detected.rate >= 0.85 and ours.detected.rate > rule.detected.rate
    assert ours.stopped.rate <= 0.03 and ours.early.rate <= 0.03
    assert ours.lost_at(50) <= 5
