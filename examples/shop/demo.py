"""The shop as `holdfast demo --example shop` runs it: its customers as load, its invariants as the judge."""

import time
from collections.abc import Mapping

from shop.drive import COMPLETED, Order, Shoppers

TITLE = "A shop of four processes"
TARGET = "shop.services:shop"
JUDGED = "shop.invariants:shop"
"""Where its invariants are declared."""
SERVICES = ("order", "stock", "payment", "shipping")
"""In the order they end: first the one that sends commands."""
NOUN = "orders"
ENOUGH = 3
"""So many orders have to be bought, and so many undone, for every check to have something to judge."""


class Load:
    """Customers, and what they were told."""

    def __init__(self, urls: Mapping[str, str], seed: int) -> None:
        self.shoppers = Shoppers(urls, seed)
        self.get = self.shoppers.get

    async def prepare(self) -> None:
        """Fill the shelves."""
        await self.shoppers.stock_up()

    async def run(self, until: float, last: float, patience: float) -> None:
        """Buy until then, and on until there is enough to judge; wait for the last answers."""
        await self.shoppers.shop(until, patience)
        while (self.completed < ENOUGH or self.undone < ENOUGH) and time.monotonic() < last:
            await self.shoppers.shop(time.monotonic() + 1.0, patience)

    @property
    def submitted(self) -> int:
        """Orders."""
        return len(self.shoppers.totals.orders)

    @property
    def completed(self) -> int:
        """Orders that were bought."""
        return self.shoppers.totals.count("completed")

    @property
    def undone(self) -> int:
        """Orders that were refused or undone."""
        return self.shoppers.totals.count("rejected")

    @property
    def in_flight(self) -> int:
        """Orders without an answer."""
        return self.shoppers.totals.count(None)

    def latencies_ms(self) -> list[float]:
        """What customers waited, sorted."""
        return self.shoppers.totals.latencies_ms()

    async def checks(self, patience: float) -> list[tuple[str, int, list[str]]]:
        """What customers were told, beside what the shop recorded."""
        events = await self.shoppers.feed("order")
        placed = {event["data"]["order_id"] for event in events if event["type"] == "order.placed.v1"}
        confirmed = {event["data"]["order_id"] for event in events if event["type"] == "order.confirmed.v1"}
        told = {order.id: order.told for order in self.shoppers.totals.orders.values() if order.told}
        wrong = [f"{id}: its customer was told {said}" for id, said in told.items()
                 if (said == COMPLETED) != (id in confirmed) or id not in placed]  # fmt: skip
        wrong += [f"{id} was never submitted" for id in placed - self.shoppers.totals.orders.keys()]
        return [("What customers were told is so", len(told), wrong)]

    def telling(self, wrong: list[str]) -> str:
        """The correlation id of one order worth looking at: one that is wrong, one that had to be asked again, or one
        that was undone."""
        said = "\n".join(wrong)

        def telling(order: Order) -> tuple[int, int]:
            named = order.id in said or (order.correlation != "" and order.correlation in said)
            return 3 * named + (order.told == "rejected"), min(order.tries, 5)

        told = [order for order in self.shoppers.totals.orders.values() if order.correlation]
        return max(told, key=telling).correlation if told else ""

    async def close(self) -> None:
        """Let go of connections."""
        await self.shoppers.close()
