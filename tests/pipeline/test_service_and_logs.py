"""The service manager's protocols, and lines that nothing can forge."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from shieldd import service
from shieldd.logs import journal_record


def test_notify_reaches_the_manager(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_dir / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(short_dir / "n"))
        assert service.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(short_dir / "gone"))
    assert not service.notify("READY=1"), "a manager that does not listen is no reason to stop"
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not service.notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "wanted"), [("30000000", None, 15.0), ("", None, None), ("x", None, None), ("30000000", "1", None)]
)
def test_watchdog_interval(usec: str, pid: str | None, wanted: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert service.watchdog_interval_s() == wanted


def test_sockets_meant_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert service.passed_sockets() == []


def test_a_newline_in_a_field_forges_no_other_field() -> None:
    record = journal_record({"MESSAGE": "a\nPRIORITY=0", "PRIORITY": "6"})
    text = b"a\nPRIORITY=0"
    assert record == b"MESSAGE\n" + struct.pack("<Q", len(text)) + text + b"\nPRIORITY=6\n"
