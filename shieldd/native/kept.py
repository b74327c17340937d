"""Values that a vault of preserved versions is used with and answers with; `shieldd.native.preserve` has the calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VaultOptions:
    """How a vault is used; sizes in bytes.

    Attributes:
        whole_limit: larger files are copied whole only where the file system shares blocks.
        quota: most bytes in the vault.
        min_free: no copy is made that would leave less free on the file system.
        hardlinks: hard links are made.
        trees: absolute paths of the guarded trees by number.
        index: this process asks, evicts and pins; one process alone may.
    """

    whole_limit: int = 64 << 20
    quota: int = 2**64 - 1
    min_free: int = 0
    hardlinks: bool = True
    trees: tuple[tuple[int, bytes], ...] = ()
    index: bool = True


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """How a vault stands; see `Standing` and `Counts` in the core.

    Attributes:
        versions: all; `links`, `images`, `ranges`: objects that hold their content.
        orphans: links whose file has no other name.
        used: bytes that the vault keeps from being free.
        pins: incidents that hold versions.
        damaged_bytes: of record files, that are no records (a torn one after a crash among them).
        damaged: objects that are not what their record says, and are not offered.
        missing: objects that a record names and that were not there.
        swept: objects without a record that were left by a crash.
        foreign: names in the vault that are none of ours.
        made_links … failed: what this process did, and could not do, since it opened the vault.
        clones, hardlinks: whether the file system shares blocks, has hard links; True also where it was not asked yet.
    """

    versions: int
    links: int
    images: int
    ranges: int
    orphans: int
    used: int
    pins: int
    damaged_bytes: int
    damaged: int
    missing: int
    swept: int
    foreign: int
    made_links: int
    made_images: int
    made_ranges: int
    made_bytes: int
    shared: int
    no_room: int
    too_large: int
    failed: int
    clones: bool
    hardlinks: bool


@dataclass(frozen=True, slots=True)
class Evicted:
    """What an eviction did; bytes, but for the two numbers of versions that went and `versions`.

    Attributes:
        expired, evicted: versions that were too old, and that went for room.
        used, versions: what the vault holds now.
        pinned: bytes that had to stay for open incidents.
        free: bytes free on the file system.
        over: more than may stay is left, since all of it must.
    """

    expired: int
    evicted: int
    bytes: int
    used: int
    versions: int
    pinned: int
    free: int
    over: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What settling did: copies digested, objects that share another one's content now, bytes that gave back, copies
    found damaged, copies left for the next time."""

    digested: int
    shared: int
    bytes: int
    damaged: int
    left: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a walk is: files seen, links made, files that had one, what failed, whether all was seen."""

    files: int
    linked: int
    had: int
    failed: int
    done: int
