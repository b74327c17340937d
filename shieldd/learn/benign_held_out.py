"""Families of ordinary work that no policy is trained on: what the evaluation of false alarms is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from shieldd.learn.attacks import Family
from shieldd.learn.benign import pace_of, some_files
from shieldd.learn.content import FORMATS, Generator, edited, encrypted, plain
from shieldd.learn.world import File, Path, World
from shieldd.model.event import FactFlag

_STRUCTURE: Final = FactFlag.MAGIC_KNOWN | FactFlag.STRUCTURE_OK | FactFlag.TAIL_OK


def recompress(world: World, rng: Generator) -> Iterator[float]:
    """Images and documents rewritten by another encoder, in place: all bytes differ, the kind stays and parses."""
    pace = pace_of(rng, -2, 0)
    for path in some_files(world, rng, 40):
        if path not in world.files:
            continue
        old = world.files[path].content
        kind = old.format if old.format in FORMATS else "jpeg"
        if kind != old.format:
            continue
        new = plain(rng, kind, size=max(int(old.size * rng.uniform(0.4, 1.1)), 64))
        world.write(
            path, replace(new, flags=new.flags | old.flags & int(_STRUCTURE)), similarity=float(rng.uniform(0, 0.15))
        )
        yield float(rng.exponential(pace))


def deidentify(world: World, rng: Generator) -> Iterator[float]:
    """Patient tags removed from DICOM in place, or a cleaned copy renamed over."""
    pace = pace_of(rng, -2, -0.5)
    paths = [path for path, file in world.files.items() if file.content.format == "dicom"]
    for path in paths[: int(rng.integers(1, 50))]:
        old = world.files[path].content
        new = replace(edited(rng, old), flags=old.flags & ~int(FactFlag.PHI_DICOM))
        if rng.random() < 0.5:
            world.write(path, new, similarity=float(rng.uniform(0.3, 0.95)))
        else:
            temporary = Path(path.directory, path.stem, path.extension, ".tmp")
            world.create(temporary, new)
            yield 0.002
            world.rename(temporary, path, similarity=float(rng.uniform(0.3, 0.95)))
        yield float(rng.exponential(pace))


def upgrade(world: World, rng: Generator) -> Iterator[float]:
    """A package manager: x.new renamed over x, programs and scripts among the files, old ones removed."""
    pace = pace_of(rng, -3.5, -1.5)
    for number in range(int(rng.integers(5, 60))):
        kind = ("elf", "script", "source", "text", "gzip", "blob")[int(rng.integers(6))]
        path = Path(33 + number % 5, 7_500_000 + number, FORMATS[kind].extension)
        exists = rng.random() < 0.6
        if exists:
            world.files[path] = File(plain(rng, kind), 0o100755, 15_000 + number, known=True)
        new = Path(path.directory, path.stem, path.extension, ".dpkg-new")
        world.create(new, plain(rng, kind), mode=0o100755 if kind in ("elf", "script") else 0o100644)
        yield 0.001
        world.rename(new, path, similarity=float(rng.uniform(0.0, 0.9)) if exists else 1.0)
        yield float(rng.exponential(pace))


def restore(world: World, rng: Generator) -> Iterator[float]:
    """Files come back from an archive over what stands there, old versions over new ones."""
    pace = pace_of(rng, -3.5, -1)
    for path in some_files(world, rng, 60):
        if path not in world.files:
            continue
        old = world.files[path].content
        if rng.random() < 0.5:
            world.delete(path)
            yield 0.0003
            world.create(path, edited(rng, old))
        else:
            world.write(path, edited(rng, old), similarity=float(rng.uniform(0.3, 1.0)))
        yield float(rng.exponential(pace))


def scratch(world: World, rng: Generator) -> Iterator[float]:
    """Pieces of no known kind, made and soon deleted by their maker: split and join, spools, caches."""
    pace, stem = pace_of(rng, -3.5, -1), 7_600_000 + int(rng.integers(1000))
    made = []
    size = int(2 ** rng.uniform(10, 20))
    for number in range(int(rng.integers(3, 30))):
        path = Path(34, stem + (number if rng.random() < 0.5 else 0), "", f".{number:02}")
        world.create(
            path, replace(plain(rng, "blob", size=size) if rng.random() < 0.5 else encrypted(rng, size), flags=0)
        )
        made.append(path)
        yield float(rng.exponential(pace))
    for path in made:
        world.delete(path)
        yield float(rng.exponential(pace))


HELD_OUT: Final[dict[str, Family]] = {
    "recompress": recompress,
    "deidentify": deidentify,
    "upgrade": upgrade,
    "restore": restore,
    "scratch": scratch,
}
