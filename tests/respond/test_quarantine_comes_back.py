"""Quarantine takes a file away whole and brings it back whole, or does nothing at all."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from shieldd.errors import ShieldError
from shieldd.model.decision import Outcome
from shieldd.native import envelope
from shieldd.respond.privileges import left_out

from .conftest import Bench

ODD_NAMES = [b"plain.exe", b"two\nlines", b"\x1b[31mred", b"\xff\xfe", b"x" * 248]


def _drop(bench: Bench, name: bytes, content: bytes = b"malware " * 100) -> bytes:
    path = os.path.join(os.fsencode(bench.root), name)
    Path(os.fsdecode(path)).write_bytes(content)
    os.chmod(path, 0o640)
    os.setxattr(path, b"user.origin", b"mail")
    os.utime(path, ns=(1_000_000_000_000_000_001, 1_500_000_000_000_000_007))
    return path


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
def test_an_object_comes_back_with_everything_it_had(bench: Bench, name: bytes) -> None:
    path = _drop(bench, name)
    before = os.stat(path)

    held = bench.quarantine.add(bench.tree, name, threat_id="t1", why="signature:eicar")

    assert not os.path.lexists(path)
    stored = bench.store / f"{held.id}.shield"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert b"malware" not in stored.read_bytes()
    assert (held.original, held.why, held.threat_id) == (path, "signature:eicar", "t1")

    _, place, _ = bench.quarantine.restore(held.id, why="asked for")

    after = os.stat(place)
    assert place == path
    assert Path(os.fsdecode(path)).read_bytes() == b"malware " * 100
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
        before.st_mtime_ns,
    )
    assert os.getxattr(path, b"user.origin") == b"mail"
    assert not stored.exists()
    assert [x.outcome for x in bench.ledger.ended] == [Outcome.DONE, Outcome.DONE]
    assert bench.lists.held_now == {}


def test_restore_never_overwrites_and_keeps_the_object(bench: Bench) -> None:
    path = _drop(bench, b"a.exe")
    held = bench.quarantine.add(bench.tree, b"a.exe", why="x")
    Path(os.fsdecode(path)).write_bytes(b"something newer")

    with pytest.raises(ShieldError) as refused:
        bench.quarantine.restore(held.id, why="asked for")

    assert refused.value.code == "file.exists"
    assert Path(os.fsdecode(path)).read_bytes() == b"something newer"
    assert list(bench.quarantine.objects()) == [held.id]
    assert bench.ledger.ended[-1].outcome is Outcome.FAILED


def test_restore_never_follows_a_link(bench: Bench, tmp_path: Path) -> None:
    (bench.root / "sub").mkdir()
    _drop(bench, b"sub/a.exe")
    held = bench.quarantine.add(bench.tree, b"sub/a.exe", why="x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (bench.root / "sub").rmdir()
    (bench.root / "sub").symlink_to(outside)

    with pytest.raises(ShieldError) as refused:
        bench.quarantine.restore(held.id, why="asked for")

    assert refused.value.code in ("file.symlink", "file.race")
    assert list(outside.iterdir()) == []
    assert list(bench.quarantine.objects()) == [held.id]


def test_restore_to_another_directory(bench: Bench, tmp_path: Path) -> None:
    _drop(bench, b"a.exe")
    held = bench.quarantine.add(bench.tree, b"a.exe", why="x")
    other = tmp_path / "other"
    other.mkdir()

    _, place, _ = bench.quarantine.restore(held.id, to=os.fsencode(other), why="asked for")

    assert place == os.fsencode(other / "a.exe")
    assert (other / "a.exe").read_bytes() == b"malware " * 100
    link = tmp_path / "link"
    link.symlink_to(other)
    _drop(bench, b"b.exe")
    again = bench.quarantine.add(bench.tree, b"b.exe", why="x")
    (other / "below").mkdir()
    for through in (link, link / "below"):
        with pytest.raises(ShieldError) as refused:
            bench.quarantine.restore(again.id, to=os.fsencode(through), why="asked for")
        assert refused.value.code == "file.symlink"
    assert list((other / "below").iterdir()) == []
    assert list(bench.quarantine.objects()) == [again.id]


def test_the_list_is_rebuilt_from_the_objects_alone(bench: Bench) -> None:
    wanted = []
    for name in (b"one.exe", b"two\n.exe"):
        _drop(bench, name)
        wanted.append(bench.quarantine.add(bench.tree, name, threat_id="t9", why="why | with a bar"))
    bench.lists.held_now.clear()
    (bench.store / "q000000000000000000000.shield").write_bytes(b"rubbish")

    count, bad = bench.quarantine.rebuild()

    assert count == 2
    assert [code.code for _, code in bad] in (["envelope.magic"], ["envelope.truncated"])
    assert sorted(bench.lists.held_now.values(), key=lambda x: x.id) == sorted(wanted, key=lambda x: x.id)


@pytest.mark.parametrize("make", ["hardlink", "fifo", "directory", "symlink", "missing"])
def test_what_cannot_be_taken_is_left_alone(bench: Bench, make: str) -> None:
    target = bench.root / "target"
    if make == "hardlink":
        target.write_bytes(b"shared")
        os.link(target, bench.root / "other")
    elif make == "fifo":
        os.mkfifo(target)
    elif make == "directory":
        target.mkdir()
    elif make == "symlink":
        target.symlink_to("/etc/passwd")
    before = sorted(os.listdir(bench.root))

    with pytest.raises(ShieldError) as refused:
        bench.quarantine.add(bench.tree, b"target", why="x")

    wanted = {
        "hardlink": "file.hardlinks",
        "fifo": "file.not-regular",
        "directory": "file.directory",
        "symlink": "file.symlink",
        "missing": "file.missing",
    }
    assert refused.value.code == wanted[make]
    assert sorted(os.listdir(bench.root)) == before
    assert list(bench.quarantine.objects()) == []
    assert bench.ledger.ended[-1].outcome is Outcome.FAILED


def test_another_file_of_the_same_name_is_not_taken(bench: Bench) -> None:
    path = _drop(bench, b"a.exe")
    judged = os.stat(path)
    os.rename(path, path + b".kept")  # keeps the inode in use, so that the new file has another one
    _drop(bench, b"a.exe", b"innocent")

    with pytest.raises(ShieldError) as refused:
        bench.quarantine.add(bench.tree, b"a.exe", why="x", inode=(judged.st_dev, judged.st_ino))

    assert refused.value.code == "file.race"
    assert Path(os.fsdecode(path)).read_bytes() == b"innocent"


def test_nothing_happens_when_the_intent_cannot_be_recorded(bench: Bench) -> None:
    path = _drop(bench, b"a.exe")
    bench.ledger.refuse = ShieldError("store.full")

    with pytest.raises(ShieldError) as refused:
        bench.quarantine.add(bench.tree, b"a.exe", why="x")

    assert refused.value.code == "store.full"
    assert os.path.exists(path)
    assert list(bench.quarantine.objects()) == []


def test_purge_is_recorded_and_final(bench: Bench) -> None:
    _drop(bench, b"a.exe")
    held = bench.quarantine.add(bench.tree, b"a.exe", why="x")

    bench.quarantine.purge(held.id, why="asked for")

    assert list(bench.quarantine.objects()) == []
    assert bench.ledger.intents[-1].reason == "purged: asked for"
    assert bench.counted == [1]


def test_powers_are_not_given_back_and_that_is_said(bench: Bench) -> None:
    file = bench.root / "tool"
    for mode, words in ((0o6755, "set-user-ID bit, set-group-ID bit"), (0o755, "")):
        file.write_bytes(b"x" * 100)
        file.chmod(mode)
        held = bench.quarantine.add(bench.tree, b"tool", why="test")
        *_, left = bench.quarantine.restore(held.id, why="asked for")
        said = f"not given back: {words}" if words else ""
        assert (left, stat.S_IMODE(file.stat().st_mode)) == (said, 0o755)
        assert bench.ledger.ended[-1].reason == f"asked for; {said}".removesuffix("; ")
        file.chmod(mode)
        sealed = bench.sealer.seal(bench.tree, b"tool", why="test")
        opened = bench.sealer.open(bench.tree, sealed.to, why="asked for")
        assert (opened.reason, stat.S_IMODE(file.stat().st_mode)) == (said, 0o755)
        assert bench.ledger.ended[-1].reason == f"asked for; {said}".removesuffix("; ")


def test_what_was_left_out_is_named(bench: Bench) -> None:
    (bench.root / "f").write_bytes(b"x")
    sealed = bench.sealer.seal(bench.tree, b"f", why="test")
    opened = envelope.open_sealed(bench.tree.root_fd, sealed.to, bench.sealer._keyring, bench.sealer._journal)
    many = (b"security.capability", *(b"user.%d" % number for number in range(7)))
    assert left_out(replace(opened, skipped=many)) == (
        "not given back: file capabilities, attribute user.0, attribute user.1, attribute user.2, attribute user.3,"
        " attribute user.4, 2 other attributes"
    )
