"""The store: what happened, what was done, what lies where. One SQLite file in the state directory.

Owns the state directory's lock (one daemon per directory), the schema and its migrations, and the promise that an
intent is on the disk before the act and the result after it. Does not own the evidence log, nor any key. The whole can
be lost without losing a file: sealed and quarantined objects describe themselves, the inventory is rebuilt from them.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Decision, Severity
from shieldd.model.event import Batch
from shieldd.model.incident import Incident, State, TakenAction
from shieldd.store import retention
from shieldd.store.access import Access, Readers
from shieldd.store.containments import Containments
from shieldd.store.eventlog import EventLog
from shieldd.store.failures import translated
from shieldd.store.inventory import Canaries, Quarantined, SealedFiles
from shieldd.store.keyrecords import KeyRecords
from shieldd.store.ledger import Ledger
from shieldd.store.opening import Report, open_database
from shieldd.store.records import (
    ActionFilter,
    AlertFilter,
    Canary,
    Ended,
    EventFilter,
    IncidentFilter,
    Label,
    Page,
    Pruned,
    QuarantineRecord,
    SealedRecord,
    StoredAlert,
    StoredDecision,
    StoredEvent,
)
from shieldd.store.restores import Restores
from shieldd.store.retention import Keep
from shieldd.store.statedir import StateDir
from shieldd.store.writer import Writer, WriterStatus, give_up

__all__ = [
    "ActionFilter",
    "AlertFilter",
    "Canary",
    "Counts",
    "EventFilter",
    "IncidentFilter",
    "Keep",
    "Label",
    "Page",
    "Pruned",
    "QuarantineRecord",
    "Report",
    "SealedRecord",
    "StateDir",
    "Store",
    "StoredAlert",
    "StoredDecision",
    "StoredEvent",
    "WriterStatus",
]

QUEUE_RECORDS: Final = 500_000  # events that may wait for the disk: some 250 MB at most, four seconds of a storm


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals of the store."""

    incidents_open: int
    incidents: int
    sealed: int
    quarantined: int
    events: int


