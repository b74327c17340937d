"""Containment in words: what became of each process and of the whole, for records and people."""

from __future__ import annotations

import os
from typing import Final

from shieldd.model.contained import ContainedProcess, Containment, Fate, Sent, Signalled, Spared, Trait

_TRAITS: Final = {
    Trait.THREADS: "more than one thread",
    Trait.TRACED: "traced by another process",
    Trait.UNINTERRUPTIBLE: "in a call that nothing interrupts; it stops when that ends",
    Trait.FOUND: "found on the way",
    Trait.TRACER: "kept a member running by ptrace",
    Trait.HEADLESS: "its first thread had ended",
}
_SPARED: Final = {
    Spared.FIRST: "the first process",
    Spared.KERNEL: "a thread of the kernel",
    Spared.OURSELVES: "shieldd itself",
    Spared.ANCESTOR: "shieldd descends from it",
    Spared.MANAGER: "service manager, message bus or login",
    Spared.SERVER: "a server as a whole",
    Spared.LISTED: "on the list of what is never contained",
}


def described(told: Signalled, before: ContainedProcess | None) -> ContainedProcess:
    """One process for the record. One that we had stopped before and found stopped is still ours."""
    fate = told.fate
    if before is not None and fate is Fate.ALREADY and before.fate in (Fate.DONE, Fate.PENDING):
        fate = Fate.DONE
    words = [text for trait, text in _TRAITS.items() if trait in told.traits]
    if told.spared is not Spared.NOT:
        words.append(f"left alone: {_SPARED[told.spared]}")
    if fate is Fate.ALREADY:
        words.append("somebody else had stopped it; a release leaves it so")
    if told.errno:
        words.append(os.strerror(told.errno).lower())
    exe = (before.exe if before else b"") or _executable(told.member.pid)
    return ContainedProcess(told.member, exe, fate, ", ".join(words))


def summary(now: Containment, sent: Sent, *, denied: bool) -> str:
    """What was done, in one sentence, with the time that it took."""
    counts = {fate: sum(x.fate is fate for x in sent.told) for fate in Fate}
    if not now.stopped and not counts[Fate.DENIED] and not counts[Fate.SPARED]:
        tail = "; whoever comes is denied and stopped" if denied else "; whoever comes is stopped"
        return f"no process of the attack is alive at this moment{tail}"
    parts = [f"{len(now.stopped)} processes stopped in {sent.elapsed_ns / 1e6:.1f} ms"]
    if denied:
        parts.append("opens denied")
    if now.cgroup:
        parts.append("control group frozen")
    for fate, text in (
        (Fate.PENDING, "not at rest yet"),
        (Fate.GONE, "had ended"),
        (Fate.SPARED, "left alone"),
        (Fate.DENIED, "out of our reach"),
        (Fate.ALREADY, "stopped by somebody before"),
    ):
        if counts[fate]:
            parts.append(f"{counts[fate]} {text}")
    reasons = sorted({_SPARED[x.spared] for x in sent.told if x.spared is not Spared.NOT})
    if reasons:
        parts.append(f"never contained: {', '.join(reasons)}")
    if not sent.complete:
        parts.append("there may be more")
    return ", ".join(parts)


def _executable(pid: int) -> bytes:
    try:
        return os.readlink(b"/proc/%d/exe" % pid)
    except OSError:
        return b""
