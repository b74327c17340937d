"""Files made by real tools are what they are, well-formed, and say when they are encrypted; forgeries are not."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import py_compile
import random
import sqlite3
import struct
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from shieldd.model.event import FactFlag as F
from shieldd.native.observe import schema
from tests.observe.conftest import Looker, Seen, prose

Tool = Callable[..., None]
WELL = F.LOOKED | F.MAGIC_KNOWN | F.STRUCTURE_OK | F.TAIL_OK


def noise(size: int, seed: int = 5) -> bytes:
    return random.Random(seed).randbytes(size)


def well(seen: Seen, name: str, *, encrypted: bool = False) -> None:
    assert seen.format == name, seen
    assert seen.has(WELL) or encrypted, seen.flags
    assert seen.has(F.DECLARES_ENCRYPTION) == encrypted, seen.flags


SIZES = [700, 9_000, 150_000]
STREAMS = [
    ("gzip", "gz", ["gzip", "-c"]),
    ("gzip", "gz", ["gzip", "-9nc"]),
    ("bzip2", "bz2", ["bzip2", "-c"]),
    ("xz", "xz", ["xz", "-c"]),
    ("xz", "xz", ["xz", "-0", "--check=crc32", "-c"]),
    ("lzma", "lzma", ["xz", "--format=lzma", "-c"]),
    ("zstd", "zst", ["zstd", "-qc"]),
    ("zstd", "zst", ["zstd", "-19", "--no-check", "-qc"]),
    ("lz4", "lz4", ["lz4", "-qc"]),
    ("lz4", "lz4", ["lz4", "-9", "-BD", "--no-frame-crc", "-qc"]),
    ("lzip", "lz", ["lzip", "-c"]),
    ("lzop", "lzo", ["lzop", "-c"]),
    ("compress", "z", ["compress", "-c"]),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "ext", "argv"), STREAMS)
@pytest.mark.parametrize("dense", [False, True], ids=["text", "noise"])
def test_compressors(look: Looker, tool: Tool, name: str, ext: str, argv: list[str], size: int, dense: bool) -> None:
    if dense and name == "compress":
        pytest.skip("compress refuses to grow a file")
    tool(*argv, stdin=noise(size) if dense else prose(size), out=look.root / f"f.{ext}")
    seen = look.at(f"f.{ext}")
    well(seen, name)
    assert seen.has(F.EXT_KNOWN, F.MAGIC_MATCHES_EXT)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "ext", "argv"), [s for s in STREAMS if s[0] not in {"lzma", "compress", "lzip", "lzop"}]
)
def test_a_header_before_noise_is_not_that_format(
    look: Looker, tool: Tool, name: str, ext: str, argv: list[str], size: int
) -> None:
    """An attacker keeps or forges the first bytes and encrypts the rest."""
    tool(*argv, stdin=prose(size), out=look.root / "f")
    good = (look.root / "f").read_bytes()
    seen = look.bytes(good[:10] + noise(max(len(good), 2_000)), f"g.{ext}")
    assert not seen.has(F.STRUCTURE_OK), seen


def test_archives(look: Looker, tool: Tool) -> None:
    (look.root / "a.txt").write_bytes(prose(40_000))
    (look.root / "b.bin").write_bytes(noise(30_000))
    for name, argv in {
        "x.tar": ["tar", "cf", "x.tar", "a.txt", "b.bin"],
        "x.7z": ["7z", "a", "-bd", "x.7z", "a.txt", "b.bin"],
        "x.zip": ["zip", "-q", "x.zip", "a.txt", "b.bin"],
        "x.a": ["ar", "rc", "x.a", "a.txt", "b.bin"],
    }.items():
        tool(*argv, cwd=look.root)
        well(look.at(name), {"x.a": "ar"}.get(name, name[2:]))


def test_7z_declares_its_encryption_even_in_a_compressed_header(look: Looker, tool: Tool) -> None:
    for i in range(12):
        (look.root / f"file{i}.txt").write_bytes(prose(4_000 + i))
    tool("7z", "a", "-bd", "-psecret", "one.7z", "file0.txt", cwd=look.root)
    tool("7z", "a", "-bd", "-psecret", "many.7z", *[f"file{i}.txt" for i in range(12)], cwd=look.root)
    tool("7z", "a", "-bd", "-psecret", "-mhe=on", "hidden.7z", "file0.txt", cwd=look.root)
    tool("7z", "a", "-bd", "plain.7z", *[f"file{i}.txt" for i in range(12)], cwd=look.root)
    tool("7z", "a", "-bd", "-tzip", "-psecret", "-mem=AES256", "aes.zip", "file0.txt", cwd=look.root)
    for name in ("one.7z", "many.7z", "hidden.7z"):
        well(look.at(name), "7z", encrypted=True)
    well(look.at("plain.7z"), "7z")
    well(look.at("aes.zip"), "zip", encrypted=True)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("size", SIZES)
def test_python_zip(look: Looker, method: int, size: int) -> None:
    with zipfile.ZipFile(look.root / "f.zip", "w", method) as out:
        out.writestr("one.txt", prose(size))
        out.writestr("two.bin", noise(size // 2))
    well(look.at("f.zip"), "zip")
    cut = (look.root / "f.zip").read_bytes()[:-30]
    assert not look.bytes(cut, "cut.zip").has(F.STRUCTURE_OK)


@pytest.mark.parametrize(
    ("name", "member"), [("docx", "word/document.xml"), ("xlsx", "xl/workbook.xml"), ("pptx", "ppt/presentation.xml")]
)
def test_office_documents(look: Looker, name: str, member: str) -> None:
    with zipfile.ZipFile(look.root / f"f.{name}", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("[Content_Types].xml", b"<Types/>" * 20)
        out.writestr(member, prose(20_000))
    seen = look.at(f"f.{name}")
    well(seen, name)
    assert seen.has(F.MAGIC_MATCHES_EXT)


def _ole2(streams: list[str]) -> bytes:
    """The smallest compound file with named streams (MS-CFB): header, one FAT sector, one directory sector."""
    header = struct.pack(
        "<8s16sHHHHH6sIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"", 0x3E, 3, 0xFFFE, 9, 6, b"", 0, 1, 1, 0,
        4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0,
    )  # fmt: skip
    fat = struct.pack("<128I", 0xFFFFFFFD, 0xFFFFFFFE, *[0xFFFFFFFF] * 126)
    directory = b""
    for i, name in enumerate(["Root Entry", *streams][:4]):
        raw = name.encode("utf-16-le")
        directory += raw.ljust(64, b"\0") + struct.pack("<HBB", len(raw) + 2, 5 if i == 0 else 2, 1) + b"\xff" * 12
        directory += b"\0" * (128 * (i + 1) - len(directory))
    return header + struct.pack("<109I", 0, *[0xFFFFFFFF] * 108) + fat + directory.ljust(512, b"\0")


def test_old_office_and_encrypted_office(look: Looker) -> None:
    well(look.bytes(_ole2(["WordDocument"]), "f.doc"), "ole2")
    well(look.bytes(_ole2(["EncryptionInfo", "EncryptedPackage"]), "f.docx"), "ole2", encrypted=True)


def _png(side: int, seed: int = 1) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + noise(side * 3, seed + y) for y in range(side))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("side", [4, 40, 200])
def test_png(look: Looker, side: int) -> None:
    good = _png(side)
    well(look.bytes(good, "f.png"), "png")
    assert not look.bytes(good[:60] + noise(len(good) + 600), "g.png").has(F.STRUCTURE_OK)


def _pdf(body: bytes, trailer: bytes = b"") -> bytes:
    out = b"%PDF-1.4\n"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[]/Count 0>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(body), body),
    ]
    offsets = []
    for i, text in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (i, text)
    start = len(out)
    out += b"xref\n0 4\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % o for o in offsets)
    return out + b"trailer\n<</Size 4/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (trailer, start)


@pytest.mark.parametrize("size", [100, 30_000])
def test_pdf(look: Looker, size: int) -> None:
    well(look.bytes(_pdf(zlib.compress(prose(size))), "f.pdf"), "pdf")
    well(look.bytes(_pdf(noise(size), b"/Encrypt 9 0 R"), "e.pdf"), "pdf", encrypted=True)
    assert not look.bytes(b"%PDF-1.4\n" + noise(size), "g.pdf").has(F.STRUCTURE_OK)


@pytest.mark.parametrize("rows", [1, 2_000])
def test_sqlite(look: Looker, rows: int) -> None:
    with sqlite3.connect(look.root / "f.db") as db:
        db.execute("create table t(a, b)")
        db.executemany("insert into t values(?, ?)", [(i, f"value {i}") for i in range(rows)])
    db.close()
    good = (look.root / "f.db").read_bytes()
    well(look.at("f.db"), "sqlite")
    assert not look.bytes(good[:100] + noise(len(good) - 100), "g.db").has(F.STRUCTURE_OK)


def test_programs_and_scripts(look: Looker, tool: Tool) -> None:
    (look.root / "p.c").write_text("int main(void){return 0;}")
    tool("gcc", "-o", "p", "p.c", cwd=look.root)
    seen = look.at("p")
    well(seen, "elf")
    assert seen.has(F.EXECUTABLE)
    seen = look.bytes((look.root / "p").read_bytes(), "scan.pdf")
    assert seen.has(F.EXECUTABLE) and seen.extension == "pdf" and not seen.has(F.MAGIC_MATCHES_EXT)
    pe = bytearray(b"MZ" + b"\0" * 58 + struct.pack("<I", 128) + b"\0" * 64 + b"PE\0\0" + struct.pack("<H", 0x8664))
    assert look.bytes(bytes(pe) + b"\0" * 400, "x.exe").has(F.EXECUTABLE)
    assert look.bytes(b"#!/bin/sh\necho hello\n", "x").has(F.SCRIPT)
    (look.root / "m.py").write_text("x = 1\n")
    py_compile.compile(str(look.root / "m.py"), cfile=str(look.root / "m.pyc"))
    well(look.at("m.pyc"), "pyc")


def _dicom(
    pixels: bytes, *, preamble: bool = True, name: bytes = b"DOE^JANE", syntax: bytes = b"1.2.840.10008.1.2.1"
) -> bytes:
    def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        if vr in {b"OB", b"OW", b"UT"}:
            return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
        return struct.pack("<HH2sH", group, number, vr, len(value)) + value

    meta = element(2, 0x02, b"UI", b"1.2.840.10008.5.1.4.1.1.2") + element(2, 0x10, b"UI", syntax)
    meta = element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
    data = (
        element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.2") + element(8, 0x60, b"CS", b"CT")
        + element(0x10, 0x10, b"PN", name) + element(0x10, 0x20, b"LO", b"4829131" if name else b"")
    )  # fmt: skip
    side = max(1, int((len(pixels) / 2) ** 0.5))
    shorts = {0x02: 1, 0x10: side, 0x11: side, 0x100: 16, 0x101: 12, 0x102: 11, 0x103: 0}
    image = {number: element(0x28, number, b"US", struct.pack("<H", value)) for number, value in shorts.items()}
    image[0x04] = element(0x28, 0x04, b"CS", b"MONOCHROME2")
    data += b"".join(image[number] for number in sorted(image))
    if syntax.startswith(b"1.2.840.10008.1.2.4"):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(pixels)) + pixels
        data += (
            struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        )
    else:
        data += element(0x7FE0, 0x10, b"OW", pixels)
    return (b"\0" * 128 + b"DICM" + meta + data) if preamble else data


def _shades(size: int) -> bytes:
    return b"".join(struct.pack("<H", 900 + (i * i // 91) % 240) for i in range(size // 2))


@pytest.mark.parametrize("size", [512, 60_000])
def test_dicom(look: Looker, size: int) -> None:
    seen = look.bytes(_dicom(_shades(size)), "IM1.dcm")
    well(seen, "dicom")
    assert seen.has(F.PHI_DICOM, F.MAGIC_MATCHES_EXT)
    assert not look.bytes(_dicom(_shades(size), name=b""), "anon.dcm").has(F.PHI_DICOM)
    well(look.bytes(_dicom(_shades(size), preamble=False), "IM2"), "dicom-bare")
    j2k = noise(size)
    well(look.bytes(_dicom(j2k, syntax=b"1.2.840.10008.1.2.4.90"), "IM3.dcm"), "dicom")


def test_dicom_with_encrypted_pixels_is_not_well_formed(look: Looker) -> None:
    assert not look.bytes(_dicom(noise(60_000)), "IM1.dcm").has(F.STRUCTURE_OK)


@pytest.mark.parametrize("argv", [["dcmcrle"], ["dcmcjpeg"], ["dcmconv", "+ti"], ["dcmconv", "+tb"], ["dcmconv", "-F"]])
def test_dicom_in_the_transfer_syntaxes_of_dcmtk(look: Looker, tool: Tool, argv: list[str]) -> None:
    (look.root / "in.dcm").write_bytes(_dicom(_shades(2 * 200 * 200)))
    tool(*argv, "in.dcm", "out.dcm", cwd=look.root)
    seen = look.at("out.dcm")
    well(seen, "dicom-bare" if "-F" in argv else "dicom")
    assert seen.has(F.PHI_DICOM, F.MAGIC_MATCHES_EXT)


@pytest.mark.parametrize(
    ("option", "ext", "name"),
    [
        ("+oj", "jpg", "jpeg"),
        ("+on", "png", "png"),
        ("+ot", "tif", "tiff"),
        ("+ob", "bmp", "bmp"),
        ("+op", "pgm", "pnm"),
    ],
)
@pytest.mark.parametrize("side", [40, 400])
def test_pictures_of_dcmtk(look: Looker, tool: Tool, option: str, ext: str, name: str, side: int) -> None:
    (look.root / "in.dcm").write_bytes(_dicom(_shades(2 * side * side)))
    tool("dcmj2pnm", "+Wm", option, "in.dcm", f"f.{ext}", cwd=look.root)
    well(look.at(f"f.{ext}"), name)


def test_nifti(look: Looker) -> None:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 16, 16, 16, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    well(look.bytes(bytes(header) + _shades(16**3 * 2), "brain.nii"), "nifti")
    assert not look.bytes(bytes(header) + noise(16**3 * 2 + 9), "brain.nii").has(F.STRUCTURE_OK)


def test_text_of_many_kinds(look: Looker) -> None:
    well(look.bytes(prose(30_000), "f.txt"), "text")
    well(look.bytes("Größe ячейка 환자 기록\n".encode() * 500, "f.txt"), "text")
    well(look.bytes("История болезни пациента\n".encode("cp1251") * 200, "f.txt"), "text")
    well(look.bytes("unterwegs\n".encode("utf-16"), "f.txt"), "text")
    well(look.bytes(b"a,b,c\n" + b"1,2,3\n" * 4_000, "f.csv"), "csv")
    well(look.bytes(json.dumps({"a": list(range(5_000))}).encode(), "f.json"), "json")
    well(look.bytes(b"<?xml version='1.0'?>\n<a>" + b"<b>x</b>" * 3_000 + b"</a>\n", "f.xml"), "xml")
    well(look.bytes(b"<!DOCTYPE html><html><body>" + prose(900) + b"</body></html>", "f.html"), "html")
    well(look.bytes(b"From a@b Thu Jan  1\nSubject: x\n\nhello\n" * 100, "f.mbox"), "mbox")
    well(look.bytes(b"{\\rtf1\\ansi " + prose(500) + b"}", "f.rtf"), "rtf")


@pytest.mark.parametrize("size", [1_000, 60_000])
def test_encodings_of_other_bytes_are_no_kind_of_content(look: Looker, size: int) -> None:
    for name, content in {
        "base64": base64.encodebytes(noise(size)),
        "base85": base64.b85encode(noise(size)),
        "hex": noise(size).hex().encode(),
    }.items():
        seen = look.bytes(content, "f.txt")
        assert seen.format == name
        assert not seen.has(F.STRUCTURE_OK) and not seen.has(F.MAGIC_KNOWN) and not seen.has(F.TEXT)


def test_sound(look: Looker) -> None:
    with wave.open(str(look.root / "f.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(_shades(9_000))
    well(look.at("f.wav"), "wav")


@pytest.mark.parametrize("size", SIZES)
def test_encrypted_by_real_tools(look: Looker, tool: Tool, tmp_path: Path, size: int) -> None:
    (look.root / "f").write_bytes(prose(size))
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", "x", "-q", "--yes"]
    tool(*gpg, "-o", "s.gpg", "-c", "f", cwd=look.root)
    tool(*gpg, "--armor", "-o", "s.asc", "-c", "f", cwd=look.root)
    tool("openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-pass", "pass:x", "-in", "f", "-out", "s.enc", cwd=look.root)
    well(look.at("s.gpg"), "gpg", encrypted=True)
    well(look.at("s.asc"), "gpg-armor", encrypted=True)
    well(look.at("s.enc"), "openssl", encrypted=True)


def test_age(look: Looker, tool: Tool) -> None:
    (look.root / "f").write_bytes(prose(5_000))
    tool("age-keygen", "-o", "key", cwd=look.root)
    recipient = (look.root / "key").read_text().split("public key: ")[1].split()[0]
    tool("age", "-r", recipient, "-o", "f.age", "f", cwd=look.root)
    tool("age", "-a", "-r", recipient, "-o", "a.age", "f", cwd=look.root)
    well(look.at("f.age"), "age", encrypted=True)
    well(look.at("a.age"), "age", encrypted=True)


def test_noise_is_unknown_and_looks_encrypted(look: Looker) -> None:
    for size in (1_000, 9_000, 100_000):
        seen = look.bytes(noise(size), "report.pdf")
        assert seen.format == "unknown" and not seen.has(F.STRUCTURE_OK)
        assert seen.facts["encrypted_like"] > 0.5


def test_a_compressed_copy_is_proved_to_hold_the_original(look: Looker) -> None:
    look.bytes(prose(30_000), "ward.csv")
    assert look.bytes(gzip.compress(prose(30_000)), "ward.csv.gz").has(F.REPLACED, F.DECODED)
    look.bytes(prose(30_000, seed=9), "other.csv")
    assert not look.bytes(gzip.compress(noise(30_000)), "other.csv.gz").has(F.REPLACED)


def test_tar_of_python_and_truncated(look: Looker) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("a")
        info.size = 20_000
        tar.addfile(info, io.BytesIO(prose(20_000)))
    well(look.bytes(out.getvalue(), "f.tar"), "tar")
    assert not look.bytes(out.getvalue()[:9_000], "f.tar").has(F.TAIL_OK)


def test_every_name_in_the_table_is_unique() -> None:
    assert len(set(schema().formats)) == len(schema().formats)
    assert os.fsencode(schema().formats[0]) == b"unknown"
