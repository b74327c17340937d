"""MITRE ATT&CK (Enterprise, Linux) techniques that a decision is evidence of."""

from __future__ import annotations

from typing import Final

from shieldd.model.decision import Action, Decision
from shieldd.model.event import FactFlag

ENCRYPTED_FOR_IMPACT: Final = "T1486"
DATA_DESTRUCTION: Final = "T1485"
STORED_DATA_MANIPULATION: Final = "T1565.001"
MALICIOUS_FILE: Final = "T1204.002"
MASQUERADE_FILE_TYPE: Final = "T1036.008"
SETUID: Final = "T1548.001"
LINUX_PERMISSIONS: Final = "T1222.002"

_ENCRYPTED: Final = ("encrypted", "declared_encrypted", "entropy", "header_losses", "bad_pairs", "note", "ext_changes")


def techniques(decision: Decision, flags: int) -> tuple[str, ...]:
    """Techniques of one decision.

    Args:
        decision: with its reasons.
        flags: `FactFlag` bits of the file.
    """
    found: list[str] = []
    wish = max(decision.wanted, decision.action)
    speaks_for = [x.feature for x in decision.reasons if x.contribution > 0]
    if wish is Action.CONTAIN:
        encrypted = flags & (FactFlag.DECLARES_ENCRYPTION | FactFlag.NOTE_LIKE) or any(
            name.startswith(_ENCRYPTED) for name in speaks_for
        )
        found.append(ENCRYPTED_FOR_IMPACT if encrypted else DATA_DESTRUCTION)
        if flags & FactFlag.KNOWN_BEFORE and flags & FactFlag.LOOKED and not encrypted:
            found.append(STORED_DATA_MANIPULATION)
    elif decision.rule == "removed":
        found.append(DATA_DESTRUCTION)
    if wish is Action.QUARANTINE or decision.rule.startswith("signature:"):
        if flags & FactFlag.NOTE_LIKE and not flags & (FactFlag.EXECUTABLE | FactFlag.SCRIPT):
            found.append(ENCRYPTED_FOR_IMPACT)
        else:
            found.append(MALICIOUS_FILE)
        runs = flags & (FactFlag.EXECUTABLE | FactFlag.SCRIPT)
        if runs and flags & FactFlag.EXT_KNOWN and not flags & FactFlag.MAGIC_MATCHES_EXT:
            found.append(MASQUERADE_FILE_TYPE)
        if "setuid" in speaks_for:
            found.append(SETUID)
    if wish is Action.SEAL:
        found.append(LINUX_PERMISSIONS)
    return tuple(dict.fromkeys(found))
