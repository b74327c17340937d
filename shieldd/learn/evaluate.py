"""Measures judges on episodes: the policy and the baselines beside it, the same episodes, the same run.

A judge sees an episode's rows in order and names an action for each; the first containment ends the episode.
Intervals are Wilson's, 95 %: for k of n, centre (k + z²/2) / (n + z²), z = 1.96.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from shieldd.learn.rewards import under_attack
from shieldd.learn.simulator import Episode
from shieldd.learn.world import Truth
from shieldd.model.decision import Action
from shieldd.native.observe import schema

Judge = Callable[[np.ndarray], np.ndarray]
Z: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Share:
    """k of n, with Wilson's 95 % interval."""

    hits: int
    total: int

    @property
    def rate(self) -> float:
        """k / n, 0 for an empty sample."""
        return self.hits / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound."""
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.rate
        centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return (max(centre - half, 0.0) if self.hits else 0.0), min(centre + half, 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.rate:.1%} ({low:.1%}–{high:.1%}, n={self.total})"


@dataclass(frozen=True, slots=True)
class Result:
    """One judge on one set of episodes.

    Attributes:
        detected: destroying episodes that were contained once the attack had begun.
        early: destroying episodes contained before it had (good work stopped).
        stopped: harmless episodes in which anything was contained.
        disturbed: harmless episodes with a wrong seal or quarantine.
        alerted: harmless episodes with an alert.
        quarantined: rows of malicious content, quarantined.
        sealed: rows of exposed patient data, sealed.
        lost: files lost per destroying episode until it was contained (all, where it was not).
    """

    detected: Share
    early: Share
    stopped: Share
    disturbed: Share
    alerted: Share
    quarantined: Share
    sealed: Share
    lost: np.ndarray

    def lost_at(self, percent: float) -> float:
        """Percentile of files lost, 0 where nothing destroyed."""
        return float(np.percentile(self.lost, percent)) if len(self.lost) else 0.0


def evaluate(judge: Judge, episodes: Sequence[Episode]) -> Result:
    """Run a judge over episodes."""
    counts: dict[str, list[int]] = {name: [0, 0] for name in Result.__slots__ if name != "lost"}
    lost: list[int] = []

    def tell(name: str, hit: bool) -> None:
        counts[name][0] += hit
        counts[name][1] += 1

    for episode in episodes:
        actions = judge(episode.observations)
        contained = np.flatnonzero(actions == Action.CONTAIN)
        stop = int(contained[0]) if len(contained) else len(actions)
        if episode.hostile:
            active = under_attack(episode)
            right = stop < len(actions) and bool(active[stop])
            begun = int(np.flatnonzero(episode.truth == Truth.ATTACK)[0])
            tell("detected", right)
            tell("early", stop < begun)
            lost.append(int(episode.lost[: stop + 1].sum()))
            continue
        harmless = bool((episode.truth == Truth.BENIGN).all())
        if harmless or (episode.truth != Truth.DOUBTFUL).any():
            tell("stopped", stop < len(actions))
        seen = actions[:stop]
        for truth, action, name in (
            (Truth.DROP, Action.QUARANTINE, "quarantined"),
            (Truth.EXPOSURE, Action.SEAL, "sealed"),
        ):
            for row in np.flatnonzero(episode.truth == truth):
                tell(name, bool(row < stop and actions[row] == action))
        if harmless:
            tell("disturbed", bool(((seen == Action.SEAL) | (seen == Action.QUARANTINE)).any()))
            tell("alerted", bool((seen == Action.ALERT).any()))
    shares = {name: Share(hits, total) for name, (hits, total) in counts.items()}
    return Result(lost=np.array(lost, np.int64), **shares)


def by_family(judge: Judge, episodes: Sequence[Episode]) -> dict[str, Result]:
    """One result for each leading family (the attack's, else the first benign one's)."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.family.partition("+")[0], []).append(episode)
    return {name: evaluate(judge, group) for name, group in sorted(groups.items())}


def scorer(score: Callable[[np.ndarray], np.ndarray]) -> Judge:
    """A judge that takes the highest logit."""
    return lambda observations: score(observations).argmax(axis=1)


def entropy_rule(observations: np.ndarray) -> np.ndarray:
    """Baseline: contain from the fifth event on whose content has more than 7.5 bits per byte."""
    at = schema().index
    high = observations[:, [at["entropy_head"], at["entropy_middle"], at["entropy_tail"]]].mean(axis=1) > 7.5
    return np.where(high.cumsum() >= 5, Action.CONTAIN, Action.ALLOW)


def damage_rule(observations: np.ndarray) -> np.ndarray:
    """Baseline: contain at three encrypted-looking outputs and three destroyed files in ten seconds."""
    at = schema().index
    damage = (observations[:, at["encrypted_outputs_10s"]] >= 2.5) & (observations[:, at["destroyed_10s"]] >= 2.5)
    return np.where(damage, Action.CONTAIN, Action.ALLOW)


def guard_rule(observations: np.ndarray) -> np.ndarray:
    """The guard's own rule, from the decayed counts: about five contents lost in ten seconds."""
    at = schema().index
    damage = observations[:, at["overwritten_10s"]] + observations[:, at["bad_pairs_10s"]] >= 4.0
    return np.where(damage, Action.CONTAIN, Action.ALLOW)


def guarded(judge: Judge) -> Judge:
    """A judge with the guard's own rule over it."""
    return lambda observations: np.maximum(judge(observations), guard_rule(observations))


BASELINES: Final[Mapping[str, Judge]] = {
    "entropy > 7.5, five times": entropy_rule,
    "3 encrypted and 3 destroyed in 10 s": damage_rule,
    "guard's rule alone (approximate)": guard_rule,
}
