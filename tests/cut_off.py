"""An act in a process of its own, cut off by strace at a system call of it: killed there, or the call fails.

One run under strace shows which calls the act makes; then it runs once for each of them. A worker starts once and
forks for each run, so that a run costs no interpreter, and it alone starts processes: whoever drives several workers
from threads has no child of its own that would hold files open for a moment.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 3
BEGIN, END = "/shieldd-fault-begin", "/shieldd-fault-end"
LOOKS = ("newfstatat", "stat", "statx")  # how the two names are looked at


@dataclass(frozen=True, order=True)
class Fault:
    """The `when`-th `call` of a thread of the worker fails with `what`: KILL, or an errno's name."""

    call: str
    when: int
    what: str

    def inject(self) -> str:
        how = "signal=KILL" if self.what == "KILL" else f"error={self.what}"
        return f"inject={self.call}:{how}:when={self.when}"


class Worker:
    """A process that runs `serve`; one act at a time."""

    def __init__(self, module: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def run(self, base: Path, act: str, *strace: str) -> str:
        """Runs the act under strace; how it ended: what it said of itself, or "killed"."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([str(base), act, strace]) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def cut_off(self, base: Path, act: str, fault: Fault) -> str:
        """Runs the act with the fault in it."""
        return self.run(base, act, "-o", "/dev/null", "-e", f"trace={fault.call}", "-e", fault.inject())

    def calls(self, base: Path, act: str, names: Sequence[str], *, reads: bool = True) -> list[Fault]:
        """Every call of these names that the act makes, with its number among its thread's calls of that name.

        Args:
            reads: also what opens a file that is there; whoever is killed there leaves the same as one call later.
        """
        log = base.with_name(base.name + ".strace")
        traced = ",".join("?" + name for name in {*names, *LOOKS})
        assert self.run(base, act, "-o", str(log), "-e", f"trace={traced}") == "done"
        lines = re.findall(r"^(\d* *)(\w+)\((.*)$", log.read_text(), re.MULTILINE)
        seen: Counter[tuple[str, str]] = Counter()  # strace counts each thread's calls apart
        inside, found = False, []
        for thread, call, rest in lines:
            seen[thread, call] += 1
            if BEGIN in rest:
                inside = True
            elif END in rest:
                inside = False
            elif inside and call in names and (reads or call != "openat" or "O_CREAT" in rest or "O_TRUNC" in rest):
                found.append(Fault(call, seen[thread, call], ""))
        assert found
        return found

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@contextmanager
def workers(module: str) -> Iterator[queue.SimpleQueue[Worker]]:
    """Some workers, all free."""
    made = [Worker(module) for _ in range(WORKERS)]
    free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in made:
        free.put(worker)
    try:
        yield free
    finally:
        for worker in made:
            worker.close()


def at_each(faults: Sequence[Fault], one: Callable[[int, Fault], None]) -> None:
    """Calls `one` with each fault and its number, some side by side; raises what the first that failed raised."""
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        waiting = [pool.submit(one, number, fault) for number, fault in enumerate(faults)]
        try:
            for finished in waiting:
                finished.result()
        finally:
            for other in waiting:
                other.cancel()


def _child(prepared: Callable[[str, str], Callable[[], str]], base: str, act: str, told: int) -> None:
    try:
        run = prepared(base, act)
        os.write(told, b"!")
        signal.sigwait({signal.SIGUSR1})
        os.path.exists(BEGIN)
        try:
            said = run()
        finally:
            os.path.exists(END)
        os.write(told, said.encode())
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)


def serve(prepared: Callable[[str, str], Callable[[], str]]) -> None:
    """Read lines of a base directory, an act and arguments for strace; fork for each, and print how it ended.

    The child opens what `prepared` needs, then waits until strace has taken hold of it: what it returned runs between
    two looks at names that do not exist, so that a trace shows which calls are its own.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    for line in sys.stdin:
        base, act, strace = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _child(prepared, base, act, writer)
        os.close(writer)
        os.read(reader, 1)  # it has opened what it needs: what comes now is the act
        command = ["strace", "-f", *strace, "-p", str(child)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr
            assert "attached" in tracer.stderr.readline()
            os.kill(child, signal.SIGUSR1)
            _, status = os.waitpid(child, 0)
        said = os.read(reader, 100).decode()
        os.close(reader)
        print("killed" if os.WIFSIGNALED(status) else said or "silent", flush=True)
