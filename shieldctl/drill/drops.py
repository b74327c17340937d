"""What is dropped beside the attack: malware that harms nobody, and a careless export.

The EICAR test file (eicar.org, 68 bytes, by agreement found by every scanner), an ELF program that exits at once and
calls itself `invoice.pdf`, and a world-readable CSV of made-up patients.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from shieldctl.drill.clinical import export_rows
from shieldctl.drill.tree import ScratchTree

# In two halves, so that no scanner takes this very file away.
_EICAR: Final = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + rb"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
_EXIT: Final = {
    "x86_64": (62, bytes.fromhex("b83c00000031ff0f05")),  # mov eax, 60; xor edi, edi; syscall
    "aarch64": (183, bytes.fromhex("a80b8052000080d2010000d4")),  # mov w8, #93; mov x0, #0; svc #0
}
_BASE: Final = 0x400000
_EXPORT_BYTES: Final = 24_000


class Expected(StrEnum):
    """What the daemon should do with a drop."""

    QUARANTINE = "quarantine"
    SEAL = "seal"


@dataclass(frozen=True, slots=True)
class Drop:
    """One dropped file; `path` is relative to the scratch tree."""

    path: bytes
    what: str
    expected: Expected
    mode: int
    data: bytes

    @property
    def sha256(self) -> str:
        """Digest of the content, hex."""
        return hashlib.sha256(self.data).hexdigest()


def tiny_elf(rng: Random) -> bytes:
    """A static ELF64 program that exits with status 0, padded to a few KiB as a real one is (System V ABI, ch. 4)."""
    machine, code = _EXIT.get(os.uname().machine, _EXIT["x86_64"])
    padding = bytes(rng.choice(b"\0\0\0\x48\x89\xc3\x90ABCDEFGH") for _ in range(6000))
    size = 64 + 56 + len(code) + len(padding)
    header = struct.pack(
        "<4sBBBBB7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 2, machine, 1, _BASE + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # PT_LOAD, r-x
    return header + segment + code + padding


def plan(seed: int) -> tuple[Drop, ...]:
    """The drops of a drill."""
    rng = Random(f"{seed}/drops")  # noqa: S311 - repeatable is the point
    return (
        Drop(b"incoming/eicar.com", "EICAR test file", Expected.QUARANTINE, 0o644, _EICAR),
        Drop(b"finance/invoices/invoice.pdf", "program posing as a PDF", Expected.QUARANTINE, 0o755, tiny_elf(rng)),
        Drop(
            b"www/exports/patients-export.csv",
            "world-readable export of patients",
            Expected.SEAL,
            0o644,
            export_rows(rng, _EXPORT_BYTES),
        ),
    )


def make_room(tree: ScratchTree, drops: tuple[Drop, ...]) -> None:
    """Makes the directories that the drops will land in: inbox, invoice folder and web root are there long before."""
    for one in drops:
        with tree.directory(one.path.rpartition(b"/")[0], make=0o755):
            continue


def drop(tree: ScratchTree, drops: tuple[Drop, ...]) -> None:
    """Writes the drops."""
    for one in drops:
        tree.write(one.path, one.data, one.mode)
