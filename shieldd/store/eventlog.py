"""Events and the decisions about them: written in batches on the plain lane, read by filter.

An event may be dropped when the disk does not keep up (counted in `WriterStatus`); what matters of it stands in the
incident and the acts, which may not.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from shieldd.model.decision import Action, Decision, Severity, Verdict
from shieldd.model.event import Batch, Kind
from shieldd.store.access import Access, Row
from shieldd.store.coding import reasons_from, reasons_text, signed, storable, unsigned
from shieldd.store.records import EventFilter, Page, StoredDecision, StoredEvent, Where, page

_EVENT: Final = f"INSERT INTO events VALUES ({','.join('?' * 14)})"  # noqa: S608 - no value goes into the text
_DECISION: Final = f"INSERT OR REPLACE INTO decisions VALUES ({','.join('?' * 18)})"  # noqa: S608


class EventLog:
    """One per store; `record` is called by one thread, the pipeline's, reads by any."""

    def __init__(self, access: Access, next_seq: int) -> None:
        self._access = access
        self._next = next_seq

    @property
    def next_seq(self) -> int:
        """Number that the next event gets."""
        return self._next

    def record(self, batch: Batch, decisions: Sequence[Decision], threats: Mapping[int, str]) -> int:
        """Queue a batch; returns the store's number of its first event (row i gets first + i).

        Args:
            batch: N events.
            decisions: about some of its rows, matched by the source's `seq`; rows without one were allowed.
            threats: source `seq` → id of the incident it belongs to.
        """
        first = self._next
        if len(batch) == 0:
            return first
        self._next += len(batch)
        trees = self._access.tree_ids()

        def work(connection: sqlite3.Connection) -> None:
            rows, acted = _event_rows(batch, decisions, threats, first, trees)
            connection.executemany(_EVENT, rows)
            if acted:
                connection.executemany(_DECISION, acted)

        self._access.writer.plain(len(batch), work)
        return first

    def events(self, wanted: EventFilter) -> Page[StoredEvent]:
        """Events that match."""
        where = Where().add("seq > ?", wanted.after_seq).span("at_ns", wanted)
        where.add("kind = ?", None if wanted.kind is None else int(wanted.kind))
        where.add("action = ?", None if wanted.action is None else int(wanted.action))
        where.add("action >= ?", int(wanted.least_action) or None).add("threat_id = ?", wanted.threat_id)
        where.add("tree = ?", None if wanted.tree is None else self._access.tree_id(wanted.tree))
        where.under("path", wanted.under)
        forward = wanted.after_seq is not None
        order = "ASC" if forward else "DESC"
        sql = f"SELECT * FROM events{{where}} ORDER BY seq {order} LIMIT ?"  # noqa: S608 - constants of ours
        found = self._access.records(self._event, sql, where, [wanted.limit + 1])
        return page(found, wanted.limit, newest_first=not forward)

    def decisions(
        self, *, threat_id: str | None = None, seq: int | None = None, limit: int = 50
    ) -> list[StoredDecision]:
        """Decisions about an incident's events, or about one event; oldest first."""
        where = Where().add("threat_id = ?", threat_id).add("seq = ?", seq)
        sql = "SELECT * FROM decisions{where} ORDER BY seq LIMIT ?"
        return self._access.records(self._decision, sql, where, [limit])

    def count(self) -> int:
        """Events in the store; from the ends of the table, so exact but for drops and cheap at any size."""
        row = self._access.one(
            "SELECT COALESCE((SELECT max(seq) FROM events) - (SELECT min(seq) FROM events) + 1, 0) AS n"
        )
        return int(row["n"]) if row else 0

    def _event(self, row: Row) -> StoredEvent:
        return StoredEvent(
            seq=row["seq"],
            at_ns=row["at_ns"],
            kind=Kind(row["kind"]),
            tree=self._access.tree_index(row["tree"]),
            path=row["path"],
            from_path=row["from_path"] or b"",
            pid=row["pid"],
            uid=row["uid"],
            mode=row["mode"],
            merged=row["merged"],
            actor=unsigned(row["actor"]),
            action=Action(row["action"]),
            severity=Severity(row["severity"]),
            threat_id=row["threat_id"] or "",
        )

    def _decision(self, row: Row) -> StoredDecision:
        decision = Decision(
            seq=unsigned(row["source_seq"]),
            tree=self._access.tree_index(row["tree"]),
            actor=unsigned(row["actor"]),
            path=row["path"],
            wanted=Action(row["wanted"]),
            action=Action(row["action"]),
            verdict=Verdict(row["verdict"]),
            rule=row["rule"],
            logits=tuple(json.loads(row["logits"])),
            reasons=reasons_from(row["reasons"]),
            severity=Severity(row["severity"]),
            policy_version=row["policy_version"],
            generation=row["generation"],
            at_ns=row["at_ns"],
            mono_ns=row["mono_ns"],
        )
        return StoredDecision(row["seq"], row["threat_id"] or "", decision, row["observation"])


def _event_rows(
    batch: Batch, decisions: Sequence[Decision], threats: Mapping[int, str], first: int, trees: Sequence[int]
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """The rows of both tables; columns come out of numpy as whole lists, which is some ten times faster than rows."""
    events = batch.events
    by_seq = {decision.seq: decision for decision in decisions}
    plain = Severity.INFORMATIONAL
    sequence = events["seq"].tolist()
    tree = [trees[index] for index in events["tree"].tolist()]
    names = batch.names
    paths = [
        names[start : start + length]
        for start, length in zip(events["path_off"].tolist(), events["path_len"].tolist(), strict=True)
    ]
    olds = [
        names[start : start + length] if length else None
        for start, length in zip(events["from_off"].tolist(), events["from_len"].tolist(), strict=True)
    ]
    uid = events["uid"].view(np.int32).tolist()  # 0xffffffff, "not told", reads -1
    columns = zip(
        range(first, first + len(batch)),
        events["at_ns"].view(np.int64).tolist(),
        events["kind"].tolist(),
        tree,
        paths,
        olds,
        events["pid"].tolist(),
        uid,
        events["mode"].tolist(),
        events["merged"].tolist(),
        events["actor"].view(np.int64).tolist(),
        [int(by_seq[seq].action) if seq in by_seq else 0 for seq in sequence],
        [int(by_seq[seq].severity) if seq in by_seq else int(plain) for seq in sequence],
        [threats.get(seq) for seq in sequence],
        strict=True,
    )
    rows: list[tuple[object, ...]] = list(columns)
    acted = [
        _decision_row(by_seq[seq], first + row, threats.get(seq), tree[row], batch.observations[row].tobytes())
        for row, seq in enumerate(sequence)
        if seq in by_seq
    ]
    return rows, acted


def _decision_row(
    decision: Decision, seq: int, threat: str | None, tree: int, observation: bytes
) -> tuple[object, ...]:
    return (
        seq,
        threat,
        signed(decision.seq),
        int(decision.wanted),
        int(decision.action),
        decision.verdict.value,
        storable(decision.rule),
        json.dumps([float(logit) for logit in decision.logits]),
        reasons_text(decision.reasons),
        int(decision.severity),
        storable(decision.policy_version),
        decision.generation,
        decision.at_ns,
        decision.mono_ns,
        tree,
        signed(decision.actor),
        decision.path,
        observation,
    )
