"""What an actor did to each file, followed through every name that it gave it.

Pure: takes the events in order, decides nothing about what comes back. A file's trail begins with the first thing that
the actor did to it and ends where it left it. Directories that were renamed carry what is in them along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from shieldd.model.event import Kind


class Touch(Protocol):
    """One event of the history: wall clock ns, what, where, by whom. `from_path` is empty but for renames."""

    @property
    def at_ns(self) -> int: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def path(self) -> bytes: ...
    @property
    def from_path(self) -> bytes: ...
    @property
    def actor(self) -> int: ...


@dataclass(slots=True, eq=False)
class Trail:
    """One file from the actor's first touch to its last.

    Attributes:
        origin: its name before the actor; None where the actor made it.
        sure: whether it was there before for certain; otherwise only a version can say so.
        place: where the actor left it, None where it is gone.
        names: every name that it had, the first first.
        wrote: whether its content was touched; dressed_ns: first touch of its attributes, 0 for none.
        first_ns, last_ns: first and last touch; `content_ns`: first one that ended the content of before.
        named: whether the actor was named for any of it; else it happened while it was at work, and nobody was.
    """

    origin: bytes | None
    sure: bool
    place: bytes | None
    first_ns: int
    last_ns: int
    wrote: bool = False
    dressed_ns: int = 0
    content_ns: int = 0
    names: list[bytes] = field(default_factory=list)
    named: bool = True

    def ended(self, at_ns: int) -> None:
        """Its content of before is no more from then on."""
        self.content_ns = self.content_ns or at_ns


@dataclass(slots=True)
class Trails:
    """All that an actor did in a tree, and when anybody else last touched a name since."""

    files: list[Trail] = field(default_factory=list)
    moved: list[tuple[bytes, bytes]] = field(default_factory=list)  # directories: old name, new name
    removed: list[bytes] = field(default_factory=list)  # directories
    others: dict[bytes, int] = field(default_factory=dict)
    _at: dict[bytes, Trail] = field(default_factory=dict)
    _claimed: set[bytes] = field(default_factory=set)
    _made: set[bytes] = field(default_factory=set)
    _named: bool = True

    def before(self, path: bytes) -> bytes:
        """The name that a path had before the actor renamed directories above it."""
        for old, new in reversed(self.moved):
            path = _rebased(path, new, old)
        return path

    def now(self, path: bytes) -> bytes:
        """The name that a path of before has while those directories have their new names."""
        for old, new in self.moved:
            path = _rebased(path, old, new)
        return path

    def _trail(self, touch: Touch, path: bytes, *, sure: bool) -> Trail:
        trail = self._at.get(path)
        if trail is None:
            origin: bytes | None = self.before(path)
            if origin in self._claimed or origin is None:
                origin = None
            else:
                self._claimed.add(origin)
            trail = Trail(origin, sure, path, touch.at_ns, touch.at_ns, names=[path], named=False)
            self.files.append(trail)
            self._at[path] = trail
        trail.named |= self._named
        trail.last_ns = max(trail.last_ns, touch.at_ns)
        return trail

    def _leave(self, trail: Trail) -> None:
        if trail.place is not None:
            self._at.pop(trail.place, None)
        trail.place = None

    def take(self, touch: Touch, *, named: bool = True) -> None:
        """One thing that the actor did, or that was done while it was at work and nobody is named for."""
        self._named = named
        match touch.kind:
            case Kind.CREATE | Kind.WRITE:
                trail = self._trail(touch, touch.path, sure=touch.kind is Kind.WRITE)
                trail.wrote = True
                trail.ended(touch.at_ns)
            case Kind.ATTRIB:
                trail = self._trail(touch, touch.path, sure=True)
                trail.dressed_ns = trail.dressed_ns or touch.at_ns
            case Kind.DELETE:
                trail = self._trail(touch, touch.path, sure=True)
                trail.ended(touch.at_ns)
                self._leave(trail)
            case Kind.RENAME:
                self._rename(touch)
            case Kind.MAKE_DIR:
                self._made.add(touch.path)
            case Kind.REMOVE_DIR:
                if touch.path not in self._made:
                    self.removed.append(self.before(touch.path))
            case Kind.RENAME_DIR if touch.from_path:
                self._rename_dir(touch.from_path, touch.path)

    def _rename(self, touch: Touch) -> None:
        replaced = self._trail(touch, touch.path, sure=False)
        replaced.ended(touch.at_ns)
        self._leave(replaced)
        if not touch.from_path:
            # It came from outside the tree: made here, as far as this tree goes.
            trail = Trail(None, True, touch.path, touch.at_ns, touch.at_ns, wrote=True, names=[touch.path])
            trail.named = self._named
            self.files.append(trail)
        else:
            trail = self._trail(touch, touch.from_path, sure=True)
            self._at.pop(touch.from_path, None)
            trail.place = touch.path
            trail.names.append(touch.path)
        self._at[touch.path] = trail

    def _rename_dir(self, old: bytes, new: bytes) -> None:
        for path in [path for path in self._at if path.startswith(old + b"/")]:
            trail = self._at.pop(path)
            trail.place = _rebased(path, old, new)
            trail.names.append(trail.place)
            self._at[trail.place] = trail
        if old in self._made:
            self._made.discard(old)
            self._made.add(new)
        else:
            self.moved.append((old, new))

    def opened(self, copies: Iterable[tuple[bytes, int]]) -> None:
        """Copies that were made before the actor's writes, name and moment: they tell where no event does.

        Where one event stands for a write and what came after it (a rename), they tell of the write and its moment.
        """
        known = {trail.origin: trail for trail in self.files}
        names = {name for trail in self.files for name in trail.names}
        for path, at_ns in copies:
            origin = self.before(path)
            trail = known.get(origin)
            if trail is not None and path == trail.names[0]:
                trail.wrote = True
                trail.content_ns = min(trail.content_ns or at_ns, at_ns)
            elif path not in names:
                trail = Trail(origin, True, path, at_ns, at_ns, wrote=True, content_ns=at_ns, names=[path])
                self.files.append(trail)
                self._claimed.add(origin)
                known[origin] = trail
                names.add(path)

    def somebody(self, touch: Touch) -> None:
        """One thing that anybody else did since the actor began."""
        for path in (touch.path, touch.from_path):
            if path:
                self.others[path] = max(self.others.get(path, 0), touch.at_ns)


def follow(
    touches: Iterable[Touch], actor: int, *, since_ns: int, until_ns: int, unnamed: tuple[int, int, int] | None = None
) -> Trails:
    """Follow an actor.

    Args:
        touches: all events of the tree in their order, whoever caused them, at least from `since_ns` on.
        since_ns, until_ns: the actor's time; later events with its key are somebody else's (a tree's own key stands
            for whoever works in it).
        unnamed: where the actor is a process: the tree's own key, and from when to when what nobody is named for counts
            as its doing. A process that lives for one file can end before the kernel's word of it is read.
    """
    trails = Trails()
    for touch in touches:
        if touch.actor == actor and since_ns <= touch.at_ns <= until_ns:
            trails.take(touch)
        elif unnamed and touch.actor == unnamed[0] and unnamed[1] <= touch.at_ns <= unnamed[2] and _is_of_one(touch):
            trails.take(touch, named=False)
        elif touch.at_ns >= since_ns:
            trails.somebody(touch)
    return trails


def _is_of_one(touch: Touch) -> bool:
    """Whether it happened to one file or to an empty directory: others' directories are not given back names."""
    return touch.kind is not Kind.RENAME_DIR


def above(path: bytes) -> Iterator[bytes]:
    """The directories that a path lies in, outermost first; not the root."""
    parts = path.split(b"/")[:-1]
    for count in range(1, len(parts) + 1):
        yield b"/".join(parts[:count])


def _rebased(path: bytes, old: bytes, new: bytes) -> bytes:
    """A path with one directory above it (or itself) under another name."""
    if path == old or path.startswith(old + b"/"):
        return new + path[len(old) :]
    return path
