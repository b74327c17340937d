"""Keys inside the core: the typed face of its key ring.

Does not own: where keys come from (`shieldd.keys`), what is sealed with them (`shieldd.native.envelope`).
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self

from shieldd.errors import ShieldError
from shieldd.native._abi import call, ffi, lib
from shieldd.native._bytes import Blob, Slice
from shieldd.native.sealed import Purpose

KEY_BYTES: Final = 32
ID_BYTES: Final = 16


class Keyring:
    """Keys inside the core: locked in memory, left out of core dumps, wiped when forgotten or closed.

    Thread-safe. A forked child finds it emptied (`keys.locked`).
    """

    def __init__(self) -> None:
        """Raises: ShieldError native.panic where the self-test of the primitives fails."""
        result = ffi.new("ShdKeyring **")
        call(lib.shd_keyring_new, result)
        self.handle = ffi.gc(result[0], lib.shd_keyring_free)

    def add(self, *, key_id: bytes, version: int, purpose: Purpose, key: bytearray, seals: bool) -> None:
        """Copy a key in; the caller wipes its own copy.

        Args:
            key_id: 16 bytes.
            version: 0..2**32-1.
            purpose: what it is for.
            key: 32 bytes.
            seals: new seals of the purpose use it; the last one added so wins.
        """
        if len(key) != KEY_BYTES:
            raise ShieldError("native.argument", f"key has {len(key)} bytes, not {KEY_BYTES}")
        view = ffi.cast("uint8_t (*)[32]", ffi.from_buffer(key))
        call(lib.shd_keyring_add, self.handle, _key_id(key_id), version, int(purpose), view, seals)

    def forget(self, *, key_id: bytes) -> None:
        """Wipe every version of a key; nothing happens where there is none."""
        call(lib.shd_keyring_forget, self.handle, _key_id(key_id), ffi.new("bool *"))

    @property
    def locked(self) -> bool:
        """Every key is kept out of swap (RLIMIT_MEMLOCK sufficed)."""
        locked = ffi.new("bool *")
        call(lib.shd_keyring_locked, self.handle, locked)
        return bool(locked[0])

    def wrap(self, purpose: Purpose, plaintext: bytes | bytearray, context: bytes) -> bytes:
        """Encrypt a small secret under the sealing key of `purpose`; `context` must be given again to unwrap."""
        about, secret = Slice(context), Slice(plaintext)
        with Blob() as blob:
            call(lib.shd_keyring_wrap, self.handle, int(purpose), about.struct, secret.struct, blob.out)
            return blob.take()

    def unwrap(self, wrapped: bytes, context: bytes) -> bytearray:
        """The secret back.

        Raises:
            ShieldError: envelope.recipient for a wrong context, key or damage; keys.version for an unknown version.
        """
        about, secret = Slice(context), Slice(wrapped)
        with Blob() as blob:
            call(lib.shd_keyring_unwrap, self.handle, about.struct, secret.struct, blob.out)
            return bytearray(blob.view())

    def close(self) -> None:
        """Wipe every key; memory is given back with the object."""
        call(lib.shd_keyring_clear, self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def random_bytes(count: int) -> bytearray:
    """Random bytes of the kernel, in memory that the caller can wipe."""
    out = bytearray(count)
    call(lib.shd_random, ffi.from_buffer(out), count)
    return out


def _key_id(key_id: bytes) -> Any:
    if len(key_id) != ID_BYTES:
        raise ShieldError("native.argument", f"key id has {len(key_id)} bytes, not {ID_BYTES}")
    return ffi.new("uint8_t (*)[16]", list(key_id))
