"""The API's thread: one event loop, one uvicorn, one socket."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from typing import Final

import uvicorn

from shieldd.api.access import Access
from shieldd.api.app import Api, application
from shieldd.api.engine import Engine
from shieldd.api.listen import Listener
from shieldd.api.protocol import Door, Limits, protocol_for
from shieldd.errors import ShieldError

START_S: Final = 10.0


class _Uvicorn(uvicorn.Server):
    """uvicorn without its ten wake-ups a second: it sleeps until it is told to stop."""

    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self._ready = ready
        self._stop: asyncio.Event | None = None

    async def main_loop(self) -> None:
        """Serve until `request_stop`."""
        self._stop = asyncio.Event()
        self._ready.set()
        if not self.should_exit:
            await self._stop.wait()

    def request_stop(self) -> None:
        """On the loop: end `main_loop`."""
        self.should_exit = True
        if self._stop is not None:
            self._stop.set()


class ApiServer:
    """Serves an engine on a listener from a thread of its own.

    Args:
        engine: what answers; its methods are called from worker threads.
        listener: from `listen()` or `passed()`; `stop` removes it.
        readers: names of the groups that may read.
        limits: bounds at the door.
        version: shown in `/openapi.json`.
    """

    def __init__(
        self,
        engine: Engine,
        listener: Listener,
        *,
        readers: tuple[str, ...] = ("shieldd",),
        limits: Limits | None = None,
        version: str = "",
    ) -> None:
        bounds = limits or Limits()
        own_uid = os.geteuid()
        self._listener = listener
        self._door = Door(bounds, own_uid)
        self._api = Api(engine, Access(readers, own_uid=own_uid), self._door, bounds, version)
        # what uvicorn has to say (a peer sent garbage) is counted by the door instead; logging it would be a flood
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        config = uvicorn.Config(
            application(self._api),
            http=protocol_for(self._door),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=bounds.head_bytes,
            backlog=1024,
        )
        self._ready = threading.Event()
        self._uvicorn = _Uvicorn(config, self._ready)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="shieldd-api", daemon=True)

    def start(self) -> None:
        """Return once requests are answered.

        Raises:
            ShieldError: `api.socket`.
        """
        self._thread.start()
        if not self._ready.wait(START_S) or not self._thread.is_alive():
            raise ShieldError("api.socket", "api did not start")

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop accepting, give running answers three seconds, cut what is left; may be called twice."""
        if self._loop is not None and not self._loop.is_closed() and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._finish)
        self._thread.join(timeout_s)
        self._api.close()
        self._listener.remove()

    @property
    def alive(self) -> bool:
        """Whether the thread is there (the watchdog asks)."""
        return self._thread.is_alive()

    def _finish(self) -> None:
        for feed in tuple(self._api.feeds):
            feed.close()
        self._uvicorn.request_stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve([self._listener.socket.dup()]))
        finally:
            self._ready.set()

    async def _serve(self, sockets: Sequence[object]) -> None:
        self._loop = asyncio.get_running_loop()
        await self._uvicorn.serve(sockets=list(sockets))  # type: ignore[arg-type]
