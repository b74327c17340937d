"""Who may do what, asked as real users over a real socket: every route, every role."""

from __future__ import annotations

import grp
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shieldd.api.access import ALL, NOBODY, NOTHING, READ, Access, Peer, Permission
from shieldd.api.app import READ_THREADS
from shieldd.api.protocol import Limits
from shieldd.api.routes import ROUTES, Route, Shape
from shieldd.errors import ShieldError
from tests.api.conftest import Served, serve
from tests.api.identity import as_user, hold_as_user

READERS = "games"  # a group that every Debian has, and that means nothing here
STRANGER = 54_321


def request_for(route: Route) -> bytes:
    """The shortest request for a route, enough to pass or fail at the permission."""
    path = route.path.replace("{id}", "i1a2b3c4d5e6")
    return f"{route.method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def status_of(answer: bytes) -> int:
    """HTTP status of a raw answer."""
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def shared(folder: Path) -> Iterator[Served]:
    """A server whose readers are a group, on a socket that everyone may connect to (so that the server decides)."""
    running = serve(folder, readers=(READERS, "no-such-group"))
    os.chmod(running.path, 0o666)
    yield running
    running.server.stop()


@pytest.mark.root
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_refuses_who_has_not_its_permission(shared: Served, route: Route) -> None:
    reader_gid = grp.getgrnam(READERS).gr_gid
    stranger = as_user(STRANGER, STRANGER, shared.path, request_for(route))
    assert status_of(stranger) == 403
    assert json.loads(stranger.partition(b"\r\n\r\n")[2])["code"] == "api.denied"
    if route.shape is Shape.FOLLOW:
        return  # allowed, it would go on for ever; see test_streams
    reader = as_user(STRANGER, reader_gid, shared.path, request_for(route))
    assert (status_of(reader) == 403) == (route.permission not in READ)
    root = as_user(0, 0, shared.path, request_for(route))
    assert status_of(root) != 403


@pytest.mark.root
def test_a_supplementary_group_that_the_peer_made_up_does_not_count(shared: Served) -> None:
    gid = grp.getgrnam(READERS).gr_gid
    answer = as_user(STRANGER, STRANGER, shared.path, request_for(ROUTES[2]), groups=(gid,))
    # the system knows no account with this uid, so only the primary gid of the connection counts
    assert status_of(answer) == 403


@pytest.mark.root
def test_the_overflow_uid_gets_nothing_even_in_the_right_group(shared: Served) -> None:
    gid = grp.getgrnam(READERS).gr_gid
    assert status_of(as_user(NOBODY, gid, shared.path, request_for(ROUTES[2]))) == 403


@pytest.mark.root
def test_a_peer_that_the_socket_mode_keeps_out_never_reaches_the_server(served: Served) -> None:
    assert as_user(STRANGER, STRANGER, served.path, request_for(ROUTES[2])) == b""


@pytest.mark.root
def test_the_caller_of_an_action_is_the_one_that_the_kernel_names(served: Served) -> None:
    assert served.post("/v1/keys/rotate", {})[0] == 200
    caller = served.engine.callers[-1]
    assert (caller.uid, caller.gid, caller.pid) == (os.getuid(), os.getgid(), os.getpid())


def test_the_daemons_own_user_may_do_all() -> None:
    access = Access((), own_uid=1000, groups_of=lambda uid, gid: frozenset())
    assert access.allowed(Peer(1000, 1000, 1)) == ALL
    assert access.allowed(Peer(0, 0, 1)) == ALL
    assert access.allowed(Peer(1001, 1001, 1)) == NOTHING


def test_a_daemon_that_runs_as_the_overflow_uid_trusts_nobody_as_itself() -> None:
    access = Access((), own_uid=NOBODY, groups_of=lambda uid, gid: frozenset())
    assert access.allowed(Peer(NOBODY, NOBODY, 1)) == NOTHING


def test_membership_is_asked_again_after_ten_seconds() -> None:
    gid = grp.getgrnam(READERS).gr_gid
    now = [0.0]
    groups = [frozenset({gid})]
    access = Access((READERS,), own_uid=1, groups_of=lambda uid, g: groups[0], clock=lambda: now[0])
    peer = Peer(1001, 1001, 1)
    assert access.allowed(peer) == READ
    groups[0] = frozenset()
    assert access.allowed(peer) == READ
    now[0] = 10.0
    assert access.allowed(peer) == NOTHING


def test_reading_never_includes_content_or_a_change() -> None:
    assert not READ & {one for one in Permission if not one.value.endswith(".read")}


def test_every_route_that_changes_something_needs_more_than_reading() -> None:
    harmless = {"/v1/files/status", "/v1/config/check"}
    for route in ROUTES:
        if route.method == "POST" and route.path not in harmless:
            assert route.permission not in READ, route.path


@pytest.mark.root
def test_one_user_cannot_take_all_connections(shared: Served) -> None:
    gid = grp.getgrnam(READERS).gr_gid
    refused, child = hold_as_user(STRANGER, gid, shared.path, 80)
    try:
        assert refused == 80 - Limits().per_uid
        assert status_of(as_user(STRANGER + 1, gid, shared.path, request_for(ROUTES[2]))) == 200
        assert shared.ask("GET", "/v1/health")[0] == 200
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.root
def test_readers_that_keep_all_their_threads_busy_do_not_keep_root_out(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader_gid = grp.getgrnam(READERS).gr_gid
    go_on = threading.Event()
    busy = threading.Semaphore(0)

    def slow() -> object:
        busy.release()
        go_on.wait(60.0)
        raise ShieldError("api.not-found")

    monkeypatch.setattr(shared.engine, "keys", slow)
    ask = b"GET /v1/keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with ThreadPoolExecutor(16) as crowd:
        answers = [crowd.submit(as_user, STRANGER, reader_gid, shared.path, ask) for _ in range(16)]
        try:
            assert all(busy.acquire(timeout=20.0) for _ in range(READ_THREADS))
            assert shared.ask("GET", "/v1/status")[0] == 200
        finally:
            go_on.set()
        assert {status_of(answer.result()) for answer in answers} == {404}
