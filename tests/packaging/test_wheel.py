"""The wheel: what is in it, that it installs where there is no Rust, that two builds are the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
#: No cargo, no rustc, no compiler wrappers of a developer: what a host has.
HOST_PATH = "/usr/bin:/bin"
PYTHONS = ("3.11", "3.12", "3.13")

CARRIED = (
    "shieldd/_native/lib_native.so",
    "shieldd/_native/ffi.py",
    "shieldctl/__main__.py",
    "data/lib/systemd/system/shieldd.service",
    "data/lib/systemd/system/shieldd.socket",
    "data/lib/systemd/system/shieldd-rotate.timer",
    "data/lib/systemd/system/shieldd-verify.timer",
    "data/lib/sysusers.d/shieldd.conf",
    "data/lib/tmpfiles.d/shieldd.conf",
    "data/share/shieldd/shieldd.toml",
    "data/share/man/man8/shieldd.8",
    "data/share/man/man1/shieldctl.1",
    "data/share/man/man5/shieldd.toml.5",
    "data/share/man/man5/shield-envelope.5",
    "data/share/man/man5/shield-keystore.5",
    "data/share/man/man5/shieldd-vault.5",
    "data/share/bash-completion/completions/shieldctl",
    "shieldd/policy/policy.onnx",
    "shieldd/policy/manifest.json",
    ".cyclonedx.json",
)


@pytest.mark.parametrize("member", CARRIED)
def test_the_wheel_carries(wheel: Path, member: str) -> None:
    assert any(name.endswith(member) for name in zipfile.ZipFile(wheel).namelist())


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    version = wheel.name.split("-")[1]
    assert tops == {"shieldd", "shieldctl", f"shieldd-{version}.data", f"shieldd-{version}.dist-info"}


def test_any_python_of_the_platform_may_use_it(wheel: Path) -> None:
    assert "-py3-none-" in wheel.name


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_builds_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    env = os.environ | {"VENV": sys.prefix}
    subprocess.run([ROOT / "scripts/wheel", tmp_path], env=env, check=True, capture_output=True, timeout=600)
    assert _digest(next(tmp_path.glob("*.whl"))) == _digest(wheel)


def _interpreter(version: str) -> str | None:
    """A real interpreter of that version: on the path, or one of pyenv's."""
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))]
    found = [str(path) for root in roots for path in sorted(root.glob(f"versions/{version}.*/bin/python{version}"))]
    on_path = shutil.which(f"python{version}")
    for candidate in [*found, *([on_path] if on_path else [])]:
        asked = subprocess.run(
            [candidate, "-c", "import sys, venv; print(sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0:
            return candidate
    return None


def _install(python: str, wheel: Path, place: Path) -> Path:
    """A clean virtual environment with the wheel and its pinned packages, made without Rust.

    The pip is ours and speaks to that interpreter; what nobody imports is not compiled.
    """
    env = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key == "HOME"}
    env |= {"PATH": HOST_PATH}

    def run(*command: object) -> None:
        done = subprocess.run(
            [str(word) for word in command], env=env, cwd=place, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run(python, "-m", "venv", "--without-pip", place / "venv")
    pip = [sys.executable, "-m", "pip", "--python", place / "venv/bin/python", "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-compile"]
    run(*install, "--require-hashes", "-r", ROOT / "requirements/runtime.txt")
    run(*install, "--no-deps", wheel)
    run(*pip, "check")
    return place


@pytest.fixture(scope="module")
def installing(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Path]]]:
    """The environments of every interpreter there is, made side by side."""
    pythons = {version: _interpreter(version) for version in PYTHONS}
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {
            version: pool.submit(_install, python, wheel, tmp_path_factory.mktemp(f"clean-{version}"))
            for version, python in pythons.items()
            if python is not None
        }


@pytest.fixture(scope="module", params=PYTHONS)
def installed(request: pytest.FixtureRequest, installing: dict[str, Future[Path]]) -> Path:
    """Where the wheel is installed for one interpreter."""
    if request.param not in installing:
        pytest.skip(f"no Python {request.param} with venv here: the wheel is not tried on it")
    return installing[request.param].result()


def _in(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program = installed / "venv/bin" / command[0]
    return subprocess.run(
        [str(program), *command[1:]],
        env={"PATH": HOST_PATH, "HOME": str(installed), "LC_ALL": "C.UTF-8"},
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("program", ["shieldd", "shieldctl"])
def test_it_says_its_version(installed: Path, wheel: Path, program: str) -> None:
    done = _in(installed, program, "--version")
    assert done.returncode == 0, done.stderr
    assert wheel.name.split("-")[1] in done.stdout


def test_every_module_imports_without_the_training_packages(installed: Path) -> None:
    script = """
import importlib, pkgutil, shieldctl, shieldd
names = [m.name for p in (shieldd, shieldctl) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
for name in names:
    if "__main__" not in name and not name.startswith(("shieldd.learn", "shieldd._native")):
        importlib.import_module(name)
print(len(names), shieldd.__file__)
"""
    done = _in(installed, "python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stdout


def test_the_page_and_the_units_are_in_place(installed: Path) -> None:
    assert (installed / "venv/share/man/man8/shieldd.8").is_file()
    assert (installed / "venv/lib/systemd/system/shieldd.service").is_file()


def test_it_guards_seals_and_opens(installed: Path, short_dir: Path) -> None:
    tree, sock = short_dir / "tree", short_dir / "s"
    tree.mkdir()
    (tree / "report.txt").write_text("findings: none\n")
    daemon = subprocess.Popen(
        [installed / "venv/bin/shieldd", "run", "--protect", tree, "--socket", sock, "--state", short_dir / "state"],
        env={"PATH": HOST_PATH, "HOME": str(installed)},
        cwd=installed,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ready = _in(installed, "shieldctl", "--socket", str(sock), "wait", "--timeout", "50")
        assert ready.returncode in {0, 6}, ready.stderr
        sealed = _in(installed, "shieldctl", "--socket", str(sock), "files", "seal", str(tree / "report.txt"))
        assert sealed.returncode == 0, sealed.stderr
        assert not (tree / "report.txt").exists()
        opened = _in(installed, "shieldctl", "--socket", str(sock), "files", "open", str(tree / "report.txt.shield"))
        assert opened.returncode == 0, opened.stderr
        assert (tree / "report.txt").read_text() == "findings: none\n"
    finally:
        daemon.terminate()
        assert daemon.wait(30) == 0
