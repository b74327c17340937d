"""Durable means on the disk: what is promised was synchronised before the promise was made."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROMISES = """
import sys
from pathlib import Path
from shieldd.store import Store
from tests.store.build import ROOTS, End, action, batch
with Store(Path(sys.argv[1]), roots=ROOTS) as store:
    print("promised open", flush=True)
    for turn in range(5):
        store.intend([action(f"a{turn}")])
        print("promised intent", flush=True)
        store.finish([End(f"a{turn}")])
        print("promised end", flush=True)
    for turn in range(5):
        store.record_events(batch([b"e"] * 10))
        store.flush()
        print("events written", flush=True)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_every_promise_is_behind_a_sync_and_events_are_not(database: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-o", trace, "-e", "trace=write,pwrite64,fsync,fdatasync",
         sys.executable, "-B", "-c", PROMISES, str(database)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    unsynced, promised, events = 0, 0, 0
    for line in trace.read_text().splitlines():
        if "shieldd.db-wal" in line and "pwrite64(" in line:
            unsynced += 1
        elif "shieldd.db-wal" in line and re.search(r"f(data)?sync\(", line):
            unsynced = 0
        elif '"promised' in line:
            promised += 1
            assert not unsynced, line
        elif '"events written' in line:
            events += 1
            assert unsynced, "an event is not worth a sync of its own"
    assert (promised, events) == (11, 5)
