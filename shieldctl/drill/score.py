"""What a drill counts. Pure: digests, ledgers and times in, a frozen result out.

A file is lost when its bytes (SHA-256 of the corpus) are nowhere: not at any place in the scratch tree, not in a
sealed file, not in quarantine, not in a preserved version that came back. A false action is a seal or a quarantine of
a corpus file that was still whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from shieldctl.drill.corpus import CorpusFile
from shieldctl.drill.drops import Drop, Expected


@dataclass(frozen=True, slots=True)
class Returned:
    """One object that the daemon had taken and was asked to bring back.

    Attributes:
        original: absolute path it had before.
        how: what the daemon had done with it.
        at_ns: wall clock, ns, to the millisecond; when it did.
        sha256: digest of what came back, hex; empty when nothing did.
        reason: why nothing came back.
    """

    original: bytes
    how: Expected
    at_ns: int
    sha256: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Onslaught:
    """The attack as it went.

    Attributes:
        tool, tool_note: what encrypted, and what was asked for in vain.
        decided: the daemon decided `contain` for it.
        decision_ms: from the attack's first write to that decision by the daemon's clock; -1 without one.
        heard_ms: the same until the alert had reached this program.
        ended_ms: the same until the attacker was ended by the drill.
        touched: files it began to work on; `touched_at_decision` of them before the decision.
        encrypted: files it encrypted and deleted; `encrypted_at_decision` likewise.
        rate: files encrypted per second.
        notes: ransom notes it left.
        finished: it came to the end of its list.
    """

    tool: str
    tool_note: str
    decided: bool
    decision_ms: float
    heard_ms: float
    ended_ms: float
    touched: int
    touched_at_decision: int
    encrypted: int
    encrypted_at_decision: int
    rate: float
    notes: int
    finished: bool


@dataclass(frozen=True, slots=True)
class DropOutcome:
    """One drop: whether the daemon did what it should within `after_ms` (-1 if not), and whether it came back whole."""

    path: str
    what: str
    expected: Expected
    handled: bool
    after_ms: float
    returned: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Count:
    """Files, counted over the corpus and the drops.

    Attributes:
        gone: corpus files whose bytes were nowhere in the tree, sealed or in quarantine after the attack.
        from_versions: of those, brought back from preserved versions; the others are `lost`.
    """

    files: int
    size_bytes: int
    in_place: int
    lost: int
    sealed: int
    quarantined: int
    brought_back: int
    not_brought_back: int
    false_actions: int
    gone: int = 0
    from_versions: int = 0


def lost(ledger: Iterable[CorpusFile], present: Collection[str]) -> tuple[CorpusFile, ...]:
    """Files of the ledger whose bytes are nowhere among `present` (SHA-256, hex)."""
    known = frozenset(present)
    return tuple(entry for entry in ledger if entry.sha256 not in known)


def false_actions(ledger: Iterable[CorpusFile], root: bytes, returned: Iterable[Returned]) -> int:
    """Corpus files that were sealed or quarantined although they were as they had been laid out."""
    whole = {root + b"/" + entry.path: entry.sha256 for entry in ledger}
    return sum(whole.get(item.original) == item.sha256 for item in returned)


def count(
    ledger: tuple[CorpusFile, ...],
    root: bytes,
    in_place: dict[bytes, str],
    returned: tuple[Returned, ...],
    versions: Collection[str] = (),
) -> Count:
    """The table's lower half.

    Args:
        ledger: the corpus as it was laid out.
        root: absolute path of the scratch tree.
        in_place: relative path → SHA-256 of what lies in the tree after the attack, before anything is brought back.
        returned: what the daemon had taken, with the digest of what came back.
        versions: SHA-256 of what came back from preserved versions.
    """
    present = {*in_place.values(), *(item.sha256 for item in returned)}
    gone, never = lost(ledger, present), lost(ledger, present | set(versions))
    return Count(
        files=len(ledger),
        size_bytes=sum(entry.size_bytes for entry in ledger),
        in_place=sum(in_place.get(entry.path) == entry.sha256 for entry in ledger),
        lost=len(never),
        sealed=sum(item.how is Expected.SEAL for item in returned),
        quarantined=sum(item.how is Expected.QUARANTINE for item in returned),
        brought_back=sum(bool(item.sha256) for item in returned),
        not_brought_back=sum(not item.sha256 for item in returned),
        false_actions=false_actions(ledger, root, returned),
        gone=len(gone),
        from_versions=len(gone) - len(never),
    )


def drop_outcome(drop: Drop, root: bytes, dropped_ns: int, returned: Iterable[Returned]) -> DropOutcome:
    """How one drop fared; `dropped_ns` is the wall clock, ns, just before it was written."""
    path = root + b"/" + drop.path
    taken = next((item for item in returned if item.original == path and item.how is drop.expected), None)
    shown = drop.path.decode()
    if taken is None:
        return DropOutcome(shown, drop.what, drop.expected, False, -1.0, False, "the daemon left it as it is")
    after_ms = max(0.0, (taken.at_ns - dropped_ns) / 1e6)
    same = taken.sha256 == drop.sha256
    reason = "" if same else taken.reason or "what came back is not what was taken"
    return DropOutcome(shown, drop.what, drop.expected, True, after_ms, same, reason)


def passed(onslaught: Onslaught, drops: Iterable[DropOutcome]) -> bool:
    """The attack was decided on, and each drop was handled and came back whole."""
    return onslaught.decided and all(drop.handled and drop.returned for drop in drops)
