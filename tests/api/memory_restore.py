"""The part of the engine in memory that brings files back: one incident with one plan, one file with two versions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller, LongAction
from shieldd.errors import ShieldError
from shieldd.model.decision import Outcome
from shieldd.model.restore import Act, Conflict, Found, PlanState

T0_NS = 1_763_730_000_123_000_000
ODD = b"/srv/phi/a\nb\x1b[31m[red]\xff.dcm"
INCIDENT = "i1a2b3c4d5e6"


def _step(number: int, name: bytes, act: Act, **changes: object) -> a.RestoreStep:
    base = a.RestoreStep(
        number=number,
        path=b"/srv/phi/" + name,
        act=act,
        found=Found.CHANGED,
        conflict=Conflict.NONE,
        lost=False,
        version_at_ns=T0_NS,
        size=40,
        other=b"",
        text="the version of before takes its place; what is there is preserved",
        outcome=Outcome.PENDING,
        code="",
        reason="",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def steps() -> list[a.RestoreStep]:
    """One of each kind."""
    return [
        _step(0, b"scan.dcm", Act.COPY),
        _step(1, ODD[9:], Act.LINK, found=Found.MISSING, text="is gone; the version of before comes back"),
        _step(
            2,
            b"report.odt",
            Act.COPY,
            conflict=Conflict.CHANGED_SINCE,
            text="changed by somebody else since; left alone unless asked for by name",
        ),
        _step(
            3,
            b"README.txt",
            Act.QUARANTINE,
            version_at_ns=0,
            size=-1,
            text="made by the actor; goes to quarantine",
        ),
        _step(4, b"gone.csv", Act.NOTHING, lost=True, found=Found.MISSING, version_at_ns=0, size=-1, text="lost"),
    ]


class MemoryRestore:
    """Implements the restore part of `Engine`."""

    def __init__(self) -> None:
        self.plan_state = PlanState.PLANNED
        self.steps = steps()
        self.taken: tuple[bytes, ...] = ()

    def _plan(self) -> a.RestorePlan:
        done = [step.outcome for step in self.steps]
        return a.RestorePlan(
            id="p00000000001",
            threat_id=INCIDENT,
            tree=b"/srv/phi",
            made_at_ns=T0_NS,
            ended_at_ns=T0_NS if self.plan_state is PlanState.DONE else 0,
            state=self.plan_state,
            attributed=True,
            steps=len(self.steps),
            back=2,
            away=1,
            conflicts=1,
            lost=1,
            unchanged=0,
            done=done.count(Outcome.DONE),
            failed=done.count(Outcome.FAILED),
            skipped=done.count(Outcome.SKIPPED),
            pending=done.count(Outcome.PENDING),
        )

    def restore_plans(self, query: r.RestorePlansQuery) -> a.RestorePlans:
        if query.threat is not None and not INCIDENT.startswith(query.threat):
            raise ShieldError("api.not-found")
        return a.RestorePlans((self._plan(),) if query.threat or self.plan_state is PlanState.RUNNING else ())

    def restore_plan(self, caller: Caller, request: r.ById) -> a.RestorePlan:
        if not INCIDENT.startswith(request.id):
            raise ShieldError("api.not-found")
        return self._plan()

    def restore_status(self, request: r.ById) -> a.RestorePlan:
        if not "p00000000001".startswith(request.id):
            raise ShieldError("api.not-found")
        return self._plan()

    def restore_steps(self, query: r.RestoreStepsQuery) -> a.RestoreSteps:
        self.restore_status(r.ById(id=query.id))
        left = [step for step in self.steps if step.number > query.after]
        return a.RestoreSteps(tuple(left[: query.limit]), len(left) > query.limit)

    def restore_run(self, caller: Caller, request: r.RestoreRun) -> LongAction:
        if not INCIDENT.startswith(request.id):
            raise ShieldError("api.not-found")
        if request.plan is not None:
            self.restore_status(r.ById(id=request.plan))
        if self.plan_state is PlanState.DONE:
            raise ShieldError("restore.done")
        self.taken = request.take
        return self._go(dry_run=request.dry_run)

    def _go(self, *, dry_run: bool) -> Iterator[a.Begun | a.FileDone]:
        yield a.Begun(len(self.steps))
        for step in self.steps:
            stands = step.conflict is not Conflict.NONE and step.path not in self.taken
            outcome = Outcome.SKIPPED if stands or step.act is Act.NOTHING else Outcome.DONE
            if dry_run and outcome is Outcome.DONE:
                outcome = Outcome.PENDING
            reason = step.text if outcome in (Outcome.SKIPPED, Outcome.PENDING) else ""
            if not dry_run:
                self.steps[step.number] = replace(step, outcome=outcome, reason=reason)
            to = step.path if outcome is Outcome.DONE and step.act is not Act.QUARANTINE else b""
            yield a.FileDone(step.path, outcome, to, "", max(step.size, 0), "", reason)
        if not dry_run:
            self.plan_state = PlanState.DONE

    def _versions(self, path: bytes) -> list[a.VersionInfo]:
        if not path.startswith(b"/srv/phi/"):
            raise ShieldError("file.outside", path=path)
        if path not in (b"/srv/phi/scan.dcm", ODD):
            return []
        base = a.VersionInfo(
            id="0000000100000001",
            path=path,
            at_ns=T0_NS,
            modified_at_ns=T0_NS - 1_000_000_000,
            kind="image",
            size=40,
            mode=0o640,
            uid=1000,
            gid=1000,
            actor="8000000000000007",
            digest="ab" * 32,
            pinned=True,
            changed=False,
        )
        first = replace(base, id="0000000100000000", at_ns=T0_NS - 10**12, modified_at_ns=T0_NS - 2 * 10**12)
        return [replace(first, kind="link", actor="", digest="", pinned=False, changed=True), base]

    def file_versions(self, query: r.VersionsQuery) -> a.VersionInfos:
        found = self._versions(query.path)
        kept = found[-query.limit :] if query.limit else []
        return a.VersionInfos(tuple(kept), len(found) > len(kept))

    def file_version_restore(self, caller: Caller, request: r.VersionsRestore) -> a.FileDone:
        fitting = [one for one in self._versions(request.path) if one.modified_at_ns <= request.at_ns]
        if not fitting:
            raise ShieldError("restore.none", path=request.path)
        one = fitting[-1]
        to = request.path if request.to is None else os.path.join(request.to, os.path.basename(request.path))
        if request.dry_run:
            return a.FileDone(request.path, Outcome.PENDING, to, one.id, one.size, "", "would be done")
        note = "" if request.to else "what was there is beside it as '/srv/phi/scan.dcm.before-restore'"
        return a.FileDone(request.path, Outcome.DONE, to, one.id, one.size, "", note)
