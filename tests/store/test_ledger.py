"""Acts, incidents, alerts, labels: what is announced is on the disk, what is ended stays ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome, Severity
from shieldd.model.incident import Judgement, State
from shieldd.store import ActionFilter, AlertFilter, IncidentFilter, Label, Store
from tests.store.build import End, action, incident


def test_an_intent_is_pending_until_it_ends(store: Store) -> None:
    store.intend([action("a1"), action("a2", at_ns=2_000)])
    assert [x.id for x in store.pending()] == ["a1", "a2"]
    store.finish([End("a1", Outcome.DONE, "sealed", "undo")])
    assert [x.id for x in store.pending()] == ["a2"]
    done = store.actions(ActionFilter(outcome=Outcome.DONE)).items[0]
    assert done == replace(action("a1"), outcome=Outcome.DONE, reason="sealed", undo="undo")


def test_what_a_stop_cut_off_reads_as_failed_but_stays_to_be_cleaned_up(reopen: Callable[[], Store]) -> None:
    first = reopen()
    first.intend([action("a1")])
    assert first.actions().items[0].outcome is Outcome.PENDING
    first.close()
    second = reopen()
    assert [(x.outcome, x.undo) for x in second.actions().items] == [(Outcome.FAILED, "")]
    assert second.actions(ActionFilter(outcome=Outcome.FAILED)).items
    assert not second.actions(ActionFilter(outcome=Outcome.PENDING)).items
    assert [x.outcome for x in second.pending()] == [Outcome.PENDING]
    second.finish([End("a1", Outcome.DONE, "finished by recovery")])
    assert second.pending() == []
    assert second.actions().items[0].outcome is Outcome.DONE


def test_an_end_without_a_beginning_is_refused(store: Store) -> None:
    with pytest.raises(ShieldError) as caught:
        store.finish([End("never")])
    assert caught.value.code == "store.value"


def test_a_bad_act_does_not_spoil_its_neighbours(store: Store) -> None:
    store.intend([action("a1")])
    with pytest.raises(ShieldError) as caught:
        store.intend([action("a2"), action("a1")])
    assert caught.value.code == "store.value"
    assert [x.id for x in store.pending()] == ["a1"]
    with pytest.raises(ShieldError):
        store.intend([replace(action("a3"), tree=9)])


def test_many_threads_share_the_disk(store: Store) -> None:
    def one(number: int) -> None:
        for turn in range(20):
            store.intend([action(f"t{number}-{turn}")])
            store.finish([End(f"t{number}-{turn}")])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.pending() == []
    assert len(store.actions(ActionFilter(limit=1000, outcome=Outcome.DONE)).items) == 160


def test_acts_by_time_kind_and_threat(store: Store) -> None:
    store.intend([action(f"a{n}", at_ns=n, threat=f"t{n % 2}") for n in range(10)])
    page = store.actions(ActionFilter(threat_id="t1", limit=3))
    assert ([x.at_ns for x in page.items], page.more) == ([5, 7, 9], True)
    assert [x.at_ns for x in store.actions(ActionFilter(since_ns=3, until_ns=5)).items] == [3, 4]
    assert not store.actions(ActionFilter(kind=ActionKind.QUARANTINE)).items


def test_an_incident_comes_back_as_it_was(store: Store) -> None:
    kept = incident("abcdef0001")
    store.save_incident(kept)
    assert store.incident("abcdef0001") == kept
    assert store.incident("abcdef") == kept
    resolved = replace(kept, state=State.RESOLVED, judgement=Judgement.BENIGN, note="a backup", actor=None)
    store.save_incident(resolved)
    assert store.incident("abcdef") == resolved


def test_an_incident_is_found_by_a_beginning_that_no_other_has(store: Store) -> None:
    store.save_incident(incident("abcdef0001"))
    store.save_incident(incident("abcdef0002"))
    for prefix, code in (
        ("abcdef", "api.ambiguous"),
        ("zz", "api.not-found"),
        ("", "api.not-found"),
        ("%", "api.not-found"),
    ):
        with pytest.raises(ShieldError) as caught:
            store.incident(prefix)
        assert caught.value.code == code


def test_of_many_updates_the_last_is_kept(store: Store) -> None:
    for touched in range(500):
        store.save_incident(incident("i1", touched=touched), wait=False)
    store.flush()
    assert store.incident("i1").files_touched == 499


def test_a_waiting_update_does_not_overwrite_a_later_one(store: Store) -> None:
    for turn in range(50):
        store.save_incident(incident("i1", touched=turn), wait=False)
        store.save_incident(incident("i1", touched=1000 + turn))
        store.flush()
        assert store.incident("i1").files_touched == 1000 + turn


def test_incidents_by_state_severity_and_time(store: Store) -> None:
    for n in range(6):
        state = State.OPEN if n % 2 else State.RESOLVED
        store.save_incident(incident(f"i{n}", opened_at_ns=n, state=state))
    assert [x.id for x in store.incidents(IncidentFilter(state=State.OPEN)).items] == ["i1", "i3", "i5"]
    assert [x.id for x in store.incidents(IncidentFilter(since_ns=4)).items] == ["i4", "i5"]
    assert store.incidents(IncidentFilter(severity=Severity.CRITICAL, tree=1, limit=2)).more
    assert not store.incidents(IncidentFilter(tree=0)).items
    counts = store.counts()
    assert (counts.incidents_open, counts.incidents) == (3, 6)


def test_alerts_are_numbered_without_a_gap(store: Store) -> None:
    made = [store.alert(Severity(1 + n % 5), f"alert {n}", at_ns=n, tree=1, path=b"\xff") for n in range(10)]
    assert [x.seq for x in made] == list(range(1, 11))
    assert store.alerts(AlertFilter(severity=Severity.CRITICAL)).items == (made[4], made[9])
    page = store.alerts(AlertFilter(after_seq=2, limit=3))
    assert ([x.seq for x in page.items], page.more) == ([3, 4, 5], True)


def test_alert_numbers_are_never_used_again(reopen: Callable[[], Store]) -> None:
    first = reopen()
    first.alert(Severity.LOW, "one", at_ns=1)
    first.close()
    assert reopen().alert(Severity.LOW, "two", at_ns=2).seq == 2


def test_labels_add_up(store: Store) -> None:
    said = [Label("t1", Judgement.BENIGN, "backup", 0, 1), Label("t1", Judgement.MALICIOUS, "no, it was not", 1000, 2)]
    for label in said:
        store.label(label)
    assert store.labels("t1") == said
    assert store.labels("t2") == []


def test_text_that_is_no_text_is_kept_readable(store: Store) -> None:
    assert store.alert(Severity.LOW, "name \udcff", at_ns=1).text == "name ?"
