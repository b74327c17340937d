"""Quarantine and keys, on request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller, LongAction
from shieldd.engine.parts import Parts, who
from shieldd.engine.selection import choose
from shieldd.errors import ShieldError
from shieldd.model.decision import Outcome
from shieldd.model.event import Kind
from shieldd.native import envelope
from shieldd.respond import announced_to
from shieldd.respond.quarantine import SUFFIX
from shieldd.store import QuarantineRecord, SealedRecord

REWRAP_GROUP = 1000
PURPOSES = {purpose.name.lower(): purpose for purpose in envelope.Purpose}


class Vault:
    """Answers about the quarantine."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list(self, query: r.QuarantineQuery) -> a.QuarantineItems:
        """What is held, oldest first."""
        page = self._parts.store.quarantine.list(after=query.after, limit=query.limit)
        return a.QuarantineItems(tuple(self._item(x) for x in page.items), page.more)

    def show(self, request: r.ById) -> a.QuarantineItem:
        """One object."""
        return self._item(self._parts.store.quarantine.get(request.id))

    def add(self, caller: Caller, request: r.QuarantineAdd) -> LongAction:
        """Take files away."""
        parts = self._parts
        chosen = list(choose(parts.trees, request.paths, recursive=False, left_out=parts.left_out))
        yield a.Begun(len(chosen))
        for one in chosen:
            try:
                if one.tree is None:
                    raise one.error or ShieldError("file.outside")
                if request.dry_run:
                    fd = parts.open_beneath(one.tree.index, one.path)
                    size = os.fstat(fd).st_size
                    os.close(fd)
                    yield a.FileDone(one.absolute, Outcome.PENDING, b"", "", size, "", "would be done")
                    continue
                held = parts.quarantine.add(one.tree, one.path, why=who(caller, request.why))
                yield a.FileDone(one.absolute, Outcome.DONE, b"", held.id, held.size, "", "")
            except ShieldError as error:
                yield a.FileDone(one.absolute, Outcome.FAILED, b"", "", 0, error.code, error.message)

    def restore(self, caller: Caller, request: r.QuarantineRestore) -> a.FileDone:
        """Bring an object back."""
        record = self._parts.store.quarantine.get(request.id)
        if request.dry_run:
            held = self._parts.quarantine.describe(record.id)
            place = held.original if request.to is None else os.path.join(request.to, os.path.basename(held.original))
            if os.path.lexists(place):
                raise ShieldError("file.exists", path=place)
            return a.FileDone(held.original, Outcome.PENDING, place, held.id, held.size, "", "would be done")
        held, place, left = self._parts.quarantine.restore(record.id, to=request.to, why=who(caller, "asked for"))
        return a.FileDone(held.original, Outcome.DONE, place, held.id, held.size, "", left)

    def purge(self, caller: Caller, request: r.QuarantinePurge) -> a.FileDone:
        """Destroy an object for good."""
        record = self._parts.store.quarantine.get(request.id)
        held = self._parts.quarantine.describe(record.id)
        if request.dry_run:
            return a.FileDone(held.original, Outcome.PENDING, b"", held.id, held.size, "", "would be done")
        self._parts.quarantine.purge(record.id, why=who(caller, "asked for"))
        return a.FileDone(held.original, Outcome.DONE, b"", held.id, held.size, "", "")

    def _item(self, x: QuarantineRecord) -> a.QuarantineItem:
        root = self._parts.store.roots[x.tree]
        return a.QuarantineItem(
            id=x.id,
            original=os.path.join(root, x.original),
            size=x.size,
            at_ns=x.at_ns,
            why=x.why,
            threat_id=x.threat_id,
            mode=x.mode,
            uid=x.uid,
            gid=x.gid,
            modified_at_ns=x.modified_at_ns,
            digest=x.digest.hex(),
            key_version=x.key_version,
        )


