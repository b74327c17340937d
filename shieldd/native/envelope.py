"""Keys and sealed files (shield-envelope(5)): the typed face of the core's envelope part.

Owns: handles on keys and journals, values that describe sealed files. Does not own: where keys come from
(`shieldd.keys`), what is sealed and why (`shieldd.respond`).

Paths are bytes relative to a root descriptor; every call releases the GIL. Failures are `ShieldError` with the code
of the layer that refused (`envelope.*`, `keys.*`) or of the file trouble (`file.*`); nothing was lost then.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from shieldd.errors import ShieldError
from shieldd.native._abi import call, ffi, lib
from shieldd.native.sealed import (
    Act,
    Header,
    Metadata,
    Opened,
    Outcome,
    Purpose,
    Recipient,
    Recovered,
    Rewrapped,
    Sealed,
    SealOptions,
    Verified,
)

KEY_BYTES: Final = 32
ID_BYTES: Final = 16
BATCH: Final = 4096
"""Paths handed to the core at a time; bounds the memory of the answers."""


class Keyring:
    """Keys inside the core: locked in memory, left out of core dumps, wiped when forgotten or closed.

    Thread-safe. A forked child finds it emptied (`keys.locked`).
    """

    def __init__(self) -> None:
        """Raises: ShieldError native.panic where the self-test of the primitives fails."""
        result = ffi.new("ShdKeyring **")
        call(lib.shd_keyring_new, result)
        self._handle = ffi.gc(result[0], lib.shd_keyring_free)

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
        call(lib.shd_keyring_add, self._handle, _key_id(key_id), version, int(purpose), view, seals)

    def forget(self, *, key_id: bytes) -> None:
        """Wipe every version of a key; nothing happens where there is none."""
        call(lib.shd_keyring_forget, self._handle, _key_id(key_id), ffi.new("bool *"))

    @property
    def locked(self) -> bool:
        """Every key is kept out of swap (RLIMIT_MEMLOCK sufficed)."""
        locked = ffi.new("bool *")
        call(lib.shd_keyring_locked, self._handle, locked)
        return bool(locked[0])

    def wrap(self, purpose: Purpose, plaintext: bytes | bytearray, context: bytes) -> bytes:
        """Encrypt a small secret under the sealing key of `purpose`; `context` must be given again to unwrap."""
        about, secret = _Slice(context), _Slice(plaintext)
        with _Blob() as blob:
            call(lib.shd_keyring_wrap, self._handle, int(purpose), about.struct, secret.struct, blob.out)
            return blob.take()

    def unwrap(self, wrapped: bytes, context: bytes) -> bytearray:
        """The secret back.

        Raises:
            ShieldError: envelope.recipient for a wrong context, key or damage; keys.version for an unknown version.
        """
        about, secret = _Slice(context), _Slice(wrapped)
        with _Blob() as blob:
            call(lib.shd_keyring_unwrap, self._handle, about.struct, secret.struct, blob.out)
            return bytearray(blob.view())

    def close(self) -> None:
        """Wipe every key; memory is given back with the object."""
        call(lib.shd_keyring_clear, self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Journal:
    """Crash journal in a directory that only the daemon may write. Thread-safe; several processes may share one."""

    def __init__(self, dir_fd: int) -> None:
        result = ffi.new("ShdJournal **")
        call(lib.shd_journal_new, dir_fd, result)
        self._handle = ffi.gc(result[0], lib.shd_journal_free)

    def recover(self, roots: Mapping[bytes, int], keyring: Keyring) -> list[Recovered]:
        """Finish or roll back what dead processes left; what live ones do is left alone.

        Args:
            roots: descriptors by absolute path: every guarded tree and the quarantine store.
            keyring: keys to check sealed files with; without the right one the plain file wins.
        """
        labels = [_Slice(path) for path in roots]
        with _Blob() as blob:
            call(
                lib.shd_journal_recover,
                self._handle,
                ffi.new("ShdSlice[]", [one.struct for one in labels]),
                ffi.new("int32_t[]", list(roots.values())),
                len(labels),
                keyring._handle,
                blob.out,
            )
            fields = list(_fields(blob.view()))
        return [
            Recovered(Act(state[0]), Outcome(state[1]), file_id, path, sealed_path)
            for state, file_id, path, sealed_path in zip(*[iter(fields)] * 4, strict=True)
        ]

    def close(self) -> None:
        """Remove idle journal files. Must not run while another thread uses the journal."""
        ffi.release(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def random_bytes(count: int) -> bytearray:
    """Random bytes of the kernel, in memory that the caller can wipe."""
    out = bytearray(count)
    call(lib.shd_random, ffi.from_buffer(out), count)
    return out


def seal(root_fd: int, path: bytes, keyring: Keyring, journal: Journal, options: SealOptions) -> Sealed:
    """Replace `path` by its sealed form beside it: `PATH.shield`, mode 0600, same owner.

    Where that name is taken: `PATH.2.shield` and so on; where it is longer than 255 bytes: its beginning and a hash.

    Raises:
        ShieldError: file.* (the original stands as before), envelope.already, keys.locked.
    """
    return _seal(root_fd, path, -1, b"", keyring, journal, options)


def seal_into(
    root_fd: int,
    path: bytes,
    store_fd: int,
    store_name: bytes,
    keyring: Keyring,
    journal: Journal,
    options: SealOptions,
) -> Sealed:
    """Seal `path` into the directory `store_fd` as `store_name` (mode 0600, owned by this process), then remove it.

    The store may lie on another file system. An existing `store_name` is `file.exists`.
    """
    return _seal(root_fd, path, store_fd, store_name, keyring, journal, options)


def seal_many(
    root_fd: int, paths: Sequence[bytes], keyring: Keyring, journal: Journal, options: SealOptions
) -> list[Sealed | ShieldError]:
    """As `seal` for each path, made durable in groups; the answers are in the order of `paths`."""
    answers: list[Sealed | ShieldError] = []
    native = _Options(options)
    for at in range(0, len(paths), BATCH):
        some = paths[at : at + BATCH]
        results, errors = ffi.new("ShdSealed[]", len(some)), ffi.new("ShdError[]", len(some))
        with _Blob() as blob, _Slices(some) as slices:
            call(
                lib.shd_seal_many,
                root_fd,
                slices,
                len(some),
                keyring._handle,
                journal._handle,
                native.struct,
                results,
                errors,
                blob.out,
            )
            for i, sealed_path in enumerate(_fields(blob.view())):
                ok = results[i].status == 0
                answers.append(_sealed(results[i], sealed_path) if ok else _error(errors[i], some[i]))
    return answers


def open_sealed(
    root_fd: int,
    path: bytes,
    keyring: Keyring,
    journal: Journal,
    *,
    to_fd: int | None = None,
    to_name: bytes | None = None,
    keep_sealed: bool = False,
    privileged_bits: bool = False,
    durable: bool = True,
    threads: int = 0,
) -> Opened:
    """Bring the sealed file `path` back beside itself under its own name, or into `to_fd` (as `to_name`).

    Never overwrites (`file.exists`), never follows a link. Set-id and sticky bits and file capabilities come back only
    with `privileged_bits`. The sealed file goes once the plain one is durable, unless `keep_sealed`.
    """
    options = ffi.new("ShdOpenOptions *", [threads, keep_sealed, privileged_bits, durable])
    target = -1 if to_fd is None else to_fd
    return _open(root_fd, path, target, to_name or b"", False, keyring, journal, options)


def open_into(
    store_fd: int,
    store_name: bytes,
    root_fd: int,
    path: bytes,
    keyring: Keyring,
    journal: Journal,
    *,
    keep_sealed: bool = False,
    privileged_bits: bool = False,
    durable: bool = True,
    threads: int = 0,
) -> Opened:
    """Bring `store_name` in `store_fd` back at `path` beneath `root_fd`; its directory must exist.

    Else as `open_sealed`.
    """
    options = ffi.new("ShdOpenOptions *", [threads, keep_sealed, privileged_bits, durable])
    return _open(store_fd, store_name, root_fd, path, True, keyring, journal, options)


def open_stream(root_fd: int, path: bytes, keyring: Keyring, out_fd: int) -> Opened:
    """Write the content to `out_fd`, in order, holes as zeros; nothing is written before its tag held.

    A refusal in the middle leaves verified bytes written: a reader must heed the error.
    """
    one = _Slice(path)
    with _Blob() as blob:
        call(lib.shd_open_stream, root_fd, one.struct, keyring._handle, out_fd, blob.out, path=path)
        return _opened(list(_fields(blob.view())))


def seal_descriptor(
    source_fd: int,
    path: bytes,
    store_fd: int,
    store_name: bytes,
    keyring: Keyring,
    journal: Journal,
    options: SealOptions,
) -> Sealed:
    """Seal an open regular file into `store_fd` as `store_name` (mode 0600); the file itself is only read.

    Args:
        source_fd: readable; its offset is neither used nor moved.
        path: relative path that the sealed metadata gives as the original's.

    Raises:
        ShieldError: `file.exists`, `file.not-regular`, `file.changed` where it was written meanwhile, …
    """
    result, native = ffi.new("ShdSealed *"), _Options(options)
    label, name = _Slice(path), _Slice(store_name)
    call(
        lib.shd_seal_descriptor,
        source_fd,
        label.struct,
        store_fd,
        name.struct,
        keyring._handle,
        journal._handle,
        native.struct,
        result,
        path=path,
    )
    return _sealed(result[0], store_name)


def open_descriptor(sealed_fd: int, keyring: Keyring, out_fd: int) -> Opened:
    """As `open_stream`, of an open sealed file; its offset is neither used nor moved."""
    return open_stream(sealed_fd, b"", keyring, out_fd)


def metadata(root_fd: int, path: bytes, keyring: Keyring) -> Metadata:
    """What `path` says of its original; header and metadata are checked, the content is not read."""
    return _metadata_of(root_fd, path, keyring, False)[0]


def verify(root_fd: int, path: bytes, keyring: Keyring) -> Verified:
    """Check every byte of `path`.

    Raises:
        ShieldError: with the layer that refuses; envelope.crc where one of the two slots is torn.
    """
    found, chunks = _metadata_of(root_fd, path, keyring, True)
    return Verified(found, chunks)


def header(root_fd: int, path: bytes) -> Header:
    """What `path` says without a key. Unchecked: only `metadata` and `verify` know whether it is true."""
    one = _Slice(path)
    with _Blob() as blob:
        call(lib.shd_header, root_fd, one.struct, blob.out, path=path)
        kind, generation, size, file_id, slots, *recipients = _fields(blob.view())
    return Header(
        suite=kind[0],
        chunk_bytes=1 << kind[1],
        generation=int.from_bytes(generation, "little"),
        payload_size=int.from_bytes(size, "little"),
        file_id=file_id,
        slots=slots[0],
        recipients=tuple(Recipient(r[0], r[1:17], int.from_bytes(r[17:], "little")) for r in recipients),
    )


def rewrap_many(
    root_fd: int, paths: Sequence[bytes], keyring: Keyring, purpose: Purpose, *, revoke: bool = False
) -> list[Rewrapped | ShieldError]:
    """Wrap the data keys of sealed files for the key that seals for `purpose`; only headers are written.

    Durable when it returns. With `revoke` the old wrap is overwritten too. Running it again is harmless.
    """
    answers: list[Rewrapped | ShieldError] = []
    for at in range(0, len(paths), BATCH):
        some = paths[at : at + BATCH]
        results, errors = ffi.new("ShdRewrapped[]", len(some)), ffi.new("ShdError[]", len(some))
        with _Slices(some) as slices:
            call(
                lib.shd_rewrap_many, root_fd, slices, len(some), keyring._handle, int(purpose), revoke, results, errors
            )
        for i, path in enumerate(some):
            one = results[i]
            if one.status == 0:
                answers.append(Rewrapped(bytes(one.file_id), one.generation, bool(one.changed)))
            else:
                answers.append(_error(errors[i], path))
    return answers


class _Blob:
    """Bytes that the core gives out; wiped and freed on exit."""

    def __init__(self) -> None:
        self.out = ffi.new("ShdBlob *")

    def view(self) -> memoryview:
        return memoryview(ffi.buffer(self.out.data, self.out.len)) if self.out.len else memoryview(b"")

    def take(self) -> bytes:
        return bytes(self.view())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        lib.shd_blob_free(self.out)


class _Slices:
    """An array of slices; the paths live as long as it does."""

    def __init__(self, paths: Sequence[bytes]) -> None:
        self._one = [_Slice(path) for path in paths]

    def __enter__(self) -> Any:
        return ffi.new("ShdSlice[]", [one.struct for one in self._one])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._one.clear()


class _Options:
    """`SealOptions` as the core has them; owns the bytes that the struct points to."""

    def __init__(self, options: SealOptions) -> None:
        self._why, self._host = _Slice(options.why.encode()), _Slice(options.host_id)
        self.struct = ffi.new(
            "ShdSealOptions *",
            {
                "why": self._why.struct,
                "host_id": self._host.struct,
                "budget": options.budget_bytes,
                "threads": options.threads,
                "purpose": int(options.purpose),
                "durable": options.durable,
                "keep_original": options.keep_original,
            },
        )


class _Slice:
    """Bytes as the core takes them; `struct` points into the buffer for as long as this object lives."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._buffer = ffi.from_buffer(data)
        self.struct = ffi.new("ShdSlice *", [ffi.cast("uint8_t *", self._buffer), len(data)])[0]


