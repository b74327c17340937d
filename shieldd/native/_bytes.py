"""Bytes across the border: slices that the core reads, blobs that it gives out."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, Self

import numpy as np

from shieldd.native._abi import ffi, lib

_LENGTH: Final = struct.Struct("<I")
_SLICE: Final = np.dtype([("data", np.uintp), ("len", np.uintp)])  # `ShdSlice`


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


class Names:
    """Many names in one piece of memory, as the core takes them; `array` lives as long as this object."""

    def __init__(self, data: bytes, offsets: np.ndarray, lengths: np.ndarray) -> None:
        self._data = data
        base = int(ffi.cast("uintptr_t", ffi.from_buffer(data)))
        self._table = np.empty(len(offsets), _SLICE)
        self._table["data"], self._table["len"] = offsets.astype(np.uint64) + np.uint64(base), lengths
        self._base = base
        self.array = ffi.from_buffer("ShdSlice[]", self._table) if len(offsets) else ffi.NULL

    @classmethod
    def of(cls, names: Sequence[bytes]) -> Names:
        """From single ones."""
        lengths = np.array([len(name) for name in names], np.uint64)
        return cls(b"".join(names) or b"\0", np.cumsum(lengths) - lengths, lengths)

    def at(self, place: int) -> bytes:
        """One of them."""
        start = int(self._table[place]["data"]) - self._base
        return self._data[start : start + int(self._table[place]["len"])]

    def __len__(self) -> int:
        return len(self._table)


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
