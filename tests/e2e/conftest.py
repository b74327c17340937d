"""A ground of its own for each daemon: short paths, open to all, gone at the end.

A daemon takes a second of one core to start. The next test's is started while this one's is at work: each test has one
that nobody used before, and does not wait for it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .running import Running


def _ground() -> Path:
    """A directory with mode 0755: pytest's own are closed to others, and exposure is one of the things under test."""
    path = Path(tempfile.mkdtemp(prefix="shield-e2e-"))
    path.chmod(0o755)
    return path


class Starter:
    """Starts a daemon ahead of each that is asked for, while more will be."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._ahead: list[Future[Running]] = []

    def take(self, *, more: bool) -> Running:
        """A running daemon that nobody used; with `more` another one is begun."""
        taken = self._ahead.pop() if self._ahead else self._begin()
        if more:
            self._ahead.append(self._begin())
        return taken.result()

    def _begin(self) -> Future[Running]:
        return self._thread.submit(lambda: Running(_ground()).start())

    def close(self) -> None:
        """End what was started in vain."""
        for one in self._ahead:
            one.result().stop()
            shutil.rmtree(one.result().ground)
        self._thread.shutdown()


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    made = Starter()
    yield made
    made.close()


@pytest.fixture
def fresh(request: pytest.FixtureRequest, starter: Starter) -> Running | None:
    """What `daemon` gives; None for a test that starts its own."""
    if "daemon" not in request.fixturenames:
        return None
    items = request.session.items
    later = items[items.index(request.node) + 1 :]
    return starter.take(more=any("daemon" in getattr(item, "fixturenames", ()) for item in _of_here(later)))


def _of_here(items: list[pytest.Item]) -> list[pytest.Item]:
    return [item for item in items if item.path.parent == Path(__file__).parent]


@pytest.fixture
def ground(fresh: Running | None) -> Iterator[Path]:
    """A directory that everybody may enter, `daemon`'s where there is one."""
    path = _ground() if fresh is None else fresh.ground
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(fresh: Running, ground: Path) -> Iterator[Running]:
    """A running daemon; it has to stop cleanly at the end unless the test ended it."""
    yield fresh
    assert fresh.process is not None
    if fresh.process.poll() is None:
        assert fresh.stop() == 0, fresh.log.read_text()[-2000:]
