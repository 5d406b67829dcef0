"""The transport port: how frames, feeds and questions travel from one service to another.

Comes after `runtime.exchange.exchange` and `runtime.feeds.subscriptions`, which decide what is said; before the wire. A
transport carries and loses, nothing more: order, repetition and duplicates are the exchange's affair.
`transports.local` and `transports.http` are transports. Failures are `holdfast.errors.ExchangeError`s.
"""

from typing import Protocol

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame

__all__ = ["Peer", "Transport"]


class Peer(Protocol):
    """What a service answers to others."""

    async def exchange(self, frame: Frame) -> Frame:
        """Take a frame and, when all of it is durable, answer with one. Raises ExchangeError or Unavailable."""
        ...

    async def feed(self, request: FeedRequest) -> FeedPage:
        """Events of this service's log. Raises Forked for a checkpoint this log has never given out."""
        ...

    async def standing(self, tx: str) -> Standing:
        """What this service knows of a staged transaction. Raises Unavailable, StoreError."""
        ...


class Transport(Protocol):
    """The way to the others. Every call ends in time; Unreachable says nothing about what happened there."""

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Bring a frame to a peer and its answer back. Raises Unreachable, or the ExchangeError that the peer named."""
        ...

    async def feed(self, peer: str, request: FeedRequest) -> FeedPage:
        """A page of a peer's feed. Raises Unreachable, or the ExchangeError that the peer named."""
        ...

    async def standing(self, peer: str, tx: str) -> Standing:
        """What a peer knows of a staged transaction. Raises Unreachable, or the error that the peer named."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
