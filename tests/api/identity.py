"""Act as another user for one request: a forked child that changes its ids and connects by itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

DEADLINE_S = 20.0


def as_user(uid: int, gid: int, path: str, raw: bytes, groups: Sequence[int] = ()) -> bytes:
    """Send raw bytes over a Unix socket as another user and return all that came back; `b""` when not let in."""
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_fd)
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(DEADLINE_S)
                sock.connect(path)
                sock.sendall(raw)
                while chunk := sock.recv(65536):
                    os.write(write_fd, chunk)
            status = 0
        finally:
            os._exit(status)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer
