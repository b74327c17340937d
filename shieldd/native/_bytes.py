"""Bytes across the border: slices that the core reads, blobs that it gives out."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, Self

from shieldd.native._abi import ffi, lib

_LENGTH: Final = struct.Struct("<I")


class Slice:
    """Bytes as the core takes them; `struct` points into the buffer for as long as this object lives."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._buffer = ffi.from_buffer(data)
        self.struct = ffi.new("ShdSlice *", [ffi.cast("uint8_t *", self._buffer), len(data)])[0]


class Slices:
    """An array of slices; `array` points into the buffers for as long as this object lives."""

    def __init__(self, items: Sequence[bytes]) -> None:
        self._alive = [Slice(item) for item in items]
        self.array = ffi.new("ShdSlice[]", [one.struct for one in self._alive])


class Blob:
    """Bytes that the core gives out; wiped and freed on exit."""

    def __init__(self) -> None:
        self.out = ffi.new("ShdBlob *")

    def view(self) -> memoryview:
        """Them in place; not to be used after the exit."""
        return memoryview(ffi.buffer(self.out.data, self.out.len)) if self.out.len else memoryview(b"")

    def take(self) -> bytes:
        """A copy of them."""
        return bytes(self.view())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        lib.shd_blob_free(self.out)


def fields_of(view: memoryview) -> Iterator[bytes]:
    """Fields of a blob: u32 length, bytes."""
    at = 0
    while at < len(view):
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        yield bytes(view[at : at + length])
        at += length
