"""The program as a process: signals, pipes, terminals, sockets, users, and the time that it takes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from shieldd.api import answers as a
from shieldd.errors import ShieldError
from tests.api.memory import NASTY, T0_NS, alert, event
from tests.cli.conftest import DEADLINE_S, Shell

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "shieldctl"]


def on_terminal(
    shell: Shell, *arguments: str, keys: bytes = b"", columns: int = 100, **environment: str
) -> tuple[int, str]:
    """Run a command on a terminal of its own, type `keys` once it asks; exit status and all that was shown."""
    parent, child = pty.openpty()
    env = shell.environment(TERM="xterm-256color", COLUMNS=str(columns), LINES="40", **environment)
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env=env,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  (control-C has to be a signal)
    )
    os.close(child)
    shown = bytearray()
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        if not select.select([parent], [], [], 0.2)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            chunk = os.read(parent, 65536)
        except OSError:
            break  # the other side is closed
        shown += chunk
        if keys and b"[y/N]" in shown:
            os.write(parent, keys)
            keys = b""
    os.close(parent)
    return process.wait(DEADLINE_S), shown.decode()


def plain(text: str) -> str:
    """What was shown without colour."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def start(shell: Shell, *arguments: str) -> subprocess.Popen[str]:
    """Start a command and leave it running."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=shell.environment(),
        cwd=ROOT,
    )


# following


def test_following_prints_each_line_as_it_happens_and_ends_with_130(shell: Shell) -> None:
    process = start(shell, "events", "-f", "-n", "1", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["seq"] == 4
    assert shell.served.engine.subscribed.wait(DEADLINE_S)
    shell.served.engine.happen(event(5, action="alert"))
    assert json.loads(process.stdout.readline())["seq"] == 5
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (130, "")
    assert json.loads(err)["code"] == "cli.interrupted"
    assert shell.served.engine.unsubscribed.wait(DEADLINE_S)


def test_following_plainly(shell: Shell) -> None:
    process = start(shell, "alerts", "-f")
    assert process.stdout is not None
    assert process.stdout.readline().split("\t")[1:4] == ["critical", "contain", "i1a2b3c4d5e6"]
    assert shell.served.engine.subscribed.wait(DEADLINE_S)
    shell.served.engine.happen(alert(2, text="note\x1b[2J"))
    assert "note\\x1b[2J" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130


def test_following_ends_with_3_when_the_daemon_stops(shell: Shell) -> None:
    process = start(shell, "events", "-f", "-n", "1")
    assert process.stdout is not None
    assert process.stdout.readline()
    shell.served.server.stop()
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 3
    assert err.startswith("shieldctl: the daemon has stopped\n")


def test_a_reader_that_has_enough_is_no_failure(shell: Shell) -> None:
    shell.served.engine.event_list = [event(n, b"/srv/phi/" + b"x" * 200) for n in range(1, 9000)]
    command = f"{sys.executable} -m shieldctl events -n 9000 | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=shell.environment(), cwd=ROOT, timeout=DEADLINE_S
    )
    assert done.stdout.splitlines() == ["AT\tKIND\tACTION\tUID\tPID\tPATH", "0"]
    assert done.stderr == ""


# pipes and terminals


def test_piped_output_is_never_cut(shell: Shell) -> None:
    long = b"/srv/phi/" + b"d" * 200 + b"/" + b"f" * 200
    shell.served.engine.event_list = [event(1, long)]
    assert long.decode() in shell.run("events").out


def test_on_a_terminal_a_long_name_is_folded_and_not_cut(shell: Shell) -> None:
    long = b"/srv/phi/" + b"d" * 200
    shell.served.engine.event_list = [event(1, long)]
    _, shown = on_terminal(shell, "events")
    assert re.sub(r"\s", "", plain(shown)).endswith("d" * 100)
    assert plain(shown).count("d") >= 200


def test_on_a_narrow_terminal_no_word_is_broken(shell: Shell) -> None:
    _, shown = on_terminal(shell, "threats", "list", columns=80)
    for word in ("STATE", "SEVERITY", "TOUCHED", "LOST", "critical"):
        assert word in plain(shown)
    _, wide = on_terminal(shell, "threats", "list", columns=200)
    assert {*plain(wide).lower().split()} == {*plain(shown).lower().split()}


def test_no_name_reaches_the_terminal_as_a_control_character_or_as_markup(shell: Shell) -> None:
    shell.served.engine.event_list = [event(1, NASTY), event(2, b"/srv/phi/[bold]x[/bold]\x07", action="alert")]
    for arguments in (["events"], ["quarantine", "list"], ["files", "list"], ["quarantine", "show", "q1a2b3ff"]):
        _, shown = on_terminal(shell, *arguments)
        assert "\x1b[31m[red]" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
        assert "\\x1b[31m[red]" in re.sub(r"\s", "", plain(shown))
    _, shown = on_terminal(shell, "events")
    assert "[bold]x[/bold]\\x07" in plain(shown)


def test_text_of_the_daemon_is_cleaned_too(shell: Shell) -> None:
    shell.served.engine.troubles = (a.Trouble("watch.lost", "lost\x1b]0;pwned\x07", "do\rthis", T0_NS),)
    status, shown = on_terminal(shell, "status")
    assert status == 6
    assert "\x1b]0" not in shown
    assert "lost\\x1b]0;pwned\\x07" in plain(shown)
    assert "do\\x0dthis" in plain(shown)


def test_colour_on_a_terminal_and_none_where_it_is_not_wanted(shell: Shell) -> None:
    assert "\x1b[" in on_terminal(shell, "threats", "list")[1]
    assert "\x1b[" not in on_terminal(shell, "threats", "list", NO_COLOR="1")[1].replace("\x1b[1m", "").replace(
        "\x1b[0m", ""
    )
    assert "\x1b" not in shell.run("threats", "list").out


def test_a_dumb_terminal_gets_plain_lines(shell: Shell) -> None:
    parent, child = pty.openpty()
    done = subprocess.run([*PROGRAM, "threats", "list"], stdout=child, env=shell.environment(TERM="dumb"), cwd=ROOT)
    os.close(child)
    shown = os.read(parent, 65536)
    os.close(parent)
    assert done.returncode == 0
    assert b"\x1b" not in shown


@pytest.mark.parametrize(("keys", "status", "left"), [(b"y\n", 0, 1), (b"n\n", 1, 2), (b"\n", 1, 2), (b"\x04", 1, 2)])
def test_a_question_is_asked_on_a_terminal(shell: Shell, keys: bytes, status: int, left: int) -> None:
    ended, shown = on_terminal(shell, "quarantine", "purge", "q1a2b3c4", keys=keys)
    assert "destroy q1a2b3c4 (/srv/phi/invoice.exe, 4 B) for good? [y/N]" in plain(shown)
    assert ended == status
    assert len(shell.served.engine.quarantined) == left


def test_an_interrupt_at_the_question_changes_nothing(shell: Shell) -> None:
    ended, _ = on_terminal(shell, "quarantine", "purge", "q1a2b3c4", keys=b"\x03")
    assert ended == 130
    assert len(shell.served.engine.quarantined) == 2


# states and exit statuses


@pytest.mark.parametrize("state", ["degraded", "blind", "starting"])
def test_status_ends_with_6_when_all_is_not_well(shell: Shell, state: str) -> None:
    shell.served.engine.state = a.Health(state)
    ended = shell.run("status")
    assert ended.status == 6
    assert f"state\t{state}" in ended.out


def test_doctor_ends_with_6_and_says_what_to_do(shell: Shell) -> None:
    shell.served.engine.checks = (
        a.Check(
            "watches",
            a.CheckState.FAIL,
            "max_user_watches is 8192, needed 1200000",
            "sysctl -w fs.inotify.max_user_watches=2000000",
        ),
        a.Check("policy", a.CheckState.WARN, "older than 90 days", "shieldctl policy show"),
    )
    ended = shell.run("doctor")
    assert ended.status == 6
    assert ended.out.splitlines() == [
        "fail  watches: max_user_watches is 8192, needed 1200000",
        "      hint: sysctl -w fs.inotify.max_user_watches=2000000",
        "warn  policy: older than 90 days",
        "      hint: shieldctl policy show",
    ]


def test_wait_waits_for_the_daemon_to_come(shell: Shell, tmp_path: Path) -> None:
    shell.served.engine.state = a.Health.STARTING
    process = start(shell, "wait", "--timeout", "20")
    while not shell.served.server._api.requests[200]:
        assert process.poll() is None
        time.sleep(0.01)
    shell.served.engine.state = a.Health.READY
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (0, "ready\n")


def test_wait_ends_with_6_when_it_guards_but_is_degraded(shell: Shell) -> None:
    shell.served.engine.state = a.Health.DEGRADED
    assert shell.run("wait").status == 6


def test_wait_gives_up(shell: Shell) -> None:
    shell.served.server.stop()
    ended = shell.run("wait", "--timeout", "0.2")
    assert ended.status == 3
    assert "daemon was not ready after 0.2 s: not running" in ended.err


@pytest.mark.parametrize(
    "line",
    [
        "status", "doctor", "ping", "events", "events -f", "alerts", "threats list", "threats show i1",
        "threats explain i1", "threats resolve i1 --verdict benign", "threats analyze /x", "files seal /x",
        "files open /x", "files cat /x", "files verify --all", "files status /x", "files list", "quarantine list",
        "quarantine show q1", "quarantine add /x", "quarantine restore q1", "quarantine purge q1", "keys list",
        "keys rotate", "keys rewrap", "keys providers", "policy show", "policy evaluate", "config show",
    ],
)  # fmt: skip
def test_every_command_ends_with_3_without_a_daemon(tmp_path: Path, line: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHIELD_SOCKET": str(tmp_path / "none.sock")}
    done = subprocess.run([*PROGRAM, *line.split()], capture_output=True, text=True, env=env, cwd=ROOT, timeout=30)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("shieldctl: daemon is not running")
    assert "hint: systemctl start shieldd" in done.stderr


def test_a_problem_in_the_middle_of_an_action_keeps_its_code(shell: Shell) -> None:
    def full(path: bytes, dry_run: bool) -> tuple[bytes, str]:
        raise RuntimeError

    shell.served.engine._seal_one = full  # type: ignore[method-assign]
    ended = shell.run("files", "seal", "/srv/phi/scan.dcm")
    assert ended.status == 1
    assert "fault inside the daemon" in ended.err


def test_an_error_of_the_daemon_keeps_code_hint_and_exit_status(shell: Shell) -> None:
    shell.served.engine.fault = ShieldError("keys.locked", hint="shieldd --unlock")
    ended = shell.run("status", "--json")
    assert ended.status == 1
    assert json.loads(ended.err) == {
        "code": "keys.locked", "detail": "keystore is locked", "hint": "shieldd --unlock", "exit": 1,
    }  # fmt: skip


def test_a_code_that_this_version_does_not_know_is_shown_as_it_is() -> None:
    from shieldctl.client import _error_of

    error = _error_of({"code": "future.thing", "detail": "odd", "hint": "upgrade"})
    assert (error.code, error.message, error.hint, error.exit_status) == ("future.thing", "odd", "upgrade", 1)


# names


def test_names_that_are_not_utf8_go_there_and_back(shell: Shell) -> None:
    engine = shell.served.engine
    engine.contents[NASTY] = b"x"
    del engine.contents[NASTY + b".shield"]
    ended = shell.run("files", "seal", NASTY)
    assert ended.status == 0
    assert NASTY + b".shield" in engine.contents
    assert shell.run("files", "cat", NASTY + b".shield").out == "x"


def test_a_relative_name_counts_from_the_current_directory(shell: Shell, tmp_path: Path) -> None:
    ended = subprocess.run(
        [*PROGRAM, "files", "seal", "./a/../b"],
        capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE_S,
        env={**shell.environment(), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert f"{tmp_path}/b: path is not inside a guarded tree" in ended.stderr


def test_more_names_than_one_request_holds(shell: Shell) -> None:
    names = [f"/srv/phi/{n:05d}-{'x' * 180}" for n in range(5000)]
    shell.served.engine.contents.update({name.encode(): b"" for name in names})
    ended = shell.run("files", "seal", "--json", *names)
    answer = json.loads(ended.out)
    assert (ended.status, answer["done"], len(answer["items"])) == (0, 5000, 5000)
    assert len(shell.served.engine.callers) > 1


# sockets and users


def test_the_socket_before_the_command_goes_before_the_environment(shell: Shell) -> None:
    env = shell.environment(SHIELD_SOCKET="/nonexistent")
    assert shell.run("ping", env=env).status == 3
    assert shell.run("--socket", shell.served.path, "ping", env=env).status == 0


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", "XDG_STATE_HOME"])
def test_the_socket_is_found_where_a_personal_daemon_puts_it(shell: Shell, tmp_path: Path, variable: str) -> None:
    (tmp_path / "shieldd").mkdir()
    (tmp_path / "shieldd" / "shieldd.sock").symlink_to(shell.served.path)
    env = shell.environment(**{variable: str(tmp_path)})
    del env["SHIELD_SOCKET"]
    if Path("/run/shieldd/shieldd.sock").exists():
        pytest.skip("a service runs on this machine")
    assert shell.run("ping", env=env).status == 0


def test_a_socket_path_longer_than_an_address(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 150)
    folder.mkdir()
    (folder / "s").symlink_to(shell.served.path)
    assert shell.run("--socket", str(folder / "s"), "ping").status == 0


def test_what_is_not_a_daemon_is_told_apart(tmp_path: Path, shell: Shell) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(path)
        other.listen(1)

        def answer() -> None:
            with other.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        ended = shell.run("--socket", path, "status")
        thread.join(DEADLINE_S)
    assert ended.status == 1
    assert "daemon closed the connection" in ended.err


def run_as(uid: int, gid: int, arguments: Sequence[str], env: dict[str, str]) -> tuple[int, str]:
    """Run the program as another user, in a child that has loaded it before it gives its rights away."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            from shieldctl.__main__ import run

            os.dup2(write_fd, 1)
            os.dup2(write_fd, 2)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
            os.environ.clear()
            os.environ.update(env)
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            status = run(arguments)
            sys.stdout.flush()
        finally:
            os._exit(status)
    os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.mark.root
