"""Who a process says it is does not matter: names, links, arguments, libraries, an executable that is gone."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shieldd.model.actor import ActorInfo, Tampering
from shieldd.native.actors import Actors, Digests

from .conftest import Processes, children, session, until

SLEEP = Path(os.path.realpath(shutil.which("sleep") or "/bin/sleep"))


def sha256(path: Path) -> bytes:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).digest()


def info_of(actors: Actors, pid: int, *, closely: bool = True) -> ActorInfo:
    """What is known of a process' actor."""
    key, _ = actors.of(pid)
    info = actors.info(key, closely=closely)
    assert info is not None
    return info


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A copy of a program under a name that it chose."""
    copy = tmp_path / "rsync"
    shutil.copy(SLEEP, copy)
    return copy


def running(processes: Processes, *command: str | Path, **options: object) -> int:
    """Start a program; returns its pid once that runs, its arguments and environment in place."""
    process = processes.run(*command, **options)
    ours = os.readlink("/proc/self/exe")
    until(lambda: os.readlink(f"/proc/{process.pid}/exe") != ours, "exec")
    until(lambda: Path(f"/proc/{process.pid}/environ").read_bytes(), "its environment")
    return process.pid


def test_the_first_argument_may_lie(actors: Actors, processes: Processes) -> None:
    pid = running(processes, "/usr/bin/rsync", "100", executable=SLEEP)
    info = info_of(actors, pid)
    assert (info.exe, info.exe_sha256) == (os.fsencode(SLEEP), sha256(SLEEP))
    assert info.cmdline == b"/usr/bin/rsync\x00100\x00"


def test_a_link_is_the_file_it_leads_to(actors: Actors, processes: Processes, tmp_path: Path) -> None:
    link = tmp_path / "rsync"
    link.symlink_to(SLEEP)
    info = info_of(actors, running(processes, link, "100"))
    assert (info.exe, info.sole_digest) == (os.fsencode(SLEEP), sha256(SLEEP))


def test_a_renamed_program_keeps_its_digest(actors: Actors, processes: Processes, program: Path) -> None:
    pid = running(processes, program, "100")
    program.rename(program.with_name("other"))
    info = info_of(actors, pid)
    assert info.exe == os.fsencode(program.with_name("other"))
    assert info.exe_sha256 == sha256(SLEEP) and not info.exe_deleted


def test_a_deleted_program_is_known_by_its_content(actors: Actors, processes: Processes, program: Path) -> None:
    pid = running(processes, program, "100")
    program.unlink()
    info = info_of(actors, pid)
    assert info.exe_deleted and info.exe == os.fsencode(program)
    assert info.exe_sha256 == sha256(SLEEP)


def test_a_replaced_program_is_what_runs_not_what_lies_there(
    actors: Actors, processes: Processes, program: Path
) -> None:
    pid = running(processes, program, "100")
    other = program.with_name("new")
    other.write_bytes(b"#!/bin/true\n")
    other.rename(program)
    info = info_of(actors, pid)
    assert info.exe_deleted and info.exe_sha256 == sha256(SLEEP)


def test_a_living_file_may_bear_the_kernels_words(actors: Actors, processes: Processes, program: Path) -> None:
    named = program.with_name("rsync (deleted)")
    program.rename(named)
    info = info_of(actors, running(processes, named, "100"))
    assert info.exe == os.fsencode(named) and not info.exe_deleted


def test_the_digest_outlives_the_process(actors: Actors, processes: Processes) -> None:
    pid = running(processes, SLEEP, "100")
    key, _ = actors.of(pid)
    processes.started[0].kill()
    processes.started[0].wait()
    assert actors.of(pid) == (key, True), "remembered"
    info = actors.info(key)
    assert info is not None and info.exe_sha256 == sha256(SLEEP)
    assert actors.members(key) == []


@pytest.mark.parametrize("name", [b"a) R 1 1 1 (", b"x\ny", b")", b"\xff) S 0\n", b"Uid:\t0"])
def test_a_name_may_hold_anything(actors: Actors, processes: Processes, name: bytes) -> None:
    script = f"import ctypes; ctypes.CDLL(None).prctl(15, {name!r}, 0, 0, 0); print(flush=True); input()"
    process = processes.run(sys.executable, "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    info = info_of(actors, process.pid)
    assert (info.comm, info.pid, info.uid) == (name, process.pid, os.geteuid())
    assert dict(actors.members(info.key)).keys() == {process.pid}


def test_an_executable_run_later_ends_the_trust(actors: Actors, processes: Processes) -> None:
    process = processes.run("/bin/bash", "-c", "read x; exec sleep 100", stdin=subprocess.PIPE)
    until(lambda: b"bash" in os.readlink(b"/proc/%d/exe" % process.pid), "exec")
    before = info_of(actors, process.pid)
    assert before.sole_digest == sha256(Path("/bin/bash"))
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.close()
    until(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(SLEEP), "exec")
    after = info_of(actors, process.pid)
    assert after.key == before.key, "it stays the same actor"
    assert [one.path for one in after.executables] == [b"/usr/bin/bash", os.fsencode(SLEEP)]
    assert after.sole_digest is None


def test_a_run_of_another_program_is_noticed_by_events_alone(actors: Actors, processes: Processes) -> None:
    process = processes.run("/bin/bash", "-c", "read x; exec sleep 100", stdin=subprocess.PIPE)
    until(lambda: b"bash" in os.readlink(b"/proc/%d/exe" % process.pid), "exec")
    key, _ = actors.of(process.pid)
    assert process.stdin is not None
    process.stdin.close()
    until(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(SLEEP), "exec")

    def noticed() -> bool:
        assert actors.of(process.pid) == (key, True)
        info = actors.info(key, digests=False)
        # a close look on the side may tell first; the count is of those that the events themselves showed
        return info is not None and len(info.executables) == 2 and actors.counts().execs == 1

    until(noticed, "the look at least every 50 ms")


def test_preloaded_code_earns_no_trust(actors: Actors, processes: Processes) -> None:
    library = next(Path("/lib").glob("*/libm.so.6"))
    pid = running(processes, SLEEP, "100", env={"LD_PRELOAD": str(library)})
    info = info_of(actors, pid, closely=False)
    assert info.tampered == Tampering.PRELOAD and info.sole_digest is None
    assert info.exe_sha256 == sha256(SLEEP)
    assert info_of(actors, running(processes, SLEEP, "100", env={"LD_PRELOAD": ""})).sole_digest == sha256(SLEEP)


@pytest.mark.root
def test_foreign_code_shows_also_where_the_environment_hides_it(
    actors: Actors, processes: Processes, tmp_path: Path
) -> None:
    library = tmp_path / "libm.so.6"
    shutil.copy(next(Path("/lib").glob("*/libm.so.6")), library)
    os.chown(library, 12345, 12345)
    script = f"import ctypes; x = ctypes.CDLL({str(library)!r}); print(flush=True); input()"
    process = processes.run(
        "/usr/bin/env", "-i", sys.executable, "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert not info_of(actors, process.pid, closely=False).tampered
    assert info_of(actors, process.pid).tampered == Tampering.FOREIGN_CODE


def test_a_traced_process_earns_no_trust(actors: Actors, processes: Processes) -> None:
    pid = running(processes, SLEEP, "100")
    libc = ctypes.CDLL(None, use_errno=True)
    seize, detach = 0x4206, 17
    if libc.ptrace(seize, pid, None, None) != 0:
        pytest.skip("ptrace is not permitted here: no process can be traced")
    try:
        assert info_of(actors, pid).tampered == Tampering.TRACED
    finally:
        libc.ptrace(detach, pid, None, None)


def test_a_process_whose_first_thread_ended_goes_on_being_one(actors: Actors, processes: Processes) -> None:
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=lambda: [print(flush=True), time.sleep(100)]).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit(2) of this thread alone, without the GIL
    )
    process = processes.run(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    stat = Path(f"/proc/{process.pid}/stat")
    until(lambda: b") Z " in stat.read_bytes(), "the first thread's end")
    info = info_of(actors, process.pid)
    assert info.exe == os.fsencode(os.path.realpath(sys.executable))
    assert dict(actors.members(info.key)).keys() == {process.pid}


def test_who_ended_before_the_first_look_is_nobody(actors: Actors, processes: Processes) -> None:
    process = processes.run("/bin/true")
    process.wait()
    assert actors.of(process.pid) == (0, False)
    for pid in (0, -1, 2**31 - 1):
        assert actors.of(pid) == (0, False)
    assert actors.info(0) is None
    assert actors.counts().gone >= 1


def test_who_ended_and_was_not_waited_for_is_told_by_its_parent(actors: Actors, processes: Processes) -> None:
    script = "import os\nif os.fork() == 0: os._exit(0)\ninput()"
    process = processes.run(sys.executable, "-c", script, stdin=subprocess.PIPE)

    def ended() -> list[int]:
        return [pid for pid in children(process.pid) if b") Z " in Path(f"/proc/{pid}/stat").read_bytes()]

    until(ended, "the child's end")
    assert actors.of(ended()[0]) == actors.of(process.pid)
    info = info_of(actors, process.pid)
    assert info.more and info.sole_digest is None, "what the child ran cannot be told"


_REUSE = """
import os, sys, time
from shieldd.native.actors import Actors
actors = Actors(own=[os.getpid()])

