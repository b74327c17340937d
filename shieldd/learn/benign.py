"""Families of ordinary work, above all the kind that looks like an attack. Generators, as in `attacks.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from shieldd.learn.attacks import Family
from shieldd.learn.content import DOCUMENTS, FORMATS, Content, Generator, edited, encrypted, partly_encrypted, plain
from shieldd.learn.world import File, Path, Truth, World
from shieldd.model.event import FactFlag


def some_files(world: World, rng: Generator, most: int) -> list[Path]:
    paths = list(world.files)
    rng.shuffle(paths)
    return paths[: int(rng.integers(1, most + 1))]


def pace_of(rng: Generator, low: float = -3.0, high: float = 0.3) -> float:
    return float(10 ** rng.uniform(low, high))


def _phi_kind(rng: Generator) -> str:
    return DOCUMENTS[int(rng.integers(len(DOCUMENTS)))]


def editors(world: World, rng: Generator) -> Iterator[float]:
    """People save documents: in place, or to a temporary file that is renamed over it; backups, lock files."""
    for path in some_files(world, rng, 12):
        if path not in world.files:
            continue
        old = world.files[path].content
        kept = (
            float(rng.uniform(0.0, 0.9))
            if FORMATS.get(old.format, FORMATS["blob"]).dense
            else float(rng.uniform(0.5, 1))
        )
        style = int(rng.integers(4))
        if style == 0:
            world.write(path, edited(rng, old), similarity=kept)
        elif style == 1:
            new = Path(path.directory, path.stem, path.extension, ".tmp")
            world.create(new, edited(rng, old))
            yield 0.002
            world.rename(new, path, similarity=kept)
        elif style == 2:
            backup = Path(path.directory, path.stem, path.extension, "~")
            if backup in world.files:
                world.delete(backup)
            world.rename(path, backup)
            yield 0.002
            world.create(path, edited(rng, old))
            if rng.random() < 0.7:
                yield float(rng.exponential(0.5))
                world.delete(backup)
        else:
            swap = Path(path.directory, path.stem, path.extension, ".swp")
            world.create(swap, plain(rng, "blob", size=12288))
            yield float(rng.exponential(3.0))
            world.write(path, edited(rng, old), similarity=kept)
            yield 0.05
            world.delete(swap)
        yield float(rng.exponential(2.0))


def synchronise(world: World, rng: Generator) -> Iterator[float]:
    """rsync, syncthing: hidden temporary names renamed into place; new files, updates, some deletions."""
    pace, deletes = pace_of(rng, -3, -1), rng.random() < 0.4
    for _ in range(int(rng.integers(5, 60))):
        if world.files and rng.random() < 0.4:
            path = list(world.files)[int(rng.integers(len(world.files)))]
            content = edited(rng, world.files[path].content)
            kept = float(rng.uniform(0.3, 1.0))
        else:
            kind = _phi_kind(rng)
            path, kept = world.fresh(int(rng.integers(6)), FORMATS[kind].extension), -1.0
            content = plain(rng, kind, phi=rng.random() < 0.5)
        new = Path(path.directory, path.stem, path.extension, ".k3Xw9q", ".")
        world.create(new, content, seen=rng.random() < 0.6)
        yield 0.0005
        world.rename(new, path, similarity=kept if kept >= 0 else 1.0)
        yield float(rng.exponential(pace))
    if deletes:
        for path in some_files(world, rng, 6):
            world.delete(path)
            yield float(rng.exponential(pace))


def extract(world: World, rng: Generator) -> Iterator[float]:
    """tar x, unzip, cp -r: many new files, each written once."""
    pace = pace_of(rng, -4, -1.3)
    for _ in range(int(rng.integers(10, 80))):
        kind = _phi_kind(rng) if rng.random() < 0.85 else ("source", "script", "blob", "elf")[int(rng.integers(4))]
        path = world.fresh(int(rng.integers(12)), FORMATS[kind].extension)
        world.create(path, plain(rng, kind, phi=rng.random() < 0.4))
        yield float(rng.exponential(pace))


def compress(world: World, rng: Generator) -> Iterator[float]:
    """gzip -r, zstd --rm, xz: the compressed file beside the original, which then goes; or many into one archive."""
    pace = pace_of(rng, -2.5, 0)
    kind = ("gzip", "xz", "zstd")[int(rng.integers(3))]
    proved = rng.random() < 0.8  # whether the inspector could decode it
    for path in some_files(world, rng, 50):
        if path not in world.files:
            continue
        old = world.files[path].content
        dense = FORMATS.get(old.format, FORMATS["blob"]).dense
        size = max(int(old.size * (0.97 if dense else rng.uniform(0.1, 0.6))), 60)
        new = Path(path.directory, path.stem, path.extension, "." + FORMATS[kind].extension)
        flags = FactFlag.DECODED | FactFlag.REPLACED if proved else 0
        content = plain(rng, kind, size=size)
        world.create(new, replace(content, flags=content.flags | int(flags)))
        yield float(rng.exponential(0.004))
        world.delete(path)
        yield float(rng.exponential(pace))


def back_up(world: World, rng: Generator) -> Iterator[float]:
    """Archives or repositories of chunks, encrypted or not; nothing else is touched but old backups."""
    secret, chunks = rng.random() < 0.5, int(rng.integers(1, 60))
    pace = pace_of(rng, -2.5, 0)
    made: list[Path] = []
    for _ in range(chunks):
        kind = ("tar", "gzip", "zstd", "zip")[int(rng.integers(4))]
        content: Content
        if secret:
            content = encrypted(rng, int(2 ** rng.uniform(12, 24)), declares=rng.random() < 0.4)
        else:
            content = plain(rng, kind)
        path = world.fresh(40 + int(rng.integers(16)), "" if secret else FORMATS[kind].extension)
        if rng.random() < 0.5:
            temporary = Path(path.directory, path.stem, path.extension, ".tmp")
            world.create(temporary, content, seen=rng.random() < 0.7)
            yield 0.001
            world.rename(temporary, path)
        else:
            world.create(path, content)
        made.append(path)
        yield float(rng.exponential(pace))
    if rng.random() < 0.3:
        for path in made[: int(rng.integers(1, 4))]:
            world.delete(path)  # prune: its own, made a moment ago
            yield 0.01


def ingest(world: World, rng: Generator) -> Iterator[float]:
    """A modality or an interface engine delivers: DICOM, HL7, FHIR, at the mode that this tree always uses."""
    pace = pace_of(rng, -2.3, 0.5)
    kind = ("dicom", "hl7", "json")[int(rng.integers(3))]
    staged = rng.random() < 0.5
    mode = 0o100644 if world.open_tree else 0o100640
    for _ in range(int(rng.integers(4, 60))):
        path = world.fresh(int(rng.integers(20)), FORMATS[kind].extension)
        content = plain(rng, kind, phi=True)
        if staged:
            temporary = Path(path.directory, path.stem, path.extension, ".part")
            world.create(temporary, content, mode=mode)
            yield 0.003
            world.rename(temporary, path)
        else:
            world.create(path, content, mode=mode)
        yield float(rng.exponential(pace))


def rotate_logs(world: World, rng: Generator) -> Iterator[float]:
    """log -> log.1 -> log.1.gz; the oldest goes."""
    for number in range(int(rng.integers(1, 10))):
        stem = 7_000_000 + number
        log = Path(30, stem, "log")
        world.files[log] = File(plain(rng, "log"), 0o100640, 10_000 + number, known=True)
        oldest = Path(30, stem, "log", ".4.gz")
        world.files[oldest] = File(plain(rng, "gzip"), 0o100640, 11_000 + number, known=True)
        world.delete(oldest)
        yield 0.002
        first = Path(30, stem, "log", ".1")
        world.rename(log, first)
        yield 0.002
        world.create(log, replace(plain(rng, "log"), size=0))
        if rng.random() < 0.7:
            packed = plain(rng, "gzip", size=max(world.files[first].content.size // 8, 40))
            done = replace(packed, flags=packed.flags | int(FactFlag.DECODED | FactFlag.REPLACED))
            world.create(Path(30, stem, "log", ".1.gz"), done)
            yield 0.003
            world.delete(first)
        yield float(rng.exponential(0.05))


def database(world: World, rng: Generator) -> Iterator[float]:
    """A database writes its pages in place, makes and deletes journals."""
    path = Path(31, 7_100_000, "db")
    world.files[path] = File(plain(rng, "sqlite", phi=True), 0o100640, 12_000, known=True)
    journal = Path(31, 7_100_000, "db", "-journal")
    pace = pace_of(rng, -2, 0.7)
    for _ in range(int(rng.integers(4, 40))):
        if rng.random() < 0.7:
            world.create(journal, plain(rng, "blob", size=int(rng.integers(512, 65536))))
            yield 0.002
        world.write(path, edited(rng, world.files[path].content), similarity=float(rng.uniform(0.5, 1)))
        if journal in world.files:
            yield 0.002
            world.delete(journal)
        yield float(rng.exponential(pace))


def rename_many(world: World, rng: Generator) -> Iterator[float]:
    """Somebody tidies up: many names change, sometimes the extension's case or kind."""
    pace, extension = pace_of(rng, -3, 0), rng.random() < 0.4
    for path in some_files(world, rng, 60):
        if path not in world.files:
            continue
        new = Path(path.directory, path.stem + 4_000_000, path.extension.upper() if extension else path.extension)
        if new not in world.files:
            world.rename(path, new)
        yield float(rng.exponential(pace))


