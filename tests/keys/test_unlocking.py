"""Where the secret comes from, and what is refused as one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shieldd.config import Config, Unlock
from shieldd.errors import ShieldError
from shieldd.keys import KeyRing
from shieldd.native.envelope import Purpose
from tests.keys.build import CREDENTIAL, PASSPHRASE, MemoryLedger, credentials, personal, unlocked_by


@contextmanager
def piped(secret: bytes) -> Iterator[int]:
    reading, writing = os.pipe()
    os.write(writing, secret)
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


def refused(config: Config, ledger: MemoryLedger, fd: int | None = None) -> ShieldError:
    with pytest.raises(ShieldError) as caught:
        KeyRing.open(config, ledger, passphrase_fd=fd)
    return caught.value


def opens_twice(config: Config) -> MemoryLedger:
    """Make a keystore, then open it again; a secret wrapped before opens after."""
    ledger = MemoryLedger()
    with KeyRing.open(config, ledger) as ring:
        wrapped = ring.native.wrap(Purpose.FILES, b"patient", b"c")
    with KeyRing.open(config, ledger) as ring:
        assert ring.native.unwrap(wrapped, b"c") == b"patient"
    return ledger


class TestKeyFile:
    """Personal mode: an owner-only file, made at the first start."""

    def test_it_is_made_owner_only_and_opens_again(self, tmp_path: Path) -> None:
        config = personal(tmp_path)
        opens_twice(config)
        assert stat.S_IMODE(config.keyfile_path.stat().st_mode) == 0o600
        assert config.keyfile_path.stat().st_size == 32
        assert stat.S_IMODE(config.keystore_path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
    def test_open_to_others(self, tmp_path: Path, mode: int) -> None:
        config = personal(tmp_path)
        ledger = opens_twice(config)
        config.keyfile_path.chmod(mode)
        assert refused(config, ledger).code == "keys.unsafe"

    @pytest.mark.root
    def test_of_another_owner(self, tmp_path: Path) -> None:
        config = personal(tmp_path)
        ledger = opens_twice(config)
        os.chown(config.keyfile_path, 1000, 1000)
        assert refused(config, ledger).code == "keys.unsafe"

    def test_a_link_a_pipe_a_directory(self, tmp_path: Path) -> None:
        config = personal(tmp_path)
        ledger = opens_twice(config)
        real = config.keyfile_path.rename(tmp_path / "real")
        config.keyfile_path.symlink_to(real)
        assert refused(config, ledger).code == "keys.secret"
        config.keyfile_path.unlink()
        os.mkfifo(config.keyfile_path, 0o600)
        assert refused(config, ledger).code == "keys.unsafe"
        config.keyfile_path.unlink()
        config.keyfile_path.mkdir(0o700)
        assert refused(config, ledger).code == "keys.unsafe"

    def test_gone_it_is_not_made_anew(self, tmp_path: Path) -> None:
        config = personal(tmp_path)
        ledger = opens_twice(config)
        config.keyfile_path.unlink()
        assert refused(config, ledger).code == "keys.secret"
        assert not config.keyfile_path.exists()

    def test_another_one_is_a_wrong_key(self, tmp_path: Path) -> None:
        config = personal(tmp_path)
        ledger = opens_twice(config)
        config.keyfile_path.write_bytes(os.urandom(32))
        assert refused(config, ledger).code == "keys.unlock"

    def test_service_mode_makes_none(self, tmp_path: Path) -> None:
        config = unlocked_by(tmp_path, Unlock.KEYFILE)
        assert refused(config, MemoryLedger()).code == "keys.secret"


class TestCredential:
    """systemd: a file in $CREDENTIALS_DIRECTORY."""

    def test_it_opens(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = unlocked_by(tmp_path, Unlock.CREDENTIAL)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials(tmp_path, CREDENTIAL)))
        ledger = opens_twice(config)
        credentials(tmp_path, CREDENTIAL[:-1])
        assert refused(config, ledger).code == "keys.unlock"

    @pytest.mark.parametrize("secret", [b"", b"short", b"x" * 4097])
    def test_too_short_or_too_long(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: bytes) -> None:
        config = unlocked_by(tmp_path, Unlock.CREDENTIAL)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials(tmp_path, secret)))
        assert refused(config, MemoryLedger()).code == "keys.secret"
        assert not config.keystore_path.exists()

    @pytest.mark.parametrize("directory", ["", "relative", "/nonexistent"])
    def test_none_was_passed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", directory)
        assert refused(unlocked_by(tmp_path, Unlock.CREDENTIAL), MemoryLedger()).code == "keys.secret"


class TestPassphrase:
    """Argon2id over a passphrase from a descriptor, a credential, or askpass."""

    @pytest.fixture
    def config(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        return unlocked_by(tmp_path, Unlock.PASSPHRASE)

    def test_from_a_descriptor_with_or_without_a_line_end(self, config: Config) -> None:
        ledger = MemoryLedger()
        for end in (b"", b"\n", b"\r\n"):
            with piped(PASSPHRASE + end) as fd:
                KeyRing.open(config, ledger, passphrase_fd=fd).close()

    def test_a_wrong_one(self, config: Config) -> None:
        ledger = MemoryLedger()
        with piped(PASSPHRASE) as fd:
            KeyRing.open(config, ledger, passphrase_fd=fd).close()
        for wrong in (PASSPHRASE + b" ", PASSPHRASE + b"\n\n", PASSPHRASE.upper(), b"x"):
            with piped(wrong) as fd:
                error = refused(config, ledger, fd)
            assert error.code == "keys.unlock"
            assert wrong.decode().strip() not in error.message or wrong == b"x"

    @pytest.mark.parametrize("short", [b"", b"\n", b"eleven char"])
    def test_a_new_one_must_be_long_enough(self, config: Config, short: bytes) -> None:
        with piped(short) as fd:
            assert refused(config, MemoryLedger(), fd).code == "keys.secret"
        assert not config.keystore_path.exists()

    def test_from_a_credential(self, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials(tmp_path, PASSPHRASE + b"\n")))
        opens_twice(config)

    def test_from_askpass(self, config: Config, tmp_path: Path) -> None:
        program = tmp_path / "askpass"
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{PASSPHRASE.decode()}'\n")
        program.chmod(0o700)
        asking = config.model_copy(update={"keys": config.keys.model_copy(update={"askpass": program})})
        ledger = opens_twice(asking)
        program.write_text("#!/bin/sh\necho cancelled-by-the-person; exit 3\n")
        error = refused(asking, ledger)
        assert error.code == "keys.secret"
        assert "cancelled" not in error.message
        program.chmod(0o600)
        assert refused(asking, ledger).code == "keys.secret"

    def test_no_source_at_all(self, config: Config) -> None:
        assert refused(config, MemoryLedger()).code == "keys.secret"


def test_another_method_than_the_keystore_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = opens_twice(personal(tmp_path))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials(tmp_path, CREDENTIAL)))
    error = refused(unlocked_by(tmp_path, Unlock.CREDENTIAL), ledger)
    assert error.code == "keys.secret"
    assert "keyfile" in error.message


def test_no_secret_stands_in_arguments_or_environment(tmp_path: Path) -> None:
    """What a neighbour can read of a daemon that has just opened its keystore by passphrase."""
    place = repr(str(tmp_path))
    program = f"""
import os, sys
from pathlib import Path
from shieldd.config import Unlock
from shieldd.keys import KeyRing
from tests.keys.build import MemoryLedger, unlocked_by
ring = KeyRing.open(unlocked_by(Path({place}), Unlock.PASSPHRASE), MemoryLedger(), passphrase_fd=0)
sys.stdout.buffer.write(open("/proc/self/cmdline", "rb").read() + open("/proc/self/environ", "rb").read())
print(repr(ring), ring.list(), vars(ring))
"""
    done = subprocess.run([sys.executable, "-c", program], input=PASSPHRASE, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert PASSPHRASE not in done.stdout + done.stderr
