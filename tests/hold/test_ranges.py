"""Large files, kept by range as they are written, and truncate(2), which opens nothing. Needs Linux 6.14 and ext4."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shieldd.model.held import Cover, HeldKind, HoldOptions, Kept, Verdict

from .conftest import Held, holding, wait_for

pytestmark = pytest.mark.root

LIMIT = 1 << 20


@pytest.fixture
def held(own_ext4: Path) -> Iterator[Held]:
    """A hold whose limit for whole copies is low."""
    with holding(own_ext4, options=HoldOptions(whole_limit_bytes=LIMIT)) as one:
        if not one.hold.status().covers & Cover.RANGES:
            pytest.skip("this kernel does not tell ranges")
        yield one


def run(code: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", f"import os, sys; p = sys.argv[1]; {code}", path], check=True, timeout=60)


def stored(held: Held, version: int | None) -> bytes:
    assert version is not None
    return (held.vault / "images" / f"{version:016x}").read_bytes()


def test_a_small_file_cut_by_path_is_kept_whole(held: Held) -> None:
    for length in (0, 100, 4096, 5000):
        content = os.urandom(9000)
        path = held.file(f"a{length}", content)
        run(f"os.truncate(p, {length})", path)
        record = held.about(f"a{length}", HeldKind.TRUNCATE)
        assert record.kept is Kept.YES
        assert stored(held, record.version) == content
        assert path.stat().st_size == length


def test_a_large_file_is_kept_where_it_is_written(held: Held) -> None:
    content = os.urandom(3 * LIMIT)
    path = held.file("large", content)
    run("f = os.open(p, os.O_RDWR); os.pwrite(f, b'X' * 5000, 1_000_000); os.pwrite(f, b'Y', 2_500_000)", path)
    record = held.about("large", HeldKind.RANGE)
    wait_for(lambda: sum(one.kind is HeldKind.RANGE for one in held.seen) >= 2, "both ranges")
    kept = stored(held, record.version)
    for offset in (1_000_000, 1_004_999, 2_500_000):
        page = offset // 4096 * 4096
        assert kept[page : page + 4096] == content[page : page + 4096]
    assert not any(one.kind is HeldKind.OPEN and one.path == b"large" for one in held.seen)


def test_the_end_of_a_large_file_is_kept_when_it_is_cut(held: Held) -> None:
    content = os.urandom(3 * LIMIT)
    for how, name in (
        ("os.truncate(p, 2 << 20)", "by path"),
        ("os.ftruncate(os.open(p, os.O_RDWR), 2 << 20)", "by fd"),
    ):
        path = held.file(name, content)
        run(how, path)
        record = held.about(name, HeldKind.TRUNCATE)
        assert record.kept is Kept.YES
        assert stored(held, record.version)[2 << 20 :] == content[2 << 20 :]


def test_a_large_file_cut_by_its_open_is_kept_whole(held: Held) -> None:
    content = os.urandom(3 * LIMIT)
    path = held.file("large", content)
    run("open(p, 'wb').write(b'x')", path)
    record = held.about("large", HeldKind.TRUNCATE)
    assert record.kept is Kept.YES
    assert stored(held, record.version) == content


def test_reading_a_large_file_keeps_nothing(held: Held) -> None:
    path = held.file("large", os.urandom(3 * LIMIT))
    before = held.hold.status().counts
    run("open(p, 'rb').read(); import mmap; mmap.mmap(os.open(p, 0), 0, prot=mmap.PROT_READ, flags=2)", path)
    after = held.hold.status().counts
    assert after.held == before.held
    assert after.accesses > before.accesses


def test_a_denied_actor_cannot_write_through_what_it_has_open(held: Held) -> None:
    path = held.file("large", os.urandom(3 * LIMIT))
    code = (
        "f = os.open(p, os.O_RDWR); os.pwrite(f, b'X', 0); print('wrote', flush=True); os.read(0, 1);\n"
        "try: os.pwrite(f, b'Y', 1 << 20)\nexcept PermissionError: print('refused', flush=True)"
    )
    attacker = subprocess.Popen(
        [sys.executable, "-c", f"import os, sys; p = sys.argv[1]; {code}", path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert attacker.stdout
    assert attacker.stdout.readline() == "wrote\n"
    held.hold.set_verdict(held.about("large", HeldKind.RANGE).actor, Verdict.DENY)
    assert attacker.communicate("x")[0] == "refused\n"
