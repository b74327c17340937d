"""Sealed files: speed and memory beside age, gpg, openssl and cp.

Everything lies on one file system, page cache warm, the programs take turns; a value is the median of its turns.

Why the ratios of many small files swing: this file system has no journal, and without one it looks at every inode that
was removed within the last minute before it takes a free one, which makes `cp` fast or slow by a factor of five from
one run to the next and costs ours a fifth of its time (its originals go while it works). age does not flush at all,
while every sealed file is on the disk before its original goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shieldd.native import envelope as native

BIG = 1 << 30
ROUNDS = 5
FILES, FILE_BYTES = 10_000, 100 * 1024
COMMAND = "python -m bench envelope --print"
OPTIONS = native.SealOptions(native.Purpose.FILES, "bench", b"bench", durable=False)
DURABLE = native.SealOptions(native.Purpose.FILES, "bench", b"bench")


@dataclass
class Place:
    """Scratch directory with keys and a journal."""

    base: Path
    ring: native.Keyring
    journal: native.Journal

    def fd(self, name: str) -> int:
        (self.base / name).mkdir(exist_ok=True)
        return os.open(self.base / name, os.O_RDONLY)


@contextlib.contextmanager
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="shieldd-bench-", dir=os.environ.get("SHIELD_BENCH_DIR")) as text:
        base = Path(text)
        (base / "journal").mkdir()
        fd = os.open(base / "journal", os.O_RDONLY)
        with native.Keyring() as ring, native.Journal(fd) as journal:
            add_key(ring, 1)
            yield Place(base, ring, journal)
        os.close(fd)


def add_key(ring: native.Keyring, version: int) -> None:
    ring.add(key_id=b"bench-key-000001", version=version, purpose=native.Purpose.FILES,
             key=bytearray([version] * 32), seals=True)  # fmt: skip


def timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def shell(*command: str | Path, **options: Any) -> None:
    subprocess.run(
        [str(c) for c in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    )


def random_file(path: Path, size: int) -> None:
    with path.open("wb") as out:
        for _ in range(0, size, 1 << 24):
            out.write(os.urandom(min(size, 1 << 24)))


def take_turns(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median seconds of each, one after the other, round by round."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(run())
    return {name: statistics.median(values) for name, values in taken.items()}


def row(what: str, value: float, unit: str, peer: str, ratio: float, target: str, met: bool | None) -> dict[str, Any]:
    return {"what": what, "value": round(value, 3), "unit": unit, "peer": peer, "ratio": round(ratio, 3),
            "target": target, "met": met, "command": COMMAND}  # fmt: skip


def compare(
    what: str, ours: float, peers: dict[str, float], targets: dict[str, float], scale: float, unit: str
) -> Iterable[dict[str, Any]]:
    for peer, seconds in peers.items():
        ratio, least = seconds / ours, targets.get(peer)
        target = f">= {least} x {peer}" if least else "-"
        yield row(
            what,
            scale / ours,
            unit,
            f"{peer}: {scale / seconds:.0f} {unit}",
            ratio,
            target,
            ratio >= least if least else None,
        )


class Tools:
    """age, gpg and openssl with keys of their own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        done = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True)
        (base / "age.key").write_text(done.stdout)
        self.recipient = next(line.split()[-1] for line in done.stdout.splitlines() if "public key" in line)
        self.gpg = ["gpg", "--homedir", str(base / "gpg"), "--batch", "--yes", "--pinentry-mode", "loopback",
                    "--passphrase", "bench", "--compress-algo", "none", "--cipher-algo", "AES256"]  # fmt: skip
        (base / "gpg").mkdir(mode=0o700)
        self.openssl = ["openssl", "enc", "-aes-256-ctr", "-K", "00" * 32, "-iv", "00" * 16]

    def seal(self, source: Path, out: Path) -> dict[str, Callable[[], float]]:
        def run(*command: str | Path) -> Callable[[], float]:
            def once() -> float:
                out.unlink(missing_ok=True)
                return timed(lambda: shell(*command))

            return once

        runs = {"cp": run("cp", "--reflink=never", source, out)}
        if shutil.which("age"):
            runs["age"] = run("age", "-r", self.recipient, "-o", out, source)
        runs["openssl aes-256-ctr"] = run(*self.openssl, "-in", source, "-out", out)
        if shutil.which("gpg"):
            runs["gpg"] = run(*self.gpg, "-o", out, "-c", source)
        return runs

    def open(self, source: Path, out: Path) -> dict[str, Callable[[], float]]:
        made = {"age": self.base / "x.age", "openssl aes-256-ctr": self.base / "x.ctr", "gpg": self.base / "x.gpg"}
        shell("age", "-r", self.recipient, "-o", made["age"], source)
        shell(*self.openssl, "-in", source, "-out", made["openssl aes-256-ctr"])
        shell(*self.gpg, "-o", made["gpg"], "-c", source)
        commands: dict[str, list[str | Path]] = {
            "age": ["age", "-d", "-i", self.base / "age.key", "-o", out, made["age"]],
            "openssl aes-256-ctr": [*self.openssl, "-d", "-in", made["openssl aes-256-ctr"], "-out", out],
            "gpg": [*self.gpg, "-o", out, "-d", made["gpg"]],
        }

        def run(command: list[str | Path]) -> Callable[[], float]:
            def once() -> float:
                out.unlink(missing_ok=True)
                return timed(lambda: shell(*command))

            return once

        return {name: run(command) for name, command in commands.items()}


