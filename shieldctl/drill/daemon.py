"""What a drill asks the daemon, in the drill's words. Through `shieldctl.client` only; nothing is guessed from files.

Paths are bytes here; in the daemon's JSON they are `path`, with `path_b64` beside it where printing lost anything.
"""

from __future__ import annotations

import base64
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shieldctl.client import Client, segment
from shieldctl.drill.drops import Expected
from shieldctl.options import wire_path
from shieldd.errors import ShieldError

Json = Mapping[str, Any]
_POLL_S: Final = 0.02
_PAGE: Final = 10_000
_MEMORY_S: Final = 60.0  # the longest time over which an actor's deeds are counted
_NOTE: Final = "rehearsal: shieldctl drill {id}"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A guarded tree of the daemon; `mode` is act, observe or alert-only."""

    root: bytes
    mode: str


@dataclass(frozen=True, slots=True)
class Taken:
    """An object that the daemon holds: a sealed file (`name` is its path) or one in quarantine (`name` is its id)."""

    how: Expected
    name: str
    path: bytes
    original: bytes
    at_ns: int
    threat_id: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision to contain, as an alert carries it; `at_ns` is the daemon's wall clock."""

    threat_id: str
    at_ns: int
    heard_mono_ns: int


def path_of(item: Json, key: str) -> bytes:
    """A path from JSON, bytes as the kernel has them."""
    encoded = item.get(f"{key}_b64")
    return base64.b64decode(encoded) if encoded else str(item[key]).encode()


def instant_ns(text: str | None) -> int:
    """RFC 3339 → wall clock, ns; 0 for null."""
    if not text:
        return 0
    at = datetime.fromisoformat(text)
    return int(at.timestamp()) * 10**9 + at.microsecond * 1000


def beneath(path: bytes, root: bytes) -> bool:
    """Whether `path` is `root` or below it."""
    return path == root or path.startswith(root.rstrip(b"/") + b"/")


