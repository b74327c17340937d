"""What opens the keystore: a systemd credential, a passphrase, a key file. Each yields a 32-byte wrapping key.

A secret comes from a descriptor, a credential, an askpass program or an owner-only file, never from an argument or the
environment. It is read into a bytearray and wiped; what stands in the keystore are salt and cost only.

Derivation: passphrase → Argon2id (RFC 9106, second recommended choice: 64 MiB, 3 passes, 4 lanes); credential and key
file, being random, → HKDF-SHA-256 (RFC 5869) with a random salt.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shieldd.config import Config, DaemonMode, Unlock
from shieldd.errors import ShieldError
from shieldd.keys.contract import KEY_BYTES
from shieldd.native.envelope import random_bytes

SALT_BYTES: Final = 16
SECRET_LIMIT_BYTES: Final = 4096
RANDOM_LEAST_BYTES: Final = 16
PASSPHRASE_LEAST_BYTES: Final = 12
ASKPASS_TIMEOUT_S: Final = 90
_COST: Final = {"passes": 3, "memory_kib": 65_536, "lanes": 4}
_COST_LIMIT: Final = {
    "passes": 64,
    "memory_kib": 1 << 20,
    "lanes": 64,
}  # a keystore must not be able to exhaust the host


@contextmanager
def wiped(secret: bytearray) -> Iterator[bytearray]:
    """The bytearray, zeroed at the end whatever happens."""
    try:
        yield secret
    finally:
        wipe(secret)


def wipe(secret: bytearray) -> None:
    """Overwrite with zeros, in place."""
    secret[:] = bytes(len(secret))


class Secret:
    """A source of the unlock secret. It is read anew for each derivation and kept nowhere; `repr` shows the method."""

    def __init__(self, method: Unlock, read: Callable[[], bytearray]) -> None:
        """Args:
        read: gives the secret in a bytearray that the caller wipes; raises `keys.secret` or `keys.unsafe`.
        """
        self.method = method
        self._read = read

    def __repr__(self) -> str:
        return f"Secret({self.method.value})"

    def fresh(self) -> dict[str, object]:
        """Parameters for a new wrapping: method, salt and cost."""
        cost = _COST if self.method is Unlock.PASSPHRASE else {}
        return {"method": self.method.value, "salt": bytes(random_bytes(SALT_BYTES)).hex(), **cost}

    def derive(self, parameters: Mapping[str, object], *, new: bool = False) -> bytearray:
        """The wrapping key for these parameters; the caller wipes it.

        Args:
            new: whether a keystore is being made; then a passphrase must be long enough.

        Raises:
            ShieldError: `keys.secret` where there is none or it is of another method, `keys.unsafe`, `keys.store` for
                parameters that make no sense.
        """
        if parameters.get("method") != self.method.value:
            made = str(parameters.get("method"))[:16]
            raise ShieldError(
                "keys.secret", f"keystore opens by {made!r}, the configuration says {self.method.value!r}"
            )
        salt = _salt(parameters)
        key = bytearray(KEY_BYTES)
        with wiped(self._read()) as secret:
            self._check(secret, new=new)
            if self.method is Unlock.PASSPHRASE:
                _argon2id(secret, salt, parameters, key)
            else:
                info = b"shield/1/keystore/" + self.method.value.encode()
                HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info).derive_into(secret, key)
        return key

    def _check(self, secret: bytearray, *, new: bool) -> None:
        if self.method is not Unlock.PASSPHRASE:
            if len(secret) < RANDOM_LEAST_BYTES:
                text = f"{self.method.value} holds {len(secret)} bytes, {RANDOM_LEAST_BYTES} random ones are the least"
                raise ShieldError("keys.secret", text)
        elif not secret:
            raise ShieldError("keys.secret", "passphrase is empty")
        elif new and len(secret) < PASSPHRASE_LEAST_BYTES:
            raise ShieldError("keys.secret", f"passphrase needs at least {PASSPHRASE_LEAST_BYTES} bytes")


def from_config(config: Config, *, passphrase_fd: int | None = None) -> Secret:
    """The source that a configuration names.

    Args:
        passphrase_fd: descriptor to read a passphrase from, once; goes before credential and askpass.
    """
    keys = config.keys
    match keys.unlock:
        case Unlock.CREDENTIAL:
            return Secret(keys.unlock, lambda: _credential(keys.credential))
        case Unlock.KEYFILE:
            may_make = config.daemon.mode is DaemonMode.PERSONAL and not config.keystore_path.exists()
            return Secret(keys.unlock, lambda: _key_file(config.keyfile_path, may_make=may_make))
        case Unlock.PASSPHRASE:
            return Secret(keys.unlock, lambda: _passphrase(keys.credential, keys.askpass, passphrase_fd))


def owner_only(fd: int, what: str, path: Path) -> os.stat_result:
    """Check that an open file is regular, ours and closed to all others; raises `keys.unsafe`."""
    info = os.fstat(fd)
    name = os.fsencode(path)
    if not stat.S_ISREG(info.st_mode):
        raise ShieldError("keys.unsafe", f"{what} is not a regular file", path=name)
    if info.st_uid != os.geteuid():
        raise ShieldError("keys.unsafe", f"{what} belongs to uid {info.st_uid}, not to us", path=name)
    if info.st_mode & 0o077:
        mode = f"{stat.S_IMODE(info.st_mode):04o}"
        raise ShieldError("keys.unsafe", f"{what} has mode {mode}, must be 0600", path=name)
    return info


def _salt(parameters: Mapping[str, object]) -> bytes:
    try:
        salt = bytes.fromhex(str(parameters["salt"]))
    except (KeyError, ValueError):
        salt = b""
    if len(salt) != SALT_BYTES:
        raise ShieldError("keys.store", "keystore has no usable salt")
    return salt


def _argon2id(secret: bytearray, salt: bytes, parameters: Mapping[str, object], key: bytearray) -> None:
    cost: dict[str, int] = {}
    for name, limit in _COST_LIMIT.items():
        value = parameters.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise ShieldError("keys.store", f"keystore asks for {name} out of range")
        cost[name] = value
    try:
        kdf = Argon2id(
            salt=salt, length=KEY_BYTES, iterations=cost["passes"], lanes=cost["lanes"], memory_cost=cost["memory_kib"]
        )
        kdf.derive_into(secret, key)  # type: ignore[arg-type]  # takes any buffer, says bytes
    except (UnsupportedAlgorithm, ValueError) as error:
        raise ShieldError("keys.secret", "argon2id is not available with these costs") from error


def _credential(name: str) -> bytearray:
    """Content of a systemd credential (systemd.exec(5)); the manager made the directory owner-only."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory.startswith("/"):
        hint = f"LoadCredentialEncrypted={name}:/etc/shieldd/{name}.cred in the unit"
        raise ShieldError("keys.secret", f"no credential {name!r} was passed by the service manager", hint=hint)
    return _read_file(Path(directory) / name, f"credential {name!r}")


