"""The task as a gymnasium environment, for learners other than ours.

One episode is one actor. Each step shows a row and takes an action; `contain` ends the episode. Rewards are those of
`rewards.py`; an action that the masks forbid is taken as `alert` and told in `info["masked"]`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np

from shieldd.learn.network import masks
from shieldd.learn.rewards import losses, miss, rewards
from shieldd.learn.simulator import TRAINED, Episode, Families, simulate
from shieldd.model.decision import Action
from shieldd.native.observe import schema


class ActorEnv(gymnasium.Env[np.ndarray, np.int64]):
    """Episodes drawn from a simulator; the same seed gives the same ones."""

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, families: Families = TRAINED, *, rows_limit: int = 96) -> None:
        """Args:
        families: what may be drawn.
        rows_limit: an episode is cut there.
        """
        low = np.array([x.min for x in schema().features], np.float32)
        high = np.array([x.max for x in schema().features], np.float32)
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(Action))
        self._families = families
        self._rows_limit = rows_limit
        self._episode: Episode | None = None
        self._at = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw an actor and show its first row."""
        super().reset(seed=seed, options=options)
        self._episode = simulate(self.np_random, self._families, 1, rows_limit=self._rows_limit)[0]
        self._rewards, self._losses = rewards(self._episode), losses(self._episode)
        self._allowed = np.asarray(masks(jnp.asarray(self._episode.observations)))
        self._at = 0
        return self._episode.observations[0], {"family": self._episode.family}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Act on the row that was shown."""
        assert self._episode is not None, "reset first"
        masked = not self._allowed[self._at, action]
        taken = int(Action.ALERT) if masked else int(action)
        reward = float(self._rewards[self._at, taken] + self._losses[self._at])
        info = {"masked": masked, "truth": int(self._episode.truth[self._at])}
        last = self._at == len(self._episode.truth) - 1
        if taken == Action.CONTAIN:
            return self._episode.observations[self._at], reward, True, False, info
        if last:
            return self._episode.observations[self._at], reward + miss(self._episode), True, False, info
        self._at += 1
        return self._episode.observations[self._at], reward, False, False, info
