"""The shop as `holdfast demo --example shop` runs it: its customers as load, its audit as the judge."""

from collections.abc import Mapping
from typing import Any

from shop.audit import Check, audit
from shop.drive import Order, Shoppers

TITLE = "A shop of four processes"
TARGET = "shop.services:shop"
SERVICES = ("order", "stock", "payment", "shipping")
"""In the order they end: first the one that sends commands."""
NOUN = "orders"


class Load:
    """Customers, and what they were told."""

    def __init__(self, urls: Mapping[str, str], seed: int) -> None:
        self.shoppers = Shoppers(urls, seed)
        self.get = self.shoppers.get

    async def prepare(self) -> None:
        """Fill the shelves."""
        await self.shoppers.stock_up()

    async def run(self, until: float, patience: float) -> None:
        """Buy until then, and wait for the last answers."""
        await self.shoppers.shop(until, patience)

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

    async def audit(self) -> list[Check]:
        """Every check, from the feeds alone."""
        feeds: dict[str, list[dict[str, Any]]] = {name: await self.shoppers.feed(name) for name in SERVICES}
        return audit(feeds, {order.id: order.told for order in self.shoppers.totals.orders.values()})

    def telling(self, checks: list[Check]) -> str:
        """The correlation id of one order worth looking at: one that is wrong, one that had to be asked again, or one
        that was undone."""
        orders = self.shoppers.totals.orders
        wrong = [text.split(": ", 1)[1].split(" ", 1)[0].rstrip(":") for check in checks for text in check.violations]
        rank = {order: 3 for order in wrong if order in orders}

        def telling(order: Order) -> tuple[int, int]:
            return rank.get(order.id, 0) + (order.told == "rejected"), min(order.tries, 5)

        told = [order for order in orders.values() if order.correlation]
        return max(told, key=telling).correlation if told else ""

    async def close(self) -> None:
        """Let go of connections."""
        await self.shoppers.close()
