"""A system in virtual time: every service in one process and one thread, on one virtual loop.

Time, ids, jitter and losses come from one seed: the same seed gives the same logs, byte for byte. A service can be
crashed before or after any of its commits; its store keeps what was committed and nothing else. `Faults`, if they
are given, are met at commits and at messages; `testing.explorer.search` chooses them.
"""

import asyncio
import hashlib
import itertools
from typing import Any

import msgspec

from holdfast.client import Client
from holdfast.core.audit.audit import Report
from holdfast.core.declare.message import Command
from holdfast.core.declare.service import Service
from holdfast.core.log.record import Record
from holdfast.core.system import System
from holdfast.errors import (
    CommandError,
    Invalid,
    KeyReused,
    StoreError,
    Unavailable,
)
from holdfast.runtime.decide import outcomes
from holdfast.runtime.decide.dispatch import SNAPSHOT_EVERY
from holdfast.runtime.node import Node
from holdfast.runtime.system import Running
from holdfast.testing.simulation.faults import DOWN_SECONDS, Faults
from holdfast.testing.simulation.idle import left_of
from holdfast.testing.simulation.loop import VirtualClock, VirtualLoop
from holdfast.testing.simulation.network import ServiceTransport, VirtualTransport
from holdfast.testing.simulation.store import VirtualStore

SETTLE_FIRST_SECONDS, SETTLE_LAST_SECONDS, SETTLE_GROWTH = 0.05, 0.4, 2.0


