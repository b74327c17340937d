"""Real programs, the native source, the shipped policy and the guard: attacks end early, ordinary work goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("jax")

from shieldd.detect.manifest import KEY_NAME, read_key
from shieldd.detect.policy import Policy
from shieldd.learn.rehearsal import furnish, rehearse, report
from shieldd.learn.scenarios import ATTACKS, BENIGN, Scenario
from shieldd.model.decision import Action
from shieldd.native.observe import schema

SHIPPED = Path(__file__).resolve().parents[2] / "shieldd/policy"
SCENARIOS = {x.name: x for x in (*ATTACKS, *BENIGN)}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(SHIPPED, schema(), read_key(SHIPPED / KEY_NAME))


def here(name: str) -> Scenario:
    scenario = SCENARIOS[name]
    if shutil.which(scenario.needs) is None:
        pytest.skip(f"{scenario.needs} is not on this host")
    return scenario


@pytest.mark.parametrize(
    "name", ["openssl beside, then rm", "openssl to a temporary file, mv over", "noise over each file"]
)
def test_an_attack_is_contained_within_a_handful_of_files(policy: Policy, name: str) -> None:
    (outcome,) = rehearse(policy, [here(name)], lambda text: None)
    assert outcome.lost_before is not None and outcome.lost_before <= 6
    assert sum(outcome.actions[x] for x in (Action.SEAL, Action.QUARANTINE)) == 0


def test_the_hard_rules_alone_contain_it_too() -> None:
    (outcome,) = rehearse(None, [here("openssl beside, then rm")], lambda text: None)
    assert outcome.lost_before is not None and outcome.lost_before <= 6


@pytest.mark.parametrize("name", ["cp -r", "rsync -a, twice", "gzip -r", "tar c, tar x", "sed -i over texts"])
def test_ordinary_work_is_left_alone(policy: Policy, name: str) -> None:
    (outcome,) = rehearse(policy, [here(name)], lambda text: None)
    assert outcome.events > 5 and outcome.lost_before is None
    assert outcome.actions[Action.SEAL] == outcome.actions[Action.QUARANTINE] == 0
    told = report([outcome], policy.version, "a host")
    assert name in told and "0 of 0 attacks" in told


def test_the_furniture_is_whole(tmp_path: Path) -> None:
    furnish(tmp_path)
    made = [x for x in tmp_path.rglob("*") if x.is_file()]
    assert len(made) == 121 and all(x.stat().st_size > 300 for x in made)
