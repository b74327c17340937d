"""The daemon's signals: none of them ever takes its default action, and a waiting thread is told of each.

Blocked before a library starts threads of its own (they inherit the mask), handled by a function that only records,
and let through on the main thread alone, while it waits. The record is a set, so a flood of one signal hides no other;
the wake-up socket only ends the wait (signal(7), `signal.set_wakeup_fd`). sigtimedwait(2) is not used: CPython 3.11
returns rubbish from it when it was interrupted by a stop.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from typing import Final

TAKEN: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


class Signals:
    """Takes the signals of this process from now on; to be made on the main thread, before any other is started."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
        self._arrived: set[signal.Signals] = set()
        self._woken, wakes = socket.socketpair()
        self._wakes = wakes
        for end in (self._woken, wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        for one in TAKEN:
            signal.signal(one, lambda number, frame: self._arrived.add(signal.Signals(number)))

    def wait(self, timeout_s: float) -> signal.Signals | None:
        """The next signal, those that end the daemon first; None where none came in time.

        Args:
            timeout_s: a signal may be reported one wait late, never lost.
        """
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
        try:
            if not self._arrived:
                select.select([self._woken], [], [], timeout_s)
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if one in self._arrived:
                self._arrived.discard(one)
                return one
        return None
