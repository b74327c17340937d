"""The pinned packages are those that pyproject.toml asks for."""

from __future__ import annotations

import re
import sys
import tomllib

import pytest

from .source import ROOT, modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]).lower()


def _pins(file: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.\-]+)==(\S+)", (ROOT / "requirements" / file).read_text(), re.MULTILINE):
        pins.setdefault(_name(name), set()).add(version)
    return pins


@pytest.mark.parametrize(
    ("file", "extras"), [("runtime.txt", ()), ("learn.txt", ("learn",)), ("test.txt", ("learn", "test", "bench"))]
)
def test_everything_asked_for_is_pinned(file: str, extras: tuple[str, ...]) -> None:
    asked = list(PROJECT["dependencies"])
    for extra in extras:
        asked += PROJECT["optional-dependencies"][extra]
    missing = {_name(requirement) for requirement in asked} - set(_pins(file))
    assert not missing, f"run scripts/lock: {sorted(missing)}"


def test_tests_run_on_the_versions_that_are_shipped() -> None:
    tested = _pins("test.txt")
    shipped = _pins("runtime.txt")
    differing = {name: (shipped[name], tested.get(name)) for name in shipped if tested.get(name) != shipped[name]}
    assert not differing


#: import name -> package, where they differ
NAMES = {
    "yara": "yara-python",
    "sqlite_utils": "sqlite-utils",
    "pytest_timeout": "pytest-timeout",
    "jaxlib": "jax",
    "inotify_simple": "inotify-simple",
}
OURS = {"shieldd", "shieldctl", "bench", "tests"}


@pytest.mark.parametrize("folder", ["shieldd", "shieldctl", "bench", "tests"])
def test_every_imported_package_is_asked_for(folder: str) -> None:
    """A fresh checkout has what pyproject.toml names and nothing else."""
    asked = {_name(requirement) for requirement in PROJECT["dependencies"]}
    extras = PROJECT["optional-dependencies"]
    asked |= {_name(requirement) for extra in extras.values() for requirement in extra}
    local = {path.stem for path in (ROOT / "tests").rglob("*") if path.suffix == ".py" or path.is_dir()}
    missing: dict[str, set[str]] = {}
    for module in modules(folder):
        for name in module.imports():
            top = name.split(".")[0]
            package = _name(NAMES.get(top, top))
            if top in sys.stdlib_module_names or top in OURS or package in asked:
                continue
            if folder == "tests" and top in local:
                continue
            missing.setdefault(package, set()).add(str(module.path))
    assert not missing