_LENGTH: Final = struct.Struct("<I")
_SCALARS: Final = struct.Struct("<4I3q3Q")


def _key_id(key_id: bytes) -> Any:
    if len(key_id) != ID_BYTES:
        raise ShieldError("native.argument", f"key id has {len(key_id)} bytes, not {ID_BYTES}")
    return ffi.new("uint8_t (*)[16]", list(key_id))


def _fields(view: memoryview) -> Iterator[bytes]:
    """Fields of a blob: u32 length, bytes."""
    at = 0
    while at < len(view):
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        yield bytes(view[at : at + length])
        at += length


def _error(record: Any, path: bytes) -> ShieldError:
    return ShieldError(
        ffi.string(record.code).decode(),
        ffi.string(record.message).decode("utf-8", "replace"),
        errno=record.errno or None,
        path=path,
    )


def _sealed(record: Any, path: bytes) -> Sealed:
    return Sealed(
        file_id=bytes(record.file_id),
        path=path,
        size=record.size,
        sealed_size=record.sealed_size,
        blake3=bytes(record.digest),
        key_id=bytes(record.key_id),
        key_version=record.key_version,
        sealed_at_ns=record.sealed_at_ns,
    )


def _seal(
    root_fd: int,
    path: bytes,
    store_fd: int,
    store_name: bytes,
    keyring: Keyring,
    journal: Journal,
    options: SealOptions,
) -> Sealed:
    result, native, one, name = ffi.new("ShdSealed *"), _Options(options), _Slice(path), _Slice(store_name)
    with _Blob() as blob:
        call(
            lib.shd_seal,
            root_fd,
            one.struct,
            store_fd,
            name.struct,
            keyring._handle,
            journal._handle,
            native.struct,
            result,
            blob.out,
            path=path,
        )
        return _sealed(result[0], blob.take())


