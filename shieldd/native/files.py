"""Opening files beneath a root descriptor, the one way in which Python reads a guarded file."""

from __future__ import annotations

from typing import Final

from shieldd.native._abi import call, ffi, lib

OWN_PREFIX: Final = b".shieldd-"


def open_beneath(root_fd: int, path: bytes, flags: int = 0) -> int:
    """Open for reading; the caller closes.

    Resolved by openat2(2) with `RESOLVE_BENEATH`, `NO_SYMLINKS`, `NO_MAGICLINKS` and `NO_XDEV`.

    Args:
        root_fd: open directory.
        path: relative to it, without `..`.
        flags: of `O_DIRECTORY`, `O_NONBLOCK`, `O_NOCTTY`; others are dropped.

    Raises:
        ShieldError: `file.missing`, `file.denied`, `file.symlink`, `file.mount`, `file.name`, `file.not-regular`, …
    """
    out = ffi.new("int32_t *")
    call(lib.shd_open_beneath, root_fd, path or b".", len(path) or 1, flags, out, path=path)
    return int(out[0])


def hidden_name() -> bytes:
    """A new name for a temporary file of ours; watchers do not report it for a moment."""
    out = ffi.new("uint8_t[33]")
    call(lib.shd_hidden_name, out)
    return bytes(ffi.buffer(out))


def is_own_name(name: bytes) -> bool:
    """Whether this process made that hidden name (`.shieldd-…`) a moment ago; all others are names like any."""
    return name.startswith(OWN_PREFIX) and bool(lib.shd_is_own_name(name, len(name)))
