"""Whatever is done to a file, what it was comes back from the vault, byte for byte."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from shieldd.errors import ShieldError
from shieldd.model.version import Keep

from .conftest import ACTOR, Bench

pytestmark = pytest.mark.root
FILE_SYSTEMS = ("tmpfs", "ext4", "btrfs", "xfs")
OLD = random.Random(1).randbytes(20_000)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_deleted_file_and_one_renamed_over(on: Callable[..., Bench], kind: str) -> None:
    bench = on(kind)
    bench.write("deleted", OLD)
    bench.write("deep/er/replaced", OLD[:999])
    assert bench.walk() == 2
    (bench.tree / "deleted").unlink()
    os.replace(bench.write("new", b"new"), bench.tree / "deep/er/replaced")
    for name, content in (("deleted", OLD), ("deep/er/replaced", OLD[:999])):
        (version,) = bench.of(name)
        assert version.kind is Keep.LINK and version.orphan and not version.changed
        assert bench.content(version) == content
        assert version.nlink == 1  # ours is not counted


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
@pytest.mark.parametrize("size", [0, 1, 4096, 20_000, 256 << 10, (256 << 10) + 1, 3_000_000])
def test_an_overwritten_and_a_truncated_file(on: Callable[..., Bench], kind: str, size: int) -> None:
    bench = on(kind)
    content = random.Random(size).randbytes(size)
    path = bench.write("f", content)
    os.chown(path, 12, 34)
    os.chmod(path, 0o4751)
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    before = bench.image("f")
    path.write_bytes(b"shorter")
    after = bench.image("f")
    first, second = bench.of("f")
    assert (first.id, second.id) == (before, after)
    assert bench.content(before) == content and bench.content(after) == b"shorter"
    assert (first.mode & 0o7777, first.uid, first.gid, first.mtime_ns) == (0o4751, 12, 34, 2_000_000_002)
    assert (first.kind, first.actor, first.size, first.path) == (Keep.IMAGE, ACTOR, size, b"f")
    assert [version.id for version in bench.v.find(actor=ACTOR)] == [before, after]
    assert bench.v.find(actor=ACTOR, since_ns=second.at_ns)[0].id == after


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_a_file_system_that_shares_blocks_stores_nothing_twice(on: Callable[..., Bench], kind: str) -> None:
    bench = on(kind)
    content = random.Random(9).randbytes(8 << 20)
    path = bench.write("big", content)
    bench.again(whole_limit=4096, quota=100_000)
    version = bench.v.version(bench.image("big"))
    assert version.stored == 0 and bench.v.status().clones
    path.write_bytes(b"")
    assert bench.content(version) == content


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_holes_stay_holes(on: Callable[..., Bench], kind: str) -> None:
    bench = on(kind)
    path = bench.tree / "sparse"
    with path.open("wb") as file:
        file.seek(1 << 20)
        file.write(OLD)
        file.truncate(24 << 20)
    content = path.read_bytes()
    version = bench.image("sparse")
    path.write_bytes(b"x")
    assert bench.content(version) == content
    fd = bench.v.open(version)
    assert os.fstat(fd).st_blocks * 512 < 1 << 20
    os.close(fd)


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_attributes_are_in_the_record(on: Callable[..., Bench], kind: str) -> None:
    bench = on(kind)
    path = bench.write("f", OLD)
    os.setxattr(path, "trusted.ward", b"\0\xff" * 100)
    bench.image("f")
    bench.link("f")
    for version in bench.of("f"):
        assert (b"trusted.ward", b"\0\xff" * 100) in version.xattrs and not version.xattrs_partial


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "xfs"])
def test_a_large_file_range_by_range(on: Callable[..., Bench], kind: str) -> None:
    """Random writes, a truncation, growth: what the file was before the first of them and before the last."""
    bench = on(kind)
    draw = random.Random(5)
    content = draw.randbytes(2_000_003)
    path = bench.write("large", content)
    with path.open("r+b") as file:

        def keep(offset: int, length: int, actor: int) -> int:
            bench.at_ns += 1
            return bench.v.keep_range(
                file.fileno(), 0, b"large", actor=actor, at_ns=bench.at_ns, offset=offset, length=length
            )

        def write(offset: int, data: bytes, actor: int) -> int:
            version = keep(offset, len(data), actor)
            os.pwrite(file.fileno(), data, offset)
            return version

        first = {write(draw.randrange(2_000_000), draw.randbytes(draw.randrange(1, 9000)), ACTOR) for _ in range(200)}
        assert len(first) == 1
        halfway = path.read_bytes()
        second = {write(draw.randrange(2_000_000), draw.randbytes(5000), ACTOR + 1) for _ in range(50)}
        second |= {keep(1_000_000, 1_000_003, ACTOR + 1)}
        os.ftruncate(file.fileno(), 1_000_000)
        os.pwrite(file.fileno(), b"end", 3_000_000)
        assert len(second) == 1
        for version, expected in ((first.pop(), content), (second.pop(), halfway)):
            fd = bench.v.assemble(version, file.fileno())
            with os.fdopen(fd, "rb") as whole:
                assert whole.read() == expected
    stored = bench.v.find(path=b"large", tree=0)[0].stored
    assert stored < 2_000_003
    assert sorted(os.listdir(bench.place / "images")) == sorted(v.name for v in bench.of("large"))


def test_what_is_too_large_is_said(on: Callable[..., Bench]) -> None:
    bench = on("ext4")
    bench.again(whole_limit=4096)
    bench.write("f", OLD)
    bench.write("small", OLD[:4096])
    bench.image("small")
    for _ in range(2):
        with pytest.raises(ShieldError) as refused:
            bench.image("f")
        assert refused.value.code == "preserve.large"
    assert bench.v.status().too_large == 2


def test_one_state_is_copied_once(on: Callable[..., Bench]) -> None:
    bench = on()
    path = bench.write("f", OLD)
    os.utime(path, ns=(0, 0))
    now = os.stat(path).st_ctime_ns + 10**9
    first = bench.image("f", at_ns=now)
    assert bench.image("f", at_ns=now + 1) == first
    other = bench.image("f", actor=ACTOR + 1, at_ns=now + 2)
    assert other != first
    assert bench.v.version(other).object_id == first and bench.content(other) == OLD
    path.write_bytes(OLD[::-1])
    assert bench.content(bench.image("f", at_ns=now + 10**10)) == OLD[::-1]
    assert len(os.listdir(bench.place / "images")) == 2
    bench.v.forget([first])
    assert bench.content(other) == OLD  # the object stays for as long as a version needs it


def test_a_write_within_the_clocks_tick_is_another_state(on: Callable[..., Bench]) -> None:
    bench = on("ext4")
    for turn in range(50):
        content = bytes([turn]) * 8192
        bench.write("f", content)
        assert bench.content(bench.image("f", at_ns=os.stat(bench.tree / "f").st_ctime_ns)) == content


def test_equal_content_is_kept_once_in_quiet_moments(on: Callable[..., Bench]) -> None:
    bench = on()
    names = [f"copy{i}" for i in range(10)]
    for name in names:
        bench.write(name, OLD)
        bench.image(name)
    settled = bench.v.settle(now_ns=bench.later_ns, budget_bytes=1 << 30)
    assert (settled.digested, settled.shared, settled.left, settled.damaged) == (10, 9, 0, 0)
    assert len(os.listdir(bench.place / "images")) == 1
    for _ in range(2):
        versions = [bench.of(name)[0] for name in names]
        assert {bench.content(version) for version in versions} == {OLD}
        assert len({version.digest for version in versions}) == 1 and versions[0].digest
        bench.again()
    bench.v.forget([bench.of(names[0])[0].id])
    assert bench.content(bench.of(names[1])[0]) == OLD


def test_a_renamed_file_is_found_under_both_names(on: Callable[..., Bench]) -> None:
    bench = on()
    bench.write("old", OLD)
    bench.walk()
    os.rename(bench.tree / "old", bench.tree / "new")
    bench.link("new")
    bench.link("new")
    (bench.tree / "new").unlink()
    for name in ("old", "new"):
        (version,) = bench.of(name)
        assert bench.content(version) == OLD
    assert len(os.listdir(bench.place / "links")) == 1


def test_a_link_says_that_its_content_was_written_since(on: Callable[..., Bench]) -> None:
    bench = on()
    path = bench.write("f", OLD)
    bench.link("f")
    path.write_bytes(b"ciphertext")
    assert bench.of("f")[0].changed


def test_only_regular_files_of_this_file_system(on: Callable[..., Bench]) -> None:
    bench, other = on(), on()
    os.mkfifo(bench.tree / "fifo")
    os.symlink("fifo", bench.tree / "symlink")
    os.mkdir(bench.tree / "dir")
    os.symlink(other.tree, bench.tree / "out")
    bench.write("f", OLD)
    other.write("f", OLD)
    paths = {b"fifo": "file.not-regular", b"symlink": "file.not-regular", b"dir": "file.not-regular"}
    paths |= {b"out/f": "file.symlink", b"none": "file.missing", b"../tree/f": "file.outside", b"/f": "file.outside"}
    answers = bench.v.link_many(bench.root, 0, list(paths), [0] * len(paths), 1)
    assert [answer.code for answer in answers if isinstance(answer, ShieldError)] == list(paths.values())
    with open(other.tree / "f", "rb") as foreign, pytest.raises(ShieldError) as refused:
        bench.v.image(foreign.fileno(), 0, b"f", actor=1, at_ns=1)
    assert refused.value.code == "file.mount"
    assert os.listdir(bench.place / "links") == []
