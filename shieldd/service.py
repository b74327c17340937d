"""The service manager's side: readiness, watchdog, passed sockets, credentials (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from typing import Final

LISTEN_FDS_START: Final = 3


def notify(state: str) -> bool:
    """Send a state such as `READY=1` to the service manager; False when there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.connect(address)
            out.sendall(state.encode())
        except OSError:
            # A manager that does not listen must never stop the guard.
            return False
    return True


def watchdog_interval_s() -> float | None:
    """Seconds between two keep-alives (half of what the manager allows), None when it asks for none."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    owner = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdigit() or owner != str(os.getpid()):
        return None
    return int(usec) / 2_000_000


def passed_sockets() -> list[socket.socket]:
    """Listening sockets handed over by socket activation, empty when there are none; consumed once."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0") or "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    found = []
    for fd in range(LISTEN_FDS_START, LISTEN_FDS_START + count):
        os.set_inheritable(fd, False)
        found.append(socket.socket(fileno=fd))
    return found
