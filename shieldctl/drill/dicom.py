"""A small writer of DICOM Part 10 files: explicit VR little endian, uncompressed, one frame.

Source: DICOM PS3.10 section 7 (file format), PS3.5 section 7.1 (data elements), PS3.6 (dictionary). It writes what a
modality's store has: patient, study and equipment tags, and 16-bit pixels with a picture in them.
"""

from __future__ import annotations

import math
import struct
from random import Random
from typing import Final

import numpy as np

from shieldctl.drill.people import DEPARTMENTS, moment, patient

_EXPLICIT_LE: Final = "1.2.840.10008.1.2.1"
_IMPLEMENTATION: Final = "2.25.302347158812947719540387126600114"
_STORAGE: Final = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "OT": "1.2.840.10008.5.1.4.1.1.7",
}
_LONG: Final = frozenset({"OB", "OW", "UN", "SQ", "UT"})  # 2 reserved bytes and a 32-bit length (PS3.5, 7.1.2)
_OVERHEAD: Final = 1400  # bytes of preamble and tags, about


def _element(group: int, number: int, vr: str, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        data = struct.pack("<H" if vr == "US" else "<I", value)
    elif isinstance(value, str):
        data = value.encode("ascii")
        data += (b"\0" if vr == "UI" else b" ") * (len(data) % 2)
    else:
        data = value + b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", group, number, vr.encode())
    return head + (struct.pack("<HI", 0, len(data)) if vr in _LONG else struct.pack("<H", len(data))) + data


def uid(rng: Random) -> str:
    """A UID under 2.25 (a random 128-bit number, PS3.5 annex B.2)."""
    return f"2.25.{rng.getrandbits(120)}"


def picture(rng: Random, side: int) -> np.ndarray:
    """A square 12-bit picture, uint16[side, side]: soft shapes on a dark field with the noise of a detector."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / max(side, 1)
    field = np.full((side, side), 90.0, dtype=np.float32)
    for _ in range(rng.randrange(3, 7)):
        cx, cy = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)
        rx, ry = rng.uniform(0.05, 0.35), rng.uniform(0.05, 0.35)
        field += rng.uniform(150, 900) * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    noise = np.frombuffer(rng.randbytes(side * side), dtype=np.uint8).reshape(side, side)
    return np.clip(field + (noise >> 3), 0, 4095).astype("<u2")


def dicom(rng: Random, size_bytes: int) -> bytes:
    """A Part 10 file of about `size_bytes` (at least about 2 KiB)."""
    who = patient(rng)
    modality = rng.choice(sorted(_STORAGE))
    taken = moment(rng)
    instance = uid(rng)
    side = max(16, math.isqrt(max(0, size_bytes - _OVERHEAD) // 2))
    meta = b"".join(
        (
            _element(0x0002, 0x0001, "OB", b"\0\1"),
            _element(0x0002, 0x0002, "UI", _STORAGE[modality]),
            _element(0x0002, 0x0003, "UI", instance),
            _element(0x0002, 0x0010, "UI", _EXPLICIT_LE),
            _element(0x0002, 0x0012, "UI", _IMPLEMENTATION),
            _element(0x0002, 0x0013, "SH", "DRILL_1"),
        )
    )
    body = (
        _element(0x0008, 0x0005, "CS", "ISO_IR 100"),
        _element(0x0008, 0x0008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        _element(0x0008, 0x0016, "UI", _STORAGE[modality]),
        _element(0x0008, 0x0018, "UI", instance),
        _element(0x0008, 0x0020, "DA", taken[:8]),
        _element(0x0008, 0x0030, "TM", taken[8:]),
        _element(0x0008, 0x0050, "SH", f"A{rng.randrange(10**6, 10**7)}"),
        _element(0x0008, 0x0060, "CS", modality),
        _element(0x0008, 0x0070, "LO", "DRILL IMAGING"),
        _element(0x0008, 0x0080, "LO", "DRILL GENERAL HOSPITAL"),
        _element(0x0008, 0x0090, "PN", "REFERRER^SYNTHETIC"),
        _element(0x0008, 0x1030, "LO", f"{rng.choice(DEPARTMENTS)} {modality}"),
        _element(0x0010, 0x0010, "PN", f"{who.family}^{who.given}"),
        _element(0x0010, 0x0020, "LO", who.mrn),
        _element(0x0010, 0x0030, "DA", who.born),
        _element(0x0010, 0x0040, "CS", who.sex),
        _element(0x0010, 0x1040, "LO", f"{who.street}, {who.town}"),
        _element(0x0020, 0x000D, "UI", uid(rng)),
        _element(0x0020, 0x000E, "UI", uid(rng)),
        _element(0x0020, 0x0010, "SH", str(rng.randrange(1, 9999))),
        _element(0x0020, 0x0011, "IS", "1"),
        _element(0x0020, 0x0013, "IS", str(rng.randrange(1, 400))),
        _element(0x0028, 0x0002, "US", 1),
        _element(0x0028, 0x0004, "CS", "MONOCHROME2"),
        _element(0x0028, 0x0010, "US", side),
        _element(0x0028, 0x0011, "US", side),
        _element(0x0028, 0x0100, "US", 16),
        _element(0x0028, 0x0101, "US", 12),
        _element(0x0028, 0x0102, "US", 11),
        _element(0x0028, 0x0103, "US", 0),
        _element(0x0028, 0x1050, "DS", "600"),
        _element(0x0028, 0x1051, "DS", "1600"),
        _element(0x7FE0, 0x0010, "OW", picture(rng, side).tobytes()),
    )
    return b"\0" * 128 + b"DICM" + _element(0x0002, 0x0000, "UL", len(meta)) + meta + b"".join(body)
