"""Loads the compiled core, checks its ABI version, and turns its statuses into `ShieldError`.

Owns: `ffi`, `lib`, `call`, `failure`. Does not own: any meaning of what is called.
"""

from __future__ import annotations

import os
from typing import Any, Final

from shieldd._native import ffi, lib
from shieldd.errors import ShieldError

ABI_VERSION: Final = 1

if lib.shd_abi_version() != ABI_VERSION:  # a stale build beside new Python code
    raise ShieldError("native.abi", f"the compiled core speaks ABI {lib.shd_abi_version()}, this package {ABI_VERSION}")


def call(function: Any, *arguments: Any, path: bytes | None = None) -> None:
    """Call an export whose last parameter is the error record; raise `ShieldError` when its status is not 0.

    The GIL is released for the whole call (cffi API mode).
    """
    error = ffi.new("ShdError *")
    if function(*arguments, error) == 0:
        return
    raise failure(error, path)


def failure(record: Any, path: bytes | None) -> ShieldError:
    """What an error record says."""
    return ShieldError(
        ffi.string(record.code).decode(),
        ffi.string(record.message).decode("utf-8", "replace"),
        errno=record.errno or None,
        path=path,
    )


def path_bytes(path: str | bytes | os.PathLike[Any]) -> bytes:
    """A file name as the kernel has it."""
    return os.fsencode(path)


__all__ = ["ABI_VERSION", "call", "failure", "ffi", "lib", "path_bytes"]
