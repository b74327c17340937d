"""What may be known of a key by everybody: its version, its state, what it was used for. Never the key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class KeyState(StrEnum):
    """States of NIST SP 800-57 part 1, 7.

    PRE_ACTIVE: made, not yet used. ACTIVE: seals and opens; one of each purpose. SUSPENDED: neither, for now.
    DEACTIVATED: opens only. COMPROMISED: opens only, so that what it sealed can be brought under another.
    DESTROYED: gone for good.
    """

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key version.

    Attributes:
        key_id: 16 random bytes.
        purpose: number of the purpose (1 files, 2 quarantine, 3 preserve, 4 audit).
        version: from 1 within its purpose.
        state: since `changed_at_ns` (wall clock), because of `why`.
        provider: that holds the root above it.
        uses: data keys wrapped with it, never less than the truth.
    """

    key_id: bytes
    purpose: int
    version: int
    state: KeyState
    provider: str
    created_at_ns: int
    changed_at_ns: int
    why: str
    uses: int = 0
