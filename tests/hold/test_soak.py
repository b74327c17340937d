"""Whatever breaks: no opener waits longer than half a second.

Each fault is injected while a crowd of openers is at work: 200 by default, 10,000 under the marker `soak`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shieldd.model.held import AnswererState, HoldOptions, Kept

from .conftest import Held, holding, loop_ext4, mounted, wait_for
from .crowd import built, crowd

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

LONGEST_MS = 500.0
FEW = 200
MANY = 10_000
CROWDS = [FEW, pytest.param(MANY, marks=pytest.mark.soak)]
SECONDS = {FEW: 2.0, MANY: 12.0}
FAULTS = ["none", "SIGSTOP", "SIGKILL", "supervisor killed", "supervisor stopped, then SIGKILL"]
PAUSE_MS = {FEW: 40, MANY: 2000}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The crowd's program."""
    return built(tmp_path_factory.mktemp("crowd"))


def files(held: Held, count: int) -> Path:
    """A directory with a file for each opener."""
    where = held.tree / "files"
    where.mkdir()
    for i in range(count):
        (where / f"f{i}").write_bytes(b"before" * 100)
    return where


def process(held: Held) -> int:
    """The answerer's process id."""
    return held.hold.status().counts.pid


def again(held: Held, before: int) -> None:
    """Wait until another answerer than `before` holds."""
    wait_for(lambda: held.hold.status().running and process(held) != before, "the answerer that follows")


