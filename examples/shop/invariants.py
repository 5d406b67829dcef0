"""What must be true of the shop, written once: `holdfast audit shop.invariants:shop` judges it while the shop runs.

Shares no code with the services: it adds up what they recorded.
"""

from collections import Counter
from collections.abc import Iterator

from holdfast import Happened
from shop.contracts import (
    Cancelled,
    Charged,
    CheckedOut,
    Confirmed,
    Placed,
    Refunded,
    Released,
    Reserved,
    Restocked,
    Shipped,
)
from shop.services import shop


@shop.invariant
def ended_once(tx: Happened) -> Iterator[str]:
    """Every order ended, once, and its customer hears how."""
    for order in tx.of(Placed):
        ends = tuple(map(len, (tx.of(Placed), tx.of(Confirmed), tx.of(CheckedOut), tx.of(Cancelled))))
        if ends not in ((1, 1, 1, 0), (1, 0, 0, 1)):
            yield f"{order.order_id}: placed, confirmed, bought, off: {ends}"
        if isinstance(tx.outcome, CheckedOut) != (Confirmed in tx):
            yield f"{order.order_id}: its customer is told {tx.outcome}"


@shop.invariant
def charged_once(tx: Happened) -> Iterator[str]:
    """Confirmed orders are charged exactly once, others cost nothing."""
    for order in tx.of(Placed):
        amount = sum(item.quantity * item.price_cents for item in order.items)
        charged = [event.amount_cents for event in tx.of(Charged)]
        back = [event.amount_cents for event in tx.of(Refunded)]
        if Confirmed in tx and (charged, back) != ([amount], []):
            yield f"{order.order_id} over {amount}: charged {charged}, given back {back}"
        if Confirmed not in tx and (charged != back or len(charged) > 1):
            yield f"{order.order_id} is off: charged {charged}, given back {back}"


@shop.invariant
def held_for_confirmed(tx: Happened) -> Iterator[str]:
    """Every line of a confirmed order is reserved once, and nothing for others."""
    for order in tx.of(Placed):
        wanted = Counter[str]()
        for item in order.items:
            wanted[item.sku] += item.quantity
        for sku, units in wanted.items():
            held = [event.quantity for event in tx.of(Reserved) if event.sku == sku]
            back = [event.quantity for event in tx.of(Released) if event.sku == sku]
            if sum(held) not in (0, units) or sum(held) - sum(back) != (units if Confirmed in tx else 0):
                yield f"{order.order_id}: of {units} {sku} it reserved {held} and gave back {back}"


@shop.invariant
def shipped_once(tx: Happened) -> Iterator[str]:
    """Confirmed orders are shipped once, others never."""
    for order in tx.of(Placed):
        parcels = [event.parcels for event in tx.of(Shipped)]
        if parcels != ([len(order.items)] if Confirmed in tx else []):
            yield f"{order.order_id}: {len(order.items)} lines, parcels {parcels}"


@shop.invariant(key=lambda tx: [event.sku for event in tx.of(Restocked, Reserved)])
class StockConserved:
    """Units that are gone are units that were sold."""

    came: int = 0
    gone: int = 0
    sold: int = 0

    def settled(self, tx: Happened, sku: str) -> None:
        self.came += sum(event.quantity for event in tx.of(Restocked) if event.sku == sku)
        self.gone += sum(event.quantity for event in tx.of(Reserved) if event.sku == sku)
        self.gone -= sum(event.quantity for event in tx.of(Released) if event.sku == sku)
        if Confirmed in tx:
            self.sold += sum(item.quantity for order in tx.of(Placed) for item in order.items if item.sku == sku)

    def holds(self) -> Iterator[str]:
        if not 0 <= self.gone <= self.came or self.gone != self.sold:
            yield f"{self.came} came in, {self.gone} are gone, {self.sold} were sold"
