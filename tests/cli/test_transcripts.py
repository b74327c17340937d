"""What a person types and sees: args, stdin, stdout, stderr, exit status, one session a file.

A transcript line begins with `$ ` (a command), `< ` (a line of standard input), `> ` (standard output), `! ` (standard
error), `= ` (exit status), `# ` (remark). `{…}` stands for what differs from run to run. All commands of a file work on
one daemon. `SHIELDCTL_TRANSCRIPTS=write` writes down what was seen, to be read before it is committed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, Shell, opened

FOLDER = Path(__file__).parent / "transcripts"
FILES = sorted(FOLDER.glob("*.txt"))
WRITE = os.environ.get("SHIELDCTL_TRANSCRIPTS") == "write"


@dataclass
class Step:
    """One command with what it must show."""

    command: str
    stdin: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    status: int = 0
    remarks: list[str] = field(default_factory=list)


def parse(text: str) -> tuple[list[str], list[Step]]:
    """Remarks at the top, and the steps."""
    steps: list[Step] = []
    top: list[str] = []
    remarks: list[str] = []
    for line in text.splitlines():
        mark, _, rest = line.partition(" ")
        if mark == "$":
            if not steps:
                top, remarks = remarks, []
            steps.append(Step(rest, remarks=remarks))
            remarks = []
        elif mark == "<":
            steps[-1].stdin.append(rest)
        elif mark == ">":
            steps[-1].out.append(rest)
        elif mark == "!":
            steps[-1].err.append(rest)
        elif mark == "=":
            steps[-1].status = int(rest)
        elif mark == "#":
            remarks.append(rest)
    return top, steps


def masked(text: str, socket_path: str) -> list[str]:
    """Lines with what differs from run to run replaced."""
    text = text.replace(socket_path, "{socket}")
    text = re.sub(r'("?pid"?:? )' + str(os.getpid()), r"\1{pid}", text)
    text = re.sub(r"\d+\.\d ms", "{ms}", text)
    return re.sub(r'"took_ms": [0-9.]+', '"took_ms": {ms}', text).splitlines()


def run(shell: Shell, step: Step) -> Ended:
    """Run one command line as a shell would split it."""
    program, *arguments = shlex.split(step.command)
    assert program == "shieldctl"
    return shell.run(*arguments, stdin="".join(f"{line}\n" for line in step.stdin))


def session(path: Path) -> tuple[str, list[Ended]]:
    """The socket's path, and what each command of a transcript left behind; nothing where it is written down anew."""
    top, steps = parse(path.read_text())
    with opened() as shell:
        if WRITE:
            path.write_text(write(shell, top, steps))
            return shell.served.path, []
        return shell.served.path, [run(shell, step) for step in steps]


@pytest.fixture(scope="module")
def sessions(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future[tuple[str, list[Ended]]]]]:
    """The sessions of all transcripts that are asked for, side by side: each has a daemon of its own."""
    wanted = [item.callspec.params["path"] for item in request.session.items if item.path == Path(__file__)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {path: pool.submit(session, path) for path in wanted}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(sessions: dict[Path, Future[tuple[str, list[Ended]]]], path: Path) -> None:
    _, steps = parse(path.read_text())
    socket, seen = sessions[path].result()
    if WRITE:
        pytest.skip("written")
    for step, ended in zip(steps, seen, strict=True):
        assert masked(ended.out, socket) == step.out, step.command
        assert masked(ended.err, socket) == step.err, step.command
        assert ended.status == step.status, step.command


def write(shell: Shell, top: list[str], steps: list[Step]) -> str:
    """The transcript as it is now."""
    lines = [f"# {remark}" for remark in top]
    for step in steps:
        ended = run(shell, step)
        lines += ["", *(f"# {remark}" for remark in step.remarks), f"$ {step.command}"]
        lines += [f"< {line}" for line in step.stdin]
        lines += [f"> {line}".rstrip(" ") for line in masked(ended.out, shell.served.path)]
        lines += [f"! {line}".rstrip(" ") for line in masked(ended.err, shell.served.path)]
        lines += [f"= {ended.status}"]
    return "\n".join(lines) + "\n"
