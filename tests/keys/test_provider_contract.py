"""The contract of `shieldd.keys.contract.Provider`, run on every provider there is."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldd.config import Unlock
from shieldd.errors import ShieldError
from shieldd.keys import LocalProvider, Provider, Secret
from tests.keys.build import CREDENTIAL, PASSPHRASE

Maker = tuple[Callable[[], Provider], Callable[[dict[str, object]], Provider]]


def local(method: Unlock, value: bytes) -> Maker:
    secret = Secret(method, lambda: bytearray(value))
    return lambda: LocalProvider.create(secret), lambda exported: LocalProvider.open(secret, exported)


PROVIDERS = {
    "local-credential": local(Unlock.CREDENTIAL, CREDENTIAL),
    "local-keyfile": local(Unlock.KEYFILE, CREDENTIAL),
    "local-passphrase": local(Unlock.PASSPHRASE, PASSPHRASE),
}


@pytest.fixture(params=PROVIDERS)
def maker(request: pytest.FixtureRequest) -> Maker:
    return PROVIDERS[str(request.param)]


@pytest.fixture
def provider(maker: Maker) -> Provider:
    return maker[0]()


def again(maker: Maker, provider: Provider) -> Provider:
    """The provider of the next start, from what the keystore kept."""
    return maker[1](json.loads(json.dumps(provider.export())))


def test_keys_are_fresh_and_whole(provider: Provider) -> None:
    keys = [provider.generate() for _ in range(20)]
    assert {len(key) for key in keys} == {32}
    assert len({bytes(key) for key in keys}) == 20
    assert all(isinstance(key, bytearray) for key in keys)


def test_a_wrap_opens_with_its_context_here_and_after_a_restart(maker: Maker, provider: Provider) -> None:
    key = provider.generate()
    before = bytes(key)
    wrapped = provider.wrap(key, b"context")
    assert bytes(key) == before
    assert before not in wrapped
    assert provider.wrap(key, b"context") != wrapped
    for one in (provider, again(maker, provider)):
        first, second = one.unwrap(wrapped, b"context"), one.unwrap(wrapped, b"context")
        assert first == second == key
        assert first is not second
        assert isinstance(first, bytearray)


@pytest.mark.parametrize("change", ["context", "flip", "cut", "longer", "empty"])
def test_what_was_altered_is_refused(provider: Provider, change: str) -> None:
    wrapped, context = provider.wrap(provider.generate(), b"context"), b"context"
    match change:
        case "context":
            context = b"contexu"
        case "flip":
            wrapped = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
        case "cut":
            wrapped = wrapped[:-1]
        case "longer":
            wrapped += b"\0"
        case "empty":
            wrapped = b""
    with pytest.raises(ShieldError) as caught:
        provider.unwrap(wrapped, context)
    assert caught.value.code == "keys.wrapped"


def test_the_wrap_of_another_is_refused(maker: Maker, provider: Provider) -> None:
    wrapped = maker[0]().wrap(provider.generate(), b"c")
    with pytest.raises(ShieldError) as caught:
        provider.unwrap(wrapped, b"c")
    assert caught.value.code == "keys.wrapped"


def test_a_new_root_opens_what_the_old_one_wrapped_until_it_retires(maker: Maker, provider: Provider) -> None:
    key = provider.generate()
    old = provider.wrap(key, b"c")
    provider.rotate()
    new = provider.wrap(key, b"c")
    later = again(maker, provider)
    assert provider.unwrap(old, b"c") == provider.unwrap(new, b"c") == later.unwrap(old, b"c") == key
    provider.retire()
    provider.retire()
    assert provider.unwrap(new, b"c") == again(maker, provider).unwrap(new, b"c") == key
    for one in (provider, again(maker, provider)):
        with pytest.raises(ShieldError) as caught:
            one.unwrap(old, b"c")
        assert caught.value.code == "keys.wrapped"


def test_its_state_is_always_told(provider: Provider) -> None:
    assert provider.state().ready
    provider.wrap(provider.generate(), b"c")
    assert provider.state().latency_ms >= 0
    provider.close()
    provider.close()
    assert not provider.state().ready
    for use in (lambda: provider.wrap(bytearray(32), b""), lambda: provider.unwrap(b"x" * 99, b""), provider.rotate):
        with pytest.raises(ShieldError) as caught:
            use()
        assert caught.value.code == "keys.locked"


def test_nothing_of_a_secret_is_shown(provider: Provider) -> None:
    key = provider.generate()
    provider.wrap(key, b"c")
    shown = repr(provider) + str(provider) + repr(provider.state()) + json.dumps(provider.export())
    for secret in (CREDENTIAL, PASSPHRASE, bytes(key)):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "version", "unlock", "wrapped", "method", "salt"]), inner, max_size=4)
    ),
)


class TestLocalExport:
    """Whatever stands in a keystore instead of roots is refused by name."""

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(junk=JUNK)
    def test_junk(self, junk: object) -> None:
        secret = Secret(Unlock.KEYFILE, lambda: bytearray(CREDENTIAL))
        with pytest.raises(ShieldError) as caught:
            LocalProvider.open(secret, {"roots": junk})
        assert caught.value.code in ("keys.store", "keys.secret", "keys.unlock")

    @pytest.mark.parametrize(
        ("field", "value"),
        [("memory_kib", 1 << 30), ("memory_kib", True), ("passes", 10**9), ("lanes", 0), ("salt", "00"), ("salt", 5)],
    )
    def test_costs_that_would_exhaust_the_host(self, field: str, value: object) -> None:
        secret = Secret(Unlock.PASSPHRASE, lambda: bytearray(PASSPHRASE))
        exported = json.loads(json.dumps(LocalProvider.create(secret).export()))
        exported["roots"][0]["unlock"][field] = value
        with pytest.raises(ShieldError) as caught:
            LocalProvider.open(secret, exported)
        assert caught.value.code == "keys.store"

    def test_an_altered_salt_is_a_wrong_key(self) -> None:
        secret = Secret(Unlock.KEYFILE, lambda: bytearray(CREDENTIAL))
        exported = json.loads(json.dumps(LocalProvider.create(secret).export()))
        exported["roots"][0]["unlock"]["salt"] = "00" * 16
        with pytest.raises(ShieldError) as caught:
            LocalProvider.open(secret, exported)
        assert caught.value.code == "keys.unlock"
