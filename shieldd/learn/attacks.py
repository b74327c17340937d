"""Families of hostile and careless work. Each is a generator: it acts on the world, then yields the seconds to wait.

Families stand for tools, not for one tool's exact behaviour: order, rate, names, shares and pauses are drawn at random.
`HELD_OUT` are never trained on; they are what the evaluation is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from shieldd.learn.content import (
    FORMATS,
    Content,
    Generator,
    encoded,
    encrypted,
    note,
    partly_encrypted,
    plain,
    zeroed,
)
from shieldd.learn.world import Path, Truth, World

Family = Callable[[World, Generator], Iterator[float]]
_SUFFIXES: Final = ("locked", "enc", "crypt", "x9k2", "lck", "aes", "gpg", "age", "pay", "0xx")


def _targets(world: World, rng: Generator, least: int = 4, most: int = 60) -> list[Path]:
    """Known files in the order of some walk: by directory, by name, or as they come."""
    paths = [path for path, file in world.files.items() if file.known]
    order = int(rng.integers(3))
    if order == 0:
        paths.sort(key=lambda x: (x.directory, x.stem))
    elif order == 1:
        rng.shuffle(paths)
    return paths[: int(rng.integers(least, most + 1))]


def _pace(rng: Generator) -> Callable[[], float]:
    """Seconds between files: 0.05 to 400 files a second, with jitter."""
    mean = float(10 ** rng.uniform(-2.6, 0.3))
    return lambda: float(rng.exponential(mean))


def _suffix(rng: Generator) -> str:
    return "." + _SUFFIXES[int(rng.integers(len(_SUFFIXES)))]


def _output(rng: Generator, old: Content) -> Content:
    if rng.random() < 0.12:  # weak or homely ciphers: of no known kind, but far from random
        return plain(rng, "blob", size=max(old.size, 16))
    return encrypted(rng, old.size, declares=rng.random() < 0.5)


def _note(world: World, rng: Generator, directory: int, stem: int) -> Path:
    path = Path(directory, stem, ("txt", "html", "")[int(rng.integers(3))])
    if path not in world.files:
        world.create(path, note(rng), Truth.ATTACK)
    return path


def _notes(world: World, rng: Generator, directories: set[int]) -> Iterator[float]:
    stem = 5_000_000 + int(rng.integers(1000))
    for directory in sorted(directories):
        _note(world, rng, directory, stem)
        yield float(rng.exponential(0.01))


def encrypt_in_place(world: World, rng: Generator) -> Iterator[float]:
    """Overwrite each file with its ciphertext; half of the time rename it afterwards; notes at the end or not."""
    pace, rename, suffix = _pace(rng), rng.random() < 0.5, _suffix(rng)
    done: set[int] = set()
    for path in _targets(world, rng):
        if path not in world.files:
            continue
        old = world.files[path].content
        world.write(path, _output(rng, old), Truth.ATTACK, similarity=0.0, lost=True)
        if rename:
            yield float(rng.exponential(0.002))
            world.rename(path, Path(path.directory, path.stem, path.extension, suffix), Truth.ATTACK)
        done.add(path.directory)
        yield pace()
    if rng.random() < 0.4:
        yield from _notes(world, rng, done)


def new_then_delete(world: World, rng: Generator) -> Iterator[float]:
    """Write the ciphertext beside the file, delete the file: at once, or all deletions at the end."""
    pace, later, suffix = _pace(rng), rng.random() < 0.25, _suffix(rng)
    paths = _targets(world, rng)
    notes_first = rng.random() < 0.15
    if notes_first:
        yield from _notes(world, rng, {p.directory for p in paths})
    waiting: list[Path] = []
    for path in paths:
        if path not in world.files:
            continue
        old = world.files[path].content
        world.create(Path(path.directory, path.stem, path.extension, suffix), _output(rng, old), Truth.ATTACK)
        if later:
            waiting.append(path)
        else:
            yield float(rng.exponential(0.003))
            if path in world.files:
                world.delete(path, Truth.ATTACK, lost=True)
        yield pace()
    for path in waiting:
        if path in world.files:
            world.delete(path, Truth.ATTACK, lost=True)
            yield float(rng.exponential(0.003))
    if rng.random() < 0.4 and not notes_first:
        yield from _notes(world, rng, {p.directory for p in paths})


def partial(world: World, rng: Generator) -> Iterator[float]:
    """Encrypt the head, or blocks here and there: 3 to 70 % of each file."""
    pace, share = _pace(rng), float(rng.uniform(0.03, 0.7))
    head = rng.random() < 0.8
    for path in _targets(world, rng):
        if path not in world.files:
            continue
        old = world.files[path].content
        new = partly_encrypted(rng, old, share, head=head)
        kept = float(rng.uniform(0.0, 0.35) if head else max(0.0, 1 - share * 1.5) * rng.uniform(0.5, 1))
        world.write(path, new, Truth.ATTACK, similarity=kept, lost=True)
        yield pace()


def wipe(world: World, rng: Generator) -> Iterator[float]:
    """Overwrite with zeros or noise, then delete or not."""
    pace, noise, unlink = _pace(rng), rng.random() < 0.5, rng.random() < 0.6
    for path in _targets(world, rng):
        if path not in world.files:
            continue
        size = world.files[path].content.size
        new = encrypted(rng, size) if noise else zeroed(rng, 0 if rng.random() < 0.2 else size)
        world.write(path, new, Truth.ATTACK, similarity=0.0, lost=True)
        if unlink:
            yield float(rng.exponential(0.003))
            world.delete(path, Truth.ATTACK)
        yield pace()


def drip(world: World, rng: Generator) -> Iterator[float]:
    """One file now and then, so that no window of a second shows two."""
    family = (encrypt_in_place, new_then_delete)[int(rng.integers(2))]
    for _ in family(world, rng):
        yield float(rng.uniform(3, 20))


def rename_then_encrypt(world: World, rng: Generator) -> Iterator[float]:
    """Rename first, then overwrite under the new name."""
    pace, suffix = _pace(rng), _suffix(rng)
    for path in _targets(world, rng):
        if path not in world.files:
            continue
        new = Path(path.directory, path.stem, path.extension, suffix)
        world.rename(path, new, Truth.ATTACK)
        yield float(rng.exponential(0.002))
        world.write(new, _output(rng, world.files[new].content), Truth.ATTACK, similarity=0.0, lost=True)
        yield pace()


def replace_by_rename(world: World, rng: Generator) -> Iterator[float]:
    """Write the ciphertext to a temporary file and rename it over the original, as careful programs do."""
    pace = _pace(rng)
    for path in _targets(world, rng):
        if path not in world.files:
            continue
        new = Path(path.directory, path.stem + 3_000_000, "", ".tmp")
        world.create(new, _output(rng, world.files[path].content), Truth.ATTACK)
        yield float(rng.exponential(0.003))
        world.rename(new, path, Truth.ATTACK, similarity=0.0, lost=True)
        yield pace()


def encode_then_delete(world: World, rng: Generator) -> Iterator[float]:
    """Ciphertext as base64, so that entropy stays low; the original is deleted."""
    pace, suffix = _pace(rng), _suffix(rng)
    for path in _targets(world, rng):
        if path not in world.files:
            continue
        old = world.files[path].content
        world.create(Path(path.directory, path.stem, path.extension, suffix), encoded(rng, old.size), Truth.ATTACK)
        yield float(rng.exponential(0.003))
        world.delete(path, Truth.ATTACK, lost=True)
        yield pace()


def archive_then_delete(world: World, rng: Generator) -> Iterator[float]:
    """One archive that declares encryption, then its sources go: an attack's pattern and some admins' habit."""
    paths = _targets(world, rng)
    if not paths:
        return
    size = sum(world.files[p].content.size for p in paths if p in world.files)
    world.create(world.fresh(paths[0].directory, "zip"), encrypted(rng, size, declares=True))
    pace = float(10 ** rng.uniform(-3, -1))
    for path in paths:
        yield float(rng.exponential(pace))
        if path in world.files:
            world.delete(path, Truth.DOUBTFUL)


def drop_malware(world: World, rng: Generator) -> Iterator[float]:
    """Executables and scripts under documents' names, setuid copies, ransom notes."""
    documents = ("pdf", "docx", "xlsx", "jpeg", "text", "csv")
    for _ in range(int(rng.integers(1, 4))):
        directory = int(rng.integers(6))
        what = int(rng.integers(4))
        if what == 3:
            world.create(Path(directory, 6_000_000 + world._number(), "txt"), note(rng), Truth.DROP)
        elif what == 2:
            path = world.fresh(directory, "")
            world.create(path, plain(rng, "elf"), Truth.DROP, mode=0o104755)
        else:
            name = FORMATS[documents[int(rng.integers(len(documents)))]].extension
            kind = ("elf", "script", "pe")[int(rng.integers(3))]
            suffix = (".exe" if kind == "pe" else "") if rng.random() < 0.1 else ""
            mode = (0o100755, 0o100644, 0o100600)[int(rng.integers(3))]
            path = Path(directory, 6_000_000 + world._number(), name, suffix)
            world.create(path, plain(rng, kind), Truth.DROP if not suffix else Truth.DOUBTFUL, mode=mode)
        yield float(rng.exponential(2.0))


