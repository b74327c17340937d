"""What is written about the program agrees with the program: manual page, table of errors, completion files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shieldctl.completions import FILES_MADE, tree
from shieldctl.manual import BEGIN, END, with_table
from shieldd.errors import CODES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "man" / "shieldctl.1.scd"
NODES = [node for node in tree() if node.words]
LEAVES = [node for node in NODES if not node.children]


def text() -> str:
    """The page without what scdoc reads as markup."""
    return PAGE.read_text().replace("\\", "")


def entry(words: tuple[str, ...]) -> str:
    """What the page says under a command: its synopsis line and its text."""
    found = re.search(rf"^\*{' '.join(words)}\*.*?(?=^\S)", text(), re.MULTILINE | re.DOTALL)
    assert found, f"{' '.join(words)} is not in the manual page"
    return found[0]


@pytest.mark.parametrize("node", LEAVES, ids=lambda node: " ".join(node.words))
def test_every_command_and_option_is_in_the_manual_page(node: Any) -> None:
    synopsis = entry(node.words)
    common = text().partition("# THE DAEMON")[0]
    for option in node.options:
        if "--help" in option.names:
            continue
        assert any(re.search(rf"(?<![\w-]){name}(?![\w-])", synopsis) for name in option.names), (
            f"{option.names} is not under {' '.join(node.words)}"
        )
        assert all(name in synopsis or name in common for name in option.names), option.names
        for choice in option.choices:
            assert re.search(rf"\b{choice}\b", synopsis + common), choice


def test_the_options_before_the_command_are_in_the_manual_page() -> None:
    (root,) = [node for node in tree() if not node.words]
    for option in root.options:
        for name in option.names:
            assert f"*{name}*" in text()


def test_no_command_is_in_the_manual_page_that_is_not_there() -> None:
    named = set(re.findall(r"^\*([a-z]+(?: [a-z]+)?)\*.*(?:\[--json\]|_PATH_)$", text(), re.MULTILINE))
    assert named == {" ".join(node.words) for node in LEAVES}


def test_the_table_of_errors_is_the_table_of_errors() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "run: python -m shieldctl.manual && make man"
    table = page.partition(BEGIN)[2].partition(END)[0].replace("\\", "")
    rows = re.findall(r"^\|  (\S+)\n:  (\d+)\n:  (.+)$", table, re.MULTILINE)
    assert rows == [(code, str(one.exit), one.title) for code, one in CODES.items()]


def test_every_exit_status_of_the_table_is_in_the_manual_page() -> None:
    section = text().partition("# EXIT STATUS")[2].partition("# ERRORS")[0]
    assert {str(one.exit) for one in CODES.values()} | {"0", "6"} <= set(
        re.findall(r"^\*(\d+)\*$", section, re.MULTILINE)
    )


@pytest.mark.skipif(shutil.which("scdoc") is None, reason="no scdoc here")
def test_scdoc_takes_the_page() -> None:
    done = subprocess.run(["scdoc"], input=PAGE.read_bytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FILES_MADE)
def test_completion_files_are_what_the_command_tree_makes(name: str) -> None:
    written = (ROOT / "shieldctl" / "completions" / name).read_text()
    assert written == FILES_MADE[name](), "run: python -m shieldctl.completions"


def complete(*words: str) -> list[str]:
    """What bash would offer for the last word."""
    quoted = " ".join(f"'{word}'" for word in ("shieldctl", *words))
    script = (
        f"compopt() {{ :; }}; source {ROOT}/shieldctl/completions/shieldctl.bash; COMP_WORDS=({quoted}); "
        f'COMP_CWORD={len(words)}; _shieldctl; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT / "man")
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files() -> None:
    assert complete("qua") == ["quarantine"]
    assert complete("quarantine", "") == ["list", "show", "add", "restore", "purge", "-h", "--help"]
    assert complete("threats", "resolve", "x", "--verdict", "b") == ["benign"]
    assert complete("threats", "resolve", "x", "--ver") == ["--verdict"]
    assert complete("--socket", "/run/x", "ev") == ["events"]
    assert complete("files", "seal", "shieldctl.1.s") == ["shieldctl.1.scd"]
    assert complete("files", "seal", "--dry") == ["--dry-run"]
    assert complete("events", "--since", "") == []


@pytest.mark.parametrize(
    ("shell", "name"), [("zsh", "_shieldctl"), ("fish", "shieldctl.fish"), ("bash", "shieldctl.bash")]
)
def test_the_shell_itself_takes_its_file(shell: str, name: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    path = ROOT / "shieldctl" / "completions" / name
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
