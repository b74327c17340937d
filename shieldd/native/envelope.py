"""Sealed files (shield-envelope(5)): the typed face of the core's envelope part.

Owns: the calls that seal, open and rewrap, the journal behind them. Does not own: what sealed files say of themselves
(`shieldd.native.described`), the keys (`shieldd.native.keyring`) nor where they come from (`shieldd.keys`), what is
sealed and why (`shieldd.respond`).

Paths are bytes relative to a root descriptor; every call releases the GIL. Failures are `ShieldError` with the code
of the layer that refused (`envelope.*`, `keys.*`) or of the file trouble (`file.*`); nothing was lost then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from shieldd.errors import ShieldError
from shieldd.native._abi import call, failure, ffi, lib
from shieldd.native._bytes import Blob, Slice, Slices, fields_of
from shieldd.native.described import header, metadata, metadata_of, verify
from shieldd.native.keyring import Keyring, random_bytes
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

BATCH: Final = 4096
"""Paths handed to the core at a time; bounds the memory of the answers."""


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
        labels = Slices(list(roots))
        with Blob() as blob:
            call(
                lib.shd_journal_recover,
                self._handle,
                labels.array,
                ffi.new("int32_t[]", list(roots.values())),
                len(roots),
                keyring.handle,
                blob.out,
            )
            fields = list(fields_of(blob.view()))
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
        slices = Slices(some)
        with Blob() as blob:
            call(
                lib.shd_seal_many,
                root_fd,
                slices.array,
                len(some),
                keyring.handle,
                journal._handle,
                native.struct,
                results,
                errors,
                blob.out,
            )
            for i, sealed_path in enumerate(fields_of(blob.view())):
                ok = results[i].status == 0
                answers.append(_sealed(results[i], sealed_path) if ok else failure(errors[i], some[i]))
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
    one = Slice(path)
    with Blob() as blob:
        call(lib.shd_open_stream, root_fd, one.struct, keyring.handle, out_fd, blob.out, path=path)
        return _opened(list(fields_of(blob.view())))


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
    label, name = Slice(path), Slice(store_name)
    call(
        lib.shd_seal_descriptor,
        source_fd,
        label.struct,
        store_fd,
        name.struct,
        keyring.handle,
        journal._handle,
        native.struct,
        result,
        path=path,
    )
    return _sealed(result[0], store_name)


def open_descriptor(sealed_fd: int, keyring: Keyring, out_fd: int) -> Opened:
    """As `open_stream`, of an open sealed file; its offset is neither used nor moved."""
    return open_stream(sealed_fd, b"", keyring, out_fd)


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
        slices = Slices(some)
        call(
            lib.shd_rewrap_many,
            root_fd,
            slices.array,
            len(some),
            keyring.handle,
            int(purpose),
            revoke,
            results,
            errors,
        )
        for i, path in enumerate(some):
            one = results[i]
            if one.status == 0:
                answers.append(Rewrapped(bytes(one.file_id), one.generation, bool(one.changed)))
            else:
                answers.append(failure(errors[i], path))
    return answers


class _Options:
    """`SealOptions` as the core has them; owns the bytes that the struct points to."""

    def __init__(self, options: SealOptions) -> None:
        self._why, self._host = Slice(options.why.encode()), Slice(options.host_id)
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
    result, native, one, name = ffi.new("ShdSealed *"), _Options(options), Slice(path), Slice(store_name)
    with Blob() as blob:
        call(
            lib.shd_seal,
            root_fd,
            one.struct,
            store_fd,
            name.struct,
            keyring.handle,
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
    one, name = Slice(path), Slice(to_name)
    with Blob() as blob:
        call(
            lib.shd_open,
            root_fd,
            one.struct,
            to_fd,
            name.struct,
            whole,
            keyring.handle,
            journal._handle,
            options,
            blob.out,
            path=path,
        )
        return _opened(list(fields_of(blob.view())))


def _opened(fields: list[bytes]) -> Opened:
    file_id, path, skipped, *rest = fields
    return Opened(path, metadata_of(file_id, rest), tuple(fields_of(memoryview(skipped))))


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
