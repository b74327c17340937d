"""Disasters of the keystore: flipped, cut, foreign, old, gone, full disk, killed at every step of a rotation."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shieldd.config import Config
from shieldd.errors import ShieldError
from shieldd.keys import KeyRing, KeyState
from shieldd.keys.keystore import copy_path, parse
from shieldd.native.envelope import Purpose
from shieldd.store import Store
from tests.cut_off import Fault, at_each, workers
from tests.keys.build import MemoryLedger, personal
from tests.keys.rotating_worker import WRAPPED


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return personal(tmp_path)


@pytest.fixture
def ledger(config: Config) -> MemoryLedger:
    """Knows a keystore of generation 3."""
    made = MemoryLedger()
    with KeyRing.open(config, made) as ring:
        ring.rotate()
        ring.rotate(Purpose.FILES)
    return made


def refused(config: Config, ledger: MemoryLedger) -> ShieldError:
    with pytest.raises(ShieldError) as caught:
        KeyRing.open(config, ledger)
    return caught.value


def test_every_flipped_bit_is_found(config: Config, ledger: MemoryLedger) -> None:
    whole = config.keystore_path.read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            raw = bytearray(whole)
            raw[at] ^= 1 << bit
            with pytest.raises(ShieldError) as caught:
                parse(bytes(raw))
            assert caught.value.code == "keys.store"


def test_a_forger_who_mends_the_checksum_is_found(config: Config, ledger: MemoryLedger) -> None:
    """Without the unlock secret nothing can be changed, not a state, not a version, not a time."""
    copy_path(config.keystore_path).unlink()
    whole = config.keystore_path.read_bytes()[:-32]
    chance = random.Random(3)
    codes = set()
    for at in [*range(12), *(chance.randrange(len(whole)) for _ in range(300))]:
        raw = bytearray(whole)
        raw[at] ^= 1 << chance.randrange(8)
        config.keystore_path.write_bytes(bytes(raw) + hashlib.sha256(raw).digest())
        codes.add(refused(config, ledger).code)
    assert codes <= {"keys.store", "keys.unlock", "keys.secret", "keys.newer"}
    forged = whole.replace(b'"deactivated"', b'"compromised"')
    assert forged != whole
    config.keystore_path.write_bytes(forged + hashlib.sha256(forged).digest())
    assert refused(config, ledger).code == "keys.store"


@pytest.mark.parametrize("length", [0, 1, 11, 75, 76, 500, -1])
def test_cut_short_or_longer(config: Config, ledger: MemoryLedger, length: int) -> None:
    copy_path(config.keystore_path).unlink()
    whole = config.keystore_path.read_bytes()
    config.keystore_path.write_bytes(whole[:length])
    assert refused(config, ledger).code == "keys.store"
    config.keystore_path.write_bytes(whole + b"\0")
    assert refused(config, ledger).code == "keys.store"


def test_a_later_format_is_left_alone(config: Config, ledger: MemoryLedger) -> None:
    raw = bytearray(config.keystore_path.read_bytes()[:-32])
    raw[7] = 2
    newer = bytes(raw) + hashlib.sha256(raw).digest()
    config.keystore_path.write_bytes(newer)
    assert refused(config, ledger).code == "keys.newer"
    assert config.keystore_path.read_bytes() == newer


def test_a_damaged_keystore_is_mended_from_its_copy(config: Config, ledger: MemoryLedger) -> None:
    whole = config.keystore_path.read_bytes()
    config.keystore_path.write_bytes(whole[:100])
    with KeyRing.open(config, ledger) as ring:
        assert "copy" in ring.reports[0]
        assert ring.generation == 3
    assert config.keystore_path.read_bytes() == whole
    with KeyRing.open(config, ledger) as ring:
        assert ring.reports == ()


def test_an_older_copy_is_not_taken_in_silence(config: Config, ledger: MemoryLedger) -> None:
    old = copy_path(config.keystore_path).read_bytes()
    with KeyRing.open(config, ledger) as ring:
        ring.rotate()
    copy_path(config.keystore_path).write_bytes(old)
    config.keystore_path.write_bytes(b"")
    assert refused(config, ledger).code == "keys.rollback"


def test_a_keystore_rolled_back_to_an_older_one(config: Config, ledger: MemoryLedger) -> None:
    old = config.keystore_path.read_bytes()
    with KeyRing.open(config, ledger) as ring:
        ring.rotate()
    for path in (config.keystore_path, copy_path(config.keystore_path)):
        path.write_bytes(old)
    assert refused(config, ledger).code == "keys.rollback"
    with KeyRing.open(config, ledger, accept_older=True) as ring:
        assert ring.generation == 3
    KeyRing.open(config, ledger).close()


def test_the_keystore_of_another_host(config: Config, ledger: MemoryLedger, tmp_path: Path) -> None:
    other = personal(tmp_path / "other")
    KeyRing.open(other, MemoryLedger()).close()
    for name in ("keystore", "keystore.copy", "keyfile"):
        shutil.copy(other.daemon.state_dir / name, config.daemon.state_dir / name)
    assert refused(config, ledger).code == "keys.rollback"
    # A store that was begun anew takes the keystore it finds.
    KeyRing.open(config, MemoryLedger()).close()


def test_gone_it_is_not_made_anew(config: Config, ledger: MemoryLedger) -> None:
    for path in (config.keystore_path, copy_path(config.keystore_path)):
        path.unlink()
    assert refused(config, ledger).code == "keys.missing"
    assert not config.keystore_path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_open_to_others(config: Config, ledger: MemoryLedger, mode: int) -> None:
    config.keystore_path.chmod(mode)
    assert refused(config, ledger).code == "keys.unsafe"


def test_a_link_or_a_directory(config: Config, ledger: MemoryLedger, tmp_path: Path) -> None:
    config.keystore_path.rename(tmp_path / "real")
    config.keystore_path.symlink_to(tmp_path / "real")
    assert refused(config, ledger).code == "keys.unsafe"
    config.keystore_path.unlink()
    config.keystore_path.mkdir()
    assert refused(config, ledger).code == "keys.unsafe"


def test_no_error_shows_a_key(config: Config, ledger: MemoryLedger) -> None:
    secret = config.keyfile_path.read_bytes()
    errors = []
    config.keyfile_path.write_bytes(secret[::-1])
    errors.append(refused(config, ledger))
    copy_path(config.keystore_path).unlink()
    config.keystore_path.write_bytes(secret * 20)
    errors.append(refused(config, ledger))
    for error in errors:
        shown = f"{error!r} {error} {error.args} {error.hint} {error.__cause__!r}"
        for form in (secret, secret[::-1]):
            assert form.hex() not in shown
            assert repr(form)[2:-1] not in shown


CALLS = {"fsync": ("KILL", "ENOSPC", "EIO"), "renameat": ("KILL", "ENOSPC"), "write": ("KILL", "ENOSPC")}
_TOLD = {"done", "killed", "keys.full", "keys.io", "store.full", "store.io"}


def still_whole(place: Path, told: str) -> None:
    """The keystore opens as it is, and whatever was ever sealed under it opens too; then a rotation goes through."""
    config = personal(place)
    with Store(config.store_path) as store, KeyRing.open(config, store.keys) as ring:
        for wrapped in re.findall("sealed ([0-9a-f]+)$", told, re.MULTILINE):
            assert ring.native.unwrap(bytes.fromhex(wrapped), b"c") == b"patient"
        assert [x.purpose for x in ring.list() if x.state is KeyState.ACTIVE] == list(Purpose)
        ring.rotate(Purpose.FILES)
        assert ring.reports == ()
    assert not list(config.daemon.state_dir.glob(".shieldd-keystore*"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_killed_or_failing_at_every_system_call_of_a_rotation(tmp_path: Path) -> None:
    """At each call in turn: before, between and after every step."""
    template = tmp_path / "template"
    still_whole(template, "")

    def copied(name: str) -> Path:
        return Path(shutil.copytree(template, tmp_path / name))

    with workers("tests.keys.rotating_worker") as free:
        worker = free.get()
        calls = worker.calls(copied("trace"), "rotate", list(CALLS))
        free.put(worker)
        assert min(Counter(call.call for call in calls)[name] for name in CALLS) >= 2

        def one(number: int, fault: Fault) -> None:
            place = copied(str(number))
            worker = free.get()
            outcome = worker.cut_off(place, "rotate", fault)
            free.put(worker)
            assert outcome in _TOLD, fault
            assert outcome != "killed" or fault.what == "KILL", fault
            if outcome == "killed":
                killed.add(fault.call)
            still_whole(place, (place / WRAPPED).read_text())

        killed: set[str] = set()
        at_each(sorted({replace(call, what=what) for call in calls for what in CALLS[call.call]}), one)
        assert killed == set(CALLS)


@pytest.mark.parametrize("act", ["rotate", "rotate_root"])
@pytest.mark.parametrize("step", ["open", "fsync", "rename", "flock"])
def test_gone_in_the_middle_of_every_step(tmp_path: Path, act: str, step: str) -> None:
    """A forked process that ends without a word at the first, second, third ... such call."""
    still_whole(tmp_path, "")
    for number in range(1, 30):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _dies(tmp_path, act, step, number, writing)
            finally:
                os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "r") as source:
            told = source.read()
        ended = os.waitpid(pid, 0)[1]
        still_whole(tmp_path, told)
        if os.waitstatus_to_exitcode(ended) == 0:
            assert number > 1
            return
    pytest.fail("the rotation never came to its end")


def _dies(place: Path, act: str, step: str, number: int, out: int) -> None:
    """In the child: rotate, and be gone at the given call."""
    left = [number]
    signal.alarm(30)  # a child of a process with threads may hang in a lock; then it is gone too

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def instead(*arguments: object, **named: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return call(*arguments, **named)

        return instead

    config = personal(place)
    with Store(config.store_path) as store, KeyRing.open(config, store.keys) as ring:
        os.write(out, b"sealed %s\n" % ring.native.wrap(Purpose.FILES, b"patient", b"c").hex().encode())
        module = fcntl if step == "flock" else os
        setattr(module, step, counted(getattr(module, step)))
        getattr(ring, act)()
        os.write(out, b"sealed %s\n" % ring.native.wrap(Purpose.FILES, b"patient", b"c").hex().encode())
    os._exit(0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.root
def test_a_full_disk_in_the_middle_of_a_rotation(small_disk: Path) -> None:
    config, ledger = personal(small_disk), MemoryLedger()
    with KeyRing.open(config, ledger) as ring:
        wrapped = ring.native.wrap(Purpose.FILES, b"patient", b"c")
        before = ring.list()
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as out:
            while out.write(bytes(4096)) if shutil.disk_usage(small_disk).free else 0:
                continue
        with pytest.raises(ShieldError) as caught:
            ring.rotate()
        assert caught.value.code == "keys.full"
        assert ring.list() == before
        assert ring.native.unwrap(wrapped, b"c") == b"patient"
        assert not [path for path in config.daemon.state_dir.iterdir() if path.name.startswith(".shieldd-")]
        ballast.unlink()
        assert ring.rotate(Purpose.FILES)[0].version == 2
    with KeyRing.open(config, ledger) as ring:
        assert ring.native.unwrap(wrapped, b"c") == b"patient"
