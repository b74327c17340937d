"""The composition root: builds the parts from a configuration, starts them in order, stops them in reverse.

Start: state directory locked → store → keys → trees opened → vaults → what a crash cut off finished → fingerprints
loaded → source → policy, guard, signatures → responders → canaries → watching → versions kept → writers held →
self-test → threads → API → ready. A part that the daemon can do without (policy, canaries, fingerprints, vaults, held
opens) is reported and left out; one that it cannot do without (store, keys, a tree, the source, the socket) ends the
start with its code.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from shieldd import __version__, containment, fingerprints, judge, logs, service
from shieldd.actors import Known, guessed
from shieldd.api.listen import Listener, listen, passed
from shieldd.api.protocol import Limits
from shieldd.api.server import ApiServer
from shieldd.canaries import Canaries, canary_secret
from shieldd.config import Config, ConfigError, DaemonMode
from shieldd.containment import Words
from shieldd.custody import Custody
from shieldd.detect import canary
from shieldd.detect.guard import Guard
from shieldd.detect.incidents import Incidents
from shieldd.engine import Parts, RunningEngine, Snapshot
from shieldd.engine.ledgers import HeldIndex, SealedIndex
from shieldd.engine.parts import open_beneath
from shieldd.engine.streams import Streams
from shieldd.engine.troubles import Troubles
from shieldd.errors import ShieldError
from shieldd.holding import Holding
from shieldd.keys import KeyRing
from shieldd.lookout import Lookout
from shieldd.model.decision import Severity
from shieldd.model.event import EVENT, FACTS, Kind
from shieldd.native import envelope, observe
from shieldd.native.actors import Actors
from shieldd.pipeline import Judgement, Pipeline
from shieldd.recovery import containments, recover
from shieldd.respond import GuardedTree, Trees
from shieldd.respond.acts import ActPool
from shieldd.respond.quarantine import Quarantine
from shieldd.respond.seal import Sealer
from shieldd.selftest import self_test
from shieldd.signals import Signals
from shieldd.sources import choose
from shieldd.store import Store
from shieldd.store.retention import Keep
from shieldd.survey import Found, Survey

CHECK_S: Final = 1.0  # pace of the main thread: watchdog, threads alive, housekeeping
PIPELINE_LATE_S: Final = 5.0  # a loop that has not turned for so long is reported and not vouched for
PRUNE_S: Final = 3600.0
SAVE_S: Final = 300.0

log = structlog.get_logger("shieldd")


class Daemon:
    """One daemon: `serve` runs it to its end."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._threads: list[threading.Thread] = []
        self._last_turn = time.monotonic()
        self._parts: Parts
        self._api: ApiServer
        self._store: Store
        self._guard: Guard
        self._troubles = Troubles()
        self._records_lost = 0
        self._survey: Survey
        self._surveying: threading.Thread | None = None

    def serve(self, signals: Signals) -> int:
        """Start, serve until a signal ends it, stop; the exit status.

        Raises:
            ShieldError: when it cannot start.
        """
        logs.configure(self._config.daemon.log_level.value)
        os.umask(0o077)
        self._store = Store(self._config.store_path, roots=[tree.root for tree in self._config.tree])
        try:
            with self._keys() as keys:
                self._start(keys)
                service.notify(f"READY=1\nSTATUS=guarding {len(self._config.tree)} trees")
                log.info("ready", version=__version__, trees=len(self._config.tree), pid=os.getpid())
                try:
                    self._wait(signals)
                finally:
                    service.notify("STOPPING=1")
                    self._stop()
        finally:
            self._store.close()
        log.info("stopped")
        return 0

    def _keys(self) -> KeyRing:
        keys = KeyRing.open(self._config, self._store.keys)
        for text in keys.reports:
            log.warning(text)
            self._troubles.report("keys.store", text)
        return keys

    def _start(self, keys: KeyRing) -> None:
        config, store, troubles = self._config, self._store, self._troubles
        for report in store.reports:
            log.error(report.text, code=report.code)
            troubles.hold(report.code, report.text)
        trees = Trees([_opened(index, tree.root) for index, tree in enumerate(config.tree)])
        baseline, windows = observe.Baseline(config.watch.baseline_files), observe.Windows()
        fingerprints.load(baseline, store.state.fd)
        actors = Actors(own=[os.getpid()])
        custody = Custody(config, trees, store, troubles)
        source, why_not = choose(config, trees, custody.exclude, baseline, windows, actors)
        holding = Holding(
            config,
            trees,
            custody.keeper,
            custody.exclude,
            troubles,
            state_fd=store.state.fd,
            named=not why_not,
        )
        journal = envelope.Journal(fingerprints.state_directory(store.state.fd, b"journal"))
        held_fd = fingerprints.state_directory(store.state.fd, b"quarantine")
        host_id = config.daemon.host_id.encode()
        own_products = observe.Inspector(baseline)

        def known(tree: GuardedTree, path: bytes) -> None:
            """What we made ourselves is known and kept like everything else: its loss is one, and can be undone."""
            own_products.inspect(tree.root_fd, path, None, Kind.ATTRIB, tree=tree.index)
            custody.made(tree, path)

        sealer = Sealer(
            keys.native,
            journal,
            store,
            SealedIndex(store),
            source,
            host_id=host_id,
            count=lambda n: keys.used(envelope.Purpose.FILES, n),
            known=known,
            gone=custody.sealed,
            threads=config.seal.threads,
            durable=config.seal.durable,
        )
        quarantine = Quarantine(
            held_fd,
            keys.native,
            journal,
            store,
            HeldIndex(store, trees),
            source,
            trees,
            host_id=host_id,
            count=lambda n: keys.used(envelope.Purpose.QUARANTINE, n),
            known=known,
            gone=custody.sealed,
            threads=config.seal.threads,
        )
        recover(store, journal, keys.native, trees, quarantine, os.fsencode(config.daemon.state_dir))
        snapshot = self._snapshot(config)
        judgement = self._judgement(snapshot)
        streams = Streams(trees, store, troubles.report, troubles.hold)
        words = Words(streams.say, troubles.report, self._contained)
        contain = containment.build(lambda: self._parts.config, store, trees, actors, words, opens=holding.opens)
        acts = ActPool(
            trees,
            store,
            sealer.act,
            quarantine.act,
            contain=contain,
            guess=lambda tree, path: guessed(actors, tree.root),
            failed=troubles.report,
        )
        inspector = observe.Inspector(observe.Baseline(1024))
        canaries = self._plant(trees, baseline)
        lookout = Lookout(snapshot.scanner, lambda tree, path: open_beneath(trees[tree].root_fd, path), self._found)
        pipeline = Pipeline(
            source,
            judgement,
            Incidents(self._guard.losses),
            store,
            acts,
            lookout,
            streams,
            who=Known(actors, lambda: frozenset(x.exe_sha256 for x in self._guard.rules.trust)),
            keeps=custody,
            mark=canaries.mark,
            alive=self._turned,
        )
        self._parts = Parts(
            snapshot=snapshot,
            trees=trees,
            store=store,
            keys=keys,
            journal=journal,
            source=source,
            baseline=baseline,
            windows=windows,
            inspector=inspector,
            pipeline=pipeline,
            acts=acts,
            lookout=lookout,
            sealer=sealer,
            quarantine=quarantine,
            streams=streams,
            troubles=troubles,
            canaries_in=lambda tree: len(canaries.in_tree(trees[tree])),
            is_canary=canaries.is_one,
            read_trace=_read_trace,
            started_ns=time.time_ns(),
            custody=custody,
            holding=holding,
            restorer=custody.restoring(source, quarantine, known),
            contain=contain,
            why_no_fanotify=why_not,
        )
        containments(store, contain)
        self._survey = Survey(
            [(tree, custody.exclude[tree.index]) for tree in trees],
            observe.Inspector(baseline),
            self._surveyed,
        )
        self._parts.survey = self._survey
        source.start()
        custody.start(pipeline.preserved)
        holding.start()
        self_test(self._parts, fingerprints.state_directory(store.state.fd, b"selftest"))
        for name, body in (("pipeline", pipeline.run), ("scan", lookout.run), ("alerts", streams.run)):
            self._run(name, body)
        if config.watch.inspect:
            self._surveying = threading.Thread(target=self._survey.run, name="shieldd-survey", daemon=True)
            self._surveying.start()
        self._api = ApiServer(
            RunningEngine(self._parts),
            _listener(config),
            readers=(config.api.group,),
            limits=Limits(
                connections=config.api.connections,
                body_bytes=config.api.body_limit_bytes,
                head_s=config.api.request_timeout_s,
                body_s=config.api.request_timeout_s,
            ),
            version=__version__,
        )
        self._watch_store()
        custody.look()
        self._api.start()
        self._parts.ready = True

    def _snapshot(self, config: Config) -> Snapshot:
        policy = judge.load_policy(config)
        if policy.state == "refused":
            self._troubles.hold(policy.code, f"{policy.reason}; hard rules alone")
        else:
            for code in [x.code for x in self._troubles.now() if x.code.startswith("policy.")]:
                self._troubles.clear(code)
        return Snapshot(config, policy, judge.scanner(config))

    def _judgement(self, snapshot: Snapshot) -> Judgement:
        rules, policy = judge.rules(snapshot.config), snapshot.policy.policy
        if not hasattr(self, "_guard"):
            self._guard = Guard(rules, policy=policy)
        return Judgement(
            generation=snapshot.config.generation,
            policy=policy,
            guard=self._guard,
            fresh_guard=lambda: Guard(rules, policy=policy),
            take_over=lambda: self._guard.swap(rules, policy),
        )

    def _plant(self, trees: Trees, baseline: observe.Baseline) -> Canaries:
        secret = canary_secret(self._store.state.fd)
        canaries = Canaries(
            os.path.join(os.fsencode(self._config.daemon.state_dir), b"canaries.json"),
            secret,
            lambda directories, key, count: canary.plan(directories, key, count=count),
            lambda tree, path: baseline.path_hash(tree.index, path),
        )
        if not self._store.restores.unfinished():  # else those that an attack removed come back with the restore
            for tree, section in zip(trees, self._config.tree, strict=True):
                canaries.plant(tree, section.canaries, None)
        canaries.remember(list(trees))
        return canaries

    def _found(self, *match: object) -> None:
        self._parts.pipeline.found(*match)  # type: ignore[arg-type]

    def _surveyed(self, found: Found) -> None:
        if found.garbled:
            text = f"{found.garbled} files lost their format while nobody watched ({found.changed} changed)"
            self._parts.streams.trouble("watch.away", text, Severity.HIGH, 0, b"")
        fingerprints.save(self._parts.baseline, self._store.state.fd)

    def _contained(self, threat_id: str, at_ns: int, held_at_ns: int) -> None:
        self._parts.pipeline.contained(threat_id, at_ns, held_at_ns)

    def _turned(self) -> None:
        self._last_turn = time.monotonic()

    def _run(self, name: str, body: object) -> None:
        thread = threading.Thread(target=body, name=f"shieldd-{name}", daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _wait(self, signals: Signals) -> None:
        """The main thread: signals, watchdog, housekeeping."""
        watchdog = service.watchdog_interval_s()
        pace = min(CHECK_S, watchdog) if watchdog else CHECK_S
        pruned = saved = time.monotonic()
        while True:
            taken = signals.wait(pace)
            if taken is signal.SIGHUP:
                self._reload()
            elif taken is not None:
                log.info("stopping", signal=taken.name)
                return
            self._watch_store()
            self._parts.custody.look()
            self._parts.holding.look()
            if self._healthy():
                service.notify("WATCHDOG=1")
            now = time.monotonic()
            if now - saved > SAVE_S:
                saved = now
                fingerprints.save(self._parts.baseline, self._store.state.fd)
            if now - pruned > PRUNE_S:
                pruned = now
                self._prune()

    def _watch_store(self) -> None:
        """What cannot be recorded is said for as long as it cannot be."""
        now = self._store.status()
        lost = now.dropped + now.failed
        if now.full:
            self._troubles.hold("store.full", "no room for records: nothing is sealed or quarantined until there is")
        else:
            self._troubles.clear("store.full")
        if lost > self._records_lost:
            self._records_lost = lost
            self._troubles.hold("store.lost", f"{lost} events of this run are not on record")

    def _healthy(self) -> bool:
        """Whether every thread lives and the loop turns; what is not vouched for, the service manager restarts."""
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead or not self._api.alive:
            log.critical("a thread died; waiting to be restarted", threads=",".join(dead) or "api")
            self._troubles.hold("daemon.thread", "a thread of the daemon died; it has to be restarted")
            return False
        if time.monotonic() - self._last_turn > PIPELINE_LATE_S:
            self._troubles.report("daemon.late", "the decision loop is late")
            return time.monotonic() - self._last_turn < 4 * PIPELINE_LATE_S
        return True

    def _reload(self) -> None:
        """Take over what a changed file says; a wrong one is reported and the old one stays in force."""
        old = self._parts.config
        service.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            if old.source is None:
                log.info("nothing to reload in personal mode")
                return
            new = Config.load(old.source, generation=old.generation + 1)
            snapshot = self._snapshot(_live(old, new))
        except ConfigError as error:
            log.error("configuration refused, the old one stays in force", problems=error.message)
            self._troubles.hold(error.code, f"configuration refused, the old one is in force: {error.message}")
        except ShieldError as error:
            log.error("configuration refused, the old one stays in force", code=error.code)
            self._troubles.hold(error.code, f"configuration refused, the old one is in force: {error.message}")
        else:
            self._parts.snapshot = snapshot
            self._parts.lookout.swap(snapshot.scanner)
            self._parts.pipeline.swap(self._judgement(snapshot))
            for trouble in self._troubles.now():
                if trouble.code.startswith(("config.", "scan.")):
                    self._troubles.clear(trouble.code)
            logs.configure(snapshot.config.daemon.log_level.value)
            log.info("configuration taken over", generation=snapshot.config.generation)
        finally:
            service.notify("READY=1")

    def _stop(self) -> None:
        parts = self._parts
        parts.stopping = True
        self._api.stop()
        parts.source.stop()
        parts.pipeline.stop()
        parts.lookout.stop()
        self._survey.stop()
        parts.acts.close()
        if parts.contain is not None:
            parts.contain.stop()
        parts.streams.stop()
        for thread in (*self._threads, *((self._surveying,) if self._surveying else ())):
            thread.join(5.0)
        parts.holding.stop()
        parts.custody.close()
        fingerprints.save(self._parts.baseline, self._store.state.fd)

    def _prune(self) -> None:
        keep = self._parts.config.retention
        try:
            self._store.prune(Keep(keep.events_days, keep.events_max, keep.incidents_days, keep.actions_days))
        except ShieldError as error:
            self._troubles.report(error.code, f"old records could not be pruned: {error.message}")


def _read_trace(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from shieldd.watch import replay  # noqa: PLC0415 - only where a trace is asked for

    batches = [(events, facts) for events, facts, _ in replay.read(path)]
    if not batches:
        return np.zeros(0, EVENT), np.zeros(0, FACTS)
    return np.concatenate([events for events, _ in batches]), np.concatenate([facts for _, facts in batches])


def _opened(index: int, root: bytes) -> GuardedTree:
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ShieldError("watch.root", "a guarded tree cannot be opened", errno=error.errno, path=root) from error
    return GuardedTree(index, root, fd)


def _listener(config: Config) -> Listener:
    sockets = service.passed_sockets()
    if sockets:
        return passed(sockets[0])
    path = config.daemon.socket
    if config.daemon.mode is DaemonMode.PERSONAL:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return listen(os.fsencode(path))
    return listen(os.fsencode(path), group=config.api.group)


def _live(old: Config, new: Config) -> Config:
    """The new configuration with what only a restart can change left as it is."""
    from shieldd.config import diff  # noqa: PLC0415 - only at a reload

    waiting = [change.key for change in diff(old, new) if change.restart]
    if waiting:
        log.warning("some changes take effect at the next start", keys=",".join(waiting))
    held = {"watch": old.watch, "keys": old.keys, "preserve": old.preserve}
    if [tree.path for tree in old.tree] != [tree.path for tree in new.tree]:
        return new.model_copy(update={"tree": old.tree, "daemon": old.daemon, **held})
    return new.model_copy(update={"daemon": new.daemon, **held})
