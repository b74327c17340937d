"""Values as a person types them, and text as a terminal may see it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldctl.options import BODY_BYTES, bodies, since_ns
from shieldctl.render import clean, size
from shieldd.api.strict import BODY_MAX
from shieldd.errors import ShieldError

NOW_NS = 1_763_730_000_000_000_000


@pytest.mark.parametrize(
    ("text", "ago_s"), [("0s", 0), ("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172_800), ("1w", 604_800)]
)
def test_ages(text: str, ago_s: int) -> None:
    assert since_ns(text, now_ns=NOW_NS) == NOW_NS - ago_s * 1_000_000_000


def test_an_age_before_1970_is_1970() -> None:
    assert since_ns("9999w", now_ns=NOW_NS) == 0


@pytest.mark.parametrize(
    "text", ["2025-11-21T13:00:00Z", "2025-11-21T13:00:00.000+00:00", "2025-11-21T14:00+01:00", "20251121T130000Z"]
)
def test_points_in_time(text: str) -> None:
    assert since_ns(text) == NOW_NS


@pytest.mark.parametrize(
    "text", ["", "h", "-1h", "1y", "1.5h", "yesterday", "2025-13-01", "1h1m", "١h", "1969-01-01T00:00Z"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ShieldError) as caught:
        since_ns(text)
    assert caught.value.code == "cli.usage"


@given(st.text(max_size=100))
def test_no_text_is_a_crash(text: str) -> None:
    try:
        since_ns(text)
    except ShieldError as error:
        assert error.code == "cli.usage"


@given(st.text(max_size=200))
def test_clean_text_is_printable_and_one_line(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


@given(st.binary(max_size=50))
def test_stray_bytes_are_shown(raw: bytes) -> None:
    assert clean(raw.decode("utf-8", "surrogateescape")).isprintable()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (2**30, "1 GiB"), (2**40 * 1234, "1234 TiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@given(st.lists(st.binary(min_size=1, max_size=4000).filter(lambda raw: 0 not in raw), max_size=300))
def test_requests_stay_within_the_limit_and_keep_the_order(names: list[bytes]) -> None:
    typed = [name.decode("utf-8", "surrogateescape") for name in names]
    portions = bodies(typed)
    assert sum(len(portion) for portion in portions) == len(names)
    for portion in portions:
        assert (
            len(json.dumps({"paths": portion, "recursive": False, "why": "x" * 200, "dry_run": False})) < BODY_MAX * 2
        )
        assert len(portion) <= 1 or sum(len(json.dumps(one)) for one in portion) <= BODY_BYTES * 2
