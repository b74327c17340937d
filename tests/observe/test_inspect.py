"""The inspector on hostile and odd objects; the baseline it keeps."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from shieldd.errors import ShieldError
from shieldd.model.event import EVENT, FACTS, Kind
from shieldd.model.event import FactFlag as F
from shieldd.native._abi import ffi
from shieldd.native.observe import Baseline, Inspector, Windows
from tests.observe.conftest import Looker, prose


def unseen(look: Looker, name: str | bytes) -> None:
    began = time.monotonic()
    seen = look.at(name)
    assert seen.has(F.UNSEEN) and not seen.has(F.LOOKED)
    assert time.monotonic() - began < 1
    assert seen.facts["entropy"].tolist() == [-1, -1, -1]


def test_fifo_socket_device_directory_and_links_are_never_read(look: Looker) -> None:
    os.mkfifo(look.root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(look.root / "socket"))
        (look.root / "link").symlink_to("/dev/zero")
        (look.root / "escape").symlink_to("/etc/passwd")
        (look.root / "dir").mkdir()
        (look.root / "via").symlink_to("dir")
        (look.root / "dir" / "file").write_bytes(b"x")
        for name in ("fifo", "socket", "link", "escape", "dir", "via/file", "gone", "../outside", "/etc/passwd", ""):
            unseen(look, name)
    assert look.inspector.stats().looked == 0


@pytest.mark.root
def test_device_node(look: Looker) -> None:
    try:
        os.mknod(look.root / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this kernel lets us make no device nodes")
    unseen(look, "zero")


def test_names_that_are_no_text(look: Looker) -> None:
    for name in (b"\xff\xfe\x80", b"line\nbreak", b"\x1b[31m", "\u202egpj.exe".encode(), b"n" * 255):
        (Path(os.fsdecode(bytes(look.root) + b"/" + name))).write_bytes(b"hello hello\n")
        assert look.at(name).has(F.LOOKED)


def test_a_sparse_file_of_ten_tebibytes_costs_three_samples(look: Looker) -> None:
    path = look.root / "huge.img"
    with path.open("wb") as out:
        try:
            out.truncate(10 << 40)
        except OSError:
            out.truncate(8 << 40)
    before = look.inspector.stats().bytes
    seen = look.at("huge.img")
    assert seen.has(F.LOOKED, F.SPARSE) and seen.facts["zero"] == 1.0
    assert look.inspector.stats().bytes - before <= 12_288


def test_unreadable_is_unseen(look: Looker) -> None:
    (look.root / "f").write_bytes(b"x")
    (look.root / "f").chmod(0)
    if os.geteuid() == 0:
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os._exit(0 if look.at("f").has(F.UNSEEN) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    else:
        unseen(look, "f")


def test_exposure_follows_modes_of_file_and_directories(look: Looker) -> None:
    inner = look.root / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "f").write_bytes(b"text text\n")
    for path in (look.root, look.root / "a", inner):
        path.chmod(0o755)
    assert look.at("a/b/f").has(F.REACHABLE_BY_OTHERS)
    (look.root / "a").chmod(0o750)
    os.close(look.fd)
    closed = Looker(look.root)  # a fresh cache
    look.fd = closed.fd
    assert not closed.at("a/b/f").has(F.REACHABLE_BY_OTHERS)


def test_a_rename_carries_what_was_known(look: Looker) -> None:
    look.bytes(prose(20_000), "scan.txt")
    (look.root / "scan.txt").rename(look.root / "scan.txt.locked")
    seen = look.at("scan.txt.locked", old="scan.txt", kind=Kind.RENAME)
    assert seen.has(F.KNOWN_BEFORE, F.EXT_CHANGED) and seen.facts["similarity"] == 1.0
    again = look.at("scan.txt", kind=Kind.DELETE)
    assert not again.has(F.KNOWN_BEFORE)


def test_a_deleted_file_says_what_it_was(look: Looker) -> None:
    look.bytes(prose(20_000), "scan.txt")
    (look.root / "scan.txt").unlink()
    gone = look.at("scan.txt", kind=Kind.DELETE)
    assert gone.has(F.KNOWN_BEFORE) and not gone.has(F.UNSEEN) and gone.facts["prev_size"] == 20_000
    assert not look.at("scan.txt", kind=Kind.DELETE).has(F.KNOWN_BEFORE)


def test_hard_links_and_setuid_are_told(look: Looker) -> None:
    look.bytes(b"abc abc\n", "f")
    os.link(look.root / "f", look.root / "g")
    (look.root / "f").chmod(0o4755)
    seen = look.at("g")
    assert seen.has(F.HARDLINKED) and seen.facts["mode"] & 0o4000


@pytest.mark.parametrize(
    "name",
    [
        "README_TO_DECRYPT.txt",
        "HOW-TO-RECOVER-FILES.html",
        "_readme.txt",
        "Restore_Your_Files.txt",
        "!!!READ_ME_RANSOM.txt",
    ],
)
def test_names_of_ransom_notes(look: Looker, name: str) -> None:
    assert look.bytes(b"hello\n", name).has(F.NOTE_LIKE)


@pytest.mark.parametrize(
    "name", ["README.txt", "readme.md", "how_to_install.txt", "restore.sh", "notes.txt", "recovery.conf"]
)
def test_names_of_ordinary_notes(look: Looker, name: str) -> None:
    assert not look.bytes(b"To install, type make. Payment is in bitcoin.\n", name).has(F.NOTE_LIKE)


def test_text_of_a_ransom_note(look: Looker) -> None:
    note = b"All of your files have been encrypted. Pay 2 bitcoin. Use Tor Browser: http://abc.onion\n"
    assert look.bytes(note, "hello.txt").has(F.NOTE_LIKE)
    assert not look.bytes(b"Backups are encrypted with a private key.\n" * 9, "policy.txt").has(F.NOTE_LIKE)


def test_baseline_survives_a_restart_and_refuses_damage(look: Looker, tmp_path: Path) -> None:
    for i in range(50):
        look.bytes(prose(3_000, seed=i), f"f{i}.txt")
    store = tmp_path / "baseline"
    fd = os.open(store, os.O_RDWR | os.O_CREAT)
    look.inspector.baseline.save(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    again = Baseline(capacity=1000)
    again.load(fd)
    assert again.stats().entries == 50
    inspector = Inspector(again)
    facts = inspector.inspect(look.fd, b"f7.txt")[0]
    assert int(facts["flags"]) & F.KNOWN_BEFORE and facts["similarity"] == 1.0

    good = store.read_bytes()
    for bad, code in [
        (b"", "baseline.corrupt"), (b"x" * 200, "baseline.corrupt"), (good[:-1], "baseline.corrupt"),
        (good + b"\0", "baseline.corrupt"), (good[:90] + bytes([good[90] ^ 4]) + good[91:], "baseline.corrupt"),
    ]:  # fmt: skip
        store.write_bytes(bad)
        os.lseek(fd, 0, os.SEEK_SET)
        with pytest.raises(ShieldError) as caught:
            again.load(fd)
        assert caught.value.code == code
        assert again.stats().entries == 50
    os.close(fd)
    with pytest.raises(ShieldError):
        again.load(-1)


def test_baseline_is_bounded_and_counts_what_leaves(look: Looker) -> None:
    inspector = Inspector(Baseline(capacity=10))
    for i in range(25):
        (look.root / f"f{i}").write_bytes(b"text %d\n" % i)
        inspector.inspect(look.fd, b"f%d" % i)
    stats = inspector.baseline.stats()
    assert (stats.entries, stats.evictions) == (10, 15)


def test_arguments_are_checked(look: Looker) -> None:
    with pytest.raises(ShieldError, match="capacity"):
        Baseline(capacity=0)
    with pytest.raises(ShieldError):
        look.inspector.inspect_many(look.fd, np.zeros(1, FACTS), b"x")
    event = np.zeros(1, EVENT)
    event["path_len"] = 5
    with pytest.raises(ShieldError, match="arena"):
        look.inspector.inspect_many(look.fd, event, b"abc")
    with pytest.raises(ShieldError):
        look.inspector.inspect(-1, b"x")
    with pytest.raises(ShieldError, match="length"):
        Windows().observe(np.zeros(2, EVENT), np.zeros(1, FACTS))
    assert look.inspector.inspect_many(look.fd, np.zeros(0, EVENT), b"").shape == (0,)


@pytest.mark.parametrize(("name", "dtype"), [("Event", EVENT), ("Facts", FACTS)])
def test_records_are_laid_out_as_in_the_core(name: str, dtype: np.dtype) -> None:
    fields = dict(ffi.typeof(name).fields)
    assert set(fields) == set(dtype.names)
    assert ffi.sizeof(name) == dtype.itemsize
    for field, (_, offset, *_rest) in dtype.fields.items():
        assert fields[field].offset == offset
