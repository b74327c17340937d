"""Looking at what stands under a name now, beneath a tree's root and through no link, and comparing it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from shieldd.errors import ShieldError
from shieldd.model.restore import Found, There, Wanted
from shieldd.native import files
from shieldd.native.restore import digest_of

WAY_CODES = ("file.symlink", "file.mount", "file.not-regular", "file.name", "file.race")


def look(root_fd: int, path: bytes) -> tuple[Found, There | None]:
    """What stands under a name: `CHANGED` for any regular file, not yet compared with anything.

    Raises:
        ShieldError: what the file system said where that is neither "nothing there" nor "no way".
    """
    above, name = os.path.split(path)
    try:
        fd = files.open_beneath(root_fd, above or b".", os.O_DIRECTORY)
    except ShieldError as error:
        if error.code == "file.missing":
            return (Found.WAY, None) if _blocked(root_fd, above) else (Found.MISSING, None)
        if error.code in WAY_CODES:
            return Found.WAY, None
        raise
    try:
        seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return Found.MISSING, None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return Found.MISSING, None  # a name that can be nobody's
        raise ShieldError("file.io", errno=error.errno, path=path) from error
    finally:
        os.close(fd)
    return _kind(seen.st_mode), there_of(seen)


def there_of(seen: os.stat_result) -> There:
    """What is kept of a stat."""
    return There(seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_mode, seen.st_uid)


def missing_directories(root_fd: int, paths: Iterable[bytes]) -> list[bytes]:
    """Directories that are not there, outermost first."""
    gone: dict[bytes, None] = {}
    there: set[bytes] = set()
    for path in paths:
        parts = path.split(b"/")
        for count in range(1, len(parts) + 1):
            one = b"/".join(parts[:count])
            if one in gone or one in there:
                continue
            found, _ = look(root_fd, one)
            if found is Found.MISSING:
                gone[one] = None
            else:
                there.add(one)
    return list(gone)


def same_content(root_fd: int, path: bytes, wanted: Wanted, version_fd: int) -> bool:
    """Whether a regular file holds what its version holds: size, then BLAKE3."""
    fd = files.open_beneath(root_fd, path, os.O_NONBLOCK)
    try:
        if os.fstat(fd).st_size != wanted.size:
            return False
        return digest_of(fd) == (wanted.digest or digest_of(version_fd))
    finally:
        os.close(fd)


def same_dress(root_fd: int, path: bytes, wanted: Wanted) -> bool:
    """Whether owner, mode, time of change and attributes are those of the version."""
    fd = files.open_beneath(root_fd, path, os.O_NONBLOCK)
    try:
        seen = os.fstat(fd)
        plain = (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_mtime_ns)
        if plain != (stat.S_IMODE(wanted.mode), wanted.uid, wanted.gid, wanted.mtime_ns):
            return False
        return not wanted.xattrs_whole or xattrs_of(fd) == tuple(sorted(wanted.xattrs))
    finally:
        os.close(fd)


def xattrs_of(fd: int) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes, by name; those that are kept from us are left out."""
    found: list[tuple[bytes, bytes]] = []
    try:
        names = os.listxattr(fd)
    except OSError:
        return ()
    for name in names:
        try:
            found.append((os.fsencode(name), os.getxattr(fd, name)))
        except OSError:
            continue
    return tuple(sorted(found))


def _kind(mode: int) -> Found:
    if stat.S_ISREG(mode):
        return Found.CHANGED
    if stat.S_ISLNK(mode):
        return Found.LINK
    return Found.DIRECTORY if stat.S_ISDIR(mode) else Found.SPECIAL


def _blocked(root_fd: int, above: bytes) -> bool:
    """Whether something that is no directory stands where one of these directories was (told as "missing")."""
    parts = above.split(b"/")
    for count in range(1, len(parts) + 1):
        name = b"/".join(parts[:count])
        try:
            seen = os.stat(name, dir_fd=root_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        if not stat.S_ISDIR(seen.st_mode):
            return True
    return False
