"""The local provider: a random root key in the keystore, wrapped by the unlock secret.

The open root lives inside the core (locked memory, wiped on close) and wraps there; Python sees it only while it is
made or opened. Root wrap: AES-256-GCM under the derived key, nonce 12 ‖ ciphertext 32 ‖ tag 16, bound to root id and
version.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shieldd.errors import ShieldError
from shieldd.keys.contract import KEY_BYTES, ProviderState
from shieldd.keys.secrets import Secret, wiped
from shieldd.native.envelope import Keyring, Purpose, random_bytes

NAME: Final = "local"
NONCE_BYTES: Final = 12
WRAPPED_BYTES: Final = NONCE_BYTES + KEY_BYTES + 16
ROOTS_LIMIT: Final = 8
# The core's ring sorts keys by purpose; this one holds roots only, in a ring of their own.
_SLOT: Final = Purpose.PRESERVE


@dataclass(frozen=True, slots=True)
class _Root:
    key_id: bytes
    version: int
    unlock: dict[str, object]
    wrapped: bytes


class LocalProvider:
    """See `shieldd.keys.contract.Provider`."""

    def __init__(self, secret: Secret) -> None:
        """Use `create` or `open`."""
        self._secret = secret
        self._roots: tuple[_Root, ...] = ()
        self._ring = Keyring()
        self._latency_ms = -1.0
        self._open = True

    @classmethod
    def create(cls, secret: Secret) -> LocalProvider:
        """A provider with a new random root."""
        provider = cls(secret)
        provider.rotate()
        return provider

    @classmethod
    def open(cls, secret: Secret, exported: Mapping[str, object]) -> LocalProvider:
        """A provider with the roots of a keystore.

        Raises:
            ShieldError: `keys.unlock` for a wrong secret, `keys.secret`, `keys.unsafe`, `keys.store`.
        """
        provider = cls(secret)
        try:
            for root in _parsed(exported):
                provider._load(root)
        except ShieldError:
            provider.close()
            raise
        return provider

    def __repr__(self) -> str:
        return f"LocalProvider({self._secret!r}, roots={len(self._roots)})"

    @property
    def name(self) -> str:
        """As in the configuration."""
        return NAME

    def generate(self) -> bytearray:
        """32 bytes of the kernel's generator."""
        return random_bytes(KEY_BYTES)

    def wrap(self, key: bytearray, context: bytes) -> bytes:
        """Under the newest root, inside the core."""
        self._ready()
        start = time.perf_counter()
        wrapped = self._ring.wrap(_SLOT, key, context)
        self._latency_ms = (time.perf_counter() - start) * 1000
        return wrapped

    def unwrap(self, wrapped: bytes, context: bytes) -> bytearray:
        """The key back; every refusal of the core reads `keys.wrapped`."""
        self._ready()
        start = time.perf_counter()
        try:
            key = self._ring.unwrap(wrapped, context)
        except ShieldError as error:
            raise ShieldError("keys.wrapped") from error
        self._latency_ms = (time.perf_counter() - start) * 1000
        return key

    def rotate(self) -> None:
        """A new root, wrapped by the same secret; asks for the secret again."""
        self._ready()
        version = 1 + max((root.version for root in self._roots), default=0)
        key_id = bytes(random_bytes(16))
        parameters = self._secret.fresh()
        with (
            wiped(random_bytes(KEY_BYTES)) as root,
            wiped(self._secret.derive(parameters, new=not self._roots)) as key,
        ):
            nonce = bytes(random_bytes(NONCE_BYTES))
            wrapped = nonce + AESGCM(key).encrypt(nonce, root, _bound(key_id, version))
            self._ring.add(key_id=key_id, version=version, purpose=_SLOT, key=root, seals=True)
        self._roots = (*self._roots, _Root(key_id, version, parameters, wrapped))

    def retire(self) -> None:
        """Forget all roots but the newest."""
        for root in self._roots[:-1]:
            self._ring.forget(key_id=root.key_id)
        self._roots = self._roots[-1:]

    def export(self) -> Mapping[str, object]:
        """Roots, wrapped."""
        return {
            "roots": [
                {"id": x.key_id.hex(), "version": x.version, "unlock": x.unlock, "wrapped": x.wrapped.hex()}
                for x in self._roots
            ]
        }

    def state(self) -> ProviderState:
        """Ready until closed."""
        detail = f"root version {self._roots[-1].version}, opened by {self._secret.method.value}" if self._roots else ""
        return ProviderState(NAME, self._open, detail if self._open else "closed", self._latency_ms)

    def close(self) -> None:
        """Wipe the roots."""
        self._open = False
        self._ring.close()

    def _ready(self) -> None:
        if not self._open:
            raise ShieldError("keys.locked")

    def _load(self, root: _Root) -> None:
        nonce, sealed = root.wrapped[:NONCE_BYTES], root.wrapped[NONCE_BYTES:]
        with wiped(bytearray(KEY_BYTES)) as plain, wiped(self._secret.derive(root.unlock)) as key:
            try:
                AESGCM(key).decrypt_into(nonce, sealed, _bound(root.key_id, root.version), plain)
            except InvalidTag as error:
                raise ShieldError("keys.unlock") from error
            self._ring.add(key_id=root.key_id, version=root.version, purpose=_SLOT, key=plain, seals=True)
        self._roots = (*self._roots, root)


def _bound(key_id: bytes, version: int) -> bytes:
    return b"shield/1/keystore/root" + key_id + version.to_bytes(4, "little")


def _parsed(exported: Mapping[str, object]) -> list[_Root]:
    """Roots of an export, oldest first; `keys.store` for anything else."""
    found = exported.get("roots")
    if not isinstance(found, list) or not 1 <= len(found) <= ROOTS_LIMIT:
        raise ShieldError("keys.store", "keystore holds no root")
    roots: list[_Root] = []
    for item in found:
        try:
            root = _Root(
                bytes.fromhex(item["id"]), item["version"], dict(item["unlock"]), bytes.fromhex(item["wrapped"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ShieldError("keys.store", "keystore holds a malformed root") from error
        if len(root.key_id) != 16 or len(root.wrapped) != WRAPPED_BYTES or type(root.version) is not int:
            raise ShieldError("keys.store", "keystore holds a malformed root")
        if not 1 <= root.version < 1 << 32:
            raise ShieldError("keys.store", "keystore holds a malformed root")
        roots.append(root)
    return sorted(roots, key=lambda root: root.version)
