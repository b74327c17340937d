"""The main job, end to end: files are sealed, taken, brought back; an attack is decided on; what is told is true."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from shieldctl.drill import drops
from shieldctl.drill.tools import TOOLS

from .running import Running, needs, until

EICAR = drops.plan(1)[0].data


def test_it_says_what_it_guards(daemon: Running) -> None:
    status = daemon.json("status", expect=None)
    assert [tree["root"] for tree in status["trees"]] == [str(daemon.tree)]
    assert status["mode"] == "personal" and status["watch"]["backend"] == "native"
    assert status["watch"]["lost"] == 0 and status["keys"] == "ready"
    assert daemon.ctl("ping").returncode == 0


def test_a_file_is_sealed_and_opens_as_it_was(daemon: Running) -> None:
    path = daemon.tree / "scans" / "befund \N{LATIN SMALL LETTER U WITH DIAERESIS}.txt"
    path.parent.mkdir()
    payload = os.urandom(300_000)
    path.write_bytes(payload)
    path.chmod(0o640)
    os.setxattr(path, b"user.ward", b"radiology")
    os.utime(path, ns=(1_700_000_000_123_456_789, 1_700_000_001_987_654_321))
    before = path.stat()
    daemon.ctl("files", "seal", path)
    sealed = path.with_name(path.name + ".shield")
    assert not path.exists() and sealed.stat().st_mode & 0o777 == 0o600
    assert payload[:64] not in sealed.read_bytes()
    assert daemon.json("files", "status", sealed)["items"][0]["state"] == "sealed"
    daemon.ctl("files", "open", sealed)
    after = path.stat()
    assert path.read_bytes() == payload and not sealed.exists()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_mtime_ns == before.st_mtime_ns
    assert os.getxattr(path, b"user.ward") == b"radiology"


def test_an_opened_file_is_kept_like_any_other(daemon: Running) -> None:
    path = daemon.tree / "letter.txt"
    path.write_bytes(b"dear colleague")
    daemon.ctl("files", "seal", path)
    daemon.ctl("files", "open", f"{path}.shield")
    until("a link to the opened file", lambda: path.stat().st_nlink == 2)
    path.unlink()
    daemon.fence()
    assert daemon.json("versions", "list", path)["items"], "a file that we made is lost when it is deleted"


def test_eicar_goes_to_quarantine_and_comes_back_where_asked(daemon: Running, ground: Path) -> None:
    path = daemon.tree / "incoming" / "eicar.com"
    path.parent.mkdir()
    path.write_bytes(EICAR)
    item = until("the malware in quarantine", lambda: daemon.quarantined(path.parent))[0]
    assert not path.exists() and item["original"] == str(path) and item["size"] == len(EICAR)
    back = ground / "tree" / "evidence"
    back.mkdir()
    daemon.ctl("quarantine", "restore", item["id"], "--to", back, "--yes")
    assert (back / "eicar.com").read_bytes() == EICAR
    daemon.fence()
    assert (back / "eicar.com").exists(), "what a person brought back stays"
    assert daemon.quarantined(path.parent) == []


def test_an_exposed_export_is_sealed_and_opens(daemon: Running) -> None:
    export = drops.plan(3)[2]
    path = daemon.tree / "www" / "patients.csv"
    path.parent.mkdir(mode=0o755)
    daemon.fence()
    path.write_bytes(export.data)
    path.chmod(0o644)
    sealed = until("the export sealed", lambda: daemon.sealed(path.parent))[0]
    assert sealed["original"] == str(path) and not path.exists()
    daemon.ctl("files", "open", sealed["path"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == export.sha256


@pytest.mark.skipif(bool(needs("openssl")), reason=needs("openssl"))
def test_a_drill_is_passed_and_leaves_nothing(daemon: Running) -> None:
    done = daemon.ctl("drill", "--files", "150", "--seed", "5", "--json", expect=None)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    attack, files = report["attack"], report["files"]
    assert report["schema"] == "drill/1" and report["passed"]
    assert attack["decided"] and not attack["finished"] and attack["tool"] == "openssl"
    assert 0 <= attack["decision_ms"] <= attack["heard_ms"] + 2 and attack["heard_ms"] <= attack["ended_ms"]
    assert attack["touched_at_decision"] <= attack["touched"] < 150
    assert files["lost"] + files["from_versions"] == files["gone"] <= attack["touched"]
    assert files["lost"] == 0, "new file and delete: every original has a version"
    assert files["in_place"] + files["lost"] + files["sealed"] + files["quarantined"] >= files["total"]
    assert files["not_brought_back"] == 0 and files["brought_back"] >= 3
    assert files["false_actions"] == 0
    assert all(drop["handled"] and drop["brought_back"] for drop in report["drops"])
    assert report["threats"] and not report["threats_left"]
    assert not [path for path in daemon.tree.iterdir() if path.name.startswith("shield-drill-")]
    threats = daemon.json("threats", "list")["items"]
    assert {threat["state"] for threat in threats if threat["id"] in report["threats"]} == {"resolved"}
    assert all("drill" in threat["note"] for threat in threats if threat["id"] in report["threats"])


@pytest.mark.slow
@pytest.mark.parametrize("tool", [name for name, tool in TOOLS.items() if shutil.which(tool.program)])
def test_every_tool_is_decided_on(daemon: Running, tool: str) -> None:
    report = json.loads(daemon.ctl("drill", "--files", "120", "--tool", tool, "--json", expect=None).stdout)
    assert report["attack"]["decided"], report
    assert report["files"]["false_actions"] == 0


def test_a_kept_tree_is_kept_and_plain_output_has_no_colour(daemon: Running) -> None:
    done = daemon.ctl("drill", "--files", "60", "--seed", "1", "--keep", expect=None)
    assert "\x1b" not in done.stdout
    lines = dict(line.split("\t", 1) for line in done.stdout.splitlines() if line.count("\t") == 1)
    told = {"time to decision", "files touched", "from versions", "files lost", "brought back", "false actions"}
    assert told <= set(lines)
    assert "overwrote" in done.stdout
    kept = [path for path in daemon.tree.iterdir() if path.name.startswith("shield-drill-")]
    assert len(kept) == 1 and f"kept: {kept[0]}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (("--in", "/"), "drill.place", 1),
        (("--tool", "sponge"), "cli.usage", 2),
    ],
)
def test_a_drill_in_the_wrong_place_is_refused(
    daemon: Running, arguments: tuple[str, ...], code: str, status: int
) -> None:
    done = daemon.ctl("drill", "--files", "5", *arguments, "--json", expect=status)
    assert json.loads(done.stderr)["code"] == code
    assert done.stdout == ""
