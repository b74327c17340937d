"""Exact policy gradient for optimal stopping.

What an actor does next does not depend on us until it is contained, so the expected return of an episode

    J = Σ_t alive_t (Σ_a π(a|s_t) R[t, a] + loss_t) + alive_T miss,    alive_{t+1} = alive_t (1 - π(contain|s_t))

is differentiable without sampling, and gradient ascent on it over many episodes is the whole learner. A short start by
imitation of each row's best action keeps containment from dying out before it is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shieldd.learn.network import Normaliser, Params, apply, initial, masks, normalise, normaliser
from shieldd.learn.rewards import losses, miss, rewards
from shieldd.learn.simulator import ROWS_LIMIT, Episode
from shieldd.model.decision import Action

REWARD_SCALE: Final = 0.1
NOISE: Final = 0.1
DROPOUT: Final = 0.15
VALUE_WEIGHT: Final = 0.05
PACK_CHUNK: Final = 512
NOISE_SHIFTS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one training run.

    Attributes:
        steps: gradient steps.
        batch: episodes a step.
        rate: highest learning rate; cosine to a tenth.
        decay: weight decay.
        imitate: share of the steps over which imitation fades out.
        entropy: weight of the policy's entropy at the start, fading out with imitation.
    """

    steps: int = 1400
    batch: int = 160
    rate: float = 2e-3
    decay: float = 1e-4
    imitate: float = 0.3
    entropy: float = 0.02


