"""Every call of the API, declared once: method, path, permission (no default), request, answer, what it does.

The server serves this table and nothing else, `/openapi.json` is made from it, and the tests walk it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.access import Permission
from shieldd.api.engine import Caller, Engine


class Shape(Enum):
    """How the answer travels."""

    JSON = auto()  # one value
    ACTION = auto()  # NDJSON: `begun`, a `file` each, `end`; or `problem`
    FOLLOW = auto()  # NDJSON without end: records, `missed`, `alive`
    CONTENT = auto()  # bytes of a file
    METRICS = auto()  # Prometheus text
    OPENAPI = auto()  # the description of this table


@dataclass(frozen=True, slots=True)
class Route:
    """One call. `call` gets engine, caller and the validated request; it runs on a worker thread."""

    method: str
    path: str
    permission: Permission
    request: type[r.Request]
    answer: type | None
    summary: str
    call: Callable[[Engine, Caller, Any], object]
    shape: Shape = Shape.JSON


GET, POST = "GET", "POST"
P = Permission
ROUTES: Final[tuple[Route, ...]] = (
    Route(GET, "/openapi.json", P.STATUS_READ, r.Empty, None, "This description", lambda e, c, q: None, Shape.OPENAPI),
    Route(GET, "/metrics", P.STATUS_READ, r.Empty, None, "Metrics", lambda e, c, q: e.metrics(), Shape.METRICS),
    Route(GET, "/v1/health", P.STATUS_READ, r.Empty, a.HealthAnswer, "Is it there", lambda e, c, q: e.health()),
    Route(GET, "/v1/status", P.STATUS_READ, r.Empty, a.StatusAnswer, "All on one page", lambda e, c, q: e.status()),
    Route(GET, "/v1/doctor", P.STATUS_READ, r.Empty, a.Checks, "Check the installation", lambda e, c, q: e.doctor()),
    # what happened
    Route(GET, "/v1/events", P.EVENTS_READ, r.EventsQuery, a.Events, "Events", lambda e, c, q: e.events(q)),
    Route(
        GET,
        "/v1/events/stream",
        P.EVENTS_READ,
        r.EventsQuery,
        a.EventRecord,
        "The latest events, then each as it happens",
        lambda e, c, q: e.events(q),
        Shape.FOLLOW,
    ),
    Route(GET, "/v1/alerts", P.EVENTS_READ, r.AlertsQuery, a.Alerts, "Alerts", lambda e, c, q: e.alerts(q)),
    Route(
        GET,
        "/v1/alerts/stream",
        P.EVENTS_READ,
        r.AlertsQuery,
        a.Alert,
        "The latest alerts, then each as it is raised",
        lambda e, c, q: e.alerts(q),
        Shape.FOLLOW,
    ),
    # threats
    Route(GET, "/v1/threats", P.THREATS_READ, r.ThreatsQuery, a.Threats, "Threats", lambda e, c, q: e.threats(q)),
    Route(GET, "/v1/threats/{id}", P.THREATS_READ, r.ById, a.Threat, "One threat", lambda e, c, q: e.threat(q)),
    Route(GET, "/v1/threats/{id}/explain", P.THREATS_READ, r.ById, a.Explanation, "Why", lambda e, c, q: e.explain(q)),
    Route(
        POST,
        "/v1/threats/{id}/resolve",
        P.THREATS_RESOLVE,
        r.Resolve,
        a.Threat,
        "Close a threat with a verdict",
        lambda e, c, q: e.resolve(c, q),
    ),
    Route(
        POST,
        "/v1/threats/{id}/release",
        P.THREATS_RELEASE,
        r.Release,
        a.Containment,
        "Let the processes that are held go on",
        lambda e, c, q: e.release(c, q),
    ),
    Route(
        POST,
        "/v1/threats/{id}/kill",
        P.THREATS_KILL,
        r.Kill,
        a.Containment,
        "End the processes of a threat for good",
        lambda e, c, q: e.kill(c, q),
    ),
    Route(
        POST,
        "/v1/threats/analyze",
        P.THREATS_ANALYZE,
        r.Paths,
        a.Analyses,
        "Look at files as they lie there",
        lambda e, c, q: e.analyze(c, q),
    ),
    # sealed files
    Route(GET, "/v1/files", P.FILES_READ, r.FilesQuery, a.SealedFiles, "Sealed files", lambda e, c, q: e.files(q)),
    Route(
        POST,
        "/v1/files/status",
        P.FILES_READ,
        r.FilesStatus,
        a.FileStatuses,
        "State of files",
        lambda e, c, q: e.files_status(q),
    ),
    Route(
        POST,
        "/v1/files/verify",
        P.FILES_VERIFY,
        r.VerifyFiles,
        a.FileDone,
        "Check every byte of sealed files",
        lambda e, c, q: e.files_verify(q),
        Shape.ACTION,
    ),
    Route(
        POST,
        "/v1/files/seal",
        P.FILES_SEAL,
        r.SealFiles,
        a.FileDone,
        "Seal files",
        lambda e, c, q: e.files_seal(c, q),
        Shape.ACTION,
    ),
    Route(
        POST,
        "/v1/files/open",
        P.FILES_OPEN,
        r.OpenFiles,
        a.FileDone,
        "Open sealed files",
        lambda e, c, q: e.files_open(c, q),
        Shape.ACTION,
    ),
    # the only call with a third argument of its own (the pipe), so the server makes it, not the table
    Route(
        POST,
        "/v1/files/cat",
        P.FILES_CONTENT,
        r.OnePath,
        None,
        "Verified content of a sealed file",
        lambda e, c, q: None,
        Shape.CONTENT,
    ),
    # quarantine
    Route(
        GET,
        "/v1/quarantine",
        P.QUARANTINE_READ,
        r.QuarantineQuery,
        a.QuarantineItems,
        "Objects in quarantine",
        lambda e, c, q: e.quarantine(q),
    ),
    Route(
        GET,
        "/v1/quarantine/{id}",
        P.QUARANTINE_READ,
        r.ById,
        a.QuarantineItem,
        "One object",
        lambda e, c, q: e.quarantine_show(q),
    ),
    Route(
        POST,
        "/v1/quarantine/add",
        P.QUARANTINE_ADD,
        r.QuarantineAdd,
        a.FileDone,
        "Put files into quarantine",
        lambda e, c, q: e.quarantine_add(c, q),
        Shape.ACTION,
    ),
    Route(
        POST,
        "/v1/quarantine/{id}/restore",
        P.QUARANTINE_RESTORE,
        r.QuarantineRestore,
        a.FileDone,
        "Bring an object back",
        lambda e, c, q: e.quarantine_restore(c, q),
    ),
    Route(
        POST,
        "/v1/quarantine/{id}/purge",
        P.QUARANTINE_PURGE,
        r.QuarantinePurge,
        a.FileDone,
        "Destroy an object for good",
        lambda e, c, q: e.quarantine_purge(c, q),
    ),
    # bringing files back
    Route(
        GET,
        "/v1/restore",
        P.RESTORE_READ,
        r.RestorePlansQuery,
        a.RestorePlans,
        "Plans to bring files back",
        lambda e, c, q: e.restore_plans(q),
    ),
    Route(
        POST,
        "/v1/restore/plan",
        P.RESTORE_PLAN,
        r.ById,
        a.RestorePlan,
        "Plan what an incident's actor touched",
        lambda e, c, q: e.restore_plan(c, q),
    ),
    Route(
        POST,
        "/v1/restore/run",
        P.RESTORE_RUN,
        r.RestoreRun,
        a.FileDone,
        "Bring back what an incident's actor touched",
        lambda e, c, q: e.restore_run(c, q),
        Shape.ACTION,
    ),
    Route(
        GET,
        "/v1/restore/{id}",
        P.RESTORE_READ,
        r.ById,
        a.RestorePlan,
        "How a plan stands",
        lambda e, c, q: e.restore_status(q),
    ),
    Route(
        GET,
        "/v1/restore/{id}/steps",
        P.RESTORE_READ,
        r.RestoreStepsQuery,
        a.RestoreSteps,
        "Steps of a plan",
        lambda e, c, q: e.restore_steps(q),
    ),
    Route(
        GET,
        "/v1/versions",
        P.VERSIONS_READ,
        r.VersionsQuery,
        a.VersionInfos,
        "Preserved versions of a file",
        lambda e, c, q: e.file_versions(q),
    ),
    Route(
        POST,
        "/v1/versions/restore",
        P.VERSIONS_RESTORE,
        r.VersionsRestore,
        a.FileDone,
        "Bring a file back as it was",
        lambda e, c, q: e.file_version_restore(c, q),
    ),
    # keys
    Route(GET, "/v1/keys", P.KEYS_READ, r.Empty, a.Keys, "Key versions", lambda e, c, q: e.keys()),
    Route(
        GET, "/v1/keys/providers", P.KEYS_READ, r.Empty, a.Providers, "Key providers", lambda e, c, q: e.key_providers()
    ),
    Route(
        POST,
        "/v1/keys/rotate",
        P.KEYS_ROTATE,
        r.KeysRotate,
        a.Rotated,
        "New key versions",
        lambda e, c, q: e.keys_rotate(c, q),
    ),
    Route(
        POST,
        "/v1/keys/rewrap",
        P.KEYS_ROTATE,
        r.KeysRewrap,
        a.FileDone,
        "Re-wrap headers under the active version",
        lambda e, c, q: e.keys_rewrap(c, q),
        Shape.ACTION,
    ),
    # policy and configuration
    Route(GET, "/v1/policy", P.POLICY_READ, r.Empty, a.PolicyAnswer, "The policy", lambda e, c, q: e.policy()),
    Route(
        POST,
        "/v1/policy/evaluate",
        P.POLICY_EVALUATE,
        r.PolicyEvaluate,
        a.PolicyEvaluation,
        "Run the policy over a trace",
        lambda e, c, q: e.policy_evaluate(c, q),
    ),
    Route(GET, "/v1/config", P.CONFIG_READ, r.Empty, a.ConfigAnswer, "The configuration", lambda e, c, q: e.config()),
    Route(
        POST,
        "/v1/config/check",
        P.CONFIG_READ,
        r.Empty,
        a.ConfigCheck,
        "What a reload would say",
        lambda e, c, q: e.config_check(),
    ),
)
