"""The service itself, as root on a file system of its own: attackers at full speed are stopped, nobody else is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.suite.attacks import ATTACKS, Attack, Raid, possible
from bench.suite.ground import Ground, ground, until
from shieldctl.drill.tree import ScratchTree

FILES = 150
BY_NAME = {attack.name: attack for attack in ATTACKS}
STOPPED = [attack for attack in ATTACKS if possible(attack) and not attack.bursts]
INNOCENT = """
import itertools, time
for n in itertools.count():
    with open("note.txt", "a") as file:
        file.write(f"line {n}\\n")
    time.sleep(0.01)
"""

pytestmark = pytest.mark.root


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="shield-held-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def guarded(home: Path) -> Iterator[Ground]:
    with ground(home) as made:
        yield made


class Innocent:
    """Somebody who works in the same tree, in a session of its own."""

    def __init__(self, tree: Path) -> None:
        self.place = tree / "innocent"
        self.place.mkdir()
        self.process = subprocess.Popen([sys.executable, "-c", INNOCENT], cwd=self.place, start_new_session=True)
        until("work", lambda: self.lines() > 3)

    def lines(self) -> int:
        path = self.place / "note.txt"
        return path.read_text().count("\n") if path.exists() else 0

    def goes_on(self) -> bool:
        before = self.lines()
        return bool(until("more work", lambda: self.lines() > before + 3, 10))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def stopped(guarded: Ground, raid: Raid) -> dict[str, Any]:
    """The threat for which the attack was stopped; it must not come to its end before."""
    until("a containment", guarded.contained, 30)
    (threat,) = guarded.contained()
    return threat


def refused(guarded: Ground) -> list[dict[str, Any]]:
    """Threats whose actor is denied every open, alive or not: a fast one has ended over that before it is stopped."""
    return [one for one in guarded.threats() if one["containment"] and one["containment"]["state"] == "held"]


@pytest.mark.parametrize("attack", STOPPED, ids=[attack.name for attack in STOPPED])
def test_an_attacker_is_stopped_and_an_innocent_goes_on(guarded: Ground, attack: Attack) -> None:
    scratch, ledger = guarded.lay_out(FILES)
    guarded.start()
    innocent, raid = Innocent(guarded.tree), Raid(attack, scratch)
    try:
        until("a containment", lambda: guarded.contained() or (raid.over and refused(guarded)), 30)
        (threat,) = guarded.contained() or refused(guarded)
        assert (raid.stopped or raid.over) and innocent.goes_on()
        assert threat["actor"]["pid"] == raid.pid
        if raid.over:
            assert guarded.status()["watch"]["hold"]["denied"] > 0 and threat["files_touched"] < len(ledger)
            return
        assert threat["first_event_at"] <= threat["decided_at"] <= threat["contained_at"]
        assert raid.pid in {one["pid"] for one in threat["containment"]["processes"]}
        assert innocent.process.pid not in {one["pid"] for one in threat["containment"]["processes"]}
        assert threat["files_touched"] < len(ledger)
    finally:
        raid.end()
        innocent.end()
    assert guarded.stop() == 0


@pytest.fixture
def raided(guarded: Ground) -> Iterator[tuple[Ground, Raid, dict[str, Any]]]:
    """A daemon that holds an attacker."""
    scratch, _ = guarded.lay_out(FILES)
    guarded.start()
    raid = Raid(BY_NAME["openssl, new and delete"], scratch)
    try:
        yield guarded, raid, stopped(guarded, raid)
    finally:
        raid.end()


def test_a_person_lets_it_go_on(raided: tuple[Ground, Raid, dict[str, Any]]) -> None:
    guarded, raid, threat = raided
    told = guarded.json("threats", "release", threat["id"], "--yes")
    assert told["state"] == "released"
    until("the attacker to go on", lambda: raid.over or not raid.stopped)
    assert guarded.json("threats", "show", threat["id"])["containment"]["state"] == "released"


def test_a_person_ends_it(raided: tuple[Ground, Raid, dict[str, Any]]) -> None:
    guarded, raid, threat = raided
    assert guarded.json("threats", "kill", threat["id"], "--reason", "seen", "--yes")["state"] == "killed"
    until("the attacker's end", lambda: raid.over)
    actions = guarded.json("threats", "show", threat["id"])["actions"]
    assert [one["reason"] for one in actions if one["reason"].startswith("killed: ")]


def test_what_is_held_outlives_the_daemon(raided: tuple[Ground, Raid, dict[str, Any]]) -> None:
    guarded, raid, threat = raided
    assert guarded.process is not None
    guarded.process.kill()
    guarded.process.wait()
    assert raid.stopped
    guarded.start()
    found = guarded.json("threats", "show", threat["id"])
    assert found["containment"]["state"] == "held" and raid.stopped
    assert {one["outcome"] for one in found["actions"] if one["kind"] == "contain"} == {"done"}
    # the new daemon may stop it again at its next file, so that it goes on is asked of the answer
    told = guarded.json("threats", "release", threat["id"], "--yes")
    assert told["state"] == "released" and " processes go on, " in told["note"]


@pytest.mark.skipif(not all(map(shutil.which, ("rsync", "git", "gcc", "tar"))), reason="needs rsync, git, gcc and tar")
def test_benign_tools_beside_an_attack_come_to_their_end(guarded: Ground, home: Path) -> None:
    source = _source(home)
    scratch, _ = guarded.lay_out(FILES)
    guarded.start()
    raid = Raid(BY_NAME["openssl, new and delete"], scratch)
    tools = {
        "tar": f"tar xf {home}/all.tar -C .",
        "rsync": f"rsync -a {source}/ synced/ && rsync -a --checksum {source}/ synced/",
        "git": f"git clone -q {source} cloned && git -C cloned gc -q",
        "gcc": f"for n in 1 2 3; do gcc -O1 -o program {source}/program.c && ./program; done",
        "sed": f"cp -r {source} edited && sed -i s/line/row/ edited/*.txt",
    }
    running = {}
    try:
        for name, script in tools.items():
            place = guarded.tree / name
            place.mkdir()
            running[name] = subprocess.Popen(["sh", "-ec", script], cwd=place, start_new_session=True)
        ended = {name: process.wait(60) for name, process in running.items()}
        threat = stopped(guarded, raid)
    finally:
        raid.end()
        for process in running.values():
            process.kill()
    assert ended == dict.fromkeys(tools, 0)
    assert threat["actor"]["pid"] == raid.pid
    assert [one["id"] for one in guarded.contained()] == [threat["id"]]


def _source(home: Path) -> Path:
    """A folder with a repository, a program, texts, and a tar of it; outside of what is guarded."""
    source = home / "source"
    source.mkdir()
    (source / "program.c").write_text('#include <stdio.h>\nint main(void) { return puts("done") < 0; }\n')
    for number in range(60):
        (source / f"{number}.txt").write_text("".join(f"line {row} of {number}\n" for row in range(200)))
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C", str(source))
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "all")):
        subprocess.run([*git, *words], check=True, capture_output=True)
    subprocess.run(["tar", "cf", str(home / "all.tar"), "-C", str(home), "source"], check=True)
    return source


def test_an_observed_tree_holds_nobody(home: Path) -> None:
    with ground(home) as guarded:
        guarded.config.write_text(guarded.config.read_text().replace("[keys]", 'mode = "observe"\n[keys]'))
        scratch: ScratchTree = guarded.lay_out(FILES)[0]
        guarded.start()
        raid = Raid(BY_NAME["openssl, new and delete"], scratch)
        try:
            until("a threat", lambda: [one for one in guarded.threats() if one["severity"] == "high"])
            assert not guarded.contained() and not raid.stopped
        finally:
            raid.end()
