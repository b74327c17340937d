"""Streams: nothing falls between past and present, nothing twice, slow readers lose alone, and are told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shieldd.api.streams import BATCH_MAX, FEED_MAX, PUMP_MAX, Feed, Pump
from shieldd.errors import ShieldError
from shieldd.model.decision import Severity
from tests.api.conftest import DEADLINE_S, Served
from tests.api.memory import NASTY, alert, event


class Reader:
    """Lines of one followed stream over a raw socket (chunked encoding undone)."""

    def __init__(self, served: Served, target: str) -> None:
        self.sock = served.connect()
        self.sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.file = self.sock.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline() not in (b"\r\n", b""):
            continue

    def lines(self) -> Iterator[dict[str, Any]]:
        """Each line as JSON, signs of life included."""
        rest = b""
        while True:
            size = int(self.file.readline() or b"0", 16)
            rest += self.file.read(size)
            self.file.readline()
            if not size:
                return
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield json.loads(line)

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next records, signs of life left out."""
        out: list[dict[str, Any]] = []
        for line in self.lines():
            if line["type"] != "alive":
                out.append(line)
            if len(out) == count:
                return out
        return out

    def close(self) -> None:
        """Go away."""
        self.file.close()
        self.sock.close()


def test_the_past_then_the_present_each_once(served: Served) -> None:
    reader = Reader(served, "/v1/events/stream?limit=2")
    assert served.engine.subscribed.wait(DEADLINE_S)
    assert [line["seq"] for line in reader.take(2)] == [3, 4]
    # 4 arrives a second time, as it would when it happens while the past is read
    served.engine.happen(event(4), event(5), event(6))
    assert [(line["type"], line["seq"]) for line in reader.take(2)] == [("event", 5), ("event", 6)]
    reader.close()
    assert served.engine.unsubscribed.wait(DEADLINE_S)


def test_limit_nought_shows_no_past(served: Served) -> None:
    reader = Reader(served, "/v1/events/stream?limit=0")
    assert served.engine.subscribed.wait(DEADLINE_S)
    served.engine.happen(event(9))
    assert [line["seq"] for line in reader.take(1)] == [9]
    reader.close()


