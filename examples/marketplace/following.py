"""Invariants of the marketplace that follow its logs: numbers, statuses, carts, parcels, versions, prices.

Comes beside `marketplace.invariants`, which declares the others. Each is given events one by one, those of each log in
its order, causes before effects; what a reset takes back is followed like all else.
"""

from collections.abc import Iterable, Iterator
from math import inf
from typing import Any

from holdfast import Happened
from marketplace.contracts import cart, order, product, shipment, stock
from marketplace.contracts.values import CartItem
from marketplace.system import system


def customer(event: Any) -> int:
    """By customer."""
    return event.customer_id


@system.invariant(by=customer)
class OrdersNumbered:
    """A customer's orders are 1 to n, each number given once and used once (8a.7)."""

    n: int = 0
    given: set[int] = set()

    def follow(self, event: order.OrderNumbered | order.InvoiceIssued | order.NumbersRestarted) -> Iterator[str]:
        if isinstance(event, order.NumbersRestarted):
            self.n, self.given = 0, set()
        elif isinstance(event, order.OrderNumbered):
            if event.order_id != self.n + 1:
                yield f"number {event.order_id} was given after {self.n}"
            self.n = event.order_id
            self.given.add(self.n)
        elif event.order_id not in self.given:
            yield f"order {event.order_id} was issued, and its number not given, or twice"
        else:
            self.given.remove(event.order_id)


AFTER = {
    "INVOICED": "", "PAYMENT_PROCESSED": "INVOICED", "PAYMENT_FAILED": "INVOICED",
    "READY_FOR_SHIPMENT": "PAYMENT_PROCESSED", "IN_TRANSIT": "READY_FOR_SHIPMENT", "DELIVERED": "IN_TRANSIT",
}  # fmt: skip
"""Each status, and the one that it follows."""


@system.invariant(by=customer)
class StatusesInOrder:
    """Payment comes before shipment, in transit before delivered, for every order (criterion 6)."""

    now: dict[int, str] = {}

    def follow(self, event: order.InvoiceIssued | order.OrderStatusChanged | order.OrderRemoved) -> Iterator[str]:
        before = self.now.pop(event.order_id, "")
        if not isinstance(event, order.OrderRemoved):
            status = event.status if isinstance(event, order.OrderStatusChanged) else "INVOICED"
            if before != AFTER[status]:
                yield f"order {event.order_id}: {status} after {before or 'nothing'}"
            if status in AFTER.values():
                self.now[event.order_id] = status


@system.invariant(by=customer)
class CartsEmptied:
    """A checkout takes what was put into the cart, all of it and once; then the cart is empty and open again."""

    items: list[CartItem] = []

    def follow(self, event: cart.ItemAdded | cart.CartSealed | cart.CartTaken) -> Iterator[str]:
        if isinstance(event, cart.CartTaken) and event.items != tuple(self.items):
            yield f"checkout {event.tid} took {event.items}, in the cart were {self.items}"
        self.items = [*self.items, event.item] if isinstance(event, cart.ItemAdded) else []


@system.invariant(by=customer)
class ShipmentsConclude:
    """A shipment's delivery starts with its first parcel and is concluded with its last, each delivered once."""

    parcels: dict[int, set[int]] = {}
    """Order -> what has not arrived."""
    started: set[int] = set()

    def follow(
        self, event: shipment.ShipmentCreated | shipment.PackagesDelivered | shipment.ShipmentRemoved
    ) -> Iterator[str]:
        number, waiting = event.order_id, self.parcels.pop(event.order_id, set[int]())
        if isinstance(event, shipment.ShipmentCreated):
            self.parcels[number] = {one.package_id for one in event.packages}
        elif isinstance(event, shipment.PackagesDelivered):
            arrived = {one.package_id for one in event.packages}
            first, last = number not in self.started, arrived == waiting
            if not arrived <= waiting or (event.started, event.concluded) != (first, last):
                yield f"order {number}: {arrived} of {waiting} arrived, first {event.started}, last {event.concluded}"
            self.started.add(number)
            if not last:
                self.parcels[number] = waiting - arrived
        if number not in self.parcels:
            self.started.discard(number)


@system.invariant
class OldestFirst:
    """A seller's shipments are delivered in the order in which they came, each once (criterion 6)."""

    queues: dict[int, list[tuple[int, int]]] = {}

    def follow(self, event: shipment.Enrolled | shipment.PackagesDelivered | shipment.DepotEmptied) -> Iterator[str]:
        if isinstance(event, shipment.DepotEmptied):
            self.queues = {}
        elif isinstance(event, shipment.Enrolled):
            for seller_id in event.sellers:
                self.queues.setdefault(seller_id, []).append((event.customer_id, event.order_id))
        else:
            which = (event.customer_id, event.order_id)
            for seller_id in dict.fromkeys(one.seller_id for one in event.packages):
                queue = self.queues.pop(seller_id, [])
                if queue[:1] != [which]:
                    yield f"seller {seller_id}: {which} was delivered, waiting are {queue[:3]}"
                self.queues[seller_id] = [one for one in queue if one != which]


