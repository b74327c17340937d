"""Does what a plan says, so that it may be cut off anywhere and gone on with.

Of each group of steps the intent is on the disk before anything is touched and the result after. A step that has an
intent and no result was cut off: what it left under its hidden name is finished or taken away, and the step is looked
at anew. Each file is replaced in one exchange of names, checked before and after; nothing is ever without a version.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Final

from shieldd.errors import ShieldError
from shieldd.model.decision import ActionKind, Outcome
from shieldd.model.event import Kind
from shieldd.model.incident import TakenAction
from shieldd.model.restore import Act, Conflict, Found, Plan, PlanState, Step
from shieldd.native import files, restore
from shieldd.native.restore import How, Item, Over, Restored
from shieldd.respond import Ended, GuardedTree, Ledger, Notice, announced, announced_to, failed, still_there
from shieldd.respond.quarantine import Quarantine
from shieldd.respond.restore_choice import of_key, opened
from shieldd.respond.restore_contract import Journal, Versions
from shieldd.respond.restore_look import look, same_content, same_dress

GROUP: Final = 128  # files of one commit: as many versions are open at once
AWAY_THREADS: Final = 16  # into quarantine at once: one alone does some 90 files/s, sixteen some 1,000
OURS: Final = 1 << Kind.CREATE | 1 << Kind.WRITE | 1 << Kind.RENAME | 1 << Kind.ATTRIB | 1 << Kind.DELETE
HOWS: Final = {
    Act.COPY: How.COPY, Act.LINK: How.LINK, Act.MOVE: How.MOVE_BACK, Act.TWIN: How.TWIN, Act.DRESS: How.DRESS
}  # fmt: skip
TOLD: Final = "left alone; name it with --take to set aside what is there"


class Run:
    """One run of one plan."""

    def __init__(
        self,
        plan: Plan,
        tree: GuardedTree,
        versions: Versions,
        journal: Journal,
        ledger: Ledger,
        notice: Notice,
        quarantine: Quarantine,
        *,
        actor: int,
        why: str,
        known: Callable[[GuardedTree, bytes], None],
    ) -> None:
        """Args:
        actor: key of the actor, noted with what is replaced.
        why: who asked, for the record.
        known: told of each file that is there again.
        """
        self._plan = plan
        self._tree = tree
        self._versions = versions
        self._journal = journal
        self._ledger = ledger
        self._notice = notice
        self._quarantine = quarantine
        self._actor = actor
        self._why = why
        self._known = known

    def steps(self, take: Callable[[Step], bool]) -> Iterator[Step]:
        """Do all steps that have no result; each comes out with its result.

        Args:
            take: whether a file that stands against its step was asked for by name.
        """
        still_there(self._tree)
        self._journal.mark(self._plan.id, PlanState.RUNNING)
        begun = self._journal.begun(self._plan.id)
        for group in self._groups():
            todo = [step for step in group if step.outcome is Outcome.PENDING]
            decided = [self._decided(step, take) for step in todo]
            over = [step for step in decided if step.outcome is not Outcome.PENDING]
            if over:
                self._journal.result(self._plan.id, over)
            yield from over
            yield from self._do([step for step in decided if step.outcome is Outcome.PENDING], begun)
        self._journal.mark(self._plan.id, PlanState.DONE)

    def _groups(self) -> Iterator[list[Step]]:
        """Steps of one act, at most a group's worth."""
        after = -1
        while True:
            page = list(self._journal.steps(self._plan.id, after=after, limit=GROUP))
            if not page:
                return
            after = page[-1].number
            for act in Act:
                same = [step for step in page if step.act is act]
                if same:
                    yield same

    def _decided(self, step: Step, take: Callable[[Step], bool]) -> Step:
        """A step with what a person said of it, or skipped."""
        if step.act is Act.NOTHING:
            return replace(step, outcome=Outcome.SKIPPED, reason=step.text)
        if step.conflict is Conflict.NONE or step.aside:
            return step  # nothing against it, or it was asked for in a run that was cut off
        if step.conflict is Conflict.WAY or step.act is Act.MOVE or not take(step):
            told = TOLD if step.conflict is not Conflict.WAY and step.act is not Act.MOVE else "nothing was done"
            return replace(step, outcome=Outcome.SKIPPED, reason=f"{step.conflict.value}: {told}")
        return replace(step, aside=step.found is not Found.MISSING)

    def _do(self, steps: list[Step], begun: set[int]) -> Iterator[Step]:
        if not steps:
            return
        done, steps = self._cut_off(steps, begun)
        yield from done
        if not steps:
            return
        if steps[0].act is Act.QUARANTINE:
            yield from self._away(steps)
            return
        actions = [self._action(step) for step in steps]
        self._ledger.intend(actions)
        steps = [self._kept(step) for step in steps]
        self._journal.intend(self._plan.id, steps)
        with announced_to(self._notice, self._tree, {x.path: OURS for x in steps} | self._others(steps)):
            ended = [self._made(step) for step in steps] if steps[0].act is Act.DIRECTORY else self._brought(steps)
        self._close(ended, actions)
        yield from ended

    def _others(self, steps: Sequence[Step]) -> dict[bytes, int]:
        return {x.other: OURS for x in steps if x.act is Act.MOVE}

    def _close(self, ended: Sequence[Step], actions: Sequence[TakenAction]) -> None:
        """Results: the journal first, since it is what a run goes on from."""
        self._journal.result(self._plan.id, ended)
        back = [x.path for x in ended if x.outcome is Outcome.DONE and x.act in HOWS and not _is_directory(x)]
        self._versions.came_back(self._tree.index, back)
        for path in back:
            self._known(self._tree, path)
        self._ledger.finish([_ended(action, step) for action, step in zip(actions, ended, strict=True)])

    def _action(self, step: Step) -> TakenAction:
        reason = f"{self._why}; plan {self._plan.id}: {step.act.value}"
        return announced(ActionKind.RESTORE, self._tree, step.path, threat_id=self._plan.threat_id, reason=reason)

    # what a crash left
    def _cut_off(self, steps: list[Step], begun: set[int]) -> tuple[list[Step], list[Step]]:
        """Steps that had begun before: finished ones with their result, and those that are to be done (again)."""
        again = [step for step in steps if step.number in begun]
        if not again:
            return [], steps
        over = [step for step in again if step.act in HOWS and step.hidden]
        asides = dict(zip([x.number for x in over], self._tidied(over), strict=True))
        done: list[Step] = []
        for step in again:
            left = asides.get(step.number, b"")
            if isinstance(left, ShieldError):
                done.append(_failed(step, left))
            elif self._is_there(step):
                done.append(self._dressed(_done(step, left, "finished before it was cut off")))
        if done:
            self._journal.result(self._plan.id, done)
            numbers = {step.number for step in done}
            steps = [step for step in steps if step.number not in numbers]
        return done, steps

    def _tidied(self, steps: Sequence[Step]) -> list[bytes | ShieldError]:
        items = [replace(self._item(step, -1), how=How.TIDY) for step in steps]
        answers = restore.run(self._tree.root_fd, items)
        # no directory any more, or no way there: then nothing of ours is there either
        return [
            answer.aside if isinstance(answer, Restored) else answer if answer.code == "file.race" else b""
            for answer in answers
        ]

    def _is_there(self, step: Step) -> bool:
        """Whether a step that was cut off had come to its end."""
        try:
            if step.act is Act.QUARANTINE:
                return look(self._tree.root_fd, step.path)[0] is Found.MISSING
            found, there = look(self._tree.root_fd, step.path)
            if step.act is Act.DIRECTORY or found is Found.DIRECTORY:
                return found is Found.DIRECTORY
            if step.act is Act.MOVE:
                return there is not None and step.there is not None and there.ino == step.there.ino
            if found is not Found.CHANGED or step.wanted is None or there is None:
                return False
            if step.act is Act.TWIN:
                _, one = look(self._tree.root_fd, step.other)
                return one is not None and one.ino == there.ino
            if not same_dress(self._tree.root_fd, step.path, step.wanted):
                return False
            with self._version(step) as fd:
                return same_content(self._tree.root_fd, step.path, step.wanted, fd)
        except ShieldError:
            return False

    # the acts
    def _kept(self, step: Step) -> Step:
        """What is replaced is preserved first; where that fails, it is set aside beside the file instead."""
        replaces = step.act in (Act.COPY, Act.LINK, Act.TWIN) and step.there is not None and not step.aside
        if not replaces or step.found is Found.MISSING:
            return step
        try:
            self._versions.keep(self._tree.index, step.path, actor=self._actor)
        except ShieldError:
            return replace(step, aside=True)
        return step

    def _item(self, step: Step, version_fd: int) -> Item:
        over = Over.NOTHING
        if step.act in (Act.COPY, Act.LINK, Act.TWIN) and step.found is not Found.MISSING and step.there is not None:
            over = Over.ASIDE if step.aside else Over.DROP
        return Item(
            path=step.path,
            how=HOWS[step.act],
            over=over,
            hidden=step.hidden,
            wanted=step.wanted or restore.NOTHING,
            there=step.there,
            other=step.other,
            version_fd=version_fd,
        )

    def _brought(self, steps: Sequence[Step]) -> list[Step]:
        out: dict[int, Step] = {}
        with ExitStack() as held:
            ready: list[Step] = []
            items: list[Item] = []
            for step in steps:
                try:
                    items.append(self._item(step, self._source(step, held)))
                    ready.append(step)
                except ShieldError as error:
                    out[step.number] = _failed(step, error)
            for step, answer in zip(ready, restore.run(self._tree.root_fd, items), strict=True):
                if isinstance(answer, ShieldError):
                    out[step.number] = _failed(step, answer)
                    continue
                note = f"{answer.skipped} attributes could not be set" if answer.skipped else ""
                out[step.number] = self._dressed(_done(step, answer.aside, note))
        return [out[step.number] for step in steps]

    def _dressed(self, step: Step) -> Step:
        """A file that was moved back gets owner, mode and times of before too, where they are known."""
        if step.act is not Act.MOVE or step.wanted is None:
            return step
        item = replace(self._item(step, -1), how=How.DRESS)
        (answer,) = restore.run(self._tree.root_fd, [item])
        return _failed(step, answer) if isinstance(answer, ShieldError) else step

    def _version(self, step: Step) -> AbstractContextManager[int]:
        now = step.other if step.act is Act.COPY and step.other else step.path
        return opened(self._versions, of_key(self._versions, step.version), now)

    def _source(self, step: Step, held: ExitStack) -> int:
        """The version's content, -1 for an act that needs none; refuses another name of what did not come back."""
        if step.act in (Act.COPY, Act.LINK):
            return held.enter_context(self._version(step))
        if step.act is Act.TWIN and step.wanted is not None:
            _, there = look(self._tree.root_fd, step.other)
            if there is None or (there.size, there.mtime_ns) != (step.wanted.size, step.wanted.mtime_ns):
                raise ShieldError("restore.version", "its other name did not come back")
        return -1

    def _made(self, step: Step) -> Step:
        """A directory that was gone, with owner and mode of the one above it."""
        above, name = os.path.split(step.path)
        try:
            fd = files.open_beneath(self._tree.root_fd, above or b".", os.O_DIRECTORY)
        except ShieldError as error:
            return _failed(step, error)
        try:
            like = os.fstat(fd)
            os.mkdir(name, 0o700, dir_fd=fd)
            made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                os.fchown(made, like.st_uid, like.st_gid)
                os.fchmod(made, stat.S_IMODE(like.st_mode))
            finally:
                os.close(made)
            os.fsync(fd)
        except FileExistsError:
            return replace(step, outcome=Outcome.SKIPPED, reason="is there again")
        except OSError as error:
            full = "file.readonly" if error.errno == 30 else "file.full" if error.errno in (28, 122) else "file.io"
            return _failed(step, ShieldError(full, errno=error.errno, path=step.path))
        finally:
            os.close(fd)
        return _done(step, b"", "")

    def _away(self, steps: Sequence[Step]) -> Iterator[Step]:
        """What the actor made goes to quarantine, which records it; many at once, since each waits for the disk."""
        self._journal.intend(self._plan.id, steps)
        with ThreadPoolExecutor(AWAY_THREADS, "shieldd-restore") as pool:
            ended = list(pool.map(self._one_away, steps))
        self._journal.result(self._plan.id, ended)
        yield from ended

    def _one_away(self, step: Step) -> Step:
        inode = (step.there.dev, step.there.ino) if step.there else None
        why = f"made by the actor of incident {self._plan.threat_id}"
        try:
            held = self._quarantine.add(self._tree, step.path, threat_id=self._plan.threat_id, why=why, inode=inode)
        except ShieldError as error:
            if error.code == "file.missing":
                return replace(step, outcome=Outcome.SKIPPED, reason="is gone already")
            return _failed(step, error)
        return replace(step, outcome=Outcome.DONE, reason=f"shieldctl quarantine restore {held.id}")


def _is_directory(step: Step) -> bool:
    """Whether a whole directory got its name back."""
    return step.act is Act.MOVE and step.there is not None and stat.S_ISDIR(step.there.mode)


def _done(step: Step, aside: bytes, note: str) -> Step:
    text = note
    if aside:
        shown = os.fsdecode(aside).encode("utf-8", "backslashreplace").decode()
        text = f"what was there is beside it as {shown!r}" + (f"; {note}" if note else "")
    return replace(step, outcome=Outcome.DONE, reason=text)


def _failed(step: Step, error: ShieldError) -> Step:
    return replace(step, outcome=Outcome.FAILED, code=error.code, reason=error.message)


def _ended(action: TakenAction, step: Step) -> Ended:
    if step.outcome is Outcome.FAILED:
        return failed(action, ShieldError(step.code, step.reason))
    reason = f"{action.reason}; {step.reason}" if step.reason else action.reason
    return Ended(action.id, step.outcome, reason, action.undo)
