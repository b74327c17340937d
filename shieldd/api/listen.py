"""The listening socket: made without a moment in which others could use or replace it, and taken away at the end."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import secrets
import socket
import stat
from dataclasses import dataclass
from typing import Final

from shieldd.errors import ShieldError

BACKLOG: Final = 1024  # connections the kernel holds while the loop is busy
MODE: Final = 0o660


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound and listening socket; `path` is empty for one that the service manager passed."""

    socket: socket.socket
    path: bytes
    dev: int
    ino: int

    def remove(self) -> None:
        """Close it and take its name away, unless another daemon has put its own there since."""
        self.socket.close()
        if not self.path:
            return
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.dev, self.ino):
                os.unlink(self.path)
        except FileNotFoundError:
            return


def passed(sock: socket.socket) -> Listener:
    """A socket that systemd made (socket activation); its name is systemd's.

    Raises:
        ShieldError: `api.socket` for anything but a listening Unix stream socket.
    """
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listening:
        raise ShieldError("api.socket", "the socket that was passed in is not a listening Unix stream socket")
    sock.setblocking(False)
    return Listener(sock, b"", 0, 0)


def listen(path: bytes, *, group: str | None = None) -> Listener:
    """Bind at `path`, mode 0660, owned by us and `group` where it exists.

    The socket is bound inside a private directory (0700), gets its mode and group there, and is then renamed to its
    place: at no moment can anyone connect who may not. A stale socket is replaced; a live one, or anything that is
    not a socket, is left alone. Long paths are fine: everything is done through the directory's descriptor.

    Raises:
        ShieldError: `api.socket`.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ShieldError("api.socket", "directory of the socket cannot be opened", errno=error.errno) from error
    try:
        # two daemons that start at once decide one after the other
        fcntl.flock(folder_fd, fcntl.LOCK_EX)
        _clear(folder_fd, name)
        sock = _bind(folder_fd, name, group)
        made = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        raise ShieldError("api.socket", f"socket cannot be made: {error.strerror}", errno=error.errno) from error
    finally:
        os.close(folder_fd)
    return Listener(sock, os.path.join(folder, name), made.st_dev, made.st_ino)


def _clear(folder_fd: int, name: bytes) -> None:
    """Refuse what is in use; a stale socket may stay, the rename replaces it."""
    try:
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ShieldError("api.socket", "something that is not a socket is at the socket's path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(b"/proc/self/fd/%d/%s" % (folder_fd, name))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                return
            if error.errno != errno.EAGAIN:  # EAGAIN: its backlog is full, so it lives
                raise
    raise ShieldError("api.socket", "another daemon listens on this socket")


def _bind(folder_fd: int, name: bytes, group: str | None) -> socket.socket:
    private = b".shieldd-%s" % secrets.token_hex(6).encode()
    os.mkdir(private, 0o700, dir_fd=folder_fd)
    private_fd = os.open(private, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind(b"/proc/self/fd/%d/s" % private_fd)
        if group is not None:
            try:
                os.chown(b"s", -1, grp.getgrnam(group).gr_gid, dir_fd=private_fd)
            except KeyError:
                group = None  # nobody to share with: the owner's group stays
        os.chmod(b"s", MODE, dir_fd=private_fd)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        os.rename(b"s", name, src_dir_fd=private_fd, dst_dir_fd=folder_fd)
    except OSError:
        sock.close()
        raise
    finally:
        os.close(private_fd)
        _remove_private(folder_fd, private)
    return sock


def _remove_private(folder_fd: int, private: bytes) -> None:
    try:
        os.rmdir(private, dir_fd=folder_fd)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        os.unlink(os.path.join(private, b"s"), dir_fd=folder_fd)
        os.rmdir(private, dir_fd=folder_fd)