def purge(world: World, rng: Generator) -> Iterator[float]:
    """Retention: what is old goes. From the events alone it could be an intruder's rm: a person should look."""
    pace = pace_of(rng, -3.5, 0)
    for number, path in enumerate(some_files(world, rng, 80)):
        if path in world.files:
            world.delete(path, Truth.DOUBTFUL if number >= 20 and pace < 0.2 else Truth.BENIGN)
        yield float(rng.exponential(pace))


def check_out(world: World, rng: Generator) -> Iterator[float]:
    """git checkout: sources replaced by other versions, some deleted, index through a lock file; scripts among them."""
    pace = pace_of(rng, -4, -2)
    for number in range(int(rng.integers(5, 50))):
        kind = "source" if rng.random() < 0.8 else "script"
        path = Path(32 + number % 6, 7_200_000 + number, FORMATS[kind].extension)
        roll = rng.random()
        if roll < 0.5:
            world.files[path] = File(plain(rng, kind), 0o100644, 13_000 + number, known=True)
            world.delete(path)
            yield 0.0002
            world.create(path, plain(rng, kind))
        elif roll < 0.8:
            world.create(path, plain(rng, kind))
        else:
            world.files[path] = File(plain(rng, kind), 0o100644, 13_000 + number, known=True)
            world.delete(path)
        if rng.random() < 0.4:
            blob = replace(plain(rng, "gzip", size=int(rng.integers(100, 5000))), format="", flags=0)
            world.create(world.fresh(38, ""), blob)  # loose object: zlib under a hash for a name
        yield float(rng.exponential(pace))
    if rng.random() < 0.5:  # a branch without a directory: its files go, whatever they are
        for path in some_files(world, rng, 19):
            world.delete(path)
            yield float(rng.exponential(pace))


