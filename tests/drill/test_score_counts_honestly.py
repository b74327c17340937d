"""What a drill counts, from ledgers made by hand."""

from __future__ import annotations

from dataclasses import replace

from shieldctl.drill.corpus import CorpusFile
from shieldctl.drill.drops import Drop, Expected
from shieldctl.drill.score import DropOutcome, Onslaught, Returned, count, drop_outcome, passed

ROOT = b"/guarded/scratch"
LEDGER = tuple(CorpusFile(b"a/%d.txt" % n, "note", 100, f"{n:064x}") for n in range(6))
ONSLAUGHT = Onslaught("openssl", "", True, 40.0, 42.0, 45.0, 5, 3, 4, 2, 90.0, 1, False)


def returned(path: bytes, how: Expected, sha256: str) -> Returned:
    return Returned(ROOT + b"/" + path, how, 0, sha256)


def test_what_is_nowhere_is_lost_and_what_moved_is_not() -> None:
    in_place = {entry.path: entry.sha256 for entry in LEDGER[:2]}
    in_place[b"elsewhere/renamed"] = LEDGER[2].sha256
    in_place[LEDGER[3].path] = "f" * 64  # overwritten
    back = (returned(LEDGER[4].path, Expected.QUARANTINE, LEDGER[4].sha256),)
    result = count(LEDGER, ROOT, in_place, back)
    assert (result.files, result.in_place, result.lost) == (6, 2, 2)
    assert (result.sealed, result.quarantined, result.brought_back, result.not_brought_back) == (0, 1, 1, 0)


def test_a_sealed_file_that_does_not_open_is_lost() -> None:
    in_place = {entry.path: entry.sha256 for entry in LEDGER[1:]}
    back = (returned(LEDGER[0].path, Expected.SEAL, ""),)
    result = count(LEDGER, ROOT, in_place, back)
    assert (result.lost, result.sealed, result.brought_back, result.not_brought_back) == (1, 1, 0, 1)


def test_taking_a_whole_corpus_file_is_a_false_action_and_taking_its_ruin_is_not() -> None:
    back = (
        returned(LEDGER[0].path, Expected.QUARANTINE, LEDGER[0].sha256),
        returned(LEDGER[1].path, Expected.QUARANTINE, "f" * 64),
        returned(b"a/1.txt.locked", Expected.QUARANTINE, "e" * 64),
    )
    assert count(LEDGER, ROOT, {}, back).false_actions == 1


def test_a_drop_must_be_taken_the_right_way_and_come_back_whole() -> None:
    drop = Drop(b"in/eicar", "EICAR", Expected.QUARANTINE, 0o644, b"x")
    taken = Returned(ROOT + b"/in/eicar", Expected.QUARANTINE, 5_000_000, drop.sha256)
    good = drop_outcome(drop, ROOT, 2_000_000, (taken,))
    assert good == DropOutcome("in/eicar", "EICAR", Expected.QUARANTINE, True, 3.0, True, "")
    assert not drop_outcome(drop, ROOT, 0, (replace(taken, how=Expected.SEAL),)).handled
    assert not drop_outcome(drop, ROOT, 0, ()).handled
    broken = drop_outcome(drop, ROOT, 0, (replace(taken, sha256="", reason="file.full: no space"),))
    assert broken.handled and not broken.returned and broken.reason == "file.full: no space"
    assert passed(ONSLAUGHT, (good,))
    assert not passed(ONSLAUGHT, (good, broken))
    assert not passed(replace(ONSLAUGHT, decided=False), (good,))
