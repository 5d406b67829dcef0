"""A store restored from a backup: what its peers see, and the repair that bridges the gap (G3, G11)."""

import asyncio
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import CommandError, Forked, Invalid
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.runtime.ops.restore import peer_restored, restored
from holdfast.stores.memory import MemoryStore
from holdfast.transports.local import LocalTransport

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from shop.contracts import Checkout, Item, Restock
from shop.services import shop


class Town:
    """The shop in one process, each store a thing that can be copied and put back."""

    def __init__(self) -> None:
        self.transport, self.clock = LocalTransport(), SystemClock()
        self.stores = {name: MemoryStore(name) for name in shop.services}
        self.nodes: dict[str, Node] = {}

    async def up(self, name: str) -> Node:
        node = Node(shop.services[name], self.stores[name], self.transport, self.clock, peers=shop.services)
        await node.start()
        self.nodes[name] = self.transport.peers[name] = node
        return node

    async def down(self, name: str) -> None:
        self.transport.peers.pop(name)
        await self.nodes.pop(name).close()

    async def buy(self, number: int, wait_seconds: float = 5.0) -> str:
        command = Checkout(f"o{number}", "c1", (Item("w", 1, 100),))
        outcome = await self.nodes["order"].edge.run(command, key=f"k{number}", wait_seconds=wait_seconds)
        return type(outcome.answer).__name__

    async def close(self) -> None:
        for name in list(self.nodes):
            await self.down(name)


async def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.01)


def failure(node: Node, peer: str) -> Exception | None:
    """What stands in the way of a conversation."""
    assert node.conversations is not None
    return node.conversations.conversations[peer].failure


async def test_a_restored_store_halts_its_conversations_by_name_and_a_repair_frees_them() -> None:
    """G3, G11: a store put back from a backup is found out on both sides (Forked), nothing is applied, others go on;
    the recorded repair begins above every cursor, and what was lost is asked for again and done once."""
    town = Town()
    for name in shop.services:
        await town.up(name)
    await town.nodes["stock"].edge.run(Restock("w", 1000))
    assert [await town.buy(number) for number in range(5)] == ["CheckedOut"] * 5
    await asyncio.sleep(1.2)  # what peers acknowledged is saved once a second
    await town.down("stock")
    backup = copy.deepcopy(town.stores["stock"])
    await town.up("stock")
    assert [await town.buy(number) for number in range(5, 10)] == ["CheckedOut"] * 5
    await asyncio.sleep(1.2)
    await town.down("stock")

    town.stores["stock"] = backup
    await town.up("stock")
    stuck = asyncio.create_task(town.buy(10, wait_seconds=20))
    await until(lambda: isinstance(failure(town.nodes["order"], "stock"), Forked))
    assert town.nodes["stock"].streams.get("StockItem/w") is None, "nothing of a forked conversation is applied"
    assert not isinstance(failure(town.nodes["order"], "payment"), Forked), "other conversations go on"

    stock, order = town.nodes["stock"], town.nodes["order"]
    assert order.conversations is not None
    cursors = {"order": order.conversations.conversations["stock"].state.durable.position}
    with pytest.raises(Invalid):
        await restored(stock, cursors, by="ops", why=" ")
    first = await restored(stock, cursors, by="ops", why="disk lost, backup of last night")
    assert first > cursors["order"]
    assert await restored(stock, cursors, by="ops", why="said twice") == first, "a repair said twice changes nothing"
    await peer_restored(order, "stock", by="ops", why="disk lost, backup of last night")
    assert await stuck == "CheckedOut"
    assert await town.buy(11) == "CheckedOut"

    item = stock.streams["StockItem/w"].state
    assert (item.on_hand, len(item.held)) == (1000 - 12, 12), "what the backup had lost was asked again, and done once"
    repairs = [record.type for record in (await stock.store.read(0, 1000, kinds=("repair",))).records]
    assert repairs == ["holdfast.repair.restored"] * 2
    await town.close()


async def test_services_come_back_in_any_order_after_a_stop() -> None:
    """G3, G9: every service stopped and started again in another order goes on where its log ends."""
    town = Town()
    for name in shop.services:
        await town.up(name)
    await town.nodes["stock"].edge.run(Restock("w", 1000))
    for number in range(3):
        assert await town.buy(number) == "CheckedOut"
    for name in list(town.nodes):
        await town.down(name)
    await town.up("order")
    waiting = asyncio.create_task(town.buy(3, wait_seconds=15))
    await asyncio.sleep(0.2)
    assert not waiting.done(), "with the others down the saga waits"
    for name in ("shipping", "payment", "stock"):
        await town.up(name)
    assert await waiting == "CheckedOut"
    with pytest.raises(CommandError):
        await town.nodes["order"].edge.run(Checkout("o0", "c2", (Item("w", 1, 100),)), key="k0")
    await town.close()