@pytest.mark.parametrize("count", CROWDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_signals(held: Held, program: Path, fault: str, count: int) -> None:
    where = files(held, count)
    answerer = process(held)
    supervisor = next(pid for pid in held.hold.pids() if pid != answerer)
    with crowd(program, where, count, SECONDS[count], pause_ms=PAUSE_MS[count]) as at_work:
        wait_for(lambda: held.hold.status().counts.held > count // 2, "openers that are held")
        if fault == "SIGSTOP":
            os.kill(answerer, signal.SIGSTOP)
        elif fault == "SIGKILL":
            os.kill(answerer, signal.SIGKILL)
        elif fault == "supervisor killed":
            os.kill(supervisor, signal.SIGKILL)
        elif fault.startswith("supervisor stopped"):
            os.kill(supervisor, signal.SIGSTOP)
            os.kill(answerer, signal.SIGKILL)
        waited = at_work.end()
    print(count, fault, waited)
    assert waited.longest_ms < LONGEST_MS
    assert (waited.refused, waited.failed) == (0, 0)
    status = held.hold.status()
    if fault in {"none", "supervisor killed"}:
        assert status.running
        assert process(held) == answerer
        counts = status.counts
        assert counts.preserved + counts.lost_late + counts.let_go >= waited.opens
        assert count > FEW or counts.herds == 0
        if fault == "supervisor killed":
            wait_for(lambda: len(held.hold.pids()) == 2 and supervisor not in held.hold.pids(), "another supervisor")
    else:
        again(held, answerer)
        assert held.hold.status().restarts >= 1
        assert any(text and "not held" in text for text in held.troubles)
        assert held.troubles[-1] is None
        assert held.hold.status().kills == (1 if fault == "SIGSTOP" else 0)


@pytest.mark.parametrize("count", CROWDS)
def test_no_room_is_left(tmp_path: Path, program: Path, count: int) -> None:
    inodes = count * 2 + 400  # some of them stand ready for versions
    options = f"size={count * 4 + 4096}k,nr_inodes={inodes},mode=0755"
    with mounted(tmp_path / "own", "-t", "tmpfs", "-o", options, "tmpfs") as top, holding(top) as held:
        where = files(held, count)
        with crowd(program, where, count, SECONDS[count], pause_ms=PAUSE_MS[count]) as at_work:
            wait_for(lambda: held.hold.status().counts.held > count // 2, "openers that are held")
            # the versions may have taken the last inode already: that is no room too
            with pytest.raises(OSError, match="No space"), open(held.top / "ballast", "wb") as ballast:
                while True:
                    ballast.write(b"\0" * 65536)
            waited = at_work.end()
        print(count, waited)
        assert waited.longest_ms < LONGEST_MS
        counts = held.hold.status().counts
        assert counts.lost_full > 0
        assert held.hold.status().running
        wait_for(lambda: any(one.kept is Kept.FULL for one in held.seen), "a record of it")
        (held.top / "ballast").unlink(missing_ok=True)


@contextmanager
def frozen(top: Path) -> Iterator[None]:
    """A file system in which every change sleeps for ever, until it is over."""
    subprocess.run(["fsfreeze", "-f", top], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", top], check=True)


@pytest.mark.parametrize("count", CROWDS)
@pytest.mark.parametrize("killed", [False, True], ids=["goes on", "stopped as well"])
def test_the_vault_does_not_answer(tmp_path: Path, program: Path, count: int, *, killed: bool) -> None:
    with loop_ext4(tmp_path, "own", 1024) as top, holding(top, options=HoldOptions(ranges=False)) as held:
        where = files(held, count)
        answerer = process(held)
        with frozen(top):
            with crowd(program, where, count, SECONDS[count], pause_ms=PAUSE_MS[count], write=False) as at_work:
                wait_for(lambda: held.hold.status().counts.stuck_since_ns > 0, "keepers that hang")
                if killed:
                    os.kill(answerer, signal.SIGSTOP)
                    wait_for(lambda: held.hold.status().kills == 1, "the supervisor")
                waited = at_work.end()
            print(count, killed, waited)
            assert waited.longest_ms < LONGEST_MS
            assert waited.failed == 0
            assert held.hold.status().counts.lost_late > 0
            if not killed:
                assert "vault" in " ".join(held.hold.status().not_covered)
        if killed:
            again(held, answerer)
        else:
            wait_for(lambda: held.hold.status().counts.stuck == 0, "keepers that answer again")
            assert process(held) == answerer
        before = held.hold.status().counts.preserved
        write = "import sys; open(sys.argv[1], 'r+b').write(b'x')"
        subprocess.run([sys.executable, "-c", write, where / "f0"], check=True)
        wait_for(lambda: held.hold.status().counts.preserved > before, "a version")


@pytest.mark.parametrize("count", CROWDS)
def test_nobody_takes_the_records(own_tmpfs: Path, program: Path, count: int) -> None:
    with holding(own_tmpfs) as held:
        where = files(held, count)
        stop = threading.Event()
        held.hold._records = lambda _: stop.wait(60)
        seconds, pause_ms = (6.0, 2) if count == FEW else (SECONDS[count], 100)
        with crowd(program, where, count, seconds, pause_ms=pause_ms) as at_work:
            try:
                wait_for(lambda: held.hold._control.counts().records_lost > 0, "a full ring", 60)
            finally:
                stop.set()
            waited = at_work.end()
        print(count, waited)
        assert waited.longest_ms < LONGEST_MS
        assert (waited.refused, waited.failed) == (0, 0)


DAEMON = """
import os, sys, time
from shieldd.hold import Hold
from shieldd.native.hold import HoldTree
top = os.fsencode(sys.argv[1])
fds = [os.open(top + b"/tree", os.O_RDONLY), os.open(top + b"/.shieldd-vault", os.O_RDONLY)]
hold = Hold([HoldTree(top + b"/tree", fds[0], 0)], fds[1:], records=lambda _: None, trouble=lambda *_: None)
assert hold.start()
print(*hold.pids(), flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("count", CROWDS)
@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGSTOP])
def test_the_daemon_is_gone(own_tmpfs: Path, program: Path, count: int, way: signal.Signals) -> None:
    (own_tmpfs / "tree/files").mkdir(parents=True)
    (own_tmpfs / ".shieldd-vault").mkdir(mode=0o700)
    for i in range(count):
        (own_tmpfs / "tree/files" / f"f{i}").write_bytes(b"before")
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(own_tmpfs)], stdout=subprocess.PIPE, text=True)
    pids: list[int] = []
    try:
        assert daemon.stdout
        while not pids:  # before it: lines of the log
            pids = [int(word) for word in daemon.stdout.readline().split() if word.isdigit()]
        with crowd(program, own_tmpfs / "tree/files", count, SECONDS[count], pause_ms=PAUSE_MS[count]) as at_work:
            os.kill(daemon.pid, way)
            waited = at_work.end()
        print(count, way, waited)
        assert waited.longest_ms < LONGEST_MS
        assert (waited.refused, waited.failed) == (0, 0)
        if way is signal.SIGKILL:
            wait_for(lambda: not any(_runs(pid) for pid in pids), "the end of both processes")
    finally:
        daemon.kill()
        daemon.wait()
    wait_for(lambda: not any(_runs(pid) for pid in pids), "the end of both processes")


def _runs(pid: int) -> bool:
    try:
        return b"answerer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_idle_hearts_beat_and_a_stopped_idle_answerer_is_found(held: Held) -> None:
    def beats() -> int:
        return held.hold.status().counts.beat_ns

    first = beats()
    wait_for(lambda: beats() > first, "a beat without events")
    answerer = process(held)
    began = time.monotonic()
    os.kill(answerer, signal.SIGSTOP)
    wait_for(lambda: held.hold.status().kills == 1, "the supervisor")
    assert time.monotonic() - began < 2.0  # on a busy machine; alone it is 0.22 s
    again(held, answerer)
    assert held.hold.status().counts.state is AnswererState.RUNNING
