"""`python -m bench.suite`: every attack against the real daemon, each on a fresh file system; as root.

Exit status 1 where a file did not come back.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import Final

from bench.suite.attacks import ATTACKS, possible
from bench.suite.course import Row, as_json, run, table

FILES: Final = 5000


def main() -> int:
    """Run what was asked for, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.suite", description=__doc__)
    parser.add_argument("--files", type=int, default=FILES, help=f"files of the corpus, by default {FILES}")
    parser.add_argument("--json", action="store_true", help="one object a line instead of a table")
    parser.add_argument("attacks", nargs="*", help="parts of names; all where none is given")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("drill-suite: needs root, for a file system of its own and for fanotify", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for attack in ATTACKS:
        if given.attacks and not any(part in attack.name for part in given.attacks):
            continue
        if not possible(attack):
            print(f"{attack.name}: not here: {', '.join(attack.programs)}", file=sys.stderr)
            continue
        rows.append(run(attack, given.files))
        print(f"{attack.name}: {rows[-1].touched} touched, {rows[-1].lost} lost", file=sys.stderr)
    print(as_json(rows) if given.json else table(rows))
    stopped = [row.touched for row in rows if row.contained_ms >= 0]
    if stopped and not given.json:
        print(f"\nfiles touched where the attacker was stopped: median {statistics.median(stopped):g}")
    return 1 if any(row.lost for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