class Rewrapping:
    """Re-wraps the headers of objects for the key that is active now; resumable, since what is done is noted."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def run(self, request: r.KeysRewrap) -> LongAction:
        """Every object of the purposes asked for that is under another key."""
        purposes = [purpose_named(request.purpose)] if request.purpose else list(envelope.Purpose)
        store = self._parts.store
        files = envelope.Purpose.FILES in purposes
        held = envelope.Purpose.QUARANTINE in purposes
        yield a.Begun(sum(self._behind(x) for x in purposes))
        if files:
            key = self._parts.keys.active(envelope.Purpose.FILES)
            after: tuple[int, bytes] | None = None
            while True:
                page = store.files.not_under(key.key_id, after=after, limit=REWRAP_GROUP)
                yield from self._files(page.items, key.key_id, key.version, request)
                if not page.more:
                    break
                after = (page.items[-1].tree, page.items[-1].path)
        if held:
            key = self._parts.keys.active(envelope.Purpose.QUARANTINE)
            last = ""
            while True:
                found = store.quarantine.not_under(key.key_id, after=last, limit=REWRAP_GROUP)
                yield from self._held(found.items, key.key_id, key.version, request)
                if not found.more:
                    break
                last = found.items[-1].id

    def _behind(self, purpose: envelope.Purpose) -> int:
        infos = [x for x in self._parts.keys.list() if x.purpose == purpose]
        active = self._parts.keys.active(purpose).key_id
        return sum(x.objects for x in infos if x.key_id != active)

    def _files(
        self, items: Iterable[SealedRecord], key_id: bytes, version: int, request: r.KeysRewrap
    ) -> Iterator[a.FileDone]:
        parts = self._parts
        by_tree: dict[int, list[SealedRecord]] = {}
        for item in items:
            by_tree.setdefault(item.tree, []).append(item)
        for tree, records in by_tree.items():
            root = parts.store.roots[tree]
            if tree >= len(parts.trees) or request.dry_run:
                for x in records:
                    outcome = Outcome.PENDING if request.dry_run else Outcome.SKIPPED
                    reason = "would be done" if request.dry_run else "its tree is not guarded any more"
                    yield a.FileDone(os.path.join(root, x.path), outcome, b"", "", x.size, "", reason)
                continue
            changes = dict.fromkeys((x.path for x in records), 1 << Kind.WRITE | 1 << Kind.ATTRIB)
            with announced_to(parts.source, parts.trees[tree], changes):
                done = envelope.rewrap_many(
                    parts.trees[tree].root_fd,
                    [x.path for x in records],
                    parts.keys.native,
                    envelope.Purpose.FILES,
                    revoke=request.revoke,
                )
            noted = [
                (tree, x.path, key_id, version, y.generation)
                for x, y in zip(records, done, strict=True)
                if isinstance(y, envelope.Rewrapped)
            ]
            parts.store.files.rewrapped(noted)
            for x, y in zip(records, done, strict=True):
                yield _rewrapped(os.path.join(root, x.path), "", x.size, y)

    def _held(
        self, items: Iterable[QuarantineRecord], key_id: bytes, version: int, request: r.KeysRewrap
    ) -> Iterator[a.FileDone]:
        parts = self._parts
        records = list(items)
        if request.dry_run:
            for x in records:
                yield a.FileDone(x.original, Outcome.PENDING, b"", x.id, x.size, "", "would be done")
            return
        names = [x.id.encode() + SUFFIX for x in records]
        purpose = envelope.Purpose.QUARANTINE
        done = envelope.rewrap_many(
            parts.quarantine.directory_fd, names, parts.keys.native, purpose, revoke=request.revoke
        )
        parts.store.quarantine.rewrapped(
            [
                (x.id, key_id, version, y.generation)
                for x, y in zip(records, done, strict=True)
                if isinstance(y, envelope.Rewrapped)
            ]
        )
        for x, y in zip(records, done, strict=True):
            yield _rewrapped(os.path.join(parts.store.roots[x.tree], x.original), x.id, x.size, y)


def purpose_named(name: str) -> envelope.Purpose:
    """The purpose of that name; raises `api.invalid`."""
    if name not in PURPOSES:
        raise ShieldError("api.invalid", f"no such purpose: {name}", hint="one of: " + ", ".join(PURPOSES))
    return PURPOSES[name]


def _rewrapped(path: bytes, object_id: str, size: int, done: envelope.Rewrapped | ShieldError) -> a.FileDone:
    if isinstance(done, ShieldError):
        return a.FileDone(path, Outcome.FAILED, b"", object_id, size, done.code, done.message)
    outcome = Outcome.DONE if done.changed else Outcome.SKIPPED
    return a.FileDone(
        path, outcome, b"", object_id, size, "", "" if done.changed else "is under the active key already"
    )
