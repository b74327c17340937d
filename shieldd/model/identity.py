"""The program behind an actor, by what cannot be faked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """The program behind an actor, as the kernel's own handle on it showed it (never by name).

    Attributes:
        pid: leader of the actor's process tree.
        exe_sha256: digest of the executable's bytes, 32 bytes.
    """

    pid: int
    exe_sha256: bytes
