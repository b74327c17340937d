"""The attacker's own process: encrypts file after file with a real tool at its full speed, until it is ended.

Run as `python -m shieldctl.drill.attacker ROOT_FD DRILL_ID` in a session of its own, with the scratch tree as an
inherited descriptor and its orders (JSON) on standard input. It re-checks the marker before each file, and reports
`WORD MONOTONIC_NS INDEX` lines on standard output: `begin` before the tool starts, `gone` when the original was
deleted, `failed`, and `note` for the ransom note of a directory.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Final

from shieldctl.drill.tree import ScratchTree
from shieldd.errors import ShieldError

NOTE_NAME: Final = b"README-TO-RECOVER-FILES.txt"
_NOTE: Final = (
    b"ALL YOUR FILES HAVE BEEN ENCRYPTED!\n\nTo recover your files send 2 BTC to the wallet below and contact us.\n"
    b"Do not rename the files and do not try to decrypt them yourself.\n\n"
    b"(This is a rehearsal made by shieldctl drill. Nothing has to be paid.)\n"
)


def encrypt(tree: ScratchTree, path: bytes, suffix: bytes, argv: list[str]) -> bool:
    """Encrypts one file beside itself and deletes the original.

    Returns:
        Whether the tool did its work; when not, the original is left and the half-made copy too.
    """
    tree.check()
    parent, _, name = path.rpartition(b"/")
    with tree.directory(parent) as directory:
        below = f"/proc/self/fd/{directory}/".encode()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, below + name, os.O_RDONLY | os.O_NOFOLLOW, 0),
            (
                os.POSIX_SPAWN_OPEN,
                1,
                below + name + suffix,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW,
                0o640,
            ),
        ]
        try:
            pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
        except OSError:
            return False  # the file was taken away (sealed, quarantined) before we came
        _, status = os.waitpid(pid, 0)
        if status:
            return False
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            return False
    return True


def main() -> int:
    """Carries out the orders; returns the exit status."""
    root_fd, drill_id = int(sys.argv[1]), sys.argv[2]
    orders = json.load(sys.stdin)
    argv, suffix = list(orders["argv"]), str(orders["suffix"]).encode()
    paths = [base64.b64decode(item) for item in orders["paths"]]
    tree = ScratchTree.adopt(root_fd, drill_id, Path("."))
    report = os.dup(1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)

    def say(word: str, index: int) -> None:
        os.write(report, f"{word} {time.monotonic_ns()} {index}\n".encode())

    for index, path in enumerate(paths):
        say("begin", index)
        say("gone" if encrypt(tree, path, suffix, argv) else "failed", index)
        parent = path.rpartition(b"/")[0]
        if index + 1 == len(paths) or paths[index + 1].rpartition(b"/")[0] != parent:
            try:
                tree.write(parent + b"/" + NOTE_NAME, _NOTE, 0o644)
            except ShieldError:
                say("failed", index)
                continue
            say("note", index)
    return 0


if __name__ == "__main__":
    sys.exit(main())
