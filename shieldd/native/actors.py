"""Actors as Python values: who is behind a process, what is known of it, who of it lives.

Owns the typed face of `native/ffi/src/actors.rs` and the digests of executables. Does not own the grouping.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from shieldd.model.actor import ActorInfo, ActorKind, Ancestor, Executable, Tampering
from shieldd.native._abi import call, ffi, lib

PROCESSES: Final = 8192
ACTORS: Final = 4096
PIDFDS: Final = 1024
DIGEST_BYTES: Final = 256 << 20
"""Executables above this have no digest: about 0.2 s of hashing."""
DIGESTS: Final = 512
GUESS_S: Final = 0.02
_NO_LOGIN: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ActorCounts:
    """Counters of a table; see `ActorStats` in `native/sys/src/actors/table.rs`."""

    processes: int
    actors: int
    pidfds: int
    looks: int
    gone: int
    reused: int
    execs: int


@dataclass(frozen=True, slots=True)
class Guess:
    """A process with files open beneath a root.

    Attributes:
        key: of its actor.
        root: index of the root.
        writing: descriptors open for writing there.
        open: others there, its working directory among them.
    """

    key: int
    root: int
    pid: int
    writing: int
    open: int


class Digests:
    """SHA-256 of executables, remembered by (device, inode, times, size). Not thread-safe."""

    def __init__(self, *, limit_bytes: int = DIGEST_BYTES, keep: int = DIGESTS) -> None:
        self._limit_bytes = limit_bytes
        self._keep = keep
        self._known: OrderedDict[tuple[int, ...], bytes] = OrderedDict()

    def of(self, one: Executable) -> bytes:
        """Digest of the very file that ran: by its process' own handle, else by its name where that still is it.

        Returns:
            32 bytes; empty where the file is gone, changed meanwhile, not readable, or above the limit.
        """
        mark = (one.dev, one.ino, one.mtime_ns, one.ctime_ns, one.size)
        if (known := self._known.get(mark)) is not None:
            self._known.move_to_end(mark)
            return known
        if one.size > self._limit_bytes or not one.ino:
            return b""
        for path in (b"/proc/%d/exe" % one.pid, one.path):
            digest = _digest(path, mark)
            if digest:
                self._known[mark] = digest
                if len(self._known) > self._keep:
                    self._known.popitem(last=False)
                return digest
        return b""


def _digest(path: bytes, mark: tuple[int, ...]) -> bytes:
    try:
        # a device or FIFO that took the name must not hold us; what it is, fstat says
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    with open(fd, "rb", buffering=0) as file:
        try:
            if _mark(fd) != mark:
                return b""
            digest = hashlib.file_digest(file, "sha256").digest()
            return digest if _mark(fd) == mark else b""
        except OSError:
            return b""


def _mark(fd: int) -> tuple[int, ...]:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        return ()
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


class Actors:
    """A table of processes and actors; `handle` is shared with a source of events. Thread-safe but for the digests.

    Args:
        own: process ids of ours; they and what they start are not one actor, and they are never contained.
        servers: executables (absolute paths) of which each child is an actor, and the server itself none.
        processes, actors, pidfds: limits.

    Raises:
        ShieldError: `actors.proc` where /proc cannot be read.
    """

    def __init__(
        self,
        *,
        own: Sequence[int] = (),
        servers: Sequence[bytes] = (),
        processes: int = PROCESSES,
        actors: int = ACTORS,
        pidfds: int = PIDFDS,
    ) -> None:
        names = b"".join(path + b"\0" for path in servers)
        out = ffi.new("ShdActors **")
        own_pids = ffi.new("int32_t[]", list(own))
        call(lib.shd_actors_new, processes, actors, pidfds, own_pids, len(own), names, len(names), out)
        self.handle: Any = ffi.gc(out[0], lib.shd_actors_free)
        self._digests = Digests()

    def of(self, pid: int) -> tuple[int, bool]:
        """Key of a process' actor, 0 where nothing is known of it, and whether that is certain."""
        pids, keys, certain = ffi.new("int32_t[]", [pid]), ffi.new("uint64_t *"), ffi.new("uint8_t *")
        call(lib.shd_actors_of, self.handle, pids, 1, keys, certain)
        return int(keys[0]), bool(certain[0])

    def info(self, key: int, *, closely: bool = False, digests: bool = True, guessed: bool = False) -> ActorInfo | None:
        """What is known of an actor; None where nothing is (never seen, or forgotten).

        Args:
            key: as an event carries it.
            closely: look again at what its living processes run now, and whose code is mapped; before trusting it.
            digests: read executables that were not read before (about 1 ms for each MB); else digests are empty.
            guessed: the key came from `guess`.
        """
        length, capacity = ffi.new("uintptr_t *"), 4096
        while True:
            buffer = ffi.new("uint8_t[]", capacity)
            call(lib.shd_actors_info, self.handle, key, closely, buffer, capacity, length)
            if length[0] <= capacity:
                break
            capacity, closely = length[0], False
        if not length[0]:
            return None
        read, shown = _read(bytes(ffi.buffer(buffer, length[0])))
        info = replace(read, guessed=guessed)
        return self._with_digests(info, shown) if digests else info

    def _with_digests(self, info: ActorInfo, shown: Executable) -> ActorInfo:
        executables = tuple(replace(one, sha256=self._digests.of(one)) for one in info.executables)
        return replace(info, executables=executables, exe_sha256=self._digests.of(shown))

    def members(self, key: int) -> list[tuple[int, int]]:
        """All living processes of an actor: (pid, start in ticks) each, by a pass over /proc (5 ms for 300 processes).

        Who stops them opens a pidfd of each, compares the start again, and repeats until nobody new is found.
        """
        length, capacity = ffi.new("uintptr_t *"), 256
        while True:
            out = ffi.new("ShdMember[]", capacity)
            call(lib.shd_actors_members, self.handle, key, out, capacity, length)
            if length[0] <= capacity:
                return [(int(out[at].pid), int(out[at].start_ticks)) for at in range(length[0])]
            capacity = length[0] + 64

    def guess(self, paths: Sequence[bytes], *, budget_s: float = GUESS_S) -> list[Guess]:
        """Who has files open beneath absolute paths: for each path its most active writer first.

        A guess: it cannot see who has closed a file again. Events named so carry `EventFlag.GUESSED`.
        """
        roots = b"".join(path + b"\0" for path in paths)
        length, capacity = ffi.new("uintptr_t *"), 64
        out = ffi.new("Guess[]", capacity)
        call(lib.shd_actors_guess, self.handle, roots, len(roots), int(budget_s * 1e9), out, capacity, length)
        count = min(length[0], capacity)
        return [Guess(*(int(getattr(out[at], name)) for name in Guess.__slots__)) for at in range(count)]

    def counts(self) -> ActorCounts:
        """Its counters as of now."""
        out = ffi.new("ActorStats *")
        call(lib.shd_actors_stats, self.handle, out)
        return ActorCounts(*(int(getattr(out, name)) for name in ActorCounts.__slots__))


