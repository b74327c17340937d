"""Attacks: what every host has on board, at full speed against the real daemon, and what came back.

Each attack meets a corpus of its own on a file system of its own and a daemon in service mode that was started for it;
`make drill-suite` runs the same and prints more. *Touched* and *lost* are told by the digests of the corpus before and
after the restore, not by the daemon. Each attack runs once.

Why one run does not settle it: with 300 files, "mv over" once lost one or two files in 9 of 25 repetitions, where a
program that lives for one file had ended before the kernel's word of it was read. What nobody is named for in the time
of an attack now comes back with it: 0 in 10 repetitions of 200 files (commit 4660421, load 3).
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from typing import Any, Final

from bench.suite.attacks import ATTACKS, possible
from bench.suite.course import Row, run

COMMAND: Final = "python -m bench attacks"
FILES: Final = 5000
TOUCHED: Final = 3


def _ms(value: float) -> str:
    return f"after {value:.0f} ms" if value >= 0 else "never"


def row(result: Row) -> dict[str, Any]:
    """One attack as a line of the page."""
    beside = (
        f"{result.touched} touched at {result.rate:,.0f} files/s; refused {_ms(result.held_ms)}, "
        f"all stopped {_ms(result.contained_ms)}; longest wait of an opener {result.longest_us / 1000:.1f} ms; "
        f"restore {result.restored_s:.1f} s{'; ' + result.note if result.note else ''}"
    )
    what = f"{result.attack}: irrecoverably lost of {result.files:,}"
    return {
        "what": what, "value": result.lost, "unit": "files", "peer": beside, "ratio": None, "target": "0",
        "met": result.lost == 0, "command": COMMAND,
    }  # fmt: skip


def rows() -> Iterator[dict[str, Any]]:
    """The attacks that this host has the programs for; none where this is not root."""
    if os.geteuid() != 0:
        return
    touched: list[int] = []
    for attack in ATTACKS:
        if not possible(attack):
            continue
        result = run(attack, FILES)
        if result.contained_ms >= 0 and not attack.bursts:
            touched.append(result.touched)
        yield row(result)
    if touched:
        middle = statistics.median(touched)
        yield {
            "what": f"files touched where the attacker was stopped, median of {len(touched)}", "value": middle,
            "unit": "files", "peer": f"{min(touched)} to {max(touched)}; without those that are over at once or only "
            "remove names", "ratio": None, "target": f"≤ {TOUCHED}", "met": middle <= TOUCHED, "command": COMMAND,
        }  # fmt: skip
