"""File systems of a test's own, and a hold on one of them that always ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shieldd.hold import Hold
from shieldd.model.held import HeldKind, HeldOpen, HoldOptions
from shieldd.native.hold import HoldTree

WAIT_S = 20.0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the large crowds out where they are not asked for."""
    if "soak" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="ten thousand openers take minutes: pytest -m soak tests/hold"))


def wait_for(condition: Callable[[], object], what: str, within_s: float = WAIT_S) -> None:
    """Wait until something is so."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.005)


def refuse_root(path: Path) -> Path:
    """A permission mark on the root's file system can freeze the machine: no test puts one there."""
    device = path.stat().st_dev
    assert device != Path("/").stat().st_dev, "this is the root file system"
    assert all(device != Path(p).stat().st_dev for p in ("/tmp", "/proc", "/dev")), "this is the machine's"
    return path


@contextmanager
def mounted(at: Path, *arguments: str) -> Iterator[Path]:
    """A file system of its own, mounted at a new directory; detached whatever happens."""
    at.mkdir()
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield refuse_root(at)
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False)


@contextmanager
def loop_ext4(where: Path, name: str, size_mib: int = 256) -> Iterator[Path]:
    """An ext4 of its own on a loop device."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image = where / f"{name}.img"
    with open(image, "wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", str(image)], check=True, capture_output=True)
    with mounted(where / name, "-o", "loop", str(image)) as at:
        yield at


@dataclass
class Held:
    """A hold under test: its tree, its vault, and what it told."""

    hold: Hold
    top: Path
    tree: Path
    vault: Path
    seen: list[HeldOpen] = field(default_factory=list)
    troubles: list[str | None] = field(default_factory=list)

    def file(self, name: str, content: bytes = b"before") -> Path:
        """A file in the tree; ours, so not held."""
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def about(self, name: str, kind: HeldKind = HeldKind.OPEN) -> HeldOpen:
        """The last record of a file."""
        wait_for(lambda: self._found(name, kind), f"a record of {name}")
        return self._found(name, kind)[-1]

    def _found(self, name: str, kind: HeldKind) -> list[HeldOpen]:
        return [one for one in self.seen if one.path == os.fsencode(name) and one.kind == kind]


@contextmanager
def holding(
    top: Path,
    *,
    vault: Path | None = None,
    options: HoldOptions | None = None,
    exclude: Sequence[bytes] = (),
    state: Path | None = None,
) -> Iterator[Held]:
    """A hold over `top/tree`, its vault at `top/.shieldd-vault` or where it is said."""
    refuse_root(top)
    tree, vault = top / "tree", vault or top / ".shieldd-vault"
    tree.mkdir(exist_ok=True)
    vault.mkdir(mode=0o700, exist_ok=True)
    fds = [os.open(p, os.O_RDONLY | os.O_DIRECTORY) for p in (tree, vault, *([state] if state else []))]
    seen: list[HeldOpen] = []
    troubles: list[str | None] = []
    hold = Hold(
        [HoldTree(os.fsencode(tree), fds[0], 0, exclude)],
        [fds[1]],
        records=seen.extend,
        trouble=lambda _, text: troubles.append(text),
        options=options,
        state_fd=fds[2] if state else None,
    )
    try:
        assert hold.start(), hold.status()
        yield Held(hold, top, tree, vault, seen, troubles)
    finally:
        hold.stop()
        for fd in fds:
            os.close(fd)
        assert not hold.pids()


@pytest.fixture
def own_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of the test's own."""
    with mounted(tmp_path / "own", "-t", "tmpfs", "-o", "size=512m,mode=0755", "tmpfs") as at:
        yield at


@pytest.fixture
def own_ext4(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of the test's own."""
    with loop_ext4(tmp_path, "own") as at:
        yield at


@pytest.fixture
def held(own_tmpfs: Path) -> Iterator[Held]:
    """A hold on a tmpfs."""
    with holding(own_tmpfs) as one:
        yield one


@pytest.fixture
def held_ext4(own_ext4: Path) -> Iterator[Held]:
    """A hold on an ext4, where ranges are seen."""
    with holding(own_ext4) as one:
        yield one
