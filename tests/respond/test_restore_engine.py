"""What the daemon answers about restoring: from the incident to the plan, the run, the versions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.encode import dumps
from shieldd.api.engine import Caller
from shieldd.engine.parts import Parts
from shieldd.engine.restores import Restores
from shieldd.engine.troubles import Troubles
from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome
from shieldd.model.restore import PlanState
from shieldd.store import AlertFilter
from tests.respond.restoring import ATTACKER, USER, Scene, scene

__all__ = ["scene"]
ROOT = Caller(0, 0, 1)


@pytest.fixture
def restores(scene: Scene) -> Iterator[Restores]:
    """The answers, over a scene where an attacker was."""
    parts = SimpleNamespace(store=scene.store, restorer=scene.restorer, trees=[scene.tree], troubles=Troubles())
    for name in (b"a.csv", b"b.csv", b"c.csv", b"d\n\xff.csv"):
        scene.create(name, b"data of " + name)
    scene.create(b"never.csv", b"x", preserve=False)
    since = scene.begin()
    scene.write(b"a.csv", b"garbage", ATTACKER)
    scene.delete(b"b.csv", ATTACKER)
    scene.create(b"b.csv", b"typed in by hand", USER)
    scene.delete(b"d\n\xff.csv", ATTACKER)
    scene.create(b"README", b"pay", ATTACKER)
    scene.delete(b"never.csv", ATTACKER)
    scene.store.save_incident(scene.incident(since))
    yield Restores(cast("Parts", parts))


def _files(items: Iterator[a.Begun | a.FileDone]) -> dict[bytes, a.FileDone]:
    (first, *rest) = list(items)
    assert isinstance(first, a.Begun)
    assert first.total == len(rest)
    return {os.path.basename(x.path): x for x in rest if isinstance(x, a.FileDone)}


def test_from_the_plan_to_the_run(scene: Scene, restores: Restores) -> None:
    plan = restores.plan(r.ById(id="inc1"))
    assert (plan.back, plan.away, plan.conflicts, plan.lost, plan.unchanged) == (2, 1, 1, 1, 0)
    assert (plan.state, plan.pending, plan.threat_id) == (PlanState.PLANNED, 5, "inc1")
    steps = restores.steps(r.RestoreStepsQuery(id=plan.id, limit=3))
    rest = restores.steps(r.RestoreStepsQuery(id=plan.id, after=steps.items[-1].number))
    assert (len(steps.items), steps.more, len(rest.items), rest.more) == (3, True, 2, False)
    for step in (*steps.items, *rest.items):
        assert b"\n" not in dumps(step)

    would = _files(restores.run(ROOT, r.RestoreRun(id="inc1", plan=plan.id, dry_run=True)))
    assert would[b"a.csv"].outcome is Outcome.PENDING
    assert would[b"b.csv"].outcome is Outcome.SKIPPED
    assert (scene.root / "a.csv").read_bytes() == b"garbage"

    take = (scene.full(b"b.csv"),)
    done = _files(restores.run(ROOT, r.RestoreRun(id="inc1", plan=plan.id, take=take)))
    assert {name: x.outcome for name, x in done.items()} == {
        b"a.csv": Outcome.DONE,
        b"b.csv": Outcome.DONE,
        b"d\n\xff.csv": Outcome.DONE,
        b"README": Outcome.DONE,
        b"never.csv": Outcome.SKIPPED,
    }
    assert (scene.root / "b.csv.before-restore").read_bytes() == b"typed in by hand"
    now = restores.status(r.ById(id=plan.id))
    assert (now.state, now.done, now.skipped, now.failed) == (PlanState.DONE, 4, 1, 0)
    assert now.ended_at_ns > 0
    (said,) = scene.store.alerts(AlertFilter(limit=10)).items
    assert (said.kind, said.threat_id) == (ActionKind.RESTORE, "inc1")
    assert [x.id for x in restores.plans(r.RestorePlansQuery(threat="inc1")).items] == [plan.id]
    assert restores.plans(r.RestorePlansQuery()).items == ()


def test_a_plan_of_another_incident_is_not_done(scene: Scene, restores: Restores) -> None:
    plan = restores.plan(r.ById(id="inc1"))
    from dataclasses import replace

    scene.store.save_incident(replace(scene.incident(1), id="other"))
    with pytest.raises(ShieldError) as refused:
        list(restores.run(ROOT, r.RestoreRun(id="other", plan=plan.id)))
    assert refused.value.code == "api.not-found"


def test_versions_and_one_of_them_back(scene: Scene, restores: Restores) -> None:
    path = scene.full(b"a.csv")
    found = restores.versions(r.VersionsQuery(path=path))
    assert [x.kind for x in found.items] == ["link", "image"]
    at = found.items[-1].at_ns
    request = r.VersionsRestore(path=path, at_ns=at, dry_run=True)
    assert restores.version_restore(ROOT, request).outcome is Outcome.PENDING
    done = restores.version_restore(ROOT, r.VersionsRestore(path=path, at_ns=at))
    assert (done.outcome, done.to) == (Outcome.DONE, path)
    assert (scene.root / "a.csv").read_bytes() == b"data of a.csv"
    assert (scene.root / "a.csv.before-restore").read_bytes() == b"garbage"
    with pytest.raises(ShieldError) as refused:
        restores.version_restore(ROOT, r.VersionsRestore(path=path, at_ns=1))
    assert refused.value.code == "restore.none"


def test_one_version_into_another_directory(scene: Scene, restores: Restores) -> None:
    to = os.fsencode(scene.root.parent / "elsewhere")
    os.mkdir(to)
    path = scene.full(b"a.csv")
    at = restores.versions(r.VersionsQuery(path=path)).items[-1].at_ns
    done = restores.version_restore(ROOT, r.VersionsRestore(path=path, at_ns=at, to=to))
    assert done.to == os.path.join(to, b"a.csv")
    assert (scene.root / "a.csv").read_bytes() == b"garbage"
    for dry_run in (True, False):
        with pytest.raises(ShieldError) as refused:
            restores.version_restore(ROOT, r.VersionsRestore(path=path, at_ns=at, to=to, dry_run=dry_run))
        assert refused.value.code == "file.exists"


def test_without_a_vault_it_says_so(scene: Scene) -> None:
    parts = SimpleNamespace(store=scene.store, restorer=None, trees=[scene.tree])
    restores = Restores(cast("Parts", parts))
    with pytest.raises(ShieldError) as refused:
        restores.versions(r.VersionsQuery(path=scene.full(b"a.csv")))
    assert refused.value.code == "preserve.off"
