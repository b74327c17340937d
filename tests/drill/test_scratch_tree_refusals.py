"""The scratch tree is the only thing a drill can destroy: everything else is refused by descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shieldctl.drill.tree import MARKER, ScratchTree
from shieldd.errors import ShieldError


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ScratchTree]:
    made = ScratchTree.make(tmp_path)
    yield made
    made.close()


def refused(code: str, act: object, *args: object) -> None:
    assert callable(act)
    with pytest.raises(ShieldError) as caught:
        act(*args)
    assert caught.value.code == code


def test_a_marked_tree_is_worked_on_and_leaves_nothing_behind(tree: ScratchTree, tmp_path: Path) -> None:
    tree.write(b"a/b/c.txt", b"one", 0o640)
    tree.write(b"a/d.txt", b"two", 0o644)
    assert sorted(tree.walk()) == [b"a/b/c.txt", b"a/d.txt"]
    assert (tree.path / "a/d.txt").stat().st_mode & 0o777 == 0o644
    tree.remove(b"a/d.txt")
    assert tree.destroy() == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [b"../victim", b"/etc/passwd", b"a//b", b"a/./b", b"", b"x\0y", b"a/../../victim"])
def test_names_that_lead_out_are_refused(tree: ScratchTree, tmp_path: Path, path: bytes) -> None:
    (tmp_path / "victim").write_bytes(b"keep")
    refused("file.name", tree.remove, path)
    refused("file.name", tree.write, path, b"x")
    assert (tmp_path / "victim").read_bytes() == b"keep"


def test_without_its_marker_nothing_is_destroyed(tree: ScratchTree) -> None:
    tree.write(b"a/one", b"1")
    (tree.path / os.fsdecode(MARKER)).unlink()
    refused("drill.marker", tree.destroy)
    refused("drill.marker", tree.remove, b"a/one")
    refused("drill.marker", tree.write, b"a/two", b"2")
    assert (tree.path / "a/one").read_bytes() == b"1"


def test_a_marker_put_there_by_somebody_else_does_not_count(tree: ScratchTree) -> None:
    tree.write(b"one", b"1")
    marker = tree.path / os.fsdecode(MARKER)
    text = marker.read_bytes()
    (tree.path / "copy").write_bytes(text)
    (tree.path / "copy").rename(marker)  # same words, another file
    refused("drill.marker", tree.remove, b"one")
    marker.write_bytes(text.replace(tree.mark.drill_id.encode(), b"0" * 32))
    refused("drill.marker", tree.remove, b"one")
    marker.unlink()
    marker.symlink_to("/etc/hostname")
    refused("drill.marker", tree.remove, b"one")
    assert (tree.path / "one").exists()


def test_a_marker_that_is_a_pipe_does_not_hang(tree: ScratchTree) -> None:
    marker = tree.path / os.fsdecode(MARKER)
    marker.unlink()
    os.mkfifo(marker)
    refused("drill.marker", tree.check)


def test_the_marker_itself_cannot_be_written_or_removed(tree: ScratchTree) -> None:
    refused("drill.marker", tree.remove, MARKER)
    refused("drill.marker", tree.write, MARKER, b"x")


def test_links_are_not_followed(tree: ScratchTree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "record").write_bytes(b"keep")
    (tree.path / "way").symlink_to(outside)
    (tree.path / "file").symlink_to(outside / "record")
    refused("file.symlink", tree.remove, b"way/record")
    refused("file.symlink", tree.write, b"way/new", b"x")
    assert tree.digest(b"file") is None
    assert list(tree.walk()) == []
    tree.destroy()  # takes the links, not what they point to
    assert (outside / "record").read_bytes() == b"keep"


def test_a_tree_moved_away_is_emptied_but_nothing_else_is_removed(tree: ScratchTree, tmp_path: Path) -> None:
    tree.write(b"one", b"1")
    elsewhere = tmp_path / "elsewhere"
    tree.path.rename(elsewhere)
    impostor = tree.path
    impostor.mkdir()
    (impostor / "precious").write_bytes(b"keep")
    refused("drill.marker", tree.destroy)
    assert (impostor / "precious").read_bytes() == b"keep"


def test_another_drills_tree_is_not_adopted(tree: ScratchTree) -> None:
    refused("drill.marker", ScratchTree.adopt, os.dup(tree.root_fd), "f" * 32, tree.path)


def test_an_unmarked_directory_is_not_adopted(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    refused("drill.marker", ScratchTree.adopt, fd, "f" * 32, tmp_path)
    os.close(fd)


def test_nothing_is_overwritten(tree: ScratchTree) -> None:
    tree.write(b"one", b"1")
    refused("file.exists", tree.write, b"one", b"2")
    assert (tree.path / "one").read_bytes() == b"1"


def test_a_place_that_cannot_take_a_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShieldError, match="no such file or directory") as caught:
        ScratchTree.make(tmp_path / "missing")
    assert caught.value.code == "drill.place"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own")
def test_a_mount_inside_the_tree_is_not_entered(tree: ScratchTree) -> None:
    tree.write(b"m/one", b"1")
    script = """
import os, sys
from pathlib import Path
from shieldctl.drill.tree import ScratchTree
from shieldd.errors import ShieldError
root, drill_id = sys.argv[1], sys.argv[2]
fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
tree = ScratchTree.adopt(fd, drill_id, Path(root))
try:
    tree.destroy()
except ShieldError as error:
    print(error.code, Path(root, "m/record").read_text())
"""
    done = subprocess.run(
        [
            "unshare", "-m", "sh", "-c",
            'mount -t tmpfs none "$1/m" && echo -n keep > "$1/m/record" && exec "$3" -c "$4" "$1" "$2"',
            "sh", os.fspath(tree.path), tree.mark.drill_id, sys.executable, script,
        ],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stdout == "file.mount keep\n", done.stderr
