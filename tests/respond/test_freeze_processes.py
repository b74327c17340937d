"""A signal to a group of real processes: everybody of it, nobody beside it, whoever forks, hides or ends meanwhile."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shieldd.errors import ShieldError
from shieldd.model.contained import Fate, Member, Spared, Trait
from shieldd.native.freeze import Freezer
from tests.respond.processes import Zoo, inside, member, session, stat, state, until

PYTHON = os.path.realpath(sys.executable)
WORKERS = """
for i in range(%d):
    if os.fork() == 0: work("w%%d" %% i)
ready("ready")
work("top")
"""


@pytest.fixture
def zoo(scratch_tree: Path) -> Iterator[Zoo]:
    made = Zoo(scratch_tree)
    yield made
    made.end()


def at_rest(pids: list[int]) -> bool:
    return all(state(pid) in "TtZX-" for pid in pids)


def test_workers_stop_with_whoever_started_them_and_go_on_together(zoo: Zoo) -> None:
    top = zoo.start(WORKERS % 4)
    everybody = session(top.pid)
    assert len(everybody) == 5
    sent = Freezer().stop([member(top.pid)])
    assert sent.complete and {x.fate for x in sent.told} == {Fate.DONE}
    assert {x.member.pid for x in sent.told} == set(everybody)
    assert at_rest(everybody) and not zoo.advances("w0")
    assert sum(Trait.FOUND in x.traits for x in sent.told) == 4
    Freezer().resume([x.member for x in sent.told])
    until(lambda: all(zoo.advances(name) for name in ("top", "w0", "w3")))


def test_a_neighbour_in_another_session_goes_on(zoo: Zoo) -> None:
    attacker, neighbour = zoo.start(WORKERS % 2), zoo.start('ready("other"); work("n")', ready="other")
    sent = Freezer().stop([member(attacker.pid)])
    assert sent.complete and neighbour.pid not in {x.member.pid for x in sent.told}
    assert zoo.advances("n") and not zoo.advances("top")


def test_a_neighbour_of_the_same_shell_goes_on(zoo: Zoo) -> None:
    """The shell is no member: its other children are none either, though they share session and process group."""
    shell = zoo.start("""
a = os.fork()
if a == 0: work("bad")
b = os.fork()
if b == 0: work("good")
with open("a", "w") as f: f.write(str(a))
ready("ready")
rest()
""")
    bad = int((zoo.scratch / "a").read_text())
    sent = Freezer().stop([member(bad)])
    assert sent.complete and [x.member.pid for x in sent.told] == [bad]
    assert zoo.advances("good") and not zoo.advances("bad") and state(shell.pid) != "T"


def test_a_fork_bomb_is_stopped_to_the_last_process(zoo: Zoo) -> None:
    """Fifty at a time: each makes another and goes, as fast as it can; all end by themselves after three seconds."""
    top = zoo.start("""
END = time.monotonic() + 3
for i in range(49):
    if os.fork() == 0:
        while not late():
            if os.fork(): os._exit(0)
        os._exit(0)
ready("ready")
rest()
""")
    freezer = Freezer()
    sent = freezer.stop([member(top.pid)])
    assert sent.complete, f"{sent.passes} passes"
    told = {x.member for x in sent.told}
    assert not [pid for pid in session(top.pid) if stat(pid) and member(pid) not in told]
    assert freezer.kill([member(top.pid)]).complete
    until(lambda: not session(top.pid))


def test_xargs_with_eight_children_at_a_time(zoo: Zoo) -> None:
    command = "seq 20000 | xargs -P 8 -I{} sh -c 'echo {} > x.{} && rm -f x.{}'"
    shell = subprocess.Popen(["sh", "-c", command], cwd=zoo.scratch, start_new_session=True)
    zoo.own(shell)
    until(lambda: len(session(shell.pid)) > 8)
    sent = Freezer().stop([member(shell.pid)])
    assert sent.complete and {x.fate for x in sent.told} <= {Fate.DONE, Fate.GONE}
    names = sorted(x.name for x in zoo.scratch.iterdir())
    # D: in vfork, until its stopped child goes on
    assert {state(pid) for pid in session(shell.pid)} <= {"T", "D"}
    assert sorted(x.name for x in zoo.scratch.iterdir()) == names
    assert Freezer().kill([member(shell.pid)]).complete
    until(lambda: not session(shell.pid))


def test_whoever_ignores_every_signal_it_can_is_stopped_and_killed(zoo: Zoo) -> None:
    deaf = zoo.start("""
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
ready("ready"); work("deaf")
""")
    freezer = Freezer()
    assert freezer.stop([member(deaf.pid)]).complete and state(deaf.pid) == "T"
    os.kill(deaf.pid, signal.SIGTERM)
    assert state(deaf.pid) == "T"
    sent = freezer.kill([member(deaf.pid)])
    assert sent.complete and [x.fate for x in sent.told] == [Fate.DONE]
    assert deaf.wait(10) == -signal.SIGKILL


def test_an_exec_keeps_the_process_in_reach(zoo: Zoo) -> None:
    other = zoo.start('ready("ready"); os.execv("/bin/sleep", ["kworker/0:1", "60"])')
    until(lambda: os.readlink(f"/proc/{other.pid}/exe") != PYTHON)
    sent = Freezer().stop([member(other.pid)])
    assert sent.complete and state(other.pid) == "T"


def test_whoever_ends_between_the_look_and_the_signal_is_told_as_gone(zoo: Zoo) -> None:
    brief = zoo.start('ready("ready")')
    known = Member(brief.pid, 1)
    brief.wait(10)
    sent = Freezer().stop([known])
    assert sent.complete and [x.fate for x in sent.told] == [Fate.GONE]


def test_another_process_with_the_number_is_not_touched(zoo: Zoo) -> None:
    alive = zoo.start('ready("ready"); work("w")')
    old = Member(alive.pid, member(alive.pid).start_ticks - 1)
    for act in (Freezer().stop, Freezer().resume, Freezer().kill):
        assert [x.fate for x in act([old]).told] == [Fate.GONE]
    assert zoo.advances("w")


def test_a_process_with_threads_stops_with_all_of_them(zoo: Zoo) -> None:
    top = zoo.start("""
