"""From what a caller names to the files that are meant: one tree and one relative path each."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shieldd.errors import ShieldError
from shieldd.native.files import is_own_name, open_beneath
from shieldd.respond import GuardedTree, Trees


@dataclass(frozen=True, slots=True)
class Chosen:
    """One file that is meant, or why a name that was given cannot be used."""

    asked: bytes
    tree: GuardedTree | None
    path: bytes
    error: ShieldError | None = None

    @property
    def absolute(self) -> bytes:
        """Full name for answers."""
        return self.tree.absolute(self.path) if self.tree is not None else self.asked


def choose(
    trees: Trees,
    paths: Sequence[bytes],
    *,
    recursive: bool,
    suffix: bytes | None = None,
    left_out: Callable[[GuardedTree, bytes], str] = lambda tree, path: "",
) -> Iterator[Chosen]:
    """Expand names to files.

    Args:
        paths: absolute; a directory stands for every regular file beneath it when `recursive`, else it is an error.
        left_out: why a file is never meant (a code, empty where it may be): passed over in a directory, refused when
            named.
        suffix: of a directory only files that end in it; with None only those that do not end in `.shield`.
    """
    for asked in paths:
        try:
            if recursive:
                yield from (x for x in _beneath(trees, asked, suffix) if not (x.tree and left_out(x.tree, x.path)))
                continue
            tree, path = trees.locate(asked)
        except ShieldError as error:
            yield Chosen(asked, None, b"", error)
            continue
        if code := left_out(tree, path):
            yield Chosen(asked, None, b"", ShieldError(code, path=asked))
            continue
        yield Chosen(asked, tree, path)


def _beneath(trees: Trees, asked: bytes, suffix: bytes | None) -> Iterator[Chosen]:
    whole = next((tree for tree in trees if tree.root.rstrip(b"/") == asked.rstrip(b"/")), None)
    tree, path = (whole, b".") if whole is not None else trees.locate(asked)
    try:
        fd = open_beneath(tree.root_fd, path, os.O_DIRECTORY)  # the kernel refuses a link anywhere on the way
    except ShieldError as error:
        if error.errno != errno.ENOTDIR:
            raise
        yield Chosen(asked, tree, path)
        return
    try:
        for top, directories, names, _ in os.fwalk(b".", dir_fd=fd, follow_symlinks=False):
            directories.sort()
            for name in sorted(names):
                ours = is_own_name(name)
                wanted = name.endswith(suffix) if suffix is not None else not name.endswith(b".shield")
                if wanted and not ours:
                    yield Chosen(asked, tree, os.path.normpath(os.path.join(path, top, name)))
    finally:
        os.close(fd)
