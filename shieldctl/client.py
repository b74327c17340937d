"""The daemon's API over its Unix socket, with nothing but the standard library (start-up time counts).

Answers are JSON values as `/openapi.json` describes them; every failure is a `ShieldError` with the daemon's code.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

from shieldd.errors import CODES, ShieldError

SERVICE_SOCKET: Final = "/run/shieldd/shieldd.sock"
CONNECT_S: Final = 5.0
ANSWER_S: Final = 30.0  # the daemon shows life every 5 s on streams, and answers the rest at once
ACTION_S: Final = 3600.0  # one large file brought back is one answer
LINE_MAX: Final = 1 << 22  # bytes of one NDJSON line; ours are below 100 KiB
CHUNK: Final = 1 << 20
Json = dict[str, Any]


def socket_paths() -> list[str]:
    """Where a daemon may listen, in the order of search: service, runtime directory, state directory."""
    found = [SERVICE_SOCKET]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        found += [f"{runtime}/shieldd/shieldd.sock", f"{runtime}/shieldd.sock"]
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return [*found, f"{state}/shieldd/shieldd.sock"]


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket that is connected already."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("shieldd")
        self._connected = connected

    def connect(self) -> None:
        """Nothing to do: the socket is there."""
        self.sock = self._connected


class Client:
    """One daemon.

    Args:
        path: of its socket; None to search.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path

    def get(self, path: str, /, **query: object) -> Json:
        """One JSON answer to a GET; parameters that are None are left out."""
        return self._json(self._request("GET", _target(path, query), None, ANSWER_S))

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Json:
        """One JSON answer to a POST."""
        return self._json(self._request("POST", path, body or {}, ACTION_S))

    def follow(self, path: str, /, **query: object) -> Iterator[Json]:
        """Lines of a stream, signs of life left out; ends when the daemon stops.

        Raises:
            ShieldError: `cli.cut` when the stream ends without its last line.
        """
        return self._lines(self._request("GET", _target(path, query), None, ANSWER_S))

    def act(self, path: str, body: Mapping[str, object]) -> Iterator[Json]:
        """Lines of a long action: `begun`, `file` each, `end`.

        Raises:
            ShieldError: what the action ended with, or `cli.cut`.
        """
        return self._lines(self._request("POST", path, body, ANSWER_S))

    def content(self, path: str, body: Mapping[str, object]) -> Iterator[bytes]:
        """A file's verified content, piece by piece.

        Raises:
            ShieldError: `cli.cut` when the daemon stopped in the middle: what came is true, but not all.
        """
        response = self._request("POST", path, body, ANSWER_S)
        try:
            while chunk := response.read1(CHUNK):
                yield chunk
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise ShieldError("cli.cut", "content ended early: a later part failed its check") from error
        finally:
            response.close()

    def _connect(self) -> socket.socket:
        """The first socket that answers.

        Raises:
            ShieldError: `api.denied` where the file system keeps us out, else `cli.unreachable`.
        """
        denied = ""
        paths = [self._path] if self._path else socket_paths()
        for path in paths:
            try:
                return _connected(path)
            except PermissionError:
                denied = denied or path
            except TimeoutError as error:
                raise ShieldError("api.busy", f"{path!r} does not accept connections") from error
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR, errno.ENOTSOCK):
                    raise ShieldError("cli.unreachable", f"cannot connect to {path!r}: {error.strerror}") from error
        if denied:
            raise ShieldError("api.denied", f"not allowed to connect to {denied!r}")
        where = f"at {paths[0]!r}" if len(paths) == 1 else "at any of its usual places"
        raise ShieldError("cli.unreachable", f"daemon is not running (no answer {where})")

    def _request(
        self, method: str, target: str, body: Mapping[str, object] | None, timeout_s: float
    ) -> http.client.HTTPResponse:
        sock = self._connect()
        sock.settimeout(timeout_s)
        connection = _Connection(sock)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Connection": "close", "Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            # a broken pipe: refused before it had read everything, the answer is there all the same
            with suppress(BrokenPipeError):
                connection.request(method, target, body=data, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                raise _problem(response)
        except TimeoutError as error:
            raise ShieldError("cli.not-ready", "daemon does not answer") from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise ShieldError("cli.cut", "daemon closed the connection without an answer") from error
        return response

    def _json(self, response: http.client.HTTPResponse) -> Json:
        try:
            value = json.loads(response.read())
        except TimeoutError as error:
            raise ShieldError("cli.not-ready", "daemon does not answer") from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise ShieldError("cli.cut") from error
        except ValueError as error:
            raise ShieldError("cli.protocol") from error
        if not isinstance(value, dict):
            raise ShieldError("cli.protocol")
        return value

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[Json]:
        try:
            while line := response.readline(LINE_MAX):
                value = json.loads(line)
                if value["type"] == "alive":
                    continue
                if value["type"] == "problem":
                    raise _error_of(value["problem"])
                yield value
                if value["type"] == "end":
                    return
        except TimeoutError as error:
            raise ShieldError("cli.cut", "daemon shows no sign of life") from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise ShieldError("cli.cut") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ShieldError("cli.protocol") from error
        finally:
            response.close()
        raise ShieldError("cli.cut")


def _connected(path: str) -> socket.socket:
    """Connect, also where the path is longer than a socket address (108 bytes)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(CONNECT_S)
    folder_fd = -1
    try:
        if len(os.fsencode(path)) <= 107:
            sock.connect(path)
        else:
            folder, name = os.path.split(path)
            folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            sock.connect(f"/proc/self/fd/{folder_fd}/{name}")
    except OSError:
        sock.close()
        raise
    finally:
        if folder_fd >= 0:
            os.close(folder_fd)
    return sock


def _target(path: str, query: Mapping[str, object]) -> str:
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path


def segment(text: str) -> str:
    """An id as one segment of a path.

    Raises:
        ShieldError: `api.not-found` for what can be nobody's id.
    """
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}", text):
        raise ShieldError("api.not-found", f"no such object: {text!r} is not an id")
    return text


def _problem(response: http.client.HTTPResponse) -> ShieldError:
    try:
        return _error_of(json.loads(response.read()))
    except (ValueError, http.client.HTTPException):
        return ShieldError("cli.protocol", f"answer with status {response.status} is not one of shieldd's")


def _error_of(problem: object) -> ShieldError:
    """A problem answer as an error; a code that this version does not know keeps its text."""
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        return ShieldError("cli.protocol")
    known = cast("Json", problem)
    code = known["code"] if known["code"] in CODES else "api.internal"
    error = ShieldError(code, str(known.get("detail", "")), hint=str(known.get("hint", "")))
    error.code = known["code"]
    if isinstance(known.get("path"), str):
        error.message = f"{known['path']}: {error.message}"
    return error
