"""The keystore file: provider, wrapped key-encryption keys, their states; what it looks like and how it is replaced.

    magic "SHLDKEY\\1" 8 ‖ length u32 LE ‖ body ‖ HMAC-SHA-256 32 ‖ SHA-256 32

Body: canonical JSON (keys sorted, no blanks, ASCII). The HMAC is over all before it, under a random key that stands
in the body wrapped by the provider; so it needs the unlock secret, and whoever has not got it can alter nothing unseen.
The digest is over all before it, without a key: it tells a damaged file from a wrong secret. Limits: file 1 MiB,
versions 4,096. A file is replaced whole: temporary file, fsync, rename, fsync of the directory; then the same for the
copy beside it (`NAME.copy`), from which a damaged file is healed; an old copy is refused like any old keystore.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shieldd.errors import ShieldError
from shieldd.keys.secrets import owner_only
from shieldd.model.key import KeyState
from shieldd.native.envelope import Purpose, random_bytes

MAGIC: Final = b"SHLDKEY\x01"
_FAMILY: Final = MAGIC[:7]
FILE_LIMIT_BYTES: Final = 1 << 20
VERSIONS_LIMIT: Final = 4096
_HEAD: Final = struct.Struct("<8sI")
_MAC: Final = 32
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One key-encryption key, wrapped by the provider; `wrapped` is empty once it is destroyed."""

    key_id: bytes
    purpose: Purpose
    version: int
    state: KeyState
    created_at_ns: int
    changed_at_ns: int
    why: str
    wrapped: bytes

    def context(self, keystore_id: bytes) -> bytes:
        """What its wrap is bound to: this keystore, purpose, version and id."""
        return b"shield/1/kek" + keystore_id + struct.pack("<BI", self.purpose, self.version) + self.key_id


@dataclass(frozen=True, slots=True)
class Keystore:
    """The whole content. `generation` grows by one with each write; `mac_key` is wrapped like a key."""

    id: bytes
    generation: int
    written_at_ns: int
    provider: str
    root: Mapping[str, object]
    mac_key: bytes
    versions: tuple[KeyVersion, ...]

    def mac_context(self) -> bytes:
        """What the wrap of the MAC key is bound to."""
        return b"shield/1/keystore/mac" + self.id


