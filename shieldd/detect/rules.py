"""What the guard is told: modes, trust, limits. One immutable snapshot per configuration generation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shieldd.model.decision import Action
from shieldd.model.identity import Identity

__all__ = ["GuardRules", "Identity", "Mode", "Trust"]


class Mode(StrEnum):
    """What may be done in a tree."""

    ACT = "act"
    OBSERVE = "observe"
    ALERT_ONLY = "alert-only"


@dataclass(frozen=True, slots=True)
class Trust:
    """Leave to change a tree: an executable by its digest, one tree, a budget. A name or extension grants nothing.

    Attributes:
        exe_sha256: 32 bytes.
        tree: index of the tree.
        budget: files it may destroy within the rate window; beyond that it is treated like any other.
        until_ns: wall clock when the trust ends, 0 for no end.
    """

    exe_sha256: bytes
    tree: int
    budget: int
    until_ns: int = 0

    def __post_init__(self) -> None:
        if len(self.exe_sha256) != 32 or self.budget < 0:
            raise ValueError("trust needs a sha-256 digest and a budget of 0 or more")


@dataclass(frozen=True, slots=True)
class GuardRules:
    """Limits and permissions of the guard.

    Attributes:
        modes: of each tree, by index; a tree without an entry is only observed.
        trust: see `Trust`.
        own_pids: processes of shieldd itself.
        contain_limit: containments per `limit_window_s`; beyond that only alerts.
        quarantine_limit: files quarantined per window.
        seal_limit: files sealed per window.
        limit_window_s: length of the window, s.
        destroyed_limit: files of one actor whose content was lost within `destroyed_window_s` that contain it
            whatever the policy says.
        removed_limit: plain deletions of known files in the same span that raise an alert.
        destroyed_window_s: s.
        hold_in_alert_only: actors are contained in alert-only trees too, and released after a while.
        contained_for_s: a contained actor is not contained again for so long; its further events are alerts.
    """

    modes: tuple[Mode, ...]
    trust: tuple[Trust, ...] = ()
    own_pids: frozenset[int] = frozenset()
    contain_limit: int = 3
    quarantine_limit: int = 50
    seal_limit: int = 200
    limit_window_s: float = 600.0
    destroyed_limit: int = 5
    removed_limit: int = 25
    destroyed_window_s: float = 10.0
    contained_for_s: float = 60.0
    hold_in_alert_only: bool = False

    def mode(self, tree: int) -> Mode:
        """Mode of a tree; an unknown tree is only observed."""
        return self.modes[tree] if 0 <= tree < len(self.modes) else Mode.OBSERVE

    def may(self, tree: int, action: Action) -> bool:
        """Whether the mode of a tree allows more than an alert."""
        mode = self.mode(tree)
        held = mode is Mode.ALERT_ONLY and self.hold_in_alert_only and action is Action.CONTAIN
        return mode is Mode.ACT or held
