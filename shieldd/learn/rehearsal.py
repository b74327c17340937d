"""Real programs in marked scratch trees, watched by the native source, judged by a policy and the guard.

Each scenario gets a directory of its own with invented hospital files, and one command line that works on it; nothing
outside that directory is named to any program. What came of it goes into the model card, wins and losses alike.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import subprocess
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from shieldd.detect.canary import plan
from shieldd.detect.guard import Guard
from shieldd.detect.policy import Policy
from shieldd.detect.rules import GuardRules, Mode
from shieldd.learn.scenarios import Scenario
from shieldd.model.decision import Action, Decision
from shieldd.model.event import Batch, Kind
from shieldd.native.observe import Baseline, Inspector, schema
from shieldd.watch import Tree
from shieldd.watch.native_source import NativeSource

MARK: Final = ".shieldd-scratch"
FILES: Final = 120
QUIET_S: Final = 0.6
LIMIT_S: Final = 60.0


@dataclass(slots=True)
class Outcome:
    """What came of a scenario: decisions, and how many known files had been destroyed at the first containment."""

    scenario: Scenario
    decisions: list[Decision] = field(default_factory=list)
    events: int = 0
    destroyed: int = 0
    lost_before: int | None = None
    after_s: float = 0.0
    seconds: float = 0.0

    @property
    def actions(self) -> dict[Action, int]:
        """How often each action was decided."""
        return {action: sum(x.action is action for x in self.decisions) for action in Action}


def rehearse(policy: Policy | None, scenarios: Sequence[Scenario], say: Callable[[str], None]) -> list[Outcome]:
    """Run scenarios whose program is on this host, one after the other, each in a fresh tree."""
    outcomes = []
    for scenario in scenarios:
        if shutil.which(scenario.needs) is None:
            say(f"{scenario.name}: {scenario.needs} is not here, left out")
            continue
        with tempfile.TemporaryDirectory(prefix="shieldd-rehearsal-") as name:
            outcomes.append(_one(Path(name), policy, scenario))
        say(line(outcomes[-1]))
    return outcomes


def _one(root: Path, policy: Policy | None, scenario: Scenario) -> Outcome:
    (root / MARK).write_text("made by shieldd.learn; everything here may be destroyed\n")
    furnish(root)
    outcome = Outcome(scenario)
    guard = Guard(GuardRules(modes=(Mode.ACT,)), policy=policy)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    baseline = _known(root, fd)
    tree = Tree(root=bytes(root), root_fd=fd, exclude=(), index=0)
    source = NativeSource([tree], inspect=True, baseline=baseline)
    try:
        source.start()
        _drain(source, QUIET_S, lambda batch: None)
        began = time.monotonic()
        work = subprocess.Popen(["sh", "-c", scenario.script], cwd=root, stderr=subprocess.DEVNULL)
        first_ns = 0

        def judge(batch: Batch) -> None:
            nonlocal first_ns
            logits = policy.score(batch.observations) if policy else None
            last_ns = int(batch.events["mono_ns"].max())
            first_ns = first_ns or int(batch.events["mono_ns"].min())
            decided = guard.decide(batch, logits, content={}, generation=0, now_ns=0, mono_ns=last_ns)
            destroyed = np.cumsum(batch.observations[:, schema().index["destroys"]] > 0.5)
            for decision in decided:
                if decision.action is Action.CONTAIN and outcome.lost_before is None:
                    row = int(np.flatnonzero(batch.events["seq"] == decision.seq)[0])
                    outcome.lost_before = outcome.destroyed + int(destroyed[row])
                    outcome.after_s = (int(batch.events["mono_ns"][row]) - first_ns) / 1e9
            outcome.decisions += decided
            outcome.events += len(batch)
            outcome.destroyed += int(destroyed[-1])

        while work.poll() is None and time.monotonic() - began < LIMIT_S:
            _drain(source, 0.05, judge)
        if work.poll() is None:
            work.kill()
        outcome.seconds = time.monotonic() - began
        _drain(source, QUIET_S, judge)
    finally:
        source.stop()
        os.close(fd)
    return outcome


def _known(root: Path, fd: int) -> Baseline:
    """Fingerprints of what is there, as a daemon has them that has run for a while."""
    baseline = Baseline()
    inspector = Inspector(baseline)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            inspector.inspect(fd, bytes(path.relative_to(root)), kind=Kind.CREATE)
    return baseline


def _drain(source: NativeSource, quiet_s: float, judge: Callable[[Batch], None]) -> None:
    """Take batches until none has come for a while."""
    while (batch := source.next_batch(quiet_s)) is not None:
        if len(batch):
            judge(batch)


def furnish(root: Path) -> None:
    """Files as a ward's share has them: office documents, lists, messages, pictures, archives."""
    makers = (_text, _csv, _office, _office, _message, _picture, _archive, _office)
    for number in range(FILES):
        directory = root / "abcd"[number % 4]
        directory.mkdir(exist_ok=True)
        suffix, content = makers[number % len(makers)](number)
        (directory / f"record_{number:04}{suffix}").write_bytes(content)
    (root / "e").mkdir()
    (root / "e/ward.log").write_bytes(b"2024-03-11 08:30:00 gateway[12]: message accepted\n" * 600)