import threading
for i in range(4): threading.Thread(target=work, args=("t%d" % i,), daemon=True).start()
while not os.path.exists("t3"): pass
ready("ready"); work("t")
""")
    sent = Freezer().stop([member(top.pid)])
    assert sent.complete and Trait.THREADS in sent.told[0].traits
    assert not any(zoo.advances(name) for name in ("t", "t0", "t3"))


HEADLESS = """
import ctypes, threading
def other():
    while not os.path.exists("ready"): pass
    work("t0")
threading.Thread(target=other).start()
ready("ready")
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_is_not_taken_for_dead(zoo: Zoo) -> None:
    top = zoo.start(HEADLESS)
    until(lambda: state(top.pid) == "Z" and zoo.advances("t0"))
    sent = Freezer().stop([member(top.pid)])
    assert sent.complete and sent.told[0].fate is Fate.DONE and Trait.HEADLESS in sent.told[0].traits
    assert not zoo.advances("t0")


def test_children_that_left_session_and_group_are_found(zoo: Zoo) -> None:
    top = zoo.start("""
if os.fork() == 0:
    os.setsid()
    ready("away")
    work("away.work")
while not os.path.exists("away.work"): pass
ready("ready")
rest()
""")
    sent = Freezer().stop([member(top.pid)])
    assert sent.complete and len(sent.told) == 2 and not zoo.advances("away.work")


@pytest.mark.root
def test_a_child_that_is_the_first_process_of_its_own_namespace_is_stopped(zoo: Zoo) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    (zoo.scratch / "n.py").write_text(
        "import time\nend = time.time() + 30\nwhile time.time() < end: open('n', 'w').write(str(time.time()))\n"
    )
    top = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-S", "n.py"],
        cwd=zoo.scratch,
        start_new_session=True,
    )
    zoo.own(top)
    until((zoo.scratch / "n").exists)
    sent = Freezer().stop([member(top.pid)])
    assert sent.complete and len(sent.told) == 2 and not zoo.advances("n")
    assert Freezer().kill([member(top.pid)]).complete
    until(lambda: not list(inside(zoo.scratch)))


def test_a_tracer_that_keeps_a_member_running_is_stopped_with_it(zoo: Zoo) -> None:
    """It drops every stop that is meant for the member. Run by another user: root's tracers are trusted."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the tracer runs as another user")
    zoo.scratch.chmod(0o777)
    for above in zoo.scratch.parents:
        if above.stat().st_mode & 0o001 == 0:
            above.chmod(above.stat().st_mode | 0o011)
    tracer = zoo.start("""
import ctypes
os.setgid(65534); os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
libc = ctypes.CDLL(None, use_errno=True)
child = os.fork()
if child == 0: work("held")
with open("child", "w") as f: f.write(str(child))
while not os.path.exists("held"): pass
assert libc.ptrace(16, child, None, None) == 0
os.waitpid(child, 0)
libc.ptrace(7, child, None, None)
ready("ready")
while not late():
    os.waitpid(child, 0)
    libc.ptrace(7, child, None, None)
