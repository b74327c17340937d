"""A pretended guarded tree: files, a clock, and the events and facts that acts on them leave behind.

An act on a name that another actor took away does nothing. Every other act appends one row to `EVENT` and one to
`FACTS`, filled as a watcher and an inspector would fill them, and one row of truth that only the trainer sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import numpy as np

from shieldd.errors import ShieldError
from shieldd.learn.content import FORMATS, Content, Generator, plain
from shieldd.model.event import EVENT, FACTS, EventFlag, FactFlag, Kind

PHI: Final = FactFlag.PHI_DICOM | FactFlag.PHI_HL7 | FactFlag.PHI_FHIR | FactFlag.PHI_TEXT
MASK64: Final = (1 << 64) - 1
CORE_NAMES: Final = {"log": "text", "source": "script", "encrypted": "openssl", "encoded": "base64"}
_EXT_OF: Final = {form.extension: kind for kind, form in FORMATS.items() if form.extension and kind != "blob"} | {
    "enc": "encrypted"
}
_RUNS_UNDER_DOCUMENT: Final = FactFlag.EXECUTABLE | FactFlag.SCRIPT
_TEMPORARY_SUFFIXES: Final = ("~", ".tmp", ".swp", ".part")


class Truth(IntEnum):
    """What a row really is. The trainer's rewards hang on it."""

    BENIGN = 0
    ATTACK = 1  # destroys, or belongs to a destroying run
    DROP = 2  # malicious content: quarantine
    EXPOSURE = 3  # patient data laid open: seal
    DOUBTFUL = 4  # a person must judge: alert


@dataclass(frozen=True, slots=True)
class Path:
    """A name in the pretended tree. `suffix` is what was appended to the extension, with its dot."""

    directory: int
    stem: int
    extension: str = ""
    suffix: str = ""
    prefix: str = ""

    def key(self) -> int:
        """Hash of the whole path."""
        return _mix(self.directory, self.stem, self.extension, self.suffix, self.prefix)


@dataclass(slots=True)
class File:
    """A file that stands at a path."""

    content: Content
    mode: int
    ino: int
    known: bool


