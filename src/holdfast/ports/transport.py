"""The transport port: how frames and questions travel from one service to another.

Comes after `runtime.exchange.exchange`, which decides what to send; before the wire. A transport only carries frames
and may lose them: the exchange handles order, repetition and duplicates. Published events are read through another
port, `ports.feed`; a `Network` is both. An adapter is a transport if it passes
`holdfast.testing.conformance.transport`. Failures are `holdfast.errors.ExchangeError`s.
"""

from typing import Protocol

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import Frame
from holdfast.ports.feed import Feed, Producer

__all__ = ["Neighbour", "Network", "Peer", "Transport"]


class Peer(Protocol):
    """The answers of a service to other services."""

    async def exchange(self, frame: Frame) -> Frame:
        """Take a frame and, when all of it is durable, answer with one. Raises ExchangeError or Unavailable."""
        ...

    async def standing(self, tx: str) -> Standing:
        """What this service knows about a staged transaction. Raises Unavailable, StoreError."""
        ...


class Transport(Protocol):
    """The connection to other services. Every call ends in time; after Unreachable it is unknown what happened
    there."""

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Send a frame to a peer and return its answer. Raises Unreachable, or the ExchangeError that the peer
        named."""
        ...

    async def standing(self, peer: str, tx: str) -> Standing:
        """What a peer knows about a staged transaction. Raises Unreachable, or the error that the peer named."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class Network(Transport, Feed, Protocol):
    """An adapter that brings frames and reads feeds over the same connections."""


class Neighbour(Peer, Producer, Protocol):
    """A service as a network sees it: it answers frames and questions, and lets its events be read."""
