"""Sealing, opening and looking at files, on request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller, LongAction
from shieldd.engine.parts import Parts, open_beneath, who
from shieldd.engine.selection import Chosen, choose
from shieldd.errors import ShieldError
from shieldd.model.decision import Outcome
from shieldd.native import envelope
from shieldd.respond import GuardedTree
from shieldd.respond.seal import GROUP, SUFFIX, Result, original_name, sealed_name
from shieldd.store import SealedRecord

SUITES = {1: "AES-256-GCM, HKDF-SHA-256"}


class Files:
    """Answers about sealed files."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list(self, query: r.FilesQuery) -> a.SealedFiles:
        """The inventory, by path."""
        store, trees = self._parts.store, self._parts.trees
        tree, under, after = None, b"", None
        if query.under is not None:
            whole = next((x for x in trees if x.root.rstrip(b"/") == query.under.rstrip(b"/")), None)
            found, under = (whole, b"") if whole is not None else trees.locate(query.under)
            tree = found.index
        if query.after is not None:
            last, path = trees.locate(query.after)
            after = (last.index, path)
        page = store.files.list(tree=tree, under=under, after=after, limit=query.limit)
        return a.SealedFiles(tuple(self._sealed(x) for x in page.items), page.more)

    def seal(self, caller: Caller, request: r.SealFiles) -> LongAction:
        """Seal files, in group commits, telling each as it is done."""
        parts = self._parts
        chosen = list(choose(parts.trees, request.paths, recursive=request.recursive, left_out=parts.left_out))
        yield a.Begun(len(chosen))
        for tree, group in _groups(chosen):
            if tree is None:
                yield from (_failed(x) for x in group)
            elif request.dry_run:
                yield from (self._would(x, sealed_name(x.path)) for x in group)
            else:
                results = parts.sealer.seal_many(tree, [x.path for x in group], why=who(caller, request.why))
                yield from (_done(tree, x) for x in results)

    def open(self, caller: Caller, request: r.OpenFiles) -> LongAction:
        """Open sealed files back to their own names."""
        parts = self._parts
        chosen = list(choose(parts.trees, request.paths, recursive=request.recursive, suffix=SUFFIX))
        yield a.Begun(len(chosen))
        for one in chosen:
            if one.tree is None:
                yield _failed(one)
                continue
            if request.dry_run:
                yield self._would(one, original_name(one.path))
                continue
            try:
                yield _done(one.tree, parts.sealer.open(one.tree, one.path, why=who(caller, "asked for")))
            except ShieldError as error:
                yield _failed(one, error)

    def cat(self, caller: Caller, request: r.OnePath, out_fd: int) -> None:
        """Write the verified plaintext of a sealed file."""
        tree, path = self._parts.trees.locate(request.path)
        envelope.open_stream(tree.root_fd, path, self._parts.keys.native, out_fd)

    def status(self, request: r.FilesStatus) -> a.FileStatuses:
        """State of files as they lie there."""
        trees = self._parts.trees
        every = request.recursive
        chosen = list(choose(trees, request.paths, recursive=every, suffix=SUFFIX if every else None))
        held = cache(self._parts.store.quarantine.places)  # at most once for a request, however many are missing
        return a.FileStatuses(tuple(self._status(x, held, verify=request.verify) for x in chosen))

    def _status(self, one: Chosen, held: Callable[[], dict[bytes, str]], *, verify: bool) -> a.FileStatus:
        if one.tree is None:
            error = one.error
            return _status_of(one, "error", code=error.code if error else "", reason=error.message if error else "")
        fd_root, keyring = one.tree.root_fd, self._parts.keys.native
        try:
            head = envelope.header(fd_root, one.path)
        except ShieldError as error:
            return self._not_sealed(one, error, held)
        recipient = head.recipients[0] if head.recipients else None
        try:
            found = envelope.metadata(fd_root, one.path, keyring)
            if verify:
                envelope.verify(fd_root, one.path, keyring)
        except ShieldError as error:
            wrong = False if verify else None
            return _status_of(one, "sealed", code=error.code, reason=error.message, verified=wrong)
        return a.FileStatus(
            path=one.absolute,
            state="sealed",
            original=one.tree.absolute(os.path.join(os.path.dirname(one.path), os.path.basename(found.path))),
            size=found.size,
            sealed_at_ns=found.sealed_at_ns,
            why=found.why,
            key_id=recipient.key_id.hex() if recipient else "",
            key_version=recipient.version if recipient else 0,
            suite=SUITES.get(head.suite, str(head.suite)),
            digest=found.blake3.hex(),
            verified=True if verify else None,
            code="",
            reason="",
        )

    def _not_sealed(self, one: Chosen, error: ShieldError, held: Callable[[], dict[bytes, str]]) -> a.FileStatus:
        if error.code == "file.missing":
            object_id = held().get(one.absolute)
            if object_id is not None:
                return _status_of(one, "quarantined", reason=object_id)
            return _status_of(one, "missing", code=error.code, reason=error.message)
        if error.code not in ("envelope.magic", "envelope.truncated") or one.tree is None:
            return _status_of(one, "error", code=error.code, reason=error.message)
        try:
            fd = open_beneath(one.tree.root_fd, one.path)
        except ShieldError as failure:
            return _status_of(one, "error", code=failure.code, reason=failure.message)
        size = os.fstat(fd).st_size
        os.close(fd)
        if one.path.endswith(SUFFIX):
            return _status_of(one, "error", code=error.code, reason=error.message, size=size)
        return _status_of(one, "plain", size=size)

    def _would(self, one: Chosen, to: bytes) -> a.FileDone:
        """What a dry run says: the same checks of the name, nothing touched."""
        assert one.tree is not None
        try:
            fd = open_beneath(one.tree.root_fd, one.path)
        except ShieldError as error:
            return _failed(one, error)
        size = os.fstat(fd).st_size
        os.close(fd)
        return a.FileDone(one.absolute, Outcome.PENDING, one.tree.absolute(to), "", size, "", "would be done")

    def _sealed(self, x: SealedRecord) -> a.SealedFile:
        root = self._parts.store.roots[x.tree]
        return a.SealedFile(
            path=os.path.join(root, x.path),
            original=os.path.join(root, x.original),
            size=x.size,
            sealed_at_ns=x.sealed_at_ns,
            why=x.why,
            key_version=x.key_version,
            threat_id=x.threat_id,
        )


def _groups(chosen: Sequence[Chosen]) -> Iterator[tuple[GuardedTree | None, list[Chosen]]]:
    """Runs of files of one tree, at most one group commit long."""
    group: list[Chosen] = []
    for one in chosen:
        if group and (one.tree is not group[0].tree or len(group) >= GROUP):
            yield group[0].tree, group
            group = []
        group.append(one)
    if group:
        yield group[0].tree, group


def _done(tree: GuardedTree, x: Result) -> a.FileDone:
    to = tree.absolute(x.to) if x.to else b""
    return a.FileDone(tree.absolute(x.path), x.outcome, to, "", x.size, x.code, x.reason)


def _failed(one: Chosen, error: ShieldError | None = None) -> a.FileDone:
    trouble = error or one.error or ShieldError("file.outside")
    return a.FileDone(one.absolute, Outcome.FAILED, b"", "", 0, trouble.code, trouble.message)


def _status_of(
    one: Chosen, state: str, *, code: str = "", reason: str = "", verified: bool | None = None, size: int = 0
) -> a.FileStatus:
    return a.FileStatus(one.absolute, state, b"", size, 0, "", "", 0, "", "", verified, code, reason)
