"""Acts on sealed files, to be cut off by strace: reads lines `BASE ACT`, forks for each.

The child's number is printed; it begins when it gets SIGUSR1, so that strace can take hold of it before. Then "done",
the code of the refusal, or "killed" is printed. The act lies between two looks at names that do not exist, so that a
trace shows which calls are its own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from shieldd.errors import ShieldError
from shieldd.native import envelope as native

FILES, STORE = (b"files-key-000001", native.Purpose.FILES), (b"store-key-000001", native.Purpose.QUARANTINE)
BEGIN, END = "/shieldd-fault-begin", "/shieldd-fault-end"


def keyring(*, newest: int = 1) -> native.Keyring:
    """Fixed keys; the files key seals with version `newest`."""
    ring = native.Keyring()
    for version in range(1, newest + 1):
        for key_id, purpose in (FILES, STORE):
            ring.add(key_id=key_id, version=version, purpose=purpose, key=bytearray([version] * 32), seals=True)
    return ring


def prepared(name: str, base: str, ring: native.Keyring) -> Callable[[], list[object]]:
    """The act, with all that it needs open already; it returns what came of each file."""
    root, store = (os.open(os.path.join(base, d), os.O_RDONLY) for d in ("tree", "store"))
    journal = native.Journal(os.open(os.path.join(base, "journal"), os.O_RDONLY))
    files = native.SealOptions(native.Purpose.FILES, "fault", b"host", threads=1)
    hold = native.SealOptions(native.Purpose.QUARANTINE, "fault", b"host", threads=1)
    acts = {
        "seal": lambda: native.seal(root, b"ward/a.dcm", ring, journal, files),
        "many": lambda: native.seal_many(root, [b"ward/a.dcm", b"ward/b.dcm"], ring, journal, files),
        "open": lambda: native.open_sealed(root, b"ward/a.dcm.shield", ring, journal, threads=1),
        "quarantine": lambda: native.seal_into(root, b"ward/a.dcm", store, b"object", ring, journal, hold),
        "restore": lambda: native.open_into(store, b"object", root, b"ward/a.dcm", ring, journal, threads=1),
        "rewrap": lambda: native.rewrap_many(root, [b"ward/a.dcm.shield"], ring, native.Purpose.FILES, revoke=True),
    }

    def run() -> list[object]:
        os.path.exists(BEGIN)
        try:
            result = acts[name]()
        finally:
            os.path.exists(END)
        return result if isinstance(result, list) else [result]

    return run


def outcome(run: Callable[[], list[object]]) -> str:
    """Runs the act and tells its end in a word."""
    try:
        results = run()
    except ShieldError as error:
        return error.code
    refused = [r.code for r in results if isinstance(r, ShieldError)]
    return refused[0] if refused else "done"


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    for line in sys.stdin:
        base, name = line.split()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            run = prepared(name, base, keyring(newest=2 if name == "rewrap" else 1))
            os.write(writer, b"!")
            signal.sigwait({signal.SIGUSR1})
            os.write(writer, outcome(run).encode())
            os._exit(0)
        os.close(writer)
        os.read(reader, 1)  # it has opened what it needs: what comes now is the act
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        said = os.read(reader, 100).decode()
        os.close(reader)
        print("killed" if os.WIFSIGNALED(status) else said or "silent", flush=True)


if __name__ == "__main__":
    main()
