"""Decaying memory: against its definition, and what counts as destroyed or replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldd.model.event import EVENT, FACTS, EventFlag, Kind
from shieldd.model.event import FactFlag as F
from shieldd.native.observe import Windows, schema
from tests.observe import twin

INDEX = schema().index
FORMAT = {name: i for i, name in enumerate(schema().formats)}
S = 1_000_000_000


def records(count: int) -> tuple[np.ndarray, np.ndarray]:
    events, facts = np.zeros(count, EVENT), np.zeros(count, FACTS)
    for name in (
        "entropy",
        "chi_square",
        "prev_entropy",
        "ascii",
        "zero",
        "similarity",
        "encrypted_like",
        "prev_encrypted_like",
    ):
        facts[name] = -1
    facts["block_spread"] = -1
    return events, facts


KINDS = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
STEPS = st.tuples(
    KINDS,
    st.integers(0, 0x3FFF),
    st.integers(1, 3),
    st.sampled_from([0, 1, 1000, S // 100, S // 3, 2 * S, 70 * S]),
    st.integers(0, 6),
    st.integers(0, 5),
    st.sampled_from(
        [0, F.LOOKED, F.LOOKED | F.KNOWN_BEFORE, F.LOOKED | F.TEXT, F.KNOWN_BEFORE | F.EXT_CHANGED | F.LOOKED]
    ),
    st.sampled_from(["unknown", "pdf", "base64", "text", "zip"]),
    st.sampled_from([0.0, 4.5, 7.9]),
)


@settings(max_examples=120, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=40))
def test_counts_are_the_sums_they_are_defined_to_be(steps: list[Any]) -> None:
    events, facts = records(len(steps))
    now = 5 * S
    for i, (kind, ops, actor, dt, directory, name, flags, form, entropy) in enumerate(steps):
        now += dt
        events[i]["kind"], events[i]["ops"], events[i]["actor"], events[i]["mono_ns"] = kind, ops & ~1, actor, now
        events[i]["merged"] = name
        events[i]["flags"] = EventFlag.ATTRIBUTED if actor == 2 else 0
        facts[i]["dir_hash"], facts[i]["name_hash"], facts[i]["path_hash"] = (
            directory,
            1 + name,
            1 + directory * 10 + name,
        )
        facts[i]["flags"], facts[i]["format"], facts[i]["prev_format"] = int(flags), FORMAT[form], FORMAT["pdf"]
        facts[i]["entropy"], facts[i]["prev_entropy"] = entropy, 4.0
    rows = Windows().observe(events, facts)
    memory = twin.Memory()
    for i in range(len(steps)):
        expected = memory.observe(events[i], facts[i])
        for name, value in expected.items():
            if name in INDEX:
                assert rows[i][INDEX[name]] == pytest.approx(value, rel=1e-4, abs=1e-4), (i, name)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_records_give_finite_numbers_in_range(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    seed = data.draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    events = np.frombuffer(rng.bytes(count * EVENT.itemsize), EVENT).copy()
    facts = np.frombuffer(rng.bytes(count * FACTS.itemsize), FACTS).copy()
    special = np.array([np.nan, np.inf, -np.inf, -1, 1e38], np.float32)
    for name in ("entropy", "similarity", "prev_entropy", "encrypted_like", "serial", "chi_square"):
        facts[name] = special[rng.integers(0, 5, facts[name].shape)]
    events["actor"] %= 4
    events["kind"] %= 15
    rows = Windows(actors=3).observe(events, facts)
    assert np.isfinite(rows).all()
    low = np.array([f.min for f in schema().features], np.float32)
    high = np.array([f.max for f in schema().features], np.float32)
    assert (rows >= low).all() and (rows <= high).all()


class Story:
    """Events of one actor, one after another."""

    def __init__(self) -> None:
        self.windows = Windows()
        self.now = 100 * S

    def say(
        self,
        kind: Kind,
        path: int,
        *,
        flags: int = 0,
        after: float = 0.01,
        actor: int = 1,
        event: int = 0,
        **facts: Any,
    ) -> dict[str, float]:
        self.now += int(after * S)
        events, rows = records(1)
        events["kind"], events["actor"], events["mono_ns"], events["flags"] = kind, actor, self.now, event
        rows["path_hash"] = rows["stem_hash"] = rows["name_hash"] = path
        rows["dir_hash"] = 1
        rows["flags"] = flags
        for name, value in facts.items():
            rows[name] = value
        row = self.windows.observe(events, rows)[0]
        return {name: float(row[i]) for name, i in INDEX.items()}

    def delete(self, path: int, size: int = 50_000, **facts: Any) -> dict[str, float]:
        known = {
            "prev_size": size,
            "prev_format": FORMAT["pdf"],
            "prev_entropy": 7.5,
            "prev_content_hash": 10_000 + path,
        }
        return self.say(Kind.DELETE, path, flags=F.KNOWN_BEFORE, **(known | facts))

    def new(
        self, path: int, form: str, size: int = 50_000, *, flags: int = F.STRUCTURE_OK, **facts: Any
    ) -> dict[str, float]:
        entropy = {"entropy": 7.9, "encrypted_like": 0.9}
        return self.say(Kind.WRITE, path, flags=F.LOOKED | flags, size=size, format=FORMAT[form], **(entropy | facts))


def test_gzip_and_remove_destroys_nothing_but_encrypt_and_remove_does() -> None:
    story = Story()
    for i in range(1, 20):
        story.new(1000 + i, "gzip", stem_hash=i)
        row = story.delete(i)
        assert row["replaces"] == 1 and row["destroys"] == 0
    assert row["destroyed_60s"] == 0 and row["replacements_60s"] > 18
    story = Story()
    for i in range(1, 20):
        story.new(1000 + i, "unknown", flags=0, stem_hash=i)
        row = story.delete(i)
        assert row["destroys"] == 1
    assert row["destroyed_10s"] > 17 and row["bad_pairs_10s"] > 17 and row["destroyed_ratio"] > 0.4


def test_declared_encryption_is_no_replacement() -> None:
    story = Story()
    story.new(1001, "gpg", flags=F.STRUCTURE_OK | F.DECLARES_ENCRYPTION, stem_hash=1)
    assert story.delete(1)["bad_pairs_10s"] == 1


def test_random_names_of_like_size_are_paired() -> None:
    story = Story()
    story.new(9_999, "unknown", 50_016, flags=0)
    row = story.delete(1)
    assert row["destroys"] == 1 and row["bad_pairs_10s"] == 1


def test_tar_then_remove_is_covered_as_far_as_the_tar_has_room() -> None:
    story = Story()
    story.new(5000, "tar", 40 * 50_000)
    rows = [story.delete(i) for i in range(1, 41)]
    assert all(r["replaces"] == 1 for r in rows)
    story = Story()
    story.new(5000, "zip", 3_000)
    rows = [story.delete(i) for i in range(1, 41)]
    assert sum(r["destroys"] for r in rows) > 35


def test_copy_and_move_and_own_temporary_files() -> None:
    story = Story()
    story.new(2000, "pdf", content_hash=10_007)
    assert story.delete(7)["replaces"] == 1
    story.new(3000, "unknown", flags=0)
    assert story.delete(3000)["destroys"] == 0  # made by itself a moment ago
    story.new(3001, "pdf")
    assert story.delete(3001, after=0.01)["destroys"] == 0
    assert story.delete(4000)["destroys"] == 1  # somebody's


KNOWN: dict[str, Any] = {
    "prev_size": 50_000,
    "prev_format": FORMAT["pdf"],
    "prev_entropy": 5.0,
    "prev_encrypted_like": 0.0,
}


@pytest.mark.parametrize(
    ("what", "destroys", "facts"),
    [
        ("encrypted in place", 1, {"format": 0, "similarity": 0.0, "encrypted_like": 0.95, "flags": 0}),
        ("filled with zeros", 1, {"format": 0, "similarity": 0.0, "encrypted_like": 0.0, "flags": 0}),
        ("base64 of a cipher", 1, {"format": FORMAT["base64"], "similarity": 0.0, "encrypted_like": 0.0, "flags": 0}),
        ("truncated", 1, {"format": 0, "size": 0, "similarity": -1.0, "flags": 0}),
        ("declares encryption", 1, {"format": FORMAT["pdf"], "flags": F.STRUCTURE_OK | F.DECLARES_ENCRYPTION}),
        ("edited", 0, {"format": FORMAT["pdf"], "similarity": 0.7, "flags": F.STRUCTURE_OK}),
        ("made anew, well-formed", 0, {"format": FORMAT["pdf"], "similarity": 0.0, "flags": F.STRUCTURE_OK}),
        (
            "recompressed",
            0,
            {"format": FORMAT["jpeg"], "similarity": 0.0, "flags": F.STRUCTURE_OK, "encrypted_like": 0.9},
        ),
        ("header kept, body encrypted", 1, {"format": FORMAT["pdf"], "similarity": 0.1, "flags": F.PREV_STRUCTURE_OK}),
        ("could not look", 0, {"format": 0, "flags": F.UNSEEN}),
    ],
)
def test_a_known_file_written(what: str, destroys: int, facts: dict[str, Any]) -> None:
    story = Story()
    looked = 0 if facts["flags"] & F.UNSEEN else F.LOOKED
    given = {"size": 50_000, "entropy": 7.9, **KNOWN, **facts}
    flags = int(given.pop("flags")) | F.KNOWN_BEFORE | looked
    row = story.say(Kind.WRITE, 7, flags=flags, **given)
    assert row["destroys"] == destroys, what
    assert row["overwritten_10s"] == destroys


def test_a_rename_over_a_known_file_destroys_it_unless_it_is_an_edit() -> None:
    story = Story()
    story.new(50, "unknown", flags=0)
    bad = story.say(
        Kind.RENAME, 7, flags=F.LOOKED | F.KNOWN_BEFORE, event=EventFlag.OVER, from_hash=50, size=50_000, entropy=7.9,
        encrypted_like=0.9, similarity=0.0, **KNOWN | {"prev_encrypted_like": 0.0},
    )  # fmt: skip
    assert bad["destroys"] == 1
    story.new(51, "pdf")
    good = story.say(
        Kind.RENAME, 8, flags=F.LOOKED | F.KNOWN_BEFORE | F.STRUCTURE_OK, event=EventFlag.OVER, from_hash=51,
        size=50_000, format=FORMAT["pdf"], entropy=7.5, similarity=0.4, **KNOWN,
    )  # fmt: skip
    assert good["destroys"] == 0


def test_copy_then_truncate_as_log_rotation_does_destroys_nothing() -> None:
    story = Story()
    story.new(60, "text", flags=F.STRUCTURE_OK | F.TEXT, content_hash=77)
    row = story.say(Kind.WRITE, 7, flags=F.LOOKED | F.KNOWN_BEFORE, size=0, **KNOWN, prev_content_hash=77)
    assert row["destroys"] == 0 and row["replaces"] == 1


def test_notes_of_one_name_in_several_directories() -> None:
    story = Story()
    rows = [
        story.say(
            Kind.CREATE,
            900 + i,
            flags=F.LOOKED | F.TEXT,
            size=500,
            name_hash=42,
            dir_hash=10 + i,
            format=FORMAT["text"],
        )
        for i in range(5)
    ]
    assert rows[0]["same_notes_60s"] == 0 and rows[-1]["same_notes_60s"] == pytest.approx(4, abs=0.01)
    assert rows[-1]["directories_60s"] == pytest.approx(5, abs=0.01)


def test_trees_and_host_remember_what_split_actors_did() -> None:
    story = Story()
    for i in range(1, 19):
        row = story.delete(i, actor=i)
    assert row["destroyed_60s"] == 1
    assert row["tree_destroyed_60s"] == pytest.approx(18, abs=0.1) and row["host_destroyed_60s"] == pytest.approx(
        18, abs=0.1
    )


def test_a_flood_of_actors_is_bounded_and_does_not_wash_out_an_attacker() -> None:
    windows = Windows(actors=100)
    events, facts = records(100_000)
    events["kind"] = Kind.WRITE
    events["actor"] = np.arange(100_000) + 10
    events["mono_ns"] = np.arange(100_000) * 1000 + S
    events["kind"][:6] = Kind.DELETE
    events["actor"][:6] = 1
    facts["path_hash"] = np.arange(100_000) + 1
    facts["flags"][:6] = F.KNOWN_BEFORE
    facts["prev_size"][:6] = 5_000
    windows.observe(events, facts)
    stats = windows.stats()
    assert stats.actors == 100 and stats.evicted == 100_000 - 6 + 1 - 100
    last = events[:1].copy()
    last["mono_ns"], last["kind"] = events["mono_ns"][-1] + 1000, Kind.WRITE
    assert windows.observe(last, facts[6:7])[0][INDEX["destroyed_60s"]] > 5


def test_time_that_jumps() -> None:
    story = Story()
    assert story.delete(1)["destroyed_60s"] == 1
    story.now -= 50 * S
    back = story.delete(2)
    assert back["destroyed_60s"] == pytest.approx(2, abs=1e-3) and story.windows.stats().clock_steps == 1
    story.now = 2**63
    far = story.delete(3)
    assert far["destroyed_60s"] == 1
    story.windows.reset()
    assert story.windows.stats().actors == 0


def test_batches_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    events, facts = records(500)
    events["kind"] = rng.integers(1, 6, 500)
    events["actor"] = rng.integers(1, 5, 500)
    events["mono_ns"] = np.cumsum(rng.integers(0, S, 500))
    facts["path_hash"], facts["dir_hash"] = rng.integers(1, 40, 500), rng.integers(1, 8, 500)
    whole = Windows().observe(events, facts)
    windows = Windows()
    parts = [windows.observe(events[i : i + 7], facts[i : i + 7]) for i in range(0, 500, 7)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
