"""A running system: the nodes of one process, started and closed together.

`compose` (or a test) says how the nodes are made. If one node fails to start, the system stops all nodes that have
started, and raises the error.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.core.audit.audit import Report
from holdfast.core.explain.overview import ProgressStatus
from holdfast.core.explain.trail import Trail, build
from holdfast.core.system import System
from holdfast.runtime.node import Node
from holdfast.runtime.ops.audit import audit
from holdfast.runtime.ops.restore import peer_restored, restored
from holdfast.runtime.ops.status import progress


class Running:
    """Services of one process, by name."""

    def __init__(
        self,
        system: System,
        make: Callable[[], Mapping[str, Node]],
        *,
        urls: Mapping[str, str] | None = None,
        secret: str = "",
        operator_token: str = "",
    ) -> None:
        self.system = system
        self._make = make
        """Makes the nodes. A node starts only once, so each start after the first makes new nodes."""
        self.nodes: dict[str, Node] = dict(make())
        self.urls: Mapping[str, str] = urls or {}
        """The URLs of the services that do not run in this process."""
        self.secret, self.operator_token = secret, operator_token
        """The credentials that these services ask for over HTTP; empty: they ask for none."""
        self.starts = 0
        """How often new nodes have replaced closed ones."""
        self._closed = False

    async def start(self) -> None:
        """Start every service; it can start again after `close`. If one fails, stop the others and raise its error."""
        if self._closed:
            self.nodes.update(self._make())
            self.starts += 1
            self._closed = False
        try:
            for node in self.nodes.values():
                await node.start()
        except BaseException:
            await self.close(drain=False)
            raise

    async def close(self, *, drain: bool = True) -> None:
        """Stop every service; with `drain`, commit the works that wait first. Safe to call twice."""
        self._closed = True
        nodes = list(self.nodes.values())
        await asyncio.gather(*(node.close(drain=drain and node.takes_work) for node in nodes))
        for transport in dict.fromkeys(node.transport for node in nodes):
            await transport.close()

    async def audit(self, *, seconds: float = 0.0) -> Report:
        """Check the invariants of the system on everything that has happened; wait at most so long for open sagas."""
        return await audit(self.system, self.nodes, seconds=seconds)

    def progress(self, service: str) -> ProgressStatus:
        """The progress of one service (cursors, checkpoints, waiting messages), read from memory."""
        return progress(self.nodes[service])

    async def trail(self, *, tx: str = "", correlation: str = "") -> Trail:
        """All records of a transaction, or of a correlation label, in the services of this process, as a causal tree.
        Raises StoreError."""
        parts = {name: await node.records_of(tx=tx, correlation=correlation) for name, node in self.nodes.items()}
        return build(parts, {name: service.sagas for name, service in self.system.services.items()})

    async def backup(self, service: str, to: Path) -> None:
        """Copy a service's store into a file while the service works; the copy has durable data only.
        Raises StoreError."""
        await self.nodes[service].store.backup(to)

    async def restored(self, service: str, cursors: Mapping[str, int], *, by: str, why: str) -> int:
        """Declare that a service's store was restored. `cursors`: how far each peer (exchange and feeds) had come in
        its log. Returns the first position of the new incarnation. Raises Invalid without `by` and `why`, StoreError.
        """
        return await restored(self.nodes[service], cursors, by=by, why=why)

    async def peer_restored(self, service: str, peer: str, *, by: str, why: str) -> None:
        """Accept at a service that a peer's store was restored: its next cursor is believed, and what follows is sent
        again. Raises Invalid without `by` and `why`, NotFound, Unavailable."""
        await peer_restored(self.nodes[service], peer, by=by, why=why)

    async def __aenter__(self) -> "Running":
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