def _office(number: int) -> tuple[str, bytes]:
    extension = (b".pdf", b".docx", b".rtf", b".xml")[number % 4]
    secret = number.to_bytes(16, "big")
    return extension.decode(), plan({b"d": [b"x" + extension]}, secret, count=1)[0].content


def _text(number: int) -> tuple[str, bytes]:
    return ".txt", b"".join(b"line %d: ward %d, bed %d, quiet night\n" % (i, number, i * 7 % 31) for i in range(200))


def _csv(number: int) -> tuple[str, bytes]:
    return ".csv", b"bed,ward,count\n" + b"".join(b"%d,%d,%d\n" % (i, number, i * i % 97) for i in range(400))


def _message(number: int) -> tuple[str, bytes]:
    rows = [b"MSH|^~\\&|LAB|WARD|HIS|MAIN|20240311083000||ORU^R01|%d|P|2.5" % number, b"OBR|1||%d|GLU" % number]
    rows += [b"OBX|%d|NM|GLU^Glucose||%d|mg/dL|70-110|N|||F" % (i, 80 + i % 40) for i in range(40)]
    return ".hl7", b"\r".join(rows) + b"\r"


def _picture(number: int) -> tuple[str, bytes]:
    """A grey PNG of noise on a ramp."""
    noise = np.random.Generator(np.random.PCG64(number)).integers(0, 40, (128, 128))
    pixels = (noise + np.arange(128)[:, None]).astype(np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 128, 128, 8, 0, 0, 0, 0)
    return ".png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(
        b"IEND", b""
    )


def _archive(number: int) -> tuple[str, bytes]:
    if number % 2:
        return ".csv.gz", gzip.compress(_csv(number)[1] * 4, mtime=0)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr(zipfile.ZipInfo("list.csv"), _csv(number)[1] * 3)
    return ".zip", out.getvalue()


def line(outcome: Outcome) -> str:
    """One row of the card's table."""
    rate = outcome.destroyed / outcome.seconds if outcome.seconds else 0.0
    counts = outcome.actions
    deeds = ", ".join(f"{action.name.lower()} {n}" for action, n in counts.items() if n and action is not Action.ALLOW)
    if outcome.lost_before is None:
        contained = "no"
    else:
        contained = f"after {outcome.lost_before} files, {outcome.after_s * 1000:.0f} ms"
    cells = (
        outcome.scenario.name,
        str(outcome.events),
        f"{outcome.destroyed} ({rate:.0f}/s)",
        contained,
        deeds or "none",
    )
    return f"| {' | '.join(cells)} |"


def report(outcomes: Sequence[Outcome], version: str, host: str) -> str:
    """The section of the model card, Markdown."""
    head = ["| tool | events | destroyed (rate) | contained | decisions |", "| --- | --- | --- | --- | --- |"]
    parts = [
        f"Run with `python -m shieldd.learn rehearse` on {host}, policy `{version}`, guard with its defaults, no",
        "attribution, nobody was stopped in fact: counts go on after the containment that would have ended it.",
        f"{FILES} files a tree. *Destroyed* is the core's own count. None of these programs was trained on.",
    ]
    for heading, wanted in (("Attacks", True), ("Asked about", None), ("Ordinary work", False)):
        mine = [x for x in outcomes if x.scenario.hostile is wanted]
        if mine:
            parts += ["", f"**{heading}**", "", *head, *(line(x) for x in mine)]
    hostile = [x for x in outcomes if x.scenario.hostile]
    calm = [x for x in outcomes if x.scenario.hostile is False]
    caught = [x.lost_before for x in hostile if x.lost_before is not None]
    stopped = sum(x.lost_before is not None for x in calm)
    taken = sum(x.actions[Action.SEAL] + x.actions[Action.QUARANTINE] > 0 for x in calm)
    alerted = sum(x.actions[Action.ALERT] > 0 for x in calm)
    parts += [
        "",
        f"Contained {len(caught)} of {len(hostile)} attacks, median {np.median(caught) if caught else 0:.0f} files lost"
        f" (most {max(caught, default=0)}). Of {len(calm)} ordinary jobs {stopped} were contained, {taken} had a file"
        f" sealed or quarantined, {alerted} raised an alert.",
    ]
    return "\n".join(parts) + "\n"
