"""The page of measurements: what a row becomes, and that a run of one part leaves the others' figures alone."""

from __future__ import annotations

import re

from bench.__main__ import Section, machine, main, measurements, merge, section, table

ROW = {
    "what": "seal 1 GiB",
    "value": 1234.5,
    "unit": "MiB/s",
    "peer": "age 301 MiB/s",
    "ratio": 4.1,
    "target": "≥ 3 × age",
    "met": True,
    "command": "python -m bench envelope",
}


def test_a_row_becomes_a_line_of_the_table() -> None:
    text = table([ROW, ROW | {"what": "open", "met": False, "ratio": None}])
    assert "| seal 1 GiB | 1,234 MiB/s | age 301 MiB/s | 4.10 | ≥ 3 × age | yes |" in text
    assert "| open | 1,234 MiB/s | age 301 MiB/s | – | ≥ 3 × age | **no** |" in text
    assert text.count("python -m bench envelope") == 1


def test_what_ended_early_says_so() -> None:
    text = section(Section("watch", "Watching", (ROW,), "OSError: full", 3.0, (0.1, 0.2)))
    assert "**Ended early:** OSError: full" in text


def test_a_partial_run_keeps_the_other_sections() -> None:
    old = merge("", {"a": "## a\n\nold a\n", "b": "## b\n\nold b\n"}, ["a", "b"])
    new = merge(old, {"b": "## b\n\nnew b\n"}, ["a", "b"])
    assert re.findall(r"(?:old|new) \w", new) == ["old a", "new b"]
    assert merge(new, {}, ["b"]).count("## ") == 1


def test_the_machine_is_named() -> None:
    assert "CPython" in machine()


def test_measurements_are_found_without_running_them() -> None:
    assert "__main__" not in measurements()


def test_an_unknown_measurement_is_a_usage_error(capsys) -> None:
    try:
        main(["no-such-thing"])
    except SystemExit as stop:
        assert stop.code == 2
    assert "no such measurement" in capsys.readouterr().err
