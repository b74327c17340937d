"""A rotation of every key, to be cut off (`tests.cut_off`); something is sealed under the keys before it and after."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from shieldd.config import Config
from shieldd.errors import ShieldError
from shieldd.keys import KeyRing
from shieldd.native.envelope import Purpose
from shieldd.store import Store
from tests.cut_off import serve
from tests.keys.build import personal

WRAPPED = "wrapped"


def _prepared(base: str, act: str) -> Callable[[], str]:
    told = os.open(os.path.join(base, WRAPPED), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def run() -> str:
        try:
            _rotate(personal(Path(base)), act, told)
        except ShieldError as error:
            return error.code
        return "done"

    return run


def _rotate(config: Config, act: str, told: int) -> None:
    with Store(config.store_path) as store, KeyRing.open(config, store.keys) as ring:

        def seal() -> None:
            line = b"sealed %s\n" % ring.native.wrap(Purpose.FILES, b"patient", b"c").hex().encode()
            os.pwritev(told, [line], 0)  # goes to the end, and is none of the calls that are cut off

        seal()
        try:
            getattr(ring, act)()
        finally:
            seal()


if __name__ == "__main__":
    serve(_prepared)
