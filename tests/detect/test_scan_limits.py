"""Signatures by descriptor; bytes and time bounded; a failure is never a match."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldd.errors import ShieldError
from shieldd.model.match import MatchKind
from shieldd.scan import EICAR, Scanner, is_eicar

RULES = Path(__file__).resolve().parents[2] / "shieldd/rules/shieldd.yar"


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner.load([RULES], [])


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[object]:
    fds: list[int] = []

    def open_with(content: bytes) -> int:
        path = tmp_path / "f"
        path.write_bytes(content)
        fds.append(os.open(path, os.O_RDONLY))
        return fds[-1]

    yield open_with
    for fd in fds:
        os.close(fd)


def test_the_test_file_is_found_and_only_as_its_standard_has_it(scanner: Scanner, opened) -> None:
    match = scanner.scan(opened(EICAR + b"\r\n"), b"anything")
    assert match is not None and match.kind is MatchKind.EICAR and match.quarantine and match.whole
    assert scanner.scan(opened(b"see: " + EICAR), b"doc.txt") is None
    assert scanner.scan(opened(EICAR + b"x" * 200), b"doc.txt") is None


@given(st.binary(max_size=200))
def test_eicar_is_never_mistaken(content: bytes) -> None:
    assert is_eicar(content) is False


def test_a_digest_list_names_whole_contents(tmp_path: Path, opened) -> None:
    listed = tmp_path / "bad.txt"
    listed.write_text("# known bad\n\n" + "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc.bin\n")
    scanner = Scanner.load([], [listed])
    match = scanner.scan(opened(b"abc"), b"x")
    assert match is not None and match.kind is MatchKind.DIGEST
    assert scanner.scan(opened(b"abcd"), b"x") is None
    assert Scanner.load([], [listed], scan_limit_bytes=2).scan(opened(b"abc"), b"x") is None  # not read whole


@pytest.mark.parametrize("line", ["abc", "g" * 64, "é" * 32])
def test_a_malformed_digest_list_is_refused(tmp_path: Path, line: str) -> None:
    listed = tmp_path / "bad.txt"
    listed.write_text(line + "\n")
    with pytest.raises(ShieldError) as caught:
        Scanner.load([], [listed])
    assert caught.value.code == "scan.digests"


@pytest.mark.parametrize(
    "source", ["rule broken {", 'include "/etc/passwd"', 'import "nothing"\nrule a { condition: true }']
)
def test_rules_that_do_not_compile_are_refused(tmp_path: Path, source: str) -> None:
    path = tmp_path / "r.yar"
    path.write_text(source)
    for rules in ([path], [tmp_path / "missing.yar"]):
        with pytest.raises(ShieldError) as caught:
            Scanner.load(rules, [])
        assert caught.value.code == "scan.rules"


@pytest.mark.parametrize("code", ["scan.digests", "scan.rules"])
@pytest.mark.parametrize("what", ["pipe", "device", "giant"])
def test_what_would_hold_the_reload_is_refused(tmp_path: Path, code: str, what: str) -> None:
    path = Path("/dev/zero") if what == "device" else tmp_path / what
    if what == "pipe":
        os.mkfifo(path)
    elif what == "giant":
        path.write_bytes(b"")
        os.truncate(path, (1 << 30) + 1)
    with pytest.raises(ShieldError) as caught:
        Scanner.load([path] if code == "scan.rules" else [], [path] if code == "scan.digests" else [])
    assert caught.value.code == code


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    listed = tmp_path / "bad.txt"
    listed.write_bytes(b"a" * (64 << 10))
    with pytest.raises(ShieldError, match="too long"):
        Scanner.load([], [listed])


def test_programs_under_documents_names(scanner: Scanner, opened) -> None:
    elf = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + bytes(100)
    match = scanner.scan(opened(elf), b"Invoice.PDF")
    assert match is not None and match.rule == "elf_under_document_extension" and match.attack == "T1036.008"
    assert scanner.scan(opened(elf), b"invoice") is None
    pe = bytearray(b"MZ" + bytes(200))
    pe[0x3C], pe[0x80:0x84] = 0x80, b"PE\0\0"
    match = scanner.scan(opened(bytes(pe)), b"letter.docx")
    assert match is not None and match.rule == "pe_under_document_extension"


def test_a_ransom_note_needs_all_three_marks(scanner: Scanner, opened) -> None:
    note = b"All your files have been encrypted. Pay 2 Bitcoin for the decryption key."
    match = scanner.scan(opened(note), b"README.txt")
    assert match is not None and match.rule == "ransom_note_text" and match.attack == "T1486"
    policy = b"Backups: files are encrypted at rest, the private key is kept in the safe."
    assert scanner.scan(opened(policy), b"policy.txt") is None


def test_no_more_than_the_limit_is_read(opened) -> None:
    scanner = Scanner.load([RULES], [], scan_limit_bytes=1024)
    assert scanner.scan(opened(bytes(1024) + b"files have been encrypted bitcoin decryptor"), b"x") is None
    exact = Scanner.load([RULES], [], scan_limit_bytes=len(EICAR))
    match = exact.scan(opened(EICAR), b"x")
    assert match is not None and match.whole
    assert exact.scan(opened(EICAR + b"\n"), b"x") is None or not exact.scan(opened(EICAR + b"\n"), b"x").whole  # type: ignore[union-attr]


def test_what_is_not_a_regular_file_is_refused_without_a_read(scanner: Scanner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    fd = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(ShieldError) as caught:
            scanner.scan(fd, b"pipe")
        assert caught.value.code == "file.not-regular"
    finally:
        os.close(fd)


def test_a_failed_read_is_an_error_and_never_a_match(scanner: Scanner, opened, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "w", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(ShieldError) as caught:
            scanner.scan(fd, b"w")
        assert caught.value.code == "scan.io"
    finally:
        os.close(fd)


def test_time_is_bounded(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10**12, 3 * 10**9))
    monkeypatch.setattr("shieldd.scan.time.monotonic_ns", lambda: next(ticks))
    with pytest.raises(ShieldError) as caught:
        Scanner.load([RULES], []).scan(opened(b"slow"), b"x")
    assert caught.value.code == "scan.time"


def test_the_descriptors_offset_stays(scanner: Scanner, opened) -> None:
    fd = opened(b"0123456789")
    os.lseek(fd, 4, os.SEEK_SET)
    scanner.scan(fd, b"x")
    assert os.lseek(fd, 0, os.SEEK_CUR) == 4
