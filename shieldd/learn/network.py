"""The policy network, as JAX computes it; `export.py` writes the same graph for the inference runtime.

    y = x, and log(1 + max(x, 0)) in the columns that count
    z = clip((y - mean) / std, -8, 8)
    h = relu(relu(z W1 + b1) W2 + b2)
    logits = h W3 + b3 + 10,000 (m(x) - 1)      value = h w4 + b4

m(x) is 1 where an action may be taken at all: contain only where a known file was destroyed of late and content was
overwritten, paired with unreadable content, or made unreadable (a plain deletion is asked about); seal only where
patient data is exposed, quarantine only an executable, a script or a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from shieldd.model.decision import Action
from shieldd.native.observe import schema

CLIP: Final = 8.0
MASKED: Final = 10_000.0
HIDDEN: Final = 96
DESTROYED_LEAST: Final = 0.2
CONTENT_LOSS: Final = ("overwritten_60s", "bad_pairs_60s", "encrypted_outputs_60s")
COUNT_UNIT: Final = "decayed count"

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Mean and spread of each column after the logarithm, float32 (F,), and which columns are counts."""

    mean: np.ndarray
    std: np.ndarray
    counts: np.ndarray


def normaliser(observations: np.ndarray) -> Normaliser:
    """Fit to rows, float32 (N, F)."""
    counts = np.array([x.unit == COUNT_UNIT for x in schema().features], np.float32)
    logged = np.where(counts > 0, np.log1p(np.maximum(observations, 0)), observations)
    std = np.maximum(logged.std(axis=0, dtype=np.float64), 0.05)
    return Normaliser(logged.mean(axis=0, dtype=np.float64).astype(np.float32), std.astype(np.float32), counts)


def columns(*names: str) -> list[int]:
    """Numbers of named columns."""
    return [schema().index[name] for name in names]


def normalise(norm: Normaliser, x: jax.Array) -> jax.Array:
    """z of the formula above."""
    y = jnp.where(norm.counts > 0, jnp.log1p(jnp.maximum(x, 0.0)), x)
    return jnp.clip((y - norm.mean) / norm.std, -CLIP, CLIP)


def masks(x: jax.Array) -> jax.Array:
    """m of the formula above, shape (..., 5)."""

    def highest(*names: str) -> jax.Array:
        return x[..., jnp.array(columns(*names))].max(axis=-1)

    one = jnp.ones(x.shape[:-1], x.dtype)
    seal = (highest("phi") >= 0.5) & (highest("exposed_read", "exposed_write") >= 0.5)
    quarantine = highest("executable", "script", "note_like") >= 0.5
    destroyed = highest("destroyed_60s", "tree_destroyed_60s") >= DESTROYED_LEAST
    contain = destroyed & (highest(*CONTENT_LOSS) >= DESTROYED_LEAST)
    allowed = {
        Action.ALLOW: one,
        Action.ALERT: one,
        Action.SEAL: seal.astype(x.dtype),
        Action.QUARANTINE: quarantine.astype(x.dtype),
        Action.CONTAIN: contain.astype(x.dtype),
    }
    return jnp.stack([allowed[action] for action in Action], axis=-1)


def initial(key: jax.Array, width: int) -> Params:
    """He initialisation; the last layers start small."""
    sizes = (width, HIDDEN, HIDDEN)
    keys = jax.random.split(key, 4)
    params: Params = {}
    for at, (fan_in, fan_out) in enumerate(pairwise(sizes), 1):
        params[f"w{at}"] = jax.random.normal(keys[at - 1], (fan_in, fan_out)) * jnp.sqrt(2.0 / fan_in)
        params[f"b{at}"] = jnp.zeros(fan_out)
    params["w3"] = jax.random.normal(keys[2], (HIDDEN, len(Action))) * 0.01
    params["b3"] = jnp.zeros(len(Action))
    params["w4"] = jax.random.normal(keys[3], (HIDDEN, 1)) * 0.01
    params["b4"] = jnp.zeros(1)
    return params


def apply(params: Params, z: jax.Array, allowed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits (..., 5) and value (...,) of normalised observations."""
    hidden = jax.nn.relu(z @ params["w1"] + params["b1"])
    hidden = jax.nn.relu(hidden @ params["w2"] + params["b2"])
    logits = hidden @ params["w3"] + params["b3"] + MASKED * (allowed - 1.0)
    value = jax.lax.stop_gradient(hidden) @ params["w4"] + params["b4"]
    return logits, value[..., 0]
