"""The real daemon as an admin works it: what was deleted or replaced comes back, and what did not is counted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shieldctl.drill import drops
from shieldd.errors import ShieldError
from tests.respond.restoring import Whole, state

from .running import Running, until

FILES = 60
FENCE = b"fence-"


def lay_out(tree: Path, count: int = FILES) -> Path:
    """A ward with everything that files can have; nothing of it is left in the clear elsewhere."""
    ward = tree / "ward"
    ward.mkdir()
    for number in range(count):
        path = ward / f"{number:03d}.csv"
        path.write_text(f"patient;value\n{number};" + "7.2\n" * 400)
        path.chmod((0o640, 0o600, 0o444)[number % 3])
        os.setxattr(path, b"user.study", b"%d" % number)
        os.utime(path, ns=(1_700_000_000_000_000_000 + number, 1_600_000_000_123_456_789 + number))
        if os.geteuid() == 0:
            os.chown(path, 1000 + number, 2000)
    with (ward / "sparse.img").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"data in the middle")
    os.link(ward / "000.csv", ward / "another name.csv")
    return ward


def whole(tree: Path) -> dict[bytes, Whole]:
    """Every file but the fences."""
    return {path: one for path, one in state(os.fsencode(tree)).items() if not path.startswith(FENCE)}


def linked(guard: Running) -> None:
    """Returns when the keeper is through with what there is."""

    def settled() -> bool:
        (vault,) = guard.client.get("/v1/status")["preserve"]["vaults"]
        return not vault["linking"] and vault["files"] >= FILES

    guard.fence()
    until("all files linked", settled)


def attacked(guard: Running, files: int = FILES) -> dict[str, Any]:
    """The one threat, when all is counted: without a fence, which would be somebody's work in the attack's own time."""

    def counted() -> dict[str, Any] | None:
        threats: list[dict[str, Any]] = guard.client.get("/v1/threats", limit=10)["items"]
        return next(
            (x for x in threats if x["files_preserved"] and x["files_preserved"] + x["files_lost"] >= files), None
        )

    return until("what can come back counted", counted)


@pytest.fixture
def guard(ground: Path) -> Iterator[Running]:
    """A daemon that found the ward when it came: who deletes what it has just made itself is no attacker."""
    running = Running(ground)
    lay_out(running.tree)
    running.start()
    linked(running)
    yield running
    assert running.process is not None
    if running.process.poll() is None:
        assert running.stop() == 0, running.log.read_text()[-2000:]


@pytest.fixture
def ward(guard: Running) -> Path:
    return guard.tree / "ward"


def test_a_deleted_tree_comes_back(guard: Running, ward: Path) -> None:
    before = whole(guard.tree)
    assert os.stat(ward / "001.csv").st_nlink == 2, "one more link, and it is said so in shieldd.toml(5)"
    subprocess.run(["rm", "-rf", ward], check=True)
    threat = attacked(guard)
    assert threat["files_lost"] == 0 and threat["files_preserved"] >= len(before) - 4
    assert threat["files_per_s"] > 0
    shown = guard.ctl("threats", "show", threat["id"]).stdout
    assert f"preserved\t{threat['files_preserved']}\n" in shown and "files lost\t0\n" in shown
    plan = guard.json("restore", "plan", threat["id"])
    assert plan["plan"]["lost"] == 0 and plan["plan"]["back"] >= len(before) - 4
    assert not ward.exists(), "a plan does nothing"
    guard.ctl("restore", "run", threat["id"], "--yes")
    assert whole(guard.tree) == before
    assert (ward / "sparse.img").stat().st_blocks * 512 < 1 << 20
    guard.fence()  # the first since
    assert {x["id"] for x in guard.client.get("/v1/threats")["items"]} == {threat["id"]}, "our own work is no attack"
    assert "restore.unfinished" not in {x["code"] for x in guard.client.get("/v1/status")["troubles"]}


def test_files_that_were_replaced_come_back_and_the_note_goes(guard: Running, ward: Path) -> None:
    before = whole(guard.tree)
    program = """
import os, sys
for name in sorted(os.listdir(".")):
    with open("../../x", "wb") as file:
        file.write(os.urandom(3000))
    os.replace("../../x", name)
open("HOW_TO_DECRYPT.txt", "w").write("All your files have been encrypted. Pay 1 bitcoin.")
"""
    subprocess.run([sys.executable, "-c", program], cwd=ward, check=True)
    threat = attacked(guard)
    assert threat["files_lost"] == 0
    guard.ctl("restore", "run", threat["id"], "--yes")
    after = whole(guard.tree)
    assert {path: one for path, one in after.items() if path in before} == before
    assert set(after) == set(before), "what the attacker planted is in quarantine"
    assert guard.quarantined(ward)


def test_what_was_overwritten_in_place_is_counted_as_lost(guard: Running, ward: Path) -> None:
    """Nobody holds opens in personal mode: the content is gone when the kernel tells of it, and that is said."""
    before = whole(guard.tree)
    program = """
import os
names = sorted(name for name in os.listdir(".") if name[:3].isdigit())
for name in names[:30]:
    with open(name, "r+b") as file:
        file.write(os.urandom(os.path.getsize(name)))
