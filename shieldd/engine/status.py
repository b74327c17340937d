"""The daemon's own state: status, health, doctor, metrics."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Final

from shieldd import __version__, holding
from shieldd.api import answers as a
from shieldd.engine.parts import Parts
from shieldd.engine.preserving import preserve_check, preserve_metrics, preserve_status
from shieldd.native._abi import ABI_VERSION
from shieldd.watch import SourceStatus

LOW_SPACE_BYTES: Final = 256 << 20
WATCHES_LIMIT: Final = "/proc/sys/fs/inotify/max_user_watches"
NAMED: Final = "every event names its process"
UNNAMED: Final = "changes are seen when they are done; no process is named or held"


class Status:
    """Answers about the daemon."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def health(self) -> a.HealthAnswer:
        """Cheap state for probes."""
        return a.HealthAnswer(
            self._state(self._parts.source.status()), __version__, os.getpid(), self._parts.started_ns
        )

    def status(self) -> a.StatusAnswer:
        """The whole daemon on one page."""
        parts = self._parts
        config, seen, counts = parts.config, parts.source.status(), parts.store.counts()
        policy = parts.snapshot.policy
        return a.StatusAnswer(
            state=self._state(seen),
            version=__version__,
            abi=str(ABI_VERSION),
            pid=os.getpid(),
            since_ns=parts.started_ns,
            mode=config.daemon.mode.value,
            host_id=config.daemon.host_id,
            state_dir=os.fsencode(config.daemon.state_dir),
            generation=config.generation,
            config_source=os.fsencode(config.source) if config.source else b"",
            trees=tuple(
                a.TreeStatus(tree.root, section.mode.value, parts.canaries_in(tree.index))
                for tree, section in zip(parts.trees, config.tree, strict=False)
            ),
            watch=a.WatchStatus(
                backend=seen.backend,
                attribution=seen.attribution,
                means=_means(parts, seen),
                watches=seen.watches,
                directories=seen.directories,
                events=seen.events,
                merged=seen.merged,
                overflows=seen.overflows,
                lost=seen.events_lost,
                watch_failures=seen.watch_failures,
                rescans=seen.rescans,
                queue_depth=seen.queue_depth,
                blind_since_ns=seen.blind_since_ns or 0,
                not_covered=tuple(a.NotCovered(path, reason) for path, reason in seen.not_covered),
                hold=_hold(parts),
            ),
            preserve=preserve_status(parts),
            policy=a.PolicyStatus(
                policy.state,
                policy.policy.version if policy.policy else "",
                policy.policy.sha256.hex() if policy.policy else "",
                policy.reason,
            ),
            keys=_keys_word(parts),
            counts=a.Counts(counts.incidents_open, counts.incidents, counts.sealed, counts.quarantined, counts.events),
            troubles=parts.troubles.now(),
        )

    def doctor(self) -> a.Checks:
        """Everything that commonly goes wrong, each with the next command."""
        parts = self._parts
        seen = parts.source.status()
        writer = parts.store.status()
        policy = parts.snapshot.policy
        free = shutil.disk_usage(parts.config.daemon.state_dir).free
        allowed = _number(WATCHES_LIMIT)
        p50, p99 = parts.pipeline.counters.quantiles_ms()
        kept, kept_words, kept_hint = preserve_check(parts)
        checks = [
            _check("watch", seen.blind_since_ns is None, f"{seen.backend}: {_means(parts, seen)}",
                   "shieldctl status shows where and since when; the rescan ends it"),
            _check("hold", parts.holding.opens is None or _hold(parts).running, holding.words(parts.holding),
                   "shieldctl status says since when; it is tried again by itself"),
            _check("watch limit", seen.watches < allowed * 0.8 if allowed else True,
                   f"{seen.watches} of {allowed} watches in use", "sysctl fs.inotify.max_user_watches=524288",
                   warn=True),
            _check("coverage", not seen.not_covered, f"{len(seen.not_covered)} places inside the trees are not watched",
                   "shieldctl status lists them with the reason", warn=True),
            _check("policy", policy.state == "active", policy.reason or f"{policy.state}", "shieldctl policy show",
                   warn=policy.state == "off"),
            _check("keys", _keys_word(parts) == "ready", _keys_word(parts), "shieldctl keys list"),
            _check("keys in memory", parts.keys.native.locked, "key pages are kept out of swap"
                   if parts.keys.native.locked else "RLIMIT_MEMLOCK is too small, keys could be swapped out",
                   "raise LimitMEMLOCK, or encrypt swap", warn=True),
            _check("store", not (writer.full or writer.damaged or writer.dropped or writer.failed),
                   f"{writer.dropped + writer.failed} events not recorded",
                   "free space on the state directory's file system"),
            _check("state space", free > LOW_SPACE_BYTES, f"{free >> 20} MiB free", "free space there", warn=True),
            _check("survey", parts.survey is None or parts.survey.done, _survey_words(parts),
                   "wait until every file is known: shieldctl doctor", warn=True),
            _check("versions", kept, kept_words, kept_hint, warn=True),
            _check("scan", not parts.lookout.failures,
                   f"{parts.lookout.scanned} scanned, {parts.lookout.unscanned} not"
                   f" ({parts.lookout.partial} of them as far as the limit),"
                   f" {parts.lookout.failures} failed", "journalctl -u shieldd", warn=True),
            _check("acts", not parts.acts.failures, f"{parts.acts.done} done, {parts.acts.failures} failed",
                   "shieldctl threats list", warn=True),
            _check("decision time", p99 < 1000, f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", "shieldctl status", warn=True),
        ]  # fmt: skip
        return a.Checks(tuple(checks))

    def metrics(self) -> Sequence[a.Metric]:
        """Numbers for Prometheus; no names of files or people."""
        parts = self._parts
        seen, writer, counters = parts.source.status(), parts.store.status(), parts.pipeline.counters
        p50, p99 = counters.quantiles_ms()
        one, held = _metric, _hold(parts)
        decisions = tuple(
            a.Sample({"action": action.name.lower()}, float(n)) for action, n in counters.decisions.items()
        )
        latency = (a.Sample({"quantile": "0.5"}, p50 / 1000), a.Sample({"quantile": "0.99"}, p99 / 1000))
        gauge, counter = a.MetricKind.GAUGE, a.MetricKind.COUNTER
        return (
            one("shieldd_up_since_seconds", gauge, "start of the daemon, unix time", parts.started_ns / 1e9),
            one("shieldd_kernel_events_total", counter, "events read from the kernel", seen.events),
            one("shieldd_events_total", counter, "coalesced events decided on", counters.events),
            one("shieldd_events_lost_total", counter, "events that the kernel or the source lost", seen.events_lost),
            one("shieldd_queue_overflows_total", counter, "overflows of the kernel's queue", seen.overflows),
            one("shieldd_rescans_total", counter, "rescans that ended", seen.rescans),
            one("shieldd_watches", gauge, "directories watched", seen.watches),
            one("shieldd_watch_failures_total", counter, "directories that could not be watched", seen.watch_failures),
            one("shieldd_blind", gauge, "1 while something may be missed", float(seen.blind_since_ns is not None)),
            one("shieldd_holding", gauge, "1 while writers are held until versions are made", float(held.running)),
            one("shieldd_held_opens_total", counter, "opens that waited", held.held),
            one("shieldd_denied_opens_total", counter, "opens of contained actors that were refused", held.denied),
            one("shieldd_unpreserved_opens_total", counter, "writers that went on without a version", held.lost),
            one("shieldd_longest_hold_seconds", gauge, "longest wait of an opener", held.longest_us / 1e6),
            a.Metric("shieldd_decisions_total", counter, "decisions by action", decisions),
            a.Metric("shieldd_decision_seconds", gauge, "time from event to decision, newest 8192", latency),
            one(
                "shieldd_policy_failures_total", counter, "batches decided without the policy", counters.policy_failures
            ),
            one("shieldd_acts_failed_total", counter, "acts that failed", parts.acts.failures),
            one("shieldd_acts_waiting", gauge, "acts queued or in hand", parts.acts.waiting()),
            one("shieldd_surveyed_files", gauge, "files known from before", parts.survey.files if parts.survey else 0),
            one("shieldd_scanned_total", counter, "files scanned for signatures", parts.lookout.scanned),
            one("shieldd_unscanned_total", counter, "files that were not scanned whole", parts.lookout.unscanned),
            one("shieldd_partly_scanned_total", counter, "of them: scanned up to the limit", parts.lookout.partial),
            one("shieldd_records_dropped_total", counter, "events not recorded", writer.dropped + writer.failed),
            one("shieldd_alerts_dropped_total", counter, "alerts only counted", parts.streams.alerts_dropped),
            *preserve_metrics(parts),
            one("shieldd_troubles", gauge, "troubles shown by status", len(parts.troubles.now())),
        )

    def _state(self, seen: SourceStatus) -> a.Health:
        parts = self._parts
        if parts.stopping:
            return a.Health.STOPPING
        if not parts.ready:
            return a.Health.STARTING
        if seen.blind_since_ns is not None:
            return a.Health.BLIND
        return a.Health.DEGRADED if parts.troubles.now() else a.Health.READY


def _means(parts: Parts, seen: SourceStatus) -> str:
    """What the source of events can do here, and why it is not the one that can do more."""
    if seen.attribution:
        return NAMED
    return f"{UNNAMED} ({parts.why_no_fanotify})" if parts.why_no_fanotify else UNNAMED


def _hold(parts: Parts) -> a.HoldState:
    """How held opens stand; all counters zero where nobody is held."""
    now = parts.holding.status()
    counts = now.counts if now is not None else None
    return a.HoldState(
        running=now is not None and now.running,
        means=holding.words(parts.holding),
        since_ns=parts.holding.since_ns,
        restarts=now.restarts if now is not None else 0,
        kills=now.kills if now is not None else 0,
        held=counts.held if counts else 0,
        denied=counts.denials if counts else 0,
        preserved=counts.preserved if counts else 0,
        lost=counts.lost_full + counts.lost_late + counts.lost_failed + counts.let_go if counts else 0,
        longest_us=counts.longest_ns // 1000 if counts else 0,
        not_covered=holding.uncovered(parts.holding),
    )


def _survey_words(parts: Parts) -> str:
    if parts.survey is None:
        return "off"
    seen = parts.survey
    words = f"{seen.files} files known from before, {seen.changed} changed while nobody watched"
    return words if seen.done else f"{words}; still looking"


def _keys_word(parts: Parts) -> str:
    return "ready" if parts.keys.provider_state().ready else "locked"


def _check(name: str, good: bool, detail: str, hint: str, *, warn: bool = False) -> a.Check:
    if good:
        return a.Check(name, a.CheckState.OK, detail, "")
    return a.Check(name, a.CheckState.WARN if warn else a.CheckState.FAIL, detail, hint)


def _metric(name: str, kind: a.MetricKind, text: str, value: float) -> a.Metric:
    return a.Metric(name, kind, text, (a.Sample({}, float(value)),))


def _number(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
