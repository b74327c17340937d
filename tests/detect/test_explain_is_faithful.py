"""Reasons name what the policy's margin really hangs on, in words, within 5 ms."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from shieldd.detect.explain import explain, groups, margin
from shieldd.detect.manifest import KEY_NAME, read_key
from shieldd.detect.policy import Policy
from shieldd.model.decision import Action, Reason, headline
from shieldd.native.observe import schema

SHIPPED = Path(__file__).resolve().parents[2] / "shieldd/policy"
REFERENCE = np.zeros(schema().width, np.float32)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(SHIPPED, schema(), read_key(SHIPPED / KEY_NAME))


def linear(weights: dict[str, float]):
    """A judge whose contain logit is a weighted sum of columns."""
    w = np.zeros(schema().width)
    for name, value in weights.items():
        w[schema().index[name]] = value

    def score(rows: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(rows), 5), np.float32)
        logits[:, Action.CONTAIN] = rows @ w
        return logits

    return score


def row(**values: float) -> np.ndarray:
    seen = REFERENCE.copy()
    for name, value in values.items():
        seen[schema().index[name]] = value
    return seen


def test_the_reasons_of_a_known_judge_are_its_weights_in_order() -> None:
    score = linear({"destroyed_10s": 2.0, "similarity": -1.0, "executable": 0.1})
    seen = row(destroyed_10s=3.0, similarity=1.0, executable=1.0, writes_1s=9.0)
    reasons = explain(score, schema(), REFERENCE, seen, Action.CONTAIN)
    assert [x.feature for x in reasons] == ["destroyed", "similarity", "executable"]
    assert reasons[0].contribution > 0 > reasons[1].contribution
    assert reasons[0].text == "3 known files destroyed without a verified replacement in ten seconds"


def test_siblings_do_not_hide_behind_one_another() -> None:
    def score(rows: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(rows), 5), np.float32)
        windows = [schema().index[f"destroyed_{span}"] for span in ("1s", "10s", "60s")]
        logits[:, Action.CONTAIN] = 4 * rows[:, windows].max(axis=1)
        return logits

    seen = row(destroyed_1s=1.0, destroyed_10s=1.0, destroyed_60s=1.0)
    (reason,) = explain(score, schema(), REFERENCE, seen, Action.CONTAIN)
    assert reason.contribution > 3


def test_columns_are_grouped_once_each() -> None:
    columns = [at for group in groups(schema()).values() for at in group]
    assert sorted(columns) == list(range(schema().width))


def test_taking_away_the_reasons_takes_away_the_verdict_more_than_chance_does(policy: Policy) -> None:
    """Faithfulness: on the policy's own self-test vectors, dropping the top reasons hurts more than dropping others."""
    reference = policy._manifest.reference
    stories = groups(schema())
    rng = np.random.default_rng(5)
    by_reason, by_chance = [], []
    for seen in policy._manifest.test_observations:
        action = Action(int(policy.score(seen[None])[0].argmax()))
        reasons = [x for x in policy.explain(seen, action, top=3) if x.contribution > 0]
        if not reasons:
            continue
        others = [x for x in stories if x not in {r.feature for r in reasons}]
        full = margin(policy.score(seen[None]), action)[0]

        def drop(names: list[str], seen: np.ndarray = seen, action: Action = action, full: float = full) -> float:
            without = seen.copy()
            for name in names:
                without[stories[name]] = reference[stories[name]]
            return float(full - margin(policy.score(without[None]), action)[0])

        by_reason.append(drop([x.feature for x in reasons]))
        by_chance.append(np.mean([drop(list(rng.choice(others, len(reasons), replace=False))) for _ in range(20)]))
    assert len(by_reason) >= 8
    assert np.mean(by_reason) > 2 * max(float(np.mean(by_chance)), 0.05)


def test_an_explanation_takes_at_most_five_milliseconds(policy: Policy) -> None:
    seen = row(destroyed_10s=3.0, destroyed_60s=3.0, type_lost=1.0, encrypted_like=0.99)
    policy.explain(seen, Action.CONTAIN)
    times = []
    for _ in range(21):
        began = time.perf_counter()
        policy.explain(seen, Action.CONTAIN)
        times.append(time.perf_counter() - began)
    assert np.median(times) <= 0.005


def test_no_words_for_what_is_not_finite_or_ordinary(policy: Policy) -> None:
    assert policy.explain(policy._manifest.reference, Action.CONTAIN) == ()
    assert explain(lambda x: np.full((len(x), 5), np.nan), schema(), REFERENCE, row(phi=1), Action.SEAL) == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"similarity": -1.0}, "content kept from the version before: unknown"),
        ({"setuid": 1.0}, "setuid or setgid and executable"),
        ({"deletes_10s": 0.0, "deletes_60s": 3.0}, "3 files deleted in a minute"),
        ({"size_log2": 10.0}, "size 1023 bytes"),
    ],
)
def test_words(values: dict[str, float], expected: str) -> None:
    name = max(values, key=lambda x: values[x])
    (reason,) = explain(linear({name: 1.0}), schema(), REFERENCE, row(**values), Action.CONTAIN)
    assert reason.text == expected


def test_an_alert_names_what_was_there_and_not_how_much_happened() -> None:
    reasons = (
        Reason("creates", 3.0, "no files made in a second"),
        Reason("entropy", -2.0, "entropy 4 bits per byte"),
        Reason("directories", 1.5, "2 directories touched in a second"),
        Reason("encrypted_outputs", 1.0, "9 new contents that look encrypted in a minute"),
    )
    assert headline(reasons) == "9 new contents that look encrypted in a minute"
    assert headline(reasons[:3]) == "2 directories touched in a second"
    assert headline(reasons[:2]) == "no files made in a second"
    assert headline(()) == ""
