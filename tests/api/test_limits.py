"""Bad peers: too much, too slow, too many, not HTTP. Each is refused, and the next good request is answered."""

from __future__ import annotations

import json
import socket
import time
from itertools import count

import pytest

from shieldd.api.strict import BODY_MAX, DEPTH_MAX
from tests.api.conftest import DEADLINE_S, Served, read_all
from tests.api.memory import event

SEAL = "/v1/files/seal"


def body_of(size: int) -> bytes:
    """A valid seal request of exactly `size` bytes."""
    empty = json.dumps({"paths": ["/srv/phi/scan.dcm"], "why": ""}).encode()
    padding = b" " * (size - len(empty))
    return empty[:-1] + padding + b"}"


def alive(served: Served) -> bool:
    """Whether a good request is answered."""
    return served.ask("GET", "/v1/health")[0] == 200


def test_a_body_of_one_mebibyte_is_taken(served: Served) -> None:
    status, lines = served.ask("POST", SEAL, body_of(BODY_MAX))
    assert status == 200
    assert b'"done":1' in lines


def test_one_byte_more_is_refused_before_it_is_read(served: Served) -> None:
    status, problem = served.ask("POST", SEAL, body_of(BODY_MAX + 1))
    assert (status, problem["code"]) == (413, "api.too-large")
    assert b"/srv/phi/scan.dcm" in served.engine.contents
    assert alive(served)


def test_a_chunked_body_is_cut_at_the_same_size(served: Served) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = b"POST /v1/files/seal HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served.connect() as sock:
        sock.sendall(head)
        try:
            for _ in range(64):
                sock.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused meanwhile
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413")
    assert alive(served)


def test_a_head_of_more_than_its_limit_is_refused(served: Served) -> None:
    answer = served.send(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"api.http" in answer
    assert alive(served)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 64,
        b"\xff\xfe" * 4096,
        b"GET\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\n\r\n",
        b"POST /v1/files/seal HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    ],
    ids=["nul", "high", "short", "ssh", "tls", "negative", "twice", "no-host", "bad-chunk"],
)
def test_garbage_is_answered_with_400_and_the_server_goes_on(served: Served, garbage: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert alive(served)


def test_a_websocket_upgrade_is_not_offered(served: Served) -> None:
    answer = served.send(
        b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    )
    assert b"101" not in answer.split(b"\r\n", 1)[0]
    assert alive(served)


def test_a_slow_head_has_its_deadline(hasty: Served) -> None:
    with hasty.connect() as sock:
        began = time.monotonic()
        sock.settimeout(0.05)
        for byte in b"GET /v1/health HTTP/1.1\r\nHost: " + b"x" * 1000:
            try:
                sock.send(bytes([byte]))
                if sock.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break
        took = time.monotonic() - began
        sock.settimeout(DEADLINE_S)
        answer = read_all(sock)
    assert took < 5
    assert b"api.timeout" in answer
    assert alive(hasty)


def test_a_slow_body_has_its_deadline(hasty: Served) -> None:
    with hasty.connect() as sock:
        sock.sendall(
            b"POST /v1/files/seal HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 408")
    assert alive(hasty)


def test_a_connection_that_says_nothing_is_closed(hasty: Served) -> None:
    with hasty.connect() as sock:
        assert b"api.timeout" in read_all(sock)


def test_a_peer_that_takes_no_answer_is_cut_off(hasty: Served) -> None:
    hasty.engine.contents[b"/srv/phi/large.shield"] = b"\0" * 64_000_000
    body = b'{"path":"/srv/phi/large.shield"}'
    head = b"POST /v1/files/cat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with hasty.connect() as sock:
        sock.sendall(head % len(body) + body)
        # the writer learns that its reader has gone; nobody waits for ever
        assert hasty.engine.closed.wait(DEADLINE_S)
    assert alive(hasty)


def test_a_thousand_connections_that_say_nothing_keep_nobody_out(served: Served) -> None:
    held = []
    for _ in range(1000):
        held.append(served.connect())
    began = time.monotonic()
    assert alive(served)
    assert time.monotonic() - began < 5
    for sock in held:
        sock.close()
    assert alive(served)
    metrics = served.ask("GET", "/metrics")[1].decode()
    evicted = next(line for line in metrics.splitlines() if 'reason="evicted"' in line)
    assert int(float(evicted.split()[-1])) >= 1000 - 256


def test_a_thousand_connections_with_half_a_request_each_keep_nobody_out(served: Served) -> None:
    held = []
    for _ in range(1000):
        sock = served.connect()
        sock.sendall(b"POST /v1/files/seal HTTP/1.1\r\nHo")
        held.append(sock)
    assert alive(served)
    for sock in held:
        sock.close()


def test_when_all_are_busy_the_next_is_told_so(hasty: Served) -> None:
    hasty.engine.gate.clear()
    body = json.dumps({"paths": ["/srv/phi/scan.dcm"]}).encode()
    head = b"POST /v1/files/seal HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    busy = [hasty.connect() for _ in range(8)]
    for sock in busy:
        sock.sendall(head % len(body) + body)
        assert sock.recv(12) == b"HTTP/1.1 200"  # the action has begun and waits at the gate
    with hasty.connect() as late:
        answer = read_all(late)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"api.busy" in answer
    hasty.engine.gate.set()
    for sock in busy:
        assert b'"type":"end"' in read_until(sock, b'"type":"end"')
        sock.close()
    assert alive(hasty)


def read_until(sock: socket.socket, text: bytes) -> bytes:
    """Read until `text` has come."""
    out = bytearray()
    while text not in out:
        chunk = sock.recv(65536)
        if not chunk:
            break
        out += chunk
    return bytes(out)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 100_000, "api.depth"),
        (b'{"a":' * 100_000, "api.depth"),
        (b'{"paths":' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1) + b"}", "api.invalid"),
        (b'{"paths":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}", "api.depth"),
        (b'{"paths":["/srv/phi/a"],"paths":["/srv/phi/b"]}', "api.json"),
        (b'{"paths":["/srv/phi/a"],"x":NaN}', "api.json"),
        (b'{"paths":["/srv/phi/a"],"unknown":1}', "api.invalid"),
        (b'{"paths":["relative"]}', "api.invalid"),
        (b'{"paths":["/srv/../etc/shadow"]}', "api.invalid"),
        (b'{"paths":["/srv/phi/\\u0000"]}', "api.invalid"),
        (b'{"paths":["/' + b"a" * 4096 + b'"]}', "api.invalid"),
        (b'{"paths":[]}', "api.invalid"),
        (b'{"paths":["/srv/phi/a"],"dry_run":1}', "api.invalid"),
        (b'{"paths":["/srv/phi/a"],"dry_run":"true"}', "api.invalid"),
        (b'{"paths":[{"path_b64":"!!"}]}', "api.invalid"),
        (b'{"paths":["/srv/phi/\\ud800"]}', "api.invalid"),
        (b'{"paths":"/srv/phi/a"}', "api.invalid"),
        (b"null", "api.json"),
        (b"\xef\xbb\xbf{}", "api.json"),
        (b"\xff{}", "api.json"),
        (b"{" + b'"n":' + b"9" * 5000 + b"}", "api.json"),
        (b"", "api.invalid"),
    ],
)
def test_a_body_that_is_not_what_it_should_be(served: Served, body: bytes, code: str) -> None:
    status, problem = served.ask("POST", SEAL, body)
    assert 400 <= status < 500
    assert problem["code"] == code
    assert served.engine.callers == []


