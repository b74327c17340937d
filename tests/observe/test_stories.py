"""Whole stories with real tools: the files are looked at and the events counted as the daemon does it."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from shieldd.model.event import EVENT, Kind
from shieldd.native.observe import Windows, schema
from tests.observe.conftest import Looker, prose
from tests.observe.test_formats import noise

Tool = Callable[..., None]
COUNT = 8
INDEX = schema().index
OPENSSL = ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-iter", "1", "-pass", "pass:x"]


class Scene:
    """A ward's files, known for an hour, and one actor."""

    def __init__(self, look: Looker) -> None:
        self.look, self.windows, self.now = look, Windows(), 10**12
        self.files = [f"report{i}.txt" if i % 2 else f"scan{i}.csv" for i in range(COUNT)]
        for i, name in enumerate(self.files):
            line = b"a,b,c\n" if name.endswith("csv") else b""
            look.bytes(line + prose(20_000, seed=i), name)
        self.row = np.zeros(schema().width, np.float32)

    def event(self, kind: Kind, name: str, old: str | None = None) -> None:
        event = np.zeros(1, EVENT)
        self.now += 5_000_000
        event["kind"], event["mono_ns"], event["actor"] = kind, self.now, 1
        facts = self.look.inspector.inspect(self.look.fd, name.encode(), old.encode() if old else None, kind)
        self.row = self.windows.observe(event, facts)[0]

    def remove(self, name: str) -> None:
        (self.look.root / name).unlink()
        self.event(Kind.DELETE, name)

    def __getitem__(self, name: str) -> float:
        return round(float(self.row[INDEX[name]]), 1)


@pytest.mark.parametrize(
    ("ext", "argv"),
    [
        ("gz", ["gzip", "-c"]),
        ("xz", ["xz", "-c"]),
        ("zst", ["zstd", "-qc"]),
        ("bz2", ["bzip2", "-c"]),
        ("lz", ["lzip", "-c"]),
        ("lzo", ["lzop", "-c"]),
    ],
)
def test_compressing_files_one_by_one_destroys_none(look: Looker, tool: Tool, ext: str, argv: list[str]) -> None:
    scene = Scene(look)
    for name in scene.files:
        tool(*argv, name, cwd=look.root, out=look.root / f"{name}.{ext}")
        scene.event(Kind.WRITE, f"{name}.{ext}")
        scene.remove(name)
    assert scene["destroyed_60s"] == 0 and scene["replacements_60s"] > COUNT - 0.5


@pytest.mark.parametrize("ending", [".locked", ".gz", ".txt"])
def test_encrypting_files_one_by_one_destroys_all(look: Looker, tool: Tool, ending: str) -> None:
    scene = Scene(look)
    for name in scene.files:
        tool(*OPENSSL, "-in", name, cwd=look.root, out=look.root / (name + ending))
        scene.event(Kind.WRITE, name + ending)
        scene.remove(name)
    assert scene["destroyed_60s"] > COUNT - 0.5 and scene["bad_pairs_60s"] > COUNT - 0.5


@pytest.mark.parametrize("how", ["cipher", "base64", "zeros", "gone"])
def test_overwriting_in_place_then_renaming_destroys_each_once(look: Looker, how: str) -> None:
    scene = Scene(look)
    for i, name in enumerate(scene.files):
        path = look.root / name
        content = {"cipher": noise(20_000, i), "base64": noise(10_000, i).hex().encode(), "zeros": b"\0" * 20_000}
        path.write_bytes(content.get(how, b""))
        scene.event(Kind.WRITE, name)
        path.rename(look.root / f"{name}.crypt")
        scene.event(Kind.RENAME, f"{name}.crypt", name)
    assert COUNT - 0.5 < scene["destroyed_60s"] <= COUNT
    assert scene["ext_changes_60s"] > COUNT - 0.5


def test_a_password_on_the_archive_makes_the_difference(look: Looker, tool: Tool) -> None:
    for password, lost in ((None, 0), ("x", COUNT)):
        scene = Scene(look)
        name = f"all{lost}.7z"
        tool("7z", "a", "-bd", *(["-p" + password] if password else []), name, *scene.files, cwd=look.root)
        scene.event(Kind.WRITE, name)
        for name in scene.files:
            scene.remove(name)
        assert scene["destroyed_60s"] == pytest.approx(lost, abs=0.5)


def test_editors_and_tar(look: Looker, tool: Tool) -> None:
    scene = Scene(look)
    for i, name in enumerate(scene.files[:4]):  # write a new file, rename it over the old one
        temporary = f".{name}.tmp{i}"
        old = (look.root / name).read_bytes()
        (look.root / temporary).write_bytes(old[:9_000] + b" and one more line\n" + old[9_000:])
        scene.event(Kind.WRITE, temporary)
        os.rename(look.root / temporary, look.root / name)
        scene.event(Kind.RENAME, name, temporary)
    tool("tar", "cf", "all.tar", *scene.files, cwd=look.root)
    scene.event(Kind.WRITE, "all.tar")
    for name in scene.files:
        scene.remove(name)
    assert scene["destroyed_60s"] == 0


def test_copies_prove_themselves(look: Looker) -> None:
    scene = Scene(look)
    for name in scene.files:
        (look.root / f"moved-{name}").write_bytes((look.root / name).read_bytes())
        scene.event(Kind.WRITE, f"moved-{name}")
        scene.remove(name)
    assert scene["destroyed_60s"] == 0
