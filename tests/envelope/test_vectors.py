"""Golden vectors: each scenario is refused by the layer that its header names, by the core and by the second reader."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from shieldd.errors import CODES, ShieldError
from shieldd.native import envelope as native
from tests.envelope import make_vectors
from tests.envelope.reference import Reader, Refused

VECTORS = {v.name: v for v in make_vectors.vectors()}
WANTED = {
    "torn-slot-a", "torn-slot-b", "torn-both", "generation-wrap", "unknown-suite", "unknown-recipient-kind",
    "recipient-of-another-file", "swapped-chunks", "dropped-last-chunk", "last-flag-early", "empty", "one-chunk",
    "one-chunk-and-a-byte", "trailing-byte", "oversize-metadata", "metadata-non-canonical", "two-keys",
}  # fmt: skip
LAYERS = {
    "magic", "slot", "crc", "suite", "recipient", "header-mac", "commitment", "metadata", "chunk", "truncated",
    "trailing",
}  # fmt: skip


def load(name: str) -> tuple[dict[str, str], bytes]:
    head, _, body = (make_vectors.HERE / f"{name}.vector").read_bytes().partition(b"\n\n")
    return dict(line.split(": ", 1) for line in head.decode().splitlines()), zlib.decompress(body)


def test_every_file_is_a_listed_scenario_and_every_scenario_a_file() -> None:
    assert {path.name for path in make_vectors.HERE.iterdir()} == {f"{name}.vector" for name in VECTORS}
    assert set(VECTORS) >= WANTED


def test_every_layer_refuses_something() -> None:
    refused = {v.expect.removeprefix("envelope.") for v in VECTORS.values()}
    assert refused >= LAYERS
    assert all(v.expect == "pass" or v.expect in CODES for v in VECTORS.values())


@pytest.mark.parametrize("name", VECTORS)
def test_the_file_is_what_the_writer_makes(name: str) -> None:
    head, sealed = load(name)
    assert sealed == VECTORS[name].sealed
    assert head["expect"] == VECTORS[name].expect


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except ShieldError as error:
        return error.code
    except Refused as refused:
        return "keys.version" if refused.layer == "version" else f"envelope.{refused.layer}"
    return "pass"


@pytest.mark.parametrize("name", VECTORS)
def test_the_core_refuses_at_the_named_layer(name: str, tmp_path: Path) -> None:
    head, sealed = load(name)
    (tmp_path / "x.shield").write_bytes(sealed)
    root = os.open(tmp_path, os.O_RDONLY)
    with native.Keyring() as ring, (tmp_path / "out").open("wb") as out:
        ring.add(
            key_id=bytes.fromhex(head["key-id"]), version=int(head["key-version"]), purpose=native.Purpose.FILES,
            key=bytearray.fromhex(head["kek"]), seals=True,
        )  # fmt: skip
        assert outcome(lambda: native.open_stream(root, b"x.shield", ring, out.fileno())) == head["expect"]
        assert outcome(lambda: native.verify(root, b"x.shield", ring)) == head["verify"]
    os.close(root)
    if head["expect"] == "pass":
        assert hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest() == head["sha256"]


@pytest.mark.parametrize("name", VECTORS)
def test_the_second_reader_refuses_at_the_named_layer(name: str) -> None:
    head, sealed = load(name)
    reader = Reader({(bytes.fromhex(head["key-id"]), int(head["key-version"])): bytes.fromhex(head["kek"])})
    assert outcome(lambda: reader.verify(sealed)) == head["verify"]
    if head["expect"] == head["verify"] == "pass":
        assert hashlib.sha256(reader.plain(reader.open(sealed))).hexdigest() == head["sha256"]
