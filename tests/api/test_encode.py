"""Answers to JSON: times, names, enums, and the Prometheus text."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldd.api.answers import Instant, Metric, MetricKind, Sample
from shieldd.api.encode import dumps, encode, rfc3339
from shieldd.api.exposition import exposition
from shieldd.api.requests import OnePath
from shieldd.api.strict import from_json, from_query
from tests.api.memory import NASTY, MemoryEngine, event, threat


def test_times_are_utc_with_milliseconds_and_null_for_never() -> None:
    assert rfc3339(0) is None
    assert rfc3339(1_763_730_000_123_999_999) == "2025-11-21T13:00:00.123Z"


@given(st.integers(1, 253_402_300_799 * 10**9))
def test_every_time_has_the_same_form(at_ns: int) -> None:
    text = rfc3339(at_ns)
    assert text is not None
    assert len(text) == 24
    assert text.endswith("Z")


@given(st.binary(max_size=300))
def test_a_name_in_json_is_one_line_and_its_bytes_come_back(name: bytes) -> None:
    line = dumps(event(1, name))
    assert b"\n" not in line
    value = json.loads(line)
    assert value["path"].isprintable()
    back = base64.b64decode(value["path_b64"]) if "path_b64" in value else value["path"].encode()
    assert back == name


def test_a_threat_has_the_shape_that_others_rely_on() -> None:
    value = encode(threat("i1"))
    assert list(value)[:16] == [
        "id", "opened_at", "closed_at", "state", "severity", "actor", "tree", "actions", "files_touched", "files_lost",
        "first_event_at", "decided_at", "contained_at", "reasons", "attack", "verdict",
    ]  # fmt: skip
    assert value["severity"] == "critical"
    assert value["closed_at"] is None
    assert list(value["actions"][0]) == ["id", "threat_id", "kind", "path", "at", "outcome", "reason", "undo"]
    assert {"feature", "contribution"} <= set(value["reasons"][0])


def test_a_number_that_json_does_not_have_is_null() -> None:
    @dataclass(frozen=True, slots=True)
    class Numbers:
        a: float
        b: float
        at_ns: Instant

    globals()["Numbers"] = Numbers
    assert encode(Numbers(float("nan"), float("-inf"), 0)) == {"a": None, "b": None, "at": None}


def test_configuration_values_of_any_kind() -> None:
    answer = MemoryEngine().config()
    values = {"name": b"/srv/\xff", "list": (1, 2.5, None, True), "set": frozenset({1}), "deep": {"x": {"y": "z"}}}
    object.__setattr__(answer, "values", values)
    shown = encode(answer)["values"]
    assert shown == {"name": "/srv/\\xff", "list": [1, 2.5, None, True], "set": [1], "deep": {"x": {"y": "z"}}}


@given(st.binary(min_size=1, max_size=60).filter(lambda raw: not set(raw) & {0, 0x2F} and raw not in (b".", b"..")))
def test_a_path_arrives_as_the_same_bytes_by_body_and_by_query(name: bytes) -> None:
    path = b"/srv/" + name
    wire = {"path": {"path_b64": base64.b64encode(path).decode()}}
    assert from_json(OnePath, json.dumps(wire).encode(), {}).path == path
    percent = b"".join(b"%%%02X" % byte for byte in path)
    assert from_query(OnePath, b"path=" + percent, {}).path == path


@pytest.mark.parametrize(
    ("given_path", "path"), [("//srv//phi/", b"/srv/phi"), ("/srv/./phi", b"/srv/phi"), ("/", b"/")]
)
def test_paths_are_made_plain(given_path: str, path: bytes) -> None:
    assert OnePath(path=given_path.encode()).path == path


def test_exposition_escapes_and_keeps_whole_numbers() -> None:
    metric = Metric(
        "shieldd_x_total", MetricKind.COUNTER, "a\nb\\c", (Sample({"b": 'q"\n\\', "a": "1"}, 3), Sample({}, 0.5))
    )
    assert exposition([metric]).decode().splitlines() == [
        "# HELP shieldd_x_total a\\nb\\\\c",
        "# TYPE shieldd_x_total counter",
        'shieldd_x_total{a="1",b="q\\"\\n\\\\"} 3',
        "shieldd_x_total 0.5",
    ]


def test_no_patient_path_in_the_metrics_of_the_api() -> None:
    assert NASTY not in exposition(MemoryEngine().metrics())
