"""The story of a drill: lay out, settle, attack, decide, count, bring back, clean up.

Nothing is slept for: each wait is for something to appear in the daemon's own record, with a deadline. The attacker
runs at its full speed in a process group of its own; after the decision the drill ends it, because a source that only
watches cannot hold anybody.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shieldctl.drill import drops, score
from shieldctl.drill.attack import Attacker, Course
from shieldctl.drill.corpus import CorpusFile, lay_out
from shieldctl.drill.daemon import Daemon, Guarded, Listening, Taken, Verdict, beneath
from shieldctl.drill.tools import Armed, armed
from shieldctl.drill.tree import ScratchTree
from shieldd.errors import ShieldError

SETTLE_S: Final = 60.0  # for the daemon to have every file of the corpus on record
AFTERMATH_S: Final = 10.0  # after the attack's end, for a decision that is still under way
HANDLE_S: Final = 15.0  # for the drops to be taken
_STEP_S: Final = 0.02
_SLICE_S: Final = 0.25
_BACK: Final = b"brought-back"
_VERSIONS: Final = b"from-versions"


@dataclass(frozen=True, slots=True)
class Orders:
    """What was asked for.

    Attributes:
        files: size of the corpus; seed: of its content.
        tool: name among `tools.TOOLS`.
        place: directory to make the scratch tree in, None for the first tree that the daemon acts in.
        keep: leave the scratch tree.
    """

    files: int
    seed: int
    tool: str
    place: Path | None
    keep: bool


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a drill found out; `render` shows it. `kept` is the scratch tree's path when it was left."""

    drill_id: str
    seed: int
    scratch: bytes
    guarded: Guarded
    backend: str
    onslaught: score.Onslaught
    count: score.Count
    drops: tuple[score.DropOutcome, ...]
    threats: tuple[str, ...]
    threats_left: tuple[str, ...]
    kept: str
    notes: tuple[str, ...]
    passed: bool


def rehearse(daemon: Daemon, orders: Orders, say: Callable[[str], None]) -> Report:
    """Runs one drill.

    Args:
        daemon: a running one.
        say: told what is being done, one short line each; must not block.

    Raises:
        ShieldError: `drill.*`, or what the daemon refused with. The scratch tree is removed then too, unless kept.
    """
    guarded = choose_tree(daemon.guarded(), orders.place)
    parent = orders.place or Path(os.fsdecode(guarded.root))
    begun_ns = time.time_ns()
    daemon.rested(guarded.root, begun_ns)
    with armed(orders.tool) as tool, _scratch(parent, keep=orders.keep) as tree:
        root = os.fsencode(tree.path)
        say(f"laying out {orders.files} files in {tree.path}")
        planned = drops.plan(orders.seed)
        drops.make_room(tree, planned)
        ledger = lay_out(tree, orders.files, orders.seed)
        say("waiting until the daemon has seen them")
        _fence(tree, daemon, "laid-out")
        say(f"attacking with {tool.name}")
        before_ns = time.time_ns()
        fought = _attack(tree, daemon, tool, ledger, planned)
        _fence(tree, daemon, "attacked")
        say("waiting for the drops to be taken")
        _wait_for_drops(daemon, tree, fought.drops)
        say("bringing back what was sealed and quarantined")
        in_place = _digests(tree)
        returned = _bring_back(tree, daemon)
        in_place = {**_digests(tree), **in_place}
        say("bringing back what was preserved")
        present = {*in_place.values(), *(item.sha256 for item in returned)}
        versions = _bring_versions(tree, daemon, score.lost(ledger, present), before_ns)
        say("cleaning up")
        if not orders.keep:
            tree.clear()
            _fence(tree, daemon, "cleaned")
    if not orders.keep:
        _purge_leftovers(daemon, root)
    resolved, left = daemon.resolve(root, guarded.root, tree.mark.drill_id, begun_ns)
    backend = daemon.backend()
    outcomes = tuple(score.drop_outcome(drop, root, fought.dropped_ns, returned) for drop in fought.drops)
    return Report(
        drill_id=tree.mark.drill_id,
        seed=orders.seed,
        scratch=root,
        guarded=guarded,
        backend=backend,
        onslaught=fought.onslaught,
        count=score.count(ledger, root, in_place, returned, versions),
        drops=outcomes,
        threats=resolved,
        threats_left=left,
        kept=os.fspath(tree.path) if orders.keep else "",
        notes=_notes(backend, fought.onslaught, guarded, left),
        passed=score.passed(fought.onslaught, outcomes),
    )


