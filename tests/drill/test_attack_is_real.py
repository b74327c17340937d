"""The attacker: a real tool, in its own process group, below the marker only, ended by the drill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shieldctl.drill import tools
from shieldctl.drill.attack import Attacker
from shieldctl.drill.attacker import NOTE_NAME
from shieldctl.drill.corpus import CorpusFile, lay_out
from shieldctl.drill.tree import MARKER, ScratchTree
from shieldd.errors import ShieldError

DEADLINE_S = 60
INSTALLED = [name for name, tool in tools.TOOLS.items() if shutil.which(tool.program)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[ScratchTree, tuple[CorpusFile, ...]]]:
    tree = ScratchTree.make(tmp_path)
    yield tree, lay_out(tree, 20, 1)
    tree.close()


@pytest.mark.parametrize("name", INSTALLED)
def test_every_installed_tool_encrypts_and_destroys(
    scene: tuple[ScratchTree, tuple[CorpusFile, ...]], name: str
) -> None:
    tree, ledger = scene
    with tools.armed(name) as tool:
        assert tool.note == "" and tool.name == name
        attacker = Attacker(tree, tool, [entry.path for entry in ledger])
        assert attacker.over.wait(DEADLINE_S)
        course = attacker.end()
    assert course.finished
    assert [index for _, index in course.gone] == [index for _, index in course.begun] == list(range(20))
    assert course.rate > 0 and course.first_write_ns > 0
    left = list(tree.walk())
    assert not {entry.path for entry in ledger} & set(left)
    assert sum(path.endswith(tool.suffix.encode()) for path in left) == 20
    assert sum(path.endswith(NOTE_NAME) for path in left) == course.notes > 1


def test_what_openssl_wrote_opens_with_openssl(scene: tuple[ScratchTree, tuple[CorpusFile, ...]]) -> None:
    tree, ledger = scene
    with tools.armed("openssl") as tool:
        attacker = Attacker(tree, tool, [ledger[0].path])
        assert attacker.over.wait(DEADLINE_S)
        attacker.end()
    plain = subprocess.run(
        [*tool.argv, "-d", "-in", f"{tree.path}/{ledger[0].path.decode()}.locked", "-out", tree.path / "plain"],
        capture_output=True,
    )
    assert plain.returncode == 0
    assert tree.digest(b"plain") == ledger[0].sha256


def test_it_is_ended_in_the_middle_with_its_children(tmp_path: Path) -> None:
    tree = ScratchTree.make(tmp_path)
    ledger = lay_out(tree, 300, 1)
    with tools.armed("openssl") as tool:
        attacker = Attacker(tree, tool, [entry.path for entry in ledger])
        assert attacker.started.wait(DEADLINE_S)
        course = attacker.end()
    assert len(course.begun) >= 1 and not course.finished
    lost = [entry for entry in ledger if tree.digest(entry.path) != entry.sha256]
    assert len(course.gone) <= len(lost) <= len(course.gone) + 1 < 300
    assert attacker.end() == course, "ending twice is the same"
    tree.destroy()


def test_without_a_marker_it_does_not_start(scene: tuple[ScratchTree, tuple[CorpusFile, ...]]) -> None:
    tree, ledger = scene
    (tree.path / os.fsdecode(MARKER)).unlink()
    with tools.armed("openssl") as tool, pytest.raises(ShieldError) as caught:
        Attacker(tree, tool, [entry.path for entry in ledger])
    assert caught.value.code == "drill.marker"
    assert all(tree.digest(entry.path) == entry.sha256 for entry in ledger)


def test_its_process_refuses_a_directory_that_is_not_marked(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "record.txt").write_bytes(b"keep")
    fd = os.open(victim, os.O_RDONLY | os.O_DIRECTORY)
    orders = b'{"argv": ["/usr/bin/true"], "suffix": ".locked", "paths": ["cmVjb3JkLnR4dA=="]}'
    done = subprocess.run(
        [sys.executable, "-m", "shieldctl.drill.attacker", str(fd), "0" * 32],
        input=orders, pass_fds=(fd,), capture_output=True, timeout=DEADLINE_S,
    )  # fmt: skip
    os.close(fd)
    assert done.returncode != 0 and b"drill.marker" in done.stderr
    assert [path.name for path in victim.iterdir()] == ["record.txt"]


def test_a_link_in_its_list_is_not_followed(scene: tuple[ScratchTree, tuple[CorpusFile, ...]], tmp_path: Path) -> None:
    tree, _ = scene
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep")
    (tree.path / "way.txt").symlink_to(precious)
    with tools.armed("openssl") as tool:
        attacker = Attacker(tree, tool, [b"way.txt"])
        assert attacker.over.wait(DEADLINE_S)
        course = attacker.end()
    assert course.gone == ()
    assert precious.read_bytes() == b"keep"


def test_a_missing_tool_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl
    (tmp_path / "openssl").symlink_to(openssl)
    monkeypatch.setenv("PATH", str(tmp_path))
    with tools.armed("gpg") as tool:
        assert tool.name == "openssl"
        assert tool.note == "gpg is not installed; openssl was used in its place"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ShieldError) as caught:
        tools.choose("gpg")
    assert caught.value.code == "drill.tool"
