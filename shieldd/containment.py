"""Builds what holds attackers, from the configuration in force and the parts that it works with.

Owns: which signals' sender is in force (a reload may change who is never contained), and the words that go to people.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from shieldd.config import Config
from shieldd.config.sections import ContainSection, TreeMode
from shieldd.errors import ShieldError
from shieldd.model.actor import ActorInfo, ActorKind
from shieldd.model.contained import Member
from shieldd.model.decision import ActionKind, Severity
from shieldd.model.held import HoldStatus, Verdict
from shieldd.native.freeze import Freezer
from shieldd.respond import Trees
from shieldd.respond.contain import Contain
from shieldd.respond.containing import Means
from shieldd.respond.notes import Notes
from shieldd.store import Store

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ActorTable(Protocol):
    """What the table of actors knows (`shieldd.native.actors.Actors`)."""

    def members(self, key: int) -> Sequence[tuple[int, int]]:
        """Living processes of an actor: number and start."""

    def info(self, key: int, *, digests: bool) -> ActorInfo | None:
        """What is known of an actor."""


class Grouped:
    """The table of actors as containment asks it."""

    def __init__(self, table: ActorTable) -> None:
        self._table = table

    def members(self, actor: int) -> Sequence[Member]:
        """Those that live now."""
        return [Member(pid, start_ticks) for pid, start_ticks in self._table.members(actor)]

    def of_the_host(self, actor: int) -> bool:
        """Whether it is the host's own work."""
        info = self._table.info(actor, digests=False)
        return info is not None and info.kind is ActorKind.HOST


class Opens(Protocol):
    """Who holds opens (`shieldd.hold.Hold`)."""

    def set_verdict(self, actor: int, verdict: Verdict) -> None:
        """What becomes of an actor's opens from now on; raises `hold.verdicts`."""

    def status(self) -> HoldStatus:
        """How things stand."""

    def pids(self) -> tuple[int, ...]:
        """Its processes."""


class HeldOpens:
    """Verdicts given to whoever holds opens."""

    def __init__(self, opens: Opens, trouble: Callable[[str, str], None]) -> None:
        self._opens = opens
        self._trouble = trouble

    def deny(self, actor: int) -> bool:
        """In force at once, also for an answerer that is only being started; True where one is at work now."""
        return self._set(actor, Verdict.DENY) and self._opens.status().running

    def clear(self, actor: int) -> None:
        """Back to none."""
        self._set(actor, Verdict.NONE)

    def _set(self, actor: int, verdict: Verdict) -> bool:
        try:
            self._opens.set_verdict(actor, verdict)
        except ShieldError as error:
            self._trouble(error.code, f"no verdict on an actor's opens could be given: {error.message}")
            return False
        return True


class NoVerdicts:
    """Where nothing holds opens: nothing can be denied."""

    def deny(self, actor: int) -> bool:
        """It cannot."""
        return False

    def clear(self, actor: int) -> None:
        """There is none."""


class Words:
    """Passes on what containment tells (`shieldd.respond.containing.Tell`)."""

    def __init__(
        self,
        say: Callable[[Severity, str, str, int, ActionKind], None],
        trouble: Callable[[str, str], None],
        stopped: Callable[[str, int, int], None],
    ) -> None:
        self._say = say
        self._trouble = trouble
        self._stopped = stopped

    def alert(self, severity: Severity, text: str, threat_id: str, tree: int) -> None:
        """A sentence for people."""
        self._say(severity, text, threat_id, tree, ActionKind.CONTAIN)

    def trouble(self, code: str, text: str) -> None:
        """Something that is not as it should be."""
        self._trouble(code, text)

    def stopped(self, threat_id: str, held_at_ns: int, contained_at_ns: int) -> None:
        """When its opens were denied, and when it stood still."""
        self._stopped(threat_id, contained_at_ns, held_at_ns)


class Senders:
    """The signals' sender for the list in force; made anew when a reload changed the list or processes of ours."""

    def __init__(self, config: Callable[[], Config], own: Callable[[], Sequence[int]]) -> None:
        self._config = config
        self._own = own
        self._lock = threading.Lock()
        self._made: tuple[ContainSection, tuple[int, ...], Freezer] | None = None

    def __call__(self) -> Freezer:
        """The one in force."""
        section, own = self._config().contain, tuple(self._own())
        with self._lock:
            if self._made is None or self._made[:2] != (section, own):
                self._made = (section, own, Freezer(own=own, digests=section.digests, units=section.units))
            return self._made[2]


def build(
    config: Callable[[], Config],
    store: Store,
    trees: Trees,
    table: ActorTable,
    words: Words,
    *,
    opens: Opens | None = None,
) -> Contain:
    """What holds attackers; `recover` is the caller's to call before the first decision.

    Args:
        config: gives the configuration in force.
        table: which processes are one actor.
        opens: who holds opens, None where nobody does; its processes are never contained.

    Raises:
        ShieldError: `store.io`.
    """

    def hold_s(tree: int) -> float:
        now = config()
        temporary = tree < len(now.tree) and now.tree[tree].mode is TreeMode.ALERT_ONLY
        return now.contain.release_after_s if temporary else 0.0

    means = Means(
        signals=Senders(config, opens.pids if opens else tuple),
        groups=Grouped(table),
        verdicts=HeldOpens(opens, words.trouble) if opens else NoVerdicts(),
        holdings=store.containments,
        ledger=store,
        notes=Notes(store.state.fd),
        tell=words,
        trees=trees,
        boot_id=BOOT_ID.read_text().strip(),
        hold_s=hold_s,
    )
    return Contain(means)
