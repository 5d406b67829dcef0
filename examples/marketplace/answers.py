"""What no log can tell: what callers were told, and what dashboards showed them, beside what the services recorded.

Reads feeds, aggregates and dashboards over HTTP, when the marketplace has come to rest (`settled` waits for that); all
else is judged from the logs (`marketplace.invariants`). A check is (name, how much it looked at, what is wrong).
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

PAGE = 1000
TOLD = {
    "CUSTOMER_SESSION": ("cart", "cart.checked_out.v1", "tid"),
    "UPDATE_PRODUCT": ("product", "product.product_updated.v1", "version"),
    "UPDATE_DELIVERY": ("shipment", "shipment.delivery_updated.v1", "tid"),
}
"""Kind of transaction -> the event that it ends with, and where that names it."""
OPEN = ("INVOICED", "PAYMENT_PROCESSED", "READY_FOR_SHIPMENT", "IN_TRANSIT")
Check = tuple[str, int, list[str]]
Update = tuple[int, str, float]
"""Product, version, price."""


class Reader:
    """The eight services, as far as they are read."""

    def __init__(self, urls: Mapping[str, str], session: aiohttp.ClientSession) -> None:
        self._urls, self._session = urls, session

    async def settled(self, *, seconds: float = 30.0) -> list[str]:
        """Wait until nothing is left to do; what is left where it does not come to an end in time."""
        end, calm = time.monotonic() + seconds, 0
        left: list[str] = ["not asked yet"]
        while time.monotonic() < end and calm < 3:
            left = [text for name in self._urls for text in await self._left(name)]
            calm = 0 if left else calm + 1
            await asyncio.sleep(0.1)
        return left

    async def _left(self, name: str) -> list[str]:
        try:
            found, _ = await self.get(name, "/ops/progress")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return [f"{name} does not answer: {error}"]
        left = [f"{name}: {found[what]} {what}" for what in ("sagas_open", "inbox", "waiting") if found[what]]
        left += [f"{name}: {one['consumer']} is {one['lag']} behind" for one in found["feeds"] if one["lag"]]
        exchange = found["exchange"].items()
        wrong = ("behind", "owed", "failure")
        return left + [f"{name}: {peer}: {what}" for peer, one in exchange for what in wrong if one[what]]

    async def get(self, service: str, path: str) -> tuple[Any, Mapping[str, str]]:
        """The JSON of an answer, and its headers."""
        async with self._session.get(self._urls[service] + path) as answer:
            answer.raise_for_status()
            return await answer.json(content_type=None), answer.headers

    async def heads(self) -> dict[str, int]:
        """The last position of each service: what comes after belongs to a run that begins now."""
        return {name: int((await self.get(name, "/events?limit=1"))[1]["Holdfast-Head"]) for name in self._urls}

    async def feed(self, service: str, *types: str, after: int = 0) -> list[dict[str, Any]]:
        """What a service's events of these types say."""
        found: list[dict[str, Any]] = []
        head = after + 1
        while after < head:
            page, headers = await self.get(service, f"/events?after={after}&limit={PAGE}&types={','.join(types)}")
            found += [event["data"] for event in page]
            after, head = int(headers["Holdfast-Upto"]), int(headers["Holdfast-Head"])
        return found

    async def aggregates(self, service: str, kind: str) -> dict[str, dict[str, Any]]:
        """State by key. What was removed, blank but for its status and what is masked anyway, is left out."""
        found: dict[str, dict[str, Any]] = {}
        after: str | None = ""
        while after is not None:
            page, _ = await self.get(service, f"/ops/aggregates/{kind}?limit={PAGE}&after={quote(after, safe='')}")
            found |= {one["key"]: one["state"] for one in page["items"]}
            after = page["next"]
        blank: tuple[Any, ...] = ("", "***", 0, [], {}, False)
        return {key: one for key, one in found.items() if any(one[n] not in blank for n in one if n != "status")}

    async def checks(
        self, told: Mapping[str, Mapping[str, str]], since: Mapping[str, int] | None = None
    ) -> list[Check]:
        """What callers were `told` since those positions, and what dashboards show."""
        ended = {
            kind: Counter(body[name] for body in await self.feed(service, stored, after=(since or {}).get(service, 0)))
            for kind, (service, stored, name) in TOLD.items()
        }
        boards = {
            int(key): (await self.get("seller", f"/seller/dashboard/{key}"))[0]
            for key in await self.aggregates("seller", "Seller")
        }
        orders = await self.aggregates("order", "Order")
        shipments = await self.aggregates("shipment", "Shipment")
        return [
            checked("What callers were told is so (8a.10)", told_is_so(told, ended)),
            checked(
                "Dashboards show what is open and what has arrived (8a.9)", boards_agree(boards, orders, shipments)
            ),
        ]

    async def published_anomalies(self, since: Mapping[str, int]) -> int:
        """8c: the published count over all carts and sellers; a figure, not a verdict: it also counts what is none."""
        kinds = ("product_added", "product_replaced", "price_updated")
        updates: defaultdict[int, list[Update]] = defaultdict(list)
        for body in await self.feed("product", *(f"product.{kind}.v1" for kind in kinds)):
            if body.get("applied", True):
                row = body.get("product", body)
                updates[row["seller_id"]].append((row["product_id"], row["version"], row["price"]))
        count = 0
        for quoted in await self.feed("cart", "cart.quoted.v1", after=since.get("cart", 0)):
            carts: defaultdict[int, list[Update]] = defaultdict(list)
            for item in quoted["items"]:
                carts[item["seller_id"]].append((item["product_id"], item["version"], item["unit_price"]))
            count += sum(anomalies(updates[seller][::-1], cart) for seller, cart in carts.items())
        return count