class Store:
    """The open store; a context manager. Any thread may call; `record_events` is for one thread only.

    Attributes:
        reports: what was found while opening (a damaged store set aside, a stale log).
        fresh: whether the store was made by this opening.
        files, quarantine, canaries: the inventories.
        containments: processes that are held.
        keys: what is known of keys.
        restores: plans to bring files back, and the history they are made from.
        state: the locked state directory; its descriptor is `state.fd`.
    """

    def __init__(self, path: Path, *, roots: Sequence[bytes] = (), queue_records: int = QUEUE_RECORDS) -> None:
        """Lock the directory of `path`, open or make the database, bring it to this version.

        Args:
            path: of the database; its directory is the state directory.
            roots: of the guarded trees; their order gives the indices used everywhere here.
            queue_records: events that may wait before more are dropped.

        Raises:
            ShieldError: `daemon.running`, `store.newer`, `store.unsafe`, `store.full`, `store.io`. A damaged store does
                not raise: it is set aside and reported, and an empty one takes its place. On a full disk the
                reserve of the last run is given up first, so that the guard can start; `status().full` says so then.
        """
        with ExitStack() as failed:
            self.state = StateDir(path.parent)
            failed.callback(self.state.close)
            reserve = path.with_name(path.name + "-reserve")
            try:
                connection, reports, run, next_seq = _opened(path, self.state)
            except ShieldError as error:
                # without room for its shared memory, SQLite speaks of an input/output error
                if error.code not in ("store.full", "store.io") or not give_up(reserve):
                    raise
                connection, reports, run, next_seq = _opened(path, self.state)
            failed.pop_all()
        self.path = path
        self.reports: tuple[Report, ...] = tuple(reports)
        self._connection = connection
        self.fresh = run == 1
        self._writer = Writer(connection, reserve, queue_records=queue_records)
        self._readers = Readers(path)
        self._access = Access(self._writer, self._readers, run)
        self._log = EventLog(self._access, next_seq)
        self._ledger = Ledger(self._access)
        self.files = SealedFiles(self._access)
        self.quarantine = Quarantined(self._access)
        self.canaries = Canaries(self._access)
        self.containments = Containments(self._access)
        self.keys = KeyRecords(self._access)
        self.restores = Restores(self._access)
        self._closed = False
        with ExitStack() as failed:
            failed.callback(self.close)
            self.adopt(roots)
            failed.pop_all()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def roots(self) -> tuple[bytes, ...]:
        """Roots by tree index: those of the configuration first, then those of earlier ones."""
        return self._access.roots

    def adopt(self, roots: Sequence[bytes]) -> None:
        """Take over the trees of a configuration."""
        self._access.adopt(roots)

    # events
    def record_events(
        self, batch: Batch, decisions: Sequence[Decision] = (), threats: Mapping[int, str] | None = None
    ) -> int:
        """Queue a batch with its decisions; never blocks; see `EventLog.record`. Returns the first event's number."""
        return self._log.record(batch, decisions, threats or {})

    def events(self, wanted: EventFilter = EventFilter()) -> Page[StoredEvent]:  # noqa: B008 - frozen
        """Events that match, oldest first."""
        return self._log.events(wanted)

    def decisions(
        self, *, threat_id: str | None = None, seq: int | None = None, limit: int = 50
    ) -> list[StoredDecision]:
        """Decisions about an incident's events, or about one event."""
        return self._log.decisions(threat_id=threat_id, seq=seq, limit=limit)

    # acts
    def intend(self, actions: Sequence[TakenAction]) -> None:
        """Intents, durable before returning; see `Ledger.intend`."""
        self._ledger.intend(actions)

    def finish(self, ended: Sequence[Ended]) -> None:
        """Outcomes, durable before returning; see `Ledger.finish`."""
        self._ledger.finish(ended)

    def pending(self) -> list[TakenAction]:
        """Acts without an outcome; at start: what a crash cut off."""
        return self._ledger.pending()

    def actions(self, wanted: ActionFilter = ActionFilter()) -> Page[TakenAction]:  # noqa: B008 - frozen
        """Acts that match, oldest first."""
        return self._ledger.actions(wanted)

    # incidents, alerts, labels
    def save_incident(self, incident: Incident, *, wait: bool = True) -> None:
        """Insert or replace; see `Ledger.save_incident`."""
        self._ledger.save_incident(incident, wait=wait)

    def incidents(self, wanted: IncidentFilter = IncidentFilter()) -> Page[Incident]:  # noqa: B008 - frozen
        """Incidents that match, oldest first."""
        return self._ledger.incidents(wanted)

    def incident(self, prefix: str) -> Incident:
        """One incident by id or unique beginning; `api.not-found`, `api.ambiguous`."""
        return self._ledger.incident(prefix)

    def alert(
        self,
        severity: Severity,
        text: str,
        *,
        at_ns: int,
        kind: ActionKind = ActionKind.ALERT,
        threat_id: str = "",
        tree: int | None = None,
        path: bytes = b"",
    ) -> StoredAlert:
        """Record an alert durably."""
        return self._ledger.alert(severity, text, at_ns=at_ns, kind=kind, threat_id=threat_id, tree=tree, path=path)

    def alerts(self, wanted: AlertFilter = AlertFilter()) -> Page[StoredAlert]:  # noqa: B008 - frozen
        """Alerts that match, oldest first."""
        return self._ledger.alerts(wanted)

    def label(self, label: Label) -> None:
        """Keep a person's word on an incident."""
        self._ledger.label(label)

    def labels(self, threat_id: str | None = None) -> list[Label]:
        """Labels, oldest first."""
        return self._ledger.labels(threat_id)

    # the store itself
    def counts(self) -> Counts:
        """Totals."""
        return Counts(
            self._ledger.incident_count(State.OPEN),
            self._ledger.incident_count(),
            self.files.count(),
            self.quarantine.count(),
            self._log.count(),
        )

    def status(self) -> WriterStatus:
        """How the writer fares."""
        return self._writer.status()

    def prune(self, keep: Keep, now_ns: int | None = None) -> Pruned:
        """Apply retention; takes its time, call it from a thread that may."""
        now = time.time_ns() if now_ns is None else now_ns
        self.restores.prune(now - keep.actions_days * retention.DAY_NS)
        return retention.prune(self._access, keep, now)

    def backup(self, target: Path) -> None:
        """Write a consistent copy (SQLite's backup interface; copying the file alone would miss its log).

        Raises:
            ShieldError: `file.exists`, `store.full`, `store.io`.
        """
        if target.exists():
            raise ShieldError("file.exists", path=bytes(target))
        try:
            with self._readers.database() as db, closing(sqlite3.connect(target)) as copy:
                db.conn.backup(copy, pages=4096)
        except sqlite3.Error as error:
            raise translated(error) from error
        target.chmod(0o600)

    def flush(self) -> None:
        """Return when everything queued so far is committed."""
        self._writer.flush()

    def close(self) -> None:
        """Commit what waits, fold the log into the file, release the directory. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._writer.stop()
        self._readers.close()
        try:
            self._connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('clean', '1')")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            # What was promised is in the log already; the next start replays it.
            self.reports = (*self.reports, Report(translated(error).code, "the store could not be closed cleanly"))
        finally:
            self._connection.close()
            self.state.close()


def _opened(path: Path, state: StateDir) -> tuple[sqlite3.Connection, list[Report], int, int]:
    connection, reports = open_database(path, state)
    return connection, reports, *_begin_run(connection)


def _begin_run(connection: sqlite3.Connection) -> tuple[int, int]:
    """Number of this run, and the first free number for events; closes the connection where it fails."""
    try:
        return _counted(connection)
    except (sqlite3.Error, ValueError) as error:
        connection.close()
        raise translated(error) from error


def _counted(connection: sqlite3.Connection) -> tuple[int, int]:
    row = connection.execute("SELECT value FROM meta WHERE key = 'run'").fetchone()
    run = int(row[0]) + 1 if row else 1
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('run', ?)", (str(run),))
    last = connection.execute(
        "SELECT max(x) FROM (SELECT max(seq) AS x FROM events UNION SELECT max(seq) FROM decisions)"
    )
    return run, int(last.fetchone()[0] or 0) + 1
