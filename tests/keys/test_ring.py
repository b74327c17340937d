"""The key ring: versions, states, rotation, counts; what was sealed once opens ever after."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shieldd.errors import ShieldError
from shieldd.keys import KeyRing, KeyState
from shieldd.keys.ring import DAY_NS, USES_AHEAD, USES_LIMIT
from shieldd.native.envelope import Purpose
from shieldd.store import Store
from tests.keys.build import MemoryLedger, personal


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


@pytest.fixture
def ring(tmp_path: Path, ledger: MemoryLedger) -> KeyRing:
    return KeyRing.open(personal(tmp_path), ledger)


def test_a_new_keystore_has_one_active_key_for_each_purpose(ring: KeyRing, ledger: MemoryLedger) -> None:
    assert [(x.purpose, x.version, x.state) for x in ring.list()] == [(p, 1, KeyState.ACTIVE) for p in Purpose]
    assert len({x.key_id for x in ring.list()}) == 4
    assert ledger.seen is not None
    assert ledger.seen[1] == ring.generation == 1


def test_rotation_makes_a_new_version_and_the_old_one_still_opens(ring: KeyRing) -> None:
    wrapped = ring.native.wrap(Purpose.FILES, b"secret", b"c")
    [new] = ring.rotate(Purpose.FILES, "quarterly", now_ns=77)
    assert (new.version, new.state, new.why, new.created_at_ns) == (2, KeyState.ACTIVE, "quarterly", 77)
    assert ring.active(Purpose.FILES) == new
    old = ring.list()[0]
    assert (old.version, old.state, old.changed_at_ns) == (1, KeyState.DEACTIVATED, 77)
    assert ring.active(Purpose.AUDIT).version == 1
    assert ring.native.unwrap(wrapped, b"c") == b"secret"
    assert new.key_id in ring.native.wrap(Purpose.FILES, b"secret", b"c")


def test_rotating_all_is_one_step(ring: KeyRing) -> None:
    assert [x.purpose for x in ring.rotate()] == list(Purpose)
    assert ring.generation == 2


def test_two_rotations_at_once(tmp_path: Path, ring: KeyRing) -> None:
    with ring._alone():
        told: list[str] = []

        def second() -> None:
            try:
                ring.rotate()
            except ShieldError as error:
                told.append(error.code)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert told == ["keys.busy"]
        other = KeyRing.open(personal(tmp_path), MemoryLedger())
        with pytest.raises(ShieldError) as caught:
            other.rotate()
        assert caught.value.code == "keys.busy"
    assert ring.rotate(Purpose.FILES)
    with pytest.raises(ShieldError) as caught:
        other.rotate()  # what it knows is no longer what is on the disk
    assert caught.value.code == "keys.busy"


def test_states_go_only_the_ways_there_are(ring: KeyRing) -> None:
    wrapped = ring.native.wrap(Purpose.FILES, b"secret", b"c")
    first = ring.active(Purpose.FILES).key_id
    for state in (KeyState.SUSPENDED, KeyState.DEACTIVATED, KeyState.DESTROYED):
        with pytest.raises(ShieldError) as caught:
            ring.change_state(first, state, "no")
        assert caught.value.code == "keys.state"
    ring.rotate(Purpose.FILES)
    assert ring.change_state(first, KeyState.SUSPENDED, "looked into").state is KeyState.SUSPENDED
    with pytest.raises(ShieldError):
        ring.native.unwrap(wrapped, b"c")
    ring.change_state(first, KeyState.DEACTIVATED, "cleared")
    assert ring.native.unwrap(wrapped, b"c") == b"secret"
    ring.change_state(first, KeyState.COMPROMISED, "laptop stolen")
    assert ring.native.unwrap(wrapped, b"c") == b"secret"
    with pytest.raises(ShieldError) as caught:
        ring.change_state(first, KeyState.DEACTIVATED, "no way back")
    assert caught.value.code == "keys.state"
    with pytest.raises(ShieldError) as caught:
        ring.change_state(b"\0" * 16, KeyState.COMPROMISED, "who")
    assert caught.value.code == "keys.version"


def test_what_is_due(ring: KeyRing, ledger: MemoryLedger) -> None:
    made = ring.active(Purpose.FILES).created_at_ns
    assert ring.due(90, made + 89 * DAY_NS) == ()
    assert {due.purpose for due in ring.due(90, made + 91 * DAY_NS)} == set(Purpose)
    key = ring.active(Purpose.QUARANTINE).key_id
    ledger.records[key] = replace(ledger.records[key], uses=USES_LIMIT)
    [due] = ring.due(90, made)
    assert due.purpose is Purpose.QUARANTINE
    ring.rotate(Purpose.QUARANTINE)
    assert ring.due(90, made) == ()


def test_uses_are_on_the_disk_before_they_happen(ring: KeyRing, ledger: MemoryLedger) -> None:
    told = 0
    for count in (1, 5, USES_AHEAD - 6, 1, 3 * USES_AHEAD, 7):
        ring.used(Purpose.FILES, count)
        told += count
        assert ring.active(Purpose.FILES).uses >= told


def test_objects_are_told_by_version(ring: KeyRing, ledger: MemoryLedger) -> None:
    ledger.wrapped = {ring.active(Purpose.FILES).key_id: 12}
    assert [x.objects for x in ring.list()] == [12, 0, 0, 0]


def test_a_new_root_touches_no_key(tmp_path: Path, ring: KeyRing, ledger: MemoryLedger) -> None:
    wrapped = ring.native.wrap(Purpose.FILES, b"secret", b"c")
    before, old_file = ring.list(), personal(tmp_path).keystore_path.read_bytes()
    ring.rotate_root()
    assert ring.list() == before
    assert "version 2" in ring.provider_state().detail
    with KeyRing.open(personal(tmp_path), ledger) as later:
        assert later.native.unwrap(wrapped, b"c") == b"secret"
        assert later.rotate()
    assert personal(tmp_path).keystore_path.read_bytes() != old_file


def test_a_closed_ring_holds_nothing(ring: KeyRing) -> None:
    wrapped = ring.native.wrap(Purpose.FILES, b"secret", b"c")
    ring.close()
    ring.close()
    with pytest.raises(ShieldError):
        ring.native.unwrap(wrapped, b"c")
    with pytest.raises(ShieldError) as caught:
        ring.rotate()
    assert caught.value.code == "keys.locked"


def test_a_ledger_that_fails_does_not_lose_a_rotation(
    tmp_path: Path, ring: KeyRing, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ShieldError("store.full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "record", full)
        ring.rotate(Purpose.FILES)
    assert ring.active(Purpose.FILES).version == 2
    assert "store" in ring.reports[-1]
    ring.used(Purpose.FILES, USES_AHEAD + 1)
    assert ledger.seen == (ledger.seen[0] if ledger.seen else "", 2)


class Life(RuleBasedStateMachine):
    """Any order of rotations, states and restarts: what was sealed opens unless its key is suspended."""

    def __init__(self) -> None:
        super().__init__()
        self.sealed: list[tuple[bytes, bytes]] = []

    @initialize()
    def begin(self) -> None:
        import tempfile

        self.place = tempfile.TemporaryDirectory(prefix="shieldd-")
        self.config = personal(Path(self.place.name))
        self.store = Store(self.config.store_path)
        self.ring = KeyRing.open(self.config, self.store.keys)

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()
            self.store.close()
            self.place.cleanup()

    @rule(purpose=st.sampled_from(Purpose))
    def seal(self, purpose: Purpose) -> None:
        self.sealed.append((self.ring.active(purpose).key_id, self.ring.native.wrap(purpose, b"s", b"c")))

    @rule(purpose=st.sampled_from([*Purpose, None]))
    def rotate(self, purpose: Purpose | None) -> None:
        self.ring.rotate(purpose)

    @rule()
    def rotate_root(self) -> None:
        self.ring.rotate_root()

    @precondition(lambda self: hasattr(self, "ring"))
    @rule(pick=st.integers(0, 1000), state=st.sampled_from(KeyState))
    def change_state(self, pick: int, state: KeyState) -> None:
        versions = self.ring.list()
        try:
            self.ring.change_state(versions[pick % len(versions)].key_id, state, "drawn")
        except ShieldError as error:
            assert error.code == "keys.state"

    @rule()
    def restart(self) -> None:
        before = self.ring.list()
        self.ring.close()
        self.store.close()
        self.store = Store(self.config.store_path)
        self.ring = KeyRing.open(self.config, self.store.keys)
        assert self.ring.list() == before

    @invariant()
    def everything_opens(self) -> None:
        if not hasattr(self, "ring"):
            return
        states = {x.key_id: x.state for x in self.ring.list()}
        for key_id, wrapped in self.sealed:
            if states[key_id] is not KeyState.SUSPENDED:
                assert self.ring.native.unwrap(wrapped, b"c") == b"s"
        active = [x.purpose for x in self.ring.list() if x.state is KeyState.ACTIVE]
        assert active == list(Purpose)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
