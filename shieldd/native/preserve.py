"""The vault of preserved versions as Python values: a handle, its versions, its counters.

Owns the typed face of `native/ffi/src/preserve.rs`. Does not own where vaults are, what is kept and for how long
(`shieldd.respond.preserve`). Every call releases the GIL; a handle may be used by several threads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from shieldd.errors import ShieldError
from shieldd.model.version import Keep, Version
from shieldd.native._abi import call, failure, ffi, lib
from shieldd.native._bytes import Blob, Names, Slice, fields_of
from shieldd.native.kept import Evicted, Progress, Settled, VaultOptions, VaultStatus

VAULT_NAME: Final = b".shieldd-vault"
UNPIN: Final = 2**64 - 1
_NUMBERS: Final = struct.Struct("<7Q3q4IH5B")


def make(parent_fd: int, name: bytes = VAULT_NAME) -> int:
    """Make the vault's directory beneath `parent_fd` where there is none, and open it; the caller closes.

    Raises:
        ShieldError: `preserve.unsafe` for anything there that is not a directory of ours alone, `file.readonly`,
            `file.denied`, `file.full`.
    """
    given, out = Slice(name), ffi.new("int32_t *")
    call(lib.shd_vault_make, parent_fd, given.struct, out)
    return int(out[0])


class Vault:
    """A vault, open for making versions; with `options.index` also for everything else.

    Raises:
        ShieldError: `preserve.unsafe`, `file.readonly`, `file.denied`, `file.full`, `file.io`.
    """

    def __init__(self, directory_fd: int, options: VaultOptions, number: int = 0) -> None:
        """Args:
        directory_fd: as `make` gives it; duplicated.
        number: that versions bear as `vault`.
        """
        self.number = number
        native = ffi.new(
            "ShdVaultOptions *",
            [options.whole_limit, options.quota, options.min_free, options.hardlinks, options.index],
        )
        numbers = ffi.new("uint16_t[]", [tree for tree, _ in options.trees])
        roots = Names.of([root for _, root in options.trees])
        out = ffi.new("ShdVault **")
        call(lib.shd_vault_open, directory_fd, native, numbers, roots.array, len(options.trees), out)
        self._handle: Any = ffi.gc(out[0], lib.shd_vault_free)

    def image(self, file_fd: int, tree: int, path: bytes, *, actor: int, at_ns: int) -> int:
        """Keep the content of an open file as it is now; the version's id.

        Raises:
            ShieldError: `preserve.large`, `preserve.space`, `preserve.quota`, `file.not-regular`, `file.mount`,
                `file.changed`, `file.io`.
        """
        return self._image(file_fd, tree, path, actor, at_ns, 0, 0)

    def keep_range(
        self, file_fd: int, tree: int, path: bytes, *, actor: int, at_ns: int, offset: int, length: int
    ) -> int:
        """Keep a range of an open file as it is now; the id of the version that it belongs to.

        Raises:
            ShieldError: as `image`, but for `preserve.large`.
        """
        return self._image(file_fd, tree, path, actor, at_ns, offset, max(length, 1))

    def link_many(
        self, root_fd: int, tree: int, paths: Sequence[bytes], actors: Sequence[int], at_ns: int
    ) -> list[int | ShieldError]:
        """Keep files beneath `root_fd` by hard links; ids, or why not, in the order of `paths`."""
        ids, errors = self._link(root_fd, tree, Names.of(paths), np.array(actors, np.uint64), at_ns)
        return [int(ids[i]) or failure(errors[i], paths[i]) for i in range(len(paths))]

    def link_rows(self, root_fd: int, tree: int, names: Names, actors: np.ndarray, at_ns: int) -> list[ShieldError]:
        """As `link_many`, without a Python object for each file; what could not be linked."""
        ids, errors = self._link(root_fd, tree, names, actors.astype(np.uint64), at_ns)
        return [failure(errors[i], names.at(i)) for i in np.flatnonzero(ids == 0).tolist()]

    def _link(self, root_fd: int, tree: int, names: Names, actors: np.ndarray, at_ns: int) -> tuple[np.ndarray, Any]:
        count = len(names)
        ids, errors = np.zeros(count, np.uint64), ffi.new("ShdError[]", count)
        owners, found = ffi.from_buffer("uint64_t[]", actors), ffi.from_buffer("uint64_t[]", ids)
        call(lib.shd_vault_link_many, self._handle, root_fd, tree, names.array, owners, count, at_ns, found, errors)
        return ids, errors

    def touched(self, tree: int, names: Sequence[bytes] | Names) -> None:
        """These names went away or stand for other files by now: look whether links are all that is left of them."""
        given = names if isinstance(names, Names) else Names.of(names)
        call(lib.shd_vault_touched, self._handle, tree, given.array, len(given))

    def walk(self, root_fd: int, tree: int, exclude: Sequence[bytes] = (), beneath: bytes = b"") -> Walk:
        """Link a whole tree, in slices; or what is in a renamed directory of it, under its new names."""
        return Walk(self._handle, root_fd, tree, exclude, beneath)

    def find(
        self,
        *,
        path: bytes | None = None,
        tree: int | None = None,
        actor: int | None = None,
        since_ns: int = 0,
        until_ns: int = 0,
        standing: bool = False,
        limit: int = 2**63,
    ) -> list[Version]:
        """Versions that fit all that is given, the oldest first; damaged ones are left out.

        Args:
            path: of `tree`, which must be given then.
            since_ns, until_ns: when the version was made; `until_ns` 0: any time.
            standing: links too whose file still has a name of its own (every file has one).
            limit: at most so many, the latest.
        """
        name = Slice(path or b"")
        query = ffi.new("ShdVersionQuery *")
        query.path, query.actor, query.since_ns, query.until_ns = name.struct, actor or 0, since_ns, until_ns
        query.limit, query.tree, query.standing = limit, tree or 0, standing
        query.by_path, query.by_tree, query.by_actor = path is not None, tree is not None, actor is not None
        with Blob() as fields:
            call(lib.shd_vault_find, self._handle, query, fields.out)
            return list(self._versions(fields))

    def version(self, version_id: int) -> Version:
        """One version.

        Raises:
            ShieldError: `preserve.missing`.
        """
        with Blob() as fields:
            call(lib.shd_vault_version, self._handle, version_id, fields.out)
            return next(self._versions(fields))

    def open(self, version_id: int, *, verify: bool = True) -> int:
        """A descriptor of the content, for reading; the caller closes.

        Raises:
            ShieldError: `preserve.missing`; `preserve.damaged`, and it is not offered any more.
        """
        return self._content(version_id, -1, verify)

    def assemble(self, version_id: int, current_fd: int) -> int:
        """A descriptor of a nameless file with the content of a version of `Keep.RANGE`; the caller closes.

        Args:
            current_fd: the file as it is now.
        """
        return self._content(version_id, current_fd, True)

    def forget(self, version_ids: Sequence[int], *, ino: int = 0) -> int:
        """Let versions go for good, pinned or not, and with `ino` all links to that file; bytes given back."""
        out = ffi.new("uint64_t *")
        call(lib.shd_vault_forget, self._handle, ffi.new("uint64_t[]", list(version_ids)), len(version_ids), ino, out)
        return int(out[0])

    def evict(self, *, now_ns: int, age_ns: int, bytes_max: int, versions_max: int, min_free: int) -> Evicted:
        """Let go what is too old, then what is worth least, and tell the other writers what the quota leaves."""
        policy = ffi.new("ShdVaultPolicy *", [now_ns, age_ns, bytes_max, versions_max, min_free])
        out = ffi.new("Evicted *")
        call(lib.shd_vault_evict, self._handle, policy, out)
        return Evicted(*(int(getattr(out, name)) for name in Evicted.__slots__))

    def settle(self, *, now_ns: int, budget_bytes: int) -> Settled:
        """Digest copies, and let equal ones share their content."""
        out = ffi.new("Settled *")
        call(lib.shd_vault_settle, self._handle, now_ns, budget_bytes, out)
        return Settled(*(int(getattr(out, name)) for name in Settled.__slots__))

    def compact(self) -> int:
        """Merge record files of dead processes; how many went."""
        out = ffi.new("uint64_t *")
        call(lib.shd_vault_compact, self._handle, out)
        return int(out[0])

    def pin(self, incident: bytes, actor: int, since_ns: int) -> None:
        """Hold what an incident needs, durable: the actor's versions and nobody's since then, and links to files that
        were deleted since."""
        name = Slice(incident)
        call(lib.shd_vault_pin, self._handle, name.struct, actor, since_ns)

    def unpin(self, incident: bytes) -> None:
        """The incident is over."""
        name = Slice(incident)
        call(lib.shd_vault_pin, self._handle, name.struct, 0, UNPIN)

    def flush(self, *, durable: bool = False) -> None:
        """Write out what waits; with `durable` to the disk."""
        call(lib.shd_vault_flush, self._handle, durable)

    def status(self) -> VaultStatus:
        """How it stands."""
        out = ffi.new("ShdVaultStatus *")
        call(lib.shd_vault_status, self._handle, out)
        s, c = out.standing, out.counts
        standing = (s.orphans, s.used, s.pins, s.damaged_bytes, s.damaged, s.missing, s.swept, s.foreign)
        counts = (c.links, c.images, c.ranges, c.bytes, c.shared, c.no_room, c.too_large, c.failed)
        numbers = map(int, (s.versions, *s.objects, *standing, *counts))
        found: dict[str, Any] = dict(zip(VaultStatus.__slots__[:20], numbers, strict=True))
        found |= {"clones": bool(out.clones), "hardlinks": bool(out.links)}
        return VaultStatus(**found)

    def close(self) -> None:
        """Close it; must not run while another thread uses it. May be called twice."""
        if self._handle is not None:
            ffi.release(self._handle)
            self._handle = None

    def _image(self, file_fd: int, tree: int, path: bytes, actor: int, at_ns: int, offset: int, length: int) -> int:
        name, out = Slice(path), ffi.new("uint64_t *")
        call(
            lib.shd_vault_image,
            self._handle,
            file_fd,
            tree,
            name.struct,
            actor,
            at_ns,
            offset,
            length,
            out,
            path=path,
        )
        return int(out[0])

    def _content(self, version_id: int, current_fd: int, verify: bool) -> int:
        out = ffi.new("int32_t *")
        call(lib.shd_vault_content, self._handle, version_id, current_fd, verify, out)
        return int(out[0])

    def _versions(self, blob: Blob) -> Iterator[Version]:
        fields = fields_of(blob.view())
        for numbers, path, digest, attributes in zip(*[fields] * 4, strict=True):
            unpacked = _NUMBERS.unpack(numbers)
            version_id, object_id, actor, at_ns, ino, size, stored, atime_ns, mtime_ns, ctime_ns = unpacked[:10]
            mode, uid, gid, nlink, tree, kind, partial, pinned, orphan, changed = unpacked[10:]
            pairs = fields_of(memoryview(attributes))
            yield Version(
                id=version_id,
                vault=self.number,
                kind=Keep(kind),
                tree=tree,
                path=path,
                at_ns=at_ns,
                actor=actor,
                object_id=object_id,
                ino=ino,
                size=size,
                stored=stored,
                mode=mode,
                uid=uid,
                gid=gid,
                nlink=nlink,
                atime_ns=atime_ns,
                mtime_ns=mtime_ns,
                ctime_ns=ctime_ns,
                xattrs=tuple(zip(pairs, pairs, strict=True)),
                xattrs_partial=bool(partial),
                digest=digest or None,
                pinned=bool(pinned),
                orphan=bool(orphan),
                changed=bool(changed),
            )


class Walk:
    """Linking one tree, as far as it came."""

    def __init__(self, vault: Any, root_fd: int, tree: int, exclude: Sequence[bytes], beneath: bytes) -> None:
        globs, out = Slice(b"".join(glob + b"\0" for glob in exclude)), ffi.new("ShdWalk **")
        below = Slice(beneath)
        call(lib.shd_walk_new, vault, root_fd, tree, globs.struct, below.struct, out)
        self._handle: Any = ffi.gc(out[0], lib.shd_walk_free)

    def step(self, budget: int, now_ns: int) -> Progress:
        """Link up to `budget` more files.

        Raises:
            ShieldError: `preserve.unsupported`, `preserve.full`, `file.full`, `file.readonly`: to go on makes no sense.
        """
        out = ffi.new("Progress *")
        call(lib.shd_walk_step, self._handle, budget, now_ns, out)
        return Progress(*(int(getattr(out, name)) for name in Progress.__slots__))

    def close(self) -> None:
        """End it. May be called twice."""
        if self._handle is not None:
            ffi.release(self._handle)
            self._handle = None


__all__ = [
    "VAULT_NAME",
    "Evicted",
    "Names",
    "Progress",
    "Settled",
    "Vault",
    "VaultOptions",
    "VaultStatus",
    "Walk",
    "make",
]
