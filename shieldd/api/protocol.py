"""The connection: who is at the other end, how long it may take, how many there may be.

A mix-in under uvicorn's h11 protocol. It relies on two members that uvicorn does not document, `app_state` (copied into
each request's scope) and `send_400_response`; `tests/api/test_peer.py` fails when a new version changes them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from shieldd.api.access import Peer
from shieldd.api.problem import MEDIA_TYPE, problem_bytes
from shieldd.api.strict import BODY_MAX
from shieldd.errors import ShieldError

_UCRED: Final = struct.Struct("iII")  # pid, uid, gid: unix(7)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds at the door; each keeps one peer from taking the API away from the others.

    Attributes:
        connections: at once, all peers together; beyond it the longest idle one goes.
        per_uid: at once for one uid other than root and the daemon's own.
        head_bytes: request line and headers; a query holds one path of 4,096 bytes, each up to three characters.
        body_bytes: of one request; the client splits what is more.
        head_s: from connect, or from the first byte of a further request, to the end of the headers.
        body_s: for the whole body.
        write_s: a peer that takes no byte of an ordinary answer for so long is cut off.
        follow_write_s: the same for streams, where a reader may be paused by its terminal.
    """

    connections: int = 256
    per_uid: int = 64
    head_bytes: int = 16_384
    body_bytes: int = BODY_MAX
    head_s: float = 10.0
    body_s: float = 10.0
    write_s: float = 30.0
    follow_write_s: float = 600.0


@dataclass(slots=True)
class Door:
    """All connections of one server, oldest first; only the event loop touches it."""

    limits: Limits
    own_uid: int
    connections: dict[PeerProtocol, None] = field(default_factory=dict)
    per_uid: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    evicted: int = 0
    malformed: int = 0
    timed_out: int = 0

    def enter(self, connection: PeerProtocol) -> bool:
        """Let a connection in, at the cost of the longest idle one where the house is full; False when all are busy."""
        uid = connection.peer.uid
        master = uid in (0, self.own_uid)
        if not master and self.per_uid[uid] >= self.limits.per_uid and not self._evict(uid):
            self.refused += 1
            return False
        if len(self.connections) >= self.limits.connections:
            crowd = self.per_uid.most_common(1)[0][0]
            if not self._evict(crowd) and not self._evict(None):
                self.refused += 1
                return False
        self.connections[connection] = None
        self.per_uid[uid] += 1
        return True

    def leave(self, connection: PeerProtocol) -> None:
        """Forget a connection; may be called for one that was never let in."""
        if connection in self.connections:
            del self.connections[connection]
            self.per_uid[connection.peer.uid] -= 1
            if not self.per_uid[connection.peer.uid]:
                del self.per_uid[connection.peer.uid]

    def _evict(self, uid: int | None) -> bool:
        for one in self.connections:
            if one.idle and uid in (None, one.peer.uid):
                self.leave(one)
                one.transport.abort()
                self.evicted += 1
                return True
        return False


class PeerProtocol(H11Protocol):
    """uvicorn's protocol with the peer's credentials, a deadline for the head, and a door (set by `protocol_for`)."""

    door: Door
    peer: Peer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._killer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """No request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who it is, before the first byte is read."""
        raw = cast("socket.socket", transport.get_extra_info("socket")).getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size
        )
        pid, uid, gid = _UCRED.unpack(raw)
        self.peer = Peer(uid, gid, pid)
        super().connection_made(transport)
        self.app_state = {**self.app_state, "peer": self.peer, "abort": transport.abort, "door": self.door}
        if self.door.enter(self):
            self._arm()
        else:
            self._refuse(ShieldError("api.busy"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the door."""
        self._disarm()
        if self._killer is not None:
            self._killer.cancel()
        self.door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bound the time to the end of the head: armed at its first byte, not again at each later one."""
        if self.transport.is_closing():
            return
        if self.idle and self._deadline is None:
            self._arm()
        super().data_received(data)
        if not self.idle:
            self._disarm()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in our own form, and close."""
        self.door.malformed += 1
        self._refuse(ShieldError("api.http"))

    def on_response_complete(self) -> None:
        """What is still in the buffer when a connection closes has `write_s` to be taken."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._kill_later(self.door.limits.write_s)

    def timeout_keep_alive_handler(self) -> None:
        """An idle connection is closed."""
        super().timeout_keep_alive_handler()
        self._kill_later(self.door.limits.write_s)

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.door.limits.head_s, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self.door.timed_out += 1
        self._refuse(ShieldError("api.timeout"))

    def _refuse(self, error: ShieldError) -> None:
        """A problem answer from below the application, then the end."""
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            body = problem_bytes(error)
            headers = [
                ("content-type", MEDIA_TYPE),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            head = self.conn.send(h11.Response(status_code=error.http_status, headers=headers))
            data = self.conn.send(h11.Data(data=body))
            self.conn.send(h11.EndOfMessage())
            self.transport.write((head or b"") + (data or b""))
        self.transport.close()
        self._kill_later(1.0)

    def _kill_later(self, after_s: float) -> None:
        """close() waits until the peer has read; one that never does must not keep descriptor and buffer."""
        if self._killer is None:
            self._killer = self.loop.call_later(after_s, self.transport.abort)


def protocol_for(door: Door) -> type[PeerProtocol]:
    """The protocol class of one server, bound to its door."""
    return type("BoundPeerProtocol", (PeerProtocol,), {"door": door})
