"""A running system: the nodes of one process, started and closed together.

Comes last: `compose` (or a test) says how its nodes are made. Starting fails whole: what had started is stopped.
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
        """Makes the nodes: a node is started once, so each start after the first has new ones."""
        self.nodes: dict[str, Node] = dict(make())
        self.urls: Mapping[str, str] = urls or {}
        """Where the services that do not run here are reached."""
        self.secret, self.operator_token = secret, operator_token
        """What opens these services over HTTP; empty for none."""
        self.starts = 0
        """How often new nodes took the place of closed ones."""
        self._closed = False

    async def start(self) -> None:
        """Start every service, again after `close`. Raises what the first failing start raised, the others stopped."""
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
        """Stop every service; with `drain` what waits is committed first. Safe to call twice."""
        self._closed = True
        nodes = list(self.nodes.values())
        await asyncio.gather(*(node.close(drain=drain and node.takes_work) for node in nodes))
        for transport in dict.fromkeys(node.transport for node in nodes):
            await transport.close()

    async def audit(self, *, seconds: float = 0.0) -> Report:
        """What the system's invariants say of all that has happened; waits so long for what is in flight."""
        return await audit(self.system, self.nodes, seconds=seconds)

    def progress(self, service: str) -> ProgressStatus:
        """How far everything of one service is: cursors, checkpoints, what waits. Read from memory."""
        return progress(self.nodes[service])

    async def trail(self, *, tx: str = "", correlation: str = "") -> Trail:
        """All records of a transaction, or of a correlation label, in the services of this process, as a causal tree.
        Raises StoreError."""
        parts = {name: await node.records_of(tx=tx, correlation=correlation) for name, node in self.nodes.items()}
        return build(parts, {name: service.sagas for name, service in self.system.services.items()})

    async def backup(self, service: str, to: Path) -> None:
        """Copy a service's store into a file while it works; only what is durable is in it. Raises StoreError."""
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
