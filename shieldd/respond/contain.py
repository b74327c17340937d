"""Holds the processes behind an attack: opens denied, every process stopped, until a person says what they are.

Order of an act, and why: the verdict on the actor's opens first (a word in memory, in force at once), then a slip of
what is about to be stopped (`notes`), then the signal to all of them, then the record. Nothing here destroys anything:
a person releases (`release`), and only a person kills (`kill`).

What is held outlives the daemon: it stays stopped, is found again by number and start at the next start, and can be
released then; meanwhile `held` looks after it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog

from shieldd.errors import ShieldError
from shieldd.model.contained import ContainedProcess, Containment, Fate, Holding, Member, Sent, Spared
from shieldd.model.decision import ActionKind, Decision, Outcome, Severity
from shieldd.model.incident import Incident, TakenAction
from shieldd.respond import Ended, announced
from shieldd.respond.containing import PROCESS_KEY, Means
from shieldd.respond.held import Held
from shieldd.respond.notes import Slip
from shieldd.respond.telling import described, summary

NOBODY_NAMED: Final = "this event source cannot name or hold the process; a person must stop it now"
HOSTS_OWN: Final = "it is the host's own work (service manager or a server as a whole); a person must look at it now"
ROUNDS: Final = 4  # looks of the grouping for members that the signal's own looks did not find

log = structlog.get_logger("shieldd.contain")


class Contain:
    """One per daemon. Any thread may call; acts wait for one another."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._held = Held(means, lambda threat_id: self.release(threat_id, why="the configured time is over"))

    def why_not(self, actor: int) -> str:
        """Why an actor cannot be held at all, in words; empty where it can."""
        if not actor & PROCESS_KEY:
            return NOBODY_NAMED
        return HOSTS_OWN if self._means.groups.of_the_host(actor) else ""

    def deny(self, actor: int) -> int:
        """Deny an actor's opens; returns since when (wall clock, ns), 0 where that cannot be done here."""
        return time.time_ns() if self._means.verdicts.deny(actor) else 0

    def contain(self, decision: Decision, incident: Incident, *, held_at_ns: int | None = None) -> Containment | None:
        """Stop the processes of a decision's actor.

        Args:
            held_at_ns: what `deny` returned, where it was called before.

        Returns:
            What is held now; None where all of them may never be contained.

        Raises:
            ShieldError: `contain.denied`; the record says so too.
        """
        with self._held.lock:
            held_ns = self.deny(decision.actor) if held_at_ns is None else held_at_ns
            named = self._means.members(decision.actor)
            before = self._held.get(incident.id)
            now = Containment(
                threat_id=incident.id,
                tree=decision.tree,
                actor_id=decision.actor,
                state=Holding.HELD,
                at_ns=before.at_ns if before else time.time_ns(),
                changed_at_ns=time.time_ns(),
                boot_id=self._means.boot_id,
                release_boot_ns=before.release_boot_ns if before else self._release_at(decision.tree),
                cgroup=before.cgroup if before else b"",
                note="",
                members=before.members if before else (),
            )
            self._slip(now, named)
            now, sent = self._stop(now, named)
            if now.stopped:
                now = self._frozen(now)
            self._means.tell.stopped(incident.id, held_ns, now.changed_at_ns if now.stopped else 0)
            return self._conclude(decision, now, sent, held_ns)

    def release(self, threat_id: str, *, why: str) -> Containment:
        """Let what is held for an incident go on, its opens too.

        Args:
            why: who asked for it and the reason, for the record.

        Raises:
            ShieldError: `contain.none`, `contain.denied`, `store.*`.
        """
        with self._held.lock:
            held = self._held.get(threat_id)
            if held is None:
                raise ShieldError("contain.none")
            action = self._intended(held, f"release: {why}")
            self._means.verdicts.clear(held.actor_id)
            self._thaw(held)
            sent = self._means.signals().resume(held.stopped)
            self._or_failed(action, sent, Fate.DONE, "resumed")
            on = sum(x.fate is Fate.DONE for x in sent.told)
            text = f"released: {on} processes go on, {len(sent.told) - on} had ended ({why})"
            return self._over(held, Holding.RELEASED if on or not held.stopped else Holding.GONE, sent, action, text)

    def kill(self, threat_id: str, *, actor: int, tree: int, why: str) -> Containment:
        """End the processes of an incident for good: a person's decision.

        Args:
            actor: key of the incident's actor, for one of which nothing is held.

        Raises:
            ShieldError: `contain.none`, `contain.denied`, `store.*`.
        """
        with self._held.lock:
            held = self._held.get(threat_id)
            named = list(held.stopped) if held else []
            named += [x for x in self._means.members(actor) if x not in named]
            if not named:
                raise ShieldError("contain.none", "no process of that threat is alive and known")
            now, boot = time.time_ns(), self._means.boot_id
            held = held or Containment(threat_id, tree, actor, Holding.HELD, now, now, boot, 0, b"", "", ())
            action = self._intended(held, f"kill: {why}")
            sent = self._means.signals().kill(named)
            self._thaw(held)
            self._means.verdicts.clear(held.actor_id)
            self._or_failed(action, sent, Fate.DONE, "killed")
            dead = sum(x.fate is Fate.DONE for x in sent.told)
            left = sum(x.fate in (Fate.DENIED, Fate.PENDING) for x in sent.told)
            text = f"killed: {dead} processes, {left} could not be ({why})"
            return self._over(held, Holding.KILLED if dead else Holding.GONE, sent, action, text)

    def of(self, threat_id: str) -> Containment | None:
        """What is or was held for an incident."""
        return self._held.get(threat_id) or self._means.holdings.of(threat_id)

    def held(self) -> tuple[Containment, ...]:
        """All that is held now."""
        return self._held.now()

    def recover(self) -> None:
        """At start: take over what an earlier run holds, on record or only noted."""
        with self._held.lock:
            for found in self._means.holdings.held():
                self._held.take_over(found)
            slip = self._means.notes.read()
            if slip is not None and slip.boot_id == self._means.boot_id and self._held.get(slip.threat_id) is None:
                log.warning("a daemon died before it could say what it stopped", threat=slip.threat_id)
                note = "found after a crash of the daemon"
                members = tuple(ContainedProcess(x, b"", Fate.DONE, note) for x in slip.members)
                found = Containment(
                    slip.threat_id, slip.tree, slip.actor_id, Holding.HELD, slip.at_ns, time.time_ns(), slip.boot_id,
                    slip.release_boot_ns, b"", note, members,
                )  # fmt: skip
                self._held.take_over(found)
            self._means.notes.clear()

    def look_after(self) -> None:
        """One look at all that is held; a thread does it by itself while anything is."""
        self._held.look_after()

    def stop(self) -> None:
        """End. What is held stays held, and that is said; the next start finds it again."""
        self._held.stop()
        for held in self._held.now():
            log.warning("processes stay stopped without us; release them after the next start", threat=held.threat_id)

    def _slip(self, now: Containment, named: Sequence[Member]) -> None:
        members = (*now.stopped, *named)
        slip = Slip(now.threat_id, now.tree, now.actor_id, now.at_ns, now.boot_id, now.release_boot_ns, members)
        try:
            self._means.notes.write(slip)
        except ShieldError as error:
            # Stopping can be taken back and waits for nothing; that a crash now would hide it is told.
            self._means.tell.trouble(error.code, "what is being stopped could not be noted")

    def _stop(self, now: Containment, named: Sequence[Member]) -> tuple[Containment, Sent]:
        """Stop until neither the signal's looks nor the grouping find anybody new."""
        ours = {x.member: x for x in now.members}
        sent = self._means.signals().stop(named)
        told = {x.member: x for x in sent.told}
        for _ in range(ROUNDS):
            late = [x for x in self._means.members(now.actor_id) if x not in told]
            if not late:
                break
            more = self._means.signals().stop(late)
            told.update((x.member, x) for x in more.told if x.member not in told)
            sent = replace(sent, complete=more.complete, elapsed_ns=sent.elapsed_ns + more.elapsed_ns)
        sent = replace(sent, told=tuple(told.values()))
        members = {**ours, **{x.member: described(x, ours.get(x.member)) for x in sent.told}}
        return replace(now, members=tuple(members.values()), changed_at_ns=time.time_ns()), sent

    def _frozen(self, now: Containment) -> Containment:
        """The control group, where it is theirs alone; after the signals, since it takes so much longer."""
        if now.cgroup:
            return now
        try:
            return replace(now, cgroup=self._means.signals().freeze_group([x.pid for x in now.stopped]))
        except ShieldError as error:
            return replace(now, note=f"control group not frozen: {error.message}")

    def _conclude(self, decision: Decision, now: Containment, sent: Sent, held_ns: int) -> Containment | None:
        """Record it, tell it, and look after it from now on."""
        text, undo = summary(now, sent, denied=bool(held_ns)), f"shieldctl threats release {now.threat_id}"
        fates = {x.fate for x in sent.told}
        outcome, keep = Outcome.DONE, True
        if not now.stopped and fates & {Fate.SPARED, Fate.DENIED}:
            # A login or a message bus is not stopped, but may not write into guarded trees either.
            managers = all(x.spared is Spared.MANAGER for x in sent.told if x.fate is Fate.SPARED)
            keep = bool(held_ns) and managers
            outcome = Outcome.FAILED if Fate.DENIED in fates else Outcome.DONE if keep else Outcome.SKIPPED
        elif fates & {Fate.DENIED, Fate.PENDING} or not sent.complete:
            self._means.tell.trouble("contain.partial", text)
        if keep:
            self._held.put(now)
        else:
            undo = ""
            self._means.verdicts.clear(decision.actor)
        tree = self._means.trees[decision.tree]
        action = announced(ActionKind.CONTAIN, tree, decision.path, threat_id=now.threat_id, reason=text, undo=undo)
        self._held.record(action, Ended(action.id, outcome, text, undo), now if keep else None)
        self._means.tell.alert(Severity.CRITICAL, text, now.threat_id, decision.tree)
        log.critical("contained" if now.stopped else "not contained", threat=now.threat_id, stopped=len(now.stopped))
        if outcome is Outcome.FAILED:
            raise ShieldError("contain.denied", text)
        return now if keep else None

    def _over(self, held: Containment, state: Holding, sent: Sent, action: TakenAction, text: str) -> Containment:
        members = {x.member: x for x in held.members}
        members.update((x.member, described(x, members.get(x.member))) for x in sent.told)
        now = replace(held, state=state, changed_at_ns=time.time_ns(), note=text, members=tuple(members.values()))
        self._held.forget(held.threat_id)
        self._means.ledger.finish([Ended(action.id, Outcome.DONE, text, "")])
        self._means.holdings.save(now)
        self._means.tell.alert(Severity.HIGH, text, held.threat_id, held.tree)
        log.warning("containment over", threat=held.threat_id, state=state.value)
        return now

    def _intended(self, held: Containment, why: str) -> TakenAction:
        tree = self._means.trees[held.tree]
        action = announced(ActionKind.CONTAIN, tree, b"", threat_id=held.threat_id, reason=why)
        self._means.ledger.intend([action])
        return action

    def _or_failed(self, action: TakenAction, sent: Sent, wanted: Fate, verb: str) -> None:
        """Raise, with the record saying so, where nobody was reached: forbidden, or never to be touched."""
        fates = [x.fate for x in sent.told]
        kept = next((x for x in (Fate.DENIED, Fate.SPARED) if x in fates), None)
        if kept is not None and wanted not in fates:
            code = "contain.denied" if kept is Fate.DENIED else "contain.spared"
            error = ShieldError(code, f"{fates.count(kept)} processes could not be {verb}")
            self._means.ledger.finish([Ended(action.id, Outcome.FAILED, f"{error.code}: {error.message}", "")])
            raise error

    def _thaw(self, held: Containment) -> None:
        if not held.cgroup:
            return
        try:
            self._means.signals().thaw_group(held.cgroup)
        except ShieldError as error:
            self._means.tell.trouble(error.code, f"a control group stays frozen: {error.message}")

    def _release_at(self, tree: int) -> int:
        after_s = self._means.hold_s(tree)
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(after_s * 1e9) if after_s > 0 else 0
