"""The state directory: ours alone, one daemon at a time, and a note of which database the log beside it belongs to.

The lock is flock(2) on `lock` in the directory; it goes with the process, so a stale one cannot exist. The lock
file's content names the epochs (random, one per run) that the database may carry: a write-ahead log left by a crash is
replayed only into the very database it was written for, never into a restored one (sqlite.org/howtocorrupt, 2.4).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Final

from shieldd.errors import ShieldError

LOCK_NAME: Final = "lock"
_NOTE_LIMIT_BYTES: Final = 4096


class StateDir:
    """A locked state directory; a context manager. Closing gives the lock up."""

    def __init__(self, path: Path) -> None:
        """Make the directory (0700) where it is missing, check that it is ours alone, and lock it.

        Raises:
            ShieldError: `store.unsafe` for a link, a foreign owner, or one that others may enter; `daemon.running`
                where another process holds it; `store.full`, `store.io`.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_symlink():
                path.mkdir(mode=0o700, exist_ok=True)
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _refused(error, path) from error
        try:
            _ours_alone(os.fstat(self.fd), path)
            self._lock = self._take()
        except (ShieldError, OSError):
            os.close(self.fd)
            raise

    def __enter__(self) -> StateDir:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock up. May be called twice."""
        if self.fd >= 0:
            os.close(self._lock)
            os.close(self.fd)
            self.fd = -1

    def epochs(self) -> list[str] | None:
        """Epochs that the database may carry; None where nothing is noted."""
        raw = os.pread(self._lock, _NOTE_LIMIT_BYTES, 0)
        try:
            note = json.loads(raw)
        except ValueError:
            return None
        found = note.get("epochs") if isinstance(note, dict) else None
        return [str(epoch) for epoch in found] if isinstance(found, list) else None

    def note(self, epochs: list[str]) -> None:
        """Write down the epochs, and who holds the directory."""
        raw = json.dumps({"pid": os.getpid(), "epochs": epochs}).encode()
        try:
            os.pwrite(self._lock, raw.ljust(512), 0)  # one block, in place: the lock is on this very file
            os.fsync(self._lock)
        except OSError as error:
            raise _refused(error, self.path) from error

    def _take(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(LOCK_NAME, flags, 0o600, dir_fd=self.fd)
        except OSError as error:
            raise _refused(error, self.path) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise ShieldError("daemon.running", path=os.fsencode(self.path)) from error
            raise _refused(error, self.path) from error
        return fd


def _ours_alone(info: os.stat_result, path: Path) -> None:
    name = os.fsencode(path)
    if info.st_uid != os.geteuid():
        raise ShieldError("store.unsafe", f"state directory belongs to uid {info.st_uid}, not to us", path=name)
    if stat.S_IMODE(info.st_mode) & 0o027:
        mode = f"{stat.S_IMODE(info.st_mode):04o}"
        raise ShieldError("store.unsafe", f"state directory has mode {mode}, at most 0750 will do", path=name)


def _refused(error: OSError, path: Path) -> ShieldError:
    name = os.fsencode(path)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return ShieldError("store.full", errno=error.errno, path=name)
        case errno.ELOOP | errno.ENOTDIR:
            return ShieldError(
                "store.unsafe", "state directory is a link or no directory", errno=error.errno, path=name
            )
        case errno.EACCES | errno.EPERM:
            return ShieldError("store.unsafe", "state directory is not accessible to us", errno=error.errno, path=name)
        case _:
            return ShieldError("store.io", os.strerror(error.errno or 0).lower(), errno=error.errno, path=name)