def _open(
    root_fd: int, path: bytes, to_fd: int, to_name: bytes, whole: bool, keyring: Keyring, journal: Journal, options: Any
) -> Opened:
    one, name = _Slice(path), _Slice(to_name)
    with _Blob() as blob:
        call(
            lib.shd_open,
            root_fd,
            one.struct,
            to_fd,
            name.struct,
            whole,
            keyring._handle,
            journal._handle,
            options,
            blob.out,
            path=path,
        )
        return _opened(list(_fields(blob.view())))


def _opened(fields: list[bytes]) -> Opened:
    file_id, path, skipped, *rest = fields
    return Opened(path, _metadata(file_id, rest), tuple(_fields(memoryview(skipped))))


def _metadata_of(root_fd: int, path: bytes, keyring: Keyring, verify_all: bool) -> tuple[Metadata, int]:
    one = _Slice(path)
    with _Blob() as blob:
        call(lib.shd_metadata, root_fd, one.struct, keyring._handle, verify_all, blob.out, path=path)
        file_id, chunks, *rest = _fields(blob.view())
    return _metadata(file_id, rest), int.from_bytes(chunks, "little")


def _metadata(file_id: bytes, fields: list[bytes]) -> Metadata:
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
        xattr_names=tuple(_fields(memoryview(names))),
    )


__all__ = [
    "Act",
    "Header",
    "Journal",
    "Keyring",
    "Metadata",
    "Opened",
    "Outcome",
    "Purpose",
    "Recipient",
    "Recovered",
    "Rewrapped",
    "SealOptions",
    "Sealed",
    "Verified",
    "header",
    "metadata",
    "open_descriptor",
    "open_into",
    "open_sealed",
    "open_stream",
    "random_bytes",
    "rewrap_many",
    "seal",
    "seal_descriptor",
    "seal_into",
    "seal_many",
    "verify",
]
