"""The shop's customers: a closed loop of checkouts over HTTP, and the feeds read back.

Each customer waits for an answer before the next order. Whoever gets none (a connection that breaks, a 503, a 504)
asks again with the same idempotency key: that is all a caller has to do. Comes before the services, and, when the load
is over, before the audit.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from holdfast import HoldfastError

CUSTOMERS = 32
PRODUCTS = ("apple", "bread", "cheese", "dates", "eggs")
UNITS = 1_000_000
COMPLETED, REJECTED = "completed", "rejected"
REFUSED_CARD = "4000000000000002"
"""The number that card companies give out for a card that is declined."""
RETRY_SECONDS = 0.1
REQUEST_SECONDS = 10.0
PAGE = 1000


@dataclass
class Order:
    """One order as its customer knows it."""

    id: str
    begun: float
    told: str | None = None
    """completed, rejected, or None while nothing is known."""
    seconds: float = 0.0
    correlation: str = ""
    tries: int = 0


@dataclass
class Totals:
    """What all customers know so far."""

    orders: dict[str, Order] = field(default_factory=dict[str, Order])

    def count(self, told: str | None) -> int:
        """Orders that were told so."""
        return sum(order.told == told for order in self.orders.values())

    def latencies_ms(self) -> list[float]:
        """Milliseconds that customers waited, sorted."""
        return sorted(order.seconds * 1000 for order in self.orders.values() if order.told is not None)


class Shoppers:
    """Customers of one shop."""

    def __init__(self, urls: Mapping[str, str], seed: int) -> None:
        self.urls, self.totals = dict(urls), Totals()
        self._random = random.Random(seed)
        self._number = 0
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout)

    async def close(self) -> None:
        """Let go of connections."""
        await self._session.close()

    async def stock_up(self) -> None:
        """Fill the shelves. Only the last product can run out."""
        for sku in (*PRODUCTS, "rarity"):
            body = {"sku": sku, "quantity": 50 if sku == "rarity" else UNITS}
            status, _ = await self._post("stock", "/commands/restock", body, f"restock-{sku}")
            if status != 200:
                raise HoldfastError(f"the shelves stay empty: stock answered {status}")

    async def shop(self, until: float, patience: float, customers: int = CUSTOMERS) -> None:
        """Buy until `until`; then each customer waits `patience` seconds more for the last answer."""
        await asyncio.gather(*(self._customer(until, patience) for _ in range(customers)))

    async def _customer(self, until: float, patience: float) -> None:
        while time.monotonic() < until:
            self._number += 1
            order = Order(f"o{self._number:06d}", time.monotonic())
            self.totals.orders[order.id] = order
            await self._buy(order, self._basket(order.id), until + patience)

    def _basket(self, order: str) -> dict[str, Any]:
        chance = self._random.random()
        skus: list[str] = self._random.sample(PRODUCTS, self._random.choice((1, 1, 2, 3)))
        if chance < 0.1:
            skus.append("rarity")
        items = [{"sku": sku, "quantity": self._random.randint(1, 3), "price_cents": 250} for sku in skus]
        if 0.1 <= chance < 0.15:
            items[-1]["quantity"] = UNITS + 1
        card = REFUSED_CARD if 0.15 <= chance < 0.3 else "4111111111111111"
        return {"order_id": order, "customer_id": "c1", "items": items, "card_number": card}

    async def _buy(self, order: Order, body: Mapping[str, Any], until: float) -> None:
        while time.monotonic() < until:
            order.tries += 1
            try:
                status, correlation = await self._post("order", f"/orders/{order.id}/checkout", body, order.id)
            except (aiohttp.ClientError, OSError, TimeoutError):
                status, correlation = 0, ""  # what became of it is unknown: the same key asks again
            order.correlation = correlation or order.correlation
            if status in (200, 409):
                order.told = COMPLETED if status == 200 else REJECTED
                order.seconds = time.monotonic() - order.begun
                return
            if status not in (0, 503, 504):
                raise HoldfastError(f"order {order.id} was answered {status}")
            await asyncio.sleep(RETRY_SECONDS)

    async def _post(self, service: str, path: str, body: Mapping[str, Any], key: str) -> tuple[int, str]:
        url = self.urls[service] + path
        async with self._session.post(url, json=body, headers={"Idempotency-Key": key}) as answer:
            await answer.read()
            return answer.status, answer.headers.get("X-Correlation-Id", "")

    async def get(self, service: str, path: str) -> Any:
        """What a service answers to a GET; None where it does not."""
        try:
            async with self._session.get(self.urls[service] + path) as answer:
                return await answer.json(content_type=None) if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def feed(self, service: str) -> list[dict[str, Any]]:
        """Every event of a service, oldest first."""
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            async with self._session.get(f"{self.urls[service]}/events?after={after}&limit={PAGE}") as answer:
                if answer.status != 200:
                    raise HoldfastError(f"the feed of {service} answered {answer.status}")
                page: list[dict[str, Any]] = await answer.json(content_type=None)
                found += page
                after = int(answer.headers["Holdfast-Upto"])
                if after >= int(answer.headers["Holdfast-Head"]):
                    return found