class VirtualSystem:
    """A system in virtual time, to be used with `async with` in a virtual loop. Services crash and come back."""

    def __init__(
        self,
        system: System | Service,
        *,
        flush_seconds: float = 0.001,
        latency_seconds: float = 0.001,
        loss: float = 0.0,
        down_seconds: float = DOWN_SECONDS,
        snapshot_every: int = SNAPSHOT_EVERY,
        streams_in_memory_max: int = 100_000,
        faults: Faults | None = None,
    ) -> None:
        self.system = System([system], name=system.name) if isinstance(system, Service) else system
        self.services = dict(self.system.services)
        """What runs under each name from its next start on: put a repaired service here."""
        self.down_seconds = down_seconds
        """How long a service stays down after a planned crash."""
        self.faults = faults
        self._snapshot_every, self._streams_max = snapshot_every, streams_in_memory_max
        self.clock = VirtualClock()
        self.clocks = {name: VirtualClock() for name in self.services}
        """Each service's own clock."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.random = loop.random
        self.transport = VirtualTransport(
            latency_seconds=latency_seconds,
            loss=loss,
            random=self.random,
            faults=faults,
            crash_soon=self.crash_soon,
        )
        self.stores = {
            name: VirtualStore(
                name,
                flush_seconds=flush_seconds,
                clock=self.clocks[name],
                faults=faults,
                crash_soon=self.crash_soon,
            )
            for name in self.services
        }
        self.running = Running(self.system, dict)  # services come and go one by one
        self.client = Client.of(self.running)
        self.crashes: list[str] = []
        """What has crashed, in order."""
        self._coming: dict[str, asyncio.Task[None]] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._asked = itertools.count(1)

    @property
    def nodes(self) -> dict[str, Node]:
        """Every service that is up, by name."""
        return self.running.nodes

    async def __aenter__(self) -> "VirtualSystem":
        for name in self.services:
            try:
                await self.start(name)
            except (CommandError, StoreError):
                if name not in self._coming:
                    if self.faults is None:
                        raise
                    self.crash_soon(name)  # a process that cannot start ends, and is started again
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._coming.values():
            task.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)
        await self.running.close(drain=False)

    async def start(self, name: str) -> Node:
        """Start a service on what its store holds."""
        node = Node(
            self.services[name],
            self.stores[name],
            ServiceTransport(self.transport, name),
            self.clocks[name],
            peers=self.services,
            snapshot_every=self._snapshot_every,
            streams_in_memory_max=self._streams_max,
        )
        starting = self._starting[name] = asyncio.get_running_loop().create_task(node.start())
        try:
            await starting
            if not self.stores[name].reachable:  # it crashed after it spoke to its peers
                raise Unavailable(f"{name} crashed as it started")
        except BaseException as error:
            await node.close(drain=False)
            task = asyncio.current_task()
            if starting.cancelled() and not (task is not None and task.cancelling()):
                raise Unavailable(f"{name} crashed while it started") from error
            raise
        finally:
            self._starting.pop(name, None)
        self.nodes[name] = self.transport.peers[name] = node
        return node

    async def crash(self, name: str) -> None:
        """Crash a service between two instants: what is not committed is lost, and no peer is told."""
        self.stores[name].cut()
        self.crashes.append(name)
        await self._fall(name)

    async def restart(self, name: str) -> Node:
        """Crash a service and start it again at once."""
        await self.crash(name)
        return await self.start(name)

    def crash_soon(self, name: str) -> None:
        """Crash a service at this instant, and start it again after `down_seconds`."""
        self.stores[name].cut()
        self.crashes.append(name)
        if name not in self._coming:
            self._coming[name] = asyncio.get_running_loop().create_task(self._come_back(name))

    async def _come_back(self, name: str) -> None:
        while True:
            await self._fall(name)
            await asyncio.sleep(self.down_seconds)
            try:
                await self.start(name)
                break
            except (CommandError, StoreError):
                continue  # it crashed again while it started
        del self._coming[name]

    async def _fall(self, name: str) -> None:
        self.transport.peers.pop(name, None)
        if (starting := self._starting.pop(name, None)) is not None:
            starting.cancel()
            await asyncio.wait((starting,))
        node = self.nodes.pop(name, None)
        if node is not None:
            await node.close(drain=False)

    async def ask(self, command: Command[Any], key: str = "", *, seconds: float = 2400.0) -> outcomes.Outcome:
        """The outcome of a command, asked for under one key until there is one, as a patient caller would.

        Raises TimeoutError after `seconds` of virtual time; errors that asking again cannot change are raised at once.
        """
        key = key or f"ask-{next(self._asked)}"
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await self.client.send(command, key=key, wait_seconds=5.0)
                except (Invalid, KeyReused):
                    raise
                except (CommandError, StoreError):
                    await asyncio.sleep(0.05)

    async def audit(self) -> Report:
        """What the system's invariants say of all that is settled."""
        return await self.running.audit()

    async def settle(self, *, within_seconds: float = 600.0) -> None:
        """Wait until nothing is left to do anywhere: no saga open but stuck ones, every message and event handled.

        Raises AssertionError, with what is left, if it takes longer than `within_seconds` of virtual time.
        """
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + within_seconds, SETTLE_FIRST_SECONDS
        while left := await self._left(1):
            if loop.time() >= end:
                raise AssertionError(f"not settled after {within_seconds} s: " + "; ".join(await self._left() or left))
            await asyncio.sleep(pause)
            pause = min(SETTLE_LAST_SECONDS, pause * SETTLE_GROWTH)

    async def _left(self, most: int = 1000) -> list[str]:
        """What is left to do; at least the first `most` items, if there are more."""
        left = [f"{name} is down" for name in self.services if name not in self.nodes]
        for name, node in list(self.nodes.items()):
            if len(left) >= most:
                break
            try:
                left += await left_of(name, node, self.nodes, self.stores)
            except StoreError as error:
                left.append(f"{name} has just crashed: {error}")
        return left

    def log(self, name: str) -> list[Record]:
        """Every record of a service's log, up or down."""
        return self.stores[name].records()

    def digest(self) -> str:
        """A hash of every log: the same seed gives the same one."""
        found = hashlib.sha256()
        for name in sorted(self.stores):
            found.update(msgspec.json.encode(self.log(name)))
        return found.hexdigest()
