"""Records that wait for the consumer: one per path, in the order of first events; the twin of `pending.rs`.

A later event of a path merges into its record. A rename carries the record along, unless something later has already
touched the new name: then the record stays and a new one follows, so that reading in order gives the true end state.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shieldd.model.event import EventFlag, Kind

Place = tuple[int, bytes]
"""Id of a directory, last name in it."""


@dataclass(slots=True)
class Record:
    """One event in the making; the fields are those of `EVENT`, with names instead of offsets."""

    at_ns: int
    mono_ns: int
    tree: int
    kind: Kind
    path: bytes
    place: Place
    old_path: bytes = b""
    old_place: Place = (0, b"")
    merged: int = 1
    ops: int = 0
    flags: int = 0
    held: bool = False
    epoch: int = 0

    def __post_init__(self) -> None:
        self.ops |= 1 << self.kind


@dataclass(slots=True)
class Records:
    """The queue.

    Attributes:
        capacity: records kept at most; the owner asks `full` before it adds.
    """

    capacity: int
    records: list[Record] = field(default_factory=list)
    epoch: int = 0
    _touched: dict[Place, Record] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether another record would cross the limit."""
        return len(self.records) >= self.capacity

    def live(self, place: Place) -> Record | None:
        """The file's record that may still take events, None where there is none."""
        record = self._touched.get(place)
        if record is None or record.place != place or record.kind > Kind.ATTRIB or record.epoch != self.epoch:
            return None
        return record

    def touched(self, place: Place) -> bool:
        """Whether anything waits that concerns the name."""
        return place in self._touched

    def add(self, record: Record) -> None:
        """Append a record; later events of its name find it."""
        record.epoch = self.epoch
        self.records.append(record)
        self._touched[record.place] = record
        if record.old_path:
            self._touched[record.old_place] = record

    def merge(self, record: Record, kind: Kind, *, held: bool | None) -> None:
        """One more operation on a file's record."""
        record.ops |= 1 << kind
        record.merged += 1
        if held is not None:
            record.held = held
        if kind in (Kind.CREATE, Kind.DELETE) or (kind is Kind.WRITE and record.kind is Kind.ATTRIB):
            record.kind = kind

    def carry(self, record: Record, path: bytes, place: Place) -> None:
        """Take a record that has no older name along to its new one; the caller has seen that nothing touched it."""
        record.old_path, record.old_place = record.path, record.place
        record.path, record.place = path, place
        record.kind = Kind.RENAME
        record.ops |= 1 << Kind.RENAME
        record.merged += 2
        self._touched[record.old_place] = record
        self._touched[place] = record

    def barrier(self) -> None:
        """Nothing that comes later merges with what is here."""
        self.epoch += 1

    def due_in(self, now_ns: int, hold_ns: int) -> int | None:
        """Nanoseconds until a record is due, 0 where one is, None where there is no record."""
        if not self.records:
            return None
        return min(max(0, hold_ns - (now_ns - r.mono_ns)) if r.held else 0 for r in self.records)

    def take(self, now_ns: int, hold_ns: int) -> list[Record]:
        """Take out what is due; files still open for writing wait `hold_ns` for their writer."""
        due = [r for r in self.records if not r.held or now_ns - r.mono_ns >= hold_ns]
        kept = [r for r in self.records if r.held and now_ns - r.mono_ns < hold_ns]
        self.records = []
        self._touched = {}
        for record in kept:
            epoch = record.epoch
            self.add(record)
            record.epoch = epoch
        for record in due:
            if record.held:
                record.flags |= EventFlag.OPEN
        return due


@dataclass(slots=True)
class _Announced:
    left: dict[Kind, int]
    until_ns: int
    last: int | None = None  # where in the kernel's queue the last of it is at most; None while the act goes on

    def is_over(self, now_ns: int, at: int) -> bool:
        """Its time has passed, and all that the kernel had queued of it was read, however late that was."""
        return self.until_ns <= now_ns and (self.last is None or self.last <= at)


class Announcements:
    """Own operations that are not reported; the twin of `expect.rs`."""

    LIMIT = 65_536

    def __init__(self) -> None:
        self._paths: dict[tuple[int, bytes], _Announced] = {}
        self.dropped = 0

    def add(self, tree: int, path: bytes, kinds: int, count: int, until_ns: int, now_ns: int) -> None:
        """Announce `count` operations of each kind in `kinds` on a path."""
        if len(self._paths) >= self.LIMIT:
            self._paths = {key: a for key, a in self._paths.items() if a.until_ns > now_ns}
        if len(self._paths) >= self.LIMIT:
            del self._paths[min(self._paths, key=lambda key: self._paths[key].until_ns)]
        entry = self._paths.setdefault((tree, path), _Announced({}, until_ns))
        if entry.until_ns <= now_ns and entry.last is None:
            entry.left.clear()
        entry.until_ns, entry.last = max(entry.until_ns, until_ns), None
        for kind in Kind:
            if kinds & (1 << kind):
                entry.left[kind] = entry.left.get(kind, 0) + count

    def end(self, tree: int, path: bytes, until_ns: int, last: int) -> None:
        """The act on a path is over; what is queued of it (up to `last`) may come, also after `until_ns`."""
        if known := self._paths.get((tree, path)):
            known.until_ns, known.last = min(known.until_ns, until_ns), last

    def takes(
        self, tree: int, path: bytes, kinds: tuple[Kind, ...], now_ns: int, at: int, *, ends: bool = True
    ) -> bool:
        """Whether this operation was announced; `ends` counts it off. `at`: where in the queue its read began."""
        entry = self._paths.get((tree, path))
        if entry is None:
            return False
        if entry.is_over(now_ns, at):
            del self._paths[tree, path]
            return False
        kind = next((k for k in kinds if entry.left.get(k, 0) > 0), None)
        if kind is None:
            return False
        if ends and kind is not Kind.ATTRIB:
            entry.left[kind] -= 1
        self.dropped += 1
        if not any(entry.left.values()):
            del self._paths[tree, path]
        return True
