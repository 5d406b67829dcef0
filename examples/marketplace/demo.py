"""The marketplace as `holdfast demo` runs it: the benchmark's driver as load, its invariants as the judge."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp

from holdfast import HoldfastError
from marketplace.answers import Reader
from marketplace.data import Size
from marketplace.driver import Api, Driver, ingest, session
from marketplace.workload import Mix

TITLE = "The Online Marketplace, eight processes"
TARGET = "marketplace.system:system"
JUDGED = "marketplace.invariants:system"
"""Where its invariants are declared."""
SERVICES = ("cart", "product", "shipment", "stock", "order", "payment", "seller", "customer")
"""In the order they end: first those that send commands."""
NOUN = "transactions"
SIZE = Size(customers=200, products=200, products_per_seller=10, units_per_product=300, declined=0.1)
CONCURRENCY = 32
TRIES = 60
"""A killed service is back in a second or two; whoever has no answer asks again with the same id."""
SETTLE_SECONDS = 60.0
ENOUGH = {"CUSTOMER_SESSION": 5, "PRICE_UPDATE": 5, "UPDATE_PRODUCT": 2, "UPDATE_DELIVERY": 5}
"""Of each kind so many have to succeed at least, and one checkout to fail, for every check to have its matter."""


class Load:
    """The driver, and what it was told."""

    def __init__(self, urls: Mapping[str, str], seed: int) -> None:
        self._urls, self._seed = urls, seed
        self._http = session()
        self._reader = Reader(urls, self._http)
        self._driver: Driver | None = None

    async def prepare(self) -> None:
        """Enter sellers, customers, products and stock."""
        api = Api(self._urls, self._http)
        rows = await ingest(api, SIZE, self._seed)
        if left := await self._reader.settled(seconds=SETTLE_SECONDS):
            raise HoldfastError(f"the marketplace has not come to rest: {'; '.join(left[:3])}")
        self._driver = Driver(api, rows, SIZE, Mix(), seed=self._seed + 1, tries=TRIES)

    async def run(self, until: float, last: float, patience: float) -> None:
        """Drive until then, and on until there is enough to judge; wait for the last answers."""
        assert self._driver is not None
        left = max(0.0, until - time.monotonic())
        while left > 0:
            async with asyncio.timeout(left + patience):
                await self._driver.run(left, CONCURRENCY)
            left = 0.0 if self._enough() else min(1.0, last - time.monotonic())

    def _enough(self) -> bool:
        marks = self._driver.marks if self._driver is not None else []
        done = Counter(mark.kind for mark in marks if mark.status == "SUCCESS")
        refused = any(mark.kind == "CUSTOMER_SESSION" and mark.status == "NOT_ACCEPTED" for mark in marks)
        return refused and all(done[kind] >= wanted for kind, wanted in ENOUGH.items())

    def _count(self, *statuses: str) -> int:
        marks = self._driver.marks if self._driver is not None else []
        return sum(mark.status in statuses for mark in marks)

    @property
    def submitted(self) -> int:
        """Transactions."""
        return len(self._driver.marks) if self._driver is not None else 0

    @property
    def completed(self) -> int:
        """Transactions that succeeded."""
        return self._count("SUCCESS")

    @property
    def undone(self) -> int:
        """Transactions that were refused or undone."""
        return self._count("NOT_ACCEPTED")

    @property
    def in_flight(self) -> int:
        """Transactions without an answer."""
        return self._count("OPEN", "ERROR")

    def latencies_ms(self) -> list[float]:
        """What answers took, sorted."""
        marks = self._driver.marks if self._driver is not None else []
        return sorted((mark.finished - mark.submitted) * 1000 for mark in marks if mark.finished)

    async def checks(self, patience: float) -> list[tuple[str, int, list[str]]]:
        """What the driver was told and shown, beside what the marketplace recorded."""
        assert self._driver is not None
        await self._reader.settled(seconds=patience)
        return await self._reader.checks(self._driver.told())

    def telling(self, wrong: list[str]) -> str:
        """The label of one checkout worth looking at: one that is wrong, or one that was undone."""
        marks = [m for m in self._driver.marks if m.kind == "CUSTOMER_SESSION"] if self._driver is not None else []
        said = "\n".join(wrong)
        ranked = sorted(marks, key=lambda mark: (mark.tid in said, mark.status == "NOT_ACCEPTED"), reverse=True)
        return ranked[0].tid if ranked else ""

    async def get(self, service: str, path: str) -> Any:
        """What a service answers to a GET; None where it does not."""
        try:
            async with self._http.get(self._urls[service] + path) as answer:
                return await answer.json(content_type=None) if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.close()
