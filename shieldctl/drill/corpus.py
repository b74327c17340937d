"""The hospital of a drill: which files lie where, how large, made by which writer; the same for the same seed.

Owns the plan and its ledger (path, kind, digest). The bytes come from `dicom`, `clinical`, `images`, `documents`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from shieldctl.drill import clinical, dicom, documents, images
from shieldctl.drill.people import DEPARTMENTS
from shieldctl.drill.tree import ScratchTree

SIZE_MIN: Final = 1024  # bytes
SIZE_MAX: Final = 1 << 20
FILES_MAX: Final = 50_000  # a rehearsal, not a load test: 50,000 files are about 4 GiB
_TYPICAL_MAX: Final = 0.85 * SIZE_MAX  # what a writer is asked for; it may exceed that a little


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: its share, extension, folder, size range in bytes, and who writes it."""

    name: str
    share: int
    suffix: str
    folder: str
    smallest: int
    largest: int
    writer: Callable[[Random, int], bytes]


KINDS: Final = (
    Kind("dicom", 24, ".dcm", "imaging/{year}/{ward}/study{n:03d}", 4096, 600_000, dicom.dicom),
    Kind("hl7-oru", 10, ".hl7", "interfaces/oru/{day}", 1200, 30_000, clinical.hl7_oru),
    Kind("hl7-adt", 6, ".hl7", "interfaces/adt/{day}", 1200, 12_000, clinical.hl7_adt),
    Kind("fhir", 8, ".json", "exchange/fhir/{ward}", 2000, 120_000, clinical.fhir),
    Kind("pdf", 10, ".pdf", "reports/{ward}/{year}", 4000, 250_000, documents.pdf),
    Kind("png", 6, ".png", "scans/{ward}", 6000, 400_000, images.png),
    Kind("jpeg", 7, ".jpg", "photographs/{ward}", 4000, 120_000, images.jpeg),
    Kind("csv", 7, ".csv", "finance/extracts/{year}", 2000, 200_000, clinical.export_rows),
    Kind("docx", 6, ".docx", "letters/{ward}", 3000, 90_000, documents.docx),
    Kind("xlsx", 4, ".xlsx", "research/cohort{n:03d}", 3000, 90_000, documents.xlsx),
    Kind("sqlite", 2, ".sqlite", "registries/{ward}", 20_000, 700_000, documents.database),
    Kind("note", 7, ".txt", "notes/{ward}/{day}", 1200, 9000, clinical.note),
    Kind("csv-gz", 2, ".csv.gz", "archive/{year}", 4000, 200_000, documents.packed_rows),
    Kind("tar-gz", 1, ".tar.gz", "archive/{year}", 8000, 200_000, documents.packed_folder),
)


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """One file of the corpus; `path` is relative to the scratch tree, `sha256` is hex."""

    path: bytes
    kind: str
    size_bytes: int
    sha256: str


def build(files: int, seed: int) -> Iterator[tuple[CorpusFile, bytes]]:
    """Files of the corpus with their content, in the order in which they are written.

    Args:
        files: how many, 1 to `FILES_MAX`. From 14 on every kind is there.
        seed: same seed and number, same paths and bytes.
    """
    shares = [kind.share for kind in KINDS]
    for number in range(files):
        rng = Random(f"{seed}/{number}")  # noqa: S311 - repeatable is the point
        kind = KINDS[number] if number < len(KINDS) else rng.choices(KINDS, shares)[0]
        wanted = kind.smallest * (min(kind.largest, _TYPICAL_MAX) / kind.smallest) ** rng.random()  # log-uniform
        data = kind.writer(rng, int(wanted))
        folder = kind.folder.format(
            year=rng.choice((2024, 2025)),
            ward=rng.choice(DEPARTMENTS).lower(),
            day=f"2025-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}",
            n=rng.randrange(max(1, files // 25)),
        )
        path = f"{folder}/{kind.name.split('-')[0]}{number:05d}{kind.suffix}".encode()
        yield CorpusFile(path, kind.name, len(data), hashlib.sha256(data).hexdigest()), data


def lay_out(tree: ScratchTree, files: int, seed: int) -> tuple[CorpusFile, ...]:
    """Writes the corpus into a scratch tree (mode 0640) and returns its ledger."""
    ledger: list[CorpusFile] = []
    for entry, data in build(files, seed):
        tree.write(entry.path, data)
        ledger.append(entry)
    return tuple(ledger)
