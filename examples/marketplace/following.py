"""Invariants of the marketplace that follow a log in its order: numbers, statuses, carts, parcels, versions, prices.

Comes beside `marketplace.invariants`, which declares the others. Transactions do not settle in the order of a log; but
what has settled and what is in flight is all there is up to a cut. So an event is taken once, when it is first seen,
and all that is before it in its log was taken before; what a reset takes back is followed like all else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from math import inf
from typing import Any, ClassVar, TypeVar

from holdfast import Event, Happened
from marketplace.contracts import cart, order, product, shipment, stock
from marketplace.contracts.values import CartItem
from marketplace.system import system

Keys = Callable[[Any], Iterable[Hashable]]


class InOrder(ABC):
    """A fold that takes the events of its key, those of each log in the order of that log."""

    kinds: ClassVar[tuple[type[Event], ...]] = ()
    keys: ClassVar[Keys]
    key: Any = None
    upto: dict[str, int] = {}
    """Log -> the position up to which its events were taken."""
    new: list[tuple[str, int, Event]] = []
    wrong: list[str] = []
    """For good."""

    def settled(self, tx: Happened, key: Any) -> None:
        self.key = key
        self.new += tx.placed(*self.kinds)

    def holds(self, in_flight: list[Happened]) -> Iterator[str]:
        if self.key is None:
            return  # all of it is in flight: its turn comes when the first has settled
        flying = [placed for tx in in_flight for placed in tx.placed(*self.kinds)]
        for log, position, event in sorted((*self.new, *flying), key=lambda placed: placed[:2]):
            if position > self.upto.get(log, 0) and self.key in type(self).keys(event):
                self.upto[log] = position
                self.wrong += self.take(event, position)
        self.new = []
        left = list(self.left(at_rest=not in_flight))
        yield from (*self.wrong, *left)

    @abstractmethod
    def take(self, event: Any, position: int) -> Iterable[str]:
        """Take the next event of a log; what is wrong with it."""

    def left(self, *, at_rest: bool) -> Iterable[str]:
        """What is wrong as it stands; `at_rest`: nothing of this key is in flight."""
        return ()


F = TypeVar("F", bound=InOrder)


def follows(keys: Keys, *kinds: type[Event]) -> Callable[[type[F]], type[F]]:
    """Register an invariant that follows events of these kinds, by what `keys` says of each."""

    def register(cls: type[F]) -> type[F]:
        cls.kinds, cls.keys = kinds, keys
        return system.invariant(key=lambda tx: [key for event in tx.of(*kinds) for key in keys(event)])(cls)

    return register


def customer(event: Any) -> Iterable[int]:
    """By customer."""
    return (event.customer_id,)


@follows(customer, order.OrderNumbered, order.InvoiceIssued, order.NumbersRestarted)
class OrdersNumbered(InOrder):
    """A customer's orders are 1 to n, each number given once and used once (8a.7)."""

    n: int = 0
    given: set[int] = set()

    def take(self, event: Any, position: int) -> Iterator[str]:
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


@follows(customer, order.InvoiceIssued, order.OrderStatusChanged, order.OrderRemoved)
class StatusesInOrder(InOrder):
    """Payment comes before shipment, in transit before delivered, for every order (criterion 6)."""

    now: dict[int, str] = {}

    def take(self, event: Any, position: int) -> Iterator[str]:
        before = self.now.pop(event.order_id, "")
        if not isinstance(event, order.OrderRemoved):
            status = event.status if isinstance(event, order.OrderStatusChanged) else "INVOICED"
            if before != AFTER[status]:
                yield f"order {event.order_id}: {status} after {before or 'nothing'}"
            if status in AFTER.values():
                self.now[event.order_id] = status


@follows(customer, cart.ItemAdded, cart.CartSealed, cart.CartTaken)
class CartsEmptied(InOrder):
    """A checkout takes what was put into the cart, all of it and once; then the cart is empty and open again."""

    items: list[CartItem] = []

    def take(self, event: Any, position: int) -> Iterator[str]:
        if isinstance(event, cart.CartTaken) and event.items != tuple(self.items):
            yield f"checkout {event.tid} took {event.items}, in the cart were {self.items}"
        self.items = [*self.items, event.item] if isinstance(event, cart.ItemAdded) else []


@follows(customer, shipment.ShipmentCreated, shipment.PackagesDelivered, shipment.ShipmentRemoved)
class ShipmentsConclude(InOrder):
    """A shipment's delivery starts with its first parcel and is concluded with its last, each delivered once."""

    parcels: dict[int, set[int]] = {}
    """Order -> what has not arrived."""
    started: set[int] = set()

    def take(self, event: Any, position: int) -> Iterator[str]:
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


