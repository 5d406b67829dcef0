"""What a retry costs while much waits: the same, however many streams wait (G8)."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from holdfast import Contract, Service
from holdfast.core.log.record import Headers
from holdfast.core.wire.frame import WireRecord
from holdfast.runtime.inbox.waiting import Waiting
from holdfast.runtime.node import Node
from holdfast.stores.memory import MemoryStore
from holdfast.testing import VirtualClock, virtual_time
from holdfast.transports.local import LocalTransport

TRIES = 40
"""Further tries of one message that are counted."""


def unknown_command(position: int) -> WireRecord:
    """A command of a later release, for a key of its own."""
    headers = Headers(key=f"k{position}")
    return WireRecord(position, "command", "till.later.v1", msgspec.Raw(b"{}"), "t", "t", 1, headers=headers)


async def looks_of_a_retry(streams: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """How often the head of a queue is looked at for one retry, while so many streams wait."""
    node = Node(Service(Contract("till")), MemoryStore("till"), LocalTransport(), VirtualClock(), peers=("desk",))
    await node.start()
    ended: list[Exception | None] = []
    for position in range(1, streams + 1):
        node.writer.submit(node.inbox.work_of("desk", "i", position - 1, unknown_command(position), ended.append))
    while len(ended) < streams:  # noqa: ASYNC110 - asked, not told
        await asyncio.sleep(0.001)
    assert len(node.waiting.streams()) == streams
    looked: Counter[str] = Counter()
    head = Waiting.head

    def counted(self: Waiting, stream: str) -> Any:
        looked["head"] += 1
        return head(self, stream)

    monkeypatch.setattr(Waiting, "head", counted)
    (slot, *others) = node.waiting.slots()
    for other in others:
        other.message.next_at = 2**62  # nothing else is due meanwhile
        node.retrier.removed(other.stream)
    looked.clear()
    for _ in range(TRIES):
        node.retrier.unpark(slot)
        while not slot.message.next_at:  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.001)
    monkeypatch.setattr(Waiting, "head", head)
    await node.close(drain=False)
    return looked["head"] / TRIES


@virtual_time
async def test_a_retry_costs_the_same_however_many_streams_wait() -> None:
    """G8: a message that is tried again looks at its own stream alone: a thousand others that wait cost nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        few = await looks_of_a_retry(10, monkeypatch)
        many = await looks_of_a_retry(1_000, monkeypatch)
    assert many <= few * 1.1, f"{many:.1f} looks for one retry beside 1,000 streams, {few:.1f} beside 10"
