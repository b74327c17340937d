"""Documents agree with what they describe: pages with the code, built pages with their sources, links with files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shieldd.config import Config
from shieldd.config.changes import LIVE

from .source import ROOT, tracked

PAGES = sorted((ROOT / "man").glob("*.scd"))
CONFIG_PAGE = (ROOT / "man/shieldd.toml.5.scd").read_text()


def _model_of(annotation: object) -> type[BaseModel] | None:
    for inner in (annotation, *get_args(annotation)):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None


def _keys() -> dict[tuple[str, str], FieldInfo]:
    """(heading of the table, key) → field, of every table of the configuration."""
    found: dict[tuple[str, str], FieldInfo] = {}

    def walk(model: type[BaseModel], table: str) -> None:
        for name, field in model.model_fields.items():
            if field.exclude:
                continue
            inner = _model_of(field.annotation)
            if inner is None:
                found[(table, name)] = field
            else:
                many = "tuple" in str(field.annotation)
                dotted = f"{table.strip('[]')}.{name}".lstrip(".")
                walk(inner, f"[[{dotted}]]" if many else f"[{dotted}]")

    walk(Config, "")
    return found


def _documented() -> dict[tuple[str, str], tuple[Any, bool]]:
    """(heading, key) → (default as the page gives it, None without; whether marked for a restart)."""
    found: dict[tuple[str, str], tuple[Any, bool]] = {}
    table = ""
    for line in CONFIG_PAGE.splitlines():
        if heading := re.fullmatch(r"#+ (\[.*\])", line):
            table = heading[1]
        elif entry := re.fullmatch(r"\*(\w+)\*(?: = (.+?))?( \(restart\))?", line):
            default = tomllib.loads(f"x = {entry[2]}")["x"] if entry[2] else None
            found[(table, entry[1])] = (default, bool(entry[3]))
    return found


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def test_the_configuration_page_has_every_key_and_no_other() -> None:
    assert set(_documented()) == set(_keys())


@pytest.mark.parametrize("key", _documented(), ids="".join)
def test_the_page_gives_the_default(key: tuple[str, str]) -> None:
    field = _keys()[key]
    stated = _documented()[key][0]
    assert stated == (None if field.is_required() else _plain(field.default))


@pytest.mark.parametrize("key", _documented(), ids="".join)
def test_the_page_says_what_takes_a_restart(key: tuple[str, str]) -> None:
    table, name = key
    dotted = "tree[]" if table == "[[tree]]" else table.strip("[]")
    general = f"{dotted}.{name}"
    live = any(general == pattern or (pattern.endswith(".") and general.startswith(pattern)) for pattern in LIVE)
    assert _documented()[key][1] == (not live)


def test_the_shipped_configuration_names_every_key() -> None:
    text = (ROOT / "config/shieldd.toml").read_text()
    table, named = "", set()
    for line in text.splitlines():
        if heading := re.fullmatch(r"#?(\[\[?[\w.]+\]\]?)", line):
            table = heading[1]
        elif entry := re.match(r"#?(\w+) = ", line):
            named.add((table, entry[1]))
    assert named == set(_keys())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_built_page_is_that_of_its_source(page: Path) -> None:
    if shutil.which("scdoc") is None:
        pytest.skip("no scdoc here: the built pages are not compared with their sources")
    built = subprocess.run(
        ["scdoc"], input=page.read_bytes(), capture_output=True, check=True, env={"SOURCE_DATE_EPOCH": "1767225600"}
    )
    assert page.with_suffix("").read_bytes() == built.stdout, "run make man"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_wheel_carries_the_page(page: Path) -> None:
    name = page.with_suffix("").name
    link = ROOT / f"wheel-data/data/share/man/man{name[-1]}/{name}"
    assert link.is_symlink() and link.resolve() == page.with_suffix("")


def test_every_link_of_the_wheel_leads_somewhere() -> None:
    broken = [str(path) for path in (ROOT / "wheel-data").rglob("*") if path.is_symlink() and not path.exists()]
    assert not broken


def test_everything_that_systemd_needs_is_in_the_wheel() -> None:
    carried = {path.resolve() for path in (ROOT / "wheel-data").rglob("*") if path.is_file()}
    needed = {path.resolve() for path in (ROOT / "systemd").rglob("*") if path.is_file()}
    assert needed <= carried


def _help(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_daemons_help_and_page_name_the_same_options() -> None:
    page = (ROOT / "man/shieldd.8.scd").read_text()
    options = page[page.index("# OPTIONS") : page.index("# SIGNALS")]
    documented = set(re.findall(r"^\*(--[a-z-]+)\*", options, re.MULTILINE))
    helped = set(re.findall(r"--[a-z][a-z-]+", _help("shieldd") + _help("shieldd", "run")))
    assert documented == helped


DOCUMENTS = tuple(ROOT / path for path in tracked("*.md"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (document.parent / target).exists()]
    assert not missing


def test_the_readme_names_only_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?\bmake ([a-z-]+)`", readme)) <= targets


def test_every_promise_names_a_test_that_exists() -> None:
    security = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`(tests/[\w/.-]+)`", security))
    assert named, "each promise names its test"
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_change_log_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{version}]" in text and "## [Unreleased]" in text
