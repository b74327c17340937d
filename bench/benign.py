"""Ordinary work in a guarded tree beside the same work on the same kind of file system unguarded.

Each round makes an ext4 on a loop device whose image lies in memory, without a daemon, with the daemon in service mode
as it comes, and with `watch.hold_ranges = false`, in turns; all works run in it one after the other, each in a session
of its own. Processor time is that of the work and its children (for servers: of server and client), as the kernel
accounts it at their end; the daemon's own is in the row beside it. A percentage is the median over the rounds of
guarded over unguarded of the same round.

Why work that makes many files costs so much: each open for writing, and with ranges each write, waits for an answer of
another process, also where the file is new and nothing of before can be lost; and the daemon, which looks into every
new file, shares the two cores with the work.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.suite.ground import Ground, own_disk, until
from shieldctl.drill.corpus import build

COMMAND: Final = "python -m bench benign"
ROUNDS: Final = 5
FILES: Final = 1500
UNPACKED: Final = 4  # times the archive is unpacked
UNITS: Final = 24
HEADERS: Final = 40
STUDIES: Final = 300
TRANSACTIONS: Final = 6000
LIMIT_S: Final = 120.0
PORT: Final = 11_912
POSTGRES: Final = "postgres"
_TICK: Final = os.sysconf("SC_CLK_TCK")

UNGUARDED: Final = "unguarded"
GUARDED: Final = "guarded"
OPENS: Final = "guarded, hold_ranges = false"
#: way -> further lines of the configuration; None: no daemon
WAYS: Final[dict[str, str | None]] = {UNGUARDED: None, GUARDED: "", OPENS: "[watch]\nhold_ranges = false"}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds by the clock, and of processor time."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work: `run` gets the prepared sources and an empty directory to work in."""

    name: str
    programs: tuple[str, ...]
    limit: float  # most that it may cost over unguarded, share
    run: Callable[[Path, Path], Spent]