def checked(name: str, said: Iterable[str | None]) -> Check:
    """A check of what was said of each thing: None where it is as it must be."""
    found = list(said)
    return name, len(found), [text for text in found if text]


def same(what: str, one: Any, other: Any) -> str | None:
    """What is wrong where two things differ."""
    return None if one == other else f"{what}: {one} is not {other}"


def told_is_so(told: Mapping[str, Mapping[str, str]], ended: Mapping[str, Counter[str]]) -> Iterator[str | None]:
    """Each transaction is there once where its caller was told success, not at all where told no."""
    for kind, times in ended.items():
        said = told.get(kind, {})
        for tid, status in said.items():
            if status in ("SUCCESS", "NOT_ACCEPTED"):
                yield same(f"{kind} {tid}: told {status}, there", times[tid], int(status == "SUCCESS"))
        yield from (f"{kind} {tid}: nobody asked for it" for tid in times.keys() - said.keys())


def boards_agree(
    boards: Mapping[int, Any], orders: Mapping[str, Any], shipments: Mapping[str, Any]
) -> Iterator[str | None]:
    """A dashboard shows the open lines of its seller, those as delivered whose parcels are; its totals are of these."""
    arrived = {
        f"{key}/{i['package_id']}" for key, one in shipments.items() for i in one["packages"] if i["delivery_date"]
    }
    lines: defaultdict[int, dict[str, tuple[float, bool]]] = defaultdict(dict)
    for key, one in orders.items():
        for i in one["items"] if one["status"] in OPEN else ():
            line = f"{key}/{i['order_item_id']}"
            lines[i["seller_id"]][line] = round(i["total_amount"] + i["freight_value"], 2), line in arrived
    for seller_id, board in boards.items():
        shown = {
            one["natural_key"]: (one["total_invoice"], one["delivery_status"] == "delivered")
            for one in board["orderEntries"]
        }
        yield from consistent(seller_id, board)
        yield same(f"dashboard {seller_id}: lines", shown, lines[seller_id])


def consistent(seller_id: int, board: Mapping[str, Any]) -> Iterator[str | None]:
    """Criterion 7: what one answer says agrees with itself, at any time."""
    view, entries = board["sellerView"], board["orderEntries"]
    total = round(sum(entry["total_invoice"] for entry in entries), 2)
    orders = {(entry["customer_id"], entry["order_id"]) for entry in entries}
    shown = view["total_invoice"], view["count_items"], view["count_orders"]
    yield same(f"dashboard {seller_id}: totals", shown, (total, len(entries), len(orders)))


def anomalies(updates: list[Update], cart: list[Update]) -> int:
    """8c: the published count for one seller, `updates` newest first."""
    found: set[tuple[int, int]] = set()
    count = 0
    for index in range(1, len(cart)):
        pivot = next((n for n, update in enumerate(updates) if update == cart[index]), None)
        if pivot is None:
            continue
        for earlier in range(index):
            product, version, price = cart[earlier]
            for position in range(pivot + 1, len(updates) - 1):
                if updates[position][:2] == (product, version):
                    if updates[position][2] == price:
                        break
                    found.add((earlier, position))
        count += len(found)
    return count
