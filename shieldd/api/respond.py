"""The answers that are not one JSON value: long actions, followed streams, file contents.

Each response owns what it started (a subscription, a worker, a pipe) and gives it back however it ends: read to the
end, failed, or the reader gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, aclosing
from typing import Any, Final, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shieldd.api import answers as a
from shieldd.api import requests as r
from shieldd.api.encode import dumps
from shieldd.api.engine import Cancel, Engine, LongAction
from shieldd.api.problem import problem_bytes
from shieldd.api.streams import Feed, Pump
from shieldd.errors import ShieldError

ALIVE_S: Final = 5.0  # a reader hears from us at least so often, and we learn that it has gone
PIPE_BYTES: Final = 1 << 20
ALIVE: Final = b'{"type":"alive"}\n'
END: Final = b'{"type":"end"}\n'  # of a followed stream: the daemon stops


class CutError(Exception):
    """The rest of a body cannot be sent; the reader must see that it is not whole."""


class StreamResponse(Response, ABC):
    """A response whose chunks come from `chunks()`; stops at once when the reader goes."""

    stall_s: float | None = None

    @abstractmethod
    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Body, piece by piece. Raises `CutError` when it cannot be completed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end or until the reader has gone."""
        if self.stall_s is not None:
            scope["state"]["stall_s"] = self.stall_s
        headers = [(b"content-type", cast("str", self.media_type).encode()), (b"cache-control", b"no-store")]

        async def run() -> None:
            async with aclosing(self.chunks()) as chunks:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    # where data is always at hand, nothing above waits, and the loop would serve nobody else
                    await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                continue

        sending, leaving = asyncio.create_task(run()), asyncio.create_task(gone())
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            results = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(results[0], CutError):
            scope["state"]["abort"]()
        elif isinstance(results[0], Exception):
            raise results[0]


class FollowResponse(StreamResponse):
    """Records so far, then each as it happens; a slow reader is told what it missed."""

    media_type = "application/x-ndjson"

    def __init__(
        self,
        engine: Engine,
        query: r.EventsQuery | r.AlertsQuery,
        readers: Executor,
        feeds: set[Feed[Any]],
        stall_s: float,
    ) -> None:
        super().__init__()
        self._feeds = feeds
        self._engine = engine
        self._query = query
        self._readers = readers
        self._subscribe, self._past, wanted, self._kind = self._topic()
        self._feed: Feed[Any] = Feed(asyncio.get_running_loop(), wanted)
        self._cancel: Cancel = _nothing
        self._earlier: Sequence[Any] = ()
        self.stall_s = stall_s

    async def begin(self) -> None:
        """Subscribe first, then read the past, so that nothing falls between; what is in both is sent once.

        Raises:
            ShieldError: what the engine says of the query, as it would without following.
        """
        loop = asyncio.get_running_loop()
        self._cancel = await loop.run_in_executor(self._readers, self._subscribe, self._feed.deliver)
        with ExitStack() as failed:
            failed.callback(self._cancel)
            earlier = await loop.run_in_executor(self._readers, self._past)
            failed.pop_all()
        self._earlier = earlier if self._query.limit else ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end or until the reader has gone; the subscription ends with it."""
        self._feeds.add(self._feed)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feeds.discard(self._feed)
            self._cancel()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The past, then the present."""
        loop, feed, kind = asyncio.get_running_loop(), self._feed, self._kind
        last = -1
        if self._earlier:
            last = self._earlier[-1].seq
            yield await loop.run_in_executor(self._readers, _lines, self._earlier, kind)
            self._earlier = ()
        else:
            yield ALIVE  # the head goes out at once
        while not feed.closed:
            missed, records = await feed.take(ALIVE_S)
            fresh = [record for record in records if record.seq > last]
            out = _line({"type": "missed", "count": missed}) if missed else b""
            if fresh:
                out += await loop.run_in_executor(self._readers, _lines, fresh, kind)
            yield out or ALIVE
        yield END

    def _topic(
        self,
    ) -> tuple[Callable[[Any], Cancel], Callable[[], Sequence[Any]], Callable[[Any], bool], str]:
        engine, query = self._engine, self._query
        if isinstance(query, r.EventsQuery):
            return engine.subscribe_events, lambda: engine.events(query).items, _event_filter(query), "event"
        severity = query.severity
        return engine.subscribe_alerts, lambda: engine.alerts(query).items, lambda x: x.severity >= severity, "alert"


