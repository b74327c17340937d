"""What a reload changes, and which of it takes a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from shieldd.config.snapshot import Config

# Keys that the running daemon takes over with the new snapshot; all others are held by parts built at start.
LIVE: Final = (
    "daemon.log_level",
    "tree[].mode",
    "guard.",
    "contain.",
    "policy.",
    "retention.",
    "seal.",
    "keys.rotate_after_days",
)
# Files named here are read again on every reload, so their content may change without a change of the key.


@dataclass(frozen=True, slots=True)
class Change:
    """One key with another value.

    Attributes:
        key: dotted, trees by index.
        old, new: as JSON can hold them; None where the key is on one side only.
        restart: whether it takes effect only at the next start.
    """

    key: str
    old: object
    new: object
    restart: bool


def diff(old: Config, new: Config) -> tuple[Change, ...]:
    """All changed keys in the order of the names; empty where both say the same."""
    before, after = dict(_flat(old.values(), "")), dict(_flat(new.values(), ""))
    keys = sorted(before.keys() | after.keys())
    moved = [tree.path for tree in old.tree] != [tree.path for tree in new.tree]
    return tuple(
        Change(key, before.get(key), after.get(key), _restarts(key) or (moved and key.startswith("tree[")))
        for key in keys
        if before.get(key) != after.get(key)
    )


def _restarts(key: str) -> bool:
    general = "tree[]" + key[key.index("]") + 1 :] if key.startswith("tree[") else key
    return not any(general == live or (live.endswith(".") and general.startswith(live)) for live in LIVE)


def _flat(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, key + ".")
        elif key == "tree" and isinstance(value, list):
            for index, tree in enumerate(value):
                yield from _flat(tree, f"tree[{index}].")
        else:
            yield key, value
