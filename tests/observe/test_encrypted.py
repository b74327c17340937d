"""How well facts tell what ciphers wrote from what compressors wrote, measured on the output of real tools."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from shieldd.model.event import FactFlag as F
from shieldd.model.event import Kind
from tests.observe.conftest import Looker, prose

COMPRESSORS = [["gzip", "-c"], ["bzip2", "-c"], ["xz", "-c"], ["zstd", "-qc"], ["zstd", "-19", "-qc"], ["lz4", "-qc"]]
CIPHERS = [
    ["openssl", "enc", f"-{name}", "-pbkdf2", "-iter", "1", "-pass", "pass:x"]
    for name in ("aes-256-ctr", "aes-256-cbc", "chacha20")
]


def sources() -> list[bytes]:
    """Real text and binary files of this machine, and text of ours."""
    rng = random.Random(11)
    places = [sorted(Path("/usr/share/perl").rglob("*.p[lm]")), sorted(Path("/usr/bin").iterdir())]
    found: list[Path] = []
    for place in places:
        found += [p for p in place if p.is_file() and not p.is_symlink() and 60_000 < p.stat().st_size < 400_000][:40]
    rng.shuffle(found)
    return [p.read_bytes() for p in found[:16]] + [prose(80_000, seed) for seed in range(8)]


def run(argv: list[str], content: bytes) -> bytes:
    return subprocess.run(argv, input=content, capture_output=True, check=True, timeout=60).stdout


@pytest.mark.slow
def test_ciphers_are_told_from_compressors(look: Looker, capsys: pytest.CaptureFixture[str]) -> None:
    groups = ("plain", "compressor", "cipher", "stripped cipher", "partly", "partly, zstd")
    outcome: dict[str, Counter[str]] = {name: Counter() for name in groups}
    scores: dict[str, list[float]] = {name: [] for name in groups}

    def judge(group: str, content: bytes) -> None:
        seen = look.bytes(content, "f")
        (look.root / "f").unlink()
        look.at("f", kind=Kind.DELETE)
        well = seen.has(F.STRUCTURE_OK) and not seen.has(F.DECLARES_ENCRYPTION)
        outcome[group]["well-formed" if well else "not well-formed"] += 1
        scores[group].append(float(seen.facts["encrypted_like"]))

    for i, content in enumerate(sources()):
        judge("plain", content)
        for argv in COMPRESSORS:
            judge("compressor", run(argv, content))
        sealed = run(CIPHERS[i % 3], content)
        judge("cipher", sealed)
        judge("stripped cipher", sealed[16:])
        packed = run(COMPRESSORS[i % 6], content)
        # zstd has nothing to check between the headers of its blocks, which lie 128 KiB apart: told, not promised
        group = "partly, zstd" if COMPRESSORS[i % 6][0] == "zstd" else "partly"
        judge(group, packed[:64] + run(CIPHERS[i % 3], packed)[80:])

    with capsys.disabled():
        print()
        for group, counts in outcome.items():
            like = sum(s >= 0.5 for s in scores[group]) / len(scores[group])
            good = counts["well-formed"]
            print(f"  {group:16} well-formed {good:4} of {counts.total():4}, bytes look encrypted {like:.0%}")
    assert outcome["cipher"]["well-formed"] == outcome["stripped cipher"]["well-formed"] == 0
    assert outcome["compressor"]["not well-formed"] == 0
    assert outcome["plain"]["not well-formed"] == 0
    assert outcome["partly"]["well-formed"] == 0
    assert sum(s >= 0.5 for s in scores["stripped cipher"]) >= 0.95 * len(scores["stripped cipher"])
    assert max(scores["plain"]) < 0.5
