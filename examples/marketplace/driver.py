"""The driver: a closed loop of transactions against the marketplace's HTTP API, and what it measured.

Each of `concurrency` workers sends the next transaction when its last one has ended. One session per customer and one
update per product are on their way at a time, as in the benchmark. What has no answer is sent again with the same id.
"""

import asyncio
import random
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import aiohttp
from msgspec import Struct

from marketplace import data
from marketplace.workload import KINDS, Kind, Mix, Workload

SERVICES = ("cart", "product", "stock", "order", "payment", "shipment", "seller", "customer")
INGEST_AT_ONCE = 64
REQUEST_SECONDS_MAX = 60.0
AGAIN_SECONDS = 0.25


class Mark(Struct):
    """How one transaction ended, as its driver was told."""

    tid: str
    kind: Kind
    status: str
    """SUCCESS, NOT_ACCEPTED (a recorded no), ERROR, or OPEN."""
    submitted: float
    finished: float = 0.0
    customer_id: int = 0
    order_id: int = 0
    source: str = ""
    """The service that said no, where that is known."""


class Api:
    """The marketplace over HTTP, by service."""

    def __init__(self, urls: Mapping[str, str], session: aiohttp.ClientSession | None) -> None:
        self._urls, self._session = {name: url.rstrip("/") for name, url in urls.items()}, session
        self.calls: Counter[str] = Counter()

    async def call(
        self, service: str, method: str, path: str, body: Any = None, *, key: str = "", label: str = "", tries: int = 4
    ) -> tuple[int, Any]:
        """(status, JSON) of the answer; where there is none, or a 5xx, the same again up to `tries` times."""
        headers = {"Idempotency-Key": key} if key else {}
        headers |= {"X-Correlation-Id": label} if label else {}
        self.calls[service] += 1
        status, found = 0, None
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(AGAIN_SECONDS * attempt)
            try:
                status, found = await self.ask(service, method, path, body, headers)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                continue
            if status < 500:
                break
        return status, found

    async def ask(self, service: str, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        """One request. Raises what aiohttp raises."""
        assert self._session is not None
        async with self._session.request(method, self._urls[service] + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)


def session() -> aiohttp.ClientSession:
    """A session for many requests at once."""
    limit = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limit)