@dataclass(frozen=True, slots=True)
class Packed:
    """Episodes padded to one length, normalised. Shapes: (E, T, F), (E, T, 5) twice, (E, T), (E,), (E, T)."""

    inputs: np.ndarray
    allowed: np.ndarray
    rewards: np.ndarray
    losses: np.ndarray
    miss: np.ndarray
    live: np.ndarray


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run gives: parameters, normalisation, and (step, return a training episode, imitation loss) points."""

    params: Params
    norm: Normaliser
    curve: tuple[tuple[int, float, float], ...]


def pack(episodes: Sequence[Episode], norm: Normaliser, rows: int = ROWS_LIMIT) -> Packed:
    """Pad episodes with dead rows."""
    count, width = len(episodes), episodes[0].observations.shape[1]
    packed = Packed(
        inputs=np.zeros((count, rows, width), np.float32),
        allowed=np.ones((count, rows, len(Action)), np.float32),
        rewards=np.zeros((count, rows, len(Action)), np.float32),
        losses=np.zeros((count, rows), np.float32),
        miss=np.array([miss(x) for x in episodes], np.float32),
        live=np.zeros((count, rows), np.float32),
    )
    for at, episode in enumerate(episodes):
        length = min(len(episode.truth), rows)
        packed.inputs[at, :length] = episode.observations[:length]
        packed.rewards[at, :length] = rewards(episode)[:length]
        packed.losses[at, :length] = losses(episode)[:length]
        packed.live[at, :length] = 1.0
    for at in range(0, count, PACK_CHUNK):  # by whole chunks: each new shape costs a compilation
        raw = jnp.asarray(packed.inputs[at : at + PACK_CHUNK])
        packed.allowed[at : at + PACK_CHUNK] = masks(raw)
        packed.inputs[at : at + PACK_CHUNK] = normalise(norm, raw)
    return packed


def expected_return(
    probabilities: jax.Array, reward: jax.Array, loss: jax.Array, end: jax.Array, live: jax.Array
) -> jax.Array:
    """J of each episode, shape (E,)."""
    stop = probabilities[..., Action.CONTAIN] * live
    stay = jnp.log1p(-jnp.minimum(stop, 1.0 - 1e-6))
    before = jnp.exp(jnp.concatenate([jnp.zeros_like(stay[:, :1]), jnp.cumsum(stay, axis=1)], axis=1))
    gain = (probabilities * reward).sum(axis=-1) + loss
    returns: jax.Array = (before[:, :-1] * gain * live).sum(axis=1) + before[:, -1] * end
    return returns


def train(
    episodes: Sequence[Episode], *, seed: int, settings: Settings, report: Callable[[str], None] | None = None
) -> Trained:
    """Train on episodes; the same arguments give the same parameters on the same machine.

    Args:
        episodes: of the trained families.
        seed: of initialisation, order, noise and dropout.
        settings: see `Settings`.
        report: told a line now and then.
    """
    norm = normaliser(np.concatenate([x.observations for x in episodes]))
    packed = pack(episodes, norm)
    data = (packed.inputs, packed.allowed, packed.rewards, packed.losses, packed.miss, packed.live)
    params = initial(jax.random.key(seed), packed.inputs.shape[-1])
    schedule = optax.cosine_decay_schedule(settings.rate, settings.steps, alpha=0.1)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=settings.decay))
    state = optimiser.init(params)
    step = _step(optimiser, settings)
    draws = np.random.Generator(np.random.PCG64(seed))
    curve: list[tuple[int, float, float]] = []
    batch = min(settings.batch, len(episodes))
    shape = (batch, *packed.inputs.shape[1:])
    bank = draws.standard_normal(int(np.prod(shape)) + NOISE_SHIFTS, np.float32) * np.float32(NOISE)
    for number in range(settings.steps):
        chosen = draws.choice(len(episodes), size=batch, replace=False)
        shift = int(draws.integers(NOISE_SHIFTS))  # one bank, read from another place each step: drawing anew is dear
        noise = bank[shift : shift + int(np.prod(shape))].reshape(shape)
        kept = (draws.random((batch, 1, shape[2])) >= DROPOUT).astype(np.float32)
        fade = max(0.0, 1.0 - number / max(settings.imitate * settings.steps, 1))
        params, state, value, imitation = step(params, state, noise, kept, fade, *(x[chosen] for x in data))
        if number % max(settings.steps // 60, 1) == 0 or number == settings.steps - 1:
            curve.append((number, float(value), float(imitation)))
            if report is not None:
                report(f"step {number}: return {float(value):.2f}, imitation {float(imitation):.3f}")
    return Trained({k: np.asarray(v, np.float32) for k, v in params.items()}, norm, tuple(curve))


def _step(optimiser: Any, settings: Settings) -> Callable[..., Any]:
    def objective(
        params: Params, noise: jax.Array, kept: jax.Array, fade: jax.Array, z: jax.Array, allowed: jax.Array,
        reward: jax.Array, loss: jax.Array, end: jax.Array, live: jax.Array,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:  # fmt: skip
        z = (z + noise) * kept
        logits, value = apply(params, z, allowed)
        chances = jax.nn.softmax(logits, axis=-1)
        logs = jax.nn.log_softmax(logits, axis=-1)
        reward_, loss_, end_ = reward * REWARD_SCALE, loss * REWARD_SCALE, end * REWARD_SCALE
        returns = expected_return(chances, reward_, loss_, end_, live)
        best = jnp.argmax(jnp.where(allowed > 0, reward, -1e9), axis=-1)
        picked = jnp.take_along_axis(logs, best[..., None], axis=-1)[..., 0]
        rows = jnp.maximum(live.sum(), 1.0)
        imitation = -(picked * live).sum() / rows
        spread = -(chances * jnp.where(allowed > 0, logs, 0.0)).sum(axis=-1)
        ahead = _returns_to_go(chances, reward_, loss_, end_, live)
        error = (((value - jax.lax.stop_gradient(ahead)) ** 2) * live).sum() / rows
        total = -returns.mean() + fade * (imitation * 2.0 - settings.entropy * (spread * live).sum() / rows)
        return total + VALUE_WEIGHT * error, (returns.mean() / REWARD_SCALE, imitation)

    @jax.jit
    def step(
        params: Params, state: Any, noise: jax.Array, kept: jax.Array, fade: float, *parts: jax.Array
    ) -> tuple[Any, ...]:
        gradient, (value, imitation) = jax.grad(objective, has_aux=True)(params, noise, kept, fade, *parts)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value, imitation

    return step


def _returns_to_go(
    chances: jax.Array, reward: jax.Array, loss: jax.Array, end: jax.Array, live: jax.Array
) -> jax.Array:
    """Expected return from each row on, (E, T)."""
    gain = ((chances * reward).sum(axis=-1) + loss) * live
    stay = 1.0 - chances[..., Action.CONTAIN] * live

    def back(ahead: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        now = row[0] + row[1] * ahead
        return now, now

    _, values = jax.lax.scan(back, end, (gain.T, stay.T), reverse=True)
    flipped: jax.Array = values.T
    return flipped
