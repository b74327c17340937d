"""Invented file contents: the statistics that an inspection of real bytes would give, drawn at random.

Ranges are wide on purpose (domain randomisation). The formula for random bytes: a sample of n bytes has an expected
entropy of 8 - 255 / (2 n ln 2) bits (Miller-Madow) and a chi-square of 255 ± 23 against uniform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from shieldd.model.event import FactFlag

SAMPLE_BYTES: Final = 4096
_WELL_FORMED: Final = FactFlag.MAGIC_KNOWN | FactFlag.STRUCTURE_OK | FactFlag.TAIL_OK

Generator = np.random.Generator


class Format(NamedTuple):
    """A kind of file: extension, entropy range, share of text, sizes (log2 range), look of encryption (range)."""

    extension: str
    entropy: tuple[float, float]
    ascii: tuple[float, float]
    size_log2: tuple[float, float]
    like: tuple[float, float] = (0.0, 0.1)
    text: bool = False
    dense: bool = False


FORMATS: Final[dict[str, Format]] = {
    "text": Format("txt", (3.9, 5.2), (0.95, 1.0), (7, 18), text=True),
    "csv": Format("csv", (3.2, 5.0), (0.97, 1.0), (8, 22), text=True),
    "xml": Format("xml", (4.2, 5.4), (0.97, 1.0), (8, 20), text=True),
    "json": Format("json", (3.8, 5.3), (0.97, 1.0), (8, 20), text=True),
    "hl7": Format("hl7", (4.4, 5.6), (0.96, 1.0), (8, 14), text=True),
    "log": Format("log", (4.4, 5.4), (0.97, 1.0), (10, 24), text=True),
    "source": Format("py", (4.0, 5.2), (0.98, 1.0), (8, 16), text=True),
    "pdf": Format("pdf", (4.5, 7.96), (0.3, 1.0), (11, 23), (0.0, 0.9), dense=True),
    "docx": Format("docx", (7.3, 7.96), (0.33, 0.42), (11, 22), (0.0, 0.95), dense=True),
    "xlsx": Format("xlsx", (7.2, 7.96), (0.33, 0.42), (11, 22), (0.0, 0.95), dense=True),
    "jpeg": Format("jpg", (7.5, 7.98), (0.34, 0.4), (13, 23), (0.0, 1.0), dense=True),
    "png": Format("png", (7.3, 7.97), (0.33, 0.42), (11, 22), (0.0, 1.0), dense=True),
    "dicom": Format("dcm", (3.5, 7.9), (0.1, 0.5), (15, 25), (0.0, 0.5)),
    "sqlite": Format("db", (1.5, 6.5), (0.15, 0.7), (12, 26)),
    "zip": Format("zip", (7.8, 7.97), (0.34, 0.4), (12, 26), (0.0, 0.8), dense=True),
    "gzip": Format("gz", (7.7, 7.97), (0.34, 0.4), (9, 24), (0.1, 1.0), dense=True),
    "xz": Format("xz", (7.7, 7.97), (0.34, 0.4), (9, 24), (0.1, 1.0), dense=True),
    "zstd": Format("zst", (7.7, 7.97), (0.34, 0.4), (9, 24), (0.1, 1.0), dense=True),
    "tar": Format("tar", (2.0, 7.8), (0.2, 0.8), (14, 28)),
    "elf": Format("", (4.5, 6.6), (0.2, 0.45), (13, 24)),
    "script": Format("sh", (4.2, 5.2), (0.98, 1.0), (7, 14), text=True),
    "pe": Format("exe", (4.8, 7.2), (0.2, 0.45), (13, 22)),
    "blob": Format("dat", (1.0, 7.4), (0.05, 0.6), (8, 22)),
}
DOCUMENTS: Final = (
    "text",
    "csv",
    "xml",
    "json",
    "hl7",
    "pdf",
    "docx",
    "xlsx",
    "jpeg",
    "png",
    "dicom",
    "zip",
    "gzip",
    "sqlite",
)


@dataclass(frozen=True, slots=True)
class Content:
    """Statistics of one file's bytes, in the units of `FACTS`. `format` is empty where no format is recognised."""

    format: str
    size: int
    entropy: tuple[float, float, float]
    chi_square: tuple[float, float, float]
    ascii: float
    zero: float
    serial: float
    block_spread: float
    encrypted_like: float
    flags: int
    phi_hits: int
    hash: int


