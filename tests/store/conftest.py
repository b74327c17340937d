"""A store in its own directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shieldd.store import Store
from tests.store.build import ROOTS


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "shieldd.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    with Store(database, roots=ROOTS) as opened:
        yield opened


@pytest.fixture
def reopen(database: Path) -> Iterator[Callable[[], Store]]:
    opened: list[Store] = []

    def again() -> Store:
        opened.append(Store(database, roots=ROOTS))
        return opened[-1]

    yield again
    for one in opened:
        one.close()
