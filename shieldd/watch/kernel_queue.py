"""The kernel's inotify queue through pyinotify's binding.

pyinotify's own notifier decodes names as UTF-8 and dies on others, forgets directories that are renamed, and takes
tens of microseconds per event; so only its binding and constants are used, and the queue is read here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from shieldd.errors import ShieldError

_HEADER: Final = struct.Struct("iIII")
READ_BYTES: Final = 1 << 20

IN_EXCL_UNLINK: Final = 0x04000000
"""No events of files without a name; pyinotify has no name for it."""


class Raw(NamedTuple):
    """One record of the queue; the name without padding, empty for the directory itself."""

    wd: int
    mask: int
    cookie: int
    name: bytes


def binding() -> Any:
    """The module `pyinotify`.

    Raises:
        ShieldError: `watch.unsupported` where it cannot be imported (Python 3.12 and later need pyasyncore).
    """
    try:
        import pyinotify  # noqa: PLC0415 - this backend alone needs it
    except ImportError as error:
        raise ShieldError("watch.unsupported", f"pyinotify cannot be loaded: {error}") from error
    return pyinotify


class KernelQueue:
    """An inotify instance.

    Raises:
        ShieldError: `watch.limit`, `watch.unsupported`.
    """

    def __init__(self) -> None:
        self.names = binding()
        self._calls = self.names.INotifyWrapper.create()
        if self._calls is None:
            raise ShieldError("watch.unsupported", "pyinotify found no C library to call")
        self.fd: int = self._calls.inotify_init()
        if self.fd < 0:
            code = self._calls.get_errno()
            raise ShieldError("watch.limit", f"no inotify instance: {os.strerror(code)}", errno=code)
        os.set_blocking(self.fd, False)
        os.set_inheritable(self.fd, False)
        n = self.names
        operations = n.IN_CREATE | n.IN_MODIFY | n.IN_CLOSE_WRITE | n.IN_ATTRIB | n.IN_DELETE
        moves = n.IN_MOVED_FROM | n.IN_MOVED_TO
        self.mask: int = operations | moves | n.IN_ONLYDIR | n.IN_MASK_ADD | IN_EXCL_UNLINK
        self.root_mask: int = n.IN_DELETE_SELF | n.IN_MOVE_SELF

    def watch(self, dir_fd: int, mask: int) -> int:
        """Watch the very directory that is open.

        Raises:
            OSError: as `inotify_add_watch(2)`; `ENOSPC` at the limit.
        """
        wd: int = self._calls.inotify_add_watch(self.fd, f"/proc/self/fd/{dir_fd}", mask)
        if wd < 0:
            code = self._calls.get_errno()
            raise OSError(code, os.strerror(code))
        return wd

    def unwatch(self, wd: int) -> None:
        """Take a watch away; one that is gone already is no error."""
        self._calls.inotify_rm_watch(self.fd, wd)

    def waiting(self) -> int:
        """Bytes that wait in the queue."""
        return int.from_bytes(fcntl.ioctl(self.fd, termios.FIONREAD, b"\0\0\0\0"), "little")

    def read(self) -> bytes:
        """What waits, at most `READ_BYTES`; empty where nothing does."""
        try:
            return os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno == errno.EINTR:
                return b""
            raise

    def close(self) -> None:
        """Give the instance back."""
        os.close(self.fd)


def records(data: bytes) -> Iterator[Raw]:
    """The records of one read."""
    at = 0
    while at + _HEADER.size <= len(data):
        wd, mask, cookie, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        yield Raw(wd, mask, cookie, data[at : at + length].rstrip(b"\0"))
        at += length
