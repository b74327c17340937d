"""Preserved versions in the running daemon: which vaults there are, what they are told, what incidents need of them.

Owns: where vaults lie (the configuration's word, else the state directory in personal mode, else the top of the file
system), what the watchers leave out because of them, and the thread that holds an incident's versions and counts how
many of the files that it destroyed can come back. Does not own: what is kept and for how long
(`shieldd.respond.preserve`), bringing it back (`shieldd.respond.restore`).

Without a vault the daemon runs as ever; that nothing is preserved is a trouble for as long as it is so.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from shieldd.config import Config, DaemonMode
from shieldd.errors import ShieldError
from shieldd.model.decision import Severity
from shieldd.model.event import Batch
from shieldd.model.incident import Incident, State
from shieldd.native.preserve import VAULT_NAME
from shieldd.respond import GuardedTree, Ledger, Notice, Trees
from shieldd.respond.preserve import Keeper, Preserving
from shieldd.respond.quarantine import Quarantine
from shieldd.respond.restore import ATTRIBUTED, Restorer
from shieldd.respond.restore_vault import VaultVersions
from shieldd.store import IncidentFilter, Store

VAULT: Final = "vault"  # its directory in the state directory of personal mode
TALLY_S: Final = 0.3  # from an incident's change to the count of what can come back
PACE: Final = 10  # of an incident that goes on, so many times what the last count took passes before the next
SETTLE_S: Final = 5.0  # for the keeper to take in what happened before a count
AGAIN: Final = 1000  # open incidents that are counted again after a restart

log = structlog.get_logger("shieldd.custody")


class Troubles(Protocol):
    """What is not as it should be (`shieldd.engine.troubles`)."""

    def hold(self, code: str, text: str) -> None:
        """A state: shown until it is cleared."""

    def clear(self, code: str) -> None:
        """The state is over."""


class Custody:
    """The keeper of versions as loop and engine know it; `keeper` is None where the configuration wants none."""

    def __init__(self, config: Config, trees: Trees, store: Store, troubles: Troubles) -> None:
        """Open the vaults; nothing is kept before `start`."""
        self._trees = trees
        self._store = store
        self._troubles = troubles
        self._said: set[str] = set()
        self.exclude: dict[int, tuple[bytes, ...]] = {tree.index: () for tree in trees}
        for tree, section in zip(trees, config.tree, strict=True):
            self.exclude[tree.index] = section.globs
        self.keeper: Keeper | None = None
        self.restorer: Restorer | None = None
        if config.preserve.enabled:
            self.keeper = Keeper(trees, config.preserve, places=_places(config, trees), exclude=self.exclude)
            for held in self.keeper.held:
                for tree in trees if held.inside else ():
                    self.exclude[tree.index] += _beneath(tree, held.path)
        self._counted: Callable[[str, int, int], None] = lambda threat, kept, lost: None
        self._wake = threading.Condition()
        self._due: dict[str, tuple[float, Incident]] = {}  # when to count, and the incident as it was last seen
        self._pinned: set[str] = set()
        self._over: list[str] = []
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="shieldd-custody", daemon=True)

    def restoring(
        self, notice: Notice, quarantine: Quarantine, known: Callable[[GuardedTree, bytes], None]
    ) -> Restorer | None:
        """What brings files back, None where nothing is kept; runs that a crash cut off are told."""
        if self.keeper is None:
            return None
        store = self._store
        ledger: Ledger = store
        self.restorer = Restorer(
            self._trees,
            VaultVersions(self.keeper, self._trees),
            store.restores,
            store.restores,
            ledger,
            notice,
            quarantine,
            known=known,
        )
        cut_off = ", ".join(sorted({plan.threat_id for plan in store.restores.unfinished()}))
        if cut_off:
            text = f"a restore was cut off; shieldctl restore run goes on with it: {cut_off}"
            self._troubles.hold("restore.unfinished", text)
        return self.restorer

    def start(self, counted: Callable[[str, int, int], None]) -> None:
        """Begin to keep versions.

        Args:
            counted: told of how many destroyed files of an incident have a version and how many have none.
        """
        if self.keeper is None:
            return
        self._counted = counted
        self.keeper.start()
        self._thread.start()

    def note(self, batch: Batch) -> None:
        """What happened; never blocks, never raises."""
        if self.keeper is not None:
            self.keeper.note(batch)

    def follow(self, incident: Incident) -> None:
        """An incident opened or grew: what it needs is held, and soon it is counted what can come back."""
        if self.keeper is None or not _destroys(incident):
            return
        with self._wake:
            known = self._due.get(incident.id)
            self._due[incident.id] = (known[0] if known else time.monotonic() + TALLY_S, incident)
            if known is None:
                self._wake.notify()

    def resolved(self, incident_id: str) -> None:
        """An incident is over: its versions age like any."""
        with self._wake:
            self._over.append(incident_id)
            self._wake.notify()

    def made(self, tree: GuardedTree, path: bytes) -> None:
        """We made a file, of which no watcher tells; never blocks, never raises."""
        if self.keeper is not None:
            self.keeper.made(tree.index, path)

    def sealed(self, tree: GuardedTree, paths: Sequence[bytes]) -> None:
        """Files were sealed or taken away: no link to their content in the clear stays."""
        if self.keeper is not None:
            self.keeper.sealed(tree.index, paths)

    def holds(self, tree: GuardedTree, path: bytes) -> bool:
        """Whether a path of a tree lies in a vault."""
        full = tree.absolute(path)
        held = self.keeper.held if self.keeper is not None else ()
        return any(x.inside and (full == x.path or full.startswith(x.path + b"/")) for x in held)

    def status(self) -> tuple[Preserving, ...]:
        """How the vaults stand."""
        return self.keeper.status() if self.keeper is not None else ()

    @property
    def refused(self) -> Mapping[int, ShieldError]:
        """Trees that have no vault, and why."""
        return self.keeper.refused if self.keeper is not None else {}

    def look(self) -> None:
        """Say what does not work at this moment, and take back what does by now; about once a second."""
        now = self.keeper.troubles() if self.keeper is not None else {}
        for code, text in now.items():
            self._troubles.hold(code, text)
        for code in self._said - now.keys():
            self._troubles.clear(code)
        self._said = set(now)

    def close(self) -> None:
        """Stop, write out what waits, close the vaults."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        if self.keeper is not None:
            self.keeper.close()

    def _run(self) -> None:
        self._after_restart()
        while True:
            with self._wake:
                if not (self._stop or self._over or self._unpinned()):
                    self._wake.wait(self._patience())
                if self._stop:
                    return
                over, self._over = self._over, []
                fresh = self._unpinned()
                now = time.monotonic()
                ripe = [self._due.pop(name)[1] for name, (due, _) in list(self._due.items()) if due <= now]
            for incident in fresh:
                self._pin(incident)
            for incident in ripe:
                self._tally(incident)
            for incident_id in over:
                self._unpin(incident_id)

    def _unpinned(self) -> list[Incident]:
        return [incident for name, (_, incident) in self._due.items() if name not in self._pinned]

    def _patience(self) -> float | None:
        return max(0.0, min(due for due, _ in self._due.values()) - time.monotonic()) if self._due else None

    def _pin(self, incident: Incident) -> None:
        self._pinned.add(incident.id)
        assert self.keeper is not None
        actor = incident.actor_id if incident.actor_id & ATTRIBUTED else 0
        try:
            self.keeper.pin(incident.id, actor, incident.first_event_at_ns)
        except ShieldError as error:
            self._troubles.hold(error.code, f"an incident's versions may go with their age: {error.message}")

    def _unpin(self, incident_id: str) -> None:
        self._pinned.discard(incident_id)
        assert self.keeper is not None
        with self._wake:
            waiting = self._due.pop(incident_id, None)
        if waiting is not None:  # the last word on it, before its versions may go
            self._tally(waiting[1], self._recount)
        try:
            self.keeper.unpin(incident_id)
        except ShieldError as error:
            self._troubles.hold(error.code, f"versions of an incident that is over are still held: {error.message}")

    def _tally(self, incident: Incident, told: Callable[[str, int, int], None] | None = None) -> None:
        """Count what can come back; where the incident grew meanwhile, once more and not too soon."""
        assert self.keeper is not None and self.restorer is not None
        began = time.monotonic()
        try:
            self._store.flush()  # the latest events are on their way to the store
            self.keeper.settled(SETTLE_S)
            found = self.restorer.tally(incident)
        except ShieldError as error:
            log.warning("what can come back was not counted", threat=incident.id, code=error.code)
            return
        (told or self._counted)(incident.id, found.kept, found.lost)
        next_at = time.monotonic() + max(TALLY_S, PACE * (time.monotonic() - began))
        with self._wake:
            if incident.id in self._due:
                self._due[incident.id] = (next_at, self._due[incident.id][1])

    def _after_restart(self) -> None:
        """Hold and count what was open when the daemon ended; let go what a person closed since."""
        if self.keeper is None or not self.keeper.held:
            return
        try:
            found = self._store.incidents(IncidentFilter(limit=AGAIN)).items
        except ShieldError as error:
            log.warning("open incidents were not counted again", code=error.code)
            return
        pins = any(held.vault.status().pins for held in self.keeper.held)
        for incident in found:
            if incident.state is State.RESOLVED and pins:
                self._unpin(incident.id)
            elif incident.state is State.OPEN and _destroys(incident) and incident.tree < len(self._trees):
                self._pin(incident)
                self._tally(incident, self._recount)

    def _recount(self, incident_id: str, kept: int, lost: int) -> None:
        """The loop does not know the incidents of earlier runs: they are written here."""
        incident = self._store.incident(incident_id)
        kept = max(kept, incident.files_preserved)
        self._store.save_incident(replace(incident, files_preserved=kept, files_lost=lost))


