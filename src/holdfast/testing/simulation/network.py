"""The network of a system in virtual time: a message takes time, and may be lost or come twice.

`testing.simulation.system` builds a system on it. Frames go as bytes, as they do over HTTP. Faults are met at each
message. Fails with `Unreachable` if a message or its answer does not arrive.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import msgspec

from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame, decode_frame, encode_frame
from holdfast.errors import HoldfastError, Unreachable
from holdfast.testing.simulation.faults import DELAY_SECONDS, PARTITION_SECONDS, Faults
from holdfast.transports.local import LocalTransport

T = TypeVar("T")


class VirtualTransport(LocalTransport):
    """A network: messages take time, go as bytes, and may be lost on the way there or back."""

    def __init__(
        self,
        *,
        latency_seconds: float,
        loss: float,
        random: Random,
        faults: Faults | None,
        crash_soon: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._random = random
        self._faults = faults
        self._crash_soon = crash_soon
        self.latency_seconds = latency_seconds
        self.loss = loss
        self.jitter: tuple[float, ...] = ()
        """Latencies from which each message's is drawn, instead of `latency_seconds`."""
        self.cut: set[str] = set()
        """Services that no peer reaches, though they run."""
        self._apart: dict[frozenset[str], float] = {}
        """Two services -> until when they do not reach each other."""
        self._late: set[asyncio.Task[None]] = set()

    async def bring(self, sender: str, peer: str, frame: Frame) -> Frame:
        """Bring a frame there and an answer back, or lose one of them."""
        met = self._meet(f"{sender}>{peer}")
        if sender in self.cut:
            raise Unreachable(f"{sender!r} is cut off")
        if "partition" in met:
            self._apart[frozenset((sender, peer))] = asyncio.get_running_loop().time() + PARTITION_SECONDS
        if "delay" in met:
            await asyncio.sleep(DELAY_SECONDS)
        await self._travel(sender, peer)
        if "lose_request" in met:
            raise Unreachable(f"lost on the way to {peer!r}")
        there = decode_frame(encode_frame(frame))
        answer = await super().exchange(peer, there)
        if met:
            await self._after(sender, peer, there, met)
        await self._travel(sender, peer)
        return decode_frame(encode_frame(answer))

    async def _after(self, sender: str, peer: str, frame: Frame, met: tuple[str, ...]) -> None:
        """What goes wrong after a frame was taken and before its answer arrives."""
        if "duplicate" in met:
            with contextlib.suppress(HoldfastError):
                await super().exchange(peer, frame)
        if "late_copy" in met:
            task = asyncio.get_running_loop().create_task(self._again(peer, frame))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        if "crash_receiver" in met:
            self._crash_soon(peer)
        if "crash_sender" in met:
            self._crash_soon(sender)
        if "lose_answer" in met or "crash_receiver" in met:
            raise Unreachable(f"lost on the way from {peer!r}")

    async def _again(self, peer: str, frame: Frame) -> None:
        await asyncio.sleep(DELAY_SECONDS)
        with contextlib.suppress(HoldfastError):
            await super().exchange(peer, frame)

    async def page(self, reader: str, peer: str, request: FeedRequest) -> FeedPage:
        """Bring a page of a feed, or lose it."""
        there = super().feed
        return await self._fetch(f"{reader}<{peer}", reader, peer, lambda: there(peer, request), FeedPage)

    async def asked(self, asker: str, peer: str, tx: str) -> Standing:
        """Bring a question and its answer, or lose one of them."""
        there = super().standing
        return await self._fetch(f"{asker}?{peer}", asker, peer, lambda: there(peer, tx), Standing)

    async def _fetch(self, where: str, one: str, other: str, there: Callable[[], Awaitable[T]], kind: type[T]) -> T:
        met = self._meet(where)
        await self._travel(one, other)
        found = await there()
        await self._back(one, other, met)
        return msgspec.json.decode(msgspec.json.encode(found), type=kind)

    def _meet(self, where: str) -> tuple[str, ...]:
        return self._faults.meet(where) if self._faults is not None else ()

    async def _back(self, one: str, other: str, met: tuple[str, ...]) -> None:
        if "delay" in met:
            await asyncio.sleep(DELAY_SECONDS)
        await self._travel(one, other)
        if "lose_answer" in met:
            raise Unreachable(f"lost on the way from {other!r}")

    async def _travel(self, sender: str, peer: str) -> None:
        seconds = self._random.choice(self.jitter) if self.jitter else self.latency_seconds
        if seconds:
            await asyncio.sleep(seconds)
        if self._apart and self._apart.get(frozenset((sender, peer)), 0.0) > asyncio.get_running_loop().time():
            raise Unreachable(f"{sender!r} and {peer!r} do not reach each other")
        if peer in self.cut or (self.loss and self._random.random() < self.loss):
            raise Unreachable(f"lost on the way to {peer!r} or back")


class ServiceTransport:
    """The network as one service sees it."""

    def __init__(self, network: VirtualTransport, name: str) -> None:
        self._network = network
        self._name = name

    async def exchange(self, peer: str, frame: Frame) -> Frame:
        """Bring a frame to a peer and its answer back, or lose one of them."""
        return await self._network.bring(self._name, peer, frame)

    async def feed(self, producer: str, request: FeedRequest) -> FeedPage:
        """Bring a page of a producer's feed, or lose it."""
        return await self._network.page(self._name, producer, request)

    async def standing(self, peer: str, tx: str) -> Standing:
        """Ask a peer of a staged transaction; question or answer may be lost."""
        return await self._network.asked(self._name, peer, tx)

    async def close(self) -> None:
        """Do nothing: there are no connections."""
