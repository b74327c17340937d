"""Acts on sealed files, to be cut off (`tests.cut_off`): what each ends with is "done", or the code of the refusal."""

from __future__ import annotations

import os
from collections.abc import Callable

from shieldd.errors import ShieldError
from shieldd.native import envelope as native
from tests.cut_off import serve

FILES, STORE = (b"files-key-000001", native.Purpose.FILES), (b"store-key-000001", native.Purpose.QUARANTINE)


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
        result = acts[name]()
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


def _prepared(base: str, name: str) -> Callable[[], str]:
    run = prepared(name, base, keyring(newest=2 if name == "rewrap" else 1))
    return lambda: outcome(run)


if __name__ == "__main__":
    serve(_prepared)
