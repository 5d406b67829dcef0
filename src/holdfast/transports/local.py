"""The local transport, which is a feed too: services of one process, by name. Frames are passed without encoding.

A service that does not run here, or no longer, is `Unreachable`, as over a network.
"""

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.errors import Unreachable
from holdfast.ports.transport import Neighbour


class LocalTransport:
    """A switchboard of peers in one process."""

    def __init__(self) -> None:
        self.peers: dict[str, Neighbour] = {}

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Hand the frame to the peer."""
        return await self._find(peer).exchange(frame)

    async def feed(self, producer: str, request: FeedRequest) -> FeedPage:
        """Ask the producer for a page."""
        return await self._find(producer).feed(request)

    async def standing(self, peer: str, tx: str) -> Standing:
        """Ask the peer what it knows about the transaction."""
        return await self._find(peer).standing(tx)

    async def close(self) -> None:
        """Do nothing: there are no connections to close."""

    def _find(self, peer: str) -> Neighbour:
        found = self.peers.get(peer)
        if found is None:
            raise Unreachable(f"{peer!r} is not running in this process")
        return found
