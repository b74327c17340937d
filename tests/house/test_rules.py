"""What no module may hold, and how long it may be."""

from __future__ import annotations

import ast
import re

import pytest

from .source import ROOT, Module, modules, tracked

PACKAGES = ("shieldd", "shieldctl", "bench")
OURS = tuple(module for package in PACKAGES for module in modules(package))
TESTS = modules("tests")
LONGEST = 400
#: path -> (lines it may have, why it stays one module)
LONGER = {
    "shieldd/api/answers.py": (600, "one frozen class after the other; the document of the interface"),
    "shieldd/compose.py": (500, "the composition root reads from top to bottom as the daemon's story"),
}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
BROAD = {"Exception", "BaseException"}


def _ids(modules_: tuple[Module, ...]) -> list[str]:
    return [str(module.path) for module in modules_]


@pytest.mark.parametrize("module", OURS, ids=_ids(OURS))
class TestModule:
    """Each source module by itself."""

    def test_is_short(self, module: Module) -> None:
        limit, reason = LONGER.get(str(module.path), (LONGEST, "one idea for each module"))
        assert module.text.count("\n") <= limit, reason

    def test_has_a_name_that_says_something(self, module: Module) -> None:
        assert not NAMELESS & set(module.name.split("."))

    def test_has_a_docstring(self, module: Module) -> None:
        assert not module.text or ast.get_docstring(module.tree), "what it owns, in one line"

    def test_catches_nothing_blindly(self, module: Module) -> None:
        wrong: list[int] = []
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = {name.id for name in caught if isinstance(name, ast.Name)}
            # A broad net is fine where what it caught goes on to the caller.
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if node.type is None or (names & BROAD and not raises):
                wrong.append(node.lineno)
        assert not wrong, f"bare or broad except at lines {wrong}"

    def test_has_no_empty_bodies(self, module: Module) -> None:
        wrong = [
            node.lineno
            for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ExceptHandler)
            and all(isinstance(inner, ast.Pass) for inner in node.body)
        ]
        assert not wrong, f"a body of pass at lines {wrong}"

    def test_leaves_no_work_behind(self, module: Module) -> None:
        found = re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b|NotImplementedError\(\)", module.text)
        assert not found


def test_tests_do_not_sleep() -> None:
    """Time is an argument; an end-to-end test waits for an event with a deadline, in short naps at most."""
    wrong: list[str] = []
    for module in TESTS:
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "sleep"
                and node.args
                and not (isinstance(node.args[0], ast.Constant) and float(node.args[0].value) <= 0.1)
            ):
                wrong.append(f"{module.path}:{node.lineno}")
    assert not wrong, f"waits for the clock instead of an event: {wrong}"


def test_rust_leaves_no_work_behind() -> None:
    wrong = [
        str(path)
        for path in tracked("*.rs")
        if re.search(r"\b(?:TODO|FIXME|HACK)\b|\b(?:todo|unimplemented|dbg)!", (ROOT / path).read_text())
    ]
    assert not wrong


def test_the_core_forbids_unsafe_code() -> None:
    assert "#![forbid(unsafe_code)]" in (ROOT / "native/core/src/lib.rs").read_text()


def test_no_file_names_a_registry_or_a_machine() -> None:
    """A registry is configured where the thing is built; a committed address would override it, or leak one."""
    hosts = ["py" + "pi.org", "pythonhosted" + ".org", "crates" + ".io", "deb.debian" + ".org", "npmjs" + ".org"]
    # Cargo writes its own source line into the lock file; it names the index, and cargo replaces it by configuration.
    exempt = {"native/Cargo.lock"}
    wrong: list[str] = []
    for path in tracked():
        if str(path) in exempt or (ROOT / path).is_symlink():
            continue
        data = (ROOT / path).read_bytes()
        if b"\0" in data[:4096]:
            continue
        text = data.decode("utf-8", "replace")
        wrong += [f"{path}: {host}" for host in hosts if host in text]
        wrong += [f"{path}: {word}" for word in ("--index" + "-url", "--extra-index" + "-url") if word in text]
    assert not wrong


def test_every_pinned_package_has_a_digest() -> None:
    for path in tracked("requirements/*.txt"):
        text = (ROOT / path).read_text()
        for entry in re.split(r"\n(?=\S)", text):
            if entry.strip() and not entry.startswith("#"):
                assert re.match(r"[\w.\-\[\]]+==\S+", entry), f"{path}: not pinned: {entry[:60]}"
                assert "--hash=sha256:" in entry, f"{path}: no digest: {entry[:60]}"
