"""Bringing files back: what a plan says of each file, and how that went. Values alone.

A plan is made once and kept; a run goes through its steps and may be cut off at any of them: what a step needs to be
finished or done again stands in the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shieldd.model.decision import Outcome


class Act(StrEnum):
    """What a step does, in the order in which steps are done."""

    DIRECTORY = "directory"  # make a directory that is gone
    MOVE = "move"  # give a renamed file or directory its name again
    COPY = "copy"  # write the preserved content
    LINK = "link"  # the preserved inode gets its name again
    TWIN = "twin"  # another name of a file that an earlier step brought back
    DRESS = "dress"  # owner, mode, times, attributes alone
    QUARANTINE = "quarantine"  # what the actor planted goes to quarantine
    NOTHING = "nothing"  # nothing can be done, or nothing needs to be


class Found(StrEnum):
    """What stands under the name when the plan is made."""

    MISSING = "missing"
    SAME = "same"
    CHANGED = "changed"
    LINK = "link"
    DIRECTORY = "directory"
    SPECIAL = "special"  # FIFO, socket, device
    WAY = "way"  # no way there: a link, a file or a mount where a directory was


class Conflict(StrEnum):
    """Why a file is not brought back unless it is asked for by name."""

    NONE = ""
    CHANGED_SINCE = "changed-since"  # by somebody else than the actor
    OTHER_OWNER = "other-owner"
    OTHER_TYPE = "other-type"  # a link, a directory, a FIFO has the name
    SEALED = "sealed"  # its sealed form lies beside it
    WAY = "way"  # there is no way to it that is free of links; cannot be asked for


class PlanState(StrEnum):
    """Life of a plan."""

    PLANNED = "planned"
    RUNNING = "running"  # begun; a run that was cut off is gone on with
    DONE = "done"


@dataclass(frozen=True, slots=True)
class There:
    """What stood under a name: enough to know it again. `mtime_ns` and `ctime_ns` as the file system has them."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a file is to be: all that its preserved version had.

    Attributes:
        digest: BLAKE3 of the content, empty where it is not known.
        xattrs: name and value, access lists among them.
        xattrs_whole: whether these are all that it had.
    """

    size: int
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    digest: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    xattrs_whole: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One file of a plan.

    Attributes:
        number: place in the plan, from 0.
        tree, path: where the file belongs; path relative to the tree's root.
        act: what will be done; `conflict` keeps it from being done unless the file is asked for by name.
        lost: the file was there before and no version of it is.
        version: id of the version to come back, empty where there is none; `at_ns` when that was made.
        other: of `MOVE` and `TWIN`, where the file is now; else the names under which the actor left its product.
        there: what stands under the name now (of `MOVE`: under `other`).
        aside: whether what is in the way is set aside beside the file, not dropped.
        hidden: name used while the file is replaced, 33 bytes; written down before it is used.
        text: one sentence about what is found and what will happen.
        outcome: `PENDING` until it was tried.
        code, reason: of the error when it failed; why when it was skipped; where what was set aside lies now.
    """

    number: int
    tree: int
    path: bytes
    act: Act
    found: Found
    conflict: Conflict
    lost: bool
    version: str
    at_ns: int
    other: bytes
    wanted: Wanted | None
    there: There | None
    text: str
    aside: bool = False
    hidden: bytes = b""
    outcome: Outcome = Outcome.PENDING
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan without its steps.

    Attributes:
        threat_id: the incident.
        tree: index of its tree.
        attributed: whether the kernel named the actor; without, all that happened in the incident's time counts.
    """

    id: str
    threat_id: str
    tree: int
    made_at_ns: int
    state: PlanState
    attributed: bool
    steps: int
    ended_at_ns: int = 0
