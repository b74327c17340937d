"""Statistics of the core against their definitions in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.observe import twin
from tests.observe.conftest import Looker, prose

CONTENT = st.one_of(
    st.binary(max_size=700),
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 20_000)).map(lambda x: (x[0] * x[1])[:30_000]),
    st.tuples(st.integers(0, 2**32), st.integers(0, 20_000)).map(
        lambda x: np.random.default_rng(x[0]).integers(0, 256, x[1], np.uint8).tobytes()
    ),
    st.integers(0, 20_000).map(prose),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENT)
def test_statistics_are_what_they_are_defined_to_be(look: Looker, content: bytes) -> None:
    facts = look.bytes(content).facts
    expected = twin.statistics(content)
    assert facts["size"] == len(content)
    for name, value in expected.items():
        np.testing.assert_allclose(facts[name], value, rtol=2e-4, atol=3e-4, err_msg=name)
    assert 0 <= facts["encrypted_like"] <= 1


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 4095, 4096, 4097, 8192, 12_287, 12_288, 12_289, 16_384, 65_536])
def test_edges_of_the_samples(look: Looker, size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    facts = look.bytes(content).facts
    for name, value in twin.statistics(content).items():
        np.testing.assert_allclose(facts[name], value, rtol=2e-4, atol=3e-4, err_msg=name)


def test_similarity_tells_edits_from_ciphers(look: Looker) -> None:
    text = prose(60_000)
    look.bytes(text)
    assert look.bytes(text).facts["similarity"] == 1.0
    edited = text[:20_000] + b" one more line \n" + text[20_000:]
    assert look.bytes(edited).facts["similarity"] > 0.3
    appended = look.bytes(edited + prose(3_000, seed=2)).facts["similarity"]
    assert appended > 0.3
    noise = np.random.default_rng(3).integers(0, 256, 63_000, np.uint8).tobytes()
    assert look.bytes(noise).facts["similarity"] == 0.0
