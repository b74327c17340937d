"""Which real processes are one actor, and which are not."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shieldd.model.actor import ActorKind
from shieldd.native.actors import Actors

from .conftest import Processes, children, session, start_ticks, until


def words_of(pid: int) -> list[bytes]:
    """Arguments of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def keys_of(actors: Actors, pids: set[int]) -> set[int]:
    """Actors of processes, each for certain."""
    found = set()
    for pid in pids:
        key, certain = actors.of(pid)
        assert key >> 63 == 1 and certain
        found.add(key)
    return found


def test_children_of_xargs_are_one_actor(actors: Actors, processes: Processes) -> None:
    pids = processes.shell("seq 8 | xargs -P 8 -I{} sh -c 'sleep 100; :'", count=17)
    assert len(keys_of(actors, pids)) == 1


@pytest.mark.root
def test_what_lost_its_privileges_is_an_actor_without_the_root_who_started_it(
    actors: Actors, processes: Processes
) -> None:
    """Else an account without privileges could have root's whole session stopped."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv here")
    plain = "setpriv --reuid 65534 --regid 65534 --clear-groups sleep 100"
    pids = processes.shell(f"{plain} & {plain} & sleep 100", count=3)
    until(lambda: sum(os.stat(f"/proc/{pid}").st_uid == 65534 for pid in pids) == 2, "two without privileges")
    theirs = {pid for pid in pids if os.stat(f"/proc/{pid}").st_uid == 65534}
    until(lambda: all(os.readlink(f"/proc/{pid}/exe").endswith("sleep") for pid in theirs), "two that sleep")
    (key,) = keys_of(actors, theirs)
    assert {key} != keys_of(actors, pids - theirs) and len(keys_of(actors, pids - theirs)) == 1
    assert {pid for pid, _ in actors.members(key)} == theirs


def test_a_script_and_its_one_file_programs_are_one_actor(actors: Actors, processes: Processes) -> None:
    top = processes.run("/bin/bash", "-c", "while :; do sleep 0.02; /bin/true; done")
    seen: set[int] = set()

    def several() -> bool:
        for pid in children(top.pid):
            key, _ = actors.of(pid)
            if key:
                seen.add(pid)
                assert key == actors.of(top.pid)[0]
        return len(seen) >= 10

    until(several, "ten short programs")
    info = actors.info(actors.of(top.pid)[0])
    assert info is not None and info.pid == top.pid and info.processes >= 10


def test_sessions_are_actors_of_their_own(actors: Actors, processes: Processes) -> None:
    attacker, neighbour = (processes.shell("sleep 100 & sleep 100", count=2) for _ in range(2))
    one, other = keys_of(actors, attacker), keys_of(actors, neighbour)
    assert len(one) == len(other) == 1 and one != other


def test_forking_twice_makes_no_new_actor(actors: Actors, processes: Processes) -> None:
    pids = processes.shell("(sleep 100 &); (sleep 101 &); sleep 102", count=3)
    assert len(keys_of(actors, pids)) == 1


def test_what_was_seen_keeps_its_actor_when_it_leaves_the_session(actors: Actors, processes: Processes) -> None:
    script = "import os\ninput()\nos.setsid()\nprint(flush=True)\ninput()"
    shell = processes.run(
        "/bin/bash",
        "-c",
        f"{sys.executable} -c '{script}' <&3; :",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.dup2(0, 3),
        close_fds=False,
    )
    until(lambda: len(session(shell.pid)) == 2, "the child")
    (child,) = session(shell.pid) - {shell.pid}
    before = actors.of(child)
    assert shell.stdin is not None and shell.stdout is not None
    shell.stdin.write(b"\n")
    shell.stdin.flush()
    shell.stdout.readline()
    assert session(child) == {child}
    assert actors.of(child) == before
    assert dict(actors.members(before[0])).keys() == {shell.pid, child}
    shell.stdin.close()


def leaders(actors: Actors, top: int, count: int) -> list[tuple[int, bool]]:
    """Actors of the sleepers that a script started in sessions of their own, as they come."""
    until(lambda: sum(os.getsid(pid) == pid and runs_sleep(pid) for pid in children(top)) >= count, "the sessions")
    return [actors.of(pid) for pid in children(top) if os.getsid(pid) == pid]


def runs_sleep(pid: int) -> bool:
    """Whether it is the program already, not the shell that is about to run it."""
    return os.readlink(f"/proc/{pid}/exe").endswith("/sleep")


def test_a_session_for_each_file_hides_nobody(actors: Actors, processes: Processes) -> None:
    top = processes.run("/bin/bash", "-c", "for i in $(seq 40); do setsid sleep 100 & done; wait").pid
    found = leaders(actors, top, 40)
    assert len(set(found)) == 8, "seven of their own, all others their starter's"
    assert found[7:] == [actors.of(top)] * 33
    members = dict(actors.members(actors.of(top)[0]))
    assert top in members and len(members) == 34
    for pid in children(top):
        os.kill(pid, signal.SIGKILL)


def test_a_few_sessions_are_actors_of_their_own(actors: Actors, processes: Processes) -> None:
    top = processes.run("/bin/bash", "-c", "for i in $(seq 7); do setsid sleep 100 & done; wait").pid
    found = leaders(actors, top, 7)
    assert len(set(found)) == 7 and actors.of(top) not in found
    for pid in children(top):
        os.kill(pid, signal.SIGKILL)


def test_sessions_whose_starter_left_are_one_actor(actors: Actors, processes: Processes) -> None:
    seconds = str(100_000 + os.getpid())
    processes.run("/bin/bash", "-c", f"for i in $(seq 20); do setsid -f sleep {seconds}; done; sleep 100")

    def sleepers() -> list[int]:
        return [
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if words_of(pid)[1:2] == [seconds.encode()]
        ]

    until(lambda: sum(runs_sleep(pid) and os.getsid(pid) == pid for pid in sleepers()) == 20, "the sessions")
    found = [actors.of(pid)[0] for pid in sorted(sleepers())]
    try:
        assert len(set(found)) == 8 and len(set(found[7:])) == 1
        assert set(sorted(sleepers())[7:]) <= set(dict(actors.members(found[-1])))
    finally:
        for pid in sleepers():
            os.kill(pid, signal.SIGKILL)


def test_any_process_that_looks_finds_the_same_key(actors: Actors, processes: Processes) -> None:
    pids = sorted(processes.shell("seq 3 | xargs -P 3 -I{} sleep 100", count=4))
    script = "import sys; from shieldd.native.actors import Actors; a = Actors(own=[int(sys.argv[1])])\n"
    script += "print(*(a.of(int(pid))[0] for pid in sys.argv[2:]))"
    looked = subprocess.run(
        [sys.executable, "-c", script, str(os.getpid()), *map(str, pids)], capture_output=True, text=True, check=True
    )
    assert [int(key) for key in looked.stdout.split()] == [actors.of(pid)[0] for pid in pids]


def test_threads_belong_to_their_process(actors: Actors, processes: Processes) -> None:
    script = "import threading; threading.Thread(target=input).start(); print(flush=True); input()"
    process = processes.run(sys.executable, "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    threads = {int(name) for name in os.listdir(f"/proc/{process.pid}/task")}
    assert len(threads) == 2
    assert keys_of(actors, threads) == keys_of(actors, {process.pid})
    assert dict(actors.members(actors.of(process.pid)[0])).keys() == {process.pid}


def test_members_are_all_that_live_and_nobody_else(actors: Actors, processes: Processes) -> None:
    pids = processes.shell("seq 8 | xargs -P 8 -I{} sleep 100", count=9)
    processes.shell("sleep 100 & sleep 100", count=2)
    key, _ = actors.of(max(pids))  # the others never acted
    assert dict(actors.members(key)) == {pid: start_ticks(pid) for pid in pids}
    assert actors.members(key ^ 1) == []


def test_neither_ours_nor_the_first_process_is_a_member(actors: Actors) -> None:
    for pid in (1, os.getpid()):
        key, _ = actors.of(pid)
        info = actors.info(key, digests=False)
        assert info is not None and info.kind is ActorKind.HOST
        assert actors.members(key) == []


@pytest.mark.root
def test_each_child_of_a_server_is_an_actor_and_the_server_none(processes: Processes, tmp_path: Path) -> None:
    server = tmp_path / "smbd"
    shutil.copy("/bin/bash", server)
    actors = Actors(own=[os.getpid()], servers=[os.fsencode(server)])
    script = (
        "for i in 1 2; do (sleep 100; :) & done; exec -a 'smbd: client [10.1.2.3]' \"$0\" -c 'sleep 100; :' &\nwait"
    )
    top = processes.run(server, "-c", script)
    until(lambda: len(session(top.pid)) == 7, "three clients, each with a program")
    clients = {pid for pid in session(top.pid) - {top.pid} if os.readlink(f"/proc/{pid}/exe") == str(server)}
    assert len(clients) == 3 and len(keys_of(actors, clients)) == 3
    kinds = [actors.info(actors.of(pid)[0]) for pid in (*clients, top.pid)]
    assert [info.kind for info in kinds if info] == [ActorKind.CLIENT] * 3 + [ActorKind.HOST]
    assert {info.client for info in kinds if info} == {b"", b"10.1.2.3"}
    for client in clients:
        key, _ = actors.of(client)
        members = dict(actors.members(key)).keys()
        assert client in members and len(members) == 2 and top.pid not in members
    assert actors.members(actors.of(top.pid)[0]) == []


def test_a_copy_of_a_launcher_is_an_ordinary_program(actors: Actors, processes: Processes, tmp_path: Path) -> None:
    for name in ("sshd", "smbd", "systemd", "tmux"):
        copy = tmp_path / name
        shutil.copy("/bin/bash", copy)
        top = processes.run(copy, "-c", "sleep 100 & sleep 100 & wait")
        until(lambda top=top: len(session(top.pid)) == 3, "its children")
        assert len(keys_of(actors, session(top.pid))) == 1


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, processes: Processes) -> None:
        self.fd, other = pty.openpty()
        self.shell = processes.run(
            "/bin/bash", "--norc", "--noprofile", "-i", stdin=other, stdout=other, stderr=other, preexec_fn=_controlling
        )
        os.close(other)

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self.fd, line.encode() + b"\n")

    def running(self, seconds: str) -> set[int]:
        """Processes `sleep SECONDS` of its session."""
        return {pid for pid in session(self.shell.pid) if words_of(pid)[1:2] == [seconds.encode()]}


def _controlling() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_typed_loop_is_one_actor_and_a_background_job_another(actors: Actors, processes: Processes) -> None:
    terminal = Terminal(processes)
    terminal.type("sleep 101 & sleep 102 &")
    terminal.type("for i in 1 2; do sleep 20$i; done; /bin/sleep 103 | cat")
    until(lambda: terminal.running("101") and terminal.running("102"), "the jobs")
    turn: set[int] = set()
    for program in ("201", "202"):
        until(lambda program=program: terminal.running(program), "a turn of the loop")
        (pid,) = terminal.running(program)
        turn |= keys_of(actors, {pid})
        os.kill(pid, signal.SIGKILL)
    until(lambda: terminal.running("103"), "the last command")
    last = terminal.running("103")
    shell = keys_of(actors, {terminal.shell.pid})
    assert turn == shell == keys_of(actors, last)
    jobs = keys_of(actors, terminal.running("101") | terminal.running("102"))
    assert len(jobs) == 1 and jobs != shell
    info = actors.info(*jobs)
    assert info is not None and info.kind is ActorKind.JOBS and info.cmdline.startswith(b"sleep\0")
    members = set(dict(actors.members(*shell)))
    assert {terminal.shell.pid} | last <= members
    assert not members & (terminal.running("101") | terminal.running("102"))
    os.close(terminal.fd)


def test_another_terminal_is_another_actor(actors: Actors, processes: Processes) -> None:
    keys = set()
    for _ in range(2):
        terminal = Terminal(processes)
        terminal.type("sleep 100")
        until(lambda terminal=terminal: terminal.running("100"), "the command")
        keys |= keys_of(actors, terminal.running("100"))
    assert len(keys) == 2


def test_ancestry_leads_to_who_started_the_session(actors: Actors, processes: Processes) -> None:
    pids = processes.shell("sh -c 'sleep 100; :'", count=2)
    info = actors.info(actors.of(max(pids))[0])
    assert info is not None
    assert info.ancestry[0].pid == os.getpid()
    assert info.ancestry[0].exe == os.fsencode(os.path.realpath(f"/proc/{os.getpid()}/exe"))