def _nothing() -> None:
    """What ends a subscription that there is not."""


def _event_filter(query: r.EventsQuery) -> Callable[[a.EventRecord], bool]:
    under = query.under.rstrip(b"/") + b"/" if query.under else b""

    def wanted(event: a.EventRecord) -> bool:
        return (
            (query.kind is None or event.kind == query.kind)
            and (query.action is None or event.action == query.action)
            and (query.tree is None or event.tree == query.tree)
            and (not under or (event.path + b"/").startswith(under))
        )

    return wanted


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _lines(records: Sequence[object], kind: str) -> bytes:
    return b"".join(dumps(record, type=kind) + b"\n" for record in records)


class ActionResponse(StreamResponse):
    """A long action, a line per file. `begin` before use: an error before the first item is an ordinary problem."""

    media_type = "application/x-ndjson"

    def __init__(self, start: Callable[[], object], workers: Executor) -> None:
        super().__init__()
        self._start = cast("Callable[[], LongAction]", start)
        self._workers = workers
        self._pump: Pump[a.Begun | a.FileDone] = Pump(asyncio.get_running_loop())
        self._first: tuple[list[a.Begun | a.FileDone], bool, ShieldError | None] = ([], False, None)

    async def begin(self) -> None:
        """Start the worker and wait for its first items, or for an error.

        Raises:
            ShieldError: what the engine raised before anything was done.
        """
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._workers, self._pump.run, self._start)
        self._running.add_done_callback(_log_fault)
        try:
            self._first = await self._pump.take(ALIVE_S)
        except asyncio.CancelledError:
            self._pump.abandon()
            raise
        items, _, error = self._first
        if error is not None and not items:
            raise error

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Lines; the last one is `end`, or a problem."""
        counts: Counter[str] = Counter()
        try:
            items, done, error = self._first
            while True:
                out = b"".join(_action_line(item, counts) for item in items)
                if not done:
                    yield out or ALIVE
                    items, done, error = await self._pump.take(ALIVE_S)
                    continue
                if error is not None:
                    yield out + b'{"type":"problem","problem":%s}\n' % problem_bytes(error)
                    return
                totals = {name: counts[name] for name in ("done", "failed", "skipped", "pending")}
                yield out + _line({"type": "end", **totals})
                return
        finally:
            self._pump.abandon()


def _action_line(item: a.Begun | a.FileDone, counts: Counter[str]) -> bytes:
    if isinstance(item, a.Begun):
        return dumps(item, type="begun") + b"\n"
    counts[item.outcome.value] += 1
    return dumps(item, type="file") + b"\n"


def _log_fault(running: asyncio.Future[None]) -> None:
    """Take the result, so that a fault is not reported a second time as never retrieved."""
    if not running.cancelled():
        running.exception()


class ContentResponse(StreamResponse):
    """Bytes that the engine writes into a pipe. A fault after the first byte cuts the connection."""

    media_type = "application/octet-stream"

    def __init__(self, write: Callable[[int], None], workers: Executor) -> None:
        super().__init__()
        self._write = write
        self._workers = workers
        self._first = b""
        self._read_fd = -1

    async def begin(self) -> None:
        """Start the writer and wait for its first bytes, its end, or its error.

        Raises:
            ShieldError: what the engine raised before the first byte.
        """
        self._read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._running = asyncio.get_running_loop().run_in_executor(self._workers, self._run, write_fd)
        self._running.add_done_callback(_log_fault)
        with ExitStack() as failed:
            failed.callback(self._close)
            self._first = await self._take()
            if not self._first:
                await self._running
            failed.pop_all()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Content until the pipe ends; then the writer's word counts."""
        try:
            chunk = self._first
            while chunk:
                yield chunk
                chunk = await self._take()
            try:
                await self._running
            except ShieldError as error:
                raise CutError from error
        finally:
            self._close()

    def _run(self, write_fd: int) -> None:
        try:
            self._write(write_fd)
        finally:
            os.close(write_fd)

    def _close(self) -> None:
        if self._read_fd >= 0:
            os.close(self._read_fd)
            self._read_fd = -1

    async def _take(self) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._read_fd, PIPE_BYTES)
            except BlockingIOError:
                readable = asyncio.Event()
                loop.add_reader(self._read_fd, readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(self._read_fd)