def test_another_user_is_denied_by_the_socket(shell: Shell) -> None:
    status, text = run_as(54_321, 54_321, ["status"], shell.environment())
    assert status == 5
    assert "not allowed to connect" in text
    assert "hint:" in text


@pytest.mark.root
def test_another_user_is_denied_by_the_daemon(shell: Shell) -> None:
    os.chmod(shell.served.path, 0o666)
    status, text = run_as(54_321, 54_321, ["keys", "rotate"], shell.environment())
    assert status == 5
    assert "not allowed for uid 54321: keys.rotate" in text


# configuration


def test_config_check_runs_the_daemons_own_check_without_a_daemon(shell: Shell, tmp_path: Path) -> None:
    fake = tmp_path / "shieldd"
    fake.write_text('#!/bin/sh\nprintf "%s:guard.limit:must be a number\\n" "$2" >&2\nexit 7\n')
    fake.chmod(0o755)
    shell.served.server.stop()
    env = {**shell.environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = shell.run("config", "check", "a b;$(id).toml", env=env)
    assert ended.status == 7
    assert ended.out == "a b;$(id).toml:guard.limit:must be a number\n"
    as_json = shell.run("config", "check", "x.toml", "--json", env=env)
    assert as_json.status == 7
    assert json.loads(as_json.out) == {
        "file": "x.toml", "ok": False, "problems": ["x.toml:guard.limit:must be a number"],
    }  # fmt: skip


# time


def test_status_is_quick(shell: Shell) -> None:
    """Processor time, start of the interpreter included; the wall clock is measured by the benchmarks."""
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert shell.run("status").status == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) <= 0.3


def test_nothing_heavy_is_loaded_for_a_plain_command(shell: Shell) -> None:
    code = (
        "import sys; from shieldctl.__main__ import run; run(['status']);"
        "heavy = {'numpy', 'rich', 'starlette', 'uvicorn', 'shieldd._native', 'sqlite3'};"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=shell.environment(),
        cwd=ROOT,
        timeout=DEADLINE_S,
    )
    assert done.stdout.splitlines()[-1] == "set()"
