"""The transport port: how frames and questions travel from one service to another.

Comes after `runtime.exchange.exchange`, which decides what is said; before the wire. A transport carries and loses,
nothing more: order, repetition and duplicates are the exchange's affair. What services publish is read by another port,
`ports.feed`; a `Network` is both. An adapter that passes `holdfast.testing.conformance.transport` is a transport.
Failures are `holdfast.errors.ExchangeError`s.
"""

from typing import Protocol

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import Frame
from holdfast.ports.feed import Feed, Producer

__all__ = ["Neighbour", "Network", "Peer", "Transport"]


class Peer(Protocol):
    """What a service answers to others."""

    async def exchange(self, frame: Frame) -> Frame:
        """Take a frame and, when all of it is durable, answer with one. Raises ExchangeError or Unavailable."""
        ...

    async def standing(self, tx: str) -> Standing:
        """What this service knows of a staged transaction. Raises Unavailable, StoreError."""
        ...


class Transport(Protocol):
    """The way to the others. Every call ends in time; Unreachable says nothing about what happened there."""

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Bring a frame to a peer and its answer back. Raises Unreachable, or the ExchangeError that the peer named."""
        ...

    async def standing(self, peer: str, tx: str) -> Standing:
        """What a peer knows of a staged transaction. Raises Unreachable, or the error that the peer named."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Network(Transport, Feed, Protocol):
    """An adapter that brings frames and reads feeds over the same connections."""


class Neighbour(Peer, Producer, Protocol):
    """A service as a network sees it: it answers frames and questions, and lets its events be read."""