for name in names[30:]:
    os.unlink(name)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ward, check=True)
    threat = attacked(guard)
    assert threat["files_lost"] == 30 and threat["files_preserved"] >= FILES - 30
    plan = guard.json("restore", "plan", threat["id"])
    assert plan["plan"]["lost"] == 30
    means = guard.client.get("/v1/status")["preserve"]["means"]
    assert "overwritten" in means and "not kept" in means
    guard.ctl("restore", "run", threat["id"], "--yes", expect=None)
    after = whole(guard.tree)
    kept = [b"ward/%03d.csv" % number for number in range(30, FILES)]
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}


@pytest.mark.parametrize("after", [1, 25])
def test_a_restore_that_was_killed_is_gone_on_with(ground: Path, after: int) -> None:
    guard = Running(ground)
    ward = lay_out(guard.tree, 400)
    guard.start()
    linked(guard)
    before = whole(guard.tree)
    shutil.rmtree(ward)
    threat = attacked(guard, 400)
    lines = guard.client.act("/v1/restore/run", {"id": threat["id"], "dry_run": False, "take": []})
    seen = 0
    with pytest.raises(ShieldError):
        for line in lines:
            seen += line["type"] == "file"
            if seen >= after:
                guard.kill()
    guard.start()
    troubles = {x["code"]: x["text"] for x in guard.client.get("/v1/status")["troubles"]}
    assert threat["id"] in troubles["restore.unfinished"]
    guard.ctl("restore", "run", threat["id"], "--yes")
    assert whole(guard.tree) == before
    assert "restore.unfinished" not in {x["code"] for x in guard.client.get("/v1/status")["troubles"]}
    shown = guard.json("threats", "show", threat["id"])
    assert (shown["files_lost"], shown["files_preserved"]) == (0, threat["files_preserved"])
    assert guard.stop() == 0


def test_a_daemon_killed_in_the_attack_knows_what_can_come_back(guard: Running, ward: Path) -> None:
    before = whole(guard.tree)
    shutil.rmtree(ward)
    until("a threat", lambda: guard.client.get("/v1/threats")["items"])
    until("all of it on record", lambda: len(guard.client.get("/v1/events", limit=1000)["items"]) > FILES)
    guard.kill()
    guard.start()
    threat = attacked(guard)
    assert threat["files_lost"] == 0
    guard.ctl("restore", "run", threat["id"], "--yes")
    after = whole(guard.tree)  # with new canaries beside the old ones
    assert {path: after[path] for path in before} == before


def test_an_ordinary_accident(guard: Running, ward: Path) -> None:
    path = ward / "007.csv"
    first = path.read_bytes()
    draft = ward / "draft"
    draft.write_bytes(b"a mistake that was saved over it\n")
    guard.fence()
    os.replace(draft, path)
    guard.fence()

    def versions() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = guard.json("versions", "list", path)["items"]
        return found if len(found) == 2 else []

    old, new = until("both versions", versions)
    assert old["size"] == len(first) and old["kind"] == new["kind"] == "link"
    assert path.name in guard.ctl("versions", "restore", path, "--at", old["at"], "--yes").stdout
    assert path.read_bytes() == first
    assert path.with_name(path.name + ".before-restore").read_bytes().startswith(b"a mistake")
    out = guard.ground / "out"
    out.mkdir()
    guard.ctl("versions", "restore", path, "--at", new["at"], "--to", out, "--yes")
    assert (out / path.name).read_bytes().startswith(b"a mistake")
    guard.ctl("versions", "restore", path, "--at", "2001-01-01T00:00Z", "--yes", expect=4)


def test_what_is_sealed_or_taken_away_leaves_no_link_in_the_clear(guard: Running, ward: Path) -> None:
    links = guard.state / "vault" / "links"
    secret = ward / "003.csv"
    inode = secret.stat().st_ino
    guard.ctl("files", "seal", secret)
    assert inode not in {x.stat().st_ino for x in links.iterdir()}
    malware = ward / "viewer.com"
    malware.write_bytes(drops.plan(1)[0].data)
    until("malware in quarantine", lambda: guard.quarantined(ward))

    def none_left() -> bool:
        return not any(x.read_bytes() == drops.plan(1)[0].data for x in links.iterdir() if x.stat().st_size < 200)

    until("no link to the malware", none_left)


def test_a_resolved_incident_holds_no_versions(guard: Running, ward: Path) -> None:
    shutil.rmtree(ward)
    threat = attacked(guard)

    def pins() -> int:
        return int(guard.client.get("/v1/status")["preserve"]["vaults"][0]["pins"])

    until("versions held", lambda: pins() == 1)
    guard.ctl("threats", "resolve", threat["id"], "--verdict", "malicious")
    until("versions let go", lambda: pins() == 0)


