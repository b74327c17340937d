"""A coalesced file event, as numpy reads it from the core and as a person sees it.

`EVENT` and `FACTS` mirror `native/core/src/event.rs` and `facts.rs`; a test compares size, offsets and names
with the header that the compiler made.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

import numpy as np

from shieldd.model.names import path_json, printable

__all__ = ["EVENT", "FACTS", "Batch", "EventFlag", "FactFlag", "Kind", "path_json", "printable"]

EVENT: Final = np.dtype(
    [
        ("seq", "<u8"),
        ("at_ns", "<u8"),
        ("mono_ns", "<u8"),
        ("dev", "<u8"),
        ("ino", "<u8"),
        ("actor", "<u8"),
        ("path_off", "<u4"),
        ("path_len", "<u4"),
        ("from_off", "<u4"),
        ("from_len", "<u4"),
        ("pid", "<i4"),
        ("merged", "<u4"),
        ("tree", "<u2"),
        ("ops", "<u2"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("reserved", "<u2"),
        ("uid", "<u4"),
        ("mode", "<u4"),
    ]
)

FACTS: Final = np.dtype(
    [
        ("flags", "<u8"),
        ("size", "<u8"),
        ("prev_size", "<u8"),
        ("name_hash", "<u8"),
        ("dir_hash", "<u8"),
        ("path_hash", "<u8"),
        ("from_hash", "<u8"),
        ("stem_hash", "<u8"),
        ("content_hash", "<u8"),
        ("prev_content_hash", "<u8"),
        ("format", "<u2"),
        ("ext_format", "<u2"),
        ("prev_format", "<u2"),
        ("phi_hits", "<u2"),
        ("mode", "<u4"),
        ("entropy", "<f4", (3,)),
        ("chi_square", "<f4", (3,)),
        ("prev_entropy", "<f4"),
        ("ascii", "<f4"),
        ("zero", "<f4"),
        ("serial", "<f4"),
        ("block_spread", "<f4"),
        ("similarity", "<f4"),
        ("encrypted_like", "<f4"),
        ("prev_encrypted_like", "<f4"),
        ("reserved", "<f4"),
    ]
)


class Kind(IntEnum):
    """What happened; the strongest of the operations merged into one event (`event.rs`)."""

    CREATE = 1
    WRITE = 2
    DELETE = 3
    RENAME = 4
    ATTRIB = 5
    MAKE_DIR = 6
    REMOVE_DIR = 7
    RENAME_DIR = 8
    OVERFLOW = 9
    WATCH_LIMIT = 10
    RESCAN_DONE = 11
    ROOT_GONE = 12
    READ = 13


class EventFlag(IntFlag):
    """Bits of an event's `flags` (`event.rs`)."""

    SYNTHETIC = 1
    OPEN = 2
    OVER = 4
    SPECIAL = 8
    ATTRIBUTED = 16
    GUESSED = 32


class FactFlag(IntFlag):
    """Bits of a fact's `flags` (`facts.rs`)."""

    LOOKED = 1 << 0
    UNSEEN = 1 << 1
    MAGIC_KNOWN = 1 << 2
    EXT_KNOWN = 1 << 3
    MAGIC_MATCHES_EXT = 1 << 4
    STRUCTURE_OK = 1 << 5
    TAIL_OK = 1 << 6
    DECLARES_ENCRYPTION = 1 << 7
    EXECUTABLE = 1 << 8
    SCRIPT = 1 << 9
    PHI_DICOM = 1 << 10
    PHI_HL7 = 1 << 11
    PHI_FHIR = 1 << 12
    PHI_TEXT = 1 << 13
    KNOWN_BEFORE = 1 << 14
    EXT_CHANGED = 1 << 15
    CANARY = 1 << 16
    NOTE_LIKE = 1 << 17
    SEALED = 1 << 18
    REPLACED = 1 << 19
    REACHABLE_BY_OTHERS = 1 << 20
    PREV_DECLARED = 1 << 21
    TEMPORARY = 1 << 22
    SPARSE = 1 << 23
    HARDLINKED = 1 << 24
    DECODED = 1 << 25
    TEXT = 1 << 26
    PHI_SEVERAL = 1 << 27
    PREV_STRUCTURE_OK = 1 << 28


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in kernel order with what is known of each file.

    Attributes:
        events: structured array of `EVENT`, shape (N,).
        facts: structured array of `FACTS`, shape (N,).
        observations: float32 matrix, shape (N, F), columns as `shieldd.native.observe.schema()` lists them.
        names: the arena that path offsets point into; valid as long as the batch.
    """

    events: np.ndarray
    facts: np.ndarray
    observations: np.ndarray
    names: bytes

    def __len__(self) -> int:
        return len(self.events)

    def path(self, row: int) -> bytes:
        """Path of a row relative to its tree's root, bytes as the kernel has them."""
        event = self.events[row]
        return self.names[event["path_off"] : event["path_off"] + event["path_len"]]

    def old_path(self, row: int) -> bytes | None:
        """Old path of a rename, None where there is none."""
        event = self.events[row]
        if not event["from_len"]:
            return None
        return self.names[event["from_off"] : event["from_off"] + event["from_len"]]