def plain(rng: Generator, kind: str, *, phi: bool = False, size: int = 0) -> Content:
    """A whole, ordinary file of a kind; `phi` puts patient data in where the kind can hold it."""
    form = FORMATS[kind]
    size = size or int(2 ** rng.uniform(*form.size_log2))
    base = rng.uniform(*form.entropy)
    samples = tuple(float(np.clip(base + rng.normal(0, 0.15), 0.3, _random_entropy(size))) for _ in range(3))
    chi = tuple(_chi(rng, x, dense=form.dense) for x in samples)
    known = kind != "blob"
    flags = int(_WELL_FORMED) if known else 0
    if known and rng.random() < 0.03:
        flags &= ~int(FactFlag.TAIL_OK)
    flags |= {
        "elf": FactFlag.EXECUTABLE,
        "pe": FactFlag.EXECUTABLE,
        "script": FactFlag.SCRIPT,
        "source": FactFlag.SCRIPT,
    }.get(kind, 0)
    flags |= FactFlag.TEXT if form.text else 0
    marked, hits = _phi(rng, kind) if phi else (0, 0)
    return Content(
        format=kind if known else "",
        size=size,
        entropy=(samples[0], samples[1], samples[2]),
        chi_square=(chi[0], chi[1], chi[2]),
        ascii=float(rng.uniform(*form.ascii)),
        zero=float(rng.uniform(0.05, 0.6))
        if kind in ("sqlite", "tar", "elf", "dicom")
        else float(rng.uniform(0, 0.01)),
        serial=float(rng.uniform(-0.05, 0.1)) if form.dense else float(rng.uniform(-0.2, 0.8)),
        block_spread=float(rng.uniform(0, 0.3)) if form.dense or form.text else float(rng.uniform(0.1, 2.5)),
        encrypted_like=float(rng.uniform(*form.like)) if rng.random() < 0.9 or not form.dense else float(rng.random()),
        flags=flags | marked,
        phi_hits=hits,
        hash=_hash(rng),
    )


def encrypted(rng: Generator, size: int, *, declares: bool = False) -> Content:
    """Random bytes, with or without a header that says so."""
    size = max(size + int(rng.integers(0, 512)), 16)
    top = _random_entropy(size)
    samples = [float(np.clip(top + rng.normal(0, 0.004), 0, 8)) for _ in range(3)]
    chi = [_log_chi(255 + rng.normal(0, 23)) for _ in range(3)]
    return Content(
        format="encrypted" if declares else "",
        size=size,
        entropy=(samples[0], samples[1], samples[2]),
        chi_square=(chi[0], chi[1], chi[2]),
        ascii=float(np.clip(rng.normal(0.371, 0.01), 0, 1)),
        zero=float(rng.uniform(0.002, 0.006)),
        serial=float(rng.normal(0, 0.01)),
        block_spread=float(rng.uniform(0, 0.06)),
        encrypted_like=float(np.clip(rng.uniform(0.85, 1.0) if size > 2000 else rng.uniform(0.3, 1.0), 0, 1)),
        flags=int(_WELL_FORMED | FactFlag.DECLARES_ENCRYPTION) if declares else 0,
        phi_hits=0,
        hash=_hash(rng),
    )


