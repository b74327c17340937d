"""What a sealed file says of its original (shield-envelope(5)); nothing is opened or changed."""

from __future__ import annotations

import struct
from typing import Final

from shieldd.native._abi import call, lib
from shieldd.native._bytes import Blob, Slice, fields_of
from shieldd.native.keyring import Keyring
from shieldd.native.sealed import Header, Metadata, Purpose, Recipient, Verified

_SCALARS: Final = struct.Struct("<4I3q3Q")


def metadata(root_fd: int, path: bytes, keyring: Keyring) -> Metadata:
    """What `path` says of its original; header and metadata are checked, the content is not read."""
    return _checked(root_fd, path, keyring, False)[0]


def verify(root_fd: int, path: bytes, keyring: Keyring) -> Verified:
    """Check every byte of `path`.

    Raises:
        ShieldError: with the layer that refuses; envelope.crc where one of the two slots is torn.
    """
    found, chunks = _checked(root_fd, path, keyring, True)
    return Verified(found, chunks)


def header(root_fd: int, path: bytes) -> Header:
    """What `path` says without a key. Unchecked: only `metadata` and `verify` know whether it is true."""
    one = Slice(path)
    with Blob() as blob:
        call(lib.shd_header, root_fd, one.struct, blob.out, path=path)
        kind, generation, size, file_id, slots, *recipients = fields_of(blob.view())
    return Header(
        suite=kind[0],
        chunk_bytes=1 << kind[1],
        generation=int.from_bytes(generation, "little"),
        payload_size=int.from_bytes(size, "little"),
        file_id=file_id,
        slots=slots[0],
        recipients=tuple(Recipient(r[0], r[1:17], int.from_bytes(r[17:], "little")) for r in recipients),
    )


def _checked(root_fd: int, path: bytes, keyring: Keyring, verify_all: bool) -> tuple[Metadata, int]:
    one = Slice(path)
    with Blob() as blob:
        call(lib.shd_metadata, root_fd, one.struct, keyring.handle, verify_all, blob.out, path=path)
        file_id, chunks, *rest = fields_of(blob.view())
    return metadata_of(file_id, rest), int.from_bytes(chunks, "little")


def metadata_of(file_id: bytes, fields: list[bytes]) -> Metadata:
    """Metadata from the fields that the core gives after the file's id."""
    scalars, path, user, group, blake3, why, host_id, names = fields
    mode, uid, gid, purpose, atime_ns, mtime_ns, sealed_at_ns, size, data_size, extents = _SCALARS.unpack(scalars)
    return Metadata(
        file_id=file_id,
        path=path,
        mode=mode,
        uid=uid,
        gid=gid,
        user=user,
        group=group,
        atime_ns=atime_ns,
        mtime_ns=mtime_ns,
        size=size,
        data_size=data_size,
        extents=extents,
        blake3=blake3,
        purpose=Purpose(purpose),
        why=why.decode(),
        sealed_at_ns=sealed_at_ns,
        host_id=host_id,
        xattr_names=tuple(fields_of(memoryview(names))),
    )
