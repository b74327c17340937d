"""Cut off at every file-system call: EIO, ENOSPC and SIGKILL in seal, group seal, open, quarantine, restore, rewrap.

After each: every file exists whole, in the clear or sealed, under a name that recovery finds; recovery converges, and a
second one finds nothing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from shieldd.errors import CODES, ShieldError
from shieldd.native import envelope as native
from tests.cut_off import Fault, Worker, at_each, workers
from tests.envelope import fault_worker

ACTS = ("seal", "many", "open", "quarantine", "restore", "rewrap")
CALLS = [
    "openat",
    "openat2",
    "newfstatat",
    "fstat",
    "statx",
    "read",
    "pread64",
    "preadv",
    "preadv2",
    "write",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "ftruncate",
    "fchown",
    "fchmod",
    "fsetxattr",
    "fgetxattr",
    "flistxattr",
    "utimensat",
    "link",
    "linkat",
    "renameat",
    "renameat2",
    "unlinkat",
    "fsync",
    "fdatasync",
    "syncfs",
    "flock",
    "fcntl",
    "lseek",
    "readlinkat",
    "fstatfs",
]
WRITES = {
    "openat", "write", "pwrite64", "pwritev", "ftruncate", "fsetxattr", "linkat", "renameat2", "fsync", "fdatasync",
    "syncfs", "fchown",
}  # fmt: skip
CONTENT = {b"a.dcm": b"\x00" * 128 + b"DICM" + b"patient one " * 30_000, b"b.dcm": b"patient two " * 100}
MODE, MTIME_NS = 0o640, 1_500_000_000_123_456_789
pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which injects the faults"),
    pytest.mark.slow,
]


def prepare(base: Path, act: str) -> None:
    for name in ("tree/ward", "store", "journal"):
        (base / name).mkdir(parents=True)
    for name, content in CONTENT.items():
        path = base / "tree/ward" / os.fsdecode(name)
        path.write_bytes(content)
        path.chmod(MODE)
        with contextlib.suppress(OSError):
            os.setxattr(path, b"user.patient", b"4711")
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
    before = {"open": "seal", "rewrap": "seal", "restore": "quarantine"}.get(act)
    if before:
        with fault_worker.keyring() as ring:
            fault_worker.prepared(before, str(base), ring)()


def faults(calls: list[Fault]) -> Iterator[Fault]:
    for one in calls:
        yield Fault(one.call, one.when, "KILL")
        yield Fault(one.call, one.when, "EIO")
        if one.call in WRITES:
            yield Fault(one.call, one.when, "ENOSPC")


def plain_copies(base: Path, name: bytes) -> list[Path]:
    content = CONTENT[name]
    everything = [p for p in base.rglob("*") if p.is_file() and "journal" not in p.parts]
    return [p for p in everything if p.stat().st_size == len(content) and p.read_bytes() == content]


def sealed_copies(base: Path, ring: native.Keyring) -> dict[bytes, list[Path]]:
    """Whole sealed files by the name of their original."""
    found: dict[bytes, list[Path]] = {name: [] for name in CONTENT}
    for path in base.rglob("*"):
        if not path.is_file() or "journal" in path.parts:
            continue
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            name = native.metadata(fd, os.fsencode(path.name), ring).path
            memory = os.memfd_create("out")
            native.open_stream(fd, os.fsencode(path.name), ring, memory)
            if os.pread(memory, 1 << 20, 0) == CONTENT[name.split(b"/")[-1]]:
                found[name.split(b"/")[-1]].append(path)
            os.close(memory)
        except ShieldError:
            continue
        finally:
            os.close(fd)
    return found


def check(base: Path, act: str, fault: Fault, outcome: str) -> None:
    where = f"{act} with {fault.what} at {fault.call} #{fault.when} ({outcome})"
    assert outcome in ("killed", "done") or outcome in CODES, where
    assert outcome != "native.panic", where
    assert (outcome == "killed") == (fault.what == "KILL"), where
    roots = {bytes(base / d): os.open(base / d, os.O_RDONLY) for d in ("tree", "store")}
    fd = os.open(base / "journal", os.O_RDONLY)
    with fault_worker.keyring(newest=2) as ring, native.Journal(fd) as journal:
        sealed = sealed_copies(base, ring)
        for name in CONTENT:
            assert sealed[name] or plain_copies(base, name), f"{name!r} lost: {where}"
        journal.recover(roots, ring)
        assert journal.recover(roots, ring) == [], where
        assert not list((base / "journal").iterdir()), where
        sealed = sealed_copies(base, ring)
        for name in CONTENT:
            plain = plain_copies(base, name)
            assert len(plain) + len(sealed[name]) == 1, f"{name!r} is {plain} and {sealed[name]}: {where}"
            for path in plain:
                assert path.name == os.fsdecode(name), where
                assert path.stat().st_mode & 0o7777 == MODE, where
                assert path.stat().st_mtime_ns == MTIME_NS, where
        stray = list(base.rglob(".shieldd-*"))
        assert not stray, f"{stray}: {where}"
        if outcome == "done" and act in ("seal", "quarantine", "many"):
            assert sealed[b"a.dcm"], where
        if outcome == "done" and act in ("open", "restore"):
            assert not sealed[b"a.dcm"], where
    for opened in (fd, *roots.values()):
        os.close(opened)


@pytest.fixture(scope="module")
def free() -> Iterator[queue.SimpleQueue[Worker]]:
    with workers("tests.envelope.fault_worker") as made:
        yield made


@pytest.mark.parametrize("act", ACTS)
def test_nothing_is_lost_whatever_fails(tmp_path: Path, act: str, free: queue.SimpleQueue[Worker]) -> None:
    prepare(tmp_path / "trace", act)
    worker = free.get()
    calls = worker.calls(tmp_path / "trace", act, CALLS)
    free.put(worker)

    def one(number: int, fault: Fault) -> None:
        base = tmp_path / str(number)
        prepare(base, act)
        worker = free.get()
        outcome = worker.cut_off(base, act, fault)
        free.put(worker)
        check(base, act, fault, outcome)
        shutil.rmtree(base)

    every = sorted(set(faults(calls)))
    assert len({fault.call for fault in every}) >= 5
    at_each(every, one)