class _Reader:
    """Reads the block that `tell` in `actors.rs` writes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def numbers(self, layout: str) -> tuple[int, ...]:
        found: tuple[int, ...] = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return found

    def text(self) -> bytes:
        (length,) = self.numbers("<I")
        self._at += length
        return self._data[self._at - length : self._at]


def _read(data: bytes) -> tuple[ActorInfo, Executable]:
    reader = _Reader(data)
    key, start_ticks, start_ns, processes, pidns, pid, uid, login_uid = reader.numbers("<5QiII")
    kind, certain, more, _ = reader.numbers("<4B")
    shown = _executable(reader)
    comm, cmdline, cgroup, unit, container, client = (reader.text() for _ in range(6))
    (count,) = reader.numbers("<I")
    ancestry = tuple(Ancestor(reader.numbers("<i")[0], reader.text(), reader.text()) for _ in range(count))
    (count,) = reader.numbers("<I")
    info = ActorInfo(
        key=key,
        kind=ActorKind(kind),
        certain=bool(certain),
        pid=pid,
        start_ticks=start_ticks,
        start_ns=start_ns,
        exe=shown.path,
        exe_sha256=b"",
        exe_deleted=shown.deleted,
        cmdline=cmdline,
        comm=comm,
        uid=uid,
        login_uid=None if login_uid == _NO_LOGIN else login_uid,
        cgroup=cgroup,
        unit=unit,
        container=container,
        client=client,
        pidns=pidns,
        ancestry=ancestry,
        executables=tuple(_executable(reader) for _ in range(count)),
        more=bool(more),
        processes=processes,
    )
    return info, shown


def _executable(reader: _Reader) -> Executable:
    start_ticks, dev, ino, size, mtime_ns, ctime_ns, pid, tampering, deleted = reader.numbers("<4Q2qi2B")
    return Executable(
        path=reader.text(),
        sha256=b"",
        deleted=bool(deleted),
        pid=pid,
        start_ticks=start_ticks,
        tampering=Tampering(tampering),
        dev=dev,
        ino=ino,
        size=size,
        mtime_ns=mtime_ns,
        ctime_ns=ctime_ns,
    )
