"""The fingerprints of all files between two runs, and the private directories of the state.

`baseline` in the state directory is written to a temporary name, flushed, and renamed; one that is damaged or of
another version is reported and taken anew, since it only saves a look at every file.
"""

from __future__ import annotations

import os

import structlog

from shieldd.errors import ShieldError
from shieldd.native.observe import Baseline

log = structlog.get_logger("shieldd.fingerprints")


def load(baseline: Baseline, state_fd: int) -> None:
    """Fill from the last run where there was one."""
    try:
        fd = os.open(b"baseline", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("fingerprints cannot be read; they are taken anew", errno=error.errno)
        return
    try:
        baseline.load(fd)
    except ShieldError as error:
        log.warning("fingerprints cannot be used; they are taken anew", code=error.code)
    finally:
        os.close(fd)


def save(baseline: Baseline, state_fd: int) -> None:
    """Keep for the next run; a failure is reported and costs nothing but a look at every file then."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(b"baseline.new", flags, 0o600, dir_fd=state_fd)
        try:
            baseline.save(fd)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(b"baseline.new", b"baseline", src_dir_fd=state_fd, dst_dir_fd=state_fd)
        os.fsync(state_fd)
    except (OSError, ShieldError) as error:
        log.warning("fingerprints could not be saved", error=type(error).__name__)


def state_directory(state_fd: int, name: bytes) -> int:
    """Descriptor of a private directory in the state directory, made where it is missing; the caller closes.

    Raises:
        ShieldError: `store.io`.
    """
    try:
        try:
            os.mkdir(name, 0o700, dir_fd=state_fd)
        except FileExistsError:
            log.debug("state directory is there", name=name.decode())
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=state_fd)
    except OSError as error:
        raise ShieldError("store.io", "state directory cannot be used", errno=error.errno, path=name) from error
