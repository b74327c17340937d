"""What is done and why: acts from intent to outcome, incidents, alerts, a person's labels. All on the durable lane.

An intent is on the disk before `intend` returns; the result before `finish` does. An act of an earlier run that is
still pending reads as failed everywhere but in `pending`, which is for the part that cleans up after a crash.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome, Severity
from shieldd.model.incident import Actor, Incident, Judgement, State, TakenAction
from shieldd.store.access import Access, Row, made
from shieldd.store.coding import reasons_from, reasons_text, signed, storable, unsigned
from shieldd.store.records import (
    ActionFilter,
    AlertFilter,
    Ended,
    IncidentFilter,
    Label,
    Page,
    StoredAlert,
    Where,
    page,
)

INTERRUPTED: Final = "interrupted by a stop of the daemon"
FINISH_TIMEOUT_S: Final = 10.0
_INTEND: Final = (
    "INSERT INTO actions (id, threat_id, kind, tree, path, at_ns, outcome, reason, undo, run)"
    " VALUES (?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?)"
)
_FINISH: Final = "UPDATE actions SET outcome = ?, reason = ?, undo = ?, ended_at_ns = ? WHERE id = ?"
_INCIDENT: Final = f"INSERT OR REPLACE INTO incidents VALUES ({','.join('?' * 23)})"  # noqa: S608


class Ledger:
    """One per store; any thread may call."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._later: dict[str, tuple[object, ...]] = {}
        self._lock = threading.Lock()

    def intend(self, actions: Sequence[TakenAction]) -> None:
        """Make intents durable before returning.

        Raises:
            ShieldError: `store.full`, `store.io`, `store.busy` (after 2 s), …; then nothing may be done.
        """
        rows = [
            (x.id, x.threat_id, x.kind.value, self._access.tree_id(x.tree), x.path, x.at_ns, storable(x.reason),
             storable(x.undo), self._access.run)
            for x in actions
        ]  # fmt: skip
        ids = [(x.id,) for x in actions]

        def take_back(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM actions WHERE id = ? AND outcome = 'pending'", ids)

        self._access.durable(lambda connection: _many(connection, _INTEND, rows), undo=take_back)

    def finish(self, ended: Sequence[Ended]) -> None:
        """Record how acts ended, durable before returning; works on a full disk by the writer's reserve.

        Raises:
            ShieldError: `store.value` for an id that was never announced, and `store.*`.
        """
        now = time.time_ns()
        rows = [(x.outcome.value, storable(x.reason), storable(x.undo), now, x.id) for x in ended]

        def work(connection: sqlite3.Connection) -> None:
            for row in rows:
                if connection.execute(_FINISH, row).rowcount != 1:
                    raise ShieldError("store.value", "an act ended that was never announced")

        self._access.durable(work, essential=True, timeout_s=FINISH_TIMEOUT_S)

    def pending(self) -> list[TakenAction]:
        """Announced acts without an outcome, oldest first, as `PENDING`; at start: what a crash cut off."""
        sql = "SELECT * FROM actions WHERE outcome = 'pending' ORDER BY at_ns, id"
        return self._access.records(self._announced, sql)

    def actions(self, wanted: ActionFilter) -> Page[TakenAction]:
        """Acts that match."""
        where = Where().span("at_ns", wanted).add("threat_id = ?", wanted.threat_id)
        where.add("kind = ?", wanted.kind.value if wanted.kind else None)
        if wanted.outcome is Outcome.FAILED:
            where.add("(outcome = 'failed' OR (outcome = 'pending' AND run <> ?))", self._access.run)
        elif wanted.outcome is Outcome.PENDING:
            where.add("outcome = 'pending'").add("run = ?", self._access.run)
        elif wanted.outcome is not None:
            where.add("outcome = ?", wanted.outcome.value)
        sql = "SELECT * FROM actions{where} ORDER BY at_ns DESC, id DESC LIMIT ?"
        found = self._access.records(self._action, sql, where, [wanted.limit + 1])
        return page(found, wanted.limit, newest_first=True)

    def save_incident(self, incident: Incident, *, wait: bool = True) -> None:
        """Insert or replace.

        Args:
            wait: until it is durable; without, the latest state of each incident is written with the next group.
        """
        row = self._incident_row(incident)
        with self._lock:
            if not wait:
                queued = bool(self._later)
                self._later[incident.id] = row
                if queued:
                    return
            else:
                self._later.pop(incident.id, None)
        if wait:
            self._access.durable(lambda connection: connection.execute(_INCIDENT, row))
        else:
            self._access.writer.behind(self._write_later)

    def incidents(self, wanted: IncidentFilter) -> Page[Incident]:
        """Incidents that match, by the time they were opened."""
        where = Where().span("opened_at_ns", wanted).add("state = ?", wanted.state.value if wanted.state else None)
        where.add("severity >= ?", int(wanted.severity))
        where.add("tree = ?", None if wanted.tree is None else self._access.tree_id(wanted.tree))
        sql = "SELECT * FROM incidents{where} ORDER BY opened_at_ns DESC, id DESC LIMIT ?"
        found = self._access.records(self._incident, sql, where, [wanted.limit + 1])
        return page(found, wanted.limit, newest_first=True)

    def incident(self, prefix: str) -> Incident:
        """One incident by its id or a beginning of it that no other has.

        Raises:
            ShieldError: `api.not-found`, `api.ambiguous`.
        """
        return made(self._incident, unique(self._access, "incidents", prefix))

    def incident_count(self, state: State | None = None) -> int:
        """Incidents in a state, or all."""
        where = Where().add("state = ?", state.value if state else None)
        return int(self._access.rows("SELECT count(*) AS n FROM incidents{where}", where)[0]["n"])

    def alert(
        self, severity: Severity, text: str, *, at_ns: int, kind: ActionKind = ActionKind.ALERT, threat_id: str = "",
        tree: int | None = None, path: bytes = b"",
    ) -> StoredAlert:  # fmt: skip
        """Record an alert durably; it comes back with its number, one more than the last."""
        number = None if tree is None else self._access.tree_id(tree)
        words = storable(text)
        row = (at_ns, int(severity), threat_id, kind.value, number, path, words)
        sql = "INSERT INTO alerts (at_ns, severity, threat_id, kind, tree, path, text) VALUES (?, ?, ?, ?, ?, ?, ?)"
        seq = self._access.durable(lambda connection: connection.execute(sql, row).lastrowid)
        return StoredAlert(seq or 0, at_ns, severity, threat_id, kind, tree, path, words)

    def alerts(self, wanted: AlertFilter) -> Page[StoredAlert]:
        """Alerts that match."""
        forward = wanted.after_seq is not None
        where = (
            Where().span("at_ns", wanted).add("seq > ?", wanted.after_seq).add("severity >= ?", int(wanted.severity))
        )
        order = "ASC" if forward else "DESC"
        sql = f"SELECT * FROM alerts{{where}} ORDER BY seq {order} LIMIT ?"  # noqa: S608 - constants of ours
        found = self._access.records(self._alert, sql, where, [wanted.limit + 1])
        return page(found, wanted.limit, newest_first=not forward)

    def label(self, label: Label) -> None:
        """Keep a person's word; earlier ones on the same incident stay."""
        row = (label.threat_id, label.judgement.value, storable(label.note), label.uid, label.at_ns)
        sql = "INSERT INTO labels (threat_id, judgement, note, uid, at_ns) VALUES (?, ?, ?, ?, ?)"
        self._access.durable(lambda connection: connection.execute(sql, row))

    def labels(self, threat_id: str | None = None) -> list[Label]:
        """Labels, oldest first."""
        where = Where().add("threat_id = ?", threat_id)
        return self._access.records(_label, "SELECT * FROM labels{where} ORDER BY id", where)

    def _write_later(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            rows, self._later = list(self._later.values()), {}
        connection.executemany(_INCIDENT, rows)

    def _announced(self, row: Row) -> TakenAction:
        return TakenAction(
            id=row["id"],
            threat_id=row["threat_id"],
            kind=ActionKind(row["kind"]),
            tree=self._access.tree_index(row["tree"]),
            path=row["path"],
            at_ns=row["at_ns"],
            outcome=Outcome(row["outcome"]),
            reason=row["reason"],
            undo=row["undo"],
        )

    def _action(self, row: Row) -> TakenAction:
        action = self._announced(row)
        if action.outcome is Outcome.PENDING and row["run"] != self._access.run:
            return replace(action, outcome=Outcome.FAILED, reason=INTERRUPTED, undo="")
        return action

    def _alert(self, row: Row) -> StoredAlert:
        tree = None if row["tree"] is None else self._access.tree_index(row["tree"])
        severity, kind = Severity(row["severity"]), ActionKind(row["kind"])
        return StoredAlert(row["seq"], row["at_ns"], severity, row["threat_id"], kind, tree, row["path"], row["text"])

    def _incident_row(self, x: Incident) -> tuple[object, ...]:
        actor = (x.actor.pid, x.actor.exe, x.actor.cmdline, x.actor.uid) if x.actor else (None,) * 4
        return (
            x.id, x.opened_at_ns, x.closed_at_ns, x.state.value, int(x.severity), *actor, signed(x.actor_id),
            self._access.tree_id(x.tree), x.files_touched, x.files_lost, x.first_event_at_ns, x.decided_at_ns,
            x.contained_at_ns, reasons_text(x.reasons), json.dumps(x.attack),
            x.judgement.value if x.judgement else None, storable(x.note), x.held_at_ns, x.files_preserved,
            float(x.files_per_s),
        )  # fmt: skip

    def _incident(self, row: Row) -> Incident:
        actor = None
        if row["actor_pid"] is not None:
            actor = Actor(row["actor_pid"], row["actor_exe"], row["actor_cmdline"], row["actor_uid"])
        return Incident(
            id=row["id"],
            opened_at_ns=row["opened_at_ns"],
            closed_at_ns=row["closed_at_ns"],
            state=State(row["state"]),
            severity=Severity(row["severity"]),
            actor=actor,
            actor_id=unsigned(row["actor_id"]),
            tree=self._access.tree_index(row["tree"]),
            files_touched=row["files_touched"],
            files_lost=row["files_lost"],
            first_event_at_ns=row["first_event_at_ns"],
            decided_at_ns=row["decided_at_ns"],
            contained_at_ns=row["contained_at_ns"],
            reasons=reasons_from(row["reasons"]),
            attack=tuple(json.loads(row["attack"])),
            judgement=Judgement(row["judgement"]) if row["judgement"] else None,
            note=row["note"],
            held_at_ns=row["held_at_ns"],
            files_preserved=row["files_preserved"],
            files_per_s=row["files_per_s"],
        )


def unique(access: Access, table: str, prefix: str) -> Row:
    """The row whose id is `prefix`, or the only one whose id begins with it.

    Raises:
        ShieldError: `api.not-found`, `api.ambiguous`.
    """
    exact = access.one(f"SELECT * FROM {table} WHERE id = ?", [prefix])  # noqa: S608 - the table is a constant of ours
    if exact is not None:
        return exact
    where = Where().add("substr(id, 1, ?) = ?", len(prefix), prefix)
    found = access.rows(f"SELECT * FROM {table}{{where}} LIMIT 2", where)  # noqa: S608
    if not found or not prefix:
        raise ShieldError("api.not-found")
    if len(found) > 1:
        raise ShieldError("api.ambiguous")
    return found[0]


def _label(row: Row) -> Label:
    return Label(row["threat_id"], Judgement(row["judgement"]), row["note"], row["uid"], row["at_ns"])


def _many(connection: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    connection.executemany(sql, rows)