class Daemon:
    """The daemon as a drill sees it.

    Args:
        client: makes a connection for each request, so the alert stream has one of its own.
    """

    def __init__(self, client: Client) -> None:
        self._ask = client

    def guarded(self) -> tuple[Guarded, ...]:
        """The guarded trees."""
        status = self._ask.get("/v1/status")
        return tuple(Guarded(path_of(tree, "root"), tree["mode"]) for tree in status["trees"])

    def backend(self) -> str:
        """Name of the event source in force."""
        return str(self._ask.get("/v1/status")["watch"]["backend"])

    def rested(self, tree: bytes, now_ns: int) -> None:
        """Returns when the daemon would judge an attack in `tree` by itself: after a containment it only alerts for a
        while, unless that is resolved; and where it names no process, all that happens in the tree counts as one's
        work, for as long as it remembers.

        Raises:
            ShieldError: `drill.soon` with the time to wait, s; a drill now would measure that limit and nothing else.
        """
        guard = self._ask.get("/v1/config")["values"].get("guard", {})
        pause_s, window_s = float(guard.get("contained_for_s", 0)), float(guard.get("limit_window_s", 0))
        since_ns = max(0, now_ns - int(max(pause_s, window_s) * 1e9))
        alerts = self._ask.get("/v1/alerts", since_ns=since_ns, limit=_PAGE)["items"]
        over = {threat["id"] for threat in self._ask.get("/v1/threats", state="resolved", limit=_PAGE)["items"]}
        every = [item for item in alerts if item["kind"] == "contain"]
        contained = [item for item in every if item["threat_id"] not in over]
        ages_s = sorted((now_ns - instant_ns(item["at"])) / 1e9 for item in contained)
        here_s = [(now_ns - instant_ns(item["at"])) / 1e9 for item in contained if beneath(path_of(item, "path"), tree)]
        limit = int(guard.get("contain_limit", len(ages_s) + 1))
        waits = [pause_s - age_s for age_s in here_s]
        if limit <= len(ages_s):
            waits.append(window_s - ages_s[limit - 1])
        if not self._ask.get("/v1/status")["watch"]["attribution"]:
            here = [item for item in every if beneath(path_of(item, "path"), tree)]
            waits += [_MEMORY_S - (now_ns - instant_ns(item["at"])) / 1e9 for item in here]
        if (wait_s := math.ceil(max(waits, default=0.0))) > 0:
            last_s = min((now_ns - instant_ns(item["at"])) / 1e9 for item in every)
            text = f"the daemon contained {last_s:.0f} s ago and will judge a new attack by itself in {wait_s} s"
            raise ShieldError("drill.soon", text, hint=f"sleep {wait_s}; shieldctl drill")

    def wait_seen(self, path: bytes, deadline_s: float) -> None:
        """Returns once an event of `path` (absolute) is on record: the source keeps order, so all before it are too.

        Raises:
            ShieldError: `drill.unsettled` at the deadline.
        """
        until = time.monotonic() + deadline_s
        while not self._ask.get("/v1/events", under=path, limit=1)["items"]:
            if time.monotonic() > until:
                raise ShieldError("drill.unsettled")
            threading.Event().wait(_POLL_S)

    def listen(self, tree: bytes, since_ns: int) -> Listening:
        """Starts to wait for a decision to contain in `tree`."""
        return Listening(self._ask, tree, since_ns)

    def taken(self, root: bytes) -> tuple[Taken, ...]:
        """Everything below `root` that is sealed or in quarantine now."""
        sealed = self._ask.get("/v1/files", under=root, limit=_PAGE)["items"]
        held: list[Taken] = [
            Taken(
                Expected.SEAL,
                item["path"],
                path_of(item, "path"),
                path_of(item, "original"),
                instant_ns(item["sealed_at"]),
                item["threat_id"],
            )
            for item in sealed
        ]
        after: str | None = None
        while True:
            page = self._ask.get("/v1/quarantine", limit=_PAGE, **({"after": after} if after else {}))
            for item in page["items"]:
                after = item["id"]
                original = path_of(item, "original")
                if beneath(original, root):
                    held.append(
                        Taken(
                            Expected.QUARANTINE,
                            item["id"],
                            b"",
                            original,
                            instant_ns(item["at"]),
                            item["threat_id"],
                        )
                    )
            if not page["more"]:
                return tuple(held)

    def bring_back(self, taken: Taken, to: bytes) -> tuple[bytes, str]:
        """Opens a sealed file in its place, or restores an object of quarantine into the directory `to`.

        Returns:
            Where it is now (absolute), and an empty reason; or an empty path and why not.
        """
        try:
            if taken.how is Expected.SEAL:
                lines = self._ask.act("/v1/files/open", {"paths": [wire_path(taken.path)]})
                done = [line for line in lines if line["type"] == "file"]
                answer: Json = done[0] if done else {"outcome": "failed", "reason": "the daemon gave no answer"}
            else:
                answer = self._ask.post(f"/v1/quarantine/{segment(taken.name)}/restore", {"to": wire_path(to)})
        except ShieldError as error:
            return b"", f"{error.code}: {error.message}"
        if answer["outcome"] != "done":
            return b"", str(answer.get("reason") or answer.get("code") or "not done")
        return path_of(answer, "to"), ""

    def bring_version(self, path: bytes, at_ns: int, to: bytes) -> tuple[bytes, str]:
        """Brings one file as it was at a moment into the directory `to`; nothing else is touched.

        Returns:
            As `bring_back`.
        """
        request = {"path": wire_path(path), "at_ns": at_ns, "to": wire_path(to), "dry_run": False}
        try:
            answer: Json = self._ask.post("/v1/versions/restore", request)
        except ShieldError as error:
            return b"", f"{error.code}: {error.message}"
        return path_of(answer, "to"), ""

    def purge(self, taken: Taken) -> None:
        """Destroys an object of quarantine that this drill itself made."""
        self._ask.post(f"/v1/quarantine/{segment(taken.name)}/purge")

    def resolve(
        self, root: bytes, tree: bytes, drill_id: str, since_ns: int
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Resolves the incidents that are of this drill alone, with a note that says so.

        In one tree an incident may hold somebody else's events too, where the source does not tell who did it; such an
        incident stays open for a person.

        Returns:
            Ids that were resolved, and ids that were left because they touch files outside the scratch tree.
        """
        events = self._ask.get("/v1/events", tree=tree, since_ns=since_ns, limit=_PAGE)["items"]
        ours = {event["threat_id"] for event in events if beneath(path_of(event, "path"), root)} - {""}
        others = {event["threat_id"] for event in events if not beneath(path_of(event, "path"), root)}
        resolved: list[str] = []
        for threat in self._ask.get("/v1/threats", state="open", since_ns=since_ns, limit=_PAGE)["items"]:
            paths = [path for action in threat["actions"] if (path := path_of(action, "path"))]
            mine = threat["id"] in ours or any(beneath(path, root) for path in paths)
            if not mine or threat["id"] in others or any(not beneath(path, root) for path in paths if path != tree):
                others |= {threat["id"]} if mine else set()
                continue
            note = _NOTE.format(id=drill_id)
            self._ask.post(f"/v1/threats/{segment(threat['id'])}/resolve", {"verdict": "malicious", "note": note})
            resolved.append(threat["id"])
        return tuple(resolved), tuple(sorted((ours & others) - set(resolved)))


class Listening:
    """Waits for a decision to contain: the alert stream on a thread, and a look at the list should the stream break.

    Args:
        client: of the daemon.
        tree: only alerts below this directory count, or without a path those whose threat acted below it.
        since_ns: wall clock, ns; older alerts are somebody else's.
    """

    def __init__(self, client: Client, tree: bytes, since_ns: int) -> None:
        self._ask = client
        self._tree = tree
        self._since_ns = since_ns // 1_000_000 * 1_000_000  # alerts carry milliseconds
        self._heard = threading.Event()
        self._verdict: Verdict | None = None
        self.broken = ""
        threading.Thread(target=self._follow, name="drill-alerts", daemon=True).start()

    def _follow(self) -> None:
        try:
            for item in self._ask.follow("/v1/alerts/stream", since_ns=self._since_ns, limit=_PAGE):
                if self._take(item):
                    return
        except ShieldError as error:
            self.broken = error.code

    def _take(self, item: Json) -> bool:
        if item.get("kind") != "contain":
            return False
        at_ns = instant_ns(item["at"])
        if at_ns < self._since_ns or not self._ours(item):
            return False
        if self._verdict is None:
            self._verdict = Verdict(item["threat_id"], at_ns, time.monotonic_ns())
            self._heard.set()
        return True

    def _ours(self, alert: Json) -> bool:
        if path := path_of(alert, "path"):
            return beneath(path, self._tree)
        threat = self._ask.get(f"/v1/threats/{segment(alert['threat_id'])}")
        return any(beneath(path_of(action, "path"), self._tree) for action in threat["actions"])

    def wait(self, timeout_s: float) -> Verdict | None:
        """The decision, or None when none came in time."""
        if not self._heard.wait(timeout_s):
            for item in self._ask.get("/v1/alerts", since_ns=self._since_ns, limit=_PAGE)["items"]:
                if self._take(item):
                    break
        return self._verdict
