"""A small guard on real files behind the real API: it looks at a directory again and again and follows three rules.

For the drill's own tests: what it is given can be set, so that a drill can be seen to pass and to fail. No keys, no
policy: a "sealed" file is its content under another name.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from shieldctl.drill.drops import plan
from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.engine import Caller, LongAction
from shieldd.model.decision import ActionKind, Outcome
from shieldd.model.incident import Judgement, State
from tests.api.memory import MemoryEngine, alert, event, threat

LOOK_S = 0.005
FRESH_S = 1.0
EICAR = plan(0)[0].data


class RuleEngine(MemoryEngine):
    """Guards `root`.

    Args:
        root: a real directory.
        contain_after: encrypted files until it decides to contain; 0 never does.
        takes: whether it quarantines malware and seals exports.
        corrupts: what it brings back has a byte too many.
    """

    def __init__(self, root: Path, *, contain_after: int = 3, takes: bool = True, corrupts: bool = False) -> None:
        super().__init__()
        self.root, self.contain_after, self.takes, self.corrupts = root, contain_after, takes, corrupts
        self.contents.clear()
        self.quarantined.clear()
        self.threat_list.clear()
        self.event_list.clear()
        self.alert_list.clear()
        self.taken_at: dict[str, int] = {}
        self.left: set[bytes] = set()  # brought back by a person: not taken again
        self._known: set[Path] = set()
        self._fresh: dict[Path, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        """Ends the look-out."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            now = {Path(folder, name) for folder, _, names in os.walk(self.root) for name in names}
            for path in sorted(now - self._known):
                self._appeared(path)
            for path in sorted(self._known - now):
                self._note(path, "delete")
            self._known = now
            if self.takes:
                # a file may be seen before it has its content and mode: looked at again for a while
                moment = time.monotonic()
                self._fresh = {path: until for path, until in self._fresh.items() if until > moment and path in now}
                for path in sorted(self._fresh):
                    if bytes(path) not in self.left:
                        self._take(path)

    def _note(self, path: Path, kind: str, threat_id: str = "") -> None:
        number = len(self.event_list) + 1
        record = event(number, bytes(path), kind=kind, tree=bytes(self.root), at_ns=time.time_ns(), threat_id=threat_id)
        self.event_list.append(record)

    def _appeared(self, path: Path) -> None:
        self._note(path, "create", self.threat_list[0].id if self.threat_list else "")
        locked = sum(one.kind == "create" and one.path.endswith(b".locked") for one in self.event_list)
        if path.suffix == ".locked" and locked == self.contain_after:
            self._decide(path)
        self._fresh[path] = time.monotonic() + FRESH_S

    def _decide(self, path: Path) -> None:
        now = time.time_ns()
        opened = threat("t0000001", tree=bytes(self.root), actions=(), opened_at_ns=now, actor=None)
        self.threat_list.append(opened)
        decided = alert(1, at_ns=now, path=bytes(path), threat_id=opened.id, kind=ActionKind.CONTAIN)
        self.alert_list.append(decided)
        self.happen(decided)

    def _take(self, path: Path) -> None:
        try:
            content, mode = path.read_bytes(), path.stat().st_mode
        except FileNotFoundError:
            return
        if content == EICAR or (content.startswith(b"\x7fELF") and path.suffix == ".pdf"):
            name = f"q{len(self.quarantined) + 1:07x}"
            self.taken_at[name] = time.time_ns()
            self.quarantined[name] = (bytes(path), content)
            path.unlink()
        elif path.suffix == ".csv" and mode & 0o004:
            path.rename(path.with_name(path.name + ".shield"))

    def status(self) -> a.StatusAnswer:
        return replace(super().status(), trees=(a.TreeStatus(bytes(self.root), "act", 0),))

    def threats(self, query: r.ThreatsQuery) -> a.Threats:
        return a.Threats(tuple(one for one in self.threat_list if query.state in (None, one.state.value)), False)

    def resolve(self, caller: Caller, request: r.Resolve) -> a.Threat:
        self.threat_list[0] = replace(
            self.threat_list[0], state=State.RESOLVED, verdict=Judgement(request.verdict.value), note=request.note
        )
        return self.threat_list[0]

    def files(self, query: r.FilesQuery) -> a.SealedFiles:
        paths = sorted(
            Path(folder, name) for folder, _, names in os.walk(self.root) for name in names if name.endswith(".shield")
        )
        now = time.time_ns()
        return a.SealedFiles(
            tuple(a.SealedFile(bytes(p), bytes(p)[:-7], p.stat().st_size, now, "exposed", 1, "") for p in paths), False
        )

    def files_open(self, caller: Caller, request: r.OpenFiles) -> LongAction:
        yield a.Begun(len(request.paths))
        for sealed in request.paths:
            path = Path(sealed.decode())
            self.left.add(sealed[:-7])
            opened = path.rename(path.with_suffix(""))
            yield a.FileDone(sealed, Outcome.DONE, bytes(opened), "", opened.stat().st_size, "", "")

    def _item(self, object_id: str) -> a.QuarantineItem:
        return replace(super()._item(object_id), at_ns=self.taken_at[object_id])

    def quarantine_restore(self, caller: Caller, request: r.QuarantineRestore) -> a.FileDone:
        original, content = self.quarantined.pop(request.id)
        assert request.to is not None
        to = Path(request.to.decode()) / Path(original.decode()).name
        self.left.add(bytes(to))
        to.write_bytes(content + b"!" * self.corrupts)
        return a.FileDone(original, Outcome.DONE, bytes(to), request.id, len(content), "", "")
