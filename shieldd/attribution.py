"""Who the actors of events are: what the guard needs to trust a program, and what an incident shows of it.

Owns: the short memory between the loop, which asks for every batch, and the table of processes, which reads /proc and
digests executables. What it says of an actor is at most `FRESH_S` old, so that a program run later by the same process
is noticed; a digest of an executable is read once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from shieldd.model.actor import ActorInfo
from shieldd.model.event import Batch
from shieldd.model.identity import Identity
from shieldd.model.incident import Actor

FRESH_S: Final = 1.0
KEPT: Final = 1024
ATTRIBUTED: Final = 1 << 63  # set in every actor's key, never in a tree's own id


class Table(Protocol):
    """The table of processes (`shieldd.native.actors.Actors`)."""

    def info(self, key: int, *, closely: bool = False, digests: bool = True) -> ActorInfo | None:
        """What is known of an actor."""


class Attribution(Mapping[int, Identity]):
    """Identities by actor, looked up when they are asked for. One thread: the loop's."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: OrderedDict[int, tuple[float, ActorInfo | None]] = OrderedDict()

    def identities(self, batch: Batch) -> Mapping[int, Identity]:
        """The programs behind the actors of a batch: itself, since only few rows of a batch are ever asked for."""
        return self

    def actor(self, actor_id: int) -> Actor | None:
        """An actor as an incident shows it, its command line with secrets masked."""
        info = self.info(actor_id)
        if info is None:
            return None
        return Actor(info.pid, info.exe, info.masked(), info.uid)

    def info(self, actor_id: int) -> ActorInfo | None:
        """All that is known of an actor, at most `FRESH_S` old."""
        if not actor_id & ATTRIBUTED:
            return None
        now = time.monotonic()
        asked, info = self._known.get(actor_id, (-FRESH_S, None))
        if now - asked >= FRESH_S:
            info = self._table.info(actor_id, closely=True)
            self._known[actor_id] = (now, info)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(actor_id)
        return info

    def __getitem__(self, actor_id: int) -> Identity:
        """The one program that acted, by its digest.

        Raises:
            KeyError: several acted, or it cannot be told beyond doubt: such an actor is trusted with nothing.
        """
        info = self.info(actor_id)
        digest = info.sole_digest if info is not None else None
        if info is None or digest is None:
            raise KeyError(actor_id)
        return Identity(info.pid, digest)

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)