@dataclass(slots=True)
class World:
    """One guarded tree and its clock.

    Attributes:
        rng: all randomness.
        formats: index of each format name, as the core's table has it; unknown names get one of their own.
        actor: who acts now, 0 for the tree itself (no attribution).
        open_tree: others may reach the files by path.
        blind: share of looks that come too late.
        split: share of new files whose making and writing come as two events.
    """

    rng: Generator
    formats: dict[str, int]
    open_tree: bool = False
    blind: float = 0.05
    split: float = 0.1
    actor: int = 0
    now_ns: int = 10**12
    files: dict[Path, File] = field(default_factory=dict)
    rows: list[tuple[dict[str, Any], dict[str, Any], int, int]] = field(default_factory=list)
    _next: int = 1

    def populate(self, count: int, directories: int, kinds: tuple[str, ...], *, phi: float = 0.5) -> None:
        """Files that were there before anybody looked; all are known."""
        for stem in range(count):
            kind = kinds[int(self.rng.integers(len(kinds)))]
            content = plain(self.rng, kind, phi=self.rng.random() < phi)
            path = Path(int(self.rng.integers(directories)), stem, FORMATS[kind].extension)
            mode = 0o100644 if self.open_tree else 0o100640
            self.files[path] = File(content, mode, self._number(), known=True)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now_ns += int(seconds * 1e9)

    def fresh(self, directory: int, extension: str) -> Path:
        """A name that nothing has."""
        return Path(directory, 1_000_000 + self._number(), extension)

    def create(
        self, path: Path, content: Content, truth: Truth = Truth.BENIGN, *, mode: int = 0, seen: bool = True
    ) -> None:
        """Make a file and write it: one coalesced event, sometimes two, sometimes with its mode set on the way."""
        clinical = content.format in ("dicom", "hl7") or not content.flags & PHI
        mode = mode or (0o100644 if self.open_tree and clinical else 0o100640)
        file = self.files[path] = File(content, mode, self._number(), known=False)
        if self.rng.random() < self.split:
            half = Truth.BENIGN if truth in (Truth.DROP, Truth.EXPOSURE) else truth
            self._emit(Kind.CREATE, path, half, flags=int(EventFlag.OPEN), seen=False)
            self.wait(float(self.rng.exponential(0.02)))
            self._emit(Kind.WRITE, path, truth, seen=seen)
        else:
            ops = 1 << Kind.WRITE | (1 << Kind.ATTRIB if self.rng.random() < 0.3 else 0)
            self._emit(Kind.CREATE, path, truth, ops=ops, seen=seen)
        file.known = True

    def write(
        self, path: Path, content: Content, truth: Truth = Truth.BENIGN, *, similarity: float, lost: bool = False
    ) -> None:
        """Write a file that is there. `similarity` is to the content before, negative where it cannot be told."""
        old = self.files.get(path)
        if old is None:
            return
        self.files[path] = File(content, old.mode, old.ino, known=old.known)
        self._emit(Kind.WRITE, path, truth, before=old, similarity=similarity, lost=lost)
        self.files[path].known = True

    def delete(self, path: Path, truth: Truth = Truth.BENIGN, *, lost: bool = False) -> None:
        """Unlink."""
        old = self.files.pop(path, None)
        if old is None:
            return
        self._emit(Kind.DELETE, path, truth, before=old, gone=True, lost=lost)

    def rename(
        self, old: Path, new: Path, truth: Truth = Truth.BENIGN, *, similarity: float = 1.0, lost: bool = False
    ) -> None:
        """Move a name; a file that stands at the new one is replaced (`similarity` is then to that)."""
        moved = self.files.pop(old, None)
        if moved is None:
            return
        over = self.files.get(new)
        self.files[new] = moved
        flags = EventFlag.OVER if over else 0
        before = over or (moved if moved.known else None)
        self._emit(
            Kind.RENAME, new, truth, before=before, similarity=similarity, source=old, flags=int(flags), lost=lost
        )
        moved.known = True

    def chmod(self, path: Path, mode: int, truth: Truth = Truth.BENIGN) -> None:
        """Change permissions."""
        file = self.files.get(path)
        if file is None:
            return
        file.mode = (file.mode & 0o170000) | mode
        self._emit(Kind.ATTRIB, path, truth, before=file, similarity=1.0)

    def read(self, path: Path, truth: Truth = Truth.BENIGN) -> None:
        """Open for reading (sources that can tell)."""
        self._emit(Kind.READ, path, truth, before=self.files[path], similarity=1.0)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`EVENT`, `FACTS`, truth (int8) and files lost (int8), one entry per act."""
        events, facts = _filled(EVENT, [row[0] for row in self.rows]), _filled(FACTS, [row[1] for row in self.rows])
        truth = np.array([row[2] for row in self.rows], np.int8)
        return events, facts, truth, np.array([row[3] for row in self.rows], np.int8)

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _emit(
        self,
        kind: Kind,
        path: Path,
        truth: Truth,
        *,
        before: File | None = None,
        similarity: float = -1.0,
        source: Path | None = None,
        ops: int = 0,
        flags: int = 0,
        gone: bool = False,
        lost: bool = False,
        seen: bool = True,
    ) -> None:
        file = before if gone else self.files[path]
        assert file is not None
        looked = seen and not gone and (kind is Kind.ATTRIB or self.rng.random() >= self.blind)
        known = before is not None and before.known
        self.now_ns += 1000
        event = {
            "seq": len(self.rows) + 1,
            "at_ns": 1_700_000_000 * 10**9 + self.now_ns,
            "mono_ns": self.now_ns,
            "dev": 1,
            "ino": file.ino,
            "actor": self.actor or 1,
            "pid": self.actor,
            "merged": int(self.rng.integers(1, 5)) if kind in (Kind.CREATE, Kind.WRITE) else 1,
            "ops": ops | (1 << kind),
            "kind": int(kind),
            "flags": flags | (EventFlag.ATTRIBUTED if self.actor else 0),
            "uid": 1000,
            "mode": 0 if gone else file.mode,
        }
        facts = self._facts(path, file, before if known else None, similarity, source, looked=looked)
        self.rows.append((event, facts, int(truth), int(lost)))

    def _facts(
        self, path: Path, file: File, before: File | None, similarity: float, source: Path | None, *, looked: bool
    ) -> dict[str, Any]:
        content, old = file.content, before.content if before else None
        extension = path.suffix.lstrip(".") or path.extension
        claimed = self._format(_EXT_OF.get(extension, ""))
        flags = FactFlag.LOOKED | content.flags if looked else int(FactFlag.UNSEEN)
        if claimed:
            flags |= FactFlag.EXT_KNOWN
            if looked and self._format(content.format) == claimed:
                flags |= FactFlag.MAGIC_MATCHES_EXT
        if before is not None:
            flags |= FactFlag.KNOWN_BEFORE
            assert old is not None
            flags |= FactFlag.PREV_DECLARED if old.flags & FactFlag.DECLARES_ENCRYPTION else 0
            flags |= FactFlag.PREV_STRUCTURE_OK if old.flags & FactFlag.STRUCTURE_OK else 0
        if source is not None and (source.extension, source.suffix) != (path.extension, path.suffix):
            flags |= FactFlag.EXT_CHANGED
        if path.suffix in _TEMPORARY_SUFFIXES or path.prefix:
            flags |= FactFlag.TEMPORARY
        if self.open_tree:
            flags |= FactFlag.REACHABLE_BY_OTHERS
        unknown = (-1.0, -1.0, -1.0)
        return {
            "flags": int(flags),
            "size": content.size if looked else 0,
            "prev_size": old.size if old else 0,
            "name_hash": _mix(path.stem, path.extension, path.suffix, path.prefix),
            "dir_hash": _mix(path.directory, "directory"),
            "path_hash": path.key(),
            "from_hash": source.key() if source else 0,
            "stem_hash": _mix(path.directory, path.stem, "stem"),
            "content_hash": content.hash if looked else 0,
            "prev_content_hash": old.hash if old else 0,
            "format": self._format(content.format) if looked else 0,
            "ext_format": claimed,
            "prev_format": self._format(old.format) if old else 0,
            "phi_hits": content.phi_hits if looked else 0,
            "mode": file.mode,
            "entropy": content.entropy if looked else unknown,
            "chi_square": content.chi_square if looked else unknown,
            "prev_entropy": sum(old.entropy) / 3 if old else -1.0,
            "ascii": content.ascii if looked else -1.0,
            "zero": content.zero if looked else -1.0,
            "serial": content.serial if looked else 0.0,
            "block_spread": content.block_spread if looked else -1.0,
            "similarity": similarity if looked and old else -1.0,
            "encrypted_like": content.encrypted_like if looked else -1.0,
            "prev_encrypted_like": old.encrypted_like if old else -1.0,
        }

    def _format(self, name: str) -> int:
        return self.formats.get(name, 0) if name else 0


def _filled(dtype: np.dtype[Any], rows: list[dict[str, Any]]) -> np.ndarray:
    array = np.zeros(len(rows), dtype)
    for name in rows[0] if rows else ():
        array[name] = [row[name] for row in rows]
    return array


def format_table(names: tuple[str, ...]) -> dict[str, int]:
    """Indices of the simulator's formats in the core's table.

    Args:
        names: the core's format names, index 0 is "unknown".

    Returns:
        Index by the simulator's name.

    Raises:
        ShieldError: `native.abi` where the core does not know one of them.
    """
    index = {name: at for at, name in enumerate(names)}
    kinds = {kind: CORE_NAMES.get(kind, kind) for kind in (*FORMATS, "encrypted", "encoded") if kind != "blob"}
    missing = sorted(name for name in kinds.values() if name not in index)
    if missing:
        raise ShieldError("native.abi", f"the core knows no format {missing[0]!r}")
    return {kind: index[name] for kind, name in kinds.items()}


def _mix(*parts: int | str) -> int:
    """A 64-bit hash, the same in every run (Python's own is salted)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        value = part if isinstance(part, int) else int.from_bytes(part.encode()[:16].ljust(1, b"\0"), "little")
        state = ((state ^ (value & MASK64)) * 0xBF58476D1CE4E5B9) & MASK64
        state ^= state >> 29
        state = (state * 0x94D049BB133111EB + 0x632BE59BD9B4E019) & MASK64
        state ^= state >> 32
    return state or 1
