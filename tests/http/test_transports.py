"""The local, the HTTP and the routed network are transports and feeds: the conformance suites say so, HTTP with and
without a secret."""

import contextlib
from collections.abc import AsyncGenerator, Mapping

from holdfast import Contract, Service
from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.ports.feed import Feed, Producer
from holdfast.ports.transport import Network, Peer, Transport
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.stores.memory import MemoryStore
from holdfast.testing.conformance.feed import FeedConformance
from holdfast.testing.conformance.transport import TransportConformance
from holdfast.transports.http import HttpTransport
from holdfast.transports.local import LocalTransport
from holdfast.transports.routed import Routed
from holdfast.web.app import make_app
from support.http_services import listening


class Answering(Node):
    """A node that lets a peer answer for it."""

    def __init__(self, name: str, peer: Peer) -> None:
        super().__init__(Service(Contract(name)), MemoryStore(name), LocalTransport(), SystemClock())
        self._peer = peer

    async def exchange(self, frame: Frame) -> Frame:
        return await self._peer.exchange(frame)

    async def standing(self, tx: str) -> Standing:
        return await self._peer.standing(tx)


class Publishing(Node):
    """A node that lets a producer publish for it."""

    def __init__(self, name: str, producer: Producer) -> None:
        super().__init__(Service(Contract(name)), MemoryStore(name), LocalTransport(), SystemClock())
        self._producer = producer

    async def feed(self, request: FeedRequest) -> FeedPage:
        return await self._producer.feed(request)


def answering(peers: Mapping[str, Peer]) -> dict[str, Node]:
    """A node for each peer."""
    return {name: Answering(name, peer) for name, peer in peers.items()}


def publishing(producers: Mapping[str, Producer]) -> dict[str, Node]:
    """A node for each producer."""
    return {name: Publishing(name, producer) for name, producer in producers.items()}


def near(nodes: Mapping[str, Node]) -> LocalTransport:
    """A local transport to these."""
    transport = LocalTransport()
    transport.peers.update(nodes)
    return transport


@contextlib.asynccontextmanager
async def far(nodes: Mapping[str, Node], secret: str) -> AsyncGenerator[HttpTransport]:
    """An HTTP transport to these."""
    async with listening(make_app(nodes, secret=secret)) as base:
        transport = HttpTransport({name: f"{base}/{name}" for name in nodes}, secret=secret)
        yield transport
        await transport.close()


@contextlib.asynccontextmanager
async def routed(nodes: Mapping[str, Node]) -> AsyncGenerator[Network]:
    """The first of these in this process, the others over HTTP, where all are served."""
    first = next(iter(nodes))
    async with far(nodes, "") as transport:
        yield Routed(near({first: nodes[first]}), transport)


class TestLocalTransport(TransportConformance):
    @contextlib.asynccontextmanager
    async def connect(self, peers: Mapping[str, Peer]) -> AsyncGenerator[Transport]:
        yield near(answering(peers))


class TestLocalFeed(FeedConformance):
    @contextlib.asynccontextmanager
    async def connect(self, producers: Mapping[str, Producer]) -> AsyncGenerator[Feed]:
        yield near(publishing(producers))


class TestHttpTransport(TransportConformance):
    secret = ""

    @contextlib.asynccontextmanager
    async def connect(self, peers: Mapping[str, Peer]) -> AsyncGenerator[Transport]:
        async with far(answering(peers), self.secret) as transport:
            yield transport


class TestHttpFeed(FeedConformance):
    secret = ""

    @contextlib.asynccontextmanager
    async def connect(self, producers: Mapping[str, Producer]) -> AsyncGenerator[Feed]:
        async with far(publishing(producers), self.secret) as transport:
            yield transport


class TestSignedHttpTransport(TestHttpTransport):
    secret = "a secret of services"


class TestSignedHttpFeed(TestHttpFeed):
    secret = "a secret of services"


class TestRoutedTransport(TransportConformance):
    @contextlib.asynccontextmanager
    async def connect(self, peers: Mapping[str, Peer]) -> AsyncGenerator[Transport]:
        async with routed(answering(peers)) as transport:
            yield transport


class TestRoutedFeed(FeedConformance):
    @contextlib.asynccontextmanager
    async def connect(self, producers: Mapping[str, Producer]) -> AsyncGenerator[Feed]:
        async with routed(publishing(producers)) as transport:
            yield transport
