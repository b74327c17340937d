"""What a hospital's hosts do all day, by the real programs: nothing is sealed, quarantined or contained."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shieldctl.drill.corpus import lay_out
from shieldctl.drill.tree import ScratchTree

from .running import Running, needs, until

FILES = 120


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files outside the guarded tree, to work from."""
    return lay_out_in(tmp_path_factory.mktemp("hospital"), 21)


def lay_out_in(parent: Path, seed: int) -> Path:
    tree = ScratchTree.make(parent)
    lay_out(tree, FILES, seed)
    tree.close()
    return tree.path


def run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([os.fspath(part) for part in command], check=True, capture_output=True, cwd=cwd, timeout=120)


def copy(source: Path, tree: Path) -> None:
    run("cp", "-r", source, tree / "copy")


def synchronise(source: Path, tree: Path) -> None:
    run("rsync", "-a", f"{source}/", f"{tree}/synced/")
    run("rsync", "-a", "--checksum", f"{source}/", f"{tree}/synced/")


def unpack(source: Path, tree: Path) -> None:
    archive = source.parent / "all.tar"
    with tarfile.open(archive, "w") as out:
        out.add(source, "all")
    run("tar", "xf", archive, "-C", tree)


def compress_and_keep(source: Path, tree: Path) -> None:
    shutil.copytree(source, tree / "logs")
    for path in sorted((tree / "logs").rglob("*.csv")) + sorted((tree / "logs").rglob("*.hl7")):
        run("gzip", "-kf", path)  # without -f it leaves alone what has a second name, and the vault's link is one


def rotate(source: Path, tree: Path) -> None:
    for number in range(8):
        (tree / f"app.log.{number}").write_text(f"line {number}\n" * 4000)
    for number in range(7, -1, -1):
        (tree / f"app.log.{number}").rename(tree / f"app.log.{number + 1}")
    run("gzip", "-f", tree / "app.log.8")


def commit(source: Path, tree: Path) -> None:
    repo = tree / "repo"
    run("git", "init", "-q", repo)
    shutil.copytree(source / "notes", repo / "notes")
    identity = ("-c", "user.name=drill", "-c", "user.email=drill@localhost")
    for message in ("first", "second"):
        (repo / "README").write_text(message)
        run("git", "add", "-A", cwd=repo)
        run("git", *identity, "commit", "-qm", message, cwd=repo)
    run("git", "gc", "-q", cwd=repo)


def insert(source: Path, tree: Path) -> None:
    with sqlite3.connect(tree / "registry.sqlite") as database:
        database.execute("create table visit (id integer primary key, ward text, at text)")
        for number in range(60):
            database.execute(
                "insert into visit (ward, at) values (?, ?)", (f"ward {number % 7}", f"2025-03-{number % 28}")
            )
            database.commit()
        database.execute("delete from visit where id % 3 = 0")
        database.commit()
        database.execute("vacuum")
    database.close()


def receive(source: Path, tree: Path) -> None:
    """A modality sends its images to a store (dcmtk's storescp and storescu)."""
    archive = tree / "pacs"
    archive.mkdir()
    port = str(11_100 + os.getpid() % 2000)
    images = [str(path) for path in sorted(source.rglob("*.dcm"))]
    with subprocess.Popen(["storescp", "-od", archive, port], stderr=subprocess.DEVNULL) as store:
        try:
            until("the store to take images", lambda: _send(port, images), 30)
        finally:
            store.terminate()
    assert len(list(archive.iterdir())) == len(images)


def _send(port: str, images: list[str]) -> bool:
    return subprocess.run(["storescu", "localhost", port, *images], capture_output=True, timeout=60).returncode == 0


def edit(source: Path, tree: Path) -> None:
    """Editors write beside and rename over."""
    shutil.copytree(source / "notes", tree / "notes")
    for path in sorted((tree / "notes").rglob("*.txt")):
        beside = path.with_name(f".{path.name}.swp")
        beside.write_text(path.read_text() + "\nSeen and agreed.\n")
        beside.replace(path)


WORK: list[tuple[Callable[[Path, Path], None], tuple[str, ...]]] = [
    (copy, ("cp",)),
    (synchronise, ("rsync",)),
    (unpack, ("tar",)),
    (compress_and_keep, ("gzip",)),
    (rotate, ("gzip",)),
    (commit, ("git",)),
    (insert, ()),
    (receive, ("storescp", "storescu")),
    (edit, ()),
]


@pytest.mark.parametrize(("work", "programs"), WORK, ids=[work.__name__ for work, _ in WORK])
def test_it_is_left_alone(
    daemon: Running, hospital: Path, work: Callable[[Path, Path], None], programs: tuple[str, ...]
) -> None:
    if reason := needs(*programs):
        pytest.skip(reason)
    started = time.monotonic()
    work(hospital, daemon.tree)
    daemon.fence()
    assert daemon.quarantined() == []
    assert daemon.sealed() == []
    assert daemon.contained() == []
    assert [action for action in daemon.actions() if action["outcome"] != "skipped"] == []
    assert daemon.client.get("/v1/status")["watch"]["lost"] == 0
    assert time.monotonic() - started < 120
