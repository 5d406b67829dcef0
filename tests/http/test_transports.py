"""The local and the HTTP transport are transports: the conformance suite says so, HTTP with and without a secret."""

import contextlib
from collections.abc import AsyncGenerator, Mapping

from holdfast import Contract, Service
from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.ports.transport import Peer, Transport
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.stores.memory import MemoryStore
from holdfast.testing.conformance.transport import TransportConformance
from holdfast.transports.http import HttpTransport
from holdfast.transports.local import LocalTransport
from holdfast.web.app import make_app
from support.http_services import listening


class Front(Node):
    """A node that lets a peer speak for it."""

    def __init__(self, name: str, peer: Peer) -> None:
        super().__init__(Service(Contract(name)), MemoryStore(name), LocalTransport(), SystemClock())
        self._peer = peer

    async def exchange(self, frame: Frame) -> Frame:
        return await self._peer.exchange(frame)

    async def feed(self, request: FeedRequest) -> FeedPage:
        return await self._peer.feed(request)

    async def standing(self, tx: str) -> Standing:
        return await self._peer.standing(tx)


class TestLocalTransport(TransportConformance):
    @contextlib.asynccontextmanager
    async def connect(self, peers: Mapping[str, Peer]) -> AsyncGenerator[Transport]:
        transport = LocalTransport()
        transport.peers.update(peers)
        yield transport


class TestHttpTransport(TransportConformance):
    secret = ""

    @contextlib.asynccontextmanager
    async def connect(self, peers: Mapping[str, Peer]) -> AsyncGenerator[Transport]:
        app = make_app({name: Front(name, peer) for name, peer in peers.items()}, secret=self.secret)
        async with listening(app) as base:
            transport = HttpTransport({name: f"{base}/{name}" for name in peers}, secret=self.secret)
            yield transport
            await transport.close()


class TestSignedHttpTransport(TestHttpTransport):
    secret = "a secret of services"
