"""The whole drill against the real API with a guard that follows rules: it passes when it should, and only then."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shieldctl.client import Client
from shieldctl.drill import rehearsal
from shieldctl.drill.daemon import Daemon
from shieldctl.drill.rehearsal import Orders, Report, rehearse
from shieldd.api.listen import listen
from shieldd.api.server import ApiServer
from shieldd.errors import ShieldError
from shieldd.model.incident import State

from .rule_engine import RuleEngine

FILES = 60


@contextmanager
def guarded(tmp_path: Path, **rules: Any) -> Iterator[tuple[RuleEngine, Path]]:
    root = tmp_path / "guarded"
    root.mkdir()
    engine = RuleEngine(root, **rules)
    server = ApiServer(engine, listen(bytes(tmp_path / "s")), version="0.1.0")
    server.start()
    try:
        yield engine, root
    finally:
        engine.stop()
        server.stop()


def drill(tmp_path: Path, **changes: Any) -> Report:
    orders = Orders(**{"files": FILES, "seed": 3, "tool": "openssl", "place": None, "keep": False, **changes})
    return rehearse(Daemon(Client(str(tmp_path / "s"))), orders, lambda _: None)


def test_it_passes_and_leaves_nothing(tmp_path: Path) -> None:
    with guarded(tmp_path) as (engine, root):
        report = drill(tmp_path)
        assert report.passed and report.onslaught.decided
        assert 0 <= report.onslaught.decision_ms <= report.onslaught.ended_ms
        assert 3 <= report.onslaught.touched < FILES
        assert report.count.lost == FILES - report.count.in_place <= report.onslaught.touched
        assert (report.count.sealed, report.count.quarantined, report.count.brought_back) == (1, 2, 3)
        assert report.count.false_actions == 0
        assert all(drop.returned for drop in report.drops)
        assert list(root.iterdir()) == [] and engine.quarantined == {}
        assert report.threats == ("t0000001",)
        assert engine.threat_list[0].note == f"rehearsal: shieldctl drill {report.drill_id}"


def test_without_a_decision_everything_is_lost_and_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "AFTERMATH_S", 0.5)
    with guarded(tmp_path, contain_after=0) as (_, root):
        report = drill(tmp_path)
        assert not report.passed and not report.onslaught.decided and report.onslaught.finished
        assert report.count.lost == report.onslaught.encrypted == FILES
        assert report.onslaught.decision_ms == -1.0
        assert "the daemon made no decision to contain this attack" in report.notes
        assert list(root.iterdir()) == []


def test_drops_that_stay_where_they_are_fail_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "HANDLE_S", 0.5)
    with guarded(tmp_path, takes=False):
        report = drill(tmp_path)
        assert report.onslaught.decided and not report.passed
        assert not any(drop.handled for drop in report.drops)


def test_what_comes_back_changed_fails_it(tmp_path: Path) -> None:
    with guarded(tmp_path, corrupts=True):
        report = drill(tmp_path)
        assert not report.passed
        broken = [drop for drop in report.drops if drop.handled and not drop.returned]
        assert {drop.reason for drop in broken} == {"what came back is not what was taken"}


def test_an_incident_that_holds_somebody_elses_file_stays_open(tmp_path: Path) -> None:
    with guarded(tmp_path) as (engine, root):
        appeared = engine._appeared

        def with_a_stranger(path: Path) -> None:
            appeared(path)
            if engine.threat_list and not (root / "stranger.txt").exists():
                (root / "stranger.txt").write_text("somebody else is at work")

        engine._appeared = with_a_stranger  # type: ignore[method-assign]
        report = drill(tmp_path)
        assert report.threats == () and report.threats_left == ("t0000001",)
        assert engine.threat_list[0].state.value == "open"
        assert [path.name for path in root.iterdir()] == ["stranger.txt"]


def test_a_second_drill_is_refused_while_the_daemon_only_alerts(tmp_path: Path) -> None:
    with guarded(tmp_path) as (engine, _):
        values = {"guard": {"contained_for_s": 60.0, "contain_limit": 3, "limit_window_s": 600.0}}
        config = engine.config()
        engine.config = lambda: type(config)(b"", 1, "personal", 0, values)  # type: ignore[method-assign]
        assert drill(tmp_path).passed
        assert engine.threat_list[0].state is State.RESOLVED
        engine.threat_list[0] = replace(engine.threat_list[0], state=State.OPEN)
        with pytest.raises(ShieldError, match="will judge a new attack by itself in") as caught:
            drill(tmp_path)
        assert caught.value.code == "drill.soon"


def test_a_daemon_that_sees_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "SETTLE_S", 0.5)
    with guarded(tmp_path) as (engine, root):
        engine.stop()
        with pytest.raises(ShieldError) as caught:
            drill(tmp_path)
        assert caught.value.code == "drill.unsettled"
        assert list(root.iterdir()) == [], "the scratch tree is gone all the same"


def test_the_command(tmp_path: Path) -> None:
    with guarded(tmp_path) as (engine, root):
        base = [sys.executable, "-m", "shieldctl", "--socket", str(tmp_path / "s"), "drill", "--files", "40"]
        done = subprocess.run([*base, "--json", "--seed", "9"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["schema"], report["seed"], report["files"]["total"]) == ("drill/1", 9, 40)
        again = subprocess.run(base, capture_output=True, text=True, timeout=120)
        assert again.returncode == 1 and "sleep" in again.stderr, "no process is named: it remembers the tree's minute"
        status = engine.status()
        named = replace(status, watch=replace(status.watch, attribution=True))
        engine.status = lambda: named  # type: ignore[method-assign]
        kept = subprocess.run([*base, "--keep"], capture_output=True, text=True, timeout=120)
        assert kept.returncode == 6 and "not passed" in kept.stdout, "its guard decides once"
        assert len([path for path in root.iterdir() if path.name.startswith("shield-drill-")]) == 1
        outside = subprocess.run([*base, "--in", "/"], capture_output=True, text=True, timeout=120)
        assert outside.returncode == 1 and "not inside a guarded tree" in outside.stderr
