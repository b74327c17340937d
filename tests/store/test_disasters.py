"""Disasters of the store: killed, full, damaged, foreign, newer, opened twice, restored from a backup."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shieldd.errors import ShieldError
from shieldd.store import ActionFilter, EventFilter, StateDir, Store, schema
from shieldd.store.writer import RESERVE_BYTES
from tests.store.build import ROOTS, End, action, batch, descriptors, incident

CHILD = """
import sys
from pathlib import Path
from shieldd.store import Store
from tests.store.build import ROOTS, End, action, batch
store = Store(Path(sys.argv[1]), roots=ROOTS)
turn = len(store.actions().items)
print("ready", flush=True)
while True:
    turn += 1
    name = f"{sys.argv[2]}-{turn}"
    store.record_events(batch([b"e%d" % turn] * 20))
    store.intend([action(name)])
    print("intended", name, flush=True)
    store.finish([End(name)])
    print("finished", name, flush=True)
"""


def refused(database: Path) -> ShieldError:
    before = descriptors()
    with pytest.raises(ShieldError) as caught:
        Store(database, roots=ROOTS)
    assert descriptors() == before
    return caught.value


def filled(database: Path, count: int = 300) -> None:
    with Store(database, roots=ROOTS) as store:
        store.record_events(batch([b"ward/%d.dcm" % n for n in range(count)]))
        store.intend([action("a1")])
        store.save_incident(incident("i1"))


def child(database: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(database), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_nothing_that_was_promised_is_gone(database: Path, seed: int) -> None:
    """Every intent that `intend` returned for is there, every end that `finish` returned for too."""
    chance = random.Random(seed)
    intended: set[str] = set()
    finished: set[str] = set()
    for turn in range(3):
        process = child(database, f"run{turn}")
        assert process.stdout is not None
        for _ in range(chance.randrange(2, 120)):
            word, _, name = process.stdout.readline().strip().partition(" ")
            {"intended": intended, "finished": finished}.get(word, set()).add(name)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            word, _, name = line.strip().partition(" ")
            if line.endswith("\n"):
                {"intended": intended, "finished": finished}.get(word, set()).add(name)
        process.communicate()
    with Store(database, roots=ROOTS) as store:
        assert store.reports == ()
        known = {row["id"]: row["outcome"] for row in store._access.rows("SELECT id, outcome FROM actions")}
        assert intended <= set(known)
        assert all(known[name] == "done" for name in finished)
        # At most the one that was under way in each run is there beyond what was told.
        assert len(set(known) - intended) <= 3
        assert len(store.pending()) <= 3


def test_two_daemons_on_one_state_directory(database: Path) -> None:
    process = child(database, "first")
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    try:
        assert refused(database).code == "daemon.running"
    finally:
        process.kill()
        process.communicate()
    with Store(database, roots=ROOTS):
        assert refused(database).code == "daemon.running"
    Store(database).close()


def test_a_forked_child_may_not_write(store: Store) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = b"none"
        try:
            store.intend([action("from-the-child")])
        except ShieldError as error:
            told = error.code.encode()
        os.write(writing, told)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as source:
        assert source.read() == b"store.closed"
    os.waitpid(pid, 0)


def test_a_store_of_a_newer_version_is_left_alone(database: Path) -> None:
    filled(database)
    with closing(sqlite3.connect(database)) as raw:
        raw.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = database.read_bytes()
    error = refused(database)
    assert error.code == "store.newer"
    assert str(schema.VERSION + 1) in error.message
    assert database.read_bytes() == before
    assert sorted(path.name for path in database.parent.iterdir() if "damaged" in path.name) == []


@pytest.mark.parametrize("version", range(schema.VERSION))
def test_a_store_of_each_older_version_is_brought_up(database: Path, version: int) -> None:
    database.parent.mkdir(mode=0o700)
    from sqlite_utils import Database

    old = Database(sqlite3.connect(database, isolation_level=None))
    old.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    for number in range(version):
        with old.atomic():
            schema.STEPS[number](old)
            old.execute(f"PRAGMA user_version = {number + 1}")
    if version:
        old.execute("INSERT INTO trees (root) VALUES (?)", [ROOTS[0]])
        old.execute("INSERT INTO labels VALUES (1, 't1', 'benign', 'kept', 0, 5)")
    old.conn.close()
    database.chmod(0o600)
    with Store(database, roots=ROOTS) as store:
        assert store.reports == ()
        assert [label.note for label in store.labels()] == (["kept"] if version else [])
    with Store(database, roots=ROOTS) as store, closing(sqlite3.connect(database)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert {row[0] for row in raw.execute("SELECT name FROM sqlite_schema WHERE type='table'")} >= schema.TABLES


def aside(database: Path) -> list[Path]:
    return [path for path in database.parent.iterdir() if path.name.startswith("shieldd.db.damaged-")]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def scribbled(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw), 4096):
        raw[at : at + 64] = os.urandom(64)
    path.write_bytes(raw)


def text(path: Path) -> None:
    path.write_text("this is no database\n" * 100)


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE notes (x)")
    path.chmod(0o600)


def short_of_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("DROP TABLE incidents")


@pytest.mark.parametrize("damage", [cut, zeroed, scribbled, text, foreign, short_of_a_table])
def test_a_damaged_store_is_set_aside_and_told(database: Path, damage: Callable[[Path], None]) -> None:
    filled(database)
    damage(database)
    before = database.read_bytes()
    with Store(database, roots=ROOTS) as store:
        [report] = store.reports
        assert report.code == "store.damaged"
        assert store.fresh
        assert store.pending() == []
        store.intend([action("goes-on")])
    [kept] = aside(database)
    assert os.fsencode(kept) == report.aside
    assert kept.read_bytes() == before


def test_damaged_twice_both_are_kept(database: Path) -> None:
    for _ in range(2):
        filled(database)
        text(database)
    Store(database).close()
    assert len(aside(database)) == 2


def test_any_flipped_byte_is_refused_told_or_harmless(database: Path) -> None:
    """No crash, no foreign exception: a report, or a store whose every record still reads."""
    filled(database, 40)
    whole = database.read_bytes()
    chance = random.Random(5)
    written = [at for at, byte in enumerate(whole) if byte]
    for at in [*range(0, 100, 7), *chance.sample(written, 60)]:
        raw = bytearray(whole)
        raw[at] ^= 1 << chance.randrange(8)
        database.write_bytes(raw)
        database.chmod(0o600)
        try:
            with Store(database, roots=ROOTS) as store:
                for read in (store.events, store.actions, store.incidents, store.counts, store.pending):
                    try:
                        read()
                    except ShieldError as error:
                        assert error.code.startswith("store."), at
        except ShieldError as error:
            assert error.code in ("store.newer", "store.damaged", "store.io"), at
        for path in database.parent.iterdir():
            if path.name.startswith("shieldd.db"):
                path.unlink()


def test_a_log_left_by_a_crash_is_replayed(database: Path) -> None:
    process = child(database, "run")
    assert process.stdout is not None
    while "finished" not in process.stdout.readline():
        continue
    process.kill()
    process.communicate()
    assert database.with_name("shieldd.db-wal").stat().st_size > 0
    with Store(database, roots=ROOTS) as store:
        assert store.reports == ()
        assert store.actions().items


def test_a_log_left_by_a_crash_is_not_replayed_into_a_restored_backup(database: Path, tmp_path: Path) -> None:
    filled(database)
    with Store(database, roots=ROOTS) as store:
        store.backup(tmp_path / "backup.db")
    process = child(database, "later")
    assert process.stdout is not None
    while "finished" not in process.stdout.readline():
        continue
    process.kill()
    process.communicate()
    database.unlink()
    shutil.copy(tmp_path / "backup.db", database)
    with Store(database, roots=ROOTS) as store:
        assert [report.code for report in store.reports] == ["store.damaged"]
        assert b"-wal.damaged-" in store.reports[0].aside
        assert [x.id for x in store.actions().items] == ["a1"]


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o770])
def test_a_state_directory_that_others_may_enter(database: Path, mode: int) -> None:
    database.parent.mkdir()
    database.parent.chmod(mode)
    assert refused(database).code == "store.unsafe"


def test_a_state_directory_that_is_a_link(database: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    database.parent.symlink_to(tmp_path / "real")
    assert refused(database).code == "store.unsafe"


def test_a_store_that_is_a_link_or_open_to_others(database: Path, tmp_path: Path) -> None:
    database.parent.mkdir(mode=0o700)
    database.symlink_to(tmp_path / "elsewhere")
    assert refused(database).code == "store.unsafe"
    assert not (tmp_path / "elsewhere").exists()
    database.unlink()
    database.touch()
    database.chmod(0o666)
    assert refused(database).code == "store.unsafe"


@pytest.mark.root
def test_a_state_directory_of_another(database: Path) -> None:
    database.parent.mkdir(mode=0o700)
    os.chown(database.parent, 1000, 1000)
    assert refused(database).code == "store.unsafe"


def test_everything_is_owner_only(store: Store, database: Path) -> None:
    store.intend([action("a1")])
    for path in database.parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_disk_that_hangs_is_told_within_two_seconds_and_leaves_no_intent(store: Store) -> None:
    gate = threading.Event()
    blocking = threading.Thread(target=lambda: store._access.durable(lambda _: gate.wait(20), timeout_s=30))
    blocking.start()
    try:
        with pytest.raises(ShieldError) as caught:
            store.intend([action("late")])
        assert caught.value.code == "store.busy"
    finally:
        gate.set()
        blocking.join()
    store.flush()
    assert store.pending() == []


def test_after_close_everything_is_refused_by_name(database: Path) -> None:
    store = Store(database, roots=ROOTS)
    store.close()
    store.close()
    for use in (lambda: store.intend([action("a")]), store.events, lambda: store.record_events(batch([b"a"]))):
        with pytest.raises(ShieldError) as caught:
            use()
        assert caught.value.code == "store.closed"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for little."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> Path:
    """Take all the room that is left."""
    ballast = place / "ballast"
    with ballast.open("ab", buffering=0) as out:
        size = 1 << 20
        while size:
            try:
                if out.write(bytes(size)) < size:
                    size //= 2
            except OSError:
                size //= 2
    return ballast


@pytest.mark.root
class TestFullDisk:
    """An intent is refused, a result is kept, and all goes on once there is room."""

    def test_no_act_begins_whose_end_could_not_be_written(self, small_disk: Path) -> None:
        database = small_disk / "state/shieldd.db"
        with Store(database, roots=ROOTS) as store:
            begun = [f"begun{n}" for n in range(200)]
            store.intend([action(name) for name in begun])
            ballast = fill(small_disk)
            refusals = 0
            for number in range(3000):
                try:
                    store.intend([action(f"more{number}", path=b"p" * 3000)])
                except ShieldError as error:
                    assert error.code == "store.full"
                    refusals += 1
                    if refusals > 3:
                        break
                else:
                    begun.append(f"more{number}")
            assert refusals
            # The results of all that was begun find room, by the reserve.
            for name in begun:
                store.finish([End(name, reason="r" * 500)])
            assert store.pending() == []
            store.record_events(batch([b"n" * 200] * 5000))
            store.flush()
            ballast.unlink()
            store.intend([action("after")])
            assert not store.status().full
            assert [x.id for x in store.pending()] == ["after"]
        with Store(database, roots=ROOTS) as store:
            assert store.reports == ()
            assert {x.id for x in store.actions(ActionFilter(limit=10_000)).items} >= set(begun)

    def test_events_that_find_no_room_are_counted(self, small_disk: Path) -> None:
        with Store(small_disk / "state/shieldd.db", roots=ROOTS) as store:
            fill(small_disk)
            for _ in range(40):
                store.record_events(batch([b"n" * 300] * 1000))
            store.flush()
            assert store.status().failed > 0
            kept = len(store.events(EventFilter(limit=100_000)).items)
            assert kept + store.status().failed == 40_000

    def test_a_store_cannot_be_begun(self, small_disk: Path) -> None:
        fill(small_disk)
        assert refused(small_disk / "state/shieldd.db").code in ("store.full", "store.io")

    def test_a_start_on_a_full_disk_gives_the_reserve_up(self, small_disk: Path) -> None:
        database = small_disk / "state/shieldd.db"
        with Store(database, roots=ROOTS) as store:
            store.intend([action("begun")])
        ballast = fill(small_disk)
        for _ in range(20):  # each start and its end needs no room that the one before had
            with Store(database, roots=ROOTS) as store:
                assert store.status().full
                with pytest.raises(ShieldError, match="no space"):
                    store.intend([action("refused")])
                store.record_events(batch([b"n" * 200] * 5000))
                store.flush()
                assert store.status().failed == 5000, "they do not eat what the results need"
        with Store(database, roots=ROOTS) as store:
            store.finish([End("begun")])
            ballast.unlink()
            store.intend([action("after")])
            assert not store.status().full

    def test_the_reserve_is_back_when_there_is_room(self, small_disk: Path) -> None:
        database = small_disk / "state/shieldd.db"
        with Store(database, roots=ROOTS) as store:
            store.intend([action("a1")])
            assert database.with_name("shieldd.db-reserve").stat().st_size == RESERVE_BYTES


def test_a_locked_directory_is_given_back(tmp_path: Path) -> None:
    place = tmp_path / "state"
    for _ in range(3):
        with StateDir(place), pytest.raises(ShieldError):
            StateDir(place)
