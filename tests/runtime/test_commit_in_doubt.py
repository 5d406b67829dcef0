"""A commit whose outcome is unknown for a while: the service pauses, finds out, and nobody is left waiting (G3, G8).

The store here commits, or does not, and says in either case that it cannot tell, until `recover` has been called a few
times. What was in such a group and is there after all must reach whom it is for, though it never landed in memory.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast import Client, Rejection, Running
from holdfast.core.log.batch import Batch, CommitOutcome
from holdfast.errors import Busy, Pending, StoreFailed, Unavailable
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import Node
from holdfast.stores.memory import MemoryStore
from holdfast.transports.local import LocalTransport
from shop.contracts import Checkout, Item, Restock
from shop.services import shop
from support.systems.deals import until

SAGAS, AT_ONCE, SHARE = 120, 4, 0.04


class Doubtful(MemoryStore):
    """Every so many commits one is in doubt."""

    def __init__(self, log: str, seed: int) -> None:
        super().__init__(log)
        self._chance = random.Random(seed)
        self.armed = False
        self.doubts = {True: 0, False: 0}
        self.asking = 0

    async def commit(self, batches: Sequence[Batch]) -> list[CommitOutcome]:
        """Commit, or not, and do not know it."""
        await asyncio.sleep(0)
        self._sure()
        if not self.armed or self._chance.random() > SHARE:
            return await super().commit(batches)
        there = self._chance.random() < 0.5
        self.doubts[there] += 1
        if there:
            await super().commit(batches)
        self.asking = 3
        raise StoreFailed("the connection broke")

    async def recover(self) -> int:
        """Not to be asked at first."""
        self.asking = max(0, self.asking - 1)
        self._sure()
        return await super().recover()

    async def read(self, *args: Any, **named: Any) -> Any:
        """Nothing is said in doubt."""
        self._sure()
        return await super().read(*args, **named)

    async def cursors(self) -> Any:
        """Nothing is said in doubt."""
        self._sure()
        return await super().cursors()

    def _sure(self) -> None:
        if self.asking:
            raise StoreFailed("nobody knows yet")


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_was_in_doubt_and_is_there_goes_on(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dozens of commits in doubt, half of them there: every saga ends once, by what its log says, and all add up."""
    monkeypatch.setattr("holdfast.runtime.node.RECOVER_SECONDS", 0.01)
    transport = LocalTransport()
    stores = {name: Doubtful(name, seed * 10 + number) for number, name in enumerate(shop.services)}
    clock, peers = SystemClock(), shop.services
    running = Running(
        shop, lambda: {name: Node(one, stores[name], transport, clock, peers=peers) for name, one in peers.items()}
    )
    transport.peers.update(running.nodes)
    async with running:
        client = Client.of(running)
        await client.run(Restock("tea", 2 * SAGAS))
        for store in stores.values():
            store.armed = True
        turn = asyncio.Semaphore(AT_ONCE)
        answers = await asyncio.gather(*(insist(client, number, turn) for number in range(SAGAS)))
        for store in stores.values():
            store.armed = False
        async with asyncio.timeout(20):
            await until(lambda: not any(n.dispatch.sagas.open or n.waiting.slots() for n in running.nodes.values()))
            await until(lambda: not any(store.asking for store in stores.values()))
        bought = sum(not isinstance(answer, Rejection) for answer in answers)
        doubts = [sum(store.doubts[there] for store in stores.values()) for there in (True, False)]
        assert min(doubts) > 3, f"hardly anything was in doubt: {doubts}"
        logs = {name: (await store.read(0, 100_000)).records for name, store in stores.items()}
        types = {name: [record.type for record in log] for name, log in logs.items()}
        assert types["order"].count("order.checked_out.v1") == bought == types["shipping"].count("shipping.shipped.v1")
        assert types["order"].count("holdfast.saga.begun") == SAGAS
        assert types["payment"].count("payment.charged.v1") - types["payment"].count("payment.refunded.v1") == bought
        held = types["stock"].count("stock.reserved.v1") - types["stock"].count("stock.released.v1")
        assert held == bought and 0 < bought < SAGAS


async def insist(client: Client, number: int, turn: asyncio.Semaphore) -> Any:
    """Ask for one checkout with one key until there is an answer; every third card is refused."""
    card = "4000000000000002" if number % 3 == 0 else "4111222233334444"
    command = Checkout(f"o{number}", "c", (Item("tea", 1, 300),), card)
    async with turn, asyncio.timeout(40):
        while True:
            try:
                return (await client.send(command, key=f"k{number}", wait_seconds=2)).answer
            except (Unavailable, Pending, Busy):
                await asyncio.sleep(0.005)