def one_large_file(p: Place) -> Iterable[dict[str, Any]]:
    """Seal and open 1 GiB; no fsync on any side, original and sealed file kept, so that each round does the same."""
    root, tools = p.fd("big"), Tools(p.base)
    source, out = p.base / "big" / "scan", p.base / "out"
    random_file(source, BIG)
    keep = native.SealOptions(native.Purpose.FILES, "bench", b"bench", durable=False, keep_original=True)

    def seal() -> float:
        source.with_name("scan.shield").unlink(missing_ok=True)
        return timed(lambda: native.seal(root, b"scan", p.ring, p.journal, keep))

    taken = take_turns({"ours": seal, **tools.seal(source, out)}, ROUNDS)
    ours = taken.pop("ours")
    yield from compare("seal 1 GiB", ours, taken, {"age": 3.0, "cp": 0.8}, BIG / 1e6, "MB/s")
    out.unlink(missing_ok=True)
    name = b"scan.shield"
    to = p.fd("back")

    def open_again() -> float:
        (p.base / "back" / "scan").unlink(missing_ok=True)
        return timed(lambda: native.open_sealed(
            root, name, p.ring, p.journal, to_fd=to, keep_sealed=True, durable=False))  # fmt: skip

    taken = take_turns({"ours": open_again, **tools.open(source, out)}, ROUNDS)
    ours = taken.pop("ours")
    yield from compare("open 1 GiB", ours, taken, {"age": 3.5}, BIG / 1e6, "MB/s")
    yield peak_memory(p)
    for left in (source, out, p.base / "back" / "scan", *p.base.glob("x.*")):
        left.unlink(missing_ok=True)


