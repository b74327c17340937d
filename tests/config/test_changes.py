"""What a reload changes, and which of it needs a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from shieldd.config import Change, Config, diff


class Load(Protocol):
    def __call__(self, text: str, trees: str = "a") -> Config: ...


@pytest.fixture
def load(tmp_path: Path) -> Load:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def from_text(text: str, trees: str = "a") -> Config:
        path = tmp_path / "shieldd.toml"
        path.write_text("".join(f'[[tree]]\npath = "{tmp_path}/{tree}"\n' for tree in trees) + text)
        return Config.load(path)

    return from_text


def test_the_same_file_changes_nothing(load: Load) -> None:
    assert diff(load(""), load("")) == ()


def test_limits_are_taken_over_and_places_are_not(load: Load) -> None:
    new = load('[guard]\ncontain_limit = 9\n[watch]\nqueue = 2048\n[daemon]\nlog_level = "debug"\n')
    assert diff(load(""), new) == (
        Change("daemon.log_level", "info", "debug", restart=False),
        Change("guard.contain_limit", 3, 9, restart=False),
        Change("watch.queue", 262_144, 2048, restart=True),
    )


def test_the_mode_of_a_tree_is_live_and_another_tree_is_not(load: Load) -> None:
    mode = diff(load('mode = "act"'), load('mode = "observe"'))
    assert [(change.key, change.restart) for change in mode] == [("tree[0].mode", False)]
    added = diff(load(""), load("", trees="ab"))
    assert {change.key for change in added if change.restart} == {
        "tree[1].path",
        "tree[1].mode",
        "tree[1].exclude",
        "tree[1].canaries",
    }
