"""The contract of a key provider, and of the record that the key ring keeps.

A provider holds the root of the keys and wraps key-encryption keys (KEK) with it. The ring keeps the wrapped KEKs in
the keystore file; a provider keeps nothing on disk but what `export` hands to the ring.

Who retries: nobody in here. A provider raises at once; `keys.provider` (it does not answer) is the only error that may
go away by itself, and the daemon tries again later. All others are final for this input: `keys.wrapped` (tampered with,
or of another context), `keys.unlock` (wrong secret), `keys.secret` (no usable secret), `keys.locked` (closed).

Threads: any may call; calls are serialised by the provider where its library needs that. Nothing is called after
`close`, except `state` and `close`. Keys are bytearrays that the *receiver* wipes: `generate` and `unwrap` hand over a
fresh one each time, `wrap` copies what it is given and leaves the caller's alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from shieldd.model.key import KeyRecord

KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ProviderState:
    """How a provider is.

    Attributes:
        name: as in the configuration.
        ready: whether it wraps and unwraps now.
        detail: one sentence; where its root is, or what is wrong.
        latency_ms: of the last wrap or unwrap, -1 before the first.
    """

    name: str
    ready: bool
    detail: str
    latency_ms: float


class Provider(Protocol):
    """See the module for who retries and who wipes."""

    @property
    def name(self) -> str:
        """As in the configuration; stands in the keystore."""

    def generate(self) -> bytearray:
        """32 fresh random bytes, from the kernel's generator or the device's."""

    def wrap(self, key: bytearray, context: bytes) -> bytes:
        """Encrypt a key under the newest root, bound to `context`. Two wraps of one key differ."""

    def unwrap(self, wrapped: bytes, context: bytes) -> bytearray:
        """The key back, from any root not yet retired; `keys.wrapped` for whatever was altered."""

    def rotate(self) -> None:
        """Make a new root. Earlier wraps still unwrap; the caller wraps all anew, writes the export, then retires."""

    def retire(self) -> None:
        """Forget all roots but the newest. May be called twice."""

    def export(self) -> Mapping[str, object]:
        """What the keystore keeps of the provider, as JSON; no secret in the clear."""

    def state(self) -> ProviderState:
        """Cheap, never raises."""

    def close(self) -> None:
        """Wipe. May be called twice."""


class KeyLedger(Protocol):
    """What is remembered of keys outside the keystore (the store's `keys` is one). Raises `store.*`."""

    def keystore(self) -> tuple[str, int] | None:
        """Id and highest generation of the keystore seen so far; None before the first."""

    def record(self, keystore_id: str, generation: int, records: Sequence[KeyRecord]) -> None:
        """Write generation and all versions in one durable step."""

    def versions(self, purpose: int | None = None) -> list[KeyRecord]:
        """By purpose, then version."""

    def used(self, counts: Mapping[bytes, int]) -> None:
        """Add to the use counters, durable."""

    def objects(self) -> dict[bytes, int]:
        """Key id → objects wrapped by it."""
