"""Canary files: what to plant so that a tool that works through a directory meets one early and people do not mind.

Pure: names and contents are a function of a secret and of what the directory holds. Planting, remembering and removing
them is the daemon's; only its own index says what is a canary, nothing in the file does. Contents hold no patient data.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

PER_DIRECTORY: Final = 2  # one that sorts first, one that sorts last: tools walk both ways
NAME_LIMIT_BYTES: Final = 200
_EPOCH_ZIP: Final = (2024, 3, 11, 8, 30, 0)
_STEMS: Final = (
    b"discharge_summary", b"lab_results", b"radiology_report", b"medication_plan", b"operation_note",
    b"referral_letter", b"consent_form", b"shift_roster", b"ward_statistics", b"device_inventory", b"imaging_worklist",
    b"billing_overview",
)  # fmt: skip
_EARLY: Final = (b"00_", b"01_", b"2019_", b"A_")
_LATE: Final = (b"z_", b"zz_", b"year_end_", b"x_archive_")
_TEXT: Final = (
    "the ward round of this week was moved to the early morning as agreed with the clinic's management and the staff "
    "please bring the revised lists for beds devices and rooms the pharmacy asks for orders before noon storage on the "
    "third floor is closed until the works are finished the next training on hygiene takes place in the large hall"
)
_WORDS: Final = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class Canary:
    """One file to plant.

    Attributes:
        path: relative to the tree's root.
        content: whole and well-formed for its extension.
        age_s: how long ago its modification time should lie.
    """

    path: bytes
    content: bytes
    age_s: int


def plan(directories: Mapping[bytes, Sequence[bytes]], secret: bytes, *, count: int) -> list[Canary]:
    """Choose canaries for a tree.

    Args:
        directories: names of the files in each directory, paths relative to the root (`b""` is the root itself).
        secret: of this host; without it names cannot be foretold. At least 16 bytes.
        count: at most so many files in all.

    Returns:
        Canaries, spread over the directories with the most files first, at most `PER_DIRECTORY` in each; none has the
        name of a file that is there.
    """
    if len(secret) < 16:
        raise ValueError("canaries need a secret of at least 16 bytes")
    chosen: list[Canary] = []
    ranked = sorted(directories, key=lambda x: (-len(directories[x]), x))
    for round_ in range(PER_DIRECTORY):
        for directory in ranked:
            if len(chosen) >= count:
                return chosen
            canary = _one(directory, directories[directory], secret, round_)
            if canary is not None:
                chosen.append(canary)
    return chosen


def _one(directory: bytes, present: Sequence[bytes], secret: bytes, round_: int) -> Canary | None:
    seed = hmac.new(secret, b"%d\0%s" % (round_, directory), hashlib.sha256).digest()
    extension = _extension(present)
    prefix = (_EARLY if round_ == 0 else _LATE)[seed[0] % 4]
    for attempt in range(len(_STEMS)):
        stem = _STEMS[(seed[1] + attempt) % len(_STEMS)]
        name = prefix + stem + b"_%d" % (2021 + seed[2] % 4) + extension
        if name not in present and len(name) <= NAME_LIMIT_BYTES:
            path = directory + b"/" + name if directory else name
            return Canary(path, _content(extension, seed), 86_400 * (20 + seed[3]))
    return None


def _extension(present: Sequence[bytes]) -> bytes:
    """The commonest extension that we can write well, so that the file looks like its neighbours."""
    counts = Counter(b"." + x.rpartition(b".")[2].lower() for x in present if b"." in x)
    for extension, _ in counts.most_common():
        if extension in (b".txt", b".csv", b".pdf", b".docx", b".xml", b".rtf"):
            return extension
    return b".pdf"


def _content(extension: bytes, seed: bytes) -> bytes:
    stream = hashlib.shake_256(seed).digest(4096)
    words = [_WORDS[byte % len(_WORDS)] for byte in stream[: 400 + seed[4]]]
    lines = [" ".join(words[at : at + 12]) for at in range(0, len(words), 12)]
    if extension == b".csv":
        rows = ["bed;room;ward;occupancy"] + [f"{b % 40};{b % 19 + 100};{b % 7};{b % 100}" for b in stream[:300]]
        return "\r\n".join(rows).encode() + b"\r\n"
    if extension == b".xml":
        body = "".join(f'  <entry ward="{i % 9}">{line}</entry>\n' for i, line in enumerate(lines))
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<notes>\n{body}</notes>\n'.encode()
    if extension == b".rtf":
        return ("{\\rtf1\\ansi\\deff0{\\fonttbl{\\f0 Arial;}}\\f0\\fs22 " + "\\par\n".join(lines) + "\\par}\n").encode()
    if extension == b".pdf":
        return _pdf(lines)
    if extension == b".docx":
        return _docx(lines)
    return ("\n".join(lines) + "\n").encode()


def _pdf(lines: Sequence[str]) -> bytes:
    """One page of text, PDF 1.4, with a cross-reference table that holds."""
    text = "BT /F1 10 Tf 50 780 Td 13 TL " + " ".join(f"({line}) Tj T*" for line in lines[:50]) + " ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text.encode()),
    ]
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)


def _docx(lines: Sequence[str]) -> bytes:
    """The smallest package that a word processor opens (ECMA-376)."""
    space = "http://schemas.openxmlformats.org"
    paragraphs = "".join(f"<w:p><w:r><w:t>{line}</w:t></w:r></w:p>" for line in lines)
    kind = "application/vnd.openxmlformats"
    main = f"{kind}-officedocument.wordprocessingml.document.main+xml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{space}/package/2006/content-types">'
        f'<Default Extension="rels" ContentType="{kind}-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{main}"/>'
        "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{space}/package/2006/relationships"><Relationship Id="rId1" '
        f'Type="{space}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{space}/wordprocessingml/2006/main"><w:body>'
        f"{paragraphs}</w:body></w:document>",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        for name, body in parts.items():
            entry = zipfile.ZipInfo(name, _EPOCH_ZIP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + body)
    return out.getvalue()
