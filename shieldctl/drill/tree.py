"""The scratch directory of a drill: marked by a random id, worked on by descriptor only.

Owns every write and every delete of a drill. The directory is held open from the moment it is made; each
destructive step opens the marker below that descriptor again, compares its id and its inode, and walks to its
target one component at a time with O_NOFOLLOW on the same file system. A path that is not below a marked
directory cannot be named here at all: names are relative, and `..` is refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shieldd.errors import ShieldError

MARKER: Final = b".drill-marker"
_MARK: Final = b"shieldd drill scratch tree "
_PREFIX: Final = "shield-drill-"
_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """What makes a directory a scratch tree: the id in its marker, and the marker's own identity."""

    drill_id: str
    dev: int
    ino: int


class ScratchTree:
    """A marked directory, held open.

    Args:
        path: where it was when it was opened; for messages and for the daemon's relative paths only.
        root_fd: descriptor of the directory; owned, closed by `close`.
        mark: what its marker must say at each destructive step.
    """

    def __init__(self, path: Path, root_fd: int, mark: Mark) -> None:
        self.path = path
        self.root_fd = root_fd
        self.mark = mark

    @classmethod
    def make(cls, parent: Path, drill_id: str | None = None) -> ScratchTree:
        """Makes and marks a new directory in `parent`.

        Raises:
            ShieldError: `drill.place` when nothing can be made there.
        """
        drill_id = drill_id or secrets.token_hex(16)
        name = _PREFIX + drill_id[:12]
        try:
            parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _place(parent, error) from error
        try:
            os.mkdir(name, 0o755, dir_fd=parent_fd)
            root_fd = os.open(name, _DIR, dir_fd=parent_fd)
            os.fchmod(root_fd, 0o755)  # whatever the umask: the careless export below it must be reachable
        except OSError as error:
            raise _place(parent, error) from error
        finally:
            os.close(parent_fd)
        fd = os.open(MARKER, _MAKE, 0o600, dir_fd=root_fd)
        try:
            os.write(fd, _MARK + drill_id.encode() + b"\n")
            seen = os.fstat(fd)
        finally:
            os.close(fd)
        return cls(parent.resolve() / name, root_fd, Mark(drill_id, seen.st_dev, seen.st_ino))

    @classmethod
    def adopt(cls, root_fd: int, drill_id: str, path: Path) -> ScratchTree:
        """Takes over an open directory that another process of the same drill marked.

        Raises:
            ShieldError: `drill.marker` when it carries no marker with that id.
        """
        _, seen = _read_marker(root_fd, drill_id)
        return cls(path, root_fd, Mark(drill_id, seen.st_dev, seen.st_ino))

    def check(self) -> None:
        """Re-reads the marker below the held descriptor.

        Raises:
            ShieldError: `drill.marker` when it is gone, another file, or says another id.
        """
        _, seen = _read_marker(self.root_fd, self.mark.drill_id)
        if (seen.st_dev, seen.st_ino) != (self.mark.dev, self.mark.ino):
            raise ShieldError("drill.marker", "the marker of the scratch tree was replaced; nothing was done")

    @contextmanager
    def directory(self, path: bytes, *, make: int = 0) -> Iterator[int]:
        """A descriptor of the directory at `path` below the root, walked without following a link.

        Args:
            path: relative, `b""` for the root itself.
            make: mode of directories to make on the way; 0 makes none.

        Raises:
            ShieldError: `file.name`, `file.symlink`, `file.mount`, `file.missing`.
        """
        fd = os.dup(self.root_fd)
        try:
            for part in _parts(path) if path else ():
                if make:
                    _make_directory(part, fd, make)
                below = _open(part, _DIR, fd)
                os.close(fd)
                fd = below
                if os.fstat(fd).st_dev != self.mark.dev:
                    raise ShieldError("file.mount", path=path)
            yield fd
        finally:
            os.close(fd)

    def write(self, path: bytes, data: bytes, mode: int = 0o640, directory_mode: int = 0o750) -> None:
        """Makes a new file with `data`; its mode is set whatever the umask says. Never overwrites (`file.exists`)."""
        self.check()
        parent, name = _split(path)
        with self.directory(parent, make=directory_mode) as directory:
            fd = _open(name, _MAKE, directory, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fchmod(fd, mode)
            finally:
                os.close(fd)

    def digest(self, path: bytes) -> str | None:
        """SHA-256 of a regular file, hex; None where no such file is."""
        parent, name = _split(path)
        try:
            with self.directory(parent) as directory:
                fd = _open(name, _READ, directory)
                try:
                    if not stat.S_ISREG(os.fstat(fd).st_mode):
                        return None
                    digest = hashlib.sha256()
                    while block := os.read(fd, _BLOCK):
                        digest.update(block)
                    return digest.hexdigest()
                finally:
                    os.close(fd)
        except ShieldError as error:
            if error.code in {"file.missing", "file.symlink"}:
                return None
            raise

    def remove(self, path: bytes) -> None:
        """Deletes one file below the marker."""
        self.check()
        parent, name = _split(path)
        with self.directory(parent) as directory:
            _unlink(name, directory)

    def walk(self) -> Iterator[bytes]:
        """Relative paths of all regular files but the marker, directories first come first; links are not followed."""
        yield from self._walk(b"")

    def _walk(self, path: bytes) -> Iterator[bytes]:
        with self.directory(path) as fd:
            below: list[bytes] = []
            for entry in _scan(fd):
                name = os.fsencode(entry.name)
                full = path + b"/" + name if path else name
                if entry.is_dir(follow_symlinks=False):
                    below.append(full)
                elif entry.is_file(follow_symlinks=False) and full != MARKER:
                    yield full
        for directory in below:
            yield from self._walk(directory)

    def clear(self) -> int:
        """Deletes everything below the marker, which stays.

        Returns:
            Number of files deleted.

        Raises:
            ShieldError: `drill.marker` before anything that is no longer ours; `file.mount` at a mount point.
        """
        self.check()
        return self._clear(b"")

    def destroy(self) -> int:
        """`clear`, then the marker and the directory itself."""
        removed = self.clear()
        self.check()
        with self._parent() as parent_fd:
            _unlink(MARKER, self.root_fd)
            os.rmdir(self.path.name, dir_fd=parent_fd)
        return removed

    def _clear(self, path: bytes) -> int:
        removed = 0
        with self.directory(path) as fd:
            for entry in _scan(fd):
                name = os.fsencode(entry.name)
                if not path and name == MARKER:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    removed += self._clear(path + b"/" + name if path else name)
                    self.check()
                    _remove_directory(name, fd)
                else:
                    self.check()
                    _unlink(name, fd)
                    removed += 1
        return removed

    @contextmanager
    def _parent(self) -> Iterator[int]:
        """The directory that holds the root, checked to hold this very root under its name."""
        fd = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root_fd)
        try:
            named, held = os.stat(self.path.name, dir_fd=fd, follow_symlinks=False), os.fstat(self.root_fd)
            if (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino):
                raise ShieldError("drill.marker", "the scratch tree was renamed or swapped; its directory was left")
            yield fd
        except FileNotFoundError as error:
            raise ShieldError("drill.marker", "the scratch tree was moved; its directory was left") from error
        finally:
            os.close(fd)

    def close(self) -> None:
        """Closes the descriptor; may be called twice."""
        if self.root_fd >= 0:
            os.close(self.root_fd)
            self.root_fd = -1


