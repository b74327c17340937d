"""File systems of a test's own, with a tree and a vault on each."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shieldd.model.version import Version
from shieldd.native.preserve import Vault, VaultOptions, make

#: name -> (command that makes it, size of the image in bytes)
KINDS: dict[str, tuple[list[str], int]] = {
    "ext4": (["mkfs.ext4", "-q", "-F"], 64 << 20),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], 128 << 20),
    "xfs": (["mkfs.xfs", "-q", "-f"], 320 << 20),
    "vfat": (["mkfs.vfat"], 32 << 20),
}
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
ACTOR = 1 << 63 | 7
Mount = Callable[..., Path]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PATH": PATH}
    return subprocess.run([str(x) for x in command], capture_output=True, text=True, env=env, check=False)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a new file system: `mount("ext4")`, `mount("tmpfs", "size=4m")`. Skips what this machine has not."""
    mounted: list[Path] = []

    def new(kind: str, options: str = "") -> Path:
        if os.geteuid() != 0:
            pytest.skip("needs root: a file system of its own")
        at = tmp_path / f"{kind}-{len(mounted)}"
        at.mkdir()
        if kind == "tmpfs":
            done = run("mount", "-t", "tmpfs", "-o", options or "size=64m", "tmpfs", at)
        else:
            command, size = KINDS[kind]
            if shutil.which(command[0], path=PATH) is None:
                pytest.skip(f"no {command[0]} here: not tested on {kind}")
            image = tmp_path / f"{kind}-{len(mounted)}.img"
            with image.open("wb") as file:
                file.truncate(size)
            assert run(*command, image).returncode == 0
            done = run("mount", "-o", f"loop,{options}".rstrip(","), image, at)
        if done.returncode != 0:
            pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
        assert os.stat(at).st_dev != os.stat("/").st_dev
        mounted.append(at)
        return at

    yield new
    for at in reversed(mounted):
        if run("umount", at).returncode != 0:
            run("umount", "-l", at)


@dataclass
class Bench:
    """A tree and its vault."""

    base: Path
    options: VaultOptions = field(default_factory=VaultOptions)

    def __post_init__(self) -> None:
        self.tree = self.base / "tree"
        self.tree.mkdir(exist_ok=True)
        self.root = os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY)
        self.parent = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY)
        self.vault: Vault | None = None
        self.at_ns = time.time_ns()

    @property
    def place(self) -> Path:
        return self.base / ".shieldd-vault"

    @property
    def v(self) -> Vault:
        """The open vault, opened at the first use."""
        if self.vault is None:
            self.vault = self.open()
        return self.vault

    def open(self, **changes: object) -> Vault:
        fd = make(self.parent)
        try:
            known = {name: getattr(self.options, name) for name in VaultOptions.__slots__}
            known["trees"] = ((0, bytes(self.tree)),)
            return Vault(fd, VaultOptions(**known | changes))  # type: ignore[arg-type]
        finally:
            os.close(fd)

    def again(self, **changes: object) -> Vault:
        """Close the vault and open it anew, as after a restart."""
        if self.vault is not None:
            self.vault.close()
        self.vault = self.open(**changes)
        return self.vault

    def write(self, name: str, content: bytes) -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def image(self, name: str, actor: int = ACTOR, at_ns: int | None = None) -> int:
        fd = os.open(self.tree / name, os.O_RDONLY)
        try:
            self.at_ns += 1
            return self.v.image(fd, 0, name.encode(), actor=actor, at_ns=at_ns or self.at_ns)
        finally:
            os.close(fd)

    def link(self, *names: str, actor: int = 0, at_ns: int | None = None) -> list[int]:
        paths = [name.encode() for name in names]
        self.at_ns += 1
        answers = self.v.link_many(self.root, 0, paths, [actor] * len(paths), at_ns or self.at_ns)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if isinstance(answer, int)]

    def walk(self) -> int:
        """Link the whole tree; how many links that made."""
        walk = self.v.walk(self.root, 0)
        while not (progress := walk.step(100, time.time_ns())).done:
            continue
        walk.close()
        return progress.linked

    def of(self, name: str) -> list[Version]:
        return self.v.find(path=name.encode(), tree=0, standing=True)

    def content(self, version: Version | int) -> bytes:
        fd = self.v.open(version if isinstance(version, int) else version.id)
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def evict(self, **changes: int) -> object:
        policy = {"age_ns": 10**18, "bytes_max": 1 << 60, "versions_max": 10**6, "min_free": 0, "now_ns": self.later_ns}
        return self.v.evict(**policy | changes)

    @property
    def later_ns(self) -> int:
        """Two minutes from now: what was made in the test is old enough to be evicted."""
        return time.time_ns() + 120_000_000_000

    def close(self) -> None:
        if self.vault is not None:
            self.vault.close()
        os.close(self.root)
        os.close(self.parent)


@pytest.fixture
def on(mount: Mount) -> Iterator[Callable[..., Bench]]:
    """A bench on a new file system: `on("ext4")`."""
    made: list[Bench] = []

    def new(kind: str = "tmpfs", options: str = "") -> Bench:
        made.append(Bench(mount(kind, options)))
        return made[-1]

    yield new
    for one in made:
        one.close()
