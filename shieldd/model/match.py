"""A signature found in a file's content: a fact about bytes, not yet a decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class MatchKind(StrEnum):
    """Which signature matched."""

    EICAR = "eicar"
    DIGEST = "digest"
    YARA = "yara"


@dataclass(frozen=True, slots=True)
class Match:
    """One signature match.

    Attributes:
        kind: which signature.
        rule: name of the rule or digest list entry.
        text: what it says, for an admin; never file content.
        quarantine: whether the signature is sure enough to take the file away; else it asks for an alert.
        sha256: digest of the bytes that were read.
        whole: whether all of the file was read (within the limits of the scan).
        attack: ATT&CK technique the signature stands for, empty where it names none.
    """

    kind: MatchKind
    rule: str
    text: str
    quarantine: bool
    sha256: bytes
    whole: bool
    attack: str = ""
