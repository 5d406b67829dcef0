"""The local transport: services of one process, by name. Frames are handed over as they are.

A service that is not there, or has been taken away, is `Unreachable`, as over a network.
"""

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.errors import Unreachable
from holdfast.ports.transport import Peer


class LocalTransport:
    """A switchboard of peers in one process."""

    def __init__(self) -> None:
        self.peers: dict[str, Peer] = {}

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Hand the frame to the peer."""
        return await self._find(peer).exchange(frame)

    async def feed(self, peer: str, request: FeedRequest) -> FeedPage:
        """Ask the peer for its feed."""
        return await self._find(peer).feed(request)

    async def standing(self, peer: str, tx: str) -> Standing:
        """Ask the peer what it knows."""
        return await self._find(peer).standing(tx)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _find(self, peer: str) -> Peer:
        found = self.peers.get(peer)
        if found is None:
            raise Unreachable(f"{peer!r} is not running in this process")
        return found
