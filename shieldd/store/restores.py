"""Plans to bring files back and their steps, and the history that a plan is made from.

A step goes from its intent (`begun`) to its outcome on the durable lane; one that has begun and has no outcome was cut
off. Steps of plans that were never begun go when a newer plan of the incident is made.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from shieldd.model.decision import Outcome
from shieldd.model.event import Kind
from shieldd.model.restore import Act, Conflict, Found, Plan, PlanState, Step, There, Wanted
from shieldd.store.access import Access, Row, made
from shieldd.store.coding import storable, unsigned
from shieldd.store.ledger import unique

TIMEOUT_S: Final = 30.0  # a plan of 100,000 steps is written as one
PAGE: Final = 20_000  # events of the history read at once
_STEP: Final = f"INSERT INTO restore_steps VALUES ({','.join('?' * 20)})"  # noqa: S608
_TOUCHES: Final = (
    "SELECT seq, at_ns, kind, path, from_path, actor FROM events"
    " WHERE seq > ? AND tree = ? AND at_ns >= ? AND at_ns < ? ORDER BY seq LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class StoredTouch:
    """One event as the history tells it; `from_path` is empty but for renames."""

    at_ns: int
    kind: Kind
    path: bytes
    from_path: bytes
    actor: int


class Restores:
    """Journal and history for restoring; any thread may call."""

    def __init__(self, access: Access) -> None:
        self._access = access

    # history
    def touches(self, tree: int, since_ns: int, until_ns: int) -> Iterator[StoredTouch]:
        """All events of a tree in that time (until not included), in their order; read in pages."""
        number, after = self._access.tree_id(tree), self._first(since_ns)
        while True:
            rows = self._access.rows(_TOUCHES, None, [after, number, since_ns, until_ns, PAGE])
            for row in rows:
                yield made(_touch, row)
            if len(rows) < PAGE:
                return
            after = rows[-1]["seq"]

    def _first(self, since_ns: int) -> int:
        """A number below all events of that time; the clock may have been set back, so it is no more than a hint."""
        row = self._access.one("SELECT min(seq) AS n FROM events WHERE at_ns >= ?", [since_ns])
        return int(row["n"]) - 1 if row and row["n"] is not None else 1 << 62

    def last_of(self, threat_id: str) -> int:
        """Wall clock of the last event that was decided on for an incident, 0 where none is kept."""
        row = self._access.one("SELECT max(at_ns) AS n FROM events WHERE threat_id = ?", [threat_id])
        return int(row["n"]) if row and row["n"] is not None else 0

    # plans
    def begin(self, plan: Plan, steps: Sequence[Step]) -> None:
        """Keep a new plan, durable before returning; plans of the same incident that were never begun go."""
        row = (
            plan.id, plan.threat_id, self._access.tree_id(plan.tree), plan.made_at_ns, plan.state.value,
            int(plan.attributed), plan.steps, plan.ended_at_ns,
        )  # fmt: skip
        rows = [self._row(plan.id, step) for step in steps]
        old = "SELECT id FROM restore_plans WHERE threat_id = ? AND state = 'planned'"

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(f"DELETE FROM restore_steps WHERE plan IN ({old})", (plan.threat_id,))  # noqa: S608
            connection.execute("DELETE FROM restore_plans WHERE threat_id = ? AND state = 'planned'", (plan.threat_id,))
            connection.execute("INSERT INTO restore_plans VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            connection.executemany(_STEP, rows)

        self._access.durable(work, timeout_s=TIMEOUT_S)

    def plan(self, plan_id: str) -> Plan:
        """One plan by its id or the beginning of it; raises `api.not-found`, `api.ambiguous`."""
        return made(self._plan, unique(self._access, "restore_plans", plan_id))

    def plans(self, threat_id: str) -> Sequence[Plan]:
        """All plans of an incident, oldest first."""
        sql = "SELECT * FROM restore_plans WHERE threat_id = ? ORDER BY made_at_ns, id"
        return self._access.records(self._plan, sql, None, [threat_id])

    def unfinished(self) -> Sequence[Plan]:
        """Plans that were begun and did not end."""
        sql = "SELECT * FROM restore_plans WHERE state = 'running' ORDER BY made_at_ns, id"
        return self._access.records(self._plan, sql)

    def mark(self, plan_id: str, state: PlanState) -> None:
        """A plan was begun, or ended."""
        ended = time.time_ns() if state is PlanState.DONE else 0
        sql = "UPDATE restore_plans SET state = ?, ended_at_ns = ? WHERE id = ?"
        self._access.durable(lambda c: c.execute(sql, (state.value, ended, plan_id)), essential=True)

    def prune(self, before_ns: int) -> None:
        """Take out plans that are older and not under way, one in a transaction."""
        sql = "SELECT id FROM restore_plans WHERE made_at_ns < ? AND state <> 'running'"
        for row in self._access.rows(sql, None, [before_ns]):
            plan = (row["id"],)

            def work(connection: sqlite3.Connection, plan: tuple[str] = plan) -> None:
                connection.execute("DELETE FROM restore_steps WHERE plan = ?", plan)
                connection.execute("DELETE FROM restore_plans WHERE id = ?", plan)

            self._access.durable(work, timeout_s=TIMEOUT_S)

    # steps
    def steps(self, plan_id: str, *, after: int = -1, limit: int = 1000) -> Sequence[Step]:
        """Steps by number, those after one."""
        sql = "SELECT * FROM restore_steps WHERE plan = ? AND number > ? ORDER BY number LIMIT ?"
        return self._access.records(self._step, sql, None, [plan_id, after, limit])

    def counts(self, plan_id: str) -> dict[tuple[str, str, bool, str], int]:
        """How many steps of a plan have which (act, conflict, lost, outcome)."""
        sql = (
            "SELECT act, conflict, lost, outcome, count(*) AS n FROM restore_steps WHERE plan = ?"
            " GROUP BY act, conflict, lost, outcome"
        )
        rows = self._access.rows(sql, None, [plan_id])
        return {(x["act"], x["conflict"], bool(x["lost"]), x["outcome"]): x["n"] for x in rows}

    def begun(self, plan_id: str) -> set[int]:
        """Numbers of steps that were about to be done and have no result."""
        sql = "SELECT number FROM restore_steps WHERE plan = ? AND begun = 1 AND outcome = 'pending'"
        return {int(row["number"]) for row in self._access.rows(sql, None, [plan_id])}

    def intend(self, plan_id: str, steps: Sequence[Step]) -> None:
        """These are about to be done; durable before returning."""
        rows = [(step.hidden, int(step.aside), plan_id, step.number) for step in steps]
        sql = "UPDATE restore_steps SET begun = 1, hidden = ?, aside = ? WHERE plan = ? AND number = ?"
        self._access.durable(lambda c: c.executemany(sql, rows), timeout_s=TIMEOUT_S)

    def result(self, plan_id: str, steps: Sequence[Step]) -> None:
        """How steps ended; durable before returning, also on a full disk."""
        rows = [(x.outcome.value, x.code, storable(x.reason), plan_id, x.number) for x in steps]
        sql = "UPDATE restore_steps SET outcome = ?, code = ?, reason = ? WHERE plan = ? AND number = ?"
        self._access.durable(lambda c: c.executemany(sql, rows), essential=True, timeout_s=TIMEOUT_S)

    def _row(self, plan_id: str, x: Step) -> tuple[object, ...]:
        return (
            plan_id, x.number, self._access.tree_id(x.tree), x.path, x.act.value, x.found.value, x.conflict.value,
            int(x.lost), x.version, x.at_ns, x.other, _wanted_text(x.wanted), _there_text(x.there), storable(x.text),
            int(x.aside), x.hidden, 0, x.outcome.value, x.code, storable(x.reason),
        )  # fmt: skip

    def _plan(self, row: Row) -> Plan:
        return Plan(
            id=row["id"],
            threat_id=row["threat_id"],
            tree=self._access.tree_index(row["tree"]),
            made_at_ns=row["made_at_ns"],
            state=PlanState(row["state"]),
            attributed=bool(row["attributed"]),
            steps=row["steps"],
            ended_at_ns=row["ended_at_ns"],
        )

    def _step(self, row: Row) -> Step:
        return Step(
            number=row["number"],
            tree=self._access.tree_index(row["tree"]),
            path=row["path"],
            act=Act(row["act"]),
            found=Found(row["found"]),
            conflict=Conflict(row["conflict"]),
            lost=bool(row["lost"]),
            version=row["version"],
            at_ns=row["at_ns"],
            other=row["other"],
            wanted=_wanted_from(row["wanted"]),
            there=There(*json.loads(row["there"])) if row["there"] else None,
            text=row["text"],
            aside=bool(row["aside"]),
            hidden=row["hidden"],
            outcome=Outcome(row["outcome"]),
            code=row["code"],
            reason=row["reason"],
        )


def _touch(row: Row) -> StoredTouch:
    return StoredTouch(row["at_ns"], Kind(row["kind"]), row["path"], row["from_path"] or b"", unsigned(row["actor"]))


def _there_text(x: There | None) -> str | None:
    return None if x is None else json.dumps([x.dev, x.ino, x.size, x.mtime_ns, x.ctime_ns, x.mode, x.uid])


def _wanted_text(x: Wanted | None) -> str | None:
    if x is None:
        return None
    xattrs = [[_text(name), _text(value)] for name, value in x.xattrs]
    numbers = [x.size, x.mode, x.uid, x.gid, x.atime_ns, x.mtime_ns]
    return json.dumps([*numbers, x.digest.hex(), xattrs, x.xattrs_whole])


def _wanted_from(text: str | None) -> Wanted | None:
    if text is None:
        return None
    size, mode, uid, gid, atime_ns, mtime_ns, digest, xattrs, whole = json.loads(text)
    pairs = tuple((base64.b64decode(name), base64.b64decode(value)) for name, value in xattrs)
    return Wanted(size, mode, uid, gid, atime_ns, mtime_ns, bytes.fromhex(digest), pairs, whole)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
