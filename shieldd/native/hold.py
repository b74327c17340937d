"""Held openers as Python values: the daemon's side of the control block, and the loops of answerer and supervisor.

Owns the typed face of `native/ffi/src/hold.rs`. Does not own the processes that run the loops.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shieldd.model.held import AnswererState, Cover, HeldKind, HeldOpen, HoldCounts, Kept, Verdict
from shieldd.native._abi import call, ffi, lib

TAKE: Final = 1 << 18
"""Bytes of records that are taken at once."""
_HEAD: Final = struct.Struct("<IBBHQQQQQIIIIQBBHI")
_NO_TREE: Final = 0xFFFF
_PATH_AT: Final = 80


@dataclass(frozen=True, slots=True)
class HoldTree:
    """A tree whose writers are held.

    Attributes:
        path: of the root, absolute, without links.
        root_fd: the root, open.
        vault: index of its vault; None where there is none and nothing is preserved.
        exclude: globs of what is left out.
    """

    path: bytes
    root_fd: int
    vault: int | None = None
    exclude: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class HoldSetup:
    """What an answerer is given; descriptors are duplicated.

    Attributes:
        control_fd: the control block.
        lifeline_fd: hangs up when the daemon is gone.
        wake_fd: eventfd(2) by which the daemon wakes the answerer, non-blocking.
        told_fd: eventfd(2) by which the answerer tells of records, non-blocking.
        vault_fds: open vaults.
        own: processes of ours; their opens are never held.
        servers: executables that work for clients, by absolute path.
        bound_ns: longest wait for a verdict.
        hold_ns: longest wait for a version.
        whole_limit_bytes: files up to this size are kept whole, larger ones by range where that can be seen.
        state_fd: directory of the daemon's state, None for none.
        ranges: whether ranges of large files and truncate(2) are asked for.
        quota_bytes: most that a vault may hold.
        min_free_bytes: no version is made that would leave less.
    """

    control_fd: int
    lifeline_fd: int
    wake_fd: int
    told_fd: int
    trees: Sequence[HoldTree]
    vault_fds: Sequence[int]
    own: Sequence[int]
    servers: Sequence[bytes]
    bound_ns: int
    hold_ns: int
    whole_limit_bytes: int
    state_fd: int | None = None
    ranges: bool = True
    quota_bytes: int = 2**64 - 1
    min_free_bytes: int = 0


class ControlBlock:
    """The daemon's side. Verdicts, records and counters may be used from several threads.

    Raises:
        ShieldError: `hold.failed` where no memory can be shared.
    """

    def __init__(self) -> None:
        out = ffi.new("ShdHold **")
        call(lib.shd_hold_new, out)
        self._handle: Any = ffi.gc(out[0], lib.shd_hold_free)
        self._room = ffi.new("uint8_t[]", TAKE)

    @property
    def fd(self) -> int:
        """The block's descriptor, to hand over; it stays ours."""
        return int(lib.shd_hold_fd(self._handle))

    def prepare(self) -> None:
        """Take away what an answerer that is gone left, before another one starts."""
        call(lib.shd_hold_prepare, self._handle)

    def set_verdict(self, actor: int, verdict: Verdict) -> None:
        """What is to become of an actor's opens from now on.

        Raises:
            ShieldError: `hold.verdicts` where too many actors are judged, `native.argument` for actor 0.
        """
        call(lib.shd_hold_set_verdict, self._handle, actor, int(verdict))

    def verdict(self, actor: int) -> Verdict:
        """The verdict on an actor."""
        out = ffi.new("uint8_t *")
        call(lib.shd_hold_verdict, self._handle, actor, out)
        return Verdict(out[0])

    def refresh(self) -> None:
        """Have the answerer forget which directories are outside the trees."""
        call(lib.shd_hold_refresh, self._handle)

    def counts(self) -> HoldCounts:
        """The block's words as of now."""
        count = ffi.new("uintptr_t *")
        words = ffi.new("uint64_t[]", 64)
        call(lib.shd_hold_words, self._handle, words, 64, count)
        # the first word is the layout's version, which the core has checked
        beat, state, pid, supervisor, kills, killed_at, covers, *rest = (int(words[i]) for i in range(1, count[0]))
        return HoldCounts(beat, AnswererState(state), pid, supervisor, kills, killed_at, Cover(covers), *rest)

    def take(self) -> list[HeldOpen]:
        """Records that have come since the last call, oldest first; at most about 2,500."""
        length = ffi.new("uintptr_t *")
        call(lib.shd_hold_take, self._handle, self._room, TAKE, length)
        return _records(bytes(ffi.buffer(self._room, length[0])))


