"""From a configuration to what decides: the policy that may be trusted, the guard's rules, the signatures.

A policy that is refused never stops the daemon: it goes on with the hard rules alone, and says so.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from shieldd.config import Config
from shieldd.detect import manifest
from shieldd.detect.policy import Policy
from shieldd.detect.rules import GuardRules, Mode, Trust
from shieldd.errors import ShieldError
from shieldd.native import observe
from shieldd.scan import Scanner

SHIPPED_POLICY: Final = Path(__file__).parent / "policy"
SHIPPED_RULES: Final = Path(__file__).parent / "rules"

log = structlog.get_logger("shieldd.judge")


@dataclass(frozen=True, slots=True)
class PolicyState:
    """The policy in force, or why there is none: active, off, refused."""

    state: str
    policy: Policy | None
    directory: Path | None
    code: str = ""
    reason: str = ""


def load_policy(config: Config) -> PolicyState:
    """The configured policy, verified; refused ones are reported, never raised."""
    if not config.policy.enabled:
        return PolicyState("off", None, None, reason="switched off in the configuration; hard rules alone")
    directory = config.policy.directory or SHIPPED_POLICY
    try:
        key = manifest.read_key(directory / manifest.KEY_NAME)
        policy = Policy.load(directory, observe.schema(), key)
    except ShieldError as error:
        log.error("policy refused, hard rules alone", code=error.code)
        return PolicyState("refused", None, directory, error.code, error.message)
    return PolicyState("active", policy, directory)


def shipped_version() -> str:
    """Version that the shipped manifest names, empty where none came with the package."""
    try:
        return str(json.loads((SHIPPED_POLICY / manifest.MANIFEST_NAME).read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def rules(config: Config) -> GuardRules:
    """The guard's snapshot of a configuration."""
    guard = config.guard
    index = {tree.path: at for at, tree in enumerate(config.tree)}
    return GuardRules(
        modes=tuple(Mode(tree.mode.value) for tree in config.tree),
        trust=tuple(
            Trust(entry.exe_sha256, index[entry.tree], entry.budget) for entry in guard.trust if entry.tree in index
        ),
        own_pids=frozenset({os.getpid()}),
        contain_limit=guard.contain_limit,
        quarantine_limit=guard.quarantine_limit,
        seal_limit=guard.seal_limit,
        limit_window_s=guard.limit_window_s,
        destroyed_limit=guard.destroyed_limit,
        removed_limit=guard.removed_limit,
        destroyed_window_s=guard.destroyed_window_s,
        contained_for_s=guard.contained_for_s,
        hold_in_alert_only=config.contain.release_after_s > 0,
    )


def scanner(config: Config) -> Scanner:
    """Signatures: the shipped rules and what the configuration adds.

    Raises:
        ShieldError: `scan.rules`, `scan.digests`.
    """
    shipped = sorted(SHIPPED_RULES.glob("*.yar"))
    return Scanner.load(
        [*shipped, *config.guard.yara_rules], list(config.guard.digests), scan_limit_bytes=config.guard.scan_limit_bytes
    )