def encode(keystore: Keystore, mac_key: bytearray) -> bytes:
    """The bytes of the file."""
    body = json.dumps(_plain(keystore), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    head = _HEAD.pack(MAGIC, len(body)) + body
    head += hmac.digest(mac_key, head, "sha256")
    return head + hashlib.sha256(head).digest()


def parse(raw: bytes) -> Keystore:
    """Read the bytes of a file; the HMAC is checked apart, once the provider is open.

    Raises:
        ShieldError: `keys.store` for anything but a whole keystore, `keys.newer` for one of a later format.
    """
    if len(raw) > FILE_LIMIT_BYTES:
        raise ShieldError("keys.store", "keystore is larger than 1 MiB")
    if len(raw) < _HEAD.size + _MAC + _DIGEST or not raw.startswith(_FAMILY):
        raise ShieldError("keys.store", "keystore is cut short or none at all")
    if not hmac.compare_digest(hashlib.sha256(raw[:-_DIGEST]).digest(), raw[-_DIGEST:]):
        raise ShieldError("keys.store", "keystore is damaged: its checksum does not hold")
    magic, length = _HEAD.unpack_from(raw)
    if magic != MAGIC:
        raise ShieldError("keys.newer", f"keystore has format {magic[7]}, this shieldd knows {MAGIC[7]}")
    if length != len(raw) - _HEAD.size - _MAC - _DIGEST:
        raise ShieldError("keys.store", "keystore has a wrong length")
    try:
        return _from_plain(json.loads(raw[_HEAD.size : _HEAD.size + length]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ShieldError("keys.store", "keystore is malformed") from error


def authentic(raw: bytes, mac_key: bytearray) -> None:
    """Check the HMAC in constant time; raises `keys.store`."""
    end = len(raw) - _MAC - _DIGEST
    if not hmac.compare_digest(hmac.digest(mac_key, raw[:end], "sha256"), raw[end : end + _MAC]):
        raise ShieldError("keys.store", "keystore was tampered with")


def read(path: Path) -> bytes | None:
    """The bytes of a keystore file, None where there is none.

    Raises:
        ShieldError: `keys.unsafe` for a link, a foreign owner or an open mode, `keys.io`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        code = "keys.unsafe" if error.errno in (errno.ELOOP, errno.EACCES) else "keys.io"
        raise ShieldError(code, "keystore cannot be opened", errno=error.errno, path=os.fsencode(path)) from error
    try:
        owner_only(fd, "keystore", path)
        raw = b""
        while len(raw) <= FILE_LIMIT_BYTES and (piece := os.read(fd, FILE_LIMIT_BYTES + 1 - len(raw))):
            raw += piece
    except OSError as error:
        raise ShieldError("keys.io", errno=error.errno, path=os.fsencode(path)) from error
    else:
        return raw
    finally:
        os.close(fd)


def read_whole(path: Path) -> tuple[bytes | None, bool]:
    """The keystore's bytes, or those of its copy where the file is damaged or gone; and whether it is the copy."""
    raw = read(path)
    damage: ShieldError | None = None
    if raw is not None:
        try:
            parse(raw)
        except ShieldError as error:
            if error.code != "keys.store":
                raise
            damage = error
        else:
            return raw, False
    copy = read(copy_path(path))
    if copy is None:
        if damage is not None:
            raise damage
        return None, False
    try:
        parse(copy)
    except ShieldError as error:
        raise damage or error from error
    return copy, True


def write(path: Path, raw: bytes) -> None:
    """Replace the file: at every instant the old or the new one is there whole; on return the new one is durable.

    Raises:
        ShieldError: `keys.full`, `keys.io`; the old file stands then.
    """
    directory = -1
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _replace(directory, os.fsencode(path.name), raw)
    except OSError as error:
        code = "keys.full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "keys.io"
        raise ShieldError(code, errno=error.errno, path=os.fsencode(path)) from error
    finally:
        if directory >= 0:
            os.close(directory)


def sweep(path: Path) -> None:
    """Remove temporary files that a crash left; only while nobody else writes the keystore."""
    for left in path.parent.glob(f".shieldd-{path.name}*-*"):
        left.unlink(missing_ok=True)


def copy_path(path: Path) -> Path:
    """Where the copy lies."""
    return path.with_name(path.name + ".copy")


def _replace(directory: int, name: bytes, raw: bytes) -> None:
    temporary = b".shieldd-" + name + b"-" + bytes(random_bytes(8)).hex().encode()
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
    )
    try:
        with os.fdopen(fd, "wb") as target:
            target.write(raw)
            target.flush()
            os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)


def _plain(x: Keystore) -> dict[str, object]:
    return {
        "id": x.id.hex(),
        "generation": x.generation,
        "written_at_ns": x.written_at_ns,
        "provider": x.provider,
        "root": x.root,
        "mac_key": x.mac_key.hex(),
        "versions": [
            {
                "id": v.key_id.hex(),
                "purpose": int(v.purpose),
                "version": v.version,
                "state": v.state.value,
                "created_at_ns": v.created_at_ns,
                "changed_at_ns": v.changed_at_ns,
                "why": v.why,
                "wrapped": v.wrapped.hex(),
            }
            for v in x.versions
        ],
    }


def _from_plain(body: dict[str, object]) -> Keystore:
    versions, root = body["versions"], body["root"]
    if not isinstance(versions, list) or len(versions) > VERSIONS_LIMIT or not isinstance(root, dict):
        raise ValueError("versions or root")
    keystore = Keystore(
        id=_bytes(body["id"], 16),
        generation=_whole(body["generation"], 1, 1 << 62),
        written_at_ns=_whole(body["written_at_ns"], 0, 1 << 63),
        provider=_text(body["provider"]),
        root=root,
        mac_key=_bytes(body["mac_key"]),
        versions=tuple(_version(item) for item in versions),
    )
    numbers = {(version.purpose, version.version) for version in keystore.versions}
    ids = {version.key_id for version in keystore.versions}
    active = [version.purpose for version in keystore.versions if version.state is KeyState.ACTIVE]
    if len(numbers) != len(versions) or len(ids) != len(versions) or len(active) != len(set(active)):
        raise ValueError("a version occurs twice")
    return keystore


def _version(item: dict[str, object]) -> KeyVersion:
    return KeyVersion(
        key_id=_bytes(item["id"], 16),
        purpose=Purpose(_whole(item["purpose"], 1, 255)),
        version=_whole(item["version"], 1, (1 << 32) - 1),
        state=KeyState(_text(item["state"])),
        created_at_ns=_whole(item["created_at_ns"], 0, 1 << 63),
        changed_at_ns=_whole(item["changed_at_ns"], 0, 1 << 63),
        why=_text(item["why"]),
        wrapped=_bytes(item["wrapped"]),
    )


def _whole(value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError("number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _bytes(value: object, length: int | None = None) -> bytes:
    raw = bytes.fromhex(_text(value))
    if length is not None and len(raw) != length:
        raise ValueError("length")
    return raw
