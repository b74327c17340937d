"""A real server on a real socket around the engine in memory, and raw access to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shieldd.api.listen import listen
from shieldd.api.protocol import Limits
from shieldd.api.server import ApiServer
from tests.api.memory import MemoryEngine

DEADLINE_S = 20.0


@dataclass
class Served:
    """A running server."""

    path: str
    engine: MemoryEngine
    server: ApiServer

    def connect(self) -> socket.socket:
        """A connection, not yet used."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(DEADLINE_S)
        sock.connect(self.path)
        return sock

    def send(self, raw: bytes) -> bytes:
        """Send bytes as they are and read to the end."""
        with self.connect() as sock:
            sock.sendall(raw)
            return read_all(sock)

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """One request; status and JSON value (or bytes where it is not JSON)."""
        connection = http.client.HTTPConnection("shieldd", timeout=DEADLINE_S)
        connection.sock = self.connect()
        given = {"Connection": "close", **{key.replace("_", "-"): value for key, value in headers.items()}}
        if body is not None and "Content-Type" not in given:
            given["Content-Type"] = "application/json"
        with contextlib.suppress(BrokenPipeError):  # refused early: the answer is there
            connection.request(method, target, body=body, headers=given)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if (
            content
            and "json" in response.headers.get("content-type", "")
            and "ndjson" not in response.headers["content-type"]
        ):
            return response.status, json.loads(content)
        return response.status, content

    def post(self, target: str, value: object) -> tuple[int, Any]:
        """One POST of a JSON value."""
        return self.ask("POST", target, json.dumps(value).encode())


def read_all(sock: socket.socket) -> bytes:
    """To the end of the stream; a reset ends it too."""
    out = bytearray()
    while True:
        try:
            chunk = sock.recv(65536)
        except ConnectionResetError:
            return bytes(out)
        if not chunk:
            return bytes(out)
        out += chunk


def serve(folder: Path, **options: Any) -> Served:
    """Start a server; the caller stops it."""
    path = str(folder / "shieldd.sock")
    engine = MemoryEngine()
    server = ApiServer(engine, listen(os.fsencode(path)), version="0.1.0", **options)
    server.start()
    return Served(path, engine, server)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user may enter (pytest's own may not be)."""
    made = Path(tempfile.mkdtemp(prefix="shieldd-api-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    """A server with its ordinary limits."""
    running = serve(folder)
    yield running
    running.server.stop()


@pytest.fixture
def hasty(folder: Path) -> Iterator[Served]:
    """A server whose time-outs are short, and that lets few in."""
    limits = Limits(connections=8, per_uid=3, head_s=0.4, body_s=0.4, write_s=0.5, follow_write_s=0.5)
    running = serve(folder, limits=limits)
    yield running
    running.server.stop()
