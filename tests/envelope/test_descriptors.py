"""Sealing and opening what is open already."""

from __future__ import annotations

import os

import pytest

from shieldd.errors import ShieldError
from shieldd.native import envelope as native

from .conftest import Bench, files_options


def _seal(bench: Bench, fd: int, name: bytes = b"object.shield", path: bytes = b"a/b.txt") -> native.Sealed:
    return native.seal_descriptor(fd, path, bench.store, name, bench.keyring, bench.journal, files_options())


@pytest.mark.parametrize("size", [0, 1, 131_072, 3_000_001])
def test_an_unlinked_file_is_sealed_and_comes_back(bench: Bench, size: int) -> None:
    content = os.urandom(size)
    fd = os.open(bench.tree, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(fd, content)
    os.lseek(fd, 7, os.SEEK_SET)

    sealed = _seal(bench, fd)

    assert (sealed.path, sealed.size) == (b"object.shield", size)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    os.close(fd)
    out = os.memfd_create("out")
    held = os.open(b"object.shield", os.O_RDONLY, dir_fd=bench.store)
    opened = native.open_descriptor(held, bench.keyring, out)
    assert os.pread(out, size + 1, 0) == content
    assert opened.metadata.path == b"a/b.txt"
    assert native.verify(bench.store, b"object.shield", bench.keyring).metadata.size == size
    os.close(held)
    os.close(out)


def test_what_has_a_name_keeps_it(bench: Bench) -> None:
    name = bench.write("kept", b"content")
    fd = os.open(name, os.O_RDONLY, dir_fd=bench.root)
    _seal(bench, fd)
    os.close(fd)
    assert bench.read(name) == b"content"


def test_an_existing_object_is_not_overwritten(bench: Bench) -> None:
    name = bench.write("a", b"content")
    fd = os.open(name, os.O_RDONLY, dir_fd=bench.root)
    _seal(bench, fd)
    with pytest.raises(ShieldError) as refused:
        _seal(bench, fd)
    os.close(fd)
    assert refused.value.code == "file.exists"
    assert os.listdir(bench.store) == ["object.shield"]


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_other_than_regular_files_are_refused(bench: Bench, kind: str) -> None:
    if kind == "pipe":
        fd, other = os.pipe()
        os.close(other)
    else:
        fd = os.open(bench.tree, os.O_RDONLY)
    with pytest.raises(ShieldError) as refused:
        _seal(bench, fd)
    os.close(fd)
    assert refused.value.code == ("file.not-regular" if kind == "pipe" else "file.directory")


@pytest.mark.parametrize("path", [b"/etc/passwd", b"../a", b"", b"a//b"])
def test_a_path_that_could_leave_its_tree_is_not_sealed_in(bench: Bench, path: bytes) -> None:
    fd = os.open(bench.write("a", b"x"), os.O_RDONLY, dir_fd=bench.root)
    with pytest.raises(ShieldError) as refused:
        _seal(bench, fd, path=path)
    os.close(fd)
    assert refused.value.code in ("file.outside", "file.name")
