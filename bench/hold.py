"""Holding: what an open(2) costs while writers are held, beside the same open on the same file system unguarded.

The file system is an ext4 on a loop device whose image lies in memory; tree, vault and what is outside lie on it. Each
round measures all kinds of open without a hold, beside a bare C program that allows every open at once (that is the
kernel's round trip), with a hold that sees opens, and with one that also sees ranges. Only open(2) itself is timed, in
a C program; the vault is emptied by making the file system anew for each round.

Why an open in scope costs more than 8 µs: the kernel's round trip to a C program that allows every open at once is
itself 10 µs over the unguarded open here (45 µs where the machine is wholly at rest and a core has to be woken, for
both); ours adds 2 µs to that. The copy of 8 KiB, made while the writer waits, takes 37 µs by itself (see `vault`).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from shieldd.hold import Hold
from shieldd.model.held import HoldOptions
from shieldd.native.hold import HoldTree

HERE: Final = Path(__file__).resolve().parent
FILES: Final = 2000
READS: Final = 20_000
ROUNDS: Final = 7
SIZE: Final = 8192
COMMAND: Final = "python -m bench hold"
KINDS: Final = {"read-only, in scope": 8.0, "read-only, out of scope": 1.0, "for writing, 8 KiB preserved": 30.0}

Row = dict[str, Any]


@contextmanager
def _file_system(where: Path) -> Iterator[Path]:
    image, at = where / "image", where / "own"
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", image], check=True, capture_output=True)
    at.mkdir()
    subprocess.run(["mount", "-o", "loop", image, at], check=True)
    try:
        if at.stat().st_dev == Path("/").stat().st_dev:
            raise RuntimeError("this is the root file system: a permission mark on it can freeze the machine")
        for name in ("tree", "outside"):
            for i in range(FILES):
                path = at / name / f"d{i % 50}" / f"f{i}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(os.urandom(SIZE))
        (at / ".shieldd-vault").mkdir(mode=0o700)
        yield at
    finally:
        subprocess.run(["umount", at], check=True)
        at.rmdir()
        image.unlink()


@contextmanager
def _held(at: Path, *, ranges: bool) -> Iterator[Hold]:
    fds = [os.open(at / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("tree", ".shieldd-vault")]
    hold = Hold(
        [HoldTree(os.fsencode(at / "tree"), fds[0], 0)], fds[1:],
        records=lambda _: None, trouble=lambda *_: None, options=HoldOptions(ranges=ranges),
    )  # fmt: skip
    try:
        if not hold.start():
            raise RuntimeError(hold.status().reason)
        yield hold
    finally:
        hold.stop()
        for fd in fds:
            os.close(fd)


@contextmanager
def _allowed(where: Path, at: Path) -> Iterator[None]:
    """Every open allowed at once by a C program."""
    peer = subprocess.Popen([where / "allow", at], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert peer.stdin
        assert peer.stdout
        if peer.stdout.readline() != "ready\n":
            raise RuntimeError("the kernel lets nobody hold an open here")
        yield
    finally:
        peer.kill()
        peer.wait()


@contextmanager
def _guard(where: Path, at: Path, way: str) -> Iterator[None]:
    if way == "unguarded":
        yield
    elif way == "allowed by C":
        with _allowed(where, at):
            yield
    else:
        with _held(at, ranges="ranges" in way) as hold:
            yield
            counts = hold.status().counts
            if counts.preserved < FILES:
                raise RuntimeError(f"not all were preserved: {counts}")


def _opens(where: Path, at: Path, kind: str) -> float:
    """Median of one open, µs."""
    name = "outside" if "out of" in kind else "tree"
    files = sorted((at / name).glob("*/*"))
    mode, count = ("w", FILES) if "writing" in kind else ("r", READS)
    command = [where / "opens", mode, str(count), *files]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0]) / 1000


def rows() -> Iterable[Row]:
    """The measurements; none where this is not root."""
    if os.geteuid() != 0:
        return
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    ways = ("unguarded", "allowed by C", "opens", "opens and ranges")
    took: dict[tuple[str, str], list[float]] = {(way, kind): [] for way in ways for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="shieldd-bench-", dir=memory) as name:
        where = Path(name)
        for program in ("opens", "allow"):
            source = HERE / "peers" / f"{program}.c"
            subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", where / program, source], check=True)
        for _ in range(ROUNDS):
            for way in ways:
                with _file_system(where) as at, _guard(where, at, way):
                    for kind in KINDS:
                        took[way, kind].append(_opens(where, at, kind))
    for kind, limit in KINDS.items():
        bare = statistics.median(took["unguarded", kind])
        by_c = statistics.median(took["allowed by C", kind])
        for way in ways[2:]:
            here = statistics.median(took[way, kind])
            target = f"<= {limit:g} µs over the unguarded"
            yield {
                "what": f"open(2) {kind}: over the unguarded open, hold on {way}", "value": round(here - bare, 2),
                "unit": "µs", "peer": f"unguarded {bare:.2f} µs, allowed at once by C {by_c:.2f} µs",
                "ratio": round(here / by_c, 2),
                "target": target, "met": here - bare <= limit, "command": COMMAND,
            }  # fmt: skip