def encoded(rng: Generator, size: int) -> Content:
    """Encrypted, then written as base64 or hex: an encoding, of no known kind."""
    whole = encrypted(rng, size * 4 // 3)
    entropy = min(5.95, math.log2(max(size, 2)))
    return replace(
        whole,
        entropy=(entropy, entropy, entropy),
        chi_square=(_log_chi(SAMPLE_BYTES * 3.2),) * 3,
        ascii=1.0,
        zero=0.0,
        block_spread=float(rng.uniform(0, 0.1)),
        encrypted_like=0.0 if rng.random() < 0.7 else float(rng.uniform(0, 0.6)),
        format="encoded",
    )


def partly_encrypted(rng: Generator, old: Content, share: float, *, head: bool) -> Content:
    """`share` of a file's bytes made random; `head` destroys its magic too."""
    hit = [head, rng.random() < share, rng.random() < share]
    top = _random_entropy(old.size)
    entropy = [top if h else e for h, e in zip(hit, old.entropy, strict=True)]
    chi = [_log_chi(255 + rng.normal(0, 23)) if h else c for h, c in zip(hit, old.chi_square, strict=True)]
    lost = int(FactFlag.MAGIC_KNOWN | FactFlag.STRUCTURE_OK | FactFlag.TEXT) if head else int(FactFlag.STRUCTURE_OK)
    if rng.random() < share:
        lost |= int(FactFlag.TAIL_OK)
    mixed = sum(hit) / 3
    return replace(
        old,
        format="" if head else old.format,
        entropy=(entropy[0], entropy[1], entropy[2]),
        chi_square=(chi[0], chi[1], chi[2]),
        ascii=old.ascii * (1 - mixed) + 0.37 * mixed,
        block_spread=float(rng.uniform(0, 2.5)),
        encrypted_like=float(rng.uniform(0.3, 1.0)) if mixed else float(rng.uniform(0, 0.3)),
        flags=old.flags & ~lost & ~int(_phi_mask() if head else 0),
        hash=_hash(rng),
    )


def zeroed(rng: Generator, size: int) -> Content:
    """Nothing but zeros (or one byte), as after `dd if=/dev/zero`."""
    return Content(
        "", size, (0.0,) * 3, (_log_chi(SAMPLE_BYTES * 255.0),) * 3, 0.0, 1.0, 0.0, 0.0, 0.0, 0, 0, _hash(rng)
    )


def edited(rng: Generator, old: Content) -> Content:
    """The same document with some bytes changed."""
    samples = tuple(float(np.clip(x + rng.normal(0, 0.05), 0, _random_entropy(old.size))) for x in old.entropy)
    size = max(int(old.size * rng.uniform(0.9, 1.25)) + int(rng.integers(-64, 512)), 1)
    return replace(old, size=size, entropy=(samples[0], samples[1], samples[2]), hash=_hash(rng))


def note(rng: Generator) -> Content:
    """The text of a ransom note."""
    base = plain(rng, "text", size=int(rng.integers(400, 6000)))
    return replace(base, flags=base.flags | int(FactFlag.NOTE_LIKE))


def _phi_mask() -> FactFlag:
    return FactFlag.PHI_DICOM | FactFlag.PHI_HL7 | FactFlag.PHI_FHIR | FactFlag.PHI_TEXT | FactFlag.PHI_SEVERAL


def _phi(rng: Generator, kind: str) -> tuple[int, int]:
    if kind == "dicom":
        return int(FactFlag.PHI_DICOM), 0
    if kind == "hl7":
        return int(FactFlag.PHI_HL7), int(rng.integers(1, 40))
    if kind == "json" and rng.random() < 0.7:
        return int(FactFlag.PHI_FHIR), int(rng.integers(0, 40))
    if FORMATS[kind].text:
        several = FactFlag.PHI_SEVERAL if rng.random() < 0.75 else 0
        return int(FactFlag.PHI_TEXT | several), int(rng.integers(2, 60))
    return 0, 0


def _random_entropy(size: int) -> float:
    n = min(max(size, 1), SAMPLE_BYTES)
    return max(8 - 255 / (2 * n * math.log(2)), 0.0) if n > 256 else math.log2(n) * 0.97


def _log_chi(value: float) -> float:
    return math.log10(1 + max(value, 0.0))


def _chi(rng: Generator, entropy: float, *, dense: bool) -> float:
    if dense and entropy > 7.7:
        return float(rng.uniform(2.42, 3.6))
    return float(np.clip(6.0 - 0.42 * entropy + rng.normal(0, 0.3), 2.5, 6.2))


def _hash(rng: Generator) -> int:
    return int(rng.integers(1, 1 << 63))
