"""Makes a plan: for each file that an actor touched, what is there now, what comes back, what stands against it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from shieldd.errors import ShieldError
from shieldd.model.event import Kind
from shieldd.model.restore import Act, Conflict, Found, Step, There, Wanted
from shieldd.model.version import Version
from shieldd.native.files import hidden_name
from shieldd.respond import GuardedTree
from shieldd.respond.restore_choice import Chosen, choose, key_of, opened
from shieldd.respond.restore_contract import History, Versions
from shieldd.respond.restore_look import look, missing_directories, same_content, same_dress
from shieldd.respond.restore_trails import Trail, Trails, above

SLACK_NS: Final = 2_000_000_000  # an event is read a moment after what it tells of
SEALED: Final = b".shield"
ORDER: Final = {act: place for place, act in enumerate(Act)}


@dataclass(frozen=True, slots=True)
class _File:
    """One trail with what was found out about it."""

    trail: Trail
    path: bytes  # where it belongs
    found: Found
    there: There | None


class Planner:
    """Makes the steps of one plan."""

    def __init__(self, tree: GuardedTree, versions: Versions, history: History, trails: Trails) -> None:
        self._tree = tree
        self._versions = versions
        self._history = history
        self._trails = trails
        self._places = {trail.place: trail for trail in trails.files if trail.place is not None}
        self._last: dict[int, int] = {}  # inode -> the actor's last touch of it, under whatever name
        for place, trail in self._places.items():
            there = look(tree.root_fd, place)[1]
            if there is not None:
                self._last[there.ino] = max(self._last.get(there.ino, 0), trail.last_ns)

    def steps(self) -> list[Step]:
        """All steps in the order in which they are done, numbered."""
        moves = list(self._directory_moves())
        undone = {step.other for step in moves if step.conflict is not Conflict.NONE}
        # a directory that will not get its name back keeps it, with all that is in it
        self._trails.moved = [pair for pair in self._trails.moved if pair[1] not in undone]
        were = self._were_there()
        origins = [trail for trail in self._trails.files if id(trail) in were]
        found: list[tuple[Step, Version | None]] = []
        # what came while the actor was at work and nobody is named for may be anybody's: it stays
        planted = [trail for trail in self._trails.files if id(trail) not in were and trail.named]
        for trail in origins:
            step, version = self._origin(trail)
            if not trail.named:
                step = replace(step, text=f"{step.text} (nobody is named for what was done to it during the attack)")
            found.append((step, version))
            if trail.place is not None and trail.named and step.act in (Act.COPY, Act.LINK) and self._elsewhere(trail):
                planted.append(trail)
        files = self._twins(found)
        # what lies where a version comes back is replaced by it, and preserved first; what has come back stays
        back = (Act.COPY, Act.LINK, Act.TWIN)
        taken = {step.path for step in files if step.act in back or step.found is Found.SAME}
        away = (x for trail in planted for x in self._planted(trail) if x.path not in taken)
        steps = [*files, *moves, *away]
        steps += self._directories(steps)
        steps.sort(key=lambda step: ORDER[step.act])
        return [replace(step, number=number, hidden=hidden_name()) for number, step in enumerate(steps)]

    # what was there before
    def _were_there(self) -> set[int]:
        """Which names stood for a file before the actor; of those that it may have made, vault and history tell."""
        sure = {id(trail) for trail in self._trails.files if trail.sure and trail.origin is not None}
        asked: dict[bytes, tuple[Trail, int]] = {}
        for trail in self._trails.files:
            if trail.origin is not None and not trail.sure:
                limit = trail.content_ns or trail.first_ns
                known = [
                    x.at_ns for x in self._versions.versions_of(self._tree.index, trail.origin) if x.at_ns <= limit
                ]
                if known:
                    asked[trail.origin] = (trail, max(known))
        if not asked:
            return sure
        since, until = min(at for _, at in asked.values()), max(trail.first_ns for trail, _ in asked.values())
        gone: dict[bytes, bool] = {}
        for touch in self._history.touches(self._tree.index, since, until):
            for path in (touch.path, touch.from_path):
                if path in asked and touch.at_ns < asked[path][0].first_ns and touch.at_ns > asked[path][1]:
                    gone[path] = path == touch.from_path or touch.kind is Kind.DELETE
        return sure | {id(trail) for path, (trail, _) in asked.items() if not gone.get(path)}

    def _elsewhere(self, trail: Trail) -> bool:
        return trail.place is not None and self._trails.before(trail.place) != trail.origin

    def _product(self, trail: Trail) -> bytes:
        """Where the actor left the file, if not under its own name."""
        return self._trails.before(trail.place) if trail.place is not None and self._elsewhere(trail) else b""

    def _look(self, path: bytes) -> tuple[Found, There | None]:
        """What stands under a name that is meant as of after the directories have theirs back."""
        return look(self._tree.root_fd, self._trails.now(path))

    # one file
    def _origin(self, trail: Trail) -> tuple[Step, Version | None]:
        assert trail.origin is not None
        found, there = self._look(trail.origin)
        file = _File(trail, trail.origin, found, there)
        chosen = choose(self._versions, self._tree.index, trail, there.ino if there else 0)
        moved = self._moved(file, chosen)
        if moved is not None:
            return moved, chosen.version if chosen else None
        if chosen is None:
            return self._lost(file), None
        return self._back(file, chosen), chosen.version

    def _moved(self, file: _File, chosen: Chosen | None) -> Step | None:
        """The file itself, whole, under another name: it gets its own back."""
        trail = file.trail
        if trail.wrote or not self._elsewhere(trail) or trail.place is None or file.found is not Found.MISSING:
            return None
        at, there = look(self._tree.root_fd, trail.place)
        if at is not Found.CHANGED or there is None or self._since(trail.place, there, trail):
            return None
        if chosen is not None and there.ino != chosen.version.ino:
            return None
        if there.mtime_ns > trail.first_ns:
            return None
        now = self._trails.before(trail.place)
        text = f"was renamed to {_shown(now)} and not changed; gets its name back"
        wanted = chosen.wanted if chosen else None
        return self._step(file, Act.MOVE, text, chosen, other=now, there=there, wanted=wanted)

    def _lost(self, file: _File) -> Step:
        trail, found = file.trail, file.found
        if not trail.wrote and trail.content_ns == 0 and found is Found.CHANGED and not self._elsewhere(trail):
            text = "owner, mode or attributes were touched, the content was not; what they were is not known"
            return self._step(file, Act.NOTHING, text, None)
        left = f"; what the actor left of it stays at {_shown(trail.place)}" if trail.place is not None else ""
        return self._step(file, Act.NOTHING, f"lost: no version of it was preserved{left}", None, lost=True)

    def _back(self, file: _File, chosen: Chosen) -> Step:
        if file.found is Found.MISSING:
            return self._back_to_nothing(file, chosen)
        if file.found is Found.WAY:
            text = "no way there that is free of links: a directory above it is a link, a file or a mount now"
            return self._step(file, Act.COPY, text, chosen, conflict=Conflict.WAY)
        act = Act.LINK if chosen.relink and file.there and file.there.ino != chosen.version.ino else Act.COPY
        if file.found is not Found.CHANGED or file.there is None:
            names = {Found.LINK: "a symbolic link", Found.DIRECTORY: "a directory", Found.SPECIAL: "a special file"}
            text = f"{names[file.found]} has its name now; left alone unless asked for by name, then set aside"
            return self._step(file, act, text, chosen, conflict=Conflict.OTHER_TYPE)
        if self._is_same(file.path, chosen):
            return self._dress(replace(file, found=Found.SAME), chosen)
        conflict = self._conflict(file, chosen)
        if conflict is Conflict.NONE:
            return self._step(file, act, "the version of before takes its place; what is there is preserved", chosen)
        by = "another owner's file has its name now" if conflict is Conflict.OTHER_OWNER else "changed by somebody else"
        text = f"{by} since; left alone unless asked for by name, then set aside as NAME.before-restore"
        return self._step(file, act, text, chosen, conflict=conflict)

    def _back_to_nothing(self, file: _File, chosen: Chosen) -> Step:
        act = Act.LINK if chosen.relink else Act.COPY
        if file.path + SEALED not in self._trails.others and file.path + SEALED not in self._places:
            sealed, _ = self._look(file.path + SEALED)
            if sealed is Found.CHANGED:
                text = "its sealed form lies beside it; left alone unless asked for by name"
                return self._step(file, act, text, chosen, conflict=Conflict.SEALED)
        return self._step(file, act, "is gone; the version of before comes back", chosen)

    def _dress(self, file: _File, chosen: Chosen) -> Step:
        if same_dress(self._tree.root_fd, self._trails.now(file.path), chosen.wanted):
            return self._step(file, Act.NOTHING, "is as it was", chosen)
        text = "its content is as it was; owner, mode, times and attributes come back"
        conflict = Conflict.NONE
        if file.there is not None and self._since(self._trails.now(file.path), None, file.trail):
            conflict, text = (
                Conflict.CHANGED_SINCE,
                "touched by somebody else since; left alone unless asked for by name",
            )
        return self._step(file, Act.DRESS, text, chosen, conflict=conflict)

    def _is_same(self, path: bytes, chosen: Chosen) -> bool:
        try:
            with opened(self._versions, chosen.version, self._trails.now(path)) as fd:
                return same_content(self._tree.root_fd, self._trails.now(path), chosen.wanted, fd)
        except ShieldError:
            return False

    def _conflict(self, file: _File, chosen: Chosen) -> Conflict:
        assert file.there is not None
        now = self._trails.now(file.path)
        product = self._places.get(now)
        if product is not None and not self._since(now, file.there, product):
            return Conflict.NONE
        return Conflict.OTHER_OWNER if file.there.uid != chosen.wanted.uid else Conflict.CHANGED_SINCE

    def _since(self, place: bytes, there: There | None, trail: Trail) -> bool:
        """Whether somebody else touched what the actor left there."""
        if self._trails.others.get(place, 0) >= trail.first_ns:
            return True
        return there is not None and there.mtime_ns > self._last.get(there.ino, trail.last_ns) + SLACK_NS

    # what the actor made
    def _planted(self, trail: Trail) -> Iterator[Step]:
        if trail.place is None:
            return
        found, there = look(self._tree.root_fd, trail.place)
        if found is Found.MISSING or there is None:
            return
        file = _File(trail, self._trails.before(trail.place), found, there)
        if found is not Found.CHANGED:
            yield self._step(file, Act.NOTHING, "made by the actor; is no regular file, left alone", None)
        elif self._since(trail.place, there, trail):
            text = "made by the actor and changed by somebody else since; left alone unless asked for by name"
            yield self._step(file, Act.QUARANTINE, text, None, conflict=Conflict.CHANGED_SINCE)
        else:
            yield self._step(file, Act.QUARANTINE, "made by the actor; goes to quarantine", None)

    # directories and other names
    def _directory_moves(self) -> Iterator[Step]:
        """Directories that were renamed, the last first."""
        for old, new in reversed(self._trails.moved):
            at, there = look(self._tree.root_fd, new)
            if at is not Found.DIRECTORY or there is None:
                continue
            found, _ = look(self._tree.root_fd, old)
            conflict = Conflict.NONE if found is Found.MISSING else Conflict.OTHER_TYPE
            text = f"directory was renamed to {_shown(new)}; gets its name back"
            if conflict is not Conflict.NONE:
                text = f"directory was renamed to {_shown(new)}, and its name is taken; left where it is"
            file = _File(Trail(old, True, new, 0, 0), old, found, there)
            yield self._step(file, Act.MOVE, text, None, other=new, there=there, conflict=conflict)

    def _directories(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Directories that are needed or were removed, and are gone."""
        files = (x for x in steps if x.act in (Act.COPY, Act.LINK, Act.TWIN, Act.MOVE))
        wanted = dict.fromkeys(part for step in files for part in above(step.path))
        coming = {step.path for step in steps if step.act is Act.MOVE}
        names = [x for x in (*wanted, *sorted(self._trails.removed)) if not any(_within(x, y) for y in coming)]
        for path in missing_directories(self._tree.root_fd, names):
            file = _File(Trail(path, True, None, 0, 0), path, Found.MISSING, None)
            text = "directory is gone; made anew, with owner and mode of the one above it"
            yield self._step(file, Act.DIRECTORY, text, None)

    def _twins(self, found: list[tuple[Step, Version | None]]) -> list[Step]:
        """Files that were one inode with several names become one again; names that nobody touched are found."""
        first: dict[int, Step] = {}
        out: list[Step] = []
        for step, version in found:
            shared = version is not None and version.nlink > 1 and step.act in (Act.COPY, Act.LINK)
            if not shared or version is None:
                out.append(step)
            elif version.ino in first:
                one = first[version.ino]
                text = f"another name of {_shown(one.path)}; becomes one file with it again"
                twin = replace(step, version=one.version, at_ns=one.at_ns, wanted=one.wanted)
                out.append(replace(twin, act=Act.TWIN, other=one.path, text=text))
            else:
                first[version.ino] = step
                out.append(step)
        planned = {step.path for step in out}
        touched = {x.there.ino: x for x in first.values() if x.there is not None and x.act is Act.COPY}
        for path, there in self._other_names(touched, planned):
            one = touched[there.ino]
            text = f"another name of {_shown(one.path)}; becomes one file with it again"
            out.append(replace(one, path=path, act=Act.TWIN, other=one.path, there=there, text=text))
        return out

    def _other_names(self, inodes: dict[int, Step], planned: set[bytes]) -> Iterator[tuple[bytes, There]]:
        if not inodes:
            return
        for top, _, names, fd in os.fwalk(b".", dir_fd=self._tree.root_fd, follow_symlinks=False):
            for name in names:
                path = os.path.normpath(os.path.join(top, name))
                if path in planned:
                    continue
                seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
                one = inodes.get(seen.st_ino)
                if one is not None and one.there is not None and one.there.dev == seen.st_dev:
                    yield path, one.there

    def _step(
        self,
        file: _File,
        act: Act,
        text: str,
        chosen: Chosen | None,
        *,
        conflict: Conflict = Conflict.NONE,
        lost: bool = False,
        other: bytes = b"",
        there: There | None = None,
        wanted: Wanted | None = None,
    ) -> Step:
        return Step(
            number=0,
            tree=self._tree.index,
            path=file.path,
            act=act,
            found=file.found,
            conflict=conflict,
            lost=lost,
            version=key_of(chosen.version) if chosen else "",
            at_ns=chosen.version.at_ns if chosen else 0,
            other=other or (self._product(file.trail) if act is Act.COPY else b""),
            wanted=wanted or (chosen.wanted if chosen else None),
            there=there or file.there,
            text=text,
        )


def _within(path: bytes, above_it: bytes) -> bool:
    return path == above_it or path.startswith(above_it + b"/")


def _shown(path: bytes | None) -> str:
    return repr(os.fsdecode(path or b"").encode("utf-8", "backslashreplace").decode())
