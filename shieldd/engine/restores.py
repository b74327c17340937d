"""Bringing files back, on request: plans, runs, preserved versions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller, LongAction
from shieldd.engine.parts import Parts, who
from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome, Severity
from shieldd.model.restore import Act, Conflict, Plan, Step
from shieldd.model.version import Version
from shieldd.respond.restore import Restorer

BACK = {act.value for act in (Act.COPY, Act.LINK, Act.MOVE, Act.TWIN, Act.DRESS, Act.DIRECTORY)}
PAGE = 1000


class Restores:
    """Answers about restoring."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def plans(self, query: r.RestorePlansQuery) -> a.RestorePlans:
        """Plans of an incident, or those that were cut off."""
        store = self._parts.store
        if query.threat is None:
            return a.RestorePlans(tuple(self._plan(x) for x in store.restores.unfinished()))
        incident = store.incident(query.threat)
        return a.RestorePlans(tuple(self._plan(x) for x in store.restores.plans(incident.id)))

    def plan(self, request: r.ById) -> a.RestorePlan:
        """Make a plan for an incident; one that was begun is not done away with, it stands."""
        return self._plan(self._made(request.id))

    def status(self, request: r.ById) -> a.RestorePlan:
        """How a plan stands."""
        return self._plan(self._parts.store.restores.plan(request.id))

    def steps(self, query: r.RestoreStepsQuery) -> a.RestoreSteps:
        """Steps of a plan."""
        plan = self._parts.store.restores.plan(query.id)
        steps = list(self._parts.store.restores.steps(plan.id, after=query.after, limit=query.limit + 1))
        items = tuple(self._step(x) for x in steps[: query.limit])
        return a.RestoreSteps(items, len(steps) > query.limit)

    def run(self, caller: Caller, request: r.RestoreRun) -> LongAction:
        """Do a plan, go on with one, or say what would be done."""
        store, restorer = self._parts.store, self._restorer()
        incident = store.incident(request.id)
        unfinished = restorer.unfinished(incident.id)
        if request.plan is not None:
            plan = store.restores.plan(request.plan)
            if plan.threat_id != incident.id:
                raise ShieldError("api.not-found", "that plan is of another incident")
        else:
            plan = unfinished or self._made(incident.id)
        taken = frozenset(request.take)
        if request.dry_run:
            yield a.Begun(plan.steps)
            for step in self._all_steps(plan):
                yield self._would(step, taken)
            return
        done = restorer.run(plan, actor=incident.actor_id, why=who(caller, "asked for"), take=taken)
        yield a.Begun(plan.steps)
        yield from (self._file(step) for step in done)
        self._tell(plan)

    def versions(self, query: r.VersionsQuery) -> a.VersionInfos:
        """Preserved versions of a file, oldest first."""
        found = list(self._restorer().versions_of(query.path))
        kept = found[-query.limit :] if query.limit else []
        return a.VersionInfos(tuple(_version(query.path, x) for x in kept), len(found) > len(kept))

    def version_restore(self, caller: Caller, request: r.VersionsRestore) -> a.FileDone:
        """Bring one file back as it was at a moment."""
        restorer = self._restorer()
        version = restorer.version_at(request.path, request.at_ns)
        place = request.path if request.to is None else os.path.join(request.to, os.path.basename(request.path))
        if request.dry_run:
            if request.to is not None and os.path.lexists(place):
                raise ShieldError("file.exists", path=place)
            return a.FileDone(request.path, Outcome.PENDING, place, version.name, version.size, "", "would be done")
        brought = restorer.bring(request.path, request.at_ns, to=request.to, why=who(caller, "asked for"))
        note = f"what was there is beside it as {_shown(brought.aside)}" if brought.aside else ""
        return a.FileDone(request.path, Outcome.DONE, brought.place, version.name, version.size, "", note)

    def _restorer(self) -> Restorer:
        if self._parts.restorer is None:
            raise ShieldError("preserve.off")
        return self._parts.restorer

    def _made(self, threat: str) -> Plan:
        restorer = self._restorer()
        incident = self._parts.store.incident(threat)
        self._parts.store.flush()  # the latest events are on their way to the store
        return restorer.plan(incident)

    def _all_steps(self, plan: Plan) -> Iterator[Step]:
        after = -1
        while page := self._parts.store.restores.steps(plan.id, after=after, limit=PAGE):
            yield from page
            after = page[-1].number

    def _tell(self, plan: Plan) -> None:
        now = self._plan(self._parts.store.restores.plan(plan.id))
        if not self._parts.store.restores.unfinished():
            self._parts.troubles.clear("restore.unfinished")
        text = f"restored: {now.done} done, {now.failed} failed, {now.skipped} left alone, {now.lost} lost"
        severity = Severity.HIGH if now.failed or now.lost else Severity.INFORMATIONAL
        self._parts.store.alert(
            severity, text, at_ns=time.time_ns(), kind=ActionKind.RESTORE, threat_id=plan.threat_id, tree=plan.tree
        )

    def _plan(self, plan: Plan) -> a.RestorePlan:
        counts = self._parts.store.restores.counts(plan.id)

        def total(*, act: set[str] | None = None, free: bool = True, lost: bool = False) -> int:
            return sum(
                n
                for (kind, conflict, gone, _), n in counts.items()
                if (act is None or kind in act) and (not free or not conflict) and gone == lost
            )

        def ended(outcome: Outcome) -> int:
            return sum(n for key, n in counts.items() if key[3] == outcome.value)

        return a.RestorePlan(
            id=plan.id,
            threat_id=plan.threat_id,
            tree=self._parts.store.roots[plan.tree],
            made_at_ns=plan.made_at_ns,
            ended_at_ns=plan.ended_at_ns,
            state=plan.state,
            attributed=plan.attributed,
            steps=plan.steps,
            back=total(act=BACK),
            away=total(act={Act.QUARANTINE.value}),
            conflicts=sum(n for (_, conflict, _, _), n in counts.items() if conflict),
            lost=total(lost=True, free=False),
            unchanged=total(act={Act.NOTHING.value}),
            done=ended(Outcome.DONE),
            failed=ended(Outcome.FAILED),
            skipped=ended(Outcome.SKIPPED),
            pending=ended(Outcome.PENDING),
        )

    def _step(self, x: Step) -> a.RestoreStep:
        root = self._parts.store.roots[x.tree]
        return a.RestoreStep(
            number=x.number,
            path=os.path.join(root, x.path),
            act=x.act,
            found=x.found,
            conflict=x.conflict,
            lost=x.lost,
            version_at_ns=x.at_ns,
            size=x.wanted.size if x.wanted else -1,
            other=os.path.join(root, x.other) if x.other else b"",
            text=x.text,
            outcome=x.outcome,
            code=x.code,
            reason=x.reason,
        )

    def _file(self, x: Step) -> a.FileDone:
        path = os.path.join(self._parts.store.roots[x.tree], x.path)
        size = x.wanted.size if x.wanted else 0
        gone = x.act is Act.QUARANTINE or x.outcome is not Outcome.DONE
        return a.FileDone(path, x.outcome, b"" if gone else path, "", size, x.code, x.reason)

    def _would(self, x: Step, taken: frozenset[bytes]) -> a.FileDone:
        one = self._file(x)
        stands = x.conflict is not Conflict.NONE and (x.conflict is Conflict.WAY or one.path not in taken)
        outcome = Outcome.SKIPPED if x.act is Act.NOTHING or stands else Outcome.PENDING
        return a.FileDone(one.path, outcome, one.to, "", one.size, "", x.text)


def _version(path: bytes, x: Version) -> a.VersionInfo:
    return a.VersionInfo(
        id=x.name,
        path=path,
        at_ns=x.at_ns,
        modified_at_ns=x.mtime_ns,
        kind=x.kind.name.lower(),
        size=x.size,
        mode=x.mode & 0o7777,
        uid=x.uid,
        gid=x.gid,
        actor=f"{x.actor:016x}" if x.actor else "",
        digest=x.digest.hex() if x.digest else "",
        pinned=x.pinned,
        changed=x.changed,
    )


def _shown(path: bytes) -> str:
    return repr(os.fsdecode(path).encode("utf-8", "backslashreplace").decode())