def _read_marker(root_fd: int, drill_id: str) -> tuple[bytes, os.stat_result]:
    try:
        fd = os.open(MARKER, _READ, dir_fd=root_fd)
    except OSError as error:
        raise ShieldError("drill.marker", errno=error.errno) from error
    try:
        seen = os.fstat(fd)
        text = os.read(fd, 256) if stat.S_ISREG(seen.st_mode) else b""
    finally:
        os.close(fd)
    if seen.st_uid != os.geteuid() or text != _MARK + drill_id.encode() + b"\n":
        raise ShieldError("drill.marker")
    return text, seen


def _parts(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    if any(part in {b"", b".", b".."} or b"\0" in part for part in parts):
        raise ShieldError("file.name", path=path)
    return parts


def _split(path: bytes) -> tuple[bytes, bytes]:
    parts = _parts(path)
    if parts == [MARKER]:
        raise ShieldError("drill.marker", "the marker itself is not worked on")
    return b"/".join(parts[:-1]), parts[-1]


def _scan(fd: int) -> list[os.DirEntry[str]]:
    with os.scandir(fd) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _open(name: bytes, flags: int, dir_fd: int, mode: int = 0o600) -> int:
    try:
        return os.open(name, flags, mode, dir_fd=dir_fd)
    except OSError as error:
        raise _file_error(error, name) from error


def _make_directory(name: bytes, dir_fd: int, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=dir_fd)
    except FileExistsError:
        return
    except OSError as error:
        raise _file_error(error, name) from error


def _unlink(name: bytes, dir_fd: int) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except OSError as error:
        raise _file_error(error, name) from error


def _remove_directory(name: bytes, dir_fd: int) -> None:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except OSError as error:
        raise _file_error(error, name) from error


def _file_error(error: OSError, name: bytes) -> ShieldError:
    codes = {
        errno.ENOENT: "file.missing",
        errno.EEXIST: "file.exists",
        errno.ELOOP: "file.symlink",
        errno.ENOTDIR: "file.symlink",
        errno.EACCES: "file.denied",
        errno.EPERM: "file.denied",
        errno.ENOSPC: "file.full",
        errno.EDQUOT: "file.full",
        errno.EROFS: "file.readonly",
        errno.EISDIR: "file.directory",
        errno.EBUSY: "file.mount",
    }
    return ShieldError(codes.get(error.errno or 0, "file.io"), errno=error.errno, path=name)


def _place(parent: Path, error: OSError) -> ShieldError:
    reason = os.strerror(error.errno or 0).lower()
    return ShieldError(
        "drill.place", f"no scratch tree can be made in {os.fspath(parent)!r}: {reason}", errno=error.errno
    )
