"""The service's configuration as root, on a file system of its own: what a named attacker did is undone to the byte."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.suite.attacks import ATTACKS, Raid, possible
from bench.suite.ground import Ground, ground, until
from tests.respond.restoring import Whole, state

FILES = 200
ONLY_NAMES = [x for x in ATTACKS if x.name in {"rm -rf", "find -delete", "mv over"} and possible(x)]

pytestmark = pytest.mark.root


@pytest.fixture
def guarded() -> Iterator[Ground]:
    home = Path(tempfile.mkdtemp(prefix="shield-back-"))
    home.chmod(0o755)
    with ground(home) as made:
        yield made
    shutil.rmtree(home)


def corpus(scratch: Path) -> dict[bytes, Whole]:
    """What a drill laid out, with everything that it has."""
    return {path: one for path, one in state(os.fsencode(scratch)).items() if not path.startswith(b".")}


def linked(guarded: Ground) -> None:
    def settled() -> bool:
        (vault,) = guarded.status()["preserve"]["vaults"]
        return not vault["linking"] and vault["files"] >= FILES

    until("all files linked", settled)


@pytest.mark.parametrize("attack", ONLY_NAMES, ids=[x.name for x in ONLY_NAMES])
def test_what_a_named_attacker_did_with_names_is_undone(guarded: Ground, attack: Any) -> None:
    """Without a single copy: links and names alone; whatever else is preserved only adds to it."""
    scratch, _ = guarded.lay_out(FILES)
    guarded.start()
    linked(guarded)
    (vault,) = guarded.status()["preserve"]["vaults"]
    assert vault["path"] == str(guarded.disk / ".shieldd-vault"), "beside the tree, out of its reach"
    place = Path(os.fsdecode(scratch.path))
    before = corpus(place)
    laid_out = datetime.now(UTC).isoformat()
    with_others = guarded.tree / "others.txt"
    with_others.write_text("somebody else's work\n")
    raid = Raid(attack, scratch)
    try:
        until("an end", lambda: raid.over or guarded.contained())
    finally:
        raid.end()
    guarded.fence()

    def counted() -> list[dict[str, Any]]:
        found = guarded.threats()
        return found if found and all(x["files_preserved"] and not x["files_lost"] for x in found) else []

    threats = until("threats that are counted", counted)
    named = [x for x in threats if x["actor"]]
    assert named and named[0]["actor"]["pid"]
    with_others.write_text("goes on\n")
    assert guarded.json("restore", "plan", named[0]["id"])["plan"]["attributed"]
    # who is gone before it could be looked at is nobody: its acts are a threat of the tree's own
    for threat in threats:
        assert guarded.json("restore", "plan", threat["id"])["plan"]["lost"] == 0
        guarded.ctl("restore", "run", threat["id"], "--yes", expect=None)
    for path in [path for path, one in before.items() if corpus(place).get(path) != one]:
        # one file, changed by a process that nobody saw alive, is no threat; it comes back by name
        guarded.ctl("versions", "restore", str(place / os.fsdecode(path)), "--at", laid_out, "--yes")
    after = corpus(place)
    assert {path: after.get(path) for path in before} == before
    assert with_others.read_text() == "goes on\n", "the work of others stays"
    assert guarded.stop() == 0
