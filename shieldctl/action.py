"""Long actions on the screen: progress on a terminal, a line per file, one object for `--json`, and the exit status."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from shieldctl.client import Json
from shieldctl.render import Screen
from shieldd.errors import CODES

OUTCOMES: Final = ("done", "failed", "skipped", "pending")


def run(
    streams: Iterable[Iterator[Json]], screen: Screen, verb: str, *, dry_run: bool = False, quiet: bool = False
) -> int:
    """Show the lines of one or more long actions and return the exit status.

    Args:
        streams: one per request; the next is asked only when the one before has ended.
        verb: past participle for the summary ("sealed").
        quiet: show only what failed or was skipped.

    Returns:
        0 when nothing failed; the error's own exit status when all failures share one; else 1.
    """
    items: list[Json] = []
    exits: set[int] = set()
    counts: Counter[str] = Counter()
    with _progress(screen, verb) as advance:
        for stream in streams:
            for line in stream:
                if line["type"] == "begun":
                    advance(line["total"], 0)
                elif line["type"] == "file":
                    counts[line["outcome"]] += 1
                    if line["outcome"] == "failed":
                        entry = CODES.get(line["code"])
                        exits.add(entry.exit if entry else 1)
                    shown = not (quiet and line["outcome"] == "done")
                    if shown and screen.as_json:
                        items.append({key: value for key, value in line.items() if key != "type"})
                    elif shown:
                        _show(line, screen)
                    advance(0, 1)
    if screen.as_json:
        screen.json({"items": items, **{name: counts[name] for name in OUTCOMES}, "dry_run": dry_run})
    else:
        screen.note(_summary(counts, verb, dry_run=dry_run))
    if not exits:
        return 0
    return exits.pop() if len(exits) == 1 else 1


def _summary(counts: Counter[str], verb: str, *, dry_run: bool) -> str:
    parts = [f"{counts['pending']} would be {verb}" if dry_run else f"{counts['done']} {verb}"]
    parts += [f"{counts[name]} {name}" for name in ("skipped", "failed") if counts[name]]
    return ", ".join(parts)


def _show(line: Json, screen: Screen) -> None:
    """`outcome<tab>path<tab>where it is now or why not`, and a remark on what was done where there is one."""
    moved = line["to"] if line["to"] != line["path"] else ""
    why = "" if line["outcome"] == "pending" else line["reason"]
    remark = why if line["outcome"] == "done" and moved else ""
    rest = (moved if remark else why) or moved or line["id"]
    if line["code"]:
        rest = f"{line['reason']} [{line['code']}]"
    fields = [line["outcome"], line["path"], rest, *([remark] if remark else [])]
    if screen.terminal:
        mark = {"done": "ok", "failed": "failed", "skipped": "skipped", "pending": "would be done"}[line["outcome"]]
        arrow = " -> " if line["outcome"] in ("done", "pending") else ": "
        text = f"{mark}  {line['path']}" + (f"{arrow}{rest}" if rest else "") + (f" ({remark})" if remark else "")
        screen.line(text, {"failed": "red", "skipped": "yellow"}.get(line["outcome"], ""))
    else:
        screen.row(fields)


@contextmanager
def _progress(screen: Screen, verb: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `advance(more_in_total, more_done)`; draws on standard error, only where that is a terminal."""
    if screen.as_json or not sys.stderr.isatty() or screen.terminal:
        # on a terminal the lines themselves are the progress
        yield _nothing
        return
    from rich.console import Console  # noqa: PLC0415  (start-up time)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns: list[Any] = [TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(verb, total=0)
        total = 0

        def advance(more: int, done: int) -> None:
            nonlocal total
            total += max(more, 0)
            progress.update(task, total=total or None, advance=done)

        yield advance


def _nothing(more: int, done: int) -> None:
    """Progress that nobody sees."""
