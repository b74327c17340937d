"""The daemon as its edge sees it: `shieldd.api.engine.Engine`, answered from the running parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller, Cancel, LongAction
from shieldd.engine.files import Files
from shieldd.engine.keyroom import KeyRoom
from shieldd.engine.parts import Parts, Snapshot
from shieldd.engine.policies import config_answer, config_check, evaluate, policy_answer
from shieldd.engine.restores import Restores
from shieldd.engine.status import Status
from shieldd.engine.threats import Threats
from shieldd.engine.vault import Rewrapping, Vault
from shieldd.engine.verification import Verification

__all__ = ["Parts", "RunningEngine", "Snapshot"]


class RunningEngine:
    """Implements the contract of the API; each group of answers has a module of its own."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._status = Status(parts)
        self._threats = Threats(parts)
        self._files = Files(parts)
        self._vault = Vault(parts)
        self._keys = KeyRoom(parts)
        self._rewrapping = Rewrapping(parts)
        self._verification = Verification(parts)
        self._restores = Restores(parts)

    # the daemon itself
    def health(self) -> a.HealthAnswer:
        return self._status.health()

    def status(self) -> a.StatusAnswer:
        return self._status.status()

    def doctor(self) -> a.Checks:
        return self._status.doctor()

    def metrics(self) -> Sequence[a.Metric]:
        return self._status.metrics()

    # what happened
    def events(self, query: r.EventsQuery) -> a.Events:
        return self._threats.events(query)

    def subscribe_events(self, deliver: Callable[[Sequence[a.EventRecord]], None]) -> Cancel:
        return self._parts.streams.subscribe_events(deliver)

    def alerts(self, query: r.AlertsQuery) -> a.Alerts:
        return self._threats.alerts(query)

    def subscribe_alerts(self, deliver: Callable[[Sequence[a.Alert]], None]) -> Cancel:
        return self._parts.streams.subscribe_alerts(deliver)

    # threats
    def threats(self, query: r.ThreatsQuery) -> a.Threats:
        return self._threats.threats(query)

    def threat(self, request: r.ById) -> a.Threat:
        return self._threats.threat(request)

    def explain(self, request: r.ById) -> a.Explanation:
        return self._threats.explain(request)

    def resolve(self, caller: Caller, request: r.Resolve) -> a.Threat:
        return self._threats.resolve(caller, request)

    def release(self, caller: Caller, request: r.Release) -> a.Containment:
        return self._threats.release(caller, request)

    def kill(self, caller: Caller, request: r.Kill) -> a.Containment:
        return self._threats.kill(caller, request)

    def analyze(self, caller: Caller, request: r.Paths) -> a.Analyses:
        return self._threats.analyze(caller, request)

    # sealed files
    def files(self, query: r.FilesQuery) -> a.SealedFiles:
        return self._files.list(query)

    def files_status(self, request: r.FilesStatus) -> a.FileStatuses:
        return self._files.status(request)

    def files_verify(self, request: r.VerifyFiles) -> LongAction:
        return self._verification.run(request)

    def files_seal(self, caller: Caller, request: r.SealFiles) -> LongAction:
        return self._files.seal(caller, request)

    def files_open(self, caller: Caller, request: r.OpenFiles) -> LongAction:
        return self._files.open(caller, request)

    def files_cat(self, caller: Caller, request: r.OnePath, out_fd: int) -> None:
        self._files.cat(caller, request, out_fd)

    # quarantine
    def quarantine(self, query: r.QuarantineQuery) -> a.QuarantineItems:
        return self._vault.list(query)

    def quarantine_show(self, request: r.ById) -> a.QuarantineItem:
        return self._vault.show(request)

    def quarantine_add(self, caller: Caller, request: r.QuarantineAdd) -> LongAction:
        return self._vault.add(caller, request)

    def quarantine_restore(self, caller: Caller, request: r.QuarantineRestore) -> a.FileDone:
        return self._vault.restore(caller, request)

    def quarantine_purge(self, caller: Caller, request: r.QuarantinePurge) -> a.FileDone:
        return self._vault.purge(caller, request)

    # bringing files back
    def restore_plans(self, query: r.RestorePlansQuery) -> a.RestorePlans:
        return self._restores.plans(query)

    def restore_plan(self, caller: Caller, request: r.ById) -> a.RestorePlan:
        return self._restores.plan(request)

    def restore_status(self, request: r.ById) -> a.RestorePlan:
        return self._restores.status(request)

    def restore_steps(self, query: r.RestoreStepsQuery) -> a.RestoreSteps:
        return self._restores.steps(query)

    def restore_run(self, caller: Caller, request: r.RestoreRun) -> LongAction:
        return self._restores.run(caller, request)

    def file_versions(self, query: r.VersionsQuery) -> a.VersionInfos:
        return self._restores.versions(query)

    def file_version_restore(self, caller: Caller, request: r.VersionsRestore) -> a.FileDone:
        return self._restores.version_restore(caller, request)

    # keys
    def keys(self) -> a.Keys:
        return self._keys.list()

    def keys_rotate(self, caller: Caller, request: r.KeysRotate) -> a.Rotated:
        return self._keys.rotate(caller, request)

    def keys_rewrap(self, caller: Caller, request: r.KeysRewrap) -> LongAction:
        return self._rewrapping.run(request)

    def key_providers(self) -> a.Providers:
        return self._keys.providers()

    # policy and configuration
    def policy(self) -> a.PolicyAnswer:
        return policy_answer(self._parts.snapshot.policy)

    def policy_evaluate(self, caller: Caller, request: r.PolicyEvaluate) -> a.PolicyEvaluation:
        return evaluate(self._parts.snapshot.policy, request, self._parts.read_trace)

    def config(self) -> a.ConfigAnswer:
        return config_answer(self._parts.config)

    def config_check(self) -> a.ConfigCheck:
        return config_check(self._parts.config)