def _records(data: bytes) -> list[HeldOpen]:
    found: list[HeldOpen] = []
    at = 0
    while at < len(data):
        (
            length, kind, kept, tree, at_ns, actor, version, _, start_ticks, pid, tid, held_us, path_length, size,
            verdict, undecoded, errno, _,
        ) = _HEAD.unpack_from(data, at)  # fmt: skip
        path = data[at + _PATH_AT : at + _PATH_AT + path_length]
        found.append(
            HeldOpen(
                kind=HeldKind(kind),
                kept=Kept(kept),
                tree=None if tree == _NO_TREE else tree,
                path=path,
                at_ns=at_ns,
                actor=actor,
                version=version or None,
                pid=pid,
                tid=tid,
                start_ticks=start_ticks,
                held_us=held_us,
                size_bytes=size,
                verdict=Verdict(verdict),
                undecoded=bool(undecoded),
                errno=errno or None,
            )
        )
        at += length
    return found


def answer(setup: HoldSetup) -> None:
    """Hold and answer until the daemon is gone; for a process of its own that does nothing else.

    Raises:
        ShieldError: `hold.unsupported`, `hold.filesystem`, `hold.deadlock`, `hold.failed`, the vault's own.
    """
    alive: list[Any] = []

    def kept(data: bytes) -> Any:
        buffer = ffi.from_buffer(data or b"\0")
        alive.append(buffer)
        return buffer

    trees = ffi.new("ShdHoldTree[]", len(setup.trees))
    for record, tree in zip(trees, setup.trees, strict=True):
        globs = b"".join(glob + b"\0" for glob in tree.exclude)
        record.path, record.path_len = kept(tree.path), len(tree.path)
        record.root_fd, record.vault = tree.root_fd, -1 if tree.vault is None else tree.vault
        record.exclude, record.exclude_len = kept(globs), len(globs)
    vaults, own = ffi.new("int32_t[]", list(setup.vault_fds)), ffi.new("int32_t[]", list(setup.own))
    servers = b"".join(path + b"\0" for path in setup.servers)
    given = ffi.new("ShdHoldSetup *")
    given.control_fd, given.lifeline_fd = setup.control_fd, setup.lifeline_fd
    given.wake_fd, given.told_fd = setup.wake_fd, setup.told_fd
    given.state_fd = -1 if setup.state_fd is None else setup.state_fd
    given.ranges = setup.ranges
    given.trees, given.tree_count = trees, len(setup.trees)
    given.vault_fds, given.vault_count = vaults, len(setup.vault_fds)
    given.own, given.own_count = own, len(setup.own)
    given.servers, given.servers_len = kept(servers), len(servers)
    given.bound_ns, given.hold_ns = setup.bound_ns, setup.hold_ns
    given.whole_limit, given.quota, given.min_free = setup.whole_limit_bytes, setup.quota_bytes, setup.min_free_bytes
    call(lib.shd_hold_answer, given)


def supervise(control_fd: int, lifeline_fd: int, answerer_fd: int, daemon_fd: int) -> None:
    """Watch over an answerer until it or the daemon is gone; for a process of its own.

    Args:
        answerer_fd: pidfd of the answerer.
        daemon_fd: pidfd of the daemon.

    Raises:
        ShieldError: `hold.failed`.
    """
    call(lib.shd_hold_supervise, control_fd, lifeline_fd, answerer_fd, daemon_fd)