@contextmanager
def _scratch(parent: Path, *, keep: bool) -> Iterator[ScratchTree]:
    """A scratch tree that is gone at the end, whatever happens, unless it is to be kept."""
    tree = ScratchTree.make(parent)
    try:
        yield tree
    finally:
        try:
            if not keep:
                tree.destroy()
        finally:
            tree.close()


def choose_tree(trees: tuple[Guarded, ...], place: Path | None) -> Guarded:
    """The guarded tree to rehearse in.

    Raises:
        ShieldError: `drill.place` when none acts, or `place` is in none.
    """
    if place is None:
        acting = [tree for tree in trees if tree.mode == "act"]
        if not acting:
            raise ShieldError("drill.place", "the daemon guards no tree in which it acts")
        return acting[0]
    where = os.fsencode(place.resolve())
    holders = [tree for tree in trees if beneath(where, tree.root)]
    if not holders:
        raise ShieldError("drill.place", f"{os.fspath(place)!r} is not inside a guarded tree", hint="shieldctl status")
    return max(holders, key=lambda tree: len(tree.root))


@dataclass(frozen=True, slots=True)
class _Fought:
    onslaught: score.Onslaught
    drops: tuple[drops.Drop, ...]
    dropped_ns: int


def _attack(
    tree: ScratchTree, daemon: Daemon, tool: Armed, ledger: tuple[CorpusFile, ...], planned: tuple[drops.Drop, ...]
) -> _Fought:
    """Lets the attacker loose, drops the rest beside it, and ends it once the daemon has decided."""
    offset_ns = time.time_ns() - time.monotonic_ns()  # the attacker reports monotonic times, the daemon wall clock
    listening = daemon.listen(os.fsencode(tree.path), time.time_ns())
    attacker = Attacker(tree, tool, sorted(entry.path for entry in ledger))
    try:
        attacker.started.wait(AFTERMATH_S)
        dropped_ns = time.time_ns()
        drops.drop(tree, planned)
        verdict = _await_verdict(listening, attacker)
    finally:
        course = attacker.end()
        ended_ns = time.monotonic_ns()
    return _Fought(_onslaught(tool, course, verdict, ended_ns, offset_ns), planned, dropped_ns)


def _await_verdict(listening: Listening, attacker: Attacker) -> Verdict | None:
    while not attacker.over.is_set():
        if verdict := listening.wait(_SLICE_S):
            return verdict
    return listening.wait(AFTERMATH_S)


def _onslaught(tool: Armed, course: Course, verdict: Verdict | None, ended_ns: int, offset_ns: int) -> score.Onslaught:
    first = course.first_write_ns
    decided_ns = verdict.at_ns - offset_ns if verdict else course.last_ns
    return score.Onslaught(
        tool=tool.name,
        tool_note=tool.note,
        decided=verdict is not None,
        decision_ms=max(0.0, (decided_ns - first) / 1e6) if verdict else -1.0,
        heard_ms=(verdict.heard_mono_ns - first) / 1e6 if verdict else -1.0,
        ended_ms=(ended_ns - first) / 1e6,
        touched=len(course.begun),
        touched_at_decision=sum(at <= decided_ns for at, _ in course.begun),
        encrypted=len(course.gone),
        encrypted_at_decision=sum(at <= decided_ns for at, _ in course.gone),
        rate=course.rate,
        notes=course.notes,
        finished=course.finished,
    )


