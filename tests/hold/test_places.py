"""Names that lie, mounts of others, and file systems on which nothing is held."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shieldd.hold import Hold
from shieldd.model.held import Kept
from shieldd.native.hold import HoldTree

from .conftest import Held, holding, mounted, wait_for

pytestmark = pytest.mark.root

WRITE = "import sys; open(sys.argv[1], 'r+b').write(b'x')"


def apart(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Runs a shell script in a mount namespace of its own."""
    return subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-ec", script, "sh", *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_another_namespace_sees_the_same_names(held: Held) -> None:
    path = held.file("a")
    done = apart(f'{sys.executable} -c "{WRITE}" "$1"', path)
    assert done.returncode == 0, done.stderr
    assert held.about("a").kept is Kept.YES
    assert held.hold.status().counts.foreign == 0


def test_a_tree_under_another_name_is_held(held: Held, tmp_path: Path) -> None:
    held.file("a")
    (tmp_path / "elsewhere").mkdir()
    done = apart(f'mount --bind "$1" "$2"; {sys.executable} -c "{WRITE}" "$2/a"', held.tree, tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: held.seen, "a record")
    assert held.seen[0].kept is Kept.YES
    assert held.seen[0].tree is None
    assert held.hold.status().counts.foreign == 1


def test_a_tree_under_the_name_of_something_outside_is_held(held: Held) -> None:
    held.file("a")
    other = held.top / "other"
    other.mkdir()
    (other / "a").write_bytes(b"something else")
    done = apart(f'mount --bind "$1" "$2"; {sys.executable} -c "{WRITE}" "$2/a"', held.tree, other)
    assert done.returncode == 0, done.stderr
    wait_for(lambda: held.seen, "a record")
    assert held.seen[0].kept is Kept.YES
    assert held.hold.status().counts.foreign == 1
    assert held.hold.status().counts.ignored == 0


def test_two_trees_on_one_file_system_and_one_inside_the_other(own_tmpfs: Path) -> None:
    for name in ("one/inner", ".shieldd-vault"):
        (own_tmpfs / name).mkdir(parents=True, mode=0o700)
    trees = [own_tmpfs / "one", own_tmpfs / "one/inner"]
    seen = []
    fds = [os.open(p, os.O_RDONLY) for p in (*trees, own_tmpfs / ".shieldd-vault")]
    hold = Hold(
        [HoldTree(os.fsencode(tree), fds[i], 0) for i, tree in enumerate(trees)], fds[2:],
        records=seen.extend, trouble=lambda *_: None,
    )  # fmt: skip
    try:
        assert hold.start()
        for tree in trees:
            (tree / "f").write_bytes(b"before")
            subprocess.run([sys.executable, "-c", WRITE, tree / "f"], check=True)
        wait_for(lambda: len(seen) == 2, "records")
        assert [(one.tree, one.path) for one in seen] == [(0, b"f"), (1, b"f")]
    finally:
        hold.stop()
        for fd in fds:
            os.close(fd)


def test_without_a_vault_it_says_what_it_lost(own_tmpfs: Path) -> None:
    (own_tmpfs / "tree").mkdir()
    fd = os.open(own_tmpfs / "tree", os.O_RDONLY)
    seen = []
    hold = Hold([HoldTree(os.fsencode(own_tmpfs / "tree"), fd)], [], records=seen.extend, trouble=lambda *_: None)
    try:
        assert hold.start()
        (own_tmpfs / "tree/f").write_bytes(b"before")
        subprocess.run([sys.executable, "-c", WRITE, own_tmpfs / "tree/f"], check=True)
        wait_for(lambda: seen, "a record")
        assert seen[0].kept is Kept.ABSENT
        assert seen[0].lost
    finally:
        hold.stop()
        os.close(fd)


def test_a_file_system_that_waits_for_others_is_refused(tmp_path: Path) -> None:
    # proc is none of those, and cannot be guarded; it stands for "the kernel says no"
    fd = os.open("/proc/self", os.O_RDONLY)
    troubles: list[str | None] = []
    hold = Hold(
        [HoldTree(b"/proc/self", fd)], [], records=lambda _: None, trouble=lambda _, text: troubles.append(text)
    )
    try:
        assert not hold.start(5)
        assert not hold.status().running
        assert hold.status().reason
        assert troubles
        assert "seen after" in hold.status().not_covered[0]
    finally:
        hold.stop()
        os.close(fd)


def test_a_vault_that_others_may_enter_is_refused(own_tmpfs: Path) -> None:
    vault = own_tmpfs / ".shieldd-vault"
    vault.mkdir(mode=0o700)
    vault.chmod(0o755)
    (own_tmpfs / "tree").mkdir()
    fds = [os.open(own_tmpfs / "tree", os.O_RDONLY), os.open(vault, os.O_RDONLY)]
    hold = Hold(
        [HoldTree(os.fsencode(own_tmpfs / "tree"), fds[0], 0)], fds[1:], records=lambda _: None, trouble=lambda *_: None
    )
    try:
        assert not hold.start(3)
        assert hold.status().code == "preserve.unsafe"
    finally:
        hold.stop()
        for fd in fds:
            os.close(fd)


def test_an_overlay_is_held_where_the_kernel_can(tmp_path: Path, own_tmpfs: Path) -> None:
    for name in ("lower", "upper", "work"):
        (own_tmpfs / name).mkdir()
    (own_tmpfs / "lower/tree").mkdir()
    (own_tmpfs / "lower/tree/f").write_bytes(b"before")
    layers = ",".join(f"{k}dir={own_tmpfs / k}" for k in ("lower", "upper", "work"))
    with mounted(tmp_path / "over", "-t", "overlay", "-o", layers, "overlay") as top, holding(top) as held:
        subprocess.run([sys.executable, "-c", WRITE, held.tree / "f"], check=True)
        record = held.about("f")
        assert record.size_bytes == 6
        assert (held.tree / "f").read_bytes() == b"xefore"
