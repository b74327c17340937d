"""Which step from one state of a key to another there is (NIST SP 800-57 part 1, figure 3), and what it allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from shieldd.errors import ShieldError
from shieldd.keys.keystore import KeyVersion
from shieldd.model.key import KeyState

_S = KeyState
STEPS: Final[dict[KeyState, frozenset[KeyState]]] = {
    _S.PRE_ACTIVE: frozenset({_S.ACTIVE, _S.COMPROMISED, _S.DESTROYED}),
    _S.ACTIVE: frozenset({_S.SUSPENDED, _S.DEACTIVATED, _S.COMPROMISED}),
    _S.SUSPENDED: frozenset({_S.ACTIVE, _S.DEACTIVATED, _S.COMPROMISED}),
    _S.DEACTIVATED: frozenset({_S.SUSPENDED, _S.COMPROMISED, _S.DESTROYED}),
    _S.COMPROMISED: frozenset({_S.DESTROYED}),
    _S.DESTROYED: frozenset(),
}
LOADED: Final = frozenset({_S.ACTIVE, _S.DEACTIVATED, _S.COMPROMISED})
"""States whose key is given to the core; only `ACTIVE` seals."""


def moved(version: KeyVersion, state: KeyState, why: str, at_ns: int) -> KeyVersion:
    """The version in another state; raises `keys.state` where there is no such step."""
    if state not in STEPS[version.state]:
        raise ShieldError("keys.state", f"a key cannot go from {version.state.value} to {state.value}")
    return replace(version, state=state, why=why, changed_at_ns=at_ns)