def _destroys(incident: Incident) -> bool:
    """Whether versions have to do with it at all."""
    return bool(incident.files_lost or incident.files_preserved) or incident.severity >= Severity.HIGH


def _places(config: Config, trees: Trees) -> dict[int, Path]:
    """Directories for the vaults that are not the default, by index of the tree.

    In personal mode there is a directory that is this daemon's alone, and most trees share its mount; else the vault
    lies beside the tree, and only where it cannot as high as we may write.
    """
    named = {index: tree.vault for index, tree in enumerate(config.tree) if tree.vault is not None}
    if config.daemon.mode is not DaemonMode.PERSONAL:
        return named
    beside: dict[int, Path] = {}
    for tree in trees:
        above = Path(os.fsdecode(tree.root)).parent
        try:
            mount = _mount(tree.root)
            if _mount(os.fsencode(config.daemon.state_dir)) == mount:
                beside[tree.index] = config.daemon.state_dir / VAULT
            elif _mount(os.fsencode(above)) == mount and os.access(above, os.W_OK):
                beside[tree.index] = above / os.fsdecode(VAULT_NAME)
        except OSError as error:
            log.warning("a tree's mount cannot be looked at", reason=os.strerror(error.errno or 0))
    return beside | named


def _mount(path: bytes) -> tuple[int, str]:
    """Device, and the kernel's number of the mount that a path is reached through."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        said = re.search(r"^mnt_id:\s*(\d+)$", Path(f"/proc/self/fdinfo/{fd}").read_text("ascii"), re.MULTILINE)
        return os.fstat(fd).st_dev, said[1] if said else ""
    finally:
        os.close(fd)


def _beneath(tree: GuardedTree, vault: bytes) -> tuple[bytes, ...]:
    """The glob that leaves a vault out of a tree; none where it does not lie there."""
    root = tree.root.rstrip(b"/") + b"/"
    if not vault.startswith(root):
        return ()
    return (b"/" + re.sub(rb"([\\*?\[])", rb"\\\1", vault[len(root) :]) + b"/",)
