"""Baseline: multinomial logistic regression on the same normalised, masked observations, to each row's best action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shieldd.learn.network import MASKED, Normaliser, masks, normalise
from shieldd.learn.rewards import rewards
from shieldd.learn.simulator import Episode
from shieldd.model.decision import Action

CHUNK: Final = 128


def fit(episodes: Sequence[Episode], norm: Normaliser, *, steps: int = 300) -> Callable[[np.ndarray], np.ndarray]:
    """Fit by full-batch gradient descent; returns a scorer of observations."""
    rows = np.concatenate([x.observations for x in episodes])
    worth = np.concatenate([rewards(x) for x in episodes])
    allowed = np.asarray(masks(jnp.asarray(rows)))
    target = np.where(allowed > 0, worth, -1e9).argmax(axis=1)
    z = np.asarray(normalise(norm, jnp.asarray(rows)))
    params = {"w": jnp.zeros((rows.shape[1], len(Action))), "b": jnp.zeros(len(Action))}
    optimiser = optax.adam(0.03)
    state = optimiser.init(params)

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        logits = z @ params["w"] + params["b"] + MASKED * (allowed - 1.0)
        miss: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()
        return miss + 1e-4 * (params["w"] ** 2).sum()

    gradient = jax.jit(jax.grad(loss))
    for _ in range(steps):
        updates, state = optimiser.update(gradient(params), state)
        params = optax.apply_updates(params, updates)

    weights, bias = np.asarray(params["w"]), np.asarray(params["b"])

    def score(observations: np.ndarray) -> np.ndarray:
        padded = np.zeros((-(-len(observations) // CHUNK) * CHUNK, observations.shape[1]), np.float32)
        padded[: len(observations)] = observations  # one shape, one compilation
        x = jnp.asarray(padded)
        seen, allowed = np.asarray(normalise(norm, x)), np.asarray(masks(x))
        logits: np.ndarray = (seen @ weights + bias + MASKED * (allowed - 1.0))[: len(observations)]
        return logits

    return score