@follows(lambda event: ("all",), shipment.Enrolled, shipment.PackagesDelivered, shipment.DepotEmptied)
class OldestFirst(InOrder):
    """A seller's shipments are delivered in the order in which they came, each once (criterion 6)."""

    queues: dict[int, list[tuple[int, int]]] = {}

    def take(self, event: Any, position: int) -> Iterator[str]:
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


PRODUCT = (product.ProductAdded, product.ProductReplaced, product.PriceUpdated, product.ProductRemoved)


def offered(event: Any) -> tuple[int, int, str, float]:
    """Seller, product, and its version and price after the event: "gone" and 0 where it was removed."""
    row = getattr(event, "product", event)
    if isinstance(event, product.ProductRemoved | stock.StockRemoved) or getattr(event, "removed", False):
        return row.seller_id, row.product_id, "gone", 0.0
    version = "0" if isinstance(event, stock.StockRestarted) else row.version
    return row.seller_id, row.product_id, version, getattr(row, "price", 0.0)


def changed(event: Any) -> Iterable[tuple[int, int]]:
    """By product; a price for a version that is gone changes none."""
    return (offered(event)[:2],) if getattr(event, "applied", True) else ()


@follows(
    changed, *PRODUCT, stock.StockAdded, stock.VersionSet, stock.StockRestarted, stock.StockRemoved, cart.Replicated
)
class OneVersion(InOrder):
    """Product and stock go through the same versions, product and cart through the same prices (8a.6)."""

    ahead: dict[str, list[Any]] = {}
    """What one of two services has come to and the other not yet."""

    def take(self, event: Any, position: int) -> Iterable[str]:
        _, _, version, price = offered(event)
        if isinstance(event, (*PRODUCT, cart.Replicated)):
            name = "cart" if isinstance(event, cart.Replicated) else "prices"
            self.ahead.setdefault(name, []).append((version, price))
        if not isinstance(event, product.PriceUpdated | cart.Replicated):
            name = "product" if isinstance(event, PRODUCT) else "stock"
            self.ahead.setdefault(name, []).append(version)
        return ()

    def left(self, *, at_rest: bool) -> Iterator[str]:
        for name, other in (("product", "stock"), ("prices", "cart")):
            one, two = self.ahead.get(name, []), self.ahead.get(other, [])
            while one and two and one[0] == two[0]:
                del one[0], two[0]
            both = other == "cart" or {name, other} <= self.ahead.keys()  # stock is entered by itself, before or after
            if (one and two) or (at_rest and both and (one or two)):
                yield f"{name} came to {one[:3] or 'no other'}, {other} to {two[:3] or 'no other'}"


def sellers(event: Any) -> Iterable[int]:
    """By seller: of a quote those of its lines."""
    items = event.items if isinstance(event, cart.Quoted) else ()
    return {one.seller_id for one in items} or {seller_id for seller_id, _ in changed(event)}


@follows(sellers, *PRODUCT, cart.Quoted)
class QuotesCausal(InOrder):
    """The prices of a seller that a quote shows were all current at one moment (criterion 4).

    Moments are those of the product service's log: no price is later than a change that is missing beside it. Lines of
    another version than the cart service knows are no quote of its: they stand as their customer saw them.
    """

    now: dict[int, tuple[int, str, float]] = {}
    spans: dict[tuple[int, str, float], list[tuple[float, float]]] = {}
    """Product, version, price -> from and up to which position it was current."""
    quotes: list[cart.Quoted] = []

    def take(self, event: Any, position: int) -> Iterable[str]:
        if isinstance(event, cart.Quoted):
            self.quotes.append(event)  # prices come from another log: judged when that is taken too
            return ()
        _, number, version, price = offered(event)
        if old := self.now.get(number):
            self.spans[old][-1] = (self.spans[old][-1][0], position)
        self.now[number] = (number, version, price)
        self.spans.setdefault(self.now[number], []).append((position, inf))
        return ()

    def left(self, *, at_rest: bool) -> Iterable[str]:
        for quoted in self.quotes:
            moments = [(0.0, inf)]
            for place, i in enumerate(quoted.items):
                if i.seller_id == self.key and place not in quoted.kept:
                    spans = self.spans.get((i.product_id, i.version, i.unit_price), [])
                    both = [(max(a, c), min(b, d)) for a, b in moments for c, d in spans]
                    moments = [(begin, end) for begin, end in both if begin < end]
            if not moments:
                self.wrong.append(f"quote of {quoted.tid}: prices that were never current together: {quoted.items}")
        self.quotes = []
        return ()