def child(again=None):
    for _ in range(1000):
        if again:
            open("/proc/sys/kernel/ns_last_pid", "w").write(str(again - 1))
        pid = os.fork()
        if pid == 0:
            os.setsid()
            time.sleep(100)
        if again in (None, pid):
            return pid
        os.kill(pid, 9); os.waitpid(pid, 0)
    raise SystemExit("the number did not come again")

first = child()
while os.getsid(first) != first: pass
key, certain = actors.of(first)
assert key and certain
os.kill(first, 9); os.waitpid(first, 0)
time.sleep(0.05)  # a start is told to a clock tick
assert child(first) == first
while os.getsid(first) != first: pass
other, certain = actors.of(first)
assert other and other != key and not certain, (key, other, certain)
assert actors.of(first) == (other, True)
assert actors.counts().reused == 1
assert actors.info(key) is not None and actors.members(key) == []
assert [pid for pid, _ in actors.members(other)] == [first]
os.kill(first, 9)
print("ok")
"""


@pytest.mark.root
def test_a_number_used_again_is_another_actor() -> None:
    command = ["unshare", "--fork", "--pid", "--mount-proc", sys.executable, "-c", _REUSE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unshare failed" in done.stderr:
        pytest.skip("no pid namespace can be made here: numbers cannot be chosen")
    assert done.stdout == "ok\n", done.stderr


def test_the_table_stays_within_its_bounds(processes: Processes) -> None:
    actors = Actors(own=[os.getpid()], processes=16, actors=16, pidfds=4)
    top = processes.run("/bin/bash", "-c", "for i in $(seq 40); do (setsid sleep 100 & wait) & done; wait").pid

    def sleepers() -> list[int]:
        found = [pid for shell in children(top) for pid in children(shell)]
        return [pid for pid in found if os.getsid(pid) == pid]

    until(lambda: len(sleepers()) == 40, "the sleepers")
    keys = {pid: actors.of(pid) for pid in sleepers()}
    counts = actors.counts()
    assert counts.processes <= 17 and counts.actors <= 17 and counts.pidfds <= 4
    assert len(set(keys.values())) == 40
    assert {pid: actors.of(pid) for pid in keys} == keys, "who was forgotten gets the same key again"
    for pid in keys:
        os.kill(pid, 9)


def test_a_digest_is_of_that_very_content(tmp_path: Path, actors: Actors, processes: Processes, program: Path) -> None:
    pid = running(processes, program, "100")
    one = info_of(actors, pid).executables[0]
    assert Digests().of(one) == sha256(program)
    assert Digests(limit_bytes=one.size - 1).of(one) == b""
    processes.end()
    processes.started.clear()
    fresh = Digests()
    program.write_bytes(b"other")
    assert fresh.of(one) == b"", "the name leads to another content now"
    program.unlink()
    os.mkfifo(program)
    assert fresh.of(one) == b"", "a FIFO does not hold us"
    assert not session(pid)
