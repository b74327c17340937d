"""One way to look at bytes or files, and to ask for the tools that make them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shieldd.model.event import FactFlag, Kind
from shieldd.native.observe import Inspector, schema


@dataclass(frozen=True, slots=True)
class Seen:
    """Facts of one file, readable."""

    facts: np.void
    format: str
    extension: str
    flags: FactFlag

    def has(self, *flags: FactFlag) -> bool:
        """Whether all of them are set."""
        return all(self.flags & flag for flag in flags)


class Looker:
    """An inspector on a scratch directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        self.inspector = Inspector()

    def at(self, name: str | bytes, *, old: str | None = None, kind: Kind = Kind.WRITE) -> Seen:
        """Inspect a file that is there (or is gone)."""
        path = os.fsencode(name)
        facts: Any = self.inspector.inspect(self.fd, path, os.fsencode(old) if old else None, kind)[0]
        names = schema().formats
        return Seen(facts, names[facts["format"]], names[facts["ext_format"]], FactFlag(int(facts["flags"])))

    def bytes(self, content: bytes, name: str = "file") -> Seen:
        """Write a file and inspect it."""
        (self.root / name).write_bytes(content)
        return self.at(name)


@pytest.fixture
def look(tmp_path: Path) -> Iterator[Looker]:
    """A looker on a fresh directory."""
    root = tmp_path / "tree"
    root.mkdir()
    looker = Looker(root)
    yield looker
    os.close(looker.fd)


@pytest.fixture
def tool() -> Callable[..., None]:
    """Runs a tool; skips the test where it is not installed."""

    def run(
        *argv: str | bytes | Path, cwd: Path | None = None, stdin: bytes | None = None, out: Path | None = None
    ) -> None:
        if shutil.which(str(argv[0])) is None:
            pytest.skip(f"{argv[0]!s} is not installed")
        done = subprocess.run(argv, cwd=cwd, input=stdin, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        if out is not None:
            out.write_bytes(done.stdout)

    return run


def prose(size: int, seed: int = 1) -> bytes:
    """Text that compresses as reports do."""
    words = b"patient heart lung scan report shows no acute finding in left right upper lower lobe of mm stable".split()
    rng = np.random.default_rng(seed)
    text = b" ".join(words[i] for i in rng.integers(0, len(words), size // 4))
    lines = [text[i : i + 72] for i in range(0, len(text), 72)]
    return b"\n".join(lines)[:size]