@pytest.mark.parametrize("limit", [0, 5])
def test_a_question_that_is_none_is_refused_before_the_head(
    served: Served, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    def refuse(query: object) -> None:
        raise ShieldError("api.invalid", "no such kind: foo")

    monkeypatch.setattr(served.engine, "events", refuse)
    plain = served.ask("GET", "/v1/events?kind=foo")
    assert served.ask("GET", f"/v1/events/stream?kind=foo&limit={limit}") == plain
    assert plain[0] == 422 or plain[0] == 400
    assert served.engine.unsubscribed.wait(DEADLINE_S)
    assert not served.engine.event_readers


def test_filters_hold_for_the_present_too(served: Served) -> None:
    reader = Reader(served, "/v1/events/stream?limit=0&kind=rename&action=alert&under=/srv/phi/a")
    assert served.engine.subscribed.wait(DEADLINE_S)
    served.engine.happen(
        event(10, b"/srv/phi/a/x", kind="write", action="alert"),
        event(11, b"/srv/phi/a/x", kind="rename", action="allow"),
        event(12, b"/srv/phi/ab/x", kind="rename", action="alert"),
        event(13, b"/srv/phi/a/x", kind="rename", action="alert"),
    )
    assert [line["seq"] for line in reader.take(1)] == [13]
    reader.close()


def test_alerts_by_severity(served: Served) -> None:
    reader = Reader(served, "/v1/alerts/stream?severity=4")
    assert served.engine.subscribed.wait(DEADLINE_S)
    assert [line["seq"] for line in reader.take(1)] == [1]
    served.engine.happen(alert(2, severity=Severity.LOW), alert(3, severity=Severity.HIGH))
    assert [(line["type"], line["seq"]) for line in reader.take(1)] == [("alert", 3)]
    reader.close()


def test_a_name_cannot_make_a_second_line(served: Served) -> None:
    reader = Reader(served, "/v1/events/stream?limit=1")
    (line,) = reader.take(1)
    assert line["path"] == r"/srv/phi/a\x0ab\x1b[31m[red]\xff\u{202e}.dcm"
    assert line["path_b64"]
    reader.close()
    assert NASTY not in json.dumps(line).encode()


def test_a_reader_that_does_not_read_is_told_what_it_missed_and_holds_up_nobody(served: Served) -> None:
    slow = Reader(served, "/v1/events/stream?limit=0")
    quick = Reader(served, "/v1/events/stream?limit=0")
    assert served.ask("GET", "/v1/health")[0] == 200
    while len(served.engine.event_readers) < 2:
        assert served.engine.subscribed.wait(DEADLINE_S)
    slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent = 0
    got: list[int] = []
    want = 60_000

    def read() -> None:
        for line in quick.lines():
            if line["type"] == "event":
                got.append(line["seq"])
            elif line["type"] == "missed":
                got.extend([-1] * line["count"])
            if len(got) >= want:
                return

    reading = threading.Thread(target=read)
    reading.start()
    while sent < want:
        served.engine.happen(*(event(1000 + sent + n) for n in range(500)))
        sent += 500
    reading.join(DEADLINE_S)
    assert not reading.is_alive()
    # the slow one now reads: what it gets and what it is told it missed add up to all
    seen = missed = 0
    last = 0
    for line in slow.lines():
        if line["type"] == "event":
            assert line["seq"] > last
            last = line["seq"]
            seen += 1
        elif line["type"] == "missed":
            missed += line["count"]
        if seen + missed == want:
            break
    assert seen + missed == want
    assert missed > 0
    assert last == 1000 + want - 1
    slow.close()
    quick.close()


def test_streams_end_with_a_last_line_when_the_daemon_stops(served: Served) -> None:
    reader = Reader(served, "/v1/events/stream?limit=1")
    assert reader.take(1)
    served.server.stop()
    assert [line["type"] for line in reader.take(5)] == ["end"]
    reader.close()


def test_a_long_action_tells_each_file_as_it_is_done(served: Served) -> None:
    status, body = served.post(
        "/v1/files/seal", {"paths": ["/srv/phi/scan.dcm", "/srv/phi/none", "/srv/phi/old.csv.shield"]}
    )
    assert status == 200
    lines = [json.loads(line) for line in body.splitlines()]
    assert lines[0] == {"type": "begun", "total": 3}
    assert [line["outcome"] for line in lines[1:-1]] == ["done", "failed", "skipped"]
    assert lines[-1] == {"type": "end", "done": 1, "failed": 1, "skipped": 1, "pending": 0}


def test_a_long_action_that_cannot_begin_is_an_ordinary_problem(served: Served) -> None:
    status, problem = served.post("/v1/files/seal", {"paths": ["/etc/passwd"]})
    assert (status, problem["code"], problem["path"]) == (403, "file.outside", "/etc/passwd")


def test_a_caller_that_goes_stops_a_long_action_after_the_file_in_hand(served: Served) -> None:
    served.engine.contents.update({b"/srv/phi/%05d" % n: b"x" for n in range(20_000)})
    served.engine.gate.clear()
    body = json.dumps({"paths": [f"/srv/phi/{n:05d}" for n in range(10_000)]}).encode()
    head = b"POST /v1/files/seal HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    sock = served.connect()
    sock.sendall(head % len(body) + body)
    assert sock.recv(12) == b"HTTP/1.1 200"
    sock.close()
    served.engine.gate.set()
    assert served.engine.closed.wait(DEADLINE_S)
    assert len(served.engine.finished) < 10_000


def test_ten_thousand_files_arrive_in_order(served: Served) -> None:
    paths = [f"/srv/phi/{n:05d}" for n in range(10_000)]
    served.engine.contents.update({path.encode(): b"x" for path in paths})
    status, body = served.post("/v1/files/seal", {"paths": paths})
    lines = [json.loads(line) for line in body.splitlines()]
    assert status == 200
    assert [line["path"] for line in lines if line["type"] == "file"] == paths


def test_content_that_fails_before_its_first_byte_is_an_ordinary_problem(served: Served) -> None:
    status, problem = served.post("/v1/files/cat", {"path": "/srv/phi/damaged.shield"})
    assert (status, problem["code"]) == (422, "envelope.chunk")


def test_content_that_fails_later_is_cut_and_never_looks_whole(served: Served) -> None:
    body = b'{"path":"/srv/phi/broken.shield"}'
    answer = served.send(
        b"POST /v1/files/cat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
        + body
    )
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")


def test_content_arrives_whole(served: Served) -> None:
    content = bytes(range(256)) * 40_000
    served.engine.contents[b"/srv/phi/large.shield"] = content
    assert served.post("/v1/files/cat", {"path": "/srv/phi/large.shield"}) == (200, content)


def test_a_reader_that_leaves_in_the_middle_of_content_frees_the_writer(served: Served) -> None:
    served.engine.contents[b"/srv/phi/large.shield"] = b"\0" * 64_000_000
    body = b'{"path":"/srv/phi/large.shield"}'
    head = b"POST /v1/files/cat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    sock = served.connect()
    sock.sendall(head % len(body) + body)
    assert sock.recv(12) == b"HTTP/1.1 200"
    sock.close()
    assert served.engine.closed.wait(DEADLINE_S)


# the two buffers alone


def test_a_feed_keeps_the_newest_and_counts_the_rest() -> None:
    async def run() -> None:
        feed: Feed[int] = Feed(asyncio.get_running_loop(), lambda one: one % 2 == 0, capacity=10)
        feed.deliver(range(100))
        assert await feed.take(1.0) == (40, list(range(80, 100, 2)))
        assert await feed.take(0.01) == (0, [])
        feed.deliver([2])
        assert await feed.take(1.0) == (0, [2])

    asyncio.run(run())


def test_a_feed_hands_over_in_batches() -> None:
    async def run() -> None:
        feed: Feed[int] = Feed(asyncio.get_running_loop(), lambda one: True)
        feed.deliver(range(FEED_MAX))
        got: list[int] = []
        while len(got) < FEED_MAX:
            missed, batch = await feed.take(1.0)
            assert missed == 0
            assert 0 < len(batch) <= BATCH_MAX
            got += batch
        assert got == list(range(FEED_MAX))

    asyncio.run(run())


def test_delivering_after_the_loop_has_gone_does_not_raise() -> None:
    loop = asyncio.new_event_loop()
    feed: Feed[int] = Feed(loop, lambda one: True)
    loop.close()
    feed.deliver([1])


def test_a_pump_makes_the_worker_wait_and_loses_nothing() -> None:
    total = PUMP_MAX * 3

    async def run() -> list[int]:
        pump: Pump[int] = Pump(asyncio.get_running_loop())
        worker = threading.Thread(target=pump.run, args=(lambda: iter(range(total)),))
        worker.start()
        got: list[int] = []
        done = False
        while not done:
            items, done, error = await pump.take(1.0)
            assert error is None
            got += items
        worker.join(DEADLINE_S)
        return got

    assert asyncio.run(run()) == list(range(total))


def test_a_pump_hands_on_the_error_after_the_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ShieldError("file.full")

    async def run() -> tuple[list[int], ShieldError | None]:
        pump: Pump[int] = Pump(asyncio.get_running_loop())
        await asyncio.to_thread(pump.run, items)
        got, done, error = await pump.take(1.0)
        assert done
        return got, error

    got, error = asyncio.run(run())
    assert got == [1]
    assert error is not None
    assert error.code == "file.full"


def test_a_pump_tells_the_reader_of_a_fault_and_raises_it_in_the_worker() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise RuntimeError

    async def run() -> ShieldError | None:
        pump: Pump[int] = Pump(asyncio.get_running_loop())
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(pump.run, items)
        return (await pump.take(1.0))[2]

    error = asyncio.run(run())
    assert error is not None
    assert error.code == "api.internal"
