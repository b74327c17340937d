"""Small encoders of valid pictures: PNG (8-bit grey) and JPEG (baseline, grey).

Sources: PNG specification (W3C, third edition) sections 5 and 11; ITU-T T.81 annexes A, B, F and K (baseline
sequential DCT with the example tables).
"""

from __future__ import annotations

import math
import struct
import zlib
from random import Random
from typing import Final

import numpy as np

from shieldctl.drill.dicom import picture

_QUANT: Final = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.float32,
)  # T.81 table K.1
_ZIGZAG: Final = sorted(
    ((y, x) for y in range(8) for x in range(8)),
    key=lambda at: (at[0] + at[1], at[0] if (at[0] + at[1]) % 2 else at[1]),
)
_DC_COUNTS: Final = bytes((0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0))  # table K.3
_DC_VALUES: Final = bytes(range(12))
_AC_COUNTS: Final = bytes((0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125))  # table K.5
_AC_VALUES: Final = bytes.fromhex(
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738"
    "393a434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5"
    "a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
)


def _grey(rng: Random, side: int) -> np.ndarray:
    return (picture(rng, side) >> 4).astype(np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rng: Random, size_bytes: int) -> bytes:
    """A PNG of about `size_bytes`; the picture carries detector noise, so it packs to about 0.45 of its pixels."""
    side = max(24, math.isqrt(int(size_bytes / 0.45)))
    rows = np.zeros((side, side + 1), dtype=np.uint8)  # a filter byte of 0 before each row
    rows[:, 1:] = _grey(rng, side)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    text = b"Description\0drill scan, synthetic"
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"tEXt", text)
        + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
        + _chunk(b"IEND", b"")
    )


def _codes(counts: bytes, values: bytes) -> dict[int, tuple[int, int]]:
    """Value → (code, length in bits), as T.81 C.2 builds them."""
    codes: dict[int, tuple[int, int]] = {}
    code = at = 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes[values[at]] = (code, length)
            code, at = code + 1, at + 1
        code <<= 1
    return codes


def _coefficients(grey: np.ndarray) -> np.ndarray:
    """Quantised DCT of each 8x8 block in zigzag order, int[N, 64]."""
    side = grey.shape[0]
    blocks = grey.reshape(side // 8, 8, side // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8).astype(np.float32) - 128
    k, n = np.mgrid[0:8, 0:8]
    basis = np.cos((2 * n + 1) * k * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    scaled = np.rint(basis @ blocks @ basis.T / np.maximum(1, _QUANT // 4)).astype(np.int32)
    return np.stack([scaled[:, y, x] for y, x in _ZIGZAG], axis=1)


def _scan(rows: np.ndarray) -> bytes:
    """Entropy-coded data of the blocks (T.81 F.1.2), stuffed."""
    dc, ac = _codes(_DC_COUNTS, _DC_VALUES), _codes(_AC_COUNTS, _AC_VALUES)
    bits: list[str] = []

    def put(table: dict[int, tuple[int, int]], symbol: int, value: int) -> None:
        code, length = table[symbol]
        bits.append(f"{code:0{length}b}")
        width = abs(value).bit_length()
        if width:
            bits.append(f"{value if value > 0 else value + (1 << width) - 1:0{width}b}")

    before = 0
    for row in rows.tolist():
        difference, before = row[0] - before, row[0]
        put(dc, abs(difference).bit_length(), difference)
        run = 0
        last = max((at for at in range(1, 64) if row[at]), default=0)
        for value in row[1 : last + 1]:
            if not value:
                run += 1
                continue
            while run > 15:
                put(ac, 0xF0, 0)
                run -= 16
            put(ac, run << 4 | abs(value).bit_length(), value)
            run = 0
        if last < 63:
            put(ac, 0x00, 0)
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(rng: Random, size_bytes: int) -> bytes:
    """A baseline JPEG of about `size_bytes`, at most 1024 pixels a side."""
    side = min(1024, max(32, math.isqrt(int(size_bytes / 0.26)) // 8 * 8))
    grain = np.frombuffer(rng.randbytes(side * side), dtype=np.uint8).reshape(side, side) >> 4  # of the film
    grey = np.minimum(_grey(rng, side), 239) + grain
    quant = np.maximum(1, _QUANT // 4)
    table = bytes(int(quant[y, x]) for y, x in _ZIGZAG)
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
            _segment(0xFE, b"drill photograph, synthetic"),
            _segment(0xDB, b"\0" + table),
            _segment(0xC0, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0)),
            _segment(0xC4, b"\0" + _DC_COUNTS + _DC_VALUES),
            _segment(0xC4, b"\x10" + _AC_COUNTS + _AC_VALUES),
            _segment(0xDA, bytes((1, 1, 0, 0, 63, 0))),
            _scan(_coefficients(grey)),
            b"\xff\xd9",
        )
    )
