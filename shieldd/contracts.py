"""What the loop needs of the parts that it runs through: contracts alone, so that it knows no concrete class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from shieldd.model.decision import Decision, Severity
from shieldd.model.event import Batch
from shieldd.model.identity import Identity
from shieldd.model.incident import Actor, Incident
from shieldd.model.incident import Judgement as Verdict
from shieldd.model.match import Match


class Batches(Protocol):
    """Where batches come from (`shieldd.watch.Source`)."""

    def next_batch(self, timeout_s: float) -> Batch | None:
        """The next events, None when there are none in time."""


class Policy(Protocol):
    """Scores rows (`shieldd.detect.policy`)."""

    version: str

    def score(self, observations: np.ndarray) -> np.ndarray:
        """Logits, float32 (N, 5)."""


class Guard(Protocol):
    """Decides rows (`shieldd.detect.guard`)."""

    def look(self, batch: Batch) -> np.ndarray:
        """Rows whose content should be scanned."""

    def release(self, actor: int, tree: int) -> None:
        """A person closed the incident of this actor."""

    def decide(
        self,
        batch: Batch,
        logits: np.ndarray | None,
        *,
        content: Mapping[int, Match],
        generation: int,
        now_ns: int,
        mono_ns: int,
        actors: Mapping[int, Identity] | None = None,
    ) -> list[Decision]:
        """Decisions for the rows that are not a plain allow."""


class Who(Protocol):
    """Knows the processes behind the actors (`shieldd.actors`)."""

    def identities(self, batch: Batch) -> Mapping[int, Identity]:
        """The programs behind the attributed actors of a batch; what is not known is left out."""

    def actor(self, actor_id: int) -> Actor | None:
        """An actor as an incident shows it, None where nothing is known."""


class Nobody:
    """A source without attribution: nothing is known of anybody."""

    def identities(self, batch: Batch) -> Mapping[int, Identity]:
        """None of them."""
        return {}

    def actor(self, actor_id: int) -> None:
        """Nothing."""


class Incidents(Protocol):
    """Folds decisions into incidents (`shieldd.detect.incidents`)."""

    def fold(self, decision: Decision, facts_row: np.void, *, actor: Actor | None = None) -> tuple[Incident, bool]:
        """The incident that the decision belongs to, and whether it is new."""

    def contained(self, threat_id: str, at_ns: int, held_at_ns: int) -> Incident | None:
        """Note when containment took hold, and since when the actor's opens are denied."""

    def preserved(self, threat_id: str, kept: int, lost: int) -> Incident | None:
        """Note how many of the files that were destroyed have a version from before, and how many have none."""

    def resolve(self, threat_id: str, judgement: Verdict, note: str, at_ns: int) -> Incident | None:
        """Close an open incident with a person's word."""


class Records(Protocol):
    """Where it is written (`shieldd.store`); none of these waits for the disk."""

    def record_events(self, batch: Batch, decisions: Sequence[Decision], threats: Mapping[int, str]) -> int:
        """Keep a batch with the observations that were decided on; `threats` maps an event's number to its incident.

        Returns:
            The record's number of the first event; row i has that plus i, over restarts too.
        """

    def save_incident(self, incident: Incident, *, wait: bool) -> None:
        """Keep an incident as it is now."""


class Acts(Protocol):
    """Carries decisions out on threads of its own (`shieldd.respond`)."""

    def submit(self, decision: Decision, incident: Incident, batch: Batch, row: int) -> None:
        """Queue one act; never blocks, never raises."""


class Scans(Protocol):
    """Content scan on a thread of its own."""

    @property
    def waiting(self) -> int:
        """Files queued or in hand."""

    def submit(self, batch: Batch, rows: Sequence[int]) -> None:
        """Queue files to be looked into; never blocks."""


class Tell(Protocol):
    """Streams to whoever listens."""

    def events(self, first: int, batch: Batch, decisions: Sequence[Decision], threats: Mapping[int, str]) -> None:
        """A batch as it was decided; its events are numbered from `first`."""

    def alert(self, decision: Decision, incident: Incident, *, new: bool) -> None:
        """A decision that a person should see."""

    def trouble(self, code: str, text: str, severity: Severity, tree: int, path: bytes) -> None:
        """Something that limits what we see."""


class Keeps(Protocol):
    """Keeps versions of files, and what incidents need of them (`shieldd.custody`); none of these waits or raises."""

    def note(self, batch: Batch) -> None:
        """What happened: files that came are kept from now on, files that went are noted."""

    def follow(self, incident: Incident) -> None:
        """An incident opened or grew."""


class NothingKept:
    """No versions are kept."""

    def note(self, batch: Batch) -> None:
        """Nothing."""

    def follow(self, incident: Incident) -> None:
        """Nothing."""
