"""What is known of keys: versions, states with time and reason, use counts, the keystore's generation. Never a key.

The generation is written here too, so that a keystore put back from an old copy is noticed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from shieldd.model.key import KeyRecord, KeyState
from shieldd.store.access import Access
from shieldd.store.coding import storable
from shieldd.store.records import Where

_KEYSTORE: Final = "keystore."
_UPSERT: Final = (
    "INSERT INTO key_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key_id) DO UPDATE SET"
    " state = excluded.state, provider = excluded.provider, changed_at_ns = excluded.changed_at_ns,"
    " why = excluded.why, uses = max(uses, excluded.uses)"
)
_MOVED: Final = (
    "INSERT INTO key_history (key_id, at_ns, state, why) SELECT ?1, ?2, ?3, ?4 WHERE ?3 IS NOT"
    " (SELECT state FROM key_history WHERE key_id = ?1 ORDER BY id DESC LIMIT 1)"
)
_META: Final = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"


class KeyRecords:
    """One per store; any thread may call."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def keystore(self) -> tuple[str, int] | None:
        """Id and highest generation of the keystore that this store has seen; None before the first."""
        rows = self._access.rows("SELECT key, value FROM meta WHERE key LIKE 'keystore.%'")
        found = {row["key"].removeprefix(_KEYSTORE): row["value"] for row in rows}
        return (found["id"], int(found["generation"])) if "id" in found else None

    def record(self, keystore_id: str, generation: int, records: Sequence[KeyRecord]) -> None:
        """Write generation and versions in one durable transaction; each new state goes into the history."""
        rows = [
            (
                x.key_id,
                x.purpose,
                x.version,
                x.state.value,
                x.provider,
                x.created_at_ns,
                x.changed_at_ns,
                storable(x.why),
                x.uses,
            )
            for x in records
        ]
        moves = [(x.key_id, x.changed_at_ns, x.state.value, storable(x.why)) for x in records]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                _META, [(_KEYSTORE + "id", keystore_id), (_KEYSTORE + "generation", str(generation))]
            )
            connection.executemany(_UPSERT, rows)
            connection.executemany(_MOVED, moves)

        self._access.durable(work, essential=True, timeout_s=10.0)

    def versions(self, purpose: int | None = None) -> list[KeyRecord]:
        """By purpose, then version."""
        where = Where().add("purpose = ?", purpose)
        sql = "SELECT * FROM key_versions{where} ORDER BY purpose, version"
        return self._access.records(lambda row: KeyRecord(**{**row, "state": KeyState(row["state"])}), sql, where)

    def history(self, key_id: bytes) -> list[tuple[int, str, str]]:
        """(time, state, why) of each change of state, oldest first."""
        where = Where().add("key_id = ?", key_id)
        rows = self._access.rows("SELECT at_ns, state, why FROM key_history{where} ORDER BY id", where)
        return [(row["at_ns"], row["state"], row["why"]) for row in rows]

    def used(self, counts: Mapping[bytes, int]) -> None:
        """Add to the use counters; durable, so that a limit (SP 800-38D) holds over restarts."""
        rows = [(count, key_id) for key_id, count in counts.items()]
        sql = "UPDATE key_versions SET uses = uses + ? WHERE key_id = ?"
        self._access.durable(lambda c: c.executemany(sql, rows), essential=True, timeout_s=10.0)

    def objects(self) -> dict[bytes, int]:
        """Key id → sealed files and quarantined objects whose header it wraps."""
        sql = (
            "SELECT key_id, sum(n) AS n FROM (SELECT key_id, count(*) AS n FROM files GROUP BY key_id"
            " UNION ALL SELECT key_id, count(*) AS n FROM quarantine GROUP BY key_id) GROUP BY key_id"
        )
        return {row["key_id"]: row["n"] for row in self._access.rows(sql)}
