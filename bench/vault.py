"""Preserved versions: what it costs to keep one, and how fast 5,000 files come back.

Copies and links are measured beside bare programs on the same file system in the same round, an ext4 on a loop device
whose image lies in memory. A restore is that of the real daemon in service mode, of an incident that it only watched
(`mode = "observe"`), asked for through its API: plan, files, and the digest of each that it wrote; the tree is then
compared with what it was, byte for byte with modes, owners, times and attributes, outside of the time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.suite.ground import Ground, own_disk, until
from shieldctl.drill.corpus import build
from shieldd.native.kept import VaultOptions
from shieldd.native.preserve import Vault, make

COMMAND: Final = "python -m bench vault"
ROUNDS: Final = 5
IMAGES: Final = 5_000
LINKS: Final = 100_000
STEP: Final = 4096
FILES: Final = 5_000
RESTORES: Final = 3
SIZE: Final = 8192

Row = dict[str, Any]
State = dict[str, tuple[object, ...]]

#: what destroys all files below the working directory
_DELETED: Final = "rm -rf ./*"
_IN_PLACE: Final = r"""exec python3 -c '
import os
for top, _, names in os.walk("."):
    for name in names:
        path = os.path.join(top, name)
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            file.write(os.urandom(size))
        os.rename(path, path + ".locked")
'"""


def _row(what: str, value: float, unit: str, **rest: Any) -> Row:
    base: Row = {"peer": None, "ratio": None, "target": None, "met": None, "command": COMMAND}
    return {"what": what, "value": value, "unit": unit, **base, **rest}


def imaged(disk: Path) -> tuple[float, float]:
    """µs for the image of one file of 8 KiB, and for its copy by open, copy_file_range and close."""
    tree, plain = disk / "tree", disk / "plain"
    tree.mkdir()
    plain.mkdir()
    paths = [f"f{i}" for i in range(IMAGES)]
    for path in paths:
        (tree / path).write_bytes(os.urandom(SIZE))
    parent, into = os.open(disk, os.O_RDONLY | os.O_DIRECTORY), os.open(plain, os.O_RDONLY | os.O_DIRECTORY)
    fds = [os.open(tree / path, os.O_RDONLY) for path in paths]
    directory = make(parent)
    vault = Vault(directory, VaultOptions(trees=((0, os.fsencode(tree)),)))
    try:
        names, now = [path.encode() for path in paths], time.time_ns()
        began = time.perf_counter()
        for fd, name in zip(fds, names, strict=True):
            vault.image(fd, 0, name, actor=7, at_ns=now)
        ours = time.perf_counter() - began
        if vault.status().made_images != IMAGES:
            raise RuntimeError(f"{vault.status()}")
        began = time.perf_counter()
        for fd, path in zip(fds, paths, strict=True):
            copy = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600, dir_fd=into)
            os.copy_file_range(fd, copy, SIZE, 0)
            os.close(copy)
        bare = time.perf_counter() - began
    finally:
        vault.close()
        for fd in (*fds, directory, parent, into):
            os.close(fd)
    return ours / IMAGES * 1e6, bare / IMAGES * 1e6


def linked(disk: Path, files: int) -> tuple[float, float]:
    """Seconds until every file of a tree has its link in the vault, and for `cp -al` of the same tree."""
    tree = disk / "links"
    for i in range(files // 100):
        folder = tree / f"{i // 100}" / f"{i % 100}"
        folder.mkdir(parents=True)
        for j in range(100):
            os.close(os.open(folder / f"f{j}", os.O_CREAT | os.O_WRONLY, 0o600))
    parent, root = (os.open(place, os.O_RDONLY | os.O_DIRECTORY) for place in (disk, tree))
    directory = make(parent, b".vault-links")
    vault = Vault(directory, VaultOptions(trees=((0, os.fsencode(tree)),)))
    try:
        began = time.perf_counter()
        walk = vault.walk(root, 0)
        now = time.time_ns()
        while not walk.step(STEP, now).done:
            pass
        vault.flush()
        ours = time.perf_counter() - began
        walk.close()
        if vault.status().made_links < files:
            raise RuntimeError(f"{vault.status()}")
    finally:
        vault.close()
        for fd in (directory, parent, root):
            os.close(fd)
    began = time.perf_counter()
    subprocess.run(["cp", "-al", tree, disk / "copy"], check=True)
    return ours, time.perf_counter() - began


def state(tree: Path) -> State:
    """All files: digest, mode, owner, times, attributes."""
    found: State = {}
    for path in sorted(tree.rglob("*")):
        stat = path.lstat()
        if path.is_file() and not path.name.startswith("fence-"):
            digest = hashlib.blake2b(path.read_bytes()).hexdigest()
            more = tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)))
            facts = (digest, stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns, more)
            found[os.fspath(path.relative_to(tree))] = facts
    return found


