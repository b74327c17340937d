"""What is preserved, in words and numbers, for status, doctor and metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence

from shieldd.api import answers as a
from shieldd.engine.parts import Parts
from shieldd.respond.preserve import Preserving

LINKS: str = "deleted and replaced files are kept by hard links"
COPIES: str = "what is overwritten is copied before (not covered: see hold)"
NO_COPIES: str = "what is overwritten or cut short in place is not kept: nobody holds opens"
OFF: str = "switched off (preserve.enabled): nothing that is destroyed can come back"
NONE: str = "no tree has a vault: nothing that is destroyed can come back"
INSIDE: str = "the vault lies inside a guarded tree: whoever may remove the whole tree as root removes the versions too"


def preserve_status(parts: Parts) -> a.PreserveStatus:
    """What is in force now."""
    custody = parts.custody
    vaults = tuple(_vault(x) for x in custody.status())
    return a.PreserveStatus(state=_state(parts, vaults), means=_means(parts, vaults), vaults=vaults)


def preserve_check(parts: Parts) -> tuple[bool, str, str]:
    """For the doctor: whether all is well, what there is to say, what to do about it."""
    custody = parts.custody
    if custody.keeper is None:
        return False, OFF, "preserve.enabled = true"
    found = [f"{os.fsdecode(parts.trees[index].root)}: {error.message}" for index, error in custody.refused.items()]
    hint = "man shieldd.toml, section preserve"
    for held, now in zip(custody.keeper.held, custody.status(), strict=True):
        found += now.degraded
        if held.inside:
            found.append(INSIDE)
            hint = "ReadWritePaths= of the directory above the tree (man shieldd, SANDBOX), or tree.vault"
    said = preserve_status(parts)
    files = sum(x.files for x in said.vaults)
    gone = sum(x.gone for x in said.vaults)
    return not found, "; ".join(found) or f"{said.means}; {files} files, {gone} of them only in the vault", hint


def preserve_metrics(parts: Parts) -> Sequence[a.Metric]:
    """Numbers of all vaults together."""
    seen = [x.status for x in parts.custody.status()]
    gauge, counter = a.MetricKind.GAUGE, a.MetricKind.COUNTER
    rows = (
        ("shieldd_preserved_versions", gauge, "versions in the vaults", sum(x.versions for x in seen)),
        ("shieldd_preserved_gone", gauge, "files that exist in a vault alone", sum(x.orphans for x in seen)),
        ("shieldd_preserved_bytes", gauge, "bytes that the vaults keep from being free", sum(x.used for x in seen)),
        ("shieldd_preserved_pins", gauge, "incidents that hold versions", sum(x.pins for x in seen)),
        ("shieldd_preserve_failed_total", counter, "files that could not be kept",
         sum(x.failed + x.no_room + x.too_large for x in seen)),
    )  # fmt: skip
    return tuple(a.Metric(name, kind, text, (a.Sample({}, float(value)),)) for name, kind, text, value in rows)


def _vault(x: Preserving) -> a.VaultState:
    status = x.status
    return a.VaultState(
        path=x.path,
        trees=x.trees,
        linking=bool(x.linking),
        versions=status.versions,
        files=status.links + status.images + status.ranges,
        gone=status.orphans,
        size=status.used,
        pins=status.pins,
        degraded=x.degraded,
    )


def _state(parts: Parts, vaults: tuple[a.VaultState, ...]) -> str:
    if parts.custody.keeper is None:
        return "off"
    if not vaults:
        return "none"
    return "partly" if parts.custody.refused or any(x.degraded for x in vaults) else "on"


def _means(parts: Parts, vaults: tuple[a.VaultState, ...]) -> str:
    if parts.custody.keeper is None:
        return OFF
    if not vaults:
        return NONE
    kept = [LINKS] if parts.config.preserve.hardlinks else []
    holding = parts.holding.status()
    return "; ".join((*kept, COPIES if holding is not None and holding.running else NO_COPIES))
