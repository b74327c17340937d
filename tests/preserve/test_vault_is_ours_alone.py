"""The vault's place is checked, and what was tampered with, torn or left half done is told and not offered."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shieldd.errors import ShieldError
from shieldd.native.preserve import Vault, VaultOptions, make

from .conftest import Bench, run

pytestmark = pytest.mark.root
OLD = random.Random(2).randbytes(9000)


def refused(parent: int) -> str:
    with pytest.raises(ShieldError) as error:
        os.close(make(parent))
    return error.value.code


def test_made_for_the_owner_alone(on: Callable[..., Bench]) -> None:
    bench = on()
    os.umask(0)
    bench.write("f", OLD)
    bench.image("f")
    for path in (bench.place, *bench.place.iterdir()):
        assert os.stat(path).st_mode & 0o7777 == 0o700
    for path in bench.place.rglob("*"):
        assert os.stat(path).st_mode & 0o077 == 0
    os.umask(0o022)


@pytest.mark.parametrize("what", ["symlink", "file", "owner", "mode", "inner mode", "inner symlink", "mount"])
def test_another_thing_in_its_place(on: Callable[..., Bench], mount: Callable[..., Path], what: str) -> None:
    bench = on()
    place = bench.place
    elsewhere = bench.base / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    match what:
        case "symlink":
            place.symlink_to(elsewhere)
        case "file":
            place.write_bytes(b"")
        case "owner":
            place.mkdir(mode=0o700)
            os.chown(place, 1000, 0)
        case "mode":
            place.mkdir()
            os.chmod(place, 0o750)
        case _:
            place.mkdir(mode=0o700)
            inner = place / "images"
            if what == "inner symlink":
                inner.symlink_to(elsewhere)
            else:
                inner.mkdir()
                os.chmod(inner, 0o711 if what == "inner mode" else 0o700)
            if what == "mount":
                assert run("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", inner).returncode == 0
    try:
        if what in ("symlink", "file", "owner", "mode"):
            assert refused(bench.parent) == "preserve.unsafe"
        else:
            with pytest.raises(ShieldError) as error:
                bench.open()
            assert error.value.code == "preserve.unsafe"
    finally:
        if what == "mount":
            run("umount", place / "images")
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("how", ["flipped", "shorter", "longer", "another file", "symlink", "second name", "gone"])
def test_a_copy_that_was_tampered_with(on: Callable[..., Bench], how: str) -> None:
    bench = on("ext4")
    bench.write("f", OLD)
    bench.write("g", OLD[::-1])
    version, other = bench.image("f"), bench.image("g")
    path = bench.place / "images" / f"{version:016x}"
    match how:
        case "flipped":
            with path.open("r+b") as file:
                file.write(bytes([OLD[0] ^ 1]))
        case "shorter":
            os.truncate(path, 8999)
        case "longer":
            os.truncate(path, 9001)
        case "another file":
            (bench.base / "forged").write_bytes(OLD)
            os.replace(bench.base / "forged", path)
        case "symlink":
            path.unlink()
            path.symlink_to(bench.tree / "f")
        case "second name":
            os.link(path, bench.base / "leak")
        case "gone":
            path.unlink()
    with pytest.raises(ShieldError) as error:
        bench.content(version)
    assert error.value.code == "preserve.damaged"
    assert [v.id for v in bench.v.find(tree=0)] == [other]
    assert bench.v.status().damaged == 1
    assert bench.content(other) == OLD[::-1]


def test_links_that_were_replaced_are_seen_at_start(on: Callable[..., Bench]) -> None:
    bench = on("ext4")
    for name in "abc":
        bench.write(name, OLD)
    one, two, three = bench.link("a", "b", "c")
    for name in "abc":
        (bench.tree / name).unlink()
    (bench.base / "forged").write_bytes(OLD)
    os.replace(bench.base / "forged", bench.place / "links" / f"{one:016x}")
    (bench.place / "links" / f"{two:016x}").unlink()
    (bench.place / "links" / "readme").write_bytes(b"")
    status = bench.again().status()
    assert (status.damaged, status.missing, status.foreign) == (1, 1, 1)
    assert [version.id for name in "abc" for version in bench.of(name)] == [three]
    assert bench.again().status().missing == 0  # said once, and gone from the records


def test_half_made_objects_are_swept_at_start(on: Callable[..., Bench]) -> None:
    bench = on()
    bench.write("f", OLD)
    kept = bench.image("f")
    (bench.place / "images" / f"{kept + 1:016x}").write_bytes(OLD[:100])
    (bench.place / "links" / f"{kept + 2:016x}").write_bytes(OLD[:100])
    status = bench.again().status()
    assert (status.swept, status.images, status.links) == (2, 1, 0)
    assert bench.content(kept) == OLD


def test_what_a_living_writer_makes_is_not_swept(on: Callable[..., Bench]) -> None:
    bench = on()
    bench.write("f", OLD)
    other = bench.open(index=False)
    with open(bench.tree / "f", "rb") as file:
        made = other.image(file.fileno(), 0, b"f", actor=1, at_ns=1)
    (bench.place / "images" / f"{made + 1:016x}").write_bytes(b"on its way")
    assert bench.v.status().swept == 0
    assert bench.content(made) == OLD
    other.close()
    assert bench.again().status().swept == 1


def test_every_cut_of_a_record_file(on: Callable[..., Bench]) -> None:
    """A torn tail costs the torn record, is told, and nothing else."""
    bench = on()
    for i in range(4):
        bench.write(f"f{i}", OLD[: 1000 + i])
        bench.image(f"f{i}")
    bench.v.close()
    bench.vault = None
    (log,) = (bench.place / "index").glob("*.log")
    whole = log.read_bytes()
    objects = sorted((bench.place / "images").iterdir())
    for path in objects:
        os.link(path, bench.base / path.name)
    versions = []
    for cut in range(0, len(whole), 7):
        log.write_bytes(whole[:cut])
        for path in objects:  # what was swept comes back, the same inode
            if not path.exists():
                os.link(bench.base / path.name, path)
        status = bench.again().status()
        versions.append(status.versions)
        assert status.versions + status.swept == 4 and (status.missing, status.damaged) == (0, 0)
        for i in range(status.versions):
            (one,) = bench.of(f"f{i}")
            assert one.size == 1000 + i
        bench.v.close()
        bench.vault = None
        for other in (bench.place / "index").glob("*.log"):
            if other != log:
                other.unlink()
    assert versions == sorted(versions) and versions[0] == 0 and versions[-1] == 3


def test_every_damaged_byte_of_a_record_file(on: Callable[..., Bench]) -> None:
    bench = on()
    for i in range(3):
        bench.write(f"f{i}", OLD[: 1000 + i])
    bench.link("f0", "f1", "f2")
    bench.v.close()
    bench.vault = None
    (log,) = (bench.place / "index").glob("*.log")
    whole = log.read_bytes()
    keep = {path.name: path for path in (bench.place / "links").iterdir()}
    for at in range(0, len(whole), 11):
        log.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        status = bench.again().status()
        assert status.damaged_bytes > 0
        assert status.versions in (2, 3)  # a record of a tree or one version
        for i in range(3):
            for version in bench.of(f"f{i}"):
                assert bench.content(version) == OLD[: 1000 + i]
        bench.v.close()
        bench.vault = None
        for i, name in enumerate(sorted(keep)):  # what was swept is put back
            if not keep[name].exists():
                os.link(bench.tree / f"f{i}", keep[name])
        for other in (bench.place / "index").glob("*.log"):
            if other != log:
                other.unlink()


def test_records_of_many_starts_are_merged(on: Callable[..., Bench]) -> None:
    bench = on()
    made = {}
    for i in range(8):
        bench.write(f"f{i}", OLD[: 100 * i + 1])
        made[bench.image(f"f{i}")] = OLD[: 100 * i + 1]
        bench.v.pin(b"incident", 5, 7)
        bench.again()
    gone = next(iter(made))
    bench.v.forget([gone])
    del made[gone]
    before = len(list((bench.place / "index").glob("*.log")))
    assert bench.v.compact() == before - 1
    for _ in range(2):
        assert {version.id: bench.content(version) for version in bench.v.find(tree=0)} == made
        status = bench.v.status()
        assert (status.pins, status.missing, status.damaged_bytes) == (1, 0, 0)
        bench.again()
    new = bench.image("f1")
    assert new not in made and new >> 32 > max(made) >> 32


def test_a_crash_in_the_middle_of_merging(on: Callable[..., Bench]) -> None:
    """The merged file is there, the old ones are too: they go, nothing counts twice, nothing forgotten comes back."""
    bench = on()
    for i in range(6):
        bench.write(f"f{i}", OLD)
        bench.image(f"f{i}")
        bench.again()
    forgotten = bench.of("f0")[0].id
    bench.v.forget([forgotten])
    index = bench.place / "index"
    old = {path: path.read_bytes() for path in index.glob("*.log")}
    assert bench.v.compact()
    bench.v.close()
    bench.vault = None
    for path, content in old.items():
        if not path.exists():
            path.write_bytes(content)
    status = bench.again().status()
    assert (status.versions, status.missing) == (5, 0)
    assert not bench.of("f0")


def test_a_tree_that_is_not_guarded_any_more(on: Callable[..., Bench]) -> None:
    bench = on()
    bench.write("f", OLD)
    version = bench.image("f")
    bench.v.close()
    fd = make(bench.parent)
    bench.vault = Vault(fd, VaultOptions(trees=((0, b"/elsewhere"), (3, bytes(bench.tree)))))
    os.close(fd)
    assert bench.v.version(version).tree == 3
    assert [v.id for v in bench.v.find(path=b"f", tree=3)] == [version]


def test_on_a_file_system_that_became_read_only(on: Callable[..., Bench]) -> None:
    bench = on("ext4")
    bench.write("f", OLD)
    kept = bench.image("f")
    assert run("mount", "-o", "remount,abort", bench.base).returncode == 0  # as after an error of the disk
    with pytest.raises(ShieldError) as error:
        bench.image("f", actor=3)
    assert error.value.code == "file.readonly"
    with pytest.raises(ShieldError) as error:
        bench.link("f")
    assert error.value.code == "file.readonly"
    assert bench.content(kept) == OLD
    with pytest.raises(ShieldError) as error:
        bench.open()
    assert error.value.code == "file.readonly"


def test_a_file_system_without_hard_links(on: Callable[..., Bench]) -> None:
    bench = on("vfat", "umask=0077")
    bench.write("f", OLD)
    walk = bench.v.walk(bench.root, 0)
    with pytest.raises(ShieldError) as error:
        walk.step(10, 1)
    assert error.value.code == "preserve.unsupported"
    assert not bench.v.status().hardlinks
    assert bench.content(bench.image("f")) == OLD


WITHOUT_LINKS = """
import os, sys
from shieldd.errors import ShieldError
from shieldd.native.preserve import Vault, VaultOptions, make
base, tree = os.open(sys.argv[1], os.O_RDONLY), os.open(os.path.join(sys.argv[1], "tree"), os.O_RDONLY)
vault = Vault(make(base), VaultOptions(trees=((0, b"/tree"),)))
for turn in range(2):
    try:
        vault.walk(tree, 0).step(10, 1)
    except ShieldError as error:
        print(error.code)
with open(os.path.join(sys.argv[1], "tree", "f"), "rb") as file:
    image = vault.image(file.fileno(), 0, b"f", actor=1, at_ns=1)
print(vault.status().hardlinks, os.fstat(vault.open(image)).st_size)
"""


def test_a_kernel_that_refuses_every_hard_link(on: Callable[..., Bench]) -> None:
    """What vfat, exfat and some network file systems do, where the kernel here knows none of them."""
    if shutil.which("strace") is None:
        pytest.skip("no strace here: a file system without hard links is not tested")
    bench = on()
    bench.write("f", OLD)
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=linkat:error=EPERM")
    done = run(*inject, sys.executable, "-c", WITHOUT_LINKS, bench.base)
    assert done.stdout.split() == ["preserve.unsupported", "preserve.unsupported", "False", "9000"], done.stderr
