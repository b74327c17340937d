"""Kills, second starts, stale sockets, bad configuration, storms: nothing is lost and nothing is silent."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shieldd.errors import ShieldError

from .running import Running, until

STORM = 20_000


def fill(folder: Path, count: int, size_bytes: int) -> dict[Path, str]:
    folder.mkdir()
    ledger = {}
    for number in range(count):
        payload = b"%08d" % number + os.urandom(size_bytes)
        path = folder / f"{number:05d}.bin"
        path.write_bytes(payload)
        ledger[path] = hashlib.sha256(payload).hexdigest()
    return ledger


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("after", [1, 40, 150])
def test_killed_in_the_middle_of_sealing_it_converges(daemon: Running, after: int) -> None:
    ledger = fill(daemon.tree / "wards", 300, 60_000)
    daemon.fence()
    lines = daemon.client.act("/v1/files/seal", {"paths": [str(daemon.tree / "wards")], "recursive": True})
    seen = 0
    with pytest.raises(ShieldError):  # the stream is cut
        for line in lines:
            seen += line["type"] == "file"
            if seen >= after:
                daemon.kill()
    for path in ledger:
        sealed = path.with_name(path.name + ".shield")
        assert path.exists() or sealed.exists(), f"{path.name} is nowhere"
    daemon.start()
    daemon.fence()
    left = [path.name for path in (daemon.tree / "wards").iterdir() if path.name.startswith(".shieldd-")]
    assert left == [], "the restart finished or rolled back what was under way"
    for path, expected in ledger.items():
        sealed = path.with_name(path.name + ".shield")
        assert path.exists() != sealed.exists(), f"{path.name} is there once, whole"
        assert sealed.exists() or digest(path) == expected
    assert daemon.actions() == [], "our own work is not an attack"
    daemon.ctl("files", "seal", "--recursive", daemon.tree / "wards", expect=None)
    assert all(path.with_name(path.name + ".shield").exists() for path in ledger)
    daemon.ctl("files", "open", "--recursive", daemon.tree / "wards")
    assert all(digest(path) == expected for path, expected in ledger.items())
    assert daemon.stop() == 0


def test_two_daemons_on_one_state_directory_are_refused(daemon: Running, ground: Path) -> None:
    other = ground / "other"
    other.mkdir()
    second = subprocess.run(
        [
            sys.executable, "-m", "shieldd", "run", "--protect", other,
            "--socket", ground / "s2", "--state", daemon.state,
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert second.returncode != 0
    assert "[" in second.stderr and "Traceback" not in second.stderr
    assert daemon.client.get("/v1/health")["pid"] == daemon.process.pid  # type: ignore[union-attr]


def test_a_socket_in_use_is_not_taken_over(daemon: Running, ground: Path) -> None:
    other = ground / "other"
    other.mkdir()
    second = subprocess.run(
        [
            sys.executable, "-m", "shieldd", "run", "--protect", other,
            "--socket", daemon.socket, "--state", ground / "state2",
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert second.returncode != 0 and "Traceback" not in second.stderr
    assert daemon.client.get("/v1/health")["pid"] == daemon.process.pid  # type: ignore[union-attr]


def test_a_stale_socket_is_replaced(daemon: Running) -> None:
    daemon.kill()
    assert daemon.socket.exists()
    done = daemon.ctl("ping", expect=3)
    assert "not running" in done.stderr
    daemon.start()
    assert daemon.stop() == 0
    assert daemon.ctl("ping", expect=3).returncode == 3


def test_a_reload_takes_a_good_configuration_and_keeps_the_old_one_on_error(ground: Path) -> None:
    daemon = Running(ground)
    config = ground / "shieldd.toml"
    daemon.state.mkdir(mode=0o700)

    def write(mode: str, extra: str = "") -> None:
        config.write_text(
            f'[daemon]\nmode = "personal"\nstate_dir = "{daemon.state}"\nsocket = "{daemon.socket}"\n{extra}'
            f'[[tree]]\npath = "{daemon.tree}"\nmode = "{mode}"\n[keys]\nunlock = "keyfile"\n'
        )

    write("act")
    daemon.start([sys.executable, "-m", "shieldd", "--config", str(config)])
    assert daemon.process is not None
    before = daemon.client.get("/v1/status")["generation"]
    write("observe")
    daemon.process.send_signal(signal.SIGHUP)
    until("the new mode", lambda: daemon.client.get("/v1/status")["trees"][0]["mode"] == "observe")
    generation = daemon.client.get("/v1/status")["generation"]
    assert generation > before
    write("act", "sponge = 1\n")
    daemon.process.send_signal(signal.SIGHUP)
    until("a word about the refused configuration", lambda: "sponge" in daemon.log.read_text())
    status = daemon.client.get("/v1/status")
    assert (status["trees"][0]["mode"], status["generation"]) == ("observe", generation)
    assert daemon.stop() == 0


def test_it_stops_cleanly_under_load(daemon: Running) -> None:
    enough = threading.Event()

    def load() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            (daemon.tree / f"load{number % 500}.txt").write_bytes(b"load\n" * 200)

    writer = threading.Thread(target=load)
    writer.start()
    try:
        until("events under load", lambda: daemon.client.get("/v1/status")["watch"]["events"] > 2000)
        assert daemon.stop() == 0
    finally:
        enough.set()
        writer.join()
    daemon.start()
    assert daemon.client.get("/v1/status")["counts"]["events"] > 1000, "what was seen is on record"
    assert daemon.stop() == 0


@pytest.mark.slow
def test_a_storm_loses_no_event(daemon: Running) -> None:
    folders = [daemon.tree / f"ward{number:03d}" for number in range(200)]
    for folder in folders:
        folder.mkdir()
    for number in range(STORM):
        (folders[number % 200] / f"{number:05d}.txt").write_bytes(b"storm\n")
    daemon.fence()
    watch = daemon.client.get("/v1/status")["watch"]
    assert (watch["lost"], watch["overflows"]) == (0, 0)
    seen: set[str] = set()
    for folder in folders:
        for item in daemon.client.get("/v1/events", under=str(folder), limit=10_000)["items"]:
            if item["path"].endswith(".txt"):
                seen.add(item["path"])
    assert len(seen) == STORM
