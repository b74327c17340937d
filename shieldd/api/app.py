"""The ASGI application: each request through the same steps, in this order.

Permission, size, media type, strict JSON, model, then the engine on a worker thread, then the answer in the route's
shape. Whatever fails becomes a problem answer; nothing of the engine runs on the event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shieldd.api import answers as a
from shieldd.api.access import Access
from shieldd.api.encode import dumps
from shieldd.api.engine import Caller, Engine
from shieldd.api.exposition import CONTENT_TYPE, exposition
from shieldd.api.openapi import openapi
from shieldd.api.problem import MEDIA_TYPE, problem_bytes
from shieldd.api.protocol import Door, Limits
from shieldd.api.respond import ActionResponse, ContentResponse, FollowResponse
from shieldd.api.routes import ROUTES, Route, Shape
from shieldd.api.streams import Feed
from shieldd.api.strict import from_json, from_query
from shieldd.errors import ShieldError

log = logging.getLogger("shieldd.api")
READ_THREADS: Final = 8  # of the readers' groups, all of them together
MASTER_THREADS: Final = 4  # of root and our own user, who are answered however busy the readers keep theirs
WORK_THREADS: Final = 8  # long actions and contents at once; further ones wait
T = TypeVar("T")


@dataclass(slots=True)
class Api:
    """What the handlers share. `requests` counts answers by status."""

    engine: Engine
    access: Access
    door: Door
    limits: Limits
    version: str
    readers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READ_THREADS, "shieldd-api"))
    masters: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(MASTER_THREADS, "shieldd-master"))
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WORK_THREADS, "shieldd-work"))
    requests: Counter[int] = field(default_factory=Counter)
    feeds: set[Feed[Any]] = field(default_factory=set)

    def pool(self, uid: int) -> ThreadPoolExecutor:
        """The threads on which a caller's short calls run."""
        return self.masters if self.access.master(uid) else self.readers

    async def read(self, uid: int, call: Callable[[], T]) -> T:
        """Run a call that is expected to be short."""
        return await asyncio.get_running_loop().run_in_executor(self.pool(uid), call)

    def close(self) -> None:
        """Let the threads go; what runs is finished by itself."""
        self.readers.shutdown(wait=False, cancel_futures=True)
        self.masters.shutdown(wait=False, cancel_futures=True)
        self.workers.shutdown(wait=False, cancel_futures=True)

    def metrics(self) -> tuple[a.Metric, ...]:
        """The API's own."""
        door = self.door
        counted = (
            ("refused", door.refused),
            ("evicted", door.evicted),
            ("malformed", door.malformed),
            ("timed_out", door.timed_out),
        )
        by_status = tuple(a.Sample({"status": str(code)}, count) for code, count in sorted(self.requests.items()))
        return (
            a.Metric(
                "shieldd_api_connections",
                a.MetricKind.GAUGE,
                "connections to the API now",
                (a.Sample({}, len(door.connections)),),
            ),
            a.Metric("shieldd_api_requests_total", a.MetricKind.COUNTER, "answers by HTTP status", by_status),
            a.Metric(
                "shieldd_api_turned_away_total",
                a.MetricKind.COUNTER,
                "connections that were refused or cut, by reason",
                tuple(a.Sample({"reason": reason}, count) for reason, count in counted),
            ),
        )


def application(api: Api, routes: tuple[Route, ...] = ROUTES) -> ASGIApp:
    """The application over a route table."""
    description = json.dumps(openapi(routes, api.version), ensure_ascii=False).encode()
    app = Starlette(
        routes=[
            StarletteRoute(route.path, _endpoint(api, route, description), methods=[route.method]) for route in routes
        ],
        exception_handlers={
            HTTPException: _on_http,
            ShieldError: _on_shield,
            ClientDisconnect: _on_gone,
            Exception: _on_fault,
        },
    )
    app.router.redirect_slashes = False
    return _bounded(app, api)


def _bounded(app: ASGIApp, api: Api) -> ASGIApp:
    """Cut off a peer that does not take its answer, and count what was answered."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            if message["type"] == "http.response.start":
                api.requests[message["status"]] += 1
            try:
                async with asyncio.timeout(scope["state"].get("stall_s", api.limits.write_s)):
                    await send(message)
            except TimeoutError:
                api.door.timed_out += 1
                scope["state"]["abort"]()

        await app(scope, receive, send_in_time)

    return bounded


def _endpoint(api: Api, route: Route, description: bytes) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        if request.method != route.method:
            raise ShieldError("api.method")
        peer = request.state.peer
        allowed = (
            api.access.allowed(peer)
            if api.access.master(peer.uid)
            else await api.read(peer.uid, lambda: api.access.allowed(peer))
        )
        if route.permission not in allowed:
            raise ShieldError("api.denied", f"not allowed for uid {peer.uid}: {route.permission.value}")
        caller = Caller(peer.uid, peer.gid, peer.pid)
        body = await _body(request, api.limits)
        if route.method == "GET":
            if body:
                raise ShieldError("api.invalid", "this request takes no body")
            asked: Any = from_query(route.request, request.url.query.encode("ascii", "ignore"), request.path_params)
        else:
            if request.url.query:
                raise ShieldError("api.invalid", "this request takes its parameters in the body")
            asked = from_json(route.request, body, request.path_params)
        match route.shape:
            case Shape.JSON:
                content = await api.read(peer.uid, lambda: dumps(route.call(api.engine, caller, asked)))
                return Response(content, media_type="application/json")
            case Shape.METRICS:
                content = await api.read(peer.uid, lambda: exposition((*api.engine.metrics(), *api.metrics())))
                return Response(content, headers={"content-type": CONTENT_TYPE})
            case Shape.OPENAPI:
                return Response(description, media_type="application/json")
            case Shape.FOLLOW:
                pool = api.pool(peer.uid)
                follow = FollowResponse(api.engine, asked, pool, api.feeds, api.limits.follow_write_s)
                await follow.begin()
                return follow
            case Shape.ACTION:
                action = ActionResponse(lambda: route.call(api.engine, caller, asked), api.workers)
                await action.begin()
                return action
            case Shape.CONTENT:
                content_response = ContentResponse(lambda fd: api.engine.files_cat(caller, asked, fd), api.workers)
                await content_response.begin()
                return content_response

    return endpoint


async def _body(request: Request, limits: Limits) -> bytes:
    """The whole body, within its size and time.

    Raises:
        ShieldError: `api.too-large`, `api.timeout`, `api.media`.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:20]) > limits.body_bytes:
        raise ShieldError("api.too-large", f"request body is larger than {limits.body_bytes} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise ShieldError("api.too-large", f"request body is larger than {limits.body_bytes} bytes")
    except TimeoutError as error:
        raise ShieldError("api.timeout") from error
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media != "application/json":
        raise ShieldError("api.media")
    return bytes(body)


def _problem(error: ShieldError) -> Response:
    # the body may not have been read: nothing more can be understood on this connection
    return Response(
        problem_bytes(error),
        error.http_status,
        headers={"content-type": MEDIA_TYPE, "connection": "close"},
    )


async def _on_shield(request: Request, error: Exception) -> Response:
    assert isinstance(error, ShieldError)
    return _problem(error)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(ShieldError("api.method" if error.status_code == 405 else "api.route"))


async def _on_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody is there to read it


async def _on_fault(request: Request, error: Exception) -> Response:
    """A fault of ours: type and place go to the log, never the text (it may hold a path or a name)."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("fault in an api handler: %s at %s:%s", type(error).__name__, place.filename, place.lineno)
    return _problem(ShieldError("api.internal"))
