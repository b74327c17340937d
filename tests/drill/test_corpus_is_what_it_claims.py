"""Every file of the corpus parses as its own format, by a program or library that we did not write."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import shutil
import sqlite3
import struct
import subprocess
import tarfile
import xml.etree.ElementTree as ET
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from shieldctl.drill import dicom, drops, images
from shieldctl.drill.corpus import KINDS, SIZE_MAX, SIZE_MIN, CorpusFile, build, lay_out
from shieldctl.drill.tree import ScratchTree

FILES = 160
SEED = 11

FILE_SAYS = {
    "dicom": "DICOM medical imaging data",
    "hl7-oru": "ASCII text",
    "hl7-adt": "ASCII text",
    "fhir": "JSON",
    "pdf": "PDF document, version 1.4",
    "png": "PNG image data",
    "jpeg": "JPEG image data",
    "csv": "CSV text",
    "docx": "Microsoft Word 2007+",
    "xlsx": "Microsoft Excel 2007+",
    "sqlite": "SQLite 3.x database",
    "note": "ASCII text",
    "csv-gz": "gzip compressed data",
    "tar-gz": "gzip compressed data",
}


@pytest.fixture(scope="module")
def made() -> dict[str, list[tuple[CorpusFile, bytes]]]:
    by_kind: dict[str, list[tuple[CorpusFile, bytes]]] = {}
    for entry, data in build(FILES, SEED):
        by_kind.setdefault(entry.kind, []).append((entry, data))
    return by_kind


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScratchTree, tuple[CorpusFile, ...]]]:
    tree = ScratchTree.make(tmp_path_factory.mktemp("corpus"))
    yield tree, lay_out(tree, FILES, SEED)
    tree.destroy()
    tree.close()


def test_every_kind_is_there_and_every_size_is_a_hospitals(made: dict[str, list[tuple[CorpusFile, bytes]]]) -> None:
    assert set(made) == {kind.name for kind in KINDS}
    sizes = [entry.size_bytes for entries in made.values() for entry, _ in entries]
    assert min(sizes) >= SIZE_MIN and max(sizes) <= SIZE_MAX
    assert max(sizes) > 100_000 and sorted(sizes)[len(sizes) // 2] < 40_000


def test_one_seed_gives_one_corpus_and_another_another() -> None:
    first = [entry for entry, _ in build(40, 3)]
    assert first == [entry for entry, _ in build(40, 3)]
    assert not {entry.sha256 for entry in first} & {entry.sha256 for entry, _ in build(40, 4)}


def test_the_first_files_do_not_depend_on_how_many_follow() -> None:
    few, many = [e.sha256 for e, _ in build(20, 3)], [e.sha256 for e, _ in build(30, 3)]
    assert few == many[:20]


def test_the_ledger_tells_what_lies_there(laid: tuple[ScratchTree, tuple[CorpusFile, ...]]) -> None:
    tree, ledger = laid
    assert sorted(tree.walk()) == sorted(entry.path for entry in ledger)
    assert len({entry.path.rpartition(b"/")[0] for entry in ledger}) > 30
    for entry in ledger:
        data = (tree.path / entry.path.decode()).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.size_bytes, entry.sha256)
        assert tree.digest(entry.path) == entry.sha256


@pytest.mark.skipif(not shutil.which("dcmdump"), reason="dcmtk is not installed")
def test_dcmdump_reads_every_dicom_file(laid: tuple[ScratchTree, tuple[CorpusFile, ...]]) -> None:
    tree, ledger = laid
    paths = [str(tree.path / entry.path.decode()) for entry in ledger if entry.kind == "dicom"]
    done = subprocess.run(["dcmdump", "+E", "+P", "PatientName", "+P", "PixelData", "+L", *paths], capture_output=True)
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.count(b"PatientName") == done.stdout.count(b"PixelData") == len(paths)


@pytest.mark.skipif(not shutil.which("file"), reason="file is not installed")
def test_file_names_every_type(laid: tuple[ScratchTree, tuple[CorpusFile, ...]]) -> None:
    tree, ledger = laid
    said = subprocess.run(
        ["file", "-b", *(str(tree.path / entry.path.decode()) for entry in ledger)], capture_output=True, text=True
    ).stdout.splitlines()
    for entry, words in zip(ledger, said, strict=True):
        assert FILE_SAYS[entry.kind] in words, (entry.path, words)


def test_hl7_segments(made: dict[str, list[tuple[CorpusFile, bytes]]]) -> None:
    for _, data in made["hl7-oru"] + made["hl7-adt"]:
        segments = data.decode("ascii").split("\r")
        assert segments[0].startswith("MSH|^~\\&|") and segments[-1] == ""
        assert any(segment.startswith("PID|1||MRN") for segment in segments)
        assert all(re.match(r"[A-Z][A-Z0-9]{2}\|", segment) for segment in segments[:-1])


def test_fhir_bundles(made: dict[str, list[tuple[CorpusFile, bytes]]]) -> None:
    for _, data in made["fhir"]:
        bundle = json.loads(data)
        assert bundle["resourceType"] == "Bundle"
        assert bundle["entry"][0]["resource"]["resourceType"] == "Patient"


def test_csv_rows_and_databases(made: dict[str, list[tuple[CorpusFile, bytes]]], tmp_path: Path) -> None:
    for _, data in made["csv"]:
        rows = list(csv.reader(io.StringIO(data.decode())))
        assert len(rows) > 5 and {len(row) for row in rows} == {11}
    for number, (_, data) in enumerate(made["sqlite"]):
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(data)
        with sqlite3.connect(path) as connection:
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
            assert connection.execute("select count(*) from encounter").fetchone()[0] >= 10
        connection.close()


def test_office_packages(made: dict[str, list[tuple[CorpusFile, bytes]]]) -> None:
    for entry, data in made["docx"] + made["xlsx"]:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            assert names[0] == "[Content_Types].xml"
            for name in names:
                ET.fromstring(archive.read(name))
            assert ("word/document.xml" if entry.kind == "docx" else "xl/workbook.xml") in names


def test_archives(made: dict[str, list[tuple[CorpusFile, bytes]]]) -> None:
    for _, data in made["csv-gz"]:
        assert gzip.decompress(data).startswith(b"mrn,name,")
    for _, data in made["tar-gz"]:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert all(member.isfile() and member.size for member in archive.getmembers())


def test_pdf_cross_references_point_at_their_objects(made: dict[str, list[tuple[CorpusFile, bytes]]]) -> None:
    for _, data in made["pdf"]:
        start = int(re.findall(rb"startxref\n(\d+)\n%%EOF\n$", data)[0])
        head, table = data[start:].split(b"trailer")[0].split(b"\n", 2)[:2], data[start:].split(b"\n")[2:]
        count = int(head[1].split()[1])
        for number in range(1, count):
            offset = int(table[number].split()[0])
            assert data[offset:].startswith(b"%d 0 obj\n" % number)
        for length, stream in re.findall(
            rb"/Length (\d+) /Filter /FlateDecode >>\nstream\n(.*?)\nendstream", data, re.S
        ):
            assert len(stream) == int(length) and zlib.decompress(stream).startswith(b"BT ")


def test_png_chunks(made: dict[str, list[tuple[CorpusFile, bytes]]]) -> None:
    for _, data in made["png"]:
        at, kinds, pixels = 8, [], b""
        while at < len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            body = data[at + 8 : at + 8 + length]
            assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
            kinds.append(kind)
            pixels += body if kind == b"IDAT" else b""
            at += 12 + length
        assert kinds == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
        side = struct.unpack(">I", data[16:20])[0]
        assert len(zlib.decompress(pixels)) == side * (side + 1)


def test_jpeg_markers_and_scan(made: dict[str, list[tuple[CorpusFile, bytes]]]) -> None:
    for _, data in made["jpeg"]:
        assert data.startswith(b"\xff\xd8\xff\xe0") and data.endswith(b"\xff\xd9")
        at, markers = 2, []
        while data[at + 1] != 0xDA:
            markers.append(data[at + 1])
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        assert markers == [0xE0, 0xFE, 0xDB, 0xC0, 0xC4, 0xC4]
        scan = data[at + 2 + 8 : -2]
        assert scan.count(b"\xff") == scan.count(b"\xff\x00"), "every 0xff in the scan is stuffed"


def test_jpeg_keeps_the_brightness_of_its_picture() -> None:
    """The DC coefficient of a flat block is eight times its mean less 128, over the quantiser (T.81 A.3.3)."""
    import numpy as np

    flat = np.full((16, 16), 200, dtype=np.uint8)
    rows = images._coefficients(flat)
    assert rows.shape == (4, 64)
    assert (rows[:, 0] == round(8 * (200 - 128) / 4)).all()
    assert not rows[:, 1:].any()


@pytest.mark.parametrize("size", [0, 1, 2048, 100_000, 900_000])
def test_writers_take_any_size(size: int) -> None:
    assert dicom.dicom(Random(1), size)[128:132] == b"DICM"
    assert images.png(Random(1), min(size, 100_000)).endswith(b"IEND\xaeB`\x82")


def test_the_dropped_program_is_an_elf_and_does_nothing(tmp_path: Path) -> None:
    path = tmp_path / "invoice.pdf"
    path.write_bytes(drops.tiny_elf(Random(5)))
    path.chmod(0o700)
    done = subprocess.run([path], capture_output=True, timeout=10)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_drops_are_the_same_for_one_seed() -> None:
    assert [drop.sha256 for drop in drops.plan(2)] == [drop.sha256 for drop in drops.plan(2)]
    eicar = next(drop for drop in drops.plan(2) if drop.path.endswith(b"eicar.com"))
    assert eicar.sha256 == "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
