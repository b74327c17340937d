"""Who may do what: the kernel's integers (uid, gid) to permissions. Deny is the default.

Only SO_PEERCRED's uid and gid decide, never its pid (it can be reused) and never a name that a peer sends. A peer
from another user namespace shows as 65534 and gets nothing at all, whatever the groups say.
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NOBODY: Final = 65534  # the kernel's overflow uid: an id that has no meaning in our namespace
GROUPS_TTL_S: Final = 10.0  # how long a looked-up group list holds; NSS may ask a network


class Permission(StrEnum):
    """One per kind of thing that can be asked for; a route names exactly one."""

    STATUS_READ = "status.read"
    EVENTS_READ = "events.read"
    THREATS_READ = "threats.read"
    THREATS_RESOLVE = "threats.resolve"
    THREATS_RELEASE = "threats.release"
    THREATS_KILL = "threats.kill"
    THREATS_ANALYZE = "threats.analyze"
    FILES_READ = "files.read"
    FILES_VERIFY = "files.verify"
    FILES_SEAL = "files.seal"
    FILES_OPEN = "files.open"
    FILES_CONTENT = "files.content"
    QUARANTINE_READ = "quarantine.read"
    QUARANTINE_ADD = "quarantine.add"
    QUARANTINE_RESTORE = "quarantine.restore"
    QUARANTINE_PURGE = "quarantine.purge"
    KEYS_READ = "keys.read"
    KEYS_ROTATE = "keys.rotate"
    POLICY_READ = "policy.read"
    POLICY_EVALUATE = "policy.evaluate"
    CONFIG_READ = "config.read"
    RESTORE_READ = "restore.read"
    RESTORE_PLAN = "restore.plan"
    RESTORE_RUN = "restore.run"
    VERSIONS_READ = "versions.read"
    VERSIONS_RESTORE = "versions.restore"


ALL: Final = frozenset(Permission)
READ: Final = frozenset(
    {
        Permission.STATUS_READ,
        Permission.EVENTS_READ,
        Permission.THREATS_READ,
        Permission.FILES_READ,
        Permission.QUARANTINE_READ,
        Permission.KEYS_READ,
        Permission.POLICY_READ,
        Permission.CONFIG_READ,
        Permission.RESTORE_READ,
        Permission.VERSIONS_READ,
    }
)
NOTHING: Final[frozenset[Permission]] = frozenset()


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, as the kernel recorded it at connect(2)."""

    uid: int
    gid: int
    pid: int


def system_groups(uid: int, gid: int) -> frozenset[int]:
    """Group ids of a uid as the system knows them; `gid` alone where the uid has no account."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return frozenset({gid})
    return frozenset(os.getgrouplist(name, gid))


class Access:
    """Permissions of a peer.

    Args:
        readers: names of the groups whose members may read; those that do not exist (yet) are looked up again.
        own_uid: the daemon's.
        groups_of: uid, gid → group ids.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        readers: tuple[str, ...],
        *,
        own_uid: int,
        groups_of: Callable[[int, int], frozenset[int]] = system_groups,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._readers = readers
        self._own_uid = own_uid
        self._groups_of = groups_of
        self._clock = clock
        self._known: dict[tuple[int, int], tuple[float, frozenset[Permission]]] = {}

    def master(self, uid: int) -> bool:
        """Root or the daemon's own user."""
        return uid != NOBODY and uid in (0, self._own_uid)

    def allowed(self, peer: Peer) -> frozenset[Permission]:
        """What this peer may do; may block on the name service for others than root and ourselves."""
        if peer.uid == NOBODY:
            return NOTHING
        if self.master(peer.uid):
            return ALL
        key = (peer.uid, peer.gid)
        now = self._clock()
        held = self._known.get(key)
        if held is not None and now - held[0] < GROUPS_TTL_S:
            return held[1]
        found = READ if self._reader_gids() & (self._groups_of(peer.uid, peer.gid) | {peer.gid}) else NOTHING
        if len(self._known) >= 1024:
            self._known.clear()
        self._known[key] = (now, found)
        return found

    def _reader_gids(self) -> frozenset[int]:
        gids: set[int] = set()
        for name in self._readers:
            try:
                gid = grp.getgrnam(name).gr_gid
            except KeyError:
                continue  # a group that is not there has no members
            if gid != NOBODY:
                gids.add(gid)
        return frozenset(gids)
