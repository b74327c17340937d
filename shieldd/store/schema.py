"""The tables, and the way to them from every older version.

Owns: `VERSION` (SQLite's user_version), `migrate`. Paths are BLOBs: a file name is bytes. Tables are STRICT: a value of
another type is refused when it is written, not when it is read. Trees are kept by root, since their order in the
configuration may change between two runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlite_utils import Database

APPLICATION_ID: Final = 0x53484C44  # "SHLD" in the file's header: a foreign database is not taken for ours

_FIRST: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE trees (id INTEGER PRIMARY KEY, root BLOB NOT NULL UNIQUE) STRICT",
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, kind INTEGER NOT NULL, tree INTEGER NOT NULL,
        path BLOB NOT NULL, from_path BLOB, pid INTEGER NOT NULL, uid INTEGER NOT NULL, mode INTEGER NOT NULL,
        merged INTEGER NOT NULL, actor INTEGER NOT NULL, action INTEGER NOT NULL, severity INTEGER NOT NULL,
        threat_id TEXT) STRICT""",
    "CREATE INDEX events_at ON events (at_ns)",
    "CREATE INDEX events_acted ON events (action, seq) WHERE action > 0",
    "CREATE INDEX events_threat ON events (threat_id, seq) WHERE threat_id IS NOT NULL",
    """CREATE TABLE decisions (
        seq INTEGER PRIMARY KEY, threat_id TEXT, source_seq INTEGER NOT NULL, wanted INTEGER NOT NULL,
        action INTEGER NOT NULL, verdict TEXT NOT NULL, rule TEXT NOT NULL, logits TEXT NOT NULL,
        reasons TEXT NOT NULL, severity INTEGER NOT NULL, policy_version TEXT NOT NULL,
        generation INTEGER NOT NULL, at_ns INTEGER NOT NULL, mono_ns INTEGER NOT NULL, tree INTEGER NOT NULL,
        actor INTEGER NOT NULL, path BLOB NOT NULL, observation BLOB NOT NULL) STRICT""",
    "CREATE INDEX decisions_threat ON decisions (threat_id, seq) WHERE threat_id IS NOT NULL",
    """CREATE TABLE incidents (
        id TEXT PRIMARY KEY, opened_at_ns INTEGER NOT NULL, closed_at_ns INTEGER NOT NULL, state TEXT NOT NULL,
        severity INTEGER NOT NULL, actor_pid INTEGER, actor_exe BLOB, actor_cmdline BLOB, actor_uid INTEGER,
        actor_id INTEGER NOT NULL, tree INTEGER NOT NULL, files_touched INTEGER NOT NULL, files_lost INTEGER NOT NULL,
        first_event_at_ns INTEGER NOT NULL, decided_at_ns INTEGER NOT NULL, contained_at_ns INTEGER NOT NULL,
        reasons TEXT NOT NULL, attack TEXT NOT NULL, judgement TEXT, note TEXT NOT NULL) STRICT""",
    "CREATE INDEX incidents_opened ON incidents (opened_at_ns)",
    """CREATE TABLE actions (
        id TEXT PRIMARY KEY, threat_id TEXT NOT NULL, kind TEXT NOT NULL, tree INTEGER NOT NULL, path BLOB NOT NULL,
        at_ns INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, undo TEXT NOT NULL,
        run INTEGER NOT NULL, ended_at_ns INTEGER NOT NULL DEFAULT 0) STRICT""",
    "CREATE INDEX actions_threat ON actions (threat_id, at_ns)",
    "CREATE INDEX actions_at ON actions (at_ns)",
    "CREATE INDEX actions_pending ON actions (id) WHERE outcome = 'pending'",
    """CREATE TABLE files (
        tree INTEGER NOT NULL, path BLOB NOT NULL, original BLOB NOT NULL, size INTEGER NOT NULL,
        sealed_at_ns INTEGER NOT NULL, why TEXT NOT NULL, threat_id TEXT NOT NULL, file_id BLOB NOT NULL,
        key_id BLOB NOT NULL, key_version INTEGER NOT NULL, digest BLOB NOT NULL, generation INTEGER NOT NULL,
        PRIMARY KEY (tree, path)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX files_key ON files (key_id)",
    """CREATE TABLE quarantine (
        id TEXT PRIMARY KEY, tree INTEGER NOT NULL, original BLOB NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL,
        at_ns INTEGER NOT NULL, why TEXT NOT NULL, threat_id TEXT NOT NULL, mode INTEGER NOT NULL,
        uid INTEGER NOT NULL, gid INTEGER NOT NULL, modified_at_ns INTEGER NOT NULL, digest BLOB NOT NULL,
        file_id BLOB NOT NULL, key_id BLOB NOT NULL, key_version INTEGER NOT NULL,
        generation INTEGER NOT NULL) STRICT""",
    "CREATE INDEX quarantine_key ON quarantine (key_id)",
    """CREATE TABLE key_versions (
        key_id BLOB PRIMARY KEY, purpose INTEGER NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL,
        provider TEXT NOT NULL, created_at_ns INTEGER NOT NULL, changed_at_ns INTEGER NOT NULL, why TEXT NOT NULL,
        uses INTEGER NOT NULL, UNIQUE (purpose, version)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE key_history (
        id INTEGER PRIMARY KEY, key_id BLOB NOT NULL, at_ns INTEGER NOT NULL, state TEXT NOT NULL,
        why TEXT NOT NULL) STRICT""",
    """CREATE TABLE labels (
        id INTEGER PRIMARY KEY, threat_id TEXT NOT NULL, judgement TEXT NOT NULL, note TEXT NOT NULL,
        uid INTEGER NOT NULL, at_ns INTEGER NOT NULL) STRICT""",
)
_ALERTS_AND_CANARIES: Final = (
    """CREATE TABLE alerts (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER NOT NULL, severity INTEGER NOT NULL,
        threat_id TEXT NOT NULL, kind TEXT NOT NULL, tree INTEGER, path BLOB NOT NULL, text TEXT NOT NULL) STRICT""",
    "CREATE INDEX alerts_at ON alerts (at_ns)",
    """CREATE TABLE canaries (
        tree INTEGER NOT NULL, path BLOB NOT NULL, digest BLOB NOT NULL, planted_at_ns INTEGER NOT NULL,
        PRIMARY KEY (tree, path)) STRICT, WITHOUT ROWID""",
)
_RESTORES: Final = (
    """CREATE TABLE restore_plans (
        id TEXT PRIMARY KEY, threat_id TEXT NOT NULL, tree INTEGER NOT NULL, made_at_ns INTEGER NOT NULL,
        state TEXT NOT NULL, attributed INTEGER NOT NULL, steps INTEGER NOT NULL,
        ended_at_ns INTEGER NOT NULL DEFAULT 0) STRICT""",
    "CREATE INDEX restore_plans_threat ON restore_plans (threat_id, made_at_ns)",
    """CREATE TABLE restore_steps (
        plan TEXT NOT NULL, number INTEGER NOT NULL, tree INTEGER NOT NULL, path BLOB NOT NULL, act TEXT NOT NULL,
        found TEXT NOT NULL, conflict TEXT NOT NULL, lost INTEGER NOT NULL, version TEXT NOT NULL,
        at_ns INTEGER NOT NULL, other BLOB NOT NULL, wanted TEXT, there TEXT, text TEXT NOT NULL,
        aside INTEGER NOT NULL, hidden BLOB NOT NULL, begun INTEGER NOT NULL DEFAULT 0, outcome TEXT NOT NULL,
        code TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (plan, number)) STRICT, WITHOUT ROWID""",
)
_CONTAINMENTS: Final = (
    "ALTER TABLE incidents ADD COLUMN held_at_ns INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE incidents ADD COLUMN files_preserved INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE incidents ADD COLUMN files_per_s REAL NOT NULL DEFAULT 0",
    """CREATE TABLE containments (
        threat_id TEXT PRIMARY KEY, tree INTEGER NOT NULL, actor_id INTEGER NOT NULL, state TEXT NOT NULL,
        at_ns INTEGER NOT NULL, changed_at_ns INTEGER NOT NULL, boot_id TEXT NOT NULL,
        release_boot_ns INTEGER NOT NULL, cgroup BLOB NOT NULL, note TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE contained (
        threat_id TEXT NOT NULL, pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL, exe BLOB NOT NULL,
        fate INTEGER NOT NULL, note TEXT NOT NULL,
        PRIMARY KEY (threat_id, pid, start_ticks)) STRICT, WITHOUT ROWID""",
)


def _run(statements: tuple[str, ...]) -> Callable[[Database], None]:
    def step(db: Database) -> None:
        for statement in statements:
            db.execute(statement)

    return step


# Step N takes version N to N + 1. A step that has been released is never edited.
_ALL: Final = (_FIRST, _ALERTS_AND_CANARIES, _RESTORES, _CONTAINMENTS)
STEPS: Final[tuple[Callable[[Database], None], ...]] = tuple(_run(step) for step in _ALL)
VERSION: Final = len(STEPS)
TABLES: Final = frozenset(statement.split()[2] for step in _ALL for statement in step if "CREATE TABLE" in statement)


def migrate(db: Database, version: int) -> None:
    """Bring a database from `version` to `VERSION`, each step whole or not at all."""
    for number in range(version, VERSION):
        with db.atomic():
            STEPS[number](db)
            db.execute(f"PRAGMA user_version = {number + 1}")
