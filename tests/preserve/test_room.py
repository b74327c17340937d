"""The vault stays within its quota, leaves the file system room, and lets the least valuable go first."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from shieldd.errors import ShieldError

from .conftest import ACTOR, Bench

pytestmark = pytest.mark.root
S = 1_000_000_000


def content(i: int, size: int = 8192) -> bytes:
    return random.Random(i).randbytes(size)


def test_a_full_file_system_gets_no_copies(on: Callable[..., Bench]) -> None:
    bench = on("tmpfs", "size=2m")
    bench.again(min_free=1 << 20)
    made, codes = [], set()
    for i in range(400):
        bench.write("f", content(i))
        try:
            made.append((i, bench.image("f")))
        except ShieldError as error:
            codes.add(error.code)
    assert codes == {"preserve.space"}
    room = os.statvfs(bench.base)
    assert room.f_bavail * room.f_frsize >= (1 << 20) - 65_536
    assert bench.v.status().no_room == 400 - len(made) > 0
    assert [bench.content(version) for _, version in made] == [content(i) for i, _ in made]
    bench.link("f")  # a link costs nothing


def test_a_file_system_that_is_full_to_the_brim(on: Callable[..., Bench]) -> None:
    """Without a floor: the copy fails, nothing of it stays, the vault is whole."""
    bench = on("tmpfs", "size=2m")
    bench.write("f", content(1, 100_000))
    kept = [bench.image("f")]
    with open(bench.base / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
        while ballast.write(bytes(4096)):
            continue
    for turn in range(3):
        with pytest.raises(ShieldError) as error:
            bench.image("f", actor=turn)
        assert error.value.code in ("file.full", "preserve.space")
    (bench.base / "ballast").unlink()
    kept.append(bench.image("f", actor=9))
    status = bench.again().status()
    assert (status.damaged, status.missing) == (0, 0)
    assert [bench.content(version) for version in kept] == [content(1, 100_000)] * 2


def test_what_the_quota_leaves_is_told_to_other_writers(on: Callable[..., Bench]) -> None:
    bench = on()
    bench.again(quota=100_000)
    answerer = bench.open(index=False, quota=100_000)
    bench.write("f", content(1))

    def images() -> int:
        made = 0
        with open(bench.tree / "f", "rb") as file:
            for i in range(100):
                try:
                    answerer.image(file.fileno(), 0, b"f%d" % i, actor=i + 1, at_ns=os.fstat(file.fileno()).st_ctime_ns)
                    made += 1
                except ShieldError as error:
                    assert error.code == "preserve.quota"
        return made

    first = images()
    assert first == 100_000 // 8192
    left = bench.evict(bytes_max=100_000, now_ns=time.time_ns())
    assert left.used == first * 8192 and left.evicted == 0  # too young to go
    assert images() == 0
    left = bench.evict(bytes_max=20_000)
    assert left.used <= 20_000 and not left.over
    assert images() == (20_000 - left.used) // 8192
    answerer.close()


def test_too_old_goes_and_a_link_counts_from_its_files_end(on: Callable[..., Bench]) -> None:
    bench = on()
    now = time.time_ns()
    for name in ("old", "new", "linked", "living"):
        bench.write(name, content(1))
    old = bench.image("old", at_ns=now - 100_000 * S)
    new = bench.image("new", at_ns=now)
    linked, living = bench.link("linked", "living", at_ns=now - 100_000 * S)
    (bench.tree / "linked").unlink()
    left = bench.evict(age_ns=50_000 * S, now_ns=now)
    assert left.expired == 1
    assert {version.id for version in bench.v.find(tree=0, standing=True)} == {new, linked, living}
    left = bench.evict(age_ns=50_000 * S, now_ns=now + 60_000 * S)
    assert left.expired == 2
    assert [version.id for version in bench.v.find(tree=0, standing=True)] == [living]
    assert old not in {version.id for version in bench.v.find(tree=0)}
    assert os.listdir(bench.place / "images") == []


def test_temporaries_go_before_old_versions(on: Callable[..., Bench]) -> None:
    bench = on()
    now = time.time_ns()
    for name in ("report", "scratch", "later"):
        bench.write(name, content(1))
    (report,) = bench.link("report", at_ns=now - 5000 * S)  # lived long
    (scratch,) = bench.link("scratch", at_ns=now)  # a moment
    later = bench.image("later", at_ns=now)
    (bench.tree / "report").unlink()
    (bench.tree / "scratch").unlink()
    bench.evict()
    assert bench.evict(bytes_max=20_000).evicted == 1
    assert {v.id for v in bench.v.find(tree=0)} == {report, later}
    bench.evict(bytes_max=10_000)
    assert [v.id for v in bench.v.find(tree=0)] == [later] or [v.id for v in bench.v.find(tree=0)] == [report]
    assert scratch not in {v.id for v in bench.v.find(tree=0)}


def test_what_an_open_incident_needs_stays(on: Callable[..., Bench]) -> None:
    bench = on()
    now = time.time_ns()
    for i in range(6):
        bench.write(f"f{i}", content(i))
    theirs = [bench.image(f"f{i}", at_ns=now + i) for i in range(2)]
    earlier = bench.image("f2", at_ns=now - 100 * S)
    others = bench.image("f3", actor=ACTOR + 1, at_ns=now)
    (deleted,) = bench.link("f4", at_ns=now - 1000 * S)
    bench.v.pin(b"incident", ACTOR, now)
    (bench.tree / "f4").unlink()
    for _ in range(2):
        left = bench.evict(bytes_max=1, age_ns=60 * S, min_free=1 << 62)
        assert left.over and left.pinned == 3 * 8192
        assert {version.id for version in bench.v.find(tree=0)} == {*theirs, deleted}
        assert all(version.pinned for version in bench.v.find(tree=0))
        bench.again()  # pins outlive a restart
    bench.v.unpin(b"incident")
    left = bench.evict(bytes_max=1, age_ns=10**18)
    assert left.used == 0 and not left.over
    assert earlier and others and os.listdir(bench.place / "images") == os.listdir(bench.place / "links") == []


def test_too_many_versions(on: Callable[..., Bench]) -> None:
    bench = on()
    for i in range(30):
        bench.write(f"f{i}", content(i, 100))
    bench.walk()
    for i in range(5):
        bench.image(f"f{i}")
    left = bench.evict(versions_max=32)
    assert (left.evicted, left.versions) == (3, 32)
    assert bench.evict(versions_max=20).over  # files that live keep their links
    bench.write("one more", b"x")
    with pytest.raises(ShieldError) as error:
        bench.link("one more")
    assert error.value.code == "preserve.full"
    assert bench.image("one more")
    bench.evict(versions_max=100)
    bench.link("one more")


def test_low_space_takes_from_the_vault_first(on: Callable[..., Bench]) -> None:
    bench = on("tmpfs", "size=4m")
    for i in range(20):
        bench.write("f", content(i, 100_000))
        bench.image("f", actor=i + 1)
    room = os.statvfs(bench.base)
    free = room.f_bavail * room.f_frsize
    left = bench.evict(min_free=free + 450_000)
    assert left.evicted == 5 and left.free >= free + 450_000
    actors = [version.actor for version in bench.v.find(tree=0)]
    assert actors == list(range(6, 21))  # the oldest went
