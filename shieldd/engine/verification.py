"""Re-checks what lies sealed: every tag, the commitment and the digest, without opening anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import LongAction
from shieldd.engine.parts import Parts
from shieldd.engine.selection import choose
from shieldd.errors import ShieldError
from shieldd.model.decision import Outcome
from shieldd.native import envelope
from shieldd.respond.seal import SUFFIX

PAGE = 1000


class Verification:
    """Answers `files verify`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def run(self, request: r.VerifyFiles) -> LongAction:
        """The files named, or all of the inventory and the quarantine, each read to its end."""
        if request.paths:
            yield from self._named(request)
            return
        yield a.Begun(-1)
        yield from self._inventory()
        yield from self._held()

    def _named(self, request: r.VerifyFiles) -> LongAction:
        every = request.recursive
        trees = self._parts.trees
        chosen = list(choose(trees, request.paths, recursive=every, suffix=SUFFIX if every else None))
        yield a.Begun(len(chosen))
        for one in chosen:
            if one.tree is None:
                yield _result(one.absolute, "", 0, one.error or ShieldError("file.outside"))
            else:
                yield self._check(one.tree.root_fd, one.path, one.absolute)

    def _inventory(self) -> Iterator[a.FileDone]:
        store, trees = self._parts.store, self._parts.trees
        after: tuple[int, bytes] | None = None
        while True:
            page = store.files.list(tree=None, under=b"", after=after, limit=PAGE)
            for x in page.items:
                path = os.path.join(store.roots[x.tree], x.path)
                if x.tree < len(trees):
                    yield self._check(trees[x.tree].root_fd, x.path, path)
                else:
                    reason = "its tree is not guarded any more"
                    yield a.FileDone(path, Outcome.SKIPPED, b"", "", x.size, "", reason)
            if not page.more or not page.items:
                return
            after = (page.items[-1].tree, page.items[-1].path)

    def _held(self) -> Iterator[a.FileDone]:
        store, directory_fd = self._parts.store, self._parts.quarantine.directory_fd
        after: str | None = None
        while True:
            page = store.quarantine.list(after=after, limit=PAGE)
            for x in page.items:
                original = os.path.join(store.roots[x.tree], x.original)
                yield self._check(directory_fd, x.id.encode() + SUFFIX, original, object_id=x.id)
            if not page.more or not page.items:
                return
            after = page.items[-1].id

    def _check(self, root_fd: int, path: bytes, shown: bytes, *, object_id: str = "") -> a.FileDone:
        try:
            found = envelope.verify(root_fd, path, self._parts.keys.native)
        except ShieldError as error:
            return _result(shown, object_id, 0, error)
        return _result(shown, object_id, found.metadata.size, None)


def _result(path: bytes, object_id: str, size: int, error: ShieldError | None) -> a.FileDone:
    if error is not None:
        return a.FileDone(path, Outcome.FAILED, b"", object_id, size, error.code, error.message)
    return a.FileDone(path, Outcome.DONE, b"", object_id, size, "", "")
