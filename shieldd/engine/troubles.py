"""What is not as it should be, for as long as it lasts: one entry a code, shown by `status` and `doctor`."""

from __future__ import annotations

import threading
import time

from shieldd.api.answers import Trouble
from shieldd.errors import CODES

LASTING = 600 * 10**9  # a trouble that nobody renews leaves after ten minutes unless it is held


class Troubles:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[Trouble, int, bool]] = {}

    def report(self, code: str, text: str) -> None:
        """Something happened: shown until it has not happened again for ten minutes."""
        self._put(code, text, held=False)

    def hold(self, code: str, text: str) -> None:
        """A state: shown until `clear`."""
        self._put(code, text, held=True)

    def clear(self, code: str) -> None:
        """The state is over."""
        with self._lock:
            self._entries.pop(code, None)

    def now(self) -> tuple[Trouble, ...]:
        """What is shown at this moment, oldest first."""
        quiet = time.time_ns() - LASTING
        with self._lock:
            for code in [c for c, (_, last, held) in self._entries.items() if not held and last < quiet]:
                del self._entries[code]
            return tuple(sorted((x for x, _, _ in self._entries.values()), key=lambda x: x.since_ns))

    def _put(self, code: str, text: str, *, held: bool) -> None:
        now = time.time_ns()
        hint = CODES[code].hint if code in CODES else ""
        with self._lock:
            old = self._entries.get(code)
            since = old[0].since_ns if old else now
            self._entries[code] = (Trouble(code, text, hint, since), now, held)