def peak_memory(p: Place) -> dict[str, Any]:
    """Growth of the resident peak of a fresh process that seals 1 GiB."""
    (p.base / "big" / "scan.shield").unlink(missing_ok=True)
    code = f"""
import os
from bench.envelope import Place, add_key, native
ring = native.Keyring(); add_key(ring, 1)
root, j = os.open({str(p.base / "big")!r}, 0), os.open({str(p.base / "journal")!r}, 0)
journal = native.Journal(j)
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before = peak()
options = native.SealOptions(native.Purpose.FILES, "bench", b"bench", durable=False, keep_original=True)
native.seal(root, b"scan", ring, journal, options)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mib = int(done.stdout) / 1024
    return row("peak memory sealing 1 GiB, over idle", mib, "MiB", "limit: 64 MiB", mib / 64, "<= 64 MiB", mib <= 64)


def make_tree(tree: Path) -> list[bytes]:
    shutil.rmtree(tree, ignore_errors=True)
    names = []
    block = os.urandom(FILE_BYTES + FILES)
    for i in range(FILES):
        name = f"d{i % 100}/f{i}"
        if i < 100:
            (tree / f"d{i}").mkdir(parents=True)
        (tree / name).write_bytes(block[i : i + FILE_BYTES])
        names.append(name.encode())
    os.sync()
    return names


def many_small_files(p: Place) -> Iterable[dict[str, Any]]:
    """10,000 files of 100 KiB, each durable before its original goes; peers: cp and age without durability."""
    tree, copy = p.base / "many", p.base / "copy"

    def ours() -> float:
        names = make_tree(tree)
        root = os.open(tree, os.O_RDONLY)
        seconds = timed(lambda: native.seal_many(root, names, p.ring, p.journal, DURABLE))
        os.close(root)
        return seconds

    def cp() -> float:
        make_tree(tree)
        shutil.rmtree(copy, ignore_errors=True)
        os.sync()
        return timed(lambda: shell("cp", "-r", tree, copy))

    def aesgcm() -> float:
        names = make_tree(tree)
        return timed(lambda: python_aesgcm(tree, names))

    (p.base / "agekeys").mkdir()
    tools = Tools(p.base / "agekeys")

    def age() -> float:
        shutil.rmtree(copy, ignore_errors=True)
        make_tree(tree)
        encrypt = f"age -r {tools.recipient} -o {{}}.age {{}}"
        command = f"find {tree} -type f -print0 | head -z -n 1000 | xargs -0 -P2 -I{{}} {encrypt}"
        return timed(lambda: shell("sh", "-c", command)) * FILES / 1000

    taken = take_turns({"ours": ours, "cp -r": cp, "AESGCM + fsync each": aesgcm}, ROUNDS)
    taken |= take_turns({"age | xargs -P2": age}, 3)
    mine = taken.pop("ours")
    targets = {"cp -r": 0.35, "age | xargs -P2": 10.0}
    yield from compare("seal 10,000 x 100 KiB, durable", mine, taken, targets, FILES, "files/s")
    shutil.rmtree(tree)
    shutil.rmtree(copy, ignore_errors=True)


def python_aesgcm(tree: Path, names: list[bytes]) -> None:
    """What a careful script does: encrypt, fsync, rename, fsync the directory."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = AESGCM(bytes(32))
    for name in names:
        path = tree / os.fsdecode(name)
        new = path.with_suffix(".tmp")
        nonce = os.urandom(12)
        with new.open("wb") as out:
            out.write(nonce + key.encrypt(nonce, path.read_bytes(), None))
            out.flush()
            os.fsync(out.fileno())
        new.rename(path.with_suffix(".enc"))
        fd = os.open(path.parent, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        path.unlink()


def rewrapping(p: Place) -> Iterable[dict[str, Any]]:
    """Header-only key change of 4,000 small files, and of 64 files of 16 MiB: files/s must not depend on the size."""
    tree = p.base / "rewrap"
    tree.mkdir()
    root = os.open(tree, os.O_RDONLY)
    for i in range(4000):
        (tree / f"f{i}").write_bytes(b"x" * 1000)
    block = os.urandom(16 << 20)
    for i in range(64):
        (tree / f"g{i}").write_bytes(block)
    names = [f"f{i}".encode() for i in range(4000)], [f"g{i}".encode() for i in range(64)]
    sealed = [
        [s.path for s in native.seal_many(root, some, p.ring, p.journal, DURABLE) if isinstance(s, native.Sealed)]
        for some in names
    ]
    os.sync()
    version = 1

    def run(paths: list[bytes]) -> Callable[[], float]:
        def once() -> float:
            nonlocal version
            version += 1
            add_key(p.ring, version)
            return timed(lambda: native.rewrap_many(root, paths, p.ring, native.Purpose.FILES)) / len(paths)

        return once

    taken = take_turns({"small": run(sealed[0]), "few": run(sealed[0][:64]), "large": run(sealed[1])}, ROUNDS)
    rate = 1 / taken["small"]
    yield row(
        "keys rewrap, durable", rate, "files/s", "target: 2000 files/s", rate / 2000, ">= 2000 files/s", rate >= 2000
    )
    rate = 1 / taken["large"]
    peer = f"64 files of 1 KB: {1 / taken['few']:.0f} files/s"
    ratio = taken["few"] / taken["large"]
    yield row("keys rewrap of 64 files of 16 MiB", rate, "files/s", peer, ratio, ">= 2000 files/s", rate >= 2000)
    os.close(root)


PARTS = {"large": one_large_file, "many": many_small_files, "rewrap": rewrapping}


def rows(parts: Iterable[str] = tuple(PARTS)) -> Iterable[dict[str, Any]]:
    """Rows for BENCHMARKS.md, in the order in which they are measured."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for part in parts:
        with place() as p:
            yield from PARTS[part](p)


if __name__ == "__main__":
    for one in rows(sys.argv[1:] or tuple(PARTS)):
        print(json.dumps(one), flush=True)
