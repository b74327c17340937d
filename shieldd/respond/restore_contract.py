"""What restoring needs of others: preserved versions, the history of events, a journal. Contracts alone.

`Versions` is the vault's; `History` and `Journal` are the store's. Any thread may call; a failure is a `ShieldError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from shieldd.model.restore import Plan, PlanState, Step
from shieldd.model.version import Version
from shieldd.respond.restore_trails import Touch


class Versions(Protocol):
    """The vault, as restoring sees it."""

    def versions_of(self, tree: int, path: bytes) -> Sequence[Version]:
        """All versions of a name, oldest first."""

    def versions_by(self, actor: int, since_ns: int) -> Sequence[Version]:
        """All versions that were kept for an actor's acts."""

    def get(self, vault: int, version_id: int) -> Version | None:
        """One version by its vault and id; None where it is no more."""

    def open(self, version: Version, *, now: bytes = b"") -> int:
        """A descriptor of the version's whole content, for reading, from its beginning; the caller closes.

        Args:
            now: path of the file as it is now, where that is not the version's own; a version of ranges needs it.

        Raises:
            ShieldError: it is gone, damaged, or cannot be put together.
        """

    def keep(self, tree: int, path: bytes, *, actor: int) -> None:
        """Preserve a file as it is now, because it is about to be replaced.

        Raises:
            ShieldError: it could not be kept: then it is set aside beside the file.
        """

    def came_back(self, tree: int, paths: Sequence[bytes]) -> None:
        """These files have their names again; nobody else will tell."""

    def pin(self, incident_id: str, actor: int, since_ns: int) -> None:
        """Keep an incident's versions from being evicted."""

    def unpin(self, incident_id: str) -> None:
        """Let them go with the others."""


class History(Protocol):
    """What happened, as it was recorded."""

    def touches(self, tree: int, since_ns: int, until_ns: int) -> Iterator[Touch]:
        """All events of a tree in that time (until not included), in their order."""

    def last_of(self, threat_id: str) -> int:
        """Wall clock of the last event that was decided on for an incident, 0 where none is kept."""


class Journal(Protocol):
    """Plans and their steps, durable before each call returns."""

    def begin(self, plan: Plan, steps: Sequence[Step]) -> None:
        """Keep a new plan; plans of the same incident that were never begun go."""

    def plan(self, plan_id: str) -> Plan:
        """One plan by its id or the beginning of it; `api.not-found`, `api.ambiguous`."""

    def plans(self, threat_id: str) -> Sequence[Plan]:
        """All plans of an incident, oldest first."""

    def steps(self, plan_id: str, *, after: int = -1, limit: int = 1000) -> Sequence[Step]:
        """Steps by number, those after one."""

    def unfinished(self) -> Sequence[Plan]:
        """Plans that were begun and did not end: cut off by a crash."""

    def mark(self, plan_id: str, state: PlanState) -> None:
        """A plan was begun, or ended."""

    def intend(self, plan_id: str, steps: Sequence[Step]) -> None:
        """These are about to be done, each with its hidden name and what happens to what is in the way."""

    def begun(self, plan_id: str) -> set[int]:
        """Numbers of steps that were about to be done and have no result."""

    def result(self, plan_id: str, steps: Sequence[Step]) -> None:
        """How steps ended."""
