"""One attack from its start to the last file that came back, measured.

What was destroyed is told by the digests of the corpus, not by what the daemon says; the daemon's own figures stand
beside it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench.suite.attacks import Attack, Raid
from bench.suite.ground import Ground, ground, until
from shieldctl.drill.corpus import CorpusFile
from shieldctl.drill.tree import ScratchTree

ATTACK_S: Final = 120.0
DISK_MIB: Final = 4096
_RESTORABLE: Final = 100_000


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one attack.

    Attributes:
        files: in the corpus.
        rate: files a second that the attacker destroyed, from its first event until it was stopped or at its end.
        touched: files whose content or name was no longer as before when all stood still.
        held_ms, contained_ms: from the first event until its opens were refused and until all of it stood still; -1
            where that did not come to pass.
        preserved: versions made while writers waited.
        longest_us: longest wait of an opener.
        lost: files that did not come back as they were.
        restored_s: how long the restore took.
    """

    attack: str
    files: int
    rate: float
    touched: int
    held_ms: float
    contained_ms: float
    preserved: int
    longest_us: int
    lost: int
    restored_s: float
    note: str


def run(attack: Attack, files: int) -> Row:
    """A fresh file system, a fresh daemon, the attack at full speed, the restore."""
    home = Path(tempfile.mkdtemp(prefix="shield-suite-"))
    home.chmod(0o755)
    try:
        with ground(home, size_mib=DISK_MIB) as made:
            return _run(attack, files, made)
    finally:
        shutil.rmtree(home)


def _run(attack: Attack, files: int, made: Ground) -> Row:
    scratch, ledger = made.lay_out(files)
    made.start()
    began = time.monotonic()
    raid = Raid(attack, scratch)
    note = ""
    try:
        until("an end", lambda: raid.over or made.contained(), ATTACK_S)
    except TimeoutError:
        note = f"ended after {ATTACK_S:g} s"
    finally:
        took_s = time.monotonic() - began
        raid.end()
    made.fence()
    touched = len(_spoilt(scratch, ledger))
    threats = [one for one in made.threats() if one["first_event_at"]]
    threat = threats[-1] if threats else {}
    held = made.status()["watch"]["hold"]
    stopped_ms = _ms(threat, "contained_at")
    began_restore = time.monotonic()
    for one in threats:
        made.ctl("restore", "run", one["id"], "--yes", expect=None)
    restored_s = time.monotonic() - began_restore
    span_s = stopped_ms / 1000 if stopped_ms > 0 else took_s
    return Row(
        attack=attack.name,
        files=len(ledger),
        rate=round(touched / span_s, 1) if span_s > 0 else 0.0,
        touched=touched,
        held_ms=_ms(threat, "held_at"),
        contained_ms=stopped_ms,
        preserved=held["preserved"],
        longest_us=held["longest_us"],
        lost=len(_spoilt(scratch, ledger)),
        restored_s=round(restored_s, 2),
        note=note or ("" if threats else "no threat"),
    )


def _spoilt(scratch: ScratchTree, ledger: tuple[CorpusFile, ...]) -> list[bytes]:
    return [one.path for one in ledger if scratch.digest(one.path) != one.sha256]


def _ms(threat: dict[str, Any], what: str) -> float:
    if not threat.get(what):
        return -1.0
    span = datetime.fromisoformat(threat[what]) - datetime.fromisoformat(threat["first_event_at"])
    return round(span.total_seconds() * 1000, 1)


def table(rows: list[Row]) -> str:
    """As Markdown."""
    head = (
        "| attack | files | files/s | touched | opens refused after | all stopped after | versions made on opening "
        "| longest wait | irrecoverably lost | restore | |"
    )
    lines = [head, "| --- " * 11 + "|"]
    for x in rows:
        words = [f"{ms:.0f} ms" if ms >= 0 else "–" for ms in (x.held_ms, x.contained_ms)]
        lines.append(
            f"| {x.attack} | {x.files} | {x.rate:g} | {x.touched} | {words[0]} | {words[1]} | {x.preserved} "
            f"| {x.longest_us / 1000:.1f} ms | {x.lost} | {x.restored_s:g} s | {x.note} |"
        )
    return "\n".join(lines)


def as_json(rows: list[Row]) -> str:
    """One object a line."""
    return "\n".join(json.dumps({name: getattr(x, name) for name in Row.__slots__}) for x in rows)