async def ingest(api: Api, size: data.Size, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Enter sellers, customers, products and stock; the rows that were entered."""
    rng = random.Random(seed)
    rows = {
        "seller": list(data.sellers(size, rng)), "customer": list(data.customers(size, rng)),
        "product": list(data.products(size, rng)),
    }  # fmt: skip
    rows["stock"] = [data.stock_of(row, size, rng) for row in rows["product"]]
    for service, found in rows.items():
        await _enter(api, service, iter(found))
    return rows


async def _enter(api: Api, service: str, rows: Iterable[dict[str, Any]]) -> None:
    async def worker() -> None:
        for row in rows:
            status, found = await api.call(service, "POST", f"/{service}", row)
            if status != 200 and (not isinstance(found, dict) or found["code"] != "exists"):
                raise RuntimeError(f"{service} did not take {row}: {status} {found}")

    await asyncio.gather(*(worker() for _ in range(INGEST_AT_ONCE)))


async def put_back(api: Api, how: str) -> None:
    """`reset` or `cleanup` every service. Raises RuntimeError where one does not know it."""
    for service in SERVICES:
        status, found = await api.call(service, "PATCH", f"/{how}")
        if status != 200:
            raise RuntimeError(f"{service} was not put back: {status} {found}")


class Driver:
    """One run."""

    def __init__(
        self,
        api: Api,
        rows: Mapping[str, list[dict[str, Any]]],
        size: data.Size,
        mix: Mix,
        *,
        seed: int,
        tries: int = 4,
    ) -> None:
        self.api, self.tries = api, tries
        self.workload = Workload(mix, size.sellers, size.products_per_seller, random.Random(seed))
        self.marks: list[Mark] = []
        self.adds = 0
        """Requests that put a line into a cart; they are not part of a checkout's latency."""
        self._customers = {row["id"]: row for row in rows["customer"]}
        self._idle = deque(self._customers)
        self._filled: set[int] = set()
        self.workload.rng.shuffle(self._idle)
        self._products = {(row["seller_id"], row["product_id"]): dict(row) for row in rows["product"]}
        self._updating: set[tuple[int, int]] = set()
        self._number = 0
        self._run = f"{seed}-{time.time_ns() // 1_000_000}"
        self.begun = 0.0
        self.ended = 0.0

    def told(self) -> dict[str, dict[str, str]]:
        """How each transaction ended, as it was told: by kind and tid."""
        said: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
        for mark in self.marks:
            said[mark.kind][mark.tid] = mark.status
        return said

    async def fill(self, carts: int) -> None:
        """Fill so many customers' carts beforehand, so that their sessions consist of the checkout alone."""
        customers = iter([*self._idle][:carts])

        async def worker() -> None:
            for customer_id in customers:
                await self._add(f"{self._run}-fill-{customer_id}", customer_id)
                self._filled.add(customer_id)

        await asyncio.gather(*(worker() for _ in range(INGEST_AT_ONCE)))
        self.adds = 0

    async def run(self, seconds: float, concurrency: int, tick: Callable[[], None] | None = None) -> None:
        """Drive for so long, then wait for what is on its way."""
        self.begun = time.monotonic()
        end = self.begun + seconds

        async def worker() -> None:
            while time.monotonic() < end:
                await self._next()
                if tick is not None:
                    tick()

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        self.ended = time.monotonic()

    async def _next(self) -> None:
        kind = self.workload.kind()
        doing = {
            "CUSTOMER_SESSION": self._session, "QUERY_DASHBOARD": self._dashboard, "PRICE_UPDATE": self._price,
            "UPDATE_PRODUCT": self._product, "UPDATE_DELIVERY": self._delivery,
        }[kind]  # fmt: skip
        self._number += 1
        await doing(f"{self._run}-{self._number}")

    async def _timed(self, mark: Mark, service: str, method: str, path: str, body: Any = None) -> Any:
        mark.submitted = time.monotonic()
        self.marks.append(mark)
        status, found = await self.api.call(service, method, path, body, label=mark.tid, tries=self.tries)
        mark.finished = time.monotonic()
        mark.status = "SUCCESS" if 200 <= status < 300 else "NOT_ACCEPTED" if status == 409 else "ERROR"
        if mark.status != "SUCCESS":
            said: dict[str, Any] = found or {}
            mark.source = said.get("facts", {}).get("source", service)
        return found

    async def _session(self, tid: str) -> None:
        if not self._idle:
            await asyncio.sleep(0.001)
            return
        customer_id = self._idle.popleft()
        try:
            await self._shop(tid, customer_id)
        finally:
            self._idle.append(customer_id)

    async def _add(self, tid: str, customer_id: int) -> None:
        """Put the lines of one session into a cart."""
        draw = self.workload
        for number, key in enumerate(draw.cart()):
            row = self._products[key]
            body = {
                "SellerId": key[0], "ProductId": key[1], "ProductName": row["name"], "UnitPrice": row["price"],
                "FreightValue": row["freight_value"], "Quantity": draw.quantity(),
                "Voucher": draw.voucher(row["price"]), "Version": row["version"],
            }  # fmt: skip
            self.adds += 1
            await self.api.call(
                "cart", "PATCH", f"/cart/{customer_id}/add", body, key=f"{tid}+{number}", tries=self.tries
            )

    async def _shop(self, tid: str, customer_id: int) -> None:
        if customer_id in self._filled:
            self._filled.remove(customer_id)
        else:
            await self._add(tid, customer_id)
        draw = self.workload
        if not draw.checks_out():
            await self.api.call("cart", "PATCH", f"/cart/{customer_id}/seal", key=f"{tid}+seal", tries=self.tries)
            return
        row = self._customers[customer_id]
        payment, installments = draw.payment()
        body = {
            "CustomerId": customer_id, "FirstName": row["first_name"], "LastName": row["last_name"],
            "Street": row["address"], "Complement": row["complement"], "City": row["city"], "State": row["state"],
            "ZipCode": row["zip_code"], "PaymentType": payment, "CardNumber": row["card_number"],
            "CardHolderName": row["card_holder_name"], "CardExpiration": row["card_expiration"],
            "CardSecurityNumber": row["card_security_number"], "CardBrand": row["card_type"],
            "Installments": installments, "instanceId": tid,
        }  # fmt: skip
        mark = Mark(tid, "CUSTOMER_SESSION", "OPEN", 0.0, customer_id=customer_id)
        found = await self._timed(mark, "cart", "POST", f"/cart/{customer_id}/checkout", body)
        if mark.status == "SUCCESS":
            mark.order_id = found["order_id"]

    async def _dashboard(self, tid: str) -> None:
        path = f"/seller/dashboard/{self.workload.seller()}"
        await self._timed(Mark(tid, "QUERY_DASHBOARD", "OPEN", 0.0), "seller", "GET", path)

    async def _price(self, tid: str) -> None:
        key = self._free()
        row = self._products[key]
        price = self.workload.adjusted(row["price"])
        body = {
            "sellerId": key[0], "productId": key[1], "price": price, "version": row["version"], "instanceId": tid,
        }  # fmt: skip
        mark = Mark(tid, "PRICE_UPDATE", "OPEN", 0.0)
        await self._timed(mark, "product", "PATCH", "/product", body)
        if mark.status == "SUCCESS":
            row["price"] = price
        self._updating.discard(key)

    async def _product(self, tid: str) -> None:
        key = self._free()
        new = {**self._products[key], "version": tid, "name": f"{self._products[key]['name'].split(' v')[0]} v{tid}"}
        mark = Mark(tid, "UPDATE_PRODUCT", "OPEN", 0.0)
        await self._timed(mark, "product", "PUT", "/product", new)
        if mark.status == "SUCCESS":
            self._products[key] = new
        self._updating.discard(key)

    def _free(self) -> tuple[int, int]:
        """A product that nobody updates now."""
        while (key := self.workload.product()) in self._updating:
            pass
        self._updating.add(key)
        return key

    async def _delivery(self, tid: str) -> None:
        await self._timed(Mark(tid, "UPDATE_DELIVERY", "OPEN", 0.0), "shipment", "PATCH", f"/shipment/{tid}")


def measured(driver: Driver, epoch_seconds: float = 0.0) -> dict[str, Any]:
    """What a run measured: per kind count, mean and percentiles in ms; throughput; what was refused, and by whom.

    With `epoch_seconds` the same again for each stretch of so many seconds, by when a transaction ended.
    """
    seconds = max(driver.ended - driver.begun, 1e-9)
    ended = [mark for mark in driver.marks if mark.finished]
    done = sum(mark.status in ("SUCCESS", "NOT_ACCEPTED") for mark in ended)
    found: dict[str, Any] = {
        "transactions": done, "seconds": round(seconds, 2), "throughput_per_s": round(done / seconds, 1),
        "cart_adds": driver.adds, "errors": sum(mark.status == "ERROR" for mark in ended),
        "aborts": dict(Counter(f"{mark.kind} by {mark.source}" for mark in ended if mark.source)),
        "kinds": _kinds(ended),
    }  # fmt: skip
    if epoch_seconds:
        epochs: defaultdict[int, list[Mark]] = defaultdict(list)
        for mark in ended:
            epochs[int((mark.finished - driver.begun) / epoch_seconds)].append(mark)
        found["epochs"] = [{"transactions": len(epochs[n]), "kinds": _kinds(epochs[n])} for n in sorted(epochs)]
    return found


def _kinds(ended: list[Mark]) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        marks = [mark for mark in ended if mark.kind == kind]
        times = sorted((mark.finished - mark.submitted) * 1000 for mark in marks)
        kinds[kind] = {"count": len(marks), **Counter(mark.status for mark in marks)}
        if times:
            kinds[kind]["mean_ms"] = round(statistics.fmean(times), 2)
            for share in (50, 75, 90, 99):
                kinds[kind][f"p{share}_ms"] = round(times[min(len(times) - 1, len(times) * share // 100)], 2)
    return kinds
