"""Hosting: the services of a process behind one HTTP server, until it is told to end.

Comes after `compose`, which put the services together. The order of ending: the server drains, then every service
commits what waits and closes its store. Fails with `ConfigInvalid` or `StoreError` before it listens.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

from holdfast.compose import asgi_app
from holdfast.config import ServiceSettings, Settings
from holdfast.runtime.system import Running

T = TypeVar("T")
COLLECT = (20_000, 20, 50)
"""Thresholds of garbage collection: streams in memory are many long-lived objects. The defaults cost 8 % of the
marketplace's throughput."""
SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter: the store's writer thread must not wait 5 ms for the loop's thread."""


async def host(running: Running, *, host: str, port: int, ready: Callable[[int], None] | None = None) -> None:
    """Start services, serve them until SIGTERM, SIGINT or cancellation, then end in order.

    Raises StoreError if a store cannot be opened and ConfigInvalid if the address is taken; nothing is left open then.
    """
    from holdfast.web.serve import serve

    with _Ending() as ending:
        try:
            await running.start()
            ending.task = None
            await serve(asgi_app(running), host=host, port=port, ready=ready)
        except asyncio.CancelledError:
            if not ending.told:
                raise
        finally:
            ending.task = None
            await running.close()


class _Ending:
    """What SIGTERM and SIGINT do around the server, which has handlers of its own while it serves.

    Before the server serves, a signal cancels the start. The server repeats each signal it got when it has ended: the
    first of these lets the services close in order; any further one kills the process.
    """

    def __init__(self) -> None:
        self.task = asyncio.current_task()
        self.told = 0
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Ending":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._signal) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _signal(self, number: int, frame: object) -> None:
        self.told += 1
        if self.told > 1:
            os._exit(128 + number)
        if self.task is not None:
            self._loop.call_soon_threadsafe(self.task.cancel)


def address_of(settings: Settings, service: str) -> tuple[str, int]:
    """(host, port) a service listens on in a process of its own."""
    own = settings.services.get(service, ServiceSettings())
    port = own.port or (urlsplit(own.url).port if own.url else None) or settings.port
    return own.host or settings.host, port


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop if it is installed, with short turns for threads and rare garbage collection. Only for
    processes that the command line starts."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what is loaded by now stays: no collection need look at it
    gc.set_threshold(*COLLECT)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
