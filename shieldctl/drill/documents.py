"""Office documents, reports, databases and archives, each valid as its own program reads it.

Sources: ISO 32000-1 (PDF 1.4 subset, cross-reference table), ECMA-376 (the smallest parts of docx and xlsx),
RFC 1952 (gzip), SQLite through the standard library's `serialize`.
"""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
import zipfile
import zlib
from random import Random
from xml.sax.saxutils import escape

from shieldctl.drill.clinical import export_rows, hl7_oru, note
from shieldctl.drill.people import DIAGNOSES, LABS, dashed, moment, paragraph, patient

_EPOCH = (2025, 6, 1, 8, 0, 0)  # archives carry a fixed time, so that one seed gives one digest


def pdf(rng: Random, size_bytes: int) -> bytes:
    """A report of as many pages as the size asks for, compressed text, with a true cross-reference table."""
    who = patient(rng)
    pages: list[bytes] = []
    used = 700
    while used < size_bytes or not pages:
        lines = [f"Report for {who.given} {who.family}, {who.mrn}, born {dashed(who.born)}"]
        while len(lines) < 44:
            words = paragraph(rng).split()
            lines.extend(" ".join(words[at : at + 12]) for at in range(0, len(words), 12))
        shown = "".join(f"({line.replace('(', '[').replace(')', ']')}) Tj T*\n" for line in lines[:52])
        pages.append(zlib.compress(f"BT /F1 10 Tf 50 790 Td 14 TL\n{shown}ET\n".encode("ascii"), 1))
        used += len(pages[-1]) + 260
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>"
        % (len(pages), b" ".join(b"%d 0 R" % (4 + 2 * at) for at in range(len(pages)))),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, content in enumerate(pages):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            b"/Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>" % (5 + 2 * at)
        )
        objects.append(b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(content), content))
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets: list[int] = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)


def _zip(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_RELS = "http://schemas.openxmlformats.org/package/2006/relationships"
_DOC_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_MIME = "application/vnd.openxmlformats-officedocument"


def _package(main: str, mime: str, extra: dict[str, str], parts: dict[str, str]) -> bytes:
    overrides = "".join(
        f'<Override PartName="/{name}" ContentType="{kind}"/>' for name, kind in {main: mime, **extra}.items()
    )
    head = {
        "[Content_Types].xml": f'<Types xmlns="{_TYPES}"><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{overrides}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{_RELS}"><Relationship Id="rId1" '
        f'Type="{_DOC_REL}/officeDocument" Target="{main}"/></Relationships>',
    }
    return _zip({name: (_XML + text).encode() for name, text in {**head, **parts}.items()})


def docx(rng: Random, size_bytes: int) -> bytes:
    """A letter as a word processor stores it; prose packs to about a quarter."""
    who = patient(rng)
    texts = [f"{who.given} {who.family}, {who.mrn}, born {dashed(who.born)}"]
    used = 0
    while used < size_bytes * 4.5:
        texts.append(paragraph(rng) + f" ({rng.getrandbits(64):016x})")
        used += len(texts[-1]) + 40
    body = "".join(f"<w:p><w:r><w:t>{escape(text)}</w:t></w:r></w:p>" for text in texts)
    document = f'<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>'
    mime = f"{_MIME}.wordprocessingml.document.main+xml"
    return _package("word/document.xml", mime, {}, {"word/document.xml": document})


def xlsx(rng: Random, size_bytes: int) -> bytes:
    """A worksheet of laboratory values."""
    rows: list[str] = []
    used = 0
    while used < size_bytes * 4 or not rows:
        code, name, unit, low, high = rng.choice(LABS)
        cells = (f"MRN{rng.randrange(10**8):08d}", code, name, f"{rng.uniform(low, high):.1f}", unit, moment(rng))
        rows.append(
            "<row>" + "".join(f'<c t="inlineStr"><is><t>{escape(cell)}</t></is></c>' for cell in cells) + "</row>"
        )
        used += len(rows[-1])
    sheet = f'<worksheet xmlns="{_SHEET}"><sheetData>{"".join(rows)}</sheetData></worksheet>'
    book = (
        f'<workbook xmlns="{_SHEET}" xmlns:r="{_DOC_REL}"><sheets>'
        '<sheet name="Results" sheetId="1" r:id="rId1"/></sheets></workbook>'
    )
    rels = (
        f'<Relationships xmlns="{_RELS}"><Relationship Id="rId1" Type="{_DOC_REL}/worksheet" '
        'Target="worksheets/sheet1.xml"/></Relationships>'
    )
    parts = {"xl/workbook.xml": book, "xl/_rels/workbook.xml.rels": rels, "xl/worksheets/sheet1.xml": sheet}
    extra = {"xl/worksheets/sheet1.xml": f"{_MIME}.spreadsheetml.worksheet+xml"}
    return _package("xl/workbook.xml", f"{_MIME}.spreadsheetml.sheet.main+xml", extra, parts)


def database(rng: Random, size_bytes: int) -> bytes:
    """An SQLite database of encounters with an index."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("create table encounter (id integer primary key, mrn text, name text, code text, seen text)")
        connection.execute("create index encounter_mrn on encounter (mrn)")
        rows = []
        for _ in range(max(10, size_bytes // 95)):
            who = patient(rng)
            rows.append((who.mrn, f"{who.family}, {who.given}", rng.choice(DIAGNOSES)[0], moment(rng)))
        connection.executemany("insert into encounter (mrn, name, code, seen) values (?, ?, ?, ?)", rows)
        connection.commit()
        return connection.serialize()
    finally:
        connection.close()


def packed_rows(rng: Random, size_bytes: int) -> bytes:
    """A gzip member that holds a CSV export."""
    return gzip.compress(export_rows(rng, size_bytes * 4), 6, mtime=0)


def packed_folder(rng: Random, size_bytes: int) -> bytes:
    """A tar.gz of notes and messages, as an interface engine archives a day."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        used = 0
        while used < size_bytes * 4:
            letter = rng.random() < 0.5
            data = note(rng, 3000) if letter else hl7_oru(rng, 4000)
            entry = tarfile.TarInfo(f"day/note{used}.txt" if letter else f"day/oru{used}.hl7")
            entry.size, entry.mtime, entry.mode = len(data), 1_748_764_800, 0o640
            archive.addfile(entry, io.BytesIO(data))
            used += len(data)
    return gzip.compress(out.getvalue(), 6, mtime=0)
