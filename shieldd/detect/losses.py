"""Counts what each actor destroyed, exactly, from the core's `destroys` column.

The observation's windows decay; the guard's rule ("five in ten seconds") and an incident's "files lost" need counts.
Memory is bounded: at most `ACTOR_LIMIT` streaks, the longest quiet leaves first; a streak remembers `PATH_LIMIT` files
and counts on without telling repeats apart beyond that.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

ACTOR_LIMIT: Final = 4096
PATH_LIMIT: Final = 4096
STREAK_GAP_NS: Final = 300 * 10**9
RECENT_LIMIT: Final = 64

Key = tuple[int, int]  # actor, tree


@dataclass(slots=True)
class Streak:
    """One actor's losses in one tree without a pause of `STREAK_GAP_NS`.

    Attributes:
        first_at_ns: wall clock of its first loss.
        last_mono_ns: monotonic time of its last.
        lost: distinct files lost.
        content_mono_ns: times of the latest losses of content: overwritten, or removed beside unreadable new content.
        removed_mono_ns: times of the latest plain deletions.
        paths: hashes of lost files, at most `PATH_LIMIT`.
    """

    first_at_ns: int
    last_mono_ns: int
    lost: int = 0
    content_mono_ns: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT_LIMIT))
    removed_mono_ns: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT_LIMIT))
    paths: set[int] = field(default_factory=set)

    def within(self, times: deque[int], span_ns: int, now_ns: int) -> int:
        """How many of `times` lie within `span_ns` before `now_ns`."""
        return sum(now_ns - at <= span_ns for at in times)


class Losses:
    """Losses by actor and tree."""

    def __init__(self) -> None:
        self._streaks: OrderedDict[Key, Streak] = OrderedDict()
        self.forgotten = 0

    def add(self, event: np.void, facts: np.void, *, of_content: bool) -> Streak:
        """Count one destroyed file.

        Args:
            event: its `EVENT` row.
            facts: its `FACTS` row.
            of_content: whether content was lost under the actor's hand, not only a name removed.

        Returns:
            The streak it belongs to, this loss included.
        """
        key = (int(event["actor"]), int(event["tree"]))
        mono_ns = int(event["mono_ns"])
        streak = self._streaks.get(key)
        if streak is None or mono_ns - streak.last_mono_ns > STREAK_GAP_NS:
            streak = self._streaks[key] = Streak(int(event["at_ns"]), mono_ns)
        self._streaks.move_to_end(key)
        path = int(facts["path_hash"])
        if path not in streak.paths:
            streak.lost += 1
            if len(streak.paths) < PATH_LIMIT:
                streak.paths.add(path)
        streak.last_mono_ns = mono_ns
        (streak.content_mono_ns if of_content else streak.removed_mono_ns).append(mono_ns)
        while len(self._streaks) > ACTOR_LIMIT:
            self._streaks.popitem(last=False)
            self.forgotten += 1
        return streak

    def drop(self, actor: int, tree: int) -> None:
        """Begin anew: what was lost so far is settled, and no part of what comes."""
        self._streaks.pop((actor, tree), None)

    def of(self, actor: int, tree: int, mono_ns: int) -> Streak | None:
        """The streak of an actor in a tree that is not over at `mono_ns`, None where there is none."""
        streak = self._streaks.get((actor, tree))
        if streak is None or mono_ns - streak.last_mono_ns > STREAK_GAP_NS:
            return None
        return streak
