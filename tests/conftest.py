"""What every test may ask for: skipping by privilege and tools, a marked scratch tree."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Attack simulations act below a directory that holds this file, and nowhere else.
SCRATCH_MARK = ".shieldd-scratch"

_NEEDS_ROOT = "needs root: a file system, a namespace or an account of its own"
_NEEDS_BOOT = "needs root, systemd-nspawn and a bootable Debian root: boots a real systemd"


def _can_boot() -> bool:
    return os.geteuid() == 0 and shutil.which("systemd-nspawn") is not None and Path("/lib/systemd/systemd").exists()


def pytest_configure() -> None:
    """A shell's background job ignores the interrupt and hands that on; the programs under test must not inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips, with the reason, what this user or machine cannot run."""
    for item in items:
        if item.get_closest_marker("boot") and not _can_boot():
            item.add_marker(pytest.mark.skip(reason=_NEEDS_BOOT))
        elif item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason=_NEEDS_ROOT))


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The repository's top directory."""
    return ROOT


@pytest.fixture
def scratch_tree(tmp_path: Path) -> Path:
    """An empty directory that is marked as one that simulations may destroy."""
    tree = tmp_path / "scratch"
    tree.mkdir(mode=0o700)
    (tree / SCRATCH_MARK).write_text("made by a test; everything below may be destroyed\n")
    return tree


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built once for all tests that install it."""
    out = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [ROOT / "scripts/wheel", out],
        env=os.environ | {"VENV": sys.prefix},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("shieldd-*.whl"))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory with a short name: the path of a socket has room for 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="shieldd-") as name:
        yield Path(name)
