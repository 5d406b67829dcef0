"""The routed transport: services of this process are handed over to, the others are reached over the network.

Comes after the local transport and one over a network, which it is made of. Fails as they do.
"""

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.ports.transport import Transport
from holdfast.transports.local import LocalTransport


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
