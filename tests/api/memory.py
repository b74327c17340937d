"""An engine in memory: the whole contract of `shieldd.api.engine`, with files that are entries of a dictionary.

Also a program, to look at the command line by hand: `python -m tests.api.memory SOCKET`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller, Cancel, LongAction
from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome, Reason, Severity
from shieldd.model.incident import Judgement, State
from tests.api.memory_restore import MemoryRestore

Reader = Callable[[Sequence[Any]], None]
T0_NS = 1_763_730_000_123_000_000  # 2025-11-21T13:00:00.123Z
TREE = b"/srv/phi"
NASTY = b"/srv/phi/a\nb\x1b[31m[red]\xff\xe2\x80\xae.dcm"


def event(seq: int, path: bytes = b"/srv/phi/scan.dcm", **changes: object) -> a.EventRecord:
    """One event at second `seq`."""
    base = a.EventRecord(
        seq=seq,
        at_ns=T0_NS + seq * 1_000_000_000,
        kind="write",
        tree=TREE,
        path=path,
        from_path=b"",
        pid=-1,
        uid=-1,
        merged=1,
        action="allow",
        severity=Severity.INFORMATIONAL,
        threat_id="",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def alert(seq: int, **changes: object) -> a.Alert:
    """One alert at second `seq`."""
    base = a.Alert(
        seq=seq,
        at_ns=T0_NS + seq * 1_000_000_000,
        severity=Severity.CRITICAL,
        threat_id="i1a2b3c4d5e6",
        kind=ActionKind.CONTAIN,
        path=b"/srv/phi/scan.dcm",
        text="47 files in 2 s lost their type",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def held(threat_id: str, **changes: object) -> a.Containment:
    """Two processes, one of them gone before it could be stopped."""
    base = a.Containment(
        threat_id=threat_id,
        state="held",
        at_ns=T0_NS + 2_000_000,
        changed_at_ns=T0_NS + 4_000_000,
        release_at_ns=0,
        cgroup=b"",
        note="",
        processes=(
            a.HeldProcess(4242, 991_273, b"/usr/bin/openssl", "done", "more than one thread"),
            a.HeldProcess(4243, 991_274, b"", "gone", ""),
        ),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def threat(threat_id: str, **changes: object) -> a.Threat:
    """One threat with one action."""
    action = a.ActionRecord(
        id="a77",
        threat_id=threat_id,
        kind=ActionKind.QUARANTINE,
        path=b"/srv/phi/invoice.exe",
        at_ns=T0_NS + 2_000_000,
        outcome=Outcome.DONE,
        reason="signature EICAR",
        undo="shieldctl quarantine restore q1a2b3c4",
    )
    base = a.Threat(
        id=threat_id,
        opened_at_ns=T0_NS,
        closed_at_ns=0,
        state=State.OPEN,
        severity=Severity.CRITICAL,
        actor=a.ActorInfo(4242, b"/usr/bin/openssl", b"openssl enc -aes-256-cbc", 1000),
        tree=TREE,
        actions=(action,),
        files_touched=3,
        files_preserved=1,
        files_lost=1,
        files_per_s=38.5,
        first_event_at_ns=T0_NS,
        decided_at_ns=T0_NS + 1_500_000,
        held_at_ns=T0_NS + 1_700_000,
        contained_at_ns=T0_NS + 4_000_000,
        containment=held(threat_id),
        reasons=(Reason("entropy_rise_10s", 3.1, "entropy rose by 3.1 bits"),),
        attack=("T1486",),
        verdict=None,
        note="",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


class MemoryEngine(MemoryRestore):
    """Implements `Engine`. Files are `contents`; a sealed one has its name with `.shield`.

    Attributes:
        gate: long actions wait on it before each file, where a test has cleared it.
        finished: files that a long action has finished, as it went.
        closed: set when a long action's iterator was closed early.
        callers: who asked for actions, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.state = a.Health.READY
        self.troubles: tuple[a.Trouble, ...] = ()
        self.checks: tuple[a.Check, ...] = (
            a.Check("core", a.CheckState.OK, "abi 1, all exports found", ""),
            a.Check("keystore", a.CheckState.OK, "ready, 4 keys", ""),
        )
        self.contents: dict[bytes, bytes] = {
            b"/srv/phi/scan.dcm": b"DICM" * 10,
            b"/srv/phi/old.csv.shield": b"name,ssn\n",
            NASTY + b".shield": b"odd name",
            b"/srv/phi/broken.shield": b"x" * 3_000_000,
            b"/srv/phi/damaged.shield": b"",
        }
        self.quarantined: dict[str, tuple[bytes, bytes]] = {
            "q1a2b3c4": (b"/srv/phi/invoice.exe", b"X5O!"),
            "q1a2b3ff": (NASTY, b"odd"),
        }
        self.threat_list = [
            threat("i1a2b3c4d5e6"),
            threat("i9f8e7d6c5b4", severity=Severity.LOW, actor=None, containment=None),
        ]
        self.event_list = [event(n) for n in range(1, 4)] + [event(4, NASTY, kind="rename", from_path=b"/srv/phi/x")]
        self.alert_list = [alert(1)]
        self.versions = {"files": 1, "quarantine": 1}
        self.event_readers: list[Reader] = []
        self.alert_readers: list[Reader] = []
        self.subscribed = threading.Event()
        self.unsubscribed = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.finished: list[bytes] = []
        self.closed = threading.Event()
        self.callers: list[Caller] = []
        self.fault: Exception | None = None

    # the daemon itself
    def health(self) -> a.HealthAnswer:
        return a.HealthAnswer(self.state, "0.1.0", os.getpid(), T0_NS)

    def status(self) -> a.StatusAnswer:
        if self.fault is not None:
            raise self.fault
        return a.StatusAnswer(
            state=self.state,
            version="0.1.0",
            abi="1",
            pid=os.getpid(),
            since_ns=T0_NS,
            mode="service",
            host_id="pacs-01",
            state_dir=b"/var/lib/shieldd",
            generation=1,
            config_source=b"/etc/shieldd/shieldd.toml",
            trees=(a.TreeStatus(TREE, "act", 6),),
            watch=a.WatchStatus(
                "native",
                False,
                "changes are seen when they are done; no process is named or held",
                *(1200, 1200, 48_211, 9_120, 0, 0, 0, 0, 3, 0),
                (a.NotCovered(b"/srv/phi/nfs", "nfs"),),
                a.HoldState(
                    False,
                    "off: events come from inotify here, which names nobody who could be held",
                    T0_NS,
                    *(0, 0, 0, 0, 0, 0, 0),
                    ("writers are not held; changes are seen after they were made",),
                ),
            ),
            preserve=a.PreserveStatus(
                "on",
                "deleted and replaced files are kept by hard links",
                (a.VaultState(b"/srv/.shieldd-vault", (0,), False, 5012, 4821, 12, 3 << 20, 1, ()),),
            ),
            policy=a.PolicyStatus("active", "2026.11.1", "9f" * 32, ""),
            keys="ready",
            counts=a.Counts(
                sum(one.state is State.OPEN for one in self.threat_list),
                len(self.threat_list),
                sum(name.endswith(b".shield") for name in self.contents),
                len(self.quarantined),
                len(self.event_list),
            ),
            troubles=self.troubles,
        )

    def doctor(self) -> a.Checks:
        return a.Checks(self.checks)

    def metrics(self) -> Sequence[a.Metric]:
        return (a.Metric("shieldd_events_total", a.MetricKind.COUNTER, "events seen", (a.Sample({}, 4),)),)

    # what happened
    def events(self, query: r.EventsQuery) -> a.Events:
        found = [
            one
            for one in self.event_list
            if (query.since_ns is None or one.at_ns >= query.since_ns)
            and (query.until_ns is None or one.at_ns < query.until_ns)
            and (query.after_seq is None or one.seq > query.after_seq)
            and (query.kind is None or one.kind == query.kind)
            and (query.action is None or one.action == query.action)
            and (query.tree is None or one.tree == query.tree)
            and (query.under is None or one.path.startswith(query.under))
        ]
        start = max(0, len(found) - query.limit)
        return a.Events(tuple(found[start:]), start > 0)

    def subscribe_events(self, deliver: Callable[[Sequence[a.EventRecord]], None]) -> Cancel:
        return self._subscribe(self.event_readers, deliver)

    def alerts(self, query: r.AlertsQuery) -> a.Alerts:
        found = [one for one in self.alert_list if one.severity >= query.severity]
        start = max(0, len(found) - query.limit)
        return a.Alerts(tuple(found[start:]), start > 0)

    def subscribe_alerts(self, deliver: Callable[[Sequence[a.Alert]], None]) -> Cancel:
        return self._subscribe(self.alert_readers, deliver)

    def _subscribe(self, readers: list[Reader], deliver: Reader) -> Cancel:
        with self.lock:
            readers.append(deliver)

        def cancel() -> None:
            with self.lock:
                if deliver in readers:
                    readers.remove(deliver)
            self.unsubscribed.set()

        self.subscribed.set()
        return cancel

    def happen(self, *records: a.EventRecord | a.Alert) -> None:
        """Give records to whoever subscribed."""
        with self.lock:
            events, alerts = tuple(self.event_readers), tuple(self.alert_readers)
        for deliver in events:
            deliver([one for one in records if isinstance(one, a.EventRecord)])
        for tell in alerts:
            tell([one for one in records if isinstance(one, a.Alert)])

    # threats
    def threats(self, query: r.ThreatsQuery) -> a.Threats:
        found = [
            one
            for one in self.threat_list
            if one.severity >= query.severity and (query.state is None or one.state.value == query.state)
        ]
        start = max(0, len(found) - query.limit)
        return a.Threats(tuple(found[start:]), start > 0)

    def threat(self, request: r.ById) -> a.Threat:
        return self.threat_list[self._find([one.id for one in self.threat_list], request.id)]

    def explain(self, request: r.ById) -> a.Explanation:
        found = self.threat(request)
        return a.Explanation(
            threat=found,
            summary="47 files in 2 s lost their type; entropy rose by 3.1 bits",
            wanted="contain",
            action="alert",
            rule="observe",
            policy_version="2026.11.1",
            generation=1,
            probabilities={"allow": 0.01, "alert": 0.04, "seal": 0.0, "quarantine": 0.05, "contain": 0.9},
            features=(a.FeatureValue("entropy_rise_10s", 3.1, "bits", 2.4, "entropy of rewritten files rose"),),
            timeline=tuple(self.event_list),
        )

    def resolve(self, caller: Caller, request: r.Resolve) -> a.Threat:
        self.callers.append(caller)
        index = self._find([one.id for one in self.threat_list], request.id)
        self.threat_list[index] = replace(
            self.threat_list[index],
            state=State.RESOLVED,
            verdict=Judgement(request.verdict.value),
            note=request.note,
            closed_at_ns=T0_NS + 9_000_000_000,
        )
        return self.threat_list[index]

    def release(self, caller: Caller, request: r.Release) -> a.Containment:
        return self._end(caller, request.id, "released", f"1 processes go on, 1 had ended ({request.reason})")

    def kill(self, caller: Caller, request: r.Kill) -> a.Containment:
        return self._end(caller, request.id, "killed", f"1 processes ({request.reason})")

    def _end(self, caller: Caller, prefix: str, state: str, note: str) -> a.Containment:
        self.callers.append(caller)
        index = self._find([one.id for one in self.threat_list], prefix)
        now = self.threat_list[index].containment
        if now is None or now.state != "held":
            raise ShieldError("contain.none")
        over = replace(now, state=state, note=note, changed_at_ns=T0_NS + 9_000_000_000)
        self.threat_list[index] = replace(self.threat_list[index], containment=over)
        return over

    def analyze(self, caller: Caller, request: r.Paths) -> a.Analyses:
        self.callers.append(caller)
        return a.Analyses(
            tuple(
                a.Analysis(path, "allow", "", (), (), "")
                if path in self.contents
                else a.Analysis(path, "", "", (), (), "file.missing")
                for path in request.paths
            )
        )

    # sealed files
    def files(self, query: r.FilesQuery) -> a.SealedFiles:
        names = sorted(
            name
            for name in self.contents
            if name.endswith(b".shield")
            and (query.after is None or name > query.after)
            and (query.under is None or name.startswith(query.under))
        )
        items = tuple(
            a.SealedFile(name, name[:-7], len(self.contents[name]), T0_NS, "asked for", 1, "")
            for name in names[: query.limit]
        )
        return a.SealedFiles(items, len(names) > query.limit)

    def files_status(self, request: r.FilesStatus) -> a.FileStatuses:
        return a.FileStatuses(tuple(self._status(path, verify=request.verify) for path in request.paths))

    def _status(self, path: bytes, *, verify: bool) -> a.FileStatus:
        content = self.contents.get(path)
        if content is None:
            state, code = "missing", "file.missing"
        elif not path.endswith(b".shield"):
            state, code = "plain", ""
        elif verify and b"broken" in path:
            state, code = "error", "envelope.chunk"
        else:
            state, code = "sealed", ""
        sealed = state == "sealed"
        return a.FileStatus(
            path=path,
            state=state,
            original=path[:-7] if sealed else b"",
            size=len(content or b""),
            sealed_at_ns=T0_NS if sealed else 0,
            why="asked for" if sealed else "",
            key_id="k1" if sealed else "",
            key_version=1 if sealed else 0,
            suite="aes-256-gcm" if sealed else "",
            digest="",
            verified=(not code) if verify and state != "plain" else None,
            code=code,
            reason="content was tampered with" if code == "envelope.chunk" else "",
        )

    def files_verify(self, request: r.VerifyFiles) -> LongAction:
        paths = request.paths or tuple(sorted(name for name in self.contents if name.endswith(b".shield")))
        return self._run(paths, self._verify_one, dry_run=False)

    def _verify_one(self, path: bytes, dry_run: bool) -> tuple[bytes, str]:
        found = self._status(path, verify=True)
        if found.code:
            raise ShieldError(found.code)
        if found.state != "sealed":
            raise ShieldError("envelope.magic")
        return path, ""

    def files_seal(self, caller: Caller, request: r.SealFiles) -> LongAction:
        return self._each(caller, request.paths, self._seal_one, dry_run=request.dry_run)

    def files_open(self, caller: Caller, request: r.OpenFiles) -> LongAction:
        return self._each(caller, request.paths, self._open_one, dry_run=request.dry_run)

    def _each(
        self, caller: Caller, paths: Sequence[bytes], act: Callable[[bytes, bool], tuple[bytes, str]], *, dry_run: bool
    ) -> LongAction:
        self.callers.append(caller)
        if any(not path.startswith(TREE) for path in paths):
            raise ShieldError("file.outside", path=next(path for path in paths if not path.startswith(TREE)))
        return self._run(paths, act, dry_run=dry_run)

    def _run(
        self, paths: Sequence[bytes], act: Callable[[bytes, bool], tuple[bytes, str]], *, dry_run: bool
    ) -> Iterator[a.Begun | a.FileDone]:
        done = 0
        try:
            yield a.Begun(len(paths))
            for path in paths:
                self.gate.wait(10)
                size = len(self.contents.get(path, b""))
                try:
                    to, object_id = act(path, dry_run)
                except ShieldError as error:
                    outcome = Outcome.SKIPPED if error.code == "envelope.already" else Outcome.FAILED
                    self.finished.append(path)
                    yield a.FileDone(path, outcome, b"", "", size, error.code, error.message)
                else:
                    self.finished.append(path)
                    yield a.FileDone(path, Outcome.PENDING if dry_run else Outcome.DONE, to, object_id, size, "", "")
                done += 1
        finally:
            if done < len(paths):
                self.closed.set()

    def _seal_one(self, path: bytes, dry_run: bool) -> tuple[bytes, str]:
        if path.endswith(b".shield"):
            raise ShieldError("envelope.already")
        if path not in self.contents:
            raise ShieldError("file.missing")
        if not dry_run:
            self.contents[path + b".shield"] = self.contents.pop(path)
        return path + b".shield", ""

    def _open_one(self, path: bytes, dry_run: bool) -> tuple[bytes, str]:
        if path not in self.contents:
            raise ShieldError("file.missing")
        if not path.endswith(b".shield"):
            raise ShieldError("envelope.magic")
        if path[:-7] in self.contents:
            raise ShieldError("file.exists")
        if not dry_run:
            self.contents[path[:-7]] = self.contents.pop(path)
        return path[:-7], ""

    def files_cat(self, caller: Caller, request: r.OnePath, out_fd: int) -> None:
        self.callers.append(caller)
        content = self.contents.get(request.path)
        if content is None:
            raise ShieldError("file.missing", path=request.path)
        if not request.path.endswith(b".shield"):
            raise ShieldError("envelope.magic", path=request.path)
        if b"damaged" in request.path:
            raise ShieldError("envelope.chunk", path=request.path)
        rest = memoryview(content)[: len(content) - (1 if b"broken" in request.path else 0)]
        while rest:
            try:
                rest = rest[os.write(out_fd, rest) :]
            except BrokenPipeError as error:
                self.closed.set()
                raise ShieldError("file.io") from error
        if b"broken" in request.path:
            raise ShieldError("envelope.chunk", path=request.path)

    # quarantine
    def _item(self, object_id: str) -> a.QuarantineItem:
        original, content = self.quarantined[object_id]
        return a.QuarantineItem(
            id=object_id,
            original=original,
            size=len(content),
            at_ns=T0_NS,
            why="signature EICAR",
            threat_id="i1a2b3c4d5e6",
            mode=0o640,
            uid=0,
            gid=0,
            modified_at_ns=T0_NS - 1_000_000,
            digest=hashlib.sha256(content).hexdigest(),
            key_version=1,
        )

    def quarantine(self, query: r.QuarantineQuery) -> a.QuarantineItems:
        ids = sorted(one for one in self.quarantined if query.after is None or one > query.after)
        return a.QuarantineItems(tuple(self._item(one) for one in ids[: query.limit]), len(ids) > query.limit)

    def quarantine_show(self, request: r.ById) -> a.QuarantineItem:
        ids = sorted(self.quarantined)
        return self._item(ids[self._find(ids, request.id)])

    def quarantine_add(self, caller: Caller, request: r.QuarantineAdd) -> LongAction:
        return self._each(caller, request.paths, self._quarantine_one, dry_run=request.dry_run)

    def _quarantine_one(self, path: bytes, dry_run: bool) -> tuple[bytes, str]:
        if path not in self.contents:
            raise ShieldError("file.missing")
        object_id = f"q{len(self.quarantined):07x}"
        if not dry_run:
            self.quarantined[object_id] = (path, self.contents.pop(path))
        return b"", object_id

    def quarantine_restore(self, caller: Caller, request: r.QuarantineRestore) -> a.FileDone:
        self.callers.append(caller)
        ids = sorted(self.quarantined)
        object_id = ids[self._find(ids, request.id)]
        original, content = self.quarantined[object_id]
        to = original if request.to is None else request.to + b"/" + original.rpartition(b"/")[2]
        if to in self.contents:
            raise ShieldError("file.exists", path=to)
        if not request.dry_run:
            del self.quarantined[object_id]
            self.contents[to] = content
        outcome = Outcome.PENDING if request.dry_run else Outcome.DONE
        return a.FileDone(original, outcome, to, object_id, len(content), "", "")

    def quarantine_purge(self, caller: Caller, request: r.QuarantinePurge) -> a.FileDone:
        self.callers.append(caller)
        ids = sorted(self.quarantined)
        object_id = ids[self._find(ids, request.id)]
        original, content = self.quarantined[object_id]
        if not request.dry_run:
            del self.quarantined[object_id]
        outcome = Outcome.PENDING if request.dry_run else Outcome.DONE
        return a.FileDone(original, outcome, b"", object_id, len(content), "", "")

    # keys
    def keys(self) -> a.Keys:
        return a.Keys(
            tuple(
                a.KeyInfo(
                    f"k{purpose}{n}",
                    purpose,
                    n,
                    "active" if n == latest else "deactivated",
                    "local",
                    T0_NS,
                    2 if n == latest else -1,
                )
                for purpose, latest in sorted(self.versions.items())
                for n in range(1, latest + 1)
            )
        )

    def keys_rotate(self, caller: Caller, request: r.KeysRotate) -> a.Rotated:
        self.callers.append(caller)
        chosen = [request.purpose] if request.purpose else sorted(self.versions)
        if any(purpose not in self.versions for purpose in chosen):
            raise ShieldError("api.not-found", "no such purpose")
        made = tuple(
            a.KeyInfo(
                f"k{purpose}{self.versions[purpose] + 1}",
                purpose,
                self.versions[purpose] + 1,
                "active",
                "local",
                T0_NS,
                0,
            )
            for purpose in chosen
        )
        if not request.dry_run:
            for key in made:
                self.versions[key.purpose] = key.version
        return a.Rotated(made, request.dry_run)

    def keys_rewrap(self, caller: Caller, request: r.KeysRewrap) -> LongAction:
        sealed = sorted(name for name in self.contents if name.endswith(b".shield"))
        return self._each(caller, sealed, lambda path, dry_run: (path, ""), dry_run=request.dry_run)

    def key_providers(self) -> a.Providers:
        return a.Providers((a.ProviderInfo("local", "keyfile", "ready", 0.4, "root key unlocked by key file"),))

    # policy and configuration
    def policy(self) -> a.PolicyAnswer:
        return a.PolicyAnswer(
            state="active",
            version="2026.11.1",
            digest="9f" * 32,
            reason="",
            schema_version=1,
            features=("entropy_head", "writes_1s"),
            actions=("allow", "alert", "seal", "quarantine", "contain"),
            metadata={"commit": "abc"},
            card="# Model card\n",
        )

    def policy_evaluate(self, caller: Caller, request: r.PolicyEvaluate) -> a.PolicyEvaluation:
        self.callers.append(caller)
        source = "shipped" if request.trace is None else request.trace.decode("utf-8", "replace")
        return a.PolicyEvaluation("2026.11.1", source, 1000, 250_000.0, 0.984, {"allow": 900, "contain": 100}, True)

    def config(self) -> a.ConfigAnswer:
        values = {"daemon": {"mode": "service"}, "tree": [{"path": "/srv/phi", "mode": "act"}]}
        return a.ConfigAnswer(b"/etc/shieldd/shieldd.toml", 1, "service", T0_NS, values)

    def config_check(self) -> a.ConfigCheck:
        return a.ConfigCheck(b"/etc/shieldd/shieldd.toml", ())

    def _find(self, ids: Sequence[str], prefix: str) -> int:
        found = [index for index, one in enumerate(ids) if one.startswith(prefix)]
        if not found:
            raise ShieldError("api.not-found")
        if len(found) > 1:
            raise ShieldError("api.ambiguous")
        return found[0]


def main() -> None:
    """Serve until interrupted."""
    from shieldd.api.listen import listen
    from shieldd.api.server import ApiServer

    engine = MemoryEngine()
    server = ApiServer(engine, listen(os.fsencode(sys.argv[1])), version="0.1.0")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    server.start()
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    server.stop()


if __name__ == "__main__":
    main()
