"""A ground of its own for each daemon: short paths, open to all, gone at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .running import Running


@pytest.fixture
def ground() -> Iterator[Path]:
    """A directory with mode 0755: pytest's own are closed to others, and exposure is one of the things under test."""
    path = Path(tempfile.mkdtemp(prefix="shield-e2e-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(ground: Path) -> Iterator[Running]:
    """A running daemon; it has to stop cleanly at the end unless the test ended it."""
    running = Running(ground).start()
    yield running
    assert running.process is not None
    if running.process.poll() is None:
        assert running.stop() == 0, running.log.read_text()[-2000:]
