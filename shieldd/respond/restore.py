"""Restore: every file that an incident's actor touched comes back as it was, and what it planted goes away.

Owns: the plan of an incident, its run, and bringing one version back by hand. Does not own: the versions (the vault's),
the history and the journal (the store's). Nothing that somebody else changed since is overwritten unless it is named.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind
from shieldd.model.incident import Incident
from shieldd.model.restore import Act, Found, Plan, PlanState, Step, There
from shieldd.model.version import Keep, Version
from shieldd.native import files, restore
from shieldd.native.restore import How, Item, Over
from shieldd.respond import GuardedTree, Ledger, Notice, Trees, announced, announced_to, new_id, recorded, still_there
from shieldd.respond.quarantine import Quarantine, open_directory
from shieldd.respond.restore_choice import at_time, opened
from shieldd.respond.restore_choice import recorded as recorded_in
from shieldd.respond.restore_contract import History, Journal, Versions
from shieldd.respond.restore_look import look
from shieldd.respond.restore_plan import Planner
from shieldd.respond.restore_run import OURS, Run
from shieldd.respond.restore_trails import follow

__all__ = ["History", "Journal", "Restorer", "Versions"]

LEAD_NS: Final = 10_000_000_000  # an actor begins before the first of its acts stands out
TAIL_NS: Final = 1_000_000_000  # an incident's time begins and ends so long before and after its events
REPLACED: Final = frozenset({Act.COPY, Act.LINK, Act.TWIN})  # the content of before comes from a version
ATTRIBUTED: Final = 1 << 63  # bit of an actor key that stands for a process, not for a tree


@dataclass(frozen=True, slots=True)
class Brought:
    """One version brought back by hand: where it is, and the name of what was set aside for it (empty for none)."""

    version: Version
    place: bytes
    aside: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """Of the files whose content is gone: how many have a version from before, how many have none."""

    kept: int
    lost: int


class Restorer:
    """Plans and runs. One run at a time; plans at any time, from any thread."""

    def __init__(
        self,
        trees: Trees,
        versions: Versions,
        history: History,
        journal: Journal,
        ledger: Ledger,
        notice: Notice,
        quarantine: Quarantine,
        *,
        known: Callable[[GuardedTree, bytes], None] = lambda tree, path: None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._trees = trees
        self._versions = versions
        self._history = history
        self._journal = journal
        self._ledger = ledger
        self._notice = notice
        self._quarantine = quarantine
        self._known = known
        self._clock_ns = clock_ns
        self._busy = threading.Lock()

    def plan(self, incident: Incident) -> Plan:
        """Look at everything that the incident's actor touched and write down what would be done about it.

        Raises:
            ShieldError: `file.outside` where its tree is not guarded any more, `watch.gone`, `store.*`.
        """
        named, since = _since(incident)
        self._versions.pin(incident.id, incident.actor_id if named else 0, since)
        tree, steps = self._looked_at(incident)
        plan = Plan(new_id("p"), incident.id, tree.index, self._clock_ns(), PlanState.PLANNED, named, len(steps))
        self._journal.begin(plan, steps)
        return plan

    def tally(self, incident: Incident) -> Tally:
        """How much of what an incident's actor destroyed can come back; nothing is written down.

        Raises:
            ShieldError: as `plan`.
        """
        _, steps = self._looked_at(incident)
        return Tally(sum(step.act in REPLACED for step in steps), sum(step.lost for step in steps))

    def _looked_at(self, incident: Incident) -> tuple[GuardedTree, list[Step]]:
        """The tree, and what would be done in it."""
        tree = self._tree(incident.tree)
        still_there(tree)
        (named, since), until = _since(incident), self._clock_ns()
        over = max(self._history.last_of(incident.id), incident.decided_at_ns, incident.contained_at_ns) + TAIL_NS
        touches = self._history.touches(tree.index, since, self._clock_ns() + TAIL_NS)
        if named:
            nobody = (tree.index + 1, incident.first_event_at_ns - TAIL_NS, over)  # a tree's own key
            trails = follow(touches, incident.actor_id, since_ns=since, until_ns=until, unnamed=nobody)
        else:
            until = over
            trails = follow(touches, incident.actor_id, since_ns=since, until_ns=until)
        if named:
            copies = [x for x in self._versions.versions_by(incident.actor_id, since) if x.kind is not Keep.LINK]
            trails.opened([(x.path, x.at_ns) for x in copies if x.tree == tree.index and x.at_ns <= until])
        return tree, Planner(tree, self._versions, self._history, trails).steps()

    def steps(self, plan_id: str, *, after: int = -1, limit: int = 1000) -> Sequence[Step]:
        """Steps of a plan by number."""
        return self._journal.steps(plan_id, after=after, limit=limit)

    def unfinished(self, incident_id: str) -> Plan | None:
        """The plan of an incident that was begun and did not end."""
        running = [plan for plan in self._journal.plans(incident_id) if plan.state is PlanState.RUNNING]
        return running[-1] if running else None

    def run(self, plan: Plan, *, actor: int, why: str, take: Collection[bytes] = ()) -> Iterator[Step]:
        """Do a plan, or go on with it; each step comes out with its result. Closing the iterator stops after a group.

        Args:
            actor: the incident's.
            why: who asked, for the record.
            take: absolute paths of files that come back though somebody else changed what has their name.

        Raises:
            ShieldError: `restore.busy`, `restore.done`, `watch.gone`, `store.*`.
        """
        if plan.state is PlanState.DONE:
            raise ShieldError("restore.done")
        tree = self._tree(plan.tree)
        run = Run(
            plan,
            tree,
            self._versions,
            self._journal,
            self._ledger,
            self._notice,
            self._quarantine,
            actor=actor,
            why=why,
            known=self._known,
        )
        asked = frozenset(take)
        with self._alone():
            yield from run.steps(lambda step: tree.absolute(step.path) in asked)

    def versions_of(self, absolute: bytes) -> Sequence[Version]:
        """All versions of a file, oldest first."""
        tree, path = self._trees.locate(absolute)
        return self._versions.versions_of(tree.index, path)

    def version_at(self, absolute: bytes, at_ns: int) -> Version:
        """The version of a file as it was at a moment; `restore.none` where there is none."""
        found = at_time(self.versions_of(absolute), at_ns)
        if found is None:
            raise ShieldError("restore.none", path=absolute)
        return found

    def bring(self, absolute: bytes, at_ns: int, *, to: bytes | None, why: str) -> Brought:
        """Bring one file back as it was at a moment, to its place or into an existing directory.

        At its place what is there is set aside beside it; in another directory nothing may have its name.

        Raises:
            ShieldError: `restore.none`, `restore.version`, `file.*`.
        """
        tree, path = self._trees.locate(absolute)
        version = self.version_at(absolute, at_ns)
        action = announced(ActionKind.RESTORE, tree, path, threat_id="", reason=f"{why}; as of a moment")
        with self._alone(), recorded(self._ledger, action):
            still_there(tree)
            if to is None:
                return self._in_place(tree, path, version)
            fd = open_directory(to)
            try:
                name = os.path.basename(path)
                self._one(fd, name, version, None)
                return Brought(version, os.path.join(to, name), b"")
            finally:
                os.close(fd)

    def _in_place(self, tree: GuardedTree, path: bytes, version: Version) -> Brought:
        found, there = look(tree.root_fd, path)
        if found is Found.WAY:
            raise ShieldError("file.symlink", path=path)
        with announced_to(self._notice, tree, {path: OURS}):
            aside = self._one(tree.root_fd, path, version, there)
        self._versions.came_back(tree.index, [path])
        self._known(tree, path)
        return Brought(
            version, tree.absolute(path), os.path.join(os.path.dirname(tree.absolute(path)), aside) if aside else b""
        )

    def _one(self, root_fd: int, path: bytes, version: Version, there: There | None) -> bytes:
        with opened(self._versions, version) as fd:
            over = Over.NOTHING if there is None else Over.ASIDE
            wanted = recorded_in(version)
            item = Item(path, How.COPY, over, files.hidden_name(), wanted, there, version_fd=fd)
            (answer,) = restore.run(root_fd, [item])
        if isinstance(answer, ShieldError):
            raise answer
        return answer.aside

    def _tree(self, index: int) -> GuardedTree:
        if not 0 <= index < len(self._trees):
            raise ShieldError("file.outside", "the incident's tree is not guarded any more")
        return self._trees[index]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise ShieldError("restore.busy")
        try:
            yield
        finally:
            self._busy.release()


def _since(incident: Incident) -> tuple[bool, int]:
    """Whether the kernel named the actor, and since when it acted.

    The tree's own key stands for whoever works there: then only the incident's own time counts.
    """
    named = bool(incident.actor_id & ATTRIBUTED)
    return named, incident.first_event_at_ns - (LEAD_NS if named else 0)
