"""What is held: the processes that were stopped for an incident, found again after a restart of the daemon."""

from __future__ import annotations

import sqlite3
from typing import Final

from shieldd.model.contained import ContainedProcess, Containment, Fate, Holding, Member
from shieldd.store.access import Access, Row
from shieldd.store.coding import signed, storable, unsigned
from shieldd.store.records import Where

TIMEOUT_S: Final = 10.0
_SAVE: Final = f"INSERT OR REPLACE INTO containments VALUES ({','.join('?' * 10)})"  # noqa: S608
_MEMBER: Final = f"INSERT OR REPLACE INTO contained VALUES ({','.join('?' * 6)})"  # noqa: S608


class Containments:
    """By incident; one for each. Any thread may call."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def save(self, containment: Containment) -> None:
        """Insert or replace with all its processes, durable before returning."""
        x = containment
        row = (
            x.threat_id, self._access.tree_id(x.tree), signed(x.actor_id), x.state.value, x.at_ns, x.changed_at_ns,
            x.boot_id, x.release_boot_ns, x.cgroup, storable(x.note),
        )  # fmt: skip
        members = [
            (x.threat_id, y.member.pid, y.member.start_ticks, y.exe, int(y.fate), storable(y.note)) for y in x.members
        ]

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(_SAVE, row)
            connection.execute("DELETE FROM contained WHERE threat_id = ?", (x.threat_id,))
            connection.executemany(_MEMBER, members)

        self._access.durable(work, essential=True, timeout_s=TIMEOUT_S)

    def of(self, threat_id: str) -> Containment | None:
        """That of an incident, None where nothing was ever held for it."""
        found = self._found(Where().add("threat_id = ?", threat_id))
        return found[0] if found else None

    def held(self) -> list[Containment]:
        """Those in force, oldest first."""
        return self._found(Where().add("state = ?", Holding.HELD.value))

    def _found(self, where: Where) -> list[Containment]:
        return self._access.records(self._containment, "SELECT * FROM containments{where} ORDER BY at_ns", where)

    def _containment(self, row: Row) -> Containment:
        members = self._access.records(
            _member, "SELECT * FROM contained{where} ORDER BY start_ticks, pid",
            Where().add("threat_id = ?", row["threat_id"]),
        )  # fmt: skip
        return Containment(
            threat_id=row["threat_id"],
            tree=self._access.tree_index(row["tree"]),
            actor_id=unsigned(row["actor_id"]),
            state=Holding(row["state"]),
            at_ns=row["at_ns"],
            changed_at_ns=row["changed_at_ns"],
            boot_id=row["boot_id"],
            release_boot_ns=row["release_boot_ns"],
            cgroup=row["cgroup"],
            note=row["note"],
            members=tuple(members),
        )


def _member(row: Row) -> ContainedProcess:
    return ContainedProcess(Member(row["pid"], row["start_ticks"]), row["exe"], Fate(row["fate"]), row["note"])
