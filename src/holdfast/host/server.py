"""Hosting: the services of this process on their stores, behind one HTTP server, until it is told to end.

Comes after configuration and targets. With several services they reach each other in memory; with one, its peers are
reached over HTTP at the URLs of the configuration. The order of ending: the server drains, then every node commits
what waits and lets go of its store. Fails with `ConfigInvalid` or `StoreError` before it listens.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from holdfast.compose import make_store
from holdfast.config import ServiceSettings, Settings
from holdfast.core.saga.stage import Standing
from holdfast.core.system import System
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.errors import ConfigInvalid
from holdfast.ports.store import Store
from holdfast.ports.transport import Transport
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.transports.local import LocalTransport

T = TypeVar("T")
COLLECT = (20_000, 20, 50)
"""Garbage collection: streams in memory are many objects that live long (8 % of the marketplace's throughput)."""
SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter: the store's writer thread must not wait 5 ms for the loop's."""


def build_nodes(
    system: System,
    settings: Settings,
    *,
    only: str = "",
    wrap_store: Callable[[str, Store], Store] | None = None,
    wrap_transport: Callable[[str, Transport], Transport] | None = None,
) -> dict[str, Node]:
    """The nodes of this process, not started. `only`: that service alone, its peers by URL. Raises ConfigInvalid.

    `wrap_store` and `wrap_transport` get (service, port) and give what takes its place: how the testing kit takes
    a protection out.
    """
    if only and only not in system.services:
        raise ConfigInvalid(f"{system.name!r} has no service {only!r}; there are: {', '.join(system.services)}")
    chosen = {only: system.services[only]} if only else system.services
    outside = set(system.services).union(*(service.peers() for service in chosen.values())) - set(chosen)
    transport = _transport(settings, outside)
    nodes: dict[str, Node] = {}
    for name, service in chosen.items():
        store = make_store(settings.store_of(name), name)
        nodes[name] = Node(
            service,
            wrap_store(name, store) if wrap_store else store,
            wrap_transport(name, transport) if wrap_transport else transport,
            SystemClock(),
            peers=system.services,
            snapshot_every=settings.snapshot_every,
            streams_in_memory_max=settings.streams_in_memory_max,
        )
    transport.near.peers.update(nodes)
    return nodes


class Routed:
    """A transport that hands over in this process what it can, and takes the network for the rest."""

    def __init__(self, near: LocalTransport, far: Transport | None) -> None:
        self.near, self.far = near, far

    def _to(self, peer: str) -> Transport:
        return self.near if self.far is None or peer in self.near.peers else self.far

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Bring a frame to a peer and its answer back."""
        return await self._to(peer).exchange(peer, frame)

    async def feed(self, peer: str, request: FeedRequest) -> FeedPage:
        """A page of a peer's feed."""
        return await self._to(peer).feed(peer, request)

    async def standing(self, peer: str, tx: str) -> Standing:
        """What a peer knows of a staged transaction."""
        return await self._to(peer).standing(peer, tx)

    async def close(self) -> None:
        """Let go of connections."""
        if self.far is not None:
            await self.far.close()


def _transport(settings: Settings, outside: set[str]) -> Routed:
    if not outside:
        return Routed(LocalTransport(), None)
    urls = settings.urls()
    if missing := sorted(outside - set(urls)):
        raise ConfigInvalid(
            f"services.{missing[0]}.url is not set: {missing[0]} is a peer and does not run in this process"
        )
    from holdfast.transports.http import HttpTransport

    return Routed(LocalTransport(), HttpTransport({name: urls[name] for name in outside}, secret=settings.secret))


async def host(
    nodes: Mapping[str, Node], settings: Settings, *, host: str, port: int, ready: Callable[[int], None] | None = None
) -> None:
    """Start the nodes, serve them until SIGTERM, SIGINT or cancellation, then end in order.

    Raises StoreError where a store cannot be opened and ConfigInvalid where nobody can listen: nothing is left open.
    """
    from holdfast.web.app import make_app
    from holdfast.web.serve import serve

    with _Ending() as ending:
        started: list[Node] = []
        try:
            for node in nodes.values():
                started.append(node)
                await node.start()
            app = make_app(nodes, secret=settings.secret, operator_token=settings.operator_token)
            ending.task = None
            await serve(app, host=host, port=port, ready=ready)
        except asyncio.CancelledError:
            if not ending.told:
                raise
        finally:
            ending.task = None
            await asyncio.gather(*(node.close(drain=node.takes_work) for node in started))
            for node in started:
                await node.transport.close()


class _Ending:
    """What SIGTERM and SIGINT do around the server, which has handlers of its own while it serves.

    Before it serves they cancel the start. It passes on each signal it got when it has ended: then the first is known,
    and the nodes drain; one that comes on top of that kills.
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
    """Run a coroutine on uvloop where there is one, with short turns for threads and few collections of garbage. For
    our own processes only."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what is loaded by now stays: no collection need look at it
    gc.set_threshold(*COLLECT)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
