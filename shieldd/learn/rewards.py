"""What each action is worth in the hospital's terms, row by row. One lost file is -1; the rest is measured against it.

Only containing ends an episode. Values after the measurements that the project keeps on costs: stopping good work
weighs about 150 lost files, an alert on good work one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from shieldd.learn.simulator import Episode
from shieldd.learn.world import Truth
from shieldd.model.decision import Action
from shieldd.native.observe import schema

LOST_FILE: Final = -1.0
CONTAIN_GOOD_WORK: Final = -150.0
CONTAIN_ATTACK: Final = 10.0
MISS_ATTACK: Final = -10.0
QUARANTINE_RIGHT: Final = 8.0
QUARANTINE_WRONG: Final = -15.0
QUARANTINE_MISSED: Final = -8.0
SEAL_RIGHT: Final = 4.0
SEAL_WRONG: Final = -8.0
SEAL_MISSED: Final = -4.0
ALERT_GOOD_WORK: Final = -1.0
ALERT_DOUBT: Final = 1.0
DOUBT_MISSED: Final = -1.0
ATTACK_FADES_ROWS: Final = 8


def rewards(episode: Episode) -> np.ndarray:
    """Reward of each action at each row, float32 (T, 5), losses left out (see `losses`).

    A row of ordinary work that follows an attack's row closely in the same actor may be contained too: without
    attribution the actor is the tree.
    """
    rows = len(episode.truth)
    out = np.zeros((rows, len(Action)), np.float32)
    out[:, Action.ALERT] = ALERT_GOOD_WORK
    out[:, Action.SEAL] = SEAL_WRONG
    out[:, Action.QUARANTINE] = QUARANTINE_WRONG
    out[:, Action.CONTAIN] = CONTAIN_GOOD_WORK
    truth = episode.truth
    active = under_attack(episode)
    out[active, Action.CONTAIN] = CONTAIN_ATTACK
    out[active, Action.ALERT] = 0.0
    notes = active & (episode.observations[:, schema().index["note_like"]] > 0.5)
    out[notes, Action.QUARANTINE] = 0.0
    drop = truth == Truth.DROP
    out[drop, Action.ALLOW] = QUARANTINE_MISSED
    out[drop, Action.CONTAIN] = QUARANTINE_WRONG  # its own row is about the file; the attack has rows of its own
    out[drop, Action.ALERT] = QUARANTINE_MISSED / 2
    out[drop, Action.QUARANTINE] = QUARANTINE_RIGHT
    exposure = truth == Truth.EXPOSURE
    out[exposure, Action.ALLOW] = SEAL_MISSED
    out[exposure, Action.CONTAIN] = QUARANTINE_WRONG
    out[exposure, Action.ALERT] = SEAL_MISSED / 2
    out[exposure, Action.SEAL] = SEAL_RIGHT
    doubt = truth == Truth.DOUBTFUL
    out[doubt, Action.ALLOW] = DOUBT_MISSED
    out[doubt, Action.ALERT] = ALERT_DOUBT
    return out


def under_attack(episode: Episode) -> np.ndarray:
    """Rows at which containing the actor is right: those of an attack, and the few that follow one; bool (T,)."""
    active = episode.truth == Truth.ATTACK
    faded = active.copy()
    for back in range(1, ATTACK_FADES_ROWS + 1):
        faded[back:] |= active[:-back]
    grown: np.ndarray = faded
    return grown


def losses(episode: Episode) -> np.ndarray:
    """What each row cost if the actor was not contained before it, float32 (T,)."""
    cost: np.ndarray = LOST_FILE * episode.lost.astype(np.float32)
    return cost


def miss(episode: Episode) -> float:
    """What it costs to let the episode end without containment."""
    return MISS_ATTACK if episode.hostile else 0.0
