"""The table of observations is one: core, Python, man page, and the numbers of the formats."""

from __future__ import annotations

from pathlib import Path

from shieldd.model.decision import Action
from shieldd.native.observe import schema

MAN = Path(__file__).parents[2] / "man" / "shieldd-observation.5.scd"


def page_rows() -> list[str]:
    """The generated lines of the page, as the core's table makes them."""
    lines: list[str] = []
    part = ""
    for feature in schema().features:
        if feature.part != part:
            part = feature.part
            lines += [f"## {part}", ""]
        low, high = (f"{x:g}" for x in (feature.min, feature.max))
        unknown = ", -1 unknown" if feature.unknown else ""
        name = feature.name.replace("_", "\\_")
        unit = feature.unit.replace("*", "\\*")
        lines += [f"*{name}* ({unit}, {low} to {high}{unknown})", f"\t{feature.help}", ""]
    return lines


def test_the_man_page_holds_the_table() -> None:
    text = MAN.read_text(encoding="utf-8")
    generated = text.split("; table begins\n")[1].split("; table ends\n")[0]
    assert generated.strip("\n") == "\n".join(page_rows()).strip("\n"), "run: python -m tests.observe.test_schema"
    assert f"version {schema().version}" in text


def test_actions_are_those_of_the_model() -> None:
    assert schema().actions == tuple(action.name.lower() for action in Action)


def test_numbers_of_formats_stay_what_they_were() -> None:
    """Recorded traces hold them; a new format goes to the end."""
    formats = schema().formats
    pinned = {"unknown": 0, "zip": 1, "gzip": 15, "pdf": 27, "png": 32, "dicom": 51, "sqlite": 59, "hex": 105}
    assert {name: formats.index(name) for name in pinned} == pinned
    assert len(formats) >= 100


def test_columns_are_grouped_and_ranges_make_sense() -> None:
    parts = [f.part for f in schema().features]
    assert [p for i, p in enumerate(parts) if i == 0 or parts[i - 1] != p] == ["file", "operation", "actor", "context"]
    assert all(f.min < f.max for f in schema().features)
    assert all(f.min == -1 for f in schema().features if f.unknown)


if __name__ == "__main__":
    text = MAN.read_text(encoding="utf-8")
    before, rest = text.split("; table begins\n")
    after = rest.split("; table ends\n")[1]
    MAN.write_text(
        before + "; table begins\n\n" + "\n".join(page_rows()) + "\n; table ends\n" + after, encoding="utf-8"
    )