class Ended:
    """A program in a session of its own, and what it used with its children at its end."""

    def __init__(self, *command: str | Path, cwd: Path | None = None, user: str | None = None) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `wait`
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            [os.fspath(part) for part in command], cwd=cwd, user=user, start_new_session=True, env=_environment(),
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.pid = self._process.pid

    def wait(self, *fine: int) -> Spent:
        """Its account.

        Raises:
            RuntimeError: with its last words, where it failed or did not end.
        """
        timer = threading.Timer(LIMIT_S, os.killpg, (self.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, use = os.wait4(self.pid, 0)
        finally:
            timer.cancel()
        wall = time.perf_counter() - self._began
        code = self._process.returncode = os.waitstatus_to_exitcode(status)
        with self._log as log:
            log.seek(0)
            said = log.read().decode("utf-8", "replace")
        if code not in (fine or (0,)):
            raise RuntimeError(f"{self._process.args!r}: {code}: {said[-400:]}")
        return Spent(wall, use.ru_utime + use.ru_stime)

    def end(self, number: int, *fine: int) -> Spent:
        """Stop it by a signal."""
        os.kill(self.pid, number)
        return self.wait(*fine)


def _environment() -> dict[str, str]:
    """Ours, with the database's programs; and without the wait of 40 ms that TCP puts before each image of a study."""
    places = [os.environ.get("PATH", os.defpath), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    return os.environ | {"PATH": ":".join(places), "TCP_NODELAY": "1", "LC_ALL": "C.UTF-8"}


def _sh(script: str, *arguments: str | Path, cwd: Path | None = None) -> Spent:
    return Ended("/bin/sh", "-ec", script, "sh", *arguments, cwd=cwd).wait()


def _tar(source: Path, at: Path) -> Spent:
    script = f'for i in $(seq {UNPACKED}); do mkdir "$i"; tar xf "$1" -C "$i"; done'
    return _sh(script, source / "all.tar", cwd=at)


def _rsync(source: Path, at: Path) -> Spent:
    return _sh('rsync -a "$1/" copy/; rsync -a --checksum "$2/" copy/', source / "all", source / "later", cwd=at)


def _clone(source: Path, at: Path) -> Spent:
    return _sh('for i in 1 2; do git clone -q --no-hardlinks "$1" "repo$i"; done', source / "repo", cwd=at)


def _compile(source: Path, at: Path) -> Spent:
    script = 'for unit in "$1"/*.c; do gcc -O1 -I"$1" -c "$unit"; done; gcc -shared -o all.so ./*.o'
    return _sh(script, source / "units", cwd=at)


def _store(source: Path, at: Path) -> Spent:
    server = Ended("storescp", "-od", at, str(PORT))
    until("storescp to listen", lambda: _listens(PORT))
    client = Ended("storescu", "+sd", "localhost", str(PORT), source / "studies").wait()
    served = server.end(signal.SIGTERM, 0, -signal.SIGTERM)
    if len(os.listdir(at)) < STUDIES * 0.9:  # one instance UID may come twice
        raise RuntimeError(f"storescp took {len(os.listdir(at))} of {STUDIES}")
    return Spent(client.wall_s, client.cpu_s + served.cpu_s)


def _pgbench(source: Path, at: Path) -> Spent:
    subprocess.run(["cp", "-a", source / "database", at / "data"], check=True)
    sockets = source / "sockets"
    server = Ended("postgres", "-D", at / "data", "-k", sockets, "-c", "listen_addresses=", user=POSTGRES)
    until("the database", lambda: _answers(sockets))
    command = ("pgbench", "-n", "-c", "4", "-t", str(TRANSACTIONS // 4), "-h", sockets, "-U", POSTGRES, "bench")
    client = Ended(*command, user=POSTGRES).wait()
    served = server.end(signal.SIGINT)
    return Spent(client.wall_s, client.cpu_s + served.cpu_s)


def _answers(sockets: Path) -> bool:
    return subprocess.run(["pg_isready", "-q", "-h", sockets], check=False).returncode == 0


def _listens(port: int) -> bool:
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return any(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


WORKS: Final = (
    Work(f"tar, {FILES * UNPACKED:,} files unpacked", ("tar",), 0.10, _tar),
    Work(f"rsync, {FILES:,} files, then again with every fifth changed", ("rsync",), 0.10, _rsync),
    Work(f"git clone, {FILES:,} files, twice", ("git",), 0.05, _clone),
    Work(f"gcc, {UNITS} units of {HEADERS} headers", ("gcc",), 0.05, _compile),
    Work(f"dcmtk storescp takes {STUDIES} studies' images", ("storescp", "storescu"), 0.05, _store),
    Work(f"pgbench, {TRANSACTIONS:,} transactions, 4 clients", ("postgres", "initdb", "pgbench"), 0.05, _pgbench),
)


def prepare(source: Path, works: Iterable[Work]) -> None:
    """What the works work from, outside of what is guarded."""
    runs = {work.run for work in works}
    for entry, data in build(FILES, 3):
        for folder in ("all", "later"):
            path = source / folder / os.fsdecode(entry.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            changed = folder == "later" and entry.sha256[0] in "012"
            path.write_bytes(data + b"\n" if changed else data)
        if entry.kind == "dicom" and len(studies := list((source / "studies").glob("*"))) < STUDIES:
            (source / "studies").mkdir(exist_ok=True)
            (source / "studies" / f"{len(studies)}.dcm").write_bytes(data)
    _call("tar", "cf", source / "all.tar", "-C", source / "all", ".")
    if _clone in runs:
        _call("git", "init", "-q", source / "repo")
        _call("cp", "-r", source / "all", source / "repo" / "files")
        _call("git", "-C", source / "repo", "add", "-A")
        who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
        _call("git", "-C", source / "repo", *who, "commit", "-qm", "all of it")
    _units(source / "units")
    if _pgbench in runs:
        for name in ("database", "sockets"):
            (source / name).mkdir()
            shutil.chown(source / name, POSTGRES)
        _call("initdb", "-D", source / "database", "-A", "trust", user=POSTGRES)
        server = Ended("postgres", "-D", source / "database", "-k", source / "sockets", "-c", "listen_addresses=",
                       user=POSTGRES)  # fmt: skip
        reach = ("-h", source / "sockets", "-U", POSTGRES)
        until("the database", lambda: _answers(source / "sockets"))
        _call("createdb", *reach, "bench")
        _call("pgbench", "-i", "-q", "-s", "2", *reach, "bench")
        server.end(signal.SIGINT)


def _units(at: Path) -> None:
    """C that takes a compiler about as long as ordinary code does."""
    at.mkdir()
    for i in range(HEADERS):
        lines = [f"static inline int f{i}_{j}(int x) {{ return x * {j + 3} + (x >> {j % 7}); }}" for j in range(60)]
        (at / f"h{i}.h").write_text("\n".join(lines))
    includes = "".join(f'#include "h{i}.h"\n' for i in range(HEADERS))
    for unit in range(UNITS):
        calls = "".join(f"int u{unit}_{j}(int x) {{ return f{j % HEADERS}_{j % 60}(x) ^ {j}; }}\n" for j in range(200))
        (at / f"unit{unit}.c").write_text("#include <stdio.h>\n" + includes + calls)


def _call(*command: str | Path, user: str | None = None) -> None:
    Ended(*command, user=user).wait()


def _daemon_cpu_s(pid: int) -> float:
    """Of a process and all its children, s."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK + sum(_daemon_cpu_s(int(child)) for child in children)


@dataclass(slots=True)
class Rounds:
    """What was measured, by work and way."""

    spent: dict[tuple[str, str], list[Spent]]
    daemon_s: dict[tuple[str, str], list[float]]
    refused: list[str]


@contextmanager
def _disk(home: Path, memory: Path) -> Iterator[Path]:
    with own_disk(home / "disk", memory / f"{home.name}.img") as disk:
        yield disk


def one_round(source: Path, memory: Path, works: Iterable[Work], kept: Rounds, way: str) -> None:
    """All works once, on a new file system."""
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        home = Path(name)
        home.chmod(0o755)
        with _disk(home, memory) as disk:
            more = WAYS[way]
            guarded = more is not None
            ground = Ground(home, disk, more or "")
            if guarded:
                ground.start()
            try:
                for number, work in enumerate(works):
                    at = ground.tree / f"w{number}"
                    at.mkdir()
                    if work.run is _pgbench:
                        shutil.chown(at, POSTGRES)
                    pid = ground.process.pid if ground.process is not None else 0
                    before = _daemon_cpu_s(pid)
                    kept.spent[work.name, way].append(work.run(source, at))
                    if guarded:
                        ground.fence()
                        kept.daemon_s[work.name, way].append(_daemon_cpu_s(pid) - before)
                    os.sync()
                if guarded:
                    kept.refused += [str(threat) for threat in ground.contained()]
            finally:
                if guarded:
                    ground.stop()


def measured(works: tuple[Work, ...], rounds: int) -> Rounds:
    """All rounds; which way comes first changes from one to the next."""
    keys = [(work.name, way) for work in works for way in WAYS]
    kept = Rounds({key: [] for key in keys}, {key: [] for key in keys}, [])
    memory = Path("/dev/shm") if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="shieldd-bench-", dir=memory) as name:
        source = Path(name)
        source.chmod(0o755)
        prepare(source, works)
        for turn in range(rounds):
            order = [*WAYS][turn % len(WAYS) :] + [*WAYS][: turn % len(WAYS)]
            for way in order:
                one_round(source, source, works, kept, way)
    return kept


def _row(what: str, value: float, unit: str, **rest: Any) -> Row:
    base: Row = {"peer": None, "ratio": None, "target": None, "met": None, "command": COMMAND}
    return {"what": what, "value": value, "unit": unit, **base, **rest}


def _over(bare: list[Spent], here: list[Spent]) -> tuple[float, float]:
    """Processor time and time by the clock over the unguarded, each round by itself; medians."""
    pairs = list(zip(bare, here, strict=True))
    cpu = statistics.median(b.cpu_s / a.cpu_s for a, b in pairs)
    return cpu, statistics.median(b.wall_s / a.wall_s for a, b in pairs)


def _work_row(work: Work, kept: Rounds) -> Row:
    bare, here, opens = (kept.spent[work.name, way] for way in WAYS)
    plain = Spent(*(statistics.median(times) for times in zip(*((a.wall_s, a.cpu_s) for a in bare), strict=True)))
    cpu, wall = _over(bare, here)
    least = min(b.cpu_s for b in here) / min(a.cpu_s for a in bare)
    without = _over(bare, opens)
    own = [statistics.median(kept.daemon_s[work.name, way]) for way in (GUARDED, OPENS)]
    beside = (
        f"unguarded {plain.cpu_s:.2f} CPU s in {plain.wall_s:.2f} s; by the clock {_percent(wall)}; least over least "
        f"{_percent(least)} CPU; daemon's own {own[0]:.2f} CPU s. "
        f"With hold_ranges = false: {_percent(without[0])} CPU, {_percent(without[1])} by the clock, "
        f"daemon's own {own[1]:.2f} CPU s"
    )
    return _row(f"{work.name}: processor time over unguarded", round((cpu - 1) * 100, 1), "%", peer=beside,
                ratio=round(cpu, 3), target=f"≤ +{work.limit * 100:.0f} %", met=cpu <= 1 + work.limit)  # fmt: skip


def _percent(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.0f} %"


def rows(rounds: int = ROUNDS) -> Iterator[Row]:
    """The measurements; none where this is not root."""
    if os.geteuid() != 0:
        return
    os.umask(0o022)
    path = _environment()["PATH"]
    works = tuple(work for work in WORKS if all(shutil.which(program, path=path) for program in work.programs))
    for work in WORKS:
        if work not in works:
            yield _row(f"{work.name}: not measured, this host lacks {' or '.join(work.programs)}", 0, "")
    kept = measured(works, rounds)
    for work in works:
        yield _work_row(work, kept)
    print(*kept.refused, sep="\n", file=sys.stderr)
    yield _row(f"of these works, contained in {rounds} rounds", len(kept.refused), "", target="0",
               met=not kept.refused)  # fmt: skip
