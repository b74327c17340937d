"""A slip of paper for the moment between stopping processes and having it on record.

The store's own intent costs a flush of the disk, and an attacker that is not held by its opens uses up every
millisecond of that. What stopped processes need to outlive is the daemon, not the host: with the host they are gone. So
the slip is written into the page cache, in microseconds, into room that was set aside before: a full disk does not
matter. One slip at a time; it is cleared when the record stands.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from dataclasses import dataclass
from typing import Final

from shieldd.errors import ShieldError
from shieldd.model.contained import Member

NAME: Final = b"holding"
ROOM_BYTES: Final = 256 << 10
MEMBERS: Final = 4096  # more are held all the same; the look at their kin finds them again


@dataclass(frozen=True, slots=True)
class Slip:
    """What was about to be held."""

    threat_id: str
    tree: int
    actor_id: int
    at_ns: int
    boot_id: str
    release_boot_ns: int
    members: tuple[Member, ...]


class Notes:
    """The slip's file; any thread may call, one at a time writes."""

    def __init__(self, directory_fd: int) -> None:
        """Args:
        directory_fd: the state directory; the file in it is ours alone.

        Raises:
            ShieldError: `store.io`, `store.full`.
        """
        self._lock = threading.Lock()
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(NAME, flags, 0o600, dir_fd=directory_fd)
            os.posix_fallocate(self._fd, 0, ROOM_BYTES)
        except OSError as error:
            raise ShieldError("store.io", "no slip for what is held", errno=error.errno) from error

    def write(self, slip: Slip) -> None:
        """Note what is about to be stopped.

        Raises:
            ShieldError: `store.io`.
        """
        told = {
            "threat": slip.threat_id,
            "tree": slip.tree,
            "actor": slip.actor_id,
            "at_ns": slip.at_ns,
            "boot": slip.boot_id,
            "release_boot_ns": slip.release_boot_ns,
            "members": [[x.pid, x.start_ticks] for x in slip.members[:MEMBERS]],
        }
        text = json.dumps(told, separators=(",", ":")).encode()
        self._put(len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text)

    def clear(self) -> None:
        """The record stands (or nothing was done)."""
        self._put(bytes(8))

    def read(self) -> Slip | None:
        """What an earlier run noted and did not get to record; None where there is nothing, or nothing whole."""
        with self._lock:
            head = os.pread(self._fd, 8, 0)
            size = int.from_bytes(head[:4], "little")
            text = os.pread(self._fd, size, 8) if 0 < size <= ROOM_BYTES - 8 else b""
        if not text or zlib.crc32(text) != int.from_bytes(head[4:8], "little"):
            return None
        try:
            told = json.loads(text)
            return Slip(
                str(told["threat"]),
                int(told["tree"]),
                int(told["actor"]),
                int(told["at_ns"]),
                str(told["boot"]),
                int(told["release_boot_ns"]),
                tuple(Member(int(pid), int(start)) for pid, start in told["members"]),
            )
        except (ValueError, KeyError, TypeError):
            return None

    def close(self) -> None:
        """Close the file; what is noted stays."""
        os.close(self._fd)

    def _put(self, data: bytes) -> None:
        try:
            with self._lock:
                os.pwrite(self._fd, data, 0)
        except OSError as error:
            raise ShieldError("store.io", "no slip for what is held", errno=error.errno) from error
