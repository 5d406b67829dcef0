"""A running system: nodes in one process that reach each other by the local transport, or one node among remote ones.

Comes last: `compose` (or a test) gives it stores and transports. Starting fails whole: what had started is stopped.
"""

import asyncio
from collections.abc import Callable, Mapping

from holdfast.core.audit.audit import Report
from holdfast.core.declare.service import Service
from holdfast.core.explain.overview import ProgressStatus
from holdfast.core.system import System
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.ports.transport import Transport
from holdfast.runtime.node import Node
from holdfast.runtime.ops.audit import audit
from holdfast.runtime.ops.status import progress


class Running:
    """Nodes of one process, by service name."""

    def __init__(
        self,
        system: System,
        *,
        store: Callable[[Service], Store],
        transport: Callable[[Service], Transport],
        clock: Clock,
        services: Mapping[str, Service] | None = None,
    ) -> None:
        chosen = system.services if services is None else services
        self.system = system
        self.nodes: dict[str, Node] = {
            name: Node(service, store(service), transport(service), clock, peers=system.services)
            for name, service in chosen.items()
        }

    async def start(self) -> None:
        """Start every node. Raises what the first failing start raised, the others stopped again."""
        try:
            for node in self.nodes.values():
                await node.start()
        except BaseException:
            await self.close(drain=False)
            raise

    async def close(self, *, drain: bool = True) -> None:
        """Stop every node; with `drain` what waits is committed first."""
        await asyncio.gather(*(node.close(drain=drain) for node in self.nodes.values()))

    async def audit(self, *, seconds: float = 0.0) -> Report:
        """What the system's invariants say of all that has happened; waits so long for what is in flight."""
        return await audit(self.system, self.nodes, seconds=seconds)

    def progress(self, service: str) -> ProgressStatus:
        """How far everything of one service is: cursors, checkpoints, what waits. Read from memory."""
        return progress(self.nodes[service])

    async def __aenter__(self) -> "Running":
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
