"""Why a policy chose an action: which observed facts carry its margin, in the admin's words.

Columns that tell the same story (one count over 1 s, 10 s and 60 s; one statistic of head, middle and tail) are
varied together, else each would hide behind its siblings. For a group g, observation x, reference r (an ordinary
harmless observation) and margin m(·) = logit of the action less log-sum-exp of the others, the contribution is

    c(g) = (m(x) - m(x with g from r) + m(r with g from x) - m(r)) / 2

that is, the mean of leaving g out and of putting g in: the two ends of its Shapley value.
Cost: 2 x 45 rows, one call of the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import numpy as np

from shieldd.model.decision import Action, Reason
from shieldd.native.observe import Schema

MARGIN_LIMIT: Final = 20.0  # masked actions have logits near -10,000: beyond this a margin says no more
_SIBLINGS: Final = re.compile(r"_(1s|10s|60s|head|middle|tail)$")

_SPANS: Final = {"1s": " in a second", "10s": " in ten seconds", "60s": " in a minute"}
# what a group says when it speaks for an action; {0} is the observed value, unlogged where the unit is a logarithm
_WORDS: Final = {
    "destroyed": "{0:.0f} known files destroyed without a verified replacement",
    "tree_destroyed": "{0:.0f} known files destroyed in this tree by anybody",
    "encrypted_outputs": "{0:.0f} new contents that look encrypted",
    "header_losses": "{0:.0f} files lost their format",
    "ext_changes": "{0:.0f} files changed their extension",
    "entropy_rises": "{0:.0f} files whose entropy rose by a bit or more",
    "entropy_change": "entropy changed by {0:+.1f} bits per byte",
    "same_notes": "{0:.0f} new files of one name in several directories",
    "replacements": "{0:.0f} files live on in verified new files",
    "writes": "{0:.0f} files written",
    "creates": "{0:.0f} files made",
    "renames": "{0:.0f} files renamed",
    "deletes": "{0:.0f} files deleted",
    "directories": "{0:.0f} directories touched",
    "similarity": "{0:.0%} of the content was kept",
    "encrypted_like": "content looks encrypted to {0:.0%}",
    "phi": "patient data, level {0:.0f} of 3",
    "merged": "{0:.0f} kernel events in one",
    "actor_events": "{0:.0f} events of this actor so far",
    "actor_age": "{0:.0f} s since the actor's first event",
    "size": "size {0:.0f} bytes",
}


def groups(schema: Schema) -> dict[str, list[int]]:
    """Columns that tell the same story, by the name they share, in the order of the schema."""
    found: dict[str, list[int]] = {}
    for index, feature in enumerate(schema.features):
        found.setdefault(_SIBLINGS.sub("", feature.name), []).append(index)
    return found


def margin(logits: np.ndarray, action: Action) -> np.ndarray:
    """Logit of `action` less the log-sum-exp of the others, within ±`MARGIN_LIMIT`; shape (N,)."""
    wide = logits.astype(np.float64)
    others = np.delete(wide, int(action), axis=1)
    top = others.max(axis=1)
    rest = top + np.log(np.exp(others - top[:, None]).sum(axis=1))
    limited: np.ndarray = np.clip(wide[:, int(action)] - rest, -MARGIN_LIMIT, MARGIN_LIMIT)
    return limited


def explain(
    score: Callable[[np.ndarray], np.ndarray],
    schema: Schema,
    reference: np.ndarray,
    row: np.ndarray,
    action: Action,
    *,
    top: int = 5,
) -> tuple[Reason, ...]:
    """Contributions of one observation to one action.

    Args:
        score: the model, float32 (N, F) to logits (N, 5).
        schema: names and units of the columns.
        reference: float32 (F,), an ordinary harmless observation.
        row: float32 (F,).
        action: what to explain.
        top: at most so many reasons.

    Returns:
        Reasons, largest absolute contribution first, in units of the margin (nats). Empty where the model
        gives no finite answer.
    """
    stories = {name: at for name, at in groups(schema).items() if not np.array_equal(row[at], reference[at])}
    if not stories:
        return ()
    count = len(stories)
    probes = np.concatenate([np.tile(row, (count + 1, 1)), np.tile(reference, (count + 1, 1))])
    for place, at in enumerate(stories.values()):
        probes[place, at] = reference[at]
        probes[count + 1 + place, at] = row[at]
    logits = score(probes)
    if not np.isfinite(logits).all():
        return ()
    value = margin(logits, action)
    out, into = value[count] - value[:count], value[count + 1 : -1] - value[-1]
    share = (out + into) / 2
    order = np.argsort(-np.abs(share), kind="stable")[:top]
    names = list(stories)
    return tuple(
        Reason(names[i], round(float(share[i]), 4), _words(schema, names[i], stories[names[i]], row))
        for i in order
        if abs(share[i]) > 1e-3
    )


def _words(schema: Schema, name: str, columns: list[int], row: np.ndarray) -> str:
    """One sentence with the observed value of the group's strongest column."""
    strongest = max(columns, key=lambda at: float(row[at]))
    feature, value = schema.features[strongest], float(row[strongest])
    if feature.unknown and value < 0:
        return f"{feature.help}: unknown"
    if feature.unit == "flag":
        return feature.help if value > 0.5 else f"not so: {feature.help}"
    if feature.unit.startswith("log2(1 +"):
        value = 2.0 ** min(value, 63.0) - 1.0
    elif feature.unit.startswith("log2(n"):
        value = 2.0 ** min(value, 63.0)
    story = name.removesuffix("_log2")
    if feature.part == "actor":
        value = max(value, 1.0) if value > 0 else 0.0
    if story in _WORDS:
        span = _SIBLINGS.search(feature.name)
        text = _WORDS[story].format(value) + (_SPANS.get(span[1], "") if span else "")
        return f"no {text[2:]}" if text.startswith("0 ") else text
    return f"{feature.help}: {value:.3g} {feature.unit}"