def test_without_a_vault_it_guards_all_the_same_and_says_so(ground: Path) -> None:
    guard = Running(ground)
    guard.state.mkdir(mode=0o700)
    (guard.state / "vault").mkdir(mode=0o777)
    (guard.state / "vault").chmod(0o777)
    guard.start()
    status = guard.client.get("/v1/status")
    assert "preserve.unsafe" in {x["code"] for x in status["troubles"]} and status["state"] == "degraded"
    assert status["preserve"]["state"] == "none"
    check = next(x for x in guard.json("doctor", expect=None)["items"] if x["name"] == "versions")
    assert check["state"] == "warn" and "mode 0777" in check["detail"]
    (guard.tree / "f").write_bytes(b"x")
    guard.fence()
    refused = guard.ctl("versions", "list", guard.tree / "f", "--json", expect=None)
    assert refused.returncode == 0 and json.loads(refused.stdout)["items"] == []
    guard.ctl("files", "seal", guard.tree / "f")
    assert guard.stop() == 0


def test_a_second_daemon_leaves_the_vault_alone(guard: Running, ground: Path) -> None:
    """Its state directory is another one; the vault that it is led to by a link of the directory's name is in use."""
    other = ground / "other"
    other.mkdir()
    second = Running(other)
    second.state.mkdir(mode=0o700)
    shutil.move(str(guard.state / "vault"), str(second.state / "vault"))
    second.start()
    status = second.client.get("/v1/status")
    assert "preserve.unsafe" in {x["code"] for x in status["troubles"]}
    assert second.stop() == 0
    shutil.move(str(second.state / "vault"), str(guard.state / "vault"))


@pytest.fixture
def disk(ground: Path) -> Iterator[Path]:
    """A file system of its own."""
    at = ground / "disk"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs", at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


@pytest.mark.root
@pytest.mark.parametrize("backend", ["native", "pyinotify"])
def test_a_tree_that_is_a_whole_file_system_holds_its_vault(ground: Path, disk: Path, backend: str) -> None:
    """The vault lies in the tree: it is not watched, not surveyed, not sealed with the tree, and comes to no harm."""
    guard = Running(ground)
    guard.tree = disk
    config = ground / "shieldd.toml"
    guard.state.mkdir(mode=0o700)
    keyfile = guard.state / "keyfile"
    keyfile.touch(mode=0o600)
    keyfile.write_text("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
    config.write_text(
        f'[daemon]\nstate_dir = "{guard.state}"\nsocket = "{guard.socket}"\nhost_id = "e2e"\n'
        f'[[tree]]\npath = "{disk}"\ncanaries = 0\n[watch]\nbackend = "{backend}"\n[keys]\nunlock = "keyfile"\n'
    )
    ward = lay_out(disk)
    guard.start([sys.executable, "-m", "shieldd", "--config", str(config)])
    linked(guard)
    before = whole_without_vault(disk)
    check = next(x for x in guard.json("doctor", expect=None)["items"] if x["name"] == "versions")
    assert check["state"] == "warn" and "inside a guarded tree" in check["detail"]
    subprocess.run(["rm", "-rf", ward], check=True)
    threat = attacked(guard)
    events = guard.client.get("/v1/events", limit=10_000)["items"]
    assert not [x for x in events if ".shieldd-vault" in x["path"]]
    guard.ctl("restore", "run", threat["id"], "--yes")
    assert whole_without_vault(disk) == before
    guard.ctl("files", "seal", disk, "--recursive", expect=None)
    names = [x.name for x in (disk / ".shieldd-vault").rglob("*")]
    assert names and not [name for name in names if name.endswith(".shield")]
    assert guard.stop() == 0


def whole_without_vault(disk: Path) -> dict[bytes, Whole]:
    return {path: one for path, one in whole(disk).items() if not path.startswith(b".shieldd-vault/")}


@pytest.mark.root
def test_low_on_space_it_says_so_and_takes_it_back(ground: Path, disk: Path) -> None:
    guard = Running(ground)
    guard.tree = disk / "tree"
    guard.tree.mkdir()
    lay_out(guard.tree)
    guard.start()
    linked(guard)

    def codes() -> set[str]:
        return {x["code"] for x in guard.client.get("/v1/status")["troubles"]}

    with (disk / "ballast").open("wb", buffering=0) as ballast:
        os.posix_fallocate(ballast.fileno(), 0, os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - (1 << 20))
    until("a trouble", lambda: "preserve.space" in codes())
    path = guard.tree / "ward" / "010.csv"
    path.unlink()
    guard.fence()
    until("a deleted file is kept all the same", lambda: guard.json("versions", "list", path)["items"])
    (disk / "ballast").unlink()
    until("the trouble is over", lambda: "preserve.space" not in codes())
    assert guard.stop() == 0


def test_time_is_not_wasted_on_a_storm(guard: Running) -> None:
    """Files that come and go by the thousand: the keeper follows, and what is left is linked."""
    place = guard.tree / "storm"
    place.mkdir()
    for number in range(4000):
        path = place / f"{number}.tmp"
        path.write_bytes(b"x")
        if number % 10:
            path.unlink()
    guard.fence()
    began = time.monotonic()
    until("all that stayed is linked", lambda: all(x.stat().st_nlink == 2 for x in place.iterdir()))
    assert time.monotonic() - began < 30
    assert guard.actions() == []
