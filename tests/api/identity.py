"""Act as another user for one request: a forked child that changes its ids and connects by itself."""

from __future__ import annotations

import contextlib
import os
import signal
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


def _answered(sock: socket.socket) -> bool:
    try:
        return sock.recv(12) == b"HTTP/1.1 200"
    except ConnectionResetError:
        return False


def hold_as_user(uid: int, gid: int, path: str, count: int) -> tuple[int, int]:
    """Open `count` connections as another user and keep them.

    Returns:
        How many were turned away, and the child's pid; the caller kills it.
    """
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_fd)
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            held = []
            for _ in range(count):
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.settimeout(DEADLINE_S)
                sock.connect(path)
                # a stream keeps a connection busy, so that it cannot be taken for idle
                with contextlib.suppress(BrokenPipeError):  # refused at once
                    sock.sendall(b"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\n\r\n")
                held.append(sock)
            os.write(write_fd, b"%d\n" % sum(not _answered(sock) for sock in held))
            signal.pause()
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as pipe:
        return int(pipe.readline() or b"-1"), child
