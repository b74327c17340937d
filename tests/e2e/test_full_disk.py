"""The state directory's disk is full: the guard starts all the same, and says what it cannot do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .running import Running, until


@pytest.mark.root
@pytest.mark.parametrize("killed", [False, True])
def test_a_start_on_a_full_state_directory(ground: Path, killed: bool) -> None:
    daemon = Running(ground)
    daemon.state.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", daemon.state], check=True)
    try:
        daemon.start()
        file = daemon.tree / "a.csv"
        file.write_bytes(b"x" * 1000)
        daemon.fence()
        daemon.kill() if killed else daemon.stop()
        with (daemon.state / "ballast").open("wb", buffering=0) as ballast:
            size = 1 << 20
            while size:
                try:
                    size = size if ballast.write(bytes(size)) == size else size // 2
                except OSError:
                    size //= 2
        daemon.start()
        status = daemon.client.get("/v1/status")
        full = "store.full" in {x["code"] for x in status["troubles"]}
        assert full or killed, "after a kill the log that is folded in may leave room enough"
        assert status["state"] == ("degraded" if full else "ready")
        if full:
            daemon.ctl("files", "seal", file, expect=1)
            assert file.exists(), "nothing is done that could not be recorded"
        os.unlink(daemon.state / "ballast")
        until("room", lambda: daemon.ctl("files", "seal", file, expect=None).returncode == 0)
        assert daemon.stop() == 0
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
        subprocess.run(["umount", "-l", daemon.state], check=True)
