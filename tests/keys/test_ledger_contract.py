"""The contract of `shieldd.keys.contract.KeyLedger`, run on the store and on the one in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shieldd.keys import KeyLedger, KeyRecord, KeyState
from shieldd.store import Store
from tests.keys.build import MemoryLedger

ONE = KeyRecord(b"1" * 16, 1, 1, KeyState.ACTIVE, "local", 5, 5, "made")
OTHER = KeyRecord(b"2" * 16, 3, 1, KeyState.ACTIVE, "local", 6, 6, "made")


@pytest.fixture(params=["memory", "store"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyLedger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    with Store(tmp_path / "state/shieldd.db") as store:
        yield store.keys


def test_a_new_one_knows_nothing(ledger: KeyLedger) -> None:
    assert (ledger.keystore(), ledger.versions(), ledger.objects()) == (None, [], {})


def test_generation_and_versions_come_back(ledger: KeyLedger) -> None:
    ledger.record("ab" * 16, 7, [OTHER, ONE])
    assert ledger.keystore() == ("ab" * 16, 7)
    assert ledger.versions() == [ONE, OTHER]
    assert ledger.versions(3) == [OTHER]


def test_states_follow_and_uses_stay(ledger: KeyLedger) -> None:
    ledger.record("ab" * 16, 1, [ONE])
    ledger.used({ONE.key_id: 5})
    ledger.used({ONE.key_id: 2})
    gone = replace(ONE, state=KeyState.DEACTIVATED, changed_at_ns=9, why="rotated")
    ledger.record("ab" * 16, 2, [gone])
    assert ledger.versions() == [replace(gone, uses=7)]
