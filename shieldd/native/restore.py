"""Typed face of `native/sys/src/restore`: files brought back beneath a root, many in one call."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from shieldd.errors import ShieldError
from shieldd.model.restore import There, Wanted
from shieldd.native._abi import call, failure, ffi, lib


class How(IntEnum):
    """How a file comes back (`ShdRestoreItem.act`)."""

    COPY = 0
    LINK = 1
    MOVE_BACK = 2
    TWIN = 3
    DRESS = 4
    TIDY = 5


class Over(IntEnum):
    """What happens to what stands there (`ShdRestoreItem.over`): nothing may, it is dropped, it is set aside."""

    NOTHING = 0
    DROP = 1
    ASIDE = 2


@dataclass(frozen=True, slots=True)
class Item:
    """One file to bring back.

    Attributes:
        path, other: relative to the root; `other` is where the file is now, of `MOVE_BACK` and `TWIN`.
        hidden: 33 bytes, of `shieldd.native.files.hidden_name`, used in the file's directory.
        there: what may be replaced, moved or dressed; another thing there is `file.race`.
        version_fd: the version, open for reading; -1 where there is none.
    """

    path: bytes
    how: How
    over: Over
    hidden: bytes
    wanted: Wanted
    there: There | None = None
    other: bytes = b""
    version_fd: int = -1


@dataclass(frozen=True, slots=True)
class Restored:
    """How it went: BLAKE3 of the content (empty where none was read), inode now, name of what was set aside."""

    digest: bytes
    ino: int
    skipped: int
    aside: bytes


NOTHING: Final = Wanted(0, 0, 0, 0, 0, 0)


def run(root_fd: int, items: Sequence[Item]) -> list[Restored | ShieldError]:
    """Bring files back; one answer each, in their order.

    Contents are durable before the first name is given, the names when this returns. Nothing is overwritten but what
    `there` describes, no link is followed, a file that fails is as it was.
    """
    count = len(items)
    if not count:
        return []
    given, out = ffi.new("ShdRestoreItem[]", count), ffi.new("ShdRestored[]", count)
    kept = [_fill(given[row], item) for row, item in enumerate(items)]  # buffers must outlive the call
    call(lib.shd_restore_run, root_fd, given, count, out)
    del kept
    return [_answer(out[row], item.path) for row, item in enumerate(items)]


def digest_of(fd: int) -> bytes:
    """BLAKE3 of all of a file."""
    out = ffi.new("uint8_t[32]")
    call(lib.shd_digest_of, fd, out)
    return bytes(ffi.buffer(out))


def _fill(record: Any, item: Item) -> list[Any]:
    wanted, there = item.wanted, item.there
    packed = b"".join(struct.pack("<HI", len(name), len(value)) + name + value for name, value in wanted.xattrs)
    buffers = [ffi.from_buffer("uint8_t[]", data) for data in (item.path, item.other, packed)]
    record.path, record.path_len = buffers[0], len(item.path)
    record.other, record.other_len = buffers[1], len(item.other)
    record.xattrs, record.xattrs_len = buffers[2], len(packed)
    ffi.memmove(record.hidden, item.hidden.ljust(33, b"_")[:33], 33)
    record.act, record.over, record.version_fd = item.how, item.over, item.version_fd
    record.size, record.mode, record.uid, record.gid = wanted.size, wanted.mode, wanted.uid, wanted.gid
    record.atime_ns, record.mtime_ns = wanted.atime_ns, wanted.mtime_ns
    record.xattrs_whole, record.digest_known = wanted.xattrs_whole, bool(wanted.digest)
    if wanted.digest:
        ffi.memmove(record.digest, wanted.digest, 32)
    if there is not None:
        record.there_dev, record.there_ino = there.dev, there.ino
        record.there_size, record.there_mtime_ns = there.size, there.mtime_ns
    return buffers


def _answer(record: Any, path: bytes) -> Restored | ShieldError:
    if record.status:
        return failure(record.error, path)
    digest = bytes(ffi.buffer(record.digest))
    aside = bytes(ffi.buffer(record.aside))[: record.aside_len]
    return Restored(digest if any(digest) else b"", record.ino, record.skipped, aside)
