"""Takes out what is older than it must be kept, a little at a time so that nothing waits behind it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from shieldd.store.access import Access
from shieldd.store.records import Pruned

CHUNK_ROWS: Final = 5_000  # one transaction; some 20 ms
SHRINK_PAGES: Final = 1024  # 4 MiB in one transaction
SHRINK_TURNS: Final = 256
DAY_NS: Final = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Keep:
    """How long what is kept; days."""

    events_days: int
    events_max: int
    incidents_days: int
    actions_days: int


def prune(access: Access, keep: Keep, now_ns: int) -> Pruned:
    """Delete by age and number. An open incident and an act without an outcome stay whatever their age."""
    event = now_ns - keep.events_days * DAY_NS
    incident = now_ns - keep.incidents_days * DAY_NS
    action = now_ns - keep.actions_days * DAY_NS
    newest = access.one("SELECT max(seq) AS seq FROM events")
    floor = (newest["seq"] or 0) - keep.events_max if newest else 0
    counts = [
        _chunks(access, "events", "seq", "at_ns < ? OR seq <= ?", (event, floor)),
        _chunks(access, "decisions", "seq", "at_ns < ? AND (threat_id IS NULL OR at_ns < ?)", (event, incident)),
        _chunks(access, "incidents", "id", "opened_at_ns < ? AND state = 'resolved'", (incident,)),
        _chunks(access, "actions", "id", "at_ns < ? AND outcome <> 'pending'", (action,)),
        _chunks(access, "alerts", "seq", "at_ns < ?", (incident,)),
    ]
    for table in ("contained", "containments"):
        gone = "threat_id NOT IN (SELECT id FROM incidents) AND threat_id NOT IN"
        held = " (SELECT threat_id FROM containments WHERE state = 'held' OR changed_at_ns >= ?)"
        _chunks(access, table, "threat_id", gone + held, (incident,))
    left = -1
    for _ in range(SHRINK_TURNS):
        before, left = left, access.durable(_shrink, timeout_s=30.0)
        if left in (0, before):
            break
    return Pruned(*counts)


def _chunks(access: Access, table: str, key: str, condition: str, values: tuple[int, ...]) -> int:
    sql = f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {condition} LIMIT {CHUNK_ROWS})"  # noqa: S608 - constants
    total = 0
    while True:
        taken = access.durable(lambda connection: connection.execute(sql, values).rowcount, timeout_s=30.0)
        total += taken
        if taken < CHUNK_ROWS:
            return total


def _shrink(connection: sqlite3.Connection) -> int:
    """Give some free pages back to the file system; returns how many are left."""
    left = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    for _ in range(min(left, SHRINK_PAGES)):
        # The pragma gives a row without columns for each page, which Python's module does not step over: one at a time.
        connection.execute("PRAGMA incremental_vacuum(1)")
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])
