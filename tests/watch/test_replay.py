"""Traces: what was recorded comes back; what is no whole trace of ours is refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldd.errors import ShieldError
from shieldd.model.event import Batch
from shieldd.watch.replay import ReplaySource, read, record

from .conftest import BACKENDS, build


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, list[Batch]]:
    """A trace of real events."""
    root = tmp_path / "tree"
    root.mkdir()
    w = build(BACKENDS["native"], [root])
    batches: list[Batch] = []
    for i in range(3):
        (root / f"f{i}").write_bytes(b"x" * i)
        (root / f"f{i}").rename(root / f"g{i}")
        while sum(b.path(row) == b"g%d" % i for b in batches for row in range(len(b))) == 0:
            batch = w.source.next_batch(5)
            assert batch is not None
            batches.append(batch)
    w.source.stop()
    path = tmp_path / "trace.npz"
    assert record(path, batches) == sum(map(len, batches))
    return path, batches


def refused(path: Path) -> str:
    with pytest.raises(ShieldError) as error:
        ReplaySource(path)
    return error.value.code


def test_a_trace_gives_the_same_batches(recorded: tuple[Path, list[Batch]]) -> None:
    path, batches = recorded
    source = ReplaySource(path)
    source.start()
    for before in batches:
        after = source.next_batch(0)
        assert after is not None
        assert np.array_equal(after.events, before.events)
        assert after.facts.tobytes() == before.facts.tobytes()
        assert [after.path(row) for row in range(len(after))] == [before.path(row) for row in range(len(before))]
        assert np.array_equal(after.observations, before.observations)
    assert source.next_batch(0) is None
    assert source.finished
    assert source.status().backend == "replay"
    source.stop()
    with pytest.raises(ShieldError):
        source.next_batch(0)


def test_a_trace_is_private_and_never_overwrites(recorded: tuple[Path, list[Batch]]) -> None:
    path, batches = recorded
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ShieldError) as error:
        record(path, batches)
    assert error.value.code == "file.exists"


def test_an_empty_trace_is_a_trace(tmp_path: Path) -> None:
    record(tmp_path / "empty.npz", [])
    assert list(read(tmp_path / "empty.npz")) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999))
def test_a_truncated_trace_is_refused(recorded: tuple[Path, list[Batch]], cut: float) -> None:
    data = recorded[0].read_bytes()
    short = recorded[0].with_name("short.npz")
    short.write_bytes(data[: int(len(data) * cut)])
    assert refused(short) == "watch.trace"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_a_damaged_trace_is_refused_or_harmless(recorded: tuple[Path, list[Batch]], where: float, bit: int) -> None:
    data = bytearray(recorded[0].read_bytes())
    data[int(len(data) * where)] ^= 1 << bit
    damaged = recorded[0].with_name("damaged.npz")
    damaged.write_bytes(data)
    try:
        for _, _, names in read(damaged):  # a bit in a time stamp of the archive changes nothing
            assert isinstance(names, bytes)
    except ShieldError as error:
        assert error.code in ("watch.trace", "watch.trace-version")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"PK\x05\x06" + bytes(18), b"not a trace at all"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    assert refused(tmp_path / "x.npz") == "watch.trace"


def test_other_arrays_and_versions_are_refused(recorded: tuple[Path, list[Batch]], tmp_path: Path) -> None:
    with np.load(recorded[0], allow_pickle=False) as archive:
        parts = {name: archive[name] for name in archive.files}
    cases: list[tuple[dict[str, object], str]] = [
        ({"magic": np.array("shieldd trace 2")}, "watch.trace-version"),
        ({"schema": np.array(9999)}, "watch.trace-version"),
        ({"dtypes": np.array("other")}, "watch.trace-version"),
        ({"events": parts["events"]["seq"]}, "watch.trace"),
        ({"facts": parts["facts"][:-1]}, "watch.trace"),
        ({"names": parts["names"][:-1]}, "watch.trace"),
        ({"batches": parts["batches"][::-1].copy()}, "watch.trace"),
        ({"more": np.array(1)}, "watch.trace"),
    ]
    for i, (change, code) in enumerate(cases):
        np.savez(tmp_path / f"{i}.npz", **{**parts, **change})
        assert refused(tmp_path / f"{i}.npz") == code, change
    far = parts["events"].copy()
    far["path_off"][-1] = 1 << 30
    np.savez(tmp_path / "far.npz", **{**parts, "events": far})
    assert refused(tmp_path / "far.npz") == "watch.trace"


def test_pickled_arrays_are_never_loaded(recorded: tuple[Path, list[Batch]], tmp_path: Path) -> None:
    with np.load(recorded[0], allow_pickle=False) as archive:
        parts = {name: archive[name] for name in archive.files}
    np.savez(tmp_path / "p.npz", **{**parts, "names": np.array([{"a": 1}], dtype=object)})
    assert refused(tmp_path / "p.npz") == "watch.trace"


def test_a_missing_trace_and_an_archive_of_something_else(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.npz") == "file.missing"
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("hello.txt", os.urandom(10))
    assert refused(tmp_path / "z.npz") == "watch.trace"
