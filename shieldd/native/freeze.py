"""Stopping, resuming and ending groups of processes: the typed face of `native/ffi/src/freeze.rs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shieldd.model.contained import Fate, Member, Sent, Signalled, Spared, Standing, Trait
from shieldd.native._abi import call, ffi, lib

PASSES: Final = 256
TIME_MS: Final = 2000  # in all; what has not stopped by then is told
ROOM: Final = 4096  # processes told of one by one
_STOP, _RESUME, _KILL = 1, 2, 3


class Freezer:
    """Signals to groups, and who never gets one. Any thread may call; calls wait for one another.

    The calling process, those that it descends from, PID 1, the kernel's threads, service manager, message bus, logins
    and servers as a whole are spared whatever is asked.
    """

    def __init__(self, *, own: Sequence[int] = (), digests: Sequence[bytes] = (), units: Sequence[str] = ()) -> None:
        """Args:
        own: further processes of ours.
        digests: SHA-256 (32 bytes) of executables that are spared.
        units: names of units whose processes are spared.
        """
        out = ffi.new("ShdFreezer **")
        listed = ffi.new("uint8_t[][32]", [list(x) for x in digests])
        names = b"".join(unit.encode() + b"\0" for unit in units)
        call(
            lib.shd_freezer_new, ffi.new("int32_t[]", list(own)), len(own), listed, len(digests), names, len(names), out
        )
        self._handle: Any = ffi.gc(out[0], lib.shd_freezer_free)

    def stop(self, members: Sequence[Member], *, passes: int = PASSES, time_ms: int = TIME_MS) -> Sent:
        """SIGSTOP to these and to all who belong to them, until a look at all processes finds nobody new."""
        return self._send(_STOP, members, passes, time_ms)

    def resume(self, members: Sequence[Member]) -> Sent:
        """SIGCONT to these alone."""
        return self._send(_RESUME, members, PASSES, TIME_MS)

    def kill(self, members: Sequence[Member], *, passes: int = PASSES, time_ms: int = TIME_MS) -> Sent:
        """SIGKILL to these and to all who belong to them."""
        return self._send(_KILL, members, passes, time_ms)

    def look(self, member: Member) -> Standing:
        """What a process runs now, by digest, and whether that can be relied on.

        Raises:
            ShieldError: `contain.gone`.
        """
        out = ffi.new("ShdStanding *")
        call(lib.shd_freezer_look, self._handle, _member(member), out)
        text = ffi.string(out.text).decode() if out.foreign else ""
        return Standing(out.dev, out.ino, bytes(ffi.buffer(out.digest)), text, Spared(out.why))

    def freeze_group(self, pids: Sequence[int]) -> bytes:
        """Freeze the control group (v2) that holds these processes and nobody else; returns its directory.

        Raises:
            ShieldError: `contain.cgroup` with the reason.
        """
        out = ffi.new("uint8_t[4096]")
        call(lib.shd_cgroup_freeze, ffi.new("int32_t[]", list(pids)), len(pids), out, 4096)
        return bytes(ffi.string(out))

    def thaw_group(self, directory: bytes) -> None:
        """Thaw it again; one that is gone needs nothing.

        Raises:
            ShieldError: `contain.cgroup`.
        """
        call(lib.shd_cgroup_thaw, directory, len(directory))

    def _send(self, sign: int, members: Sequence[Member], passes: int, time_ms: int) -> Sent:
        named = ffi.new("ShdMember[]", len(members))
        for at, member in enumerate(members):
            named[at].pid, named[at].start_ticks = member.pid, member.start_ticks
        out, sent = ffi.new("ShdTold[]", ROOM), ffi.new("ShdSent *")
        call(lib.shd_freezer_send, self._handle, sign, named, len(members), passes, time_ms, out, ROOM, sent)
        told = tuple(
            Signalled(
                Member(row.pid, row.start_ticks), row.ppid, Fate(row.fate), Spared(row.why), Trait(row.flags), row.errno
            )
            for row in out[0 : min(sent.total, ROOM)]
        )
        return Sent(told, sent.passes, bool(sent.complete), sent.first_ns, sent.elapsed_ns)


def _member(member: Member) -> Any:
    made = ffi.new("ShdMember *")
    made.pid, made.start_ticks = member.pid, member.start_ticks
    return made[0]