def _lay_out(source: Path) -> None:
    corpus = list(build(max(FILES // 5, 1), 5))
    for number in range(FILES):
        entry, data = corpus[number % len(corpus)]
        path = source / f"{number // len(corpus)}" / os.fsdecode(entry.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + b"%d" % number)  # no two are the same
        path.chmod((0o640, 0o600, 0o444)[number % 3])
        os.chown(path, 1000 + number % 7, 2000)
        if number % 5 == 0:
            os.setxattr(path, b"user.study", b"%d" % number)


def restored(source: Path, memory: Path, script: str) -> dict[str, float]:
    """One attack and one restore: seconds, files that are as they were, and seconds for `cp -a` of the same files."""
    with (
        tempfile.TemporaryDirectory(prefix="sb-") as name,
        own_disk(Path(name) / "disk", memory / "image", 16384) as disk,
    ):
        home = Path(name)
        home.chmod(0o755)
        ground = Ground(home, disk)
        ground.config.write_text(
            ground.config.read_text().replace("[[tree]]", '[[tree]]\nmode = "observe"\ncanaries = 0')
        )
        ward = ground.tree / "ward"
        began = time.perf_counter()
        subprocess.run(["cp", "-a", source, ward], check=True)
        copied = time.perf_counter() - began
        before = state(ward)
        ground.start()
        try:
            until("all files linked", lambda: _linked(ground))
            subprocess.run(["/bin/sh", "-c", script], cwd=ward, check=True, start_new_session=True)
            threat = _counted(ground)
            began = time.perf_counter()
            lines = list(ground.client.act("/v1/restore/run", {"id": threat["id"], "dry_run": False, "take": []}))
            took = time.perf_counter() - began
            after = state(ward)
        finally:
            ground.stop()
    wrong = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    if wrong:
        print(
            len(wrong),
            [(path, before.get(path), after.get(path)) for path in wrong[:5]],
            lines[:3],
            lines[-3:],
            file=sys.stderr,
        )
    return {"took": took, "copied": copied, "same": len(before) - sum(path in before for path in wrong),
            "more": sum(path not in before for path in wrong), "lost": threat["files_lost"]}  # fmt: skip


def _linked(ground: Ground) -> bool:
    (vault,) = ground.status()["preserve"]["vaults"]
    return not vault["linking"] and vault["files"] >= FILES


def _counted(ground: Ground) -> dict[str, Any]:
    """The incident, when it is known of each file whether it can come back; as it stands, where that never comes."""

    def touched() -> dict[str, Any] | None:
        return next((x for x in ground.threats() if x["files_touched"] >= FILES), None)

    def counted() -> bool:
        found = touched() or {"files_preserved": 0, "files_lost": 0}
        return bool(found["files_preserved"]) and found["files_preserved"] + found["files_lost"] >= FILES

    found = until("the incident", touched, 120)
    try:
        until("the count", counted, 20)
    except TimeoutError as error:
        print(error, file=sys.stderr)
    return touched() or found


def _kept_rows(memory: Path) -> Iterator[Row]:
    images, links = [], []
    for turn in range(ROUNDS):
        with own_disk(memory / "disk", memory / "image") as disk:
            images.append(imaged(disk))
            if turn < RESTORES:
                links.append(linked(disk, LINKS))
    ours, bare = (statistics.median(times) for times in zip(*images, strict=True))
    yield _row("image of a file of 8 KiB, called from Python", round(ours, 1), "µs",
               peer=f"open, copy, close {bare:.1f} µs", ratio=round(ours / bare, 2))  # fmt: skip
    ours, bare = (statistics.median(times) for times in zip(*links, strict=True))
    yield _row(f"links of all files of a tree, {LINKS:,} files, three runs", round(ours, 2), "s",
               peer=f"cp -al {bare:.2f} s", ratio=round(ours / bare, 2))  # fmt: skip


def _restore_rows(memory: Path) -> Iterator[Row]:
    source = memory / "source"
    source.mkdir()
    _lay_out(source)
    for what, script in (("deleted", _DELETED), ("overwritten in place and renamed", _IN_PLACE)):
        runs = [restored(source, memory, script) for _ in range(RESTORES)]
        took, copied = (statistics.median(run[key] for run in runs) for key in ("took", "copied"))
        same, more = min(run["same"] for run in runs), max(run["more"] for run in runs)
        rate = FILES / took
        yield _row(f"restore of {FILES:,} files that were {what}, with its plan and digests, three runs",
                   round(rate), "files/s",
                   peer=f"cp -a of the same files {FILES / copied:,.0f} files/s", ratio=round(copied / took, 2),
                   target="≥ 1,000 files/s", met=rate >= 1000)  # fmt: skip
        lost = max(run["lost"] for run in runs)
        yield _row(f"of {FILES:,} that were {what}: as they were, bytes and metadata", same, "files",
                   peer=f"lost {lost:.0f}, left of the attack {more:.0f}", target=f"{FILES:,}",
                   met=same == FILES and not more)  # fmt: skip


def rows() -> Iterator[Row]:
    """The measurements; none where this is not root."""
    if os.geteuid() != 0:
        return
    os.umask(0o022)
    memory = Path(tempfile.mkdtemp(prefix="shieldd-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        yield from _kept_rows(memory)
        yield from _restore_rows(memory)
    finally:
        shutil.rmtree(memory)