def test_another_media_type_is_refused(served: Served) -> None:
    status, problem = served.ask("POST", SEAL, body_of(100), Content_Type="text/plain")
    assert (status, problem["code"]) == (415, "api.media")


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "limit=-1",
        "limit=10001",
        "limit=1&limit=2",
        "nope=1",
        "under=relative",
        "&".join("a=1" for _ in range(40)),
    ],
)
def test_a_query_that_is_not_what_it_should_be(served: Served, query: str) -> None:
    status, problem = served.ask("GET", f"/v1/events?{query}")
    assert (status, problem["code"]) == (422, "api.invalid")


def test_problems_never_repeat_what_was_sent(served: Served) -> None:
    secret = "patient-4711"
    _, problem = served.post(SEAL, {"paths": ["relative/" + secret], secret: 1})
    assert secret not in json.dumps({key: value for key, value in problem.items() if key != "detail"})
    assert "relative" not in json.dumps(problem)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "TRACE"])
def test_other_methods_are_refused(served: Served, method: str) -> None:
    assert served.ask(method, "/v1/status")[0] == 405


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/status/", "/v1//status", "/v1/threats/a/b/c", "/v1/threats/%2e%2e", "*"]
)
def test_other_paths_are_not_there(served: Served, path: str) -> None:
    assert served.ask("GET", path)[0] in (404, 422)


def test_a_fault_of_ours_is_told_without_its_text(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.engine.fault = RuntimeError("/srv/phi/patient-4711.dcm")
    status, problem = served.ask("GET", "/v1/status")
    assert (status, problem["code"]) == (500, "api.internal")
    assert "4711" not in json.dumps(problem)
    assert "4711" not in caplog.text
    assert "RuntimeError" in caplog.text
    assert alive(served)


def test_requests_one_after_the_other_on_one_connection(served: Served) -> None:
    with served.connect() as sock:
        for number in count():
            sock.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b'"state":"ready"' in read_until(sock, b"}")
            if number == 20:
                break


def connections_now(served: Served) -> int:
    """The gauge, our own connection included."""
    text = served.ask("GET", "/metrics")[1].decode()
    return int(float(next(x for x in text.splitlines() if x.startswith("shieldd_api_connections ")).split()[1]))


def test_a_large_answer_that_nobody_takes_does_not_keep_its_connection(hasty: Served) -> None:
    hasty.engine.event_list = [event(n, b"/srv/phi/" + b"x" * 400) for n in range(1, 9000)]
    with hasty.connect() as sock:
        sock.sendall(b"GET /v1/events?limit=9000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"
        assert connections_now(hasty) == 2
        deadline_s = time.monotonic() + DEADLINE_S
        while connections_now(hasty) > 1:
            assert time.monotonic() < deadline_s
