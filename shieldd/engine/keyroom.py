"""Key versions and providers as the API shows them; rotation on request."""

from __future__ import annotations

import time
from dataclasses import replace

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller
from shieldd.engine.parts import Parts, who
from shieldd.engine.vault import purpose_named
from shieldd.keys import KeyInfo
from shieldd.native.envelope import Purpose


class KeyRoom:
    """Answers about keys."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def list(self) -> a.Keys:
        """All versions, never a key."""
        return a.Keys(tuple(_info(x) for x in self._parts.keys.list()))

    def rotate(self, caller: Caller, request: r.KeysRotate) -> a.Rotated:
        """New versions; with `due` only for what is due by age or use."""
        keys = self._parts.keys
        purposes: tuple[Purpose, ...] = (purpose_named(request.purpose),) if request.purpose else tuple(Purpose)
        if request.due:
            days = self._parts.config.keys.rotate_after_days
            late = {x.purpose for x in keys.due(days, time.time_ns())}
            purposes = tuple(x for x in purposes if x in late)
        if request.dry_run:
            would = [keys.active(purpose) for purpose in purposes]
            return a.Rotated(tuple(_info(replace(x, version=x.version + 1, objects=0, uses=0)) for x in would), True)
        why = who(caller, "due" if request.due else "asked for")
        if purposes == tuple(Purpose):
            made = list(keys.rotate(None, why))  # one replacement of the keystore for all
        else:
            made = [one for purpose in purposes for one in keys.rotate(purpose, why)]
        return a.Rotated(tuple(_info(x) for x in made), False)

    def providers(self) -> a.Providers:
        """Where the root of the keys is, and how it is."""
        begin = time.perf_counter()
        state = self._parts.keys.provider_state()
        spent_ms = (time.perf_counter() - begin) * 1000
        word = "ready" if state.ready else "locked"
        return a.Providers((a.ProviderInfo(state.name, state.name, word, spent_ms, state.detail),))


def _info(x: KeyInfo) -> a.KeyInfo:
    return a.KeyInfo(
        id=x.key_id.hex(),
        purpose=x.purpose.name.lower(),
        version=x.version,
        state=x.state.value,
        provider=x.provider,
        created_at_ns=x.created_at_ns,
        objects=x.objects,
    )
