"""The answerer's process and its supervisor's: `python -m shieldd.answerer FD`, `… --supervise FD FD FD FD`.

Started by `shieldd.hold` with descriptors handed over; each makes one call into the core, which returns at the end
only, and never runs Python in between. Imports as little as it can: it starts again in the middle of an attack.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from base64 import b64decode
from collections.abc import Sequence
from typing import Any, Final

from shieldd.errors import ShieldError
from shieldd.native import hold

MOST: Final = 1 << 24  # bytes of a setup

SUPERVISOR_PRIORITY: Final = 11  # above the answerer's, which it watches over


def main(arguments: Sequence[str]) -> int:
    """Answer or supervise; 0 when the daemon is gone, 1 with the failure as JSON on the descriptor `report`."""
    # the daemon ends us by its life-line; a terminal's interrupt or a stray signal does not
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    if arguments[0] == "--supervise":
        control, lifeline, answerer, daemon = map(int, arguments[1:])
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(SUPERVISOR_PRIORITY))
        except OSError:
            # the sandbox says no; it looks once more before it judges where it was late itself
            if os.geteuid() == 0:
                os.nice(-10)
        hold.supervise(control, lifeline, answerer, daemon)
        return 0
    given = json.loads(os.pread(int(arguments[0]), MOST, 0))
    try:
        hold.answer(setup_of(given))
    except ShieldError as error:
        failure = {"code": error.code, "message": error.message, "errno": error.errno}
        os.write(given["report"], json.dumps(failure).encode())
        return 1
    return 0


def setup_of(given: dict[str, Any]) -> hold.HoldSetup:
    """The setup that `shieldd.hold` wrote down."""
    trees = [
        hold.HoldTree(
            path=b64decode(tree["path"]),
            root_fd=tree["root_fd"],
            vault=tree["vault"],
            exclude=[b64decode(glob) for glob in tree["exclude"]],
        )
        for tree in given["trees"]
    ]
    return hold.HoldSetup(
        trees=trees, servers=[b64decode(path) for path in given["servers"]], **given["plain"]
    )  # fmt: skip


if __name__ == "__main__":
    # not sys.exit: a keeper that sleeps in a dead file system must not keep the interpreter from going
    os._exit(main(sys.argv[1:]))