def _fence(tree: ScratchTree, daemon: Daemon, name: str) -> None:
    """Waits until the daemon has on record everything that happened in the tree before now."""
    path = f"fence-{name}".encode()
    tree.write(path, b"drill fence\n")
    daemon.wait_seen(os.fsencode(tree.path) + b"/" + path, SETTLE_S)


def _wait_for_drops(daemon: Daemon, tree: ScratchTree, planned: tuple[drops.Drop, ...]) -> None:
    root = os.fsencode(tree.path)
    wanted = {(drop.expected, root + b"/" + drop.path) for drop in planned}
    until = time.monotonic() + HANDLE_S
    while not wanted <= {(item.how, item.original) for item in daemon.taken(root)} and time.monotonic() < until:
        threading.Event().wait(_STEP_S)


def _purge_leftovers(daemon: Daemon, root: bytes) -> None:
    """What was taken again after it had been brought back: it came from here, and the scratch tree is gone."""
    for leftover in daemon.taken(root):
        if leftover.how is drops.Expected.QUARANTINE:
            daemon.purge(leftover)


def _digests(tree: ScratchTree) -> dict[bytes, str]:
    return {path: digest for path in tree.walk() if (digest := tree.digest(path))}


def _bring_back(tree: ScratchTree, daemon: Daemon) -> tuple[score.Returned, ...]:
    """Brings every object of this tree back and digests what came; each into a directory of its own."""
    root = os.fsencode(tree.path)
    returned: list[score.Returned] = []
    for number, item in enumerate(daemon.taken(root)):
        folder = _BACK + b"/%04d" % number
        with tree.directory(folder, make=0o750):
            where, reason = daemon.bring_back(item, root + b"/" + folder)
        returned.append(_returned(tree, root, item, where, reason))
    return tuple(returned)


def _bring_versions(tree: ScratchTree, daemon: Daemon, gone: Sequence[CorpusFile], at_ns: int) -> frozenset[str]:
    """Digests of what came back, each file as it was before the attack, into a directory of its own.

    File by file, not as a restore of the incident: where no process is named, other people's work of that moment would
    be part of it.
    """
    root = os.fsencode(tree.path)
    found: set[str] = set()
    for number, entry in enumerate(gone):
        folder = _VERSIONS + b"/%05d" % number
        with tree.directory(folder, make=0o750):
            where, _ = daemon.bring_version(root + b"/" + entry.path, at_ns, root + b"/" + folder)
        if where and beneath(where, root):
            found.add(tree.digest(where[len(root) + 1 :]) or "")
    return frozenset(found - {""})


def _returned(tree: ScratchTree, root: bytes, item: Taken, where: bytes, reason: str) -> score.Returned:
    digest = ""
    if where and not beneath(where, root):
        reason = "it came back outside the scratch tree"
    elif where:
        digest = tree.digest(where[len(root) + 1 :]) or ""
        reason = "" if digest else "it is not where the daemon put it"
    return score.Returned(item.original, item.how, item.at_ns, digest, reason)


def _notes(backend: str, onslaught: score.Onslaught, guarded: Guarded, left: tuple[str, ...]) -> tuple[str, ...]:
    notes = [
        f"source {backend}: containment is an alert here; the drill itself ended the attacker after it",
        "what it deleted or replaced comes back from preserved versions; what it overwrote before that is lost here",
    ]
    if onslaught.tool_note:
        notes.append(onslaught.tool_note)
    if not onslaught.decided:
        notes.append("the daemon made no decision to contain this attack")
    if guarded.mode != "act":
        notes.append(f"the tree is in mode {guarded.mode}: the daemon raises alerts and takes nothing away")
    if left:
        notes.append(f"left open, because they touch files outside the drill: {', '.join(left)}")
    return tuple(notes)
