"""Canaries look like their neighbours, cannot be foretold, and overwrite nothing."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldd.detect.canary import PER_DIRECTORY, plan

SECRET = b"k" * 32
NAMES = st.binary(min_size=1, max_size=30).filter(lambda x: b"/" not in x and b"\0" not in x)


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=8), max_size=6), st.integers(0, 20))
def test_a_plan_keeps_its_promises(directories: dict[bytes, list[bytes]], count: int) -> None:
    chosen = plan(directories, SECRET, count=count)
    assert len(chosen) <= count and len({x.path for x in chosen}) == len(chosen)
    for canary in chosen:
        directory, _, name = canary.path.rpartition(b"/")
        assert name not in directories[directory]
        assert len(canary.content) > 200 and canary.age_s > 0
    for directory in directories:
        assert sum(x.path.rpartition(b"/")[0] == directory for x in chosen) <= PER_DIRECTORY


def test_names_follow_the_secret_and_nothing_else() -> None:
    tree = {b"reports": [b"a.docx", b"b.docx", b"c.pdf"], b"": [b"x.csv"]}
    assert plan(tree, SECRET, count=4) == plan(tree, SECRET, count=4)
    assert {x.path for x in plan(tree, SECRET, count=4)} != {x.path for x in plan(tree, b"z" * 32, count=4)}
    with pytest.raises(ValueError, match="16 bytes"):
        plan(tree, b"short", count=1)


@pytest.mark.parametrize("extension", [b".txt", b".csv", b".pdf", b".docx", b".xml", b".rtf"])
def test_a_canary_has_its_neighbours_extension_and_a_whole_content(extension: bytes) -> None:
    tree = {b"d": [b"one" + extension, b"two" + extension]}
    first, last = sorted(plan(tree, SECRET, count=2), key=lambda x: x.path)
    assert first.path.endswith(extension) and last.path.endswith(extension)
    assert first.path < b"d/one" < last.path
    if extension == b".docx":
        with zipfile.ZipFile(io.BytesIO(first.content)) as package:
            assert package.testzip() is None and "word/document.xml" in package.namelist()
    if extension == b".pdf":
        at = int(first.content.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
        assert first.content[at:].startswith(b"xref")
