"""The keeper links what is there and what comes, notes what goes, and says what does not work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shieldd.config import PreserveSection
from shieldd.errors import ShieldError
from shieldd.model.event import EVENT, FACTS, Batch, Kind
from shieldd.model.version import Keep
from shieldd.native import envelope
from shieldd.respond import GuardedTree, Trees
from shieldd.respond.preserve import Keeper
from shieldd.respond.versions import Versions

from .conftest import run

pytestmark = pytest.mark.root
DEADLINE_S = 20.0


def batch(*happened: tuple[Kind, bytes, bytes, int]) -> Batch:
    """Events of tree 0: kind, path, old path, actor."""
    events, names = np.zeros(len(happened), EVENT), b""
    for row, (kind, path, old, actor) in enumerate(happened):
        events[row]["kind"], events[row]["actor"] = kind, actor
        events[row]["path_off"], events[row]["path_len"] = len(names), len(path)
        names += path
        events[row]["from_off"], events[row]["from_len"] = len(names), len(old)
        names += old
    return Batch(events, np.zeros(len(happened), FACTS), np.zeros((len(happened), 1), np.float32), names)


class House:
    """A tree on a file system of its own, with its keeper."""

    def __init__(self, base: Path, tree: Path | None = None, **section: object) -> None:
        self.base = base
        self.tree = tree or base / "tree"
        self.tree.mkdir(exist_ok=True)
        self.root = os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY)
        self.troubles: list[str] = []
        self.section = PreserveSection(**{"quota_percent": 50, **section})  # type: ignore[arg-type]

    def begin(self, places: dict[int, Path] | None = None) -> None:
        trees = Trees([GuardedTree(0, bytes(self.tree), self.root)])
        self.keeper = Keeper(
            trees,
            self.section,
            places=places,
            exclude={0: (b"cache/",)},
            failed=lambda code, _: self.troubles.append(code),
        )
        self.versions = Versions(self.keeper)
        self.keeper.start()
        assert self.keeper.settled(DEADLINE_S)

    def note(self, *happened: tuple[Kind, bytes, bytes, int]) -> None:
        self.keeper.note(batch(*happened))
        assert self.keeper.settled(DEADLINE_S)

    def content(self, path: bytes) -> list[bytes]:
        found = []
        for version in self.versions.versions_of(0, path):
            with os.fdopen(self.versions.open(version), "rb") as file:
                found.append(file.read())
        return found

    def close(self) -> None:
        self.keeper.close()
        os.close(self.root)


@pytest.fixture
def house(mount: Callable[..., Path]) -> Iterator[House]:
    one = House(mount("tmpfs"))
    for name in ("a", "deep/er/b", "cache/c"):
        path = one.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    one.begin()
    yield one
    one.close()


def test_everything_is_linked_at_start_but_what_is_excluded(house: House) -> None:
    assert house.content(b"a") == [b"a"] and house.content(b"deep/er/b") == [b"deep/er/b"]
    assert house.content(b"cache/c") == []
    (state,) = house.keeper.status()
    assert state.path == bytes(house.base / ".shieldd-vault")
    assert (state.trees, state.linking, state.degraded) == ((0,), (), ())
    assert state.status.links == 2 and not house.troubles
    assert os.stat(house.tree / "a").st_nlink == 2


def test_new_files_are_linked_and_deleted_ones_come_back(house: House) -> None:
    (house.tree / "new").write_bytes(b"new")
    house.note((Kind.CREATE, b"new", b"", 77))
    (house.tree / "new").unlink()
    (house.tree / "a").unlink()
    house.note((Kind.DELETE, b"new", b"", 5), (Kind.DELETE, b"a", b"", 5))
    assert house.content(b"new") == [b"new"] and house.content(b"a") == [b"a"]
    assert {version.path for version in house.versions.lost_since(0, 0)} == {b"new", b"a"}
    assert house.versions.lost_since(0, time.time_ns() + 10**9) == []
    assert [version.path for version in house.versions.versions_by(77, 0)] == [b"new"]


def test_what_we_made_ourselves_comes_back_too(house: House) -> None:
    for name in ("opened", "restored"):
        (house.tree / name).write_bytes(name.encode())
        house.keeper.made(0, name.encode())
    assert house.keeper.settled(DEADLINE_S)
    (house.tree / "opened").unlink()
    house.note((Kind.DELETE, b"opened", b"", 9))
    assert house.content(b"opened") == [b"opened"]
    assert (house.tree / "restored").stat().st_nlink == 2


def test_who_locks_by_a_second_name_still_counts_two(house: House) -> None:
    """GnuPG's and liblockfile's way: a file of one's own is linked to the lock's name, and the names are counted."""
    for name, lock in (("#lk0x7.pacs.4711", "ring.lock"), ("lk4711", "inbox.lock")):
        mine = house.tree / f".{name}"
        mine.write_bytes(b"4711\npacs\n")
        house.note((Kind.CREATE, os.fsencode(mine.name), b"", 7))
        os.link(mine, house.tree / lock)
        house.note((Kind.CREATE, lock.encode(), b"", 7))
        assert mine.stat().st_nlink == 2
    (house.tree / "Cargo.lock").write_bytes(b"[[package]]\n" * 100)
    house.note((Kind.CREATE, b"Cargo.lock", b"", 7))
    assert (house.tree / "Cargo.lock").stat().st_nlink == 2, "a file with content is kept whatever its name"
    assert not house.troubles


def test_a_file_replaced_by_the_way_editors_save(house: House) -> None:
    for turn in range(3):
        (house.tree / ".a.tmp").write_bytes(b"draft %d" % turn)
        house.note((Kind.CREATE, b".a.tmp", b"", 1))
        os.replace(house.tree / ".a.tmp", house.tree / "a")
        house.note((Kind.RENAME, b"a", b".a.tmp", 1))
    assert house.content(b"a") == [b"a", b"draft 0", b"draft 1", b"draft 2"]
    kinds = {(version.kind, version.orphan) for version in house.versions.versions_of(0, b"a")}
    assert kinds == {(Keep.LINK, True), (Keep.LINK, False)}


def test_a_renamed_directory_is_known_under_its_new_name(house: House) -> None:
    os.rename(house.tree / "deep", house.tree / "shallow")
    house.note((Kind.RENAME_DIR, b"shallow", b"deep", 1))
    (house.tree / "shallow/er/b").unlink()
    assert house.content(b"shallow/er/b") == [b"deep/er/b"] == house.content(b"deep/er/b")


def test_more_changes_than_fit_are_found_by_looking(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shieldd.respond.preserve.QUEUE", 1)
    for i in range(5):
        (house.tree / f"f{i}").write_bytes(b"x")
    house.note(*((Kind.CREATE, b"f%d" % i, b"", 0) for i in range(5)))
    assert all(house.content(b"f%d" % i) == [b"x"] for i in range(5))


def test_an_incident_holds_its_versions_over_a_restart(house: House) -> None:
    house.keeper.pin("t1", 5, time.time_ns())
    (house.tree / "a").unlink()
    house.note((Kind.DELETE, b"a", b"", 5))
    house.keeper.close()
    house.begin()
    assert [version.pinned for version in house.versions.versions_of(0, b"a")] == [True]
    assert house.keeper.status()[0].status.pins == 1
    house.keeper.unpin("t1")
    assert [version.pinned for version in house.versions.versions_of(0, b"a")] == [False]


def test_a_version_is_exported_sealed(house: House, tmp_path: Path) -> None:
    journal = os.open(tmp_path, os.O_RDONLY)
    out = tmp_path / "out"
    out.mkdir()
    out_fd = os.open(out, os.O_RDONLY)
    (version,) = house.versions.versions_of(0, b"a")
    with envelope.Keyring() as keyring, envelope.Journal(journal) as log:
        key = envelope.random_bytes(32)
        keyring.add(key_id=bytes(16), version=1, purpose=envelope.Purpose.PRESERVE, key=key, seals=True)
        house.versions.export(version, out_fd, keyring, log, host_id=b"host")
        name = f"{version.name}.shield".encode()
        assert envelope.verify(out_fd, name, keyring).metadata.path == b"a"
        back = os.open(out / "plain", os.O_RDWR | os.O_CREAT)
        envelope.open_stream(out_fd, name, keyring, back)
    assert os.pread(back, 100, 0) == b"a"
    for fd in (journal, out_fd, back):
        os.close(fd)


def test_a_sealed_file_leaves_no_link_in_the_clear(house: House) -> None:
    house.keeper.sealed(0, [b"a"])
    assert os.stat(house.tree / "a").st_nlink == 1 and house.content(b"a") == []


def test_without_hard_links_it_says_so(mount: Callable[..., Path]) -> None:
    house = House(mount("tmpfs"), hardlinks=False)
    (house.tree / "a").write_bytes(b"a")
    house.begin()
    assert os.stat(house.tree / "a").st_nlink == 1
    assert "switched off" in house.keeper.status()[0].degraded[0]
    house.close()


def test_a_vault_that_is_not_ours_is_refused_and_told(mount: Callable[..., Path]) -> None:
    house = House(mount("tmpfs"))
    (house.base / ".shieldd-vault").mkdir(mode=0o777)
    os.chmod(house.base / ".shieldd-vault", 0o777)
    house.begin()
    assert house.troubles == ["preserve.unsafe"] and house.keeper.status() == ()
    with pytest.raises(ShieldError) as error:
        house.versions.versions_of(0, b"a")
    assert error.value.code == "preserve.unsafe"
    house.note((Kind.CREATE, b"a", b"", 0))
    house.close()


def test_where_the_configuration_says(mount: Callable[..., Path], tmp_path: Path) -> None:
    house = House(mount("tmpfs"))
    (house.base / "private").mkdir()
    house.begin({0: house.base / "private" / "kept"})
    assert house.keeper.status()[0].path == bytes(house.base / "private" / "kept")
    assert not (house.base / ".shieldd-vault").exists()
    house.close()
    house = House(mount("tmpfs"))
    house.begin({0: tmp_path / "elsewhere"})
    assert house.troubles == ["preserve.unsupported"]
    house.close()


def test_a_tree_that_is_a_whole_file_system(mount: Callable[..., Path]) -> None:
    base = mount("tmpfs")
    house = House(base, tree=base)
    (base / "a").write_bytes(b"a")
    house.begin()
    (held,) = house.keeper.held
    assert held.inside and house.content(b"a") == [b"a"]
    assert house.keeper.status()[0].status.links == 1  # nothing of the vault itself
    house.close()


def test_two_trees_of_one_file_system_share_a_vault(mount: Callable[..., Path]) -> None:
    base, other = mount("tmpfs"), mount("tmpfs")
    roots = [base / "one", base / "two", other / "three"]
    for root in roots:
        root.mkdir()
        (root / "f").write_bytes(bytes(root))
    fds = [os.open(root, os.O_RDONLY) for root in roots]
    trees = Trees([GuardedTree(i, bytes(root), fds[i]) for i, root in enumerate(roots)])
    keeper = Keeper(trees, PreserveSection())
    keeper.start()
    assert keeper.settled(DEADLINE_S)
    versions = Versions(keeper)
    assert [[tree.index for tree in held.trees] for held in keeper.held] == [[0, 1], [2]]
    assert [[v.path for v in versions.versions_of(i, b"f")] for i in range(3)] == [[b"f"]] * 3
    keeper.close()
    for fd in fds:
        os.close(fd)


def test_a_tree_that_is_bound_by_itself_as_in_a_sandbox(mount: Callable[..., Path], tmp_path: Path) -> None:
    """Links cannot cross mounts, even of one file system: the vault is at the top of the mount that we see."""
    base, bound = mount("tmpfs"), tmp_path / "bound"
    (base / "srv/tree").mkdir(parents=True)
    (base / "srv/tree/a").write_bytes(b"a")
    bound.mkdir()
    assert run("mount", "--bind", base / "srv", bound).returncode == 0
    try:
        house = House(base, tree=bound / "tree")
        house.begin()
        assert house.keeper.held[0].path == bytes(bound / ".shieldd-vault") and not house.keeper.held[0].inside
        assert house.content(b"a") == [b"a"] and not house.troubles
        house.close()
    finally:
        run("umount", bound)