def export_carelessly(world: World, rng: Generator) -> Iterator[float]:
    """Patient data written or laid open for everybody on the host."""
    world.open_tree = True
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.4:
            held = [p for p, f in world.files.items() if f.content.phi_hits or f.content.format in ("dicom", "hl7")]
            if held:
                path = held[int(rng.integers(len(held)))]
                file = world.files[path]
                file.mode = 0o100640
                phi = plain(rng, "csv" if path.extension == "csv" else "hl7", phi=True)
                if not file.content.phi_hits:
                    file.content = phi
                world.chmod(path, (0o644, 0o666, 0o777, 0o604)[int(rng.integers(4))], Truth.EXPOSURE)
                yield float(rng.exponential(3.0))
                continue
        kind = ("csv", "csv", "text", "json", "hl7", "dicom")[int(rng.integers(6))]
        content = plain(rng, kind, phi=True)
        mode = (0o100644, 0o100666, 0o100777)[int(rng.integers(3))]
        if kind in ("dicom", "hl7", "json"):
            mode |= 0o002  # readable alone is how some trees keep these
        world.create(world.fresh(int(rng.integers(6)), FORMATS[kind].extension), content, Truth.EXPOSURE, mode=mode)
        yield float(rng.exponential(3.0))


TRAINED: Final[dict[str, Family]] = {
    "encrypt_in_place": encrypt_in_place,
    "new_then_delete": new_then_delete,
    "partial": partial,
    "wipe": wipe,
    "drip": drip,
    "archive_then_delete": archive_then_delete,
    "drop_malware": drop_malware,
    "export_carelessly": export_carelessly,
}
HELD_OUT: Final[dict[str, Family]] = {
    "rename_then_encrypt": rename_then_encrypt,
    "replace_by_rename": replace_by_rename,
    "encode_then_delete": encode_then_delete,
}