Product = product.ProductAdded | product.ProductReplaced | product.PriceUpdated | product.ProductRemoved
Stock = stock.StockAdded | stock.VersionSet | stock.StockRestarted | stock.StockRemoved


def offered(event: Any) -> tuple[int, int, str, float]:
    """Seller, product, and its version and price after the event: "gone" and 0 where it was removed."""
    row = getattr(event, "product", event)
    if isinstance(event, product.ProductRemoved | stock.StockRemoved) or getattr(event, "removed", False):
        return row.seller_id, row.product_id, "gone", 0.0
    version = "0" if isinstance(event, stock.StockRestarted) else row.version
    return row.seller_id, row.product_id, version, getattr(row, "price", 0.0)


def changed(event: Any) -> tuple[int, int] | None:
    """By product; a price for a version that is gone changes none."""
    return offered(event)[:2] if getattr(event, "applied", True) else None


@system.invariant(by=changed)
class OneVersion:
    """Product and stock go through the same versions, product and cart through the same prices (8a.6)."""

    ahead: dict[str, list[Any]] = {}
    """What one of two services has come to and the other not yet."""

    def follow(self, event: Product | Stock | cart.Replicated) -> None:
        _, _, version, price = offered(event)
        if isinstance(event, Product | cart.Replicated):
            name = "cart" if isinstance(event, cart.Replicated) else "prices"
            self.ahead.setdefault(name, []).append((version, price))
        if not isinstance(event, product.PriceUpdated | cart.Replicated):
            name = "product" if isinstance(event, Product) else "stock"
            self.ahead.setdefault(name, []).append(version)

    def holds(self, in_flight: list[Happened]) -> Iterator[str]:
        for name, other in (("product", "stock"), ("prices", "cart")):
            one, two = self.ahead.get(name, []), self.ahead.get(other, [])
            while one and two and one[0] == two[0]:
                del one[0], two[0]
            both = other == "cart" or {name, other} <= self.ahead.keys()  # stock is entered by itself, before or after
            if (one and two) or (not in_flight and both and (one or two)):
                yield f"{name} came to {one[:3] or 'no other'}, {other} to {two[:3] or 'no other'}"


def sellers(event: Any) -> list[int]:
    """By seller: of a quote those of its lines."""
    items = event.items if isinstance(event, cart.Quoted) else ()
    return [one.seller_id for one in items] or [key[0] for key in (changed(event),) if key]


@system.invariant(by=sellers)
class QuotesCausal:
    """The prices of a seller that a quote shows were all current at one moment (criterion 4).

    Moments are those of the product service's log: no price is later than a change that is missing beside it. Lines of
    another version than the cart service knows are no quote of its: they stand as their customer saw them.
    """

    moment: int = 0
    now: dict[int, tuple[int, str, float]] = {}
    spans: dict[tuple[int, str, float], list[tuple[float, float]]] = {}
    """Product, version, price -> from and up to which moment it was current."""
    quotes: list[tuple[str, list[CartItem]]] = []
    """Not judged yet: transaction, and the seller's lines."""
    wrong: list[str] = []
    """For good."""

    def follow(self, event: Product | cart.Quoted, seller_id: int) -> None:
        if isinstance(event, cart.Quoted):
            lines = [i for n, i in enumerate(event.items) if i.seller_id == seller_id and n not in event.kept]
            self.quotes.append((event.tid, lines))
            return
        _, number, version, price = offered(event)
        self.moment += 1
        if old := self.now.get(number):
            self.spans[old][-1] = (self.spans[old][-1][0], self.moment)
        self.now[number] = (number, version, price)
        self.spans.setdefault(self.now[number], []).append((self.moment, inf))

    def holds(self) -> Iterable[str]:
        for tid, lines in self.quotes:  # prices come from another log: judged when that was taken too
            moments = [(0.0, inf)]
            for i in lines:
                spans = self.spans.get((i.product_id, i.version, i.unit_price), [])
                both = [(max(a, c), min(b, d)) for a, b in moments for c, d in spans]
                moments = [(begin, end) for begin, end in both if begin < end]
            if not moments:
                self.wrong.append(f"quote of {tid}: prices that were never current together: {lines}")
        self.quotes = []
        return self.wrong
