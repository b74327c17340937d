"""Inventories: sealed files, quarantine, canaries, and which key wraps what."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from shieldd.errors import ShieldError
from shieldd.model.key import KeyRecord, KeyState
from shieldd.store import Canary, QuarantineRecord, SealedRecord, Store

OLD, NEW = b"k" * 16, b"n" * 16


def sealed(path: bytes, *, key: bytes = OLD, tree: int = 0) -> SealedRecord:
    return SealedRecord(tree, path + b".shield", path, 9, 1, "asked for", "", b"f" * 16, key, 1, b"d" * 32)


def quarantined(number: str, *, key: bytes = OLD, at_ns: int = 1) -> QuarantineRecord:
    return QuarantineRecord(
        number, 0, b"dir/\xff", b"q-" + number.encode(), 9, at_ns, "eicar", "t1", 0o4755, 1000, 1000, 5, b"d" * 32,
        b"f" * 16, key, 1,
    )  # fmt: skip


def test_files_come_back_by_path(store: Store) -> None:
    records = [sealed(b"b/2"), sealed(b"a"), sealed(b"b/\xff"), sealed(b"b0")]
    store.files.upsert(records)
    assert store.files.get(0, b"a.shield") == records[1]
    assert store.files.get(1, b"a.shield") is None
    assert [x.original for x in store.files.list().items] == [b"a", b"b/2", b"b/\xff", b"b0"]
    assert [x.original for x in store.files.list(under=b"b").items] == [b"b/2", b"b/\xff"]
    page = store.files.list(limit=2)
    assert page.more
    assert [x.original for x in store.files.list(after=(0, page.items[-1].path)).items] == [b"b/\xff", b"b0"]
    store.files.remove([(0, b"a.shield"), (0, b"never")])
    assert store.files.count() == 3


def test_files_are_rebuilt_from_what_lies_there(store: Store) -> None:
    store.files.upsert([sealed(b"gone"), sealed(b"other", tree=1)])
    assert store.files.rebuild(0, [sealed(b"found")]) == 1
    assert [x.original for x in store.files.list().items] == [b"found", b"other"]


def test_the_quarantine_by_age_and_id(store: Store) -> None:
    store.quarantine.upsert([quarantined("abcdef01", at_ns=5), quarantined("abcdef02", at_ns=3)])
    assert store.quarantine.get("abcdef01") == quarantined("abcdef01", at_ns=5)
    assert [x.id for x in store.quarantine.list().items] == ["abcdef02", "abcdef01"]
    assert [x.id for x in store.quarantine.list(after="abcdef02").items] == ["abcdef01"]
    with pytest.raises(ShieldError, match="more than one"):
        store.quarantine.get("abcdef")
    with pytest.raises(ShieldError) as caught:
        store.quarantine.list(after="gone")
    assert caught.value.code == "api.not-found"
    one = store.quarantine.get("abcdef01")
    assert store.quarantine.places() == {os.path.join(store.roots[one.tree], one.original): "abcdef01"}, "the latest"
    store.quarantine.remove(["abcdef01"])
    assert store.quarantine.rebuild([quarantined("x1"), quarantined("x2")]) == 2
    assert store.counts().quarantined == 2


def test_what_a_rewrap_has_still_to_do(store: Store) -> None:
    store.files.upsert([sealed(b"%d" % n) for n in range(5)])
    store.quarantine.upsert([quarantined("q1"), quarantined("q2", key=NEW)])
    assert store.keys.objects() == {OLD: 6, NEW: 1}
    left = store.files.not_under(NEW, limit=3)
    assert (len(left.items), left.more) == (3, True)
    store.files.rewrapped([(x.tree, x.path, NEW, 2, 7) for x in left.items])
    store.quarantine.rewrapped([("q1", NEW, 2, 3)])
    assert store.keys.objects() == {OLD: 2, NEW: 5}
    assert [x.original for x in store.files.not_under(NEW).items] == [b"3", b"4"]
    assert not store.quarantine.not_under(NEW).items
    first = store.files.get(0, b"0.shield")
    assert first == replace(sealed(b"0"), key_id=NEW, key_version=2, generation=7)


def test_canaries(store: Store) -> None:
    planted = [Canary(0, b"00_lab.csv", b"d" * 32, 1), Canary(1, b"\xff", b"d" * 32, 2)]
    store.canaries.add(planted)
    assert store.canaries.list() == planted
    assert store.canaries.list(1) == planted[1:]
    store.canaries.remove([(0, b"00_lab.csv")])
    assert store.canaries.list(0) == []


class TestKeys:
    """Versions, states with their history, uses, and the keystore's generation."""

    ONE = KeyRecord(OLD, 1, 1, KeyState.ACTIVE, "local", 5, 5, "made")

    def test_states_leave_a_history(self, store: Store) -> None:
        assert store.keys.keystore() is None
        store.keys.record("ab" * 16, 1, [self.ONE])
        gone = replace(self.ONE, state=KeyState.DEACTIVATED, changed_at_ns=9, why="rotated")
        store.keys.record("ab" * 16, 2, [gone, replace(self.ONE, key_id=NEW, version=2)])
        store.keys.record("ab" * 16, 2, [gone])
        assert store.keys.keystore() == ("ab" * 16, 2)
        assert store.keys.versions(1) == [gone, replace(self.ONE, key_id=NEW, version=2)]
        assert store.keys.history(OLD) == [(5, "active", "made"), (9, "deactivated", "rotated")]

    def test_uses_never_shrink(self, store: Store) -> None:
        store.keys.record("ab" * 16, 1, [self.ONE])
        store.keys.used({OLD: 5, NEW: 1})
        store.keys.record("ab" * 16, 1, [self.ONE])
        assert [x.uses for x in store.keys.versions()] == [5]