def build(world: World, rng: Generator) -> Iterator[float]:
    """A compiler: objects and programs made, overwritten, deleted."""
    pace = pace_of(rng, -3, -0.5)
    for number in range(int(rng.integers(5, 50))):
        path = Path(39, 7_300_000 + number, "")
        scratch = Path(39, 7_350_000 + number, "s", ".tmp")
        world.create(scratch, plain(rng, "source"))
        yield 0.001
        world.create(path, plain(rng, "elf"), mode=0o100755 if rng.random() < 0.3 else 0o100644)
        world.delete(scratch)
        if rng.random() < 0.2:
            yield 0.01
            world.write(path, plain(rng, "elf"), similarity=float(rng.uniform(0, 0.6)))
        yield float(rng.exponential(pace))


def keep_secrets(world: World, rng: Generator) -> Iterator[float]:
    """Files that are encrypted by right: a password store saved again, one document encrypted beside its original."""
    vault = Path(3, 7_400_000, "kdbx")
    world.files[vault] = File(encrypted(rng, 20_000, declares=rng.random() < 0.5), 0o100600, 14_000, known=True)
    for _ in range(int(rng.integers(1, 6))):
        old = world.files[vault].content
        declared = bool(old.flags & FactFlag.DECLARES_ENCRYPTION)
        world.write(vault, encrypted(rng, 20_000, declares=declared), similarity=0.0)
        yield float(rng.exponential(5.0))
        if world.files and rng.random() < 0.5:
            path = list(world.files)[int(rng.integers(len(world.files)))]
            beside = Path(path.directory, path.stem, path.extension, ".gpg")
            if beside not in world.files:
                size = world.files[path].content.size
                world.create(beside, encrypted(rng, size, declares=True))
                if rng.random() < 0.4:  # a person who then deletes the original should be asked, not stopped
                    yield float(rng.exponential(1.0))
                    world.delete(path, Truth.DOUBTFUL)
        yield float(rng.exponential(5.0))


def open_up(world: World, rng: Generator) -> Iterator[float]:
    """Modes and owners set anew over a tree; nothing of it patient data that was closed before."""
    pace = pace_of(rng, -3.5, -1)
    for path in some_files(world, rng, 60):
        file = world.files.get(path)
        if file is None:
            continue
        world.chmod(path, 0o640 if rng.random() < 0.7 else 0o600)
        yield float(rng.exponential(pace))


def one_accident(world: World, rng: Generator) -> Iterator[float]:
    """A person spoils a file or two: truncated, saved as another kind, a few deleted. Not worth stopping anybody."""
    for path in some_files(world, rng, 2):
        if path not in world.files:
            continue
        old = world.files[path].content
        if rng.random() < 0.4:
            world.write(path, replace(old, size=0, format="", flags=0), similarity=0.0)
        elif rng.random() < 0.5:
            world.write(path, partly_encrypted(rng, old, 0.2, head=True), similarity=float(rng.uniform(0, 0.5)))
        else:
            world.delete(path)
        yield float(rng.exponential(10.0))


TRAINED: Final[dict[str, Family]] = {
    "editors": editors,
    "synchronise": synchronise,
    "extract": extract,
    "compress": compress,
    "back_up": back_up,
    "ingest": ingest,
    "rotate_logs": rotate_logs,
    "database": database,
    "rename_many": rename_many,
    "purge": purge,
    "check_out": check_out,
    "build": build,
    "keep_secrets": keep_secrets,
    "open_up": open_up,
    "one_accident": one_accident,
}