def _key_file(path: Path, *, may_make: bool) -> bytearray:
    if may_make and not path.is_symlink() and not path.exists():
        _make_key_file(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        text = f"key file cannot be read: {os.strerror(error.errno or 0).lower()}"
        raise ShieldError("keys.secret", text, errno=error.errno, path=os.fsencode(path)) from error
    try:
        owner_only(fd, "key file", path)
        return _read_fd(fd)
    finally:
        os.close(fd)


def _make_key_file(path: Path) -> None:
    """32 random bytes, durable before anything is wrapped with them; whole or not there at all."""
    temporary = path.with_name(f".shieldd-{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with wiped(random_bytes(KEY_BYTES)) as key:
                os.write(fd, key)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        text = f"key file cannot be made: {os.strerror(error.errno or 0).lower()}"
        raise ShieldError("keys.secret", text, errno=error.errno, path=os.fsencode(path)) from error


def _passphrase(credential: str, askpass: Path | None, fd: int | None) -> bytearray:
    if fd is not None:
        return _line(_read_fd(fd))
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if directory.startswith("/") and (Path(directory) / credential).exists():
        return _line(_credential(credential))
    if askpass is not None:
        return _line(_ask(askpass))
    raise ShieldError("keys.secret", "no passphrase: neither a descriptor, nor a credential, nor keys.askpass")


def _ask(program: Path) -> bytearray:
    """What a program prints; it gets a prompt as its only argument, no shell."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        with subprocess.Popen([program, "shieldd keystore passphrase:"], stdout=writing) as asked:
            os.close(writing)
            writing = -1
            secret = _read_fd(reading)
            try:
                status = asked.wait(ASKPASS_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                asked.kill()
                status = asked.wait()
    except OSError as error:
        raise ShieldError("keys.secret", "keys.askpass cannot be run", errno=error.errno) from error
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    if status != 0:
        wipe(secret)
        raise ShieldError("keys.secret", f"keys.askpass ended with status {status}")
    return secret


def _read_file(path: Path, what: str) -> bytearray:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        text = f"{what} cannot be read: {os.strerror(error.errno or 0).lower()}"
        raise ShieldError("keys.secret", text, errno=error.errno) from error
    try:
        return _read_fd(fd)
    finally:
        os.close(fd)


def _read_fd(fd: int) -> bytearray:
    """All of a descriptor, straight into memory that can be wiped."""
    buffer, filled = bytearray(SECRET_LIMIT_BYTES + 1), 0
    try:
        while filled < len(buffer) and (got := os.readv(fd, [memoryview(buffer)[filled:]])):
            filled += got
    except OSError as error:
        wipe(buffer)
        raise ShieldError("keys.secret", "unlock secret cannot be read", errno=error.errno) from error
    with wiped(buffer):
        if filled > SECRET_LIMIT_BYTES:
            raise ShieldError("keys.secret", f"unlock secret is longer than {SECRET_LIMIT_BYTES} bytes")
        return buffer[:filled]


def _line(secret: bytearray) -> bytearray:
    """A passphrase as typed: one line end is not part of it."""
    end = len(secret)
    if secret.endswith(b"\n"):
        end -= 2 if secret.endswith(b"\r\n") else 1
    with wiped(secret):
        return secret[:end]
