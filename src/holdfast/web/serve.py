"""Serving: runs an ASGI app on uvicorn until it is told to stop, and then finishes the running requests.

Stops on SIGTERM, SIGINT or cancellation. Fails with `ConfigInvalid` if the server cannot listen on the address.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from holdfast.errors import ConfigInvalid

DRAIN_SECONDS = 3
"""How long running requests may take while the server still listens and says that it is not ready."""
GRACE_SECONDS = 1
"""How long after that the last requests may take before they are cut off."""
KEEP_ALIVE_SECONDS = 75


class _DrainingServer(uvicorn.Server):
    """A uvicorn server that says when it takes requests, and tells the app when it stops: waiting feed readers are
    answered at once."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stop: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._ready, self._stop = ready, stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to take requests."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that no more requests should come, finish the running ones, then stop listening."""
        if self._stop is not None:
            self._stop()
        loop = asyncio.get_running_loop()
        end = loop.time() + DRAIN_SECONDS
        while self.server_state.tasks and loop.time() < end:  # noqa: ASYNC110 - uvicorn has no signal for it
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


async def serve(app: Any, *, host: str, port: int, ready: Callable[[int], None] | None = None) -> None:
    """Serve until told to stop; `ready` is told the port once requests are taken (port 0 takes a free one)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off Nagle's delay only if the protocol is named; else every answer may wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigInvalid(f"the server cannot listen on {host}:{port}: {error.strerror or error}") from None
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    port = listener.getsockname()[1]
    server = _DrainingServer(config, (lambda: ready(port)) if ready else (lambda: None), getattr(app, "stop", None))
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        raise
    finally:
        listener.close()
