"""The daemon, its answerer, its supervisor: whatever is stopped or killed, nobody who opens a file waits for long."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.suite.ground import Ground, ground, until

MOST_MS = 500.0
WRITERS = 4
#: opens a file for writing again and again, and notes every wait in ms
WRITER = """
import os, sys, time
log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
n = 0
while True:
    n += 1
    began = time.monotonic()
    fd = os.open(f"{sys.argv[1]}-{n % 20}", os.O_RDWR | os.O_CREAT)
    took = time.monotonic() - began
    os.pwrite(fd, b"line %d" % n, 0)
    os.close(fd)
    os.write(log, b"%.3f\\n" % (took * 1000))
    time.sleep(0.002)
"""

pytestmark = pytest.mark.root


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="shield-wait-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def guarded(home: Path) -> Iterator[Ground]:
    with ground(home) as made:
        made.start()
        assert hold(made)["running"], hold(made)
        yield made


def hold(guarded: Ground) -> dict[str, Any]:
    """How held opens stand."""
    return dict(guarded.status()["watch"]["hold"])


class Writers:
    """Ordinary work in the guarded tree: small files, opened for writing all the time."""

    def __init__(self, guarded: Ground) -> None:
        self.logs = [guarded.home / f"waits-{n}" for n in range(WRITERS)]
        place = guarded.tree / "work"
        place.mkdir()
        self.processes = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(place / f"file{n}"), str(log)], start_new_session=True)
            for n, log in enumerate(self.logs)
        ]
        self.more(50)

    def waits_ms(self) -> list[float]:
        return [float(line) for log in self.logs if log.exists() for line in log.read_text().split("\n")[:-1]]

    def more(self, count: int) -> None:
        """Wait until every one of them has opened so many more files."""
        before = [len(log.read_text().split()) if log.exists() else 0 for log in self.logs]
        until("work", lambda: all(_lines(log) >= n + count for log, n in zip(self.logs, before, strict=True)), 20)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def _lines(log: Path) -> int:
    return len(log.read_text().split()) if log.exists() else 0


@pytest.fixture
def writers(guarded: Ground) -> Iterator[Writers]:
    made = Writers(guarded)
    yield made
    made.end()
    worst = max(made.waits_ms())
    print(f"{len(made.waits_ms())} opens, median {statistics.median(made.waits_ms()):.3f} ms, longest {worst:.1f} ms")
    assert worst <= MOST_MS


def processes(guarded: Ground) -> dict[str, int]:
    """The daemon, its answerer and its supervisor."""
    assert guarded.process is not None
    found = {"daemon": guarded.process.pid}
    for entry in Path(f"/proc/{guarded.process.pid}/task").iterdir():
        for child in map(int, (entry / "children").read_text().split()):
            try:
                arguments = Path(f"/proc/{child}/cmdline").read_bytes()
            except OSError:
                continue
            if b"shieldd.answerer" in arguments:
                found["supervisor" if b"--supervise" in arguments else "answerer"] = child
    return found


def both(guarded: Ground) -> dict[str, int]:
    """All three, once there are all three."""
    return until("answerer and supervisor", lambda: p if len(p := processes(guarded)) == 3 else None)


@pytest.mark.parametrize("what", [signal.SIGSTOP, signal.SIGKILL], ids=lambda x: x.name)
def test_an_answerer_that_fails_is_replaced(guarded: Ground, writers: Writers, what: signal.Signals) -> None:
    before = both(guarded)
    os.kill(before["answerer"], what)
    writers.more(50)
    now = until("another answerer", lambda: n if (n := both(guarded))["answerer"] != before["answerer"] else None)
    until("held opens", lambda: hold(guarded)["running"])
    assert now["daemon"] == before["daemon"] and hold(guarded)["restarts"] == 1
    assert f"it was killed (signal {signal.SIGKILL})" in guarded.log.read_text() or "heart" in guarded.log.read_text()
    writers.more(50)


@pytest.mark.parametrize("what", [signal.SIGSTOP, signal.SIGKILL], ids=lambda x: x.name)
def test_a_supervisor_that_fails_keeps_nobody(guarded: Ground, writers: Writers, what: signal.Signals) -> None:
    before = both(guarded)
    os.kill(before["supervisor"], what)
    writers.more(50)
    if what is signal.SIGKILL:
        until("another supervisor", lambda: processes(guarded).get("supervisor", 0) not in (0, before["supervisor"]))
    # with the watch stopped the daemon itself notices a heart that stopped
    os.kill(processes(guarded)["answerer"], signal.SIGSTOP)
    writers.more(50)
    until("held opens", lambda: hold(guarded)["running"] and hold(guarded)["restarts"])


def test_a_daemon_that_is_killed_takes_both_along(guarded: Ground, writers: Writers) -> None:
    before = both(guarded)
    os.kill(before["daemon"], signal.SIGKILL)
    assert guarded.process is not None
    guarded.process.wait()
    until("their end", lambda: not any(Path(f"/proc/{before[one]}/exe").exists() for one in ("answerer", "supervisor")))
    writers.more(100)
    guarded.start()
    assert hold(guarded)["running"]
    writers.more(50)


def test_a_daemon_that_is_stopped_holds_up_nobody(guarded: Ground, writers: Writers) -> None:
    before = both(guarded)
    os.kill(before["daemon"], signal.SIGSTOP)
    writers.more(200)
    os.kill(before["daemon"], signal.SIGCONT)
    writers.more(50)
    assert both(guarded)["answerer"] == before["answerer"]


def test_daemon_and_supervisor_stopped_and_then_the_answerer_killed(guarded: Ground, writers: Writers) -> None:
    before = both(guarded)
    for one in ("daemon", "supervisor"):
        os.kill(before[one], signal.SIGSTOP)
    os.kill(before["answerer"], signal.SIGKILL)
    writers.more(100)
    for one in ("supervisor", "daemon"):
        os.kill(before[one], signal.SIGCONT)
    until("held opens", lambda: hold(guarded)["running"] and hold(guarded)["restarts"])


def test_it_stops_cleanly_while_others_write(guarded: Ground, writers: Writers) -> None:
    before = both(guarded)
    assert guarded.stop() == 0
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in before.values())
    writers.more(50)
