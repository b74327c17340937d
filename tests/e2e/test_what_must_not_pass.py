"""Ways around a guard that compares files with what they were, and ordinary work that looks like one of them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shieldctl.drill.corpus import build

from .running import Running, needs, until


def _fill(daemon: Running, files: int) -> list[Path]:
    """Known files of a hospital: written before the daemon starts would be as good, here it sees them arrive."""
    made = []
    for entry, data in build(files, 7):
        path = daemon.tree / "data" / os.fsdecode(entry.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o640)  # never readable by all, or it would be sealed as an export
        path.write_bytes(data)
        made.append(path)
    daemon.fence()
    return made


def _contained(daemon: Running) -> list[dict[str, Any]]:
    threats = daemon.json("threats", "list")["items"]
    return [x for x in threats if any(a["kind"] == "contain" for a in x["actions"])]


def test_touching_a_canary_is_decided_on(daemon: Running) -> None:
    index = json.loads((daemon.state / "canaries.json").read_text())
    assert index, "canaries were planted"
    path = Path(os.fsdecode(os.path.join(base64.b64decode(index[0]["tree"]), base64.b64decode(index[0]["path"]))))
    path.write_bytes(os.urandom(4096))
    until("the canary's threat", lambda: _contained(daemon))


def test_truncating_by_name_is_decided_on(daemon: Running) -> None:
    for path in _fill(daemon, 30):
        os.truncate(path, 0)
    threat = until("the threat", lambda: _contained(daemon))[0]
    assert threat["files_lost"] >= 5


def test_a_renamed_directory_keeps_its_files_known(daemon: Running) -> None:
    files = _fill(daemon, 30)
    (daemon.tree / "data").rename(daemon.tree / "old")
    daemon.fence()
    for path in files:
        moved = daemon.tree / "old" / path.relative_to(daemon.tree / "data")
        if moved.exists():  # what was written as ransom data may be in quarantine already
            moved.write_bytes(os.urandom(moved.stat().st_size))
    threat = until("the threat", lambda: _contained(daemon))[0]
    assert threat["files_lost"] >= 5


def test_one_picture_in_place_of_everything_is_decided_on(daemon: Running) -> None:
    files = _fill(daemon, 40)
    picture = next(path for path in files if path.read_bytes()[:4] == b"\x89PNG").read_bytes()
    for path in files:
        path.write_bytes(picture)
    until("the threat", lambda: _contained(daemon))


@pytest.mark.skipif(bool(needs("gpg")), reason=needs("gpg"))
def test_encrypting_a_copy_of_one_file_is_left_alone(daemon: Running, ground: Path) -> None:
    files = _fill(daemon, 20)
    home = ground / "gpg"
    home.mkdir(mode=0o700)
    gpg = shutil.which("gpg")
    assert gpg is not None
    for path in files[:5]:
        subprocess.run(
            [
                gpg,
                "--homedir",
                home,
                "--batch",
                "--yes",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "x",
                "-c",
                path,
            ],
            check=True,
            capture_output=True,
        )
    daemon.fence()
    assert not _contained(daemon)
