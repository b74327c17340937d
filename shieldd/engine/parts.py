"""What the engine answers from: the running parts, handed over once by the composition root."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shieldd.api.engine import Caller
from shieldd.config import Config
from shieldd.custody import Custody
from shieldd.engine.streams import Streams
from shieldd.engine.troubles import Troubles
from shieldd.holding import Holding
from shieldd.judge import PolicyState
from shieldd.keys import KeyRing
from shieldd.lookout import Lookout
from shieldd.native import envelope
from shieldd.native.observe import Baseline, Inspector, Windows
from shieldd.pipeline import Pipeline
from shieldd.respond import GuardedTree, Trees
from shieldd.respond.acts import ActPool
from shieldd.respond.contain import Contain
from shieldd.respond.quarantine import Quarantine
from shieldd.respond.restore import Restorer
from shieldd.respond.seal import Sealer
from shieldd.scan import Scanner
from shieldd.store import Store
from shieldd.survey import Survey
from shieldd.watch import Source


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a configuration generation brought: swapped as one at a reload."""

    config: Config
    policy: PolicyState
    scanner: Scanner


@dataclass(slots=True)
class Parts:
    """The running parts. `snapshot` and `health` change, all else stays for the life of the daemon."""

    snapshot: Snapshot
    trees: Trees
    store: Store
    keys: KeyRing
    journal: envelope.Journal
    source: Source
    baseline: Baseline
    windows: Windows
    inspector: Inspector
    pipeline: Pipeline
    acts: ActPool
    lookout: Lookout
    sealer: Sealer
    quarantine: Quarantine
    streams: Streams
    troubles: Troubles
    canaries_in: Callable[[int], int]
    is_canary: Callable[[GuardedTree, bytes], bool]
    read_trace: Callable[[Path], tuple[np.ndarray, np.ndarray]]
    started_ns: int
    custody: Custody
    holding: Holding
    contain: Contain | None = None
    survey: Survey | None = None
    restorer: Restorer | None = None
    why_no_fanotify: str = ""
    ready: bool = False
    stopping: bool = False

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.snapshot.config

    def left_out(self, tree: GuardedTree, path: bytes) -> str:
        """Why nothing is done to a file that lies there, as a code: a canary, a preserved version; else empty."""
        if self.is_canary(tree, path):
            return "file.canary"
        return "file.outside" if self.custody.holds(tree, path) else ""

    def open_beneath(self, tree: int, path: bytes) -> int:
        """Open a regular file of a tree for reading; the caller closes. See `shieldd.native.files`."""
        return open_beneath(self.trees[tree].root_fd, path)


def open_beneath(root_fd: int, path: bytes) -> int:
    """Open for reading beneath a root, never through a link, never waiting on a FIFO."""
    from shieldd.native import files  # noqa: PLC0415 - only where files are read

    return files.open_beneath(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def who(caller: Caller, why: str) -> str:
    """Reason for a record: who asked, and why."""
    return f"uid {caller.uid}: {why}"