""")
    child = int((zoo.scratch / "child").read_text())
    assert zoo.advances("held")
    sent = Freezer().stop([member(child)])
    fates = {x.member.pid: x for x in sent.told}
    assert tracer.pid in fates and Trait.TRACER in fates[tracer.pid].traits
    assert sent.complete and not zoo.advances("held")


def test_a_zombie_is_no_obstacle(zoo: Zoo) -> None:
    top = zoo.start("""
child = os.fork()
if child == 0: os._exit(0)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
ready("ready"); work("w")
""")
    sent = Freezer().stop([member(top.pid)])
    assert sent.complete and [x.fate for x in sent.told] == [Fate.DONE]


def test_who_was_stopped_before_is_told_apart(zoo: Zoo) -> None:
    top = zoo.start('ready("ready"); work("w")')
    os.kill(top.pid, signal.SIGSTOP)
    until(lambda: state(top.pid) == "T")
    assert [x.fate for x in Freezer().stop([member(top.pid)]).told] == [Fate.ALREADY]


def test_the_system_and_ourselves_are_spared_whatever_is_asked() -> None:
    freezer = Freezer(own=[os.getppid()])
    asked = [member(1), member(2), member(os.getpid()), member(os.getppid())]
    told = {x.member.pid: x for x in freezer.stop(asked).told}
    assert {x.fate for x in told.values()} == {Fate.SPARED}
    assert told[1].spared is Spared.FIRST and told[os.getpid()].spared is Spared.OURSELVES
    assert told[2].spared in (Spared.KERNEL, Spared.ANCESTOR)
    assert {x.fate for x in freezer.kill(asked).told} == {Fate.SPARED}


class TestNeverContained:
    """The list holds by what a process runs now, and against every disguise."""

    @pytest.fixture
    def listed(self, tmp_path: Path) -> bytes:
        """A program of its own: a copy of sleep that nobody else runs, with its digest."""
        return Path(shutil.which("sleep") or "/bin/sleep").read_bytes() + secrets.token_bytes(16)

    def run(self, zoo: Zoo, *command: str | Path, **more: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([str(x) for x in command], cwd=zoo.scratch, start_new_session=True, **more)  # type: ignore[call-overload]
        zoo.own(process)
        until(lambda: state(process.pid) == "S")
        return process

    def digest(self, content: bytes) -> bytes:
        import hashlib

        return hashlib.sha256(content).digest()

    def program(self, zoo: Zoo, name: str, content: bytes) -> Path:
        path = zoo.scratch / name
        path.write_bytes(content)
        path.chmod(0o755)
        return path

    def test_under_any_name_and_link_and_when_deleted(self, zoo: Zoo, listed: bytes) -> None:
        freezer = Freezer(digests=[self.digest(listed)])
        path = self.program(zoo, "backup", listed)
        renamed = self.program(zoo, "renamed", listed)
        link = zoo.scratch / "link"
        link.symlink_to(renamed)
        gone = self.program(zoo, "gone", listed)
        for command in (path, renamed, link, gone):
            process = self.run(zoo, command, "60")
            if command == gone:
                gone.unlink()
            sent = freezer.stop([member(process.pid)])
            assert [(x.fate, x.spared) for x in sent.told] == [(Fate.SPARED, Spared.LISTED)], command
            assert state(process.pid) == "S"

    def test_a_name_alone_spares_nobody(self, zoo: Zoo, listed: bytes) -> None:
        """argv, path and link of a spared program, with another content behind them."""
        freezer = Freezer(digests=[self.digest(listed)])
        other = self.program(zoo, "backup", Path("/bin/sleep").read_bytes())
        for name in ("sshd", "systemd", "smbd"):
            disguised = self.program(zoo, name, Path("/bin/sleep").read_bytes())
            process = self.run(zoo, f"/usr/sbin/{name}", "60", executable=str(disguised))
            assert freezer.stop([member(process.pid)]).told[0].fate is Fate.DONE, name
        process = self.run(zoo, other, "60")
        assert freezer.stop([member(process.pid)]).told[0].fate is Fate.DONE

    def test_an_exec_after_it_was_looked_at_loses_it(self, zoo: Zoo, listed: bytes) -> None:
        freezer = Freezer(digests=[self.digest(listed)])
        self.program(zoo, "backup", listed)
        program = 'if len(sys.argv) > 2: pass\nready("ready")\nwhile not os.path.exists("go"): pass\n'
        process = zoo.start(program + 'os.execv("/bin/sleep", ["./backup", "60"])')
        before = freezer.look(member(process.pid))
        (zoo.scratch / "go").touch()
        until(lambda: os.readlink(f"/proc/{process.pid}/exe") != PYTHON)
        after = freezer.look(member(process.pid))
        assert before.exe_sha256 != after.exe_sha256
        assert freezer.stop([member(process.pid)]).told[0].fate is Fate.DONE

    @pytest.mark.root
    def test_a_preloaded_library_loses_it(self, zoo: Zoo, listed: bytes) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler here")
        library = zoo.scratch / "evil.so"
        (zoo.scratch / "evil.c").write_text("int evil = 1;\n")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, zoo.scratch / "evil.c"], check=True)
        os.chown(library, 65534, 65534)
        freezer = Freezer(digests=[self.digest(listed)])
        path = self.program(zoo, "backup", listed)
        plain = self.run(zoo, path, "60")
        assert freezer.stop([member(plain.pid)]).told[0].fate is Fate.SPARED
        loaded = self.run(zoo, path, "60", env={"LD_PRELOAD": str(library)})
        assert "LD_PRELOAD" in freezer.look(member(loaded.pid)).foreign
        assert freezer.stop([member(loaded.pid)]).told[0].fate is Fate.DONE

    def test_a_spared_member_goes_on_in_a_stopped_group(self, zoo: Zoo, listed: bytes) -> None:
        self.program(zoo, "backup", listed)
        top = zoo.start("""
