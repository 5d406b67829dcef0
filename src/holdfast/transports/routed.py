"""The routed network: services of this process by name, all others over another network.

Comes after `transports.local` and the network for the others, such as `transports.http`. Each call goes to one of the
two, by the name of the peer, and fails as that network fails.
"""

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.ports.transport import Network
from holdfast.transports.local import LocalTransport


class Routed:
    """A network that calls services of this process directly, and uses another network for all others."""

    def __init__(self, near: LocalTransport, far: Network | None) -> None:
        self.near = near
        self.far = far

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Send a frame to a peer and return its answer."""
        return await self._to(peer).exchange(peer, frame)

    async def feed(self, producer: str, request: FeedRequest) -> FeedPage:
        """A page of a producer's feed."""
        return await self._to(producer).feed(producer, request)

    async def standing(self, peer: str, tx: str) -> Standing:
        """What a peer knows about a staged transaction."""
        return await self._to(peer).standing(peer, tx)

    async def close(self) -> None:
        """Close the connections."""
        if self.far is not None:
            await self.far.close()

    def _to(self, peer: str) -> Network:
        return self.near if self.far is None or peer in self.near.peers else self.far
