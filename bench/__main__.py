"""Runs the measurements and writes BENCHMARKS.md.

usage: python -m bench [NAME ...] [--print] [--out FILE]

Every module here with `rows() -> Iterable[dict]` is a measurement; a row has `what`, `value`, `unit`, `peer` (what was
measured beside it in the same run), `ratio` (to that peer), `target`, `met` and `command` (to repeat it alone). Each
runs in a process of its own, one after the other. With names, only those run, and only their sections are written anew.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
LIMIT_S: Final = 1800  # a measurement that takes longer hangs

_HEAD: Final = """# Benchmarks

Made by `make bench`; one section with `python -m bench NAME`. Ratios are to a peer measured in the same run on the same
data; values are medians of five or more runs unless a row says otherwise. Nothing here is estimated: a target that is
not met says so.
"""


@dataclass(frozen=True, slots=True)
class Section:
    """What one module measured.

    Attributes:
        title: first line of the module's docstring.
        rows: as the module gave them.
        failure: last line of its complaint, empty when it ended well.
        load: load averages before and after.
        why: paragraphs of the module's docstring that begin with "Why": why a target is not met.
    """

    name: str
    title: str
    rows: tuple[Mapping[str, Any], ...]
    failure: str
    took_s: float
    load: tuple[float, float]
    why: str = ""


def measurements() -> list[str]:
    """Names of the modules here that define `rows`, read without importing them."""
    found: list[str] = []
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "rows" for node in tree.body):
            found.append(path.stem)
    return found


def measure(name: str) -> Section:
    """Runs one module in a process of its own; its rows arrive as they are made."""
    doc = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))) or name
    before, began = os.getloadavg()[0], time.monotonic()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    rows: list[Mapping[str, Any]] = []
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench", "--rows", name],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        out, err, status = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        out, err, status = _text(error.stdout), f"stopped after {LIMIT_S} s", 124
    for line in out.splitlines():
        if line.startswith("row "):
            rows.append(json.loads(line[4:]))
    lines = err.strip().splitlines()
    failure = "" if status == 0 else (lines[-1] if lines else f"exit status {status}")
    took_s = time.monotonic() - began
    why = "\n\n".join(part for part in doc.split("\n\n") if part.startswith("Why "))
    load = (before, os.getloadavg()[0])
    return Section(name, doc.splitlines()[0].rstrip("."), tuple(rows), failure, took_s, load, why)


def _text(data: bytes | str | None) -> str:
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else data or ""


def print_rows(name: str) -> None:
    """The child's side: one JSON line for each row, at once."""
    for row in import_module(f"bench.{name}").rows():
        print("row " + json.dumps(dict(row)), flush=True)


def _number(value: object) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if not isinstance(value, int | float):
        return str(value).replace("|", "\\|")
    size = abs(value)
    if size >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 100 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as a table in Markdown; the commands below it, each once."""
    lines = ["| what | value | beside | ratio | target | met |", "| --- | ---: | --- | ---: | --- | --- |"]
    commands: list[str] = []
    for row in rows:
        value = f"{_number(row.get('value'))} {row.get('unit') or ''}".strip()
        cells = [row.get("what"), value, *(row.get(key) for key in ("peer", "ratio", "target", "met"))]
        lines.append("| " + " | ".join(_number(cell) for cell in cells) + " |")
        command = row.get("command")
        if command and command not in commands:
            commands.append(str(command))
    if commands:
        lines += ["", "Again: " + " · ".join(f"`{command}`" for command in commands)]
    return "\n".join(lines)


def section(result: Section) -> str:
    """One measurement as a section in Markdown."""
    text = f"## {result.name}\n\n{result.title}.\n\n{table(result.rows)}\n\n"
    text += f"{result.why}\n\n" if result.why else ""
    if result.failure:
        text += f"**Ended early:** {result.failure}\n\n"
    took = f"{result.took_s:.0f} s, load {result.load[0]:.1f} before and {result.load[1]:.1f} after"
    return text + f"<sub>{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {took}; {machine()}</sub>\n"


def machine() -> str:
    """What this ran on, in one line."""
    info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    model = re.search(r"model name\s*: (.*)", info)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    commit = _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    return ", ".join(
        part
        for part in (
            f"{os.cpu_count()} × {model[1].strip() if model else platform.machine()}",
            f"{total:.0f} GiB",
            f"Linux {platform.release()}",
            f"CPython {platform.python_version()}",
            _output("rustc", "--version").split(" (")[0],
            f"commit {commit}" if commit else "",
        )
        if part
    )


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def merge(old: str, new: Mapping[str, str], order: Sequence[str]) -> str:
    """The page with the new sections in place of the old ones, in the measurements' order."""
    kept = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", old))
    sections = {name: f"## {name}\n{body}" for name, body in kept.items() if name in order} | dict(new)
    return _HEAD + "\n" + "\n".join(sections[name].strip() + "\n" for name in order if name in sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; exit status 1 when a measurement ended early, 0 also when a target was not met."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Runs the measurements.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all when none is named")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print, write nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "BENCHMARKS.md", help="page to write (BENCHMARKS.md)")
    parser.add_argument("--rows", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rows:
        print_rows(options.rows)
        return 0
    known = measurements()
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    results: list[Section] = []
    for name in options.names or known:
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        results.append(measure(name))
        print(section(results[-1]), flush=True)
    if not options.only_print:
        old = options.out.read_text(encoding="utf-8") if options.out.exists() else ""
        page = merge(old, {result.name: section(result) for result in results}, known)
        options.out.write_text(page, encoding="utf-8")
        print(f"bench: written to {options.out}", file=sys.stderr)
    rows = [row for result in results for row in result.rows]
    judged = [row for row in rows if row.get("met") is not None]
    print(f"bench: {sum(map(bool, (row['met'] for row in judged)))} of {len(judged)} targets met", file=sys.stderr)
    return 1 if any(result.failure for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
