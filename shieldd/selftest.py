"""The start-up self-test: what must work is tried once, on a scratch file of our own."""

from __future__ import annotations

import os
import time
from typing import Final

import structlog

from shieldd.engine import Parts
from shieldd.errors import ShieldError
from shieldd.native import envelope

CONTENT: Final = b"shieldd self-test\n" * 100
NAME: Final = b"probe"
log = structlog.get_logger("shieldd.selftest")


def self_test(parts: Parts, directory_fd: int) -> None:
    """Seal a scratch file, verify it, open it, compare; the journal and the keys that the daemon uses take part.

    Args:
        directory_fd: a private directory of the state.

    Raises:
        ShieldError: `daemon.self-test` with the step that failed, or the step's own code.
    """
    begin = time.perf_counter()
    for name in (NAME, NAME + b".shield"):
        if name in (os.fsencode(x) for x in os.listdir(directory_fd)):
            os.unlink(name, dir_fd=directory_fd)
    fd = os.open(NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory_fd)
    with os.fdopen(fd, "wb") as file:
        file.write(CONTENT)
    options = envelope.SealOptions(envelope.Purpose.FILES, "self-test", b"", durable=False)
    sealed = envelope.seal(directory_fd, NAME, parts.keys.native, parts.journal, options)
    envelope.verify(directory_fd, sealed.path, parts.keys.native)
    opened = envelope.open_sealed(directory_fd, sealed.path, parts.keys.native, parts.journal, durable=False)
    back = os.open(opened.path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory_fd)
    try:
        if os.read(back, len(CONTENT) + 1) != CONTENT:
            raise ShieldError("daemon.self-test", "a sealed file did not come back as it was")
    finally:
        os.close(back)
        os.unlink(opened.path, dir_fd=directory_fd)
    log.debug("self-test passed", ms=int((time.perf_counter() - begin) * 1000))
