"""Who the loop asks about the processes behind a batch: identities for the guard, actors for incidents.

Owns how long an answer holds. An identity is handed out only where it can earn trust: exactly one executable acted in
the actor's name, the kernel itself named the process, its digest is one that somebody trusts, and a second, close look
(what its processes run now, who traces them, whose code is mapped) finds nothing that speaks against it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import numpy as np

from shieldd.model.actor import ActorInfo, ActorKind
from shieldd.model.event import Batch, EventFlag
from shieldd.model.identity import Identity
from shieldd.model.incident import Actor
from shieldd.model.names import printable
from shieldd.native.actors import Actors

HOLDS_NS: Final = 250_000_000
"""An answer about trust is good for so long: a trusted program that runs another one is found out within it."""
SHOWN_NS: Final = 1_000_000_000
KEPT: Final = 1024
GUESSES: Final = 3
_T = TypeVar("_T")


class Known:
    """The pipeline's `Who` over a table of actors. The pipeline's thread owns it."""

    def __init__(
        self,
        actors: Actors,
        trusted: Callable[[], frozenset[bytes]],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Args:
        actors: shared with the source of events.
        trusted: digests that the configuration trusts now; where it is empty nobody is looked at.
        clock: monotonic, ns.
        """
        self._actors = actors
        self._trusted = trusted
        self._clock = clock
        self._identities: OrderedDict[int, tuple[int, Identity | None]] = OrderedDict()
        self._shown: OrderedDict[int, tuple[int, Actor | None]] = OrderedDict()

    def identities(self, batch: Batch) -> Mapping[int, Identity]:
        """The programs behind the attributed actors of a batch; what is not known for certain is left out."""
        trusted = self._trusted()
        if not trusted:
            return {}
        flags = batch.events["flags"]
        named = (flags & EventFlag.ATTRIBUTED != 0) & (flags & EventFlag.GUESSED == 0)
        found: dict[int, Identity] = {}
        for key in np.unique(batch.events["actor"][named]).tolist():
            identity = self._identity(key, trusted)
            if identity is not None:
                found[key] = identity
        return found

    def actor(self, actor_id: int) -> Actor | None:
        """An actor as an incident shows it: secrets in its command line masked; None where nothing is known."""
        now = self._clock()
        held = self._shown.get(actor_id)
        if held is not None and now - held[0] < SHOWN_NS:
            return held[1]
        info = self._actors.info(actor_id, digests=False) if actor_id >> 63 else None
        shown = Actor(pid=info.pid, exe=info.exe, cmdline=info.masked(), uid=info.uid) if info else None
        _keep(self._shown, actor_id, (now, shown))
        return shown

    def info(self, actor_id: int) -> ActorInfo | None:
        """All that is known of an actor, digests included."""
        return self._actors.info(actor_id)

    def _identity(self, key: int, trusted: frozenset[bytes]) -> Identity | None:
        now = self._clock()
        held = self._identities.get(key)
        if held is not None and now - held[0] < HOLDS_NS:
            return held[1]
        info = self._actors.info(key)
        if info is not None and info.sole_digest in trusted:
            info = self._actors.info(key, closely=True)
        digest = info.sole_digest if info is not None else None
        identity = Identity(info.pid, digest) if info is not None and digest is not None else None
        _keep(self._identities, key, (now, identity))
        return identity


def guessed(actors: Actors, root: bytes) -> str:
    """Who has files open beneath a root, for people to look at; nobody may act on it. Empty where nobody has."""
    words: list[str] = []
    for guess in actors.guess([root]):
        info = actors.info(guess.key, digests=False, guessed=True)
        if info is None or info.kind is ActorKind.HOST:
            continue
        how = "writing" if guess.writing else "with files open"
        words.append(f"{printable(info.exe) or 'a program'} (pid {guess.pid}, {how})")
    return ", ".join(words[:GUESSES])


def _keep(cache: OrderedDict[int, _T], key: int, value: _T) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > KEPT:
        cache.popitem(last=False)
