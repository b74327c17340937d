"""Events: what goes in comes out, filters agree with a plain reading, too many are counted."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldd.errors import ShieldError
from shieldd.model.decision import Action, Severity
from shieldd.model.event import Kind
from shieldd.store import EventFilter, Keep, Store
from shieldd.store.records import LIMIT_MAX
from tests.store.build import ROOTS, action, batch, decision

DAY_NS = 86_400 * 10**9


def test_a_batch_comes_back_with_its_decisions(store: Store) -> None:
    first = store.record_events(batch([b"a", b"b/\xff\n"], first_seq=70), [decision(71)], {71: "t1"})
    store.flush()
    plain, acted = store.events().items
    assert (plain.seq, plain.path, plain.action, plain.severity) == (first, b"a", Action.ALLOW, Severity.INFORMATIONAL)
    assert (acted.path, acted.action, acted.severity, acted.threat_id) == (
        b"b/\xff\n",
        Action.SEAL,
        Severity.HIGH,
        "t1",
    )
    assert (plain.kind, plain.pid, plain.uid, plain.actor) == (Kind.WRITE, -1, -1, 2**64 - 1)
    [kept] = store.decisions(threat_id="t1")
    assert (kept.seq, kept.decision) == (first + 1, decision(71))
    assert len(kept.observation) == 4 * 4
    assert store.decisions(seq=first) == []


def test_numbers_go_on_after_a_restart(reopen: Callable[[], Store]) -> None:
    first = reopen()
    first.record_events(batch([b"a", b"b"]))
    first.close()
    assert reopen().record_events(batch([b"c"])) == 3


def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert store.record_events(batch([])) == 1
    assert store.record_events(batch([b"a"])) == 1


def test_a_reader_pages_on_by_number(store: Store) -> None:
    store.record_events(batch([b"%d" % n for n in range(25)]))
    store.flush()
    seen: list[int] = []
    after, more = 0, True
    while more:
        page = store.events(EventFilter(after_seq=after, limit=10))
        seen += [event.seq for event in page.items]
        after, more = seen[-1], page.more
    assert seen == list(range(1, 26))


_NAMES = st.binary(min_size=1, max_size=6).filter(lambda name: b"\0" not in name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    paths=st.lists(st.lists(_NAMES, min_size=1, max_size=3).map(b"/".join), min_size=1, max_size=20),
    under=st.binary(max_size=3).filter(lambda name: b"\0" not in name),
    since=st.integers(0, 25) | st.none(),
    until=st.integers(0, 25) | st.none(),
    limit=st.integers(1, 30),
)
def test_filters_agree_with_a_plain_reading(
    tmp_path_factory: pytest.TempPathFactory,
    paths: list[bytes],
    under: bytes,
    since: int | None,
    until: int | None,
    limit: int,
) -> None:
    with Store(tmp_path_factory.mktemp("s") / "state/shieldd.db", roots=ROOTS) as store:
        store.record_events(batch(paths, at_ns=1))
        store.flush()
        clean = under.rstrip(b"/")
        wanted = [
            path
            for at, path in enumerate(paths, 1)
            if (since is None or at >= since)
            and (until is None or at < until)
            and (not under or path == clean or path.startswith(clean + b"/"))
        ]
        page = store.events(EventFilter(since_ns=since, until_ns=until, under=under, limit=limit))
        assert [event.path for event in page.items] == wanted[-limit:]
        assert page.more == (len(wanted) > limit)


def test_filters_by_kind_tree_action_and_threat(store: Store) -> None:
    store.record_events(batch([b"a"]), [decision(1, action=Action.CONTAIN)], {1: "t1"})
    store.record_events(batch([b"b"], tree=1, first_seq=2))
    store.flush()
    for wanted, paths in (
        (EventFilter(tree=1), [b"b"]),
        (EventFilter(kind=Kind.READ), []),
        (EventFilter(action=Action.CONTAIN), [b"a"]),
        (EventFilter(action=Action.ALLOW), [b"b"]),
        (EventFilter(least_action=Action.ALERT), [b"a"]),
        (EventFilter(threat_id="t1"), [b"a"]),
    ):
        assert [event.path for event in store.events(wanted).items] == paths, wanted


def test_who_asks_for_none_gets_none(store: Store) -> None:
    store.record_events(batch([b"a"]))
    store.flush()
    assert store.events(EventFilter(limit=0)).items == ()


@pytest.mark.parametrize("limit", [-1, LIMIT_MAX + 1])
def test_limits_have_limits(limit: int) -> None:
    with pytest.raises(ShieldError):
        EventFilter(limit=limit)


def test_trees_keep_their_records_when_their_order_changes(database: Path) -> None:
    with Store(database, roots=ROOTS) as store:
        store.record_events(batch([b"old"], tree=0))
        store.intend([action("a1")])
    with Store(database, roots=[b"/new", ROOTS[1]]) as store:
        assert store.roots == (b"/new", ROOTS[1], ROOTS[0])
        assert store.roots[store.events().items[0].tree] == ROOTS[0]
        assert store.pending()[0].tree == 1


def test_a_full_queue_drops_events_and_counts_them_and_never_an_intent(database: Path) -> None:
    with Store(database, roots=ROOTS, queue_records=100) as store:
        gate, entered = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            entered.set()
            gate.wait(10)

        waiting = threading.Thread(target=lambda: store._access.durable(hold, timeout_s=20))
        waiting.start()
        assert entered.wait(10)
        for _ in range(5):
            store.record_events(batch([b"x"] * 40))
        assert store.status().dropped == 120
        intending = threading.Thread(target=lambda: store.intend([action("a1")]))
        intending.start()
        gate.set()
        intending.join()
        waiting.join()
        store.flush()
        assert [x.id for x in store.pending()] == ["a1"]
        assert len(store.events(EventFilter(limit=1000)).items) == 80
        # Numbers of what was dropped are not given again.
        assert store.record_events(batch([b"y"])) == 201


class TestRetention:
    """Events go by age and number; what people may be asked about stays for years."""

    KEEP = Keep(events_days=10, events_max=1000, incidents_days=100, actions_days=100)

    def test_by_age(self, store: Store) -> None:
        now = 200 * DAY_NS
        store.record_events(batch([b"old"], at_ns=now - 11 * DAY_NS), [decision(1)], {1: "t1"})
        store.record_events(batch([b"new"], at_ns=now - 9 * DAY_NS))
        store.intend([action("old", at_ns=now - 101 * DAY_NS), action("new", at_ns=now - 99 * DAY_NS)])
        store.flush()
        taken = store.prune(self.KEEP, now)
        assert (taken.events, taken.actions) == (1, 0)
        assert [event.path for event in store.events().items] == [b"new"]
        assert len(store.pending()) == 2

    def test_by_number(self, store: Store) -> None:
        now = 200 * DAY_NS
        store.record_events(batch([b"%d" % n for n in range(1500)], at_ns=now))
        store.flush()
        assert store.prune(self.KEEP, now).events == 500
        assert store.events(EventFilter(limit=1)).items[0].path == b"1499"
        assert store.counts().events == 1000

    def test_the_file_shrinks(self, store: Store, database: Path) -> None:
        store.record_events(batch([b"n" * 200 + b"%d" % n for n in range(20_000)], at_ns=1))
        store.flush()
        store.prune(self.KEEP, 1)
        with closing(sqlite3.connect(database)) as raw:
            assert raw.execute("PRAGMA auto_vacuum").fetchone() == (2,)
            assert raw.execute("PRAGMA freelist_count").fetchone() == (0,)
            assert raw.execute("PRAGMA page_count").fetchone()[0] < 500
