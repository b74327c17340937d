"""shield-keystore(5) read from its page alone: keys come back without shieldd, with Python and `cryptography`."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shieldd.config import Unlock
from shieldd.keys import KeyRing
from shieldd.native.envelope import Purpose
from tests.keys.build import CREDENTIAL, PASSPHRASE, MemoryLedger, credentials, personal, unlocked_by


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(key)


def unwrap(wrapped: bytes, keys: dict[bytes, bytes], context: bytes) -> bytes:
    """The section WRAPPED KEYS."""
    assert wrapped[:8] == b"SHLDWRP\x01"
    key_id, named, salt, sealed = wrapped[8:24], wrapped[8:28], wrapped[28:60], wrapped[60:]
    return AESGCM(hkdf(keys[key_id], salt, b"shield/1/secret" + named + context)).decrypt(bytes(12), sealed, None)


def derived(secret: bytes, unlock: dict[str, object]) -> bytes:
    """The section LOCAL PROVIDER."""
    salt = bytes.fromhex(str(unlock["salt"]))
    if unlock["method"] != "passphrase":
        return hkdf(secret, salt, f"shield/1/keystore/{unlock['method']}".encode())
    passes, memory, lanes = (int(str(unlock[name])) for name in ("passes", "memory_kib", "lanes"))
    return Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory).derive(secret)


def read(raw: bytes, secret: bytes) -> dict[bytes, bytes]:
    """Key id → key."""
    assert raw[:8] == b"SHLDKEY\x01"
    assert hashlib.sha256(raw[:-32]).digest() == raw[-32:]
    (length,) = struct.unpack_from("<I", raw, 8)
    assert len(raw) == 12 + length + 64
    body = json.loads(raw[12 : 12 + length])
    assert json.dumps(body, sort_keys=True, separators=(",", ":")).encode() == raw[12 : 12 + length]
    roots = {}
    for root in body["root"]["roots"]:
        wrapped, key_id = bytes.fromhex(root["wrapped"]), bytes.fromhex(root["id"])
        bound = b"shield/1/keystore/root" + key_id + struct.pack("<I", root["version"])
        roots[key_id] = AESGCM(derived(secret, root["unlock"])).decrypt(wrapped[:12], wrapped[12:], bound)
    own = bytes.fromhex(body["id"])
    mac_key = unwrap(bytes.fromhex(body["mac_key"]), roots, b"shield/1/keystore/mac" + own)
    assert hmac.digest(mac_key, raw[:-64], "sha256") == raw[-64:-32]
    keys = {}
    for x in body["versions"]:
        key_id = bytes.fromhex(x["id"])
        context = b"shield/1/kek" + own + struct.pack("<BI", x["purpose"], x["version"]) + key_id
        keys[key_id] = unwrap(bytes.fromhex(x["wrapped"]), roots, context)
    return keys


@pytest.mark.parametrize("method", Unlock)
def test_keys_come_back_without_shieldd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Unlock) -> None:
    secret = PASSPHRASE if method is Unlock.PASSPHRASE else CREDENTIAL
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials(tmp_path, secret)))
    config = personal(tmp_path) if method is Unlock.KEYFILE else unlocked_by(tmp_path, method)
    with KeyRing.open(config, MemoryLedger()) as ring:
        wrapped = [ring.native.wrap(purpose, b"a data key", b"of a file") for purpose in Purpose]
        ring.rotate()
        ring.rotate_root()
        wrapped += [ring.native.wrap(purpose, b"a data key", b"of a file") for purpose in Purpose]
    if method is Unlock.KEYFILE:
        secret = config.keyfile_path.read_bytes()
    keys = read(config.keystore_path.read_bytes(), secret)
    assert len(keys) == 8
    assert {unwrap(one, keys, b"of a file") for one in wrapped} == {b"a data key"}
