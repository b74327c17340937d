"""shield-envelope(5) and the two implementations agree: the worked example, both ways, and every flipped bit."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from shieldd.errors import ShieldError
from shieldd.native import envelope as native
from tests.envelope import example
from tests.envelope.conftest import KEY_ID, Bench
from tests.envelope.reference import Reader, Refused, Writer, blake3, crc32c

PAGE = Path(__file__).resolve().parents[2] / "man" / "shield-envelope.5.scd"
KEK = bytes(range(32))


@pytest.fixture
def keyring() -> native.Keyring:
    ring = native.Keyring()
    ring.add(key_id=KEY_ID, version=1, purpose=native.Purpose.FILES, key=bytearray(KEK), seals=True)
    return ring


def test_primitives_of_the_second_reader_know_their_published_answers() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    pattern = bytes(i % 251 for i in range(31744))
    assert blake3(pattern).hex() == "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47"


def test_the_worked_example_is_what_the_page_says() -> None:
    page = PAGE.read_text()
    for name, value in example.values().items():
        at = page.index(f"\n{name}\n```\n") + len(name) + 6
        found = re.sub(r"\s", "", page[at : page.index("\n```", at)])
        assert found == value.hex(), name


def test_the_core_opens_the_worked_example(tmp_path: Path) -> None:
    (tmp_path / "x.shield").write_bytes(example.sealed())
    root = os.open(tmp_path, os.O_RDONLY)
    w = example.WRITER
    with native.Keyring() as ring, (tmp_path / "out").open("wb") as out:
        ring.add(key_id=w.key_id, version=w.version, purpose=native.Purpose.FILES, key=bytearray(w.kek), seals=True)
        native.open_stream(root, b"x.shield", ring, out.fileno())
        assert native.verify(root, b"x.shield", ring).metadata.path == b"ward/scan.dcm"
    os.close(root)
    assert (tmp_path / "out").read_bytes() == example.PAYLOAD


@pytest.mark.parametrize("size", [0, 1, 255, 131071, 131072, 131073, 400_000])
def test_the_second_reader_opens_what_the_core_sealed(bench: Bench, size: int) -> None:
    content = os.urandom(size)
    os.setxattr(bench.tree, b"user.probe", b"1")
    name = bench.write("scan.dcm", content, 0o4751)
    os.setxattr(bench.tree / "scan.dcm", b"user.patient", b"4711")
    sealed = bench.seal(name)
    reader = Reader({(KEY_ID, 1): KEK})
    assert reader.verify(bench.read(sealed.path)) == content
    assert reader.metadata["name"] == b"scan.dcm"
    assert reader.metadata["mode"] == 0o4751
    assert reader.metadata["xattrs"] == [b"user.patient", b"4711"]
    assert reader.metadata["digest"] == sealed.blake3 == blake3(content)


@pytest.mark.parametrize("size", [0, 1, 4096, 131072, 131073, 400_000])
@pytest.mark.parametrize("chunk_log2", [12, 17, 22])
def test_the_core_opens_what_the_second_writer_sealed(bench: Bench, size: int, chunk_log2: int) -> None:
    content = os.urandom(size)
    r = os.urandom(112)
    writer = Writer(KEK, KEY_ID, 1, r[:32], r[32:48], r[48:80], r[80:], chunk_log2=chunk_log2)
    bench.write("x.shield", writer.seal(content))
    opened = bench.open(b"x.shield")
    assert opened.path == b"scan.dcm"
    assert bench.read("scan.dcm") == content
    assert os.stat(bench.tree / "scan.dcm").st_mtime_ns == 1_600_000_000_987_654_321


def test_a_sparse_file_of_the_core_is_read_with_its_holes(bench: Bench) -> None:
    with (bench.tree / "disk.img").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"\xaa" * 70_000)
    plain = bench.read("disk.img")
    sealed = bench.seal(b"disk.img")
    assert sealed.sealed_size < 200_000
    reader = Reader({(KEY_ID, 1): KEK})
    assert reader.plain(reader.verify(bench.read(sealed.path))) == plain


@pytest.mark.slow
def test_no_flipped_bit_passes(bench: Bench) -> None:
    """Every bit: the full check refuses, and opening gives the right content or none."""
    content = b"name: Doe^Jane; MRN 4711\n"
    name = bench.write("a.hl7", content)
    sealed = bench.seal(name)
    path = bench.tree / os.fsdecode(sealed.path)
    whole = path.read_bytes()
    refused_by: dict[str, int] = {}
    out = os.memfd_create("out")
    with path.open("r+b", buffering=0) as file:
        for at in range(len(whole)):
            for bit in range(8):
                file.seek(at)
                file.write(bytes([whole[at] ^ 1 << bit]))
                with pytest.raises(ShieldError) as refused:
                    native.verify(bench.root, sealed.path, bench.keyring)
                refused_by[refused.value.code] = refused_by.get(refused.value.code, 0) + 1
                os.ftruncate(out, 0)
                os.lseek(out, 0, os.SEEK_SET)
                try:
                    native.open_stream(bench.root, sealed.path, bench.keyring, out)
                except ShieldError as error:
                    assert error.code.startswith("envelope.")
                    assert os.fstat(out).st_size == 0
                else:
                    assert at < 8192, "beyond the slots nothing may open"
                    assert os.pread(out, 100, 0) == content
            file.seek(at)
            file.write(whole[at : at + 1])
    os.close(out)
    assert set(refused_by) == {"envelope.crc", "envelope.metadata", "envelope.chunk"}
    native.verify(bench.root, sealed.path, bench.keyring)


def test_the_second_reader_refuses_each_byte_changed(bench: Bench) -> None:
    sealed = example.sealed()
    w = example.WRITER
    reader = Reader({(w.key_id, w.version): w.kek})
    for at in (*range(0, 4096, 131), 4092, 4096, *range(8192, len(sealed), 37)):
        with pytest.raises(Refused):
            reader.verify(sealed[:at] + bytes([sealed[at] ^ 0x40]) + sealed[at + 1 :])