if os.fork() == 0: os.execv("./backup", ["backup", "60"])
if os.fork() == 0: work("bad")
while not os.path.exists("bad"): pass
ready("ready"); work("top")
""")
        until(lambda: any(state(pid) == "S" for pid in session(top.pid)))
        sent = Freezer(digests=[self.digest(listed)]).stop([member(top.pid)])
        assert sent.complete
        assert sorted(x.fate for x in sent.told) == [Fate.DONE, Fate.DONE, Fate.SPARED]


CGROUPS = (
    Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified/cgroup.procs").exists() else Path("/sys/fs/cgroup")
)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A control group of the test's own."""
    place = CGROUPS / f"shieldd-test-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        place.mkdir()
        assert (place / "cgroup.freeze").exists()
    except (OSError, AssertionError):
        pytest.skip("no cgroup v2 with a freezer can be written here")
    yield place
    (place / "cgroup.freeze").write_text("0")
    until(lambda: not (place / "cgroup.procs").read_text())
    place.rmdir()


@pytest.mark.root
class TestControlGroup:
    """The freezer of control groups, where the actor is one of its own."""

    def test_a_group_of_its_own_is_frozen_and_thawed(self, zoo: Zoo, cgroup: Path) -> None:
        top = zoo.start(WORKERS % 2)
        for pid in session(top.pid):
            (cgroup / "cgroup.procs").write_text(str(pid))
        freezer = Freezer()
        sent = freezer.stop([member(top.pid)])
        directory = freezer.freeze_group([x.member.pid for x in sent.told])
        assert directory == os.fsencode(cgroup)
        assert "frozen 1" in (cgroup / "cgroup.events").read_text()
        freezer.resume([x.member for x in sent.told])
        assert not zoo.advances("top"), "frost holds against SIGCONT"
        freezer.thaw_group(directory)
        until(lambda: zoo.advances("top"))
        assert freezer.kill([member(top.pid)]).complete
        zoo.end()

    def test_a_group_that_holds_others_is_not(self, zoo: Zoo, cgroup: Path) -> None:
        top, neighbour = zoo.start(WORKERS % 1), zoo.start('ready("other"); work("n")', ready="other")
        for pid in [*session(top.pid), neighbour.pid]:
            (cgroup / "cgroup.procs").write_text(str(pid))
        sent = Freezer().stop([member(top.pid)])
        with pytest.raises(ShieldError) as caught:
            Freezer().freeze_group([x.member.pid for x in sent.told])
        assert caught.value.code == "contain.cgroup" and "others" in caught.value.message
        assert zoo.advances("n")
        zoo.end()

    def test_the_root_and_foreign_directories_are_refused(self, zoo: Zoo, tmp_path: Path) -> None:
        top = zoo.start('ready("ready"); work("w")')
        with pytest.raises(ShieldError):
            Freezer().freeze_group([top.pid])
        (tmp_path / "cgroup.freeze").write_text("1")
        with pytest.raises(ShieldError):
            Freezer().thaw_group(os.fsencode(tmp_path))
        assert (tmp_path / "cgroup.freeze").read_text() == "1"


@pytest.mark.parametrize("count", [1, 10, 100])
def test_a_whole_group_stands_within_its_time(zoo: Zoo, count: int) -> None:
    top = zoo.start(WORKERS % (count - 1))
    begun = time.monotonic()
    sent = Freezer().stop([member(pid) for pid in session(top.pid)])
    assert sent.complete and len(sent.told) == count and time.monotonic() - begun < 1.0
    assert sent.first_ns < 250_000_000
