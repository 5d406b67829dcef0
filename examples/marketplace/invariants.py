"""What must be true of the marketplace, written once: `holdfast audit marketplace.invariants:system` judges it.

Shares no code with the services: it adds up what they recorded. Functions judge one transaction, two classes add up
settled ones; those that follow a log in its order are in `marketplace.following`. Numbers are those of the benchmark. A
reset (`marketplace.bench`) takes back both sides of what is added up here, so the sums go on.
"""

from collections import Counter
from collections.abc import Iterator

from holdfast import Happened
from marketplace import following
from marketplace.contracts import cart, customer, order, payment, product, seller, shipment, stock
from marketplace.contracts.values import OrderItem, total
from marketplace.system import system

__all__ = ["following", "system"]

PAYMENTS = {"PAYMENT_PROCESSED": "paid", "PAYMENT_FAILED": "failed"}


def reached(tx: Happened, *statuses: str) -> Counter[tuple[int, int, str]]:
    """How often orders (customer, number) have come to these statuses."""
    found = tx.of(order.OrderStatusChanged)
    return Counter((one.customer_id, one.order_id, one.status) for one in found if one.status in statuses)


def paid(tx: Happened) -> list[order.InvoiceIssued]:
    """Its orders that say that they are paid."""
    said = reached(tx, "PAYMENT_PROCESSED")
    return [one for one in tx.of(order.InvoiceIssued) if (one.customer_id, one.order_id, "PAYMENT_PROCESSED") in said]


@system.invariant
def ends_once(tx: Happened) -> Iterator[str]:
    """Every checkout ends once, its order bought, off or never issued, and its customer hears how (8a.10)."""
    if carts := tx.of(cart.CartTaken):
        off, bought = reached(tx, "PAYMENT_FAILED"), tx.of(cart.CheckedOut)
        ends = (len(carts), len(tx.of(order.InvoiceIssued)), off.total(), len(bought))
        if ends not in ((1, 0, 0, 0), (1, 1, 1, 0), (1, 1, 0, 1)):
            yield f"checkout {carts[0].tid}: taken, issued, off, bought: {ends}"
        if isinstance(tx.outcome, cart.CheckedOut) != bool(bought):
            yield f"checkout {carts[0].tid}: its customer is told {tx.outcome}"


@system.invariant
def charged_once(tx: Happened) -> Iterator[str]:
    """A paid order is charged once, what it is worth, and no other at all (8a.5, 8b)."""
    worth = [(one.invoice_number, one.total_invoice, one.total_incentive) for one in paid(tx)]
    charges = tx.of(payment.PaymentConfirmed)
    charged = [(one.invoice_number, one.total_invoice, total(one.vouchers)) for one in charges]
    if charged != worth:
        yield f"paid orders {worth}, charged {charged}"


@system.invariant
def shipped_once(tx: Happened) -> Iterator[str]:
    """A paid order has one shipment of all its lines, and no other has any (8a.5, 8b)."""
    lines = [(one.order_id, i.order_item_id, i.product_id, i.quantity) for one in paid(tx) for i in one.items]
    shipped = tx.of(shipment.ShipmentCreated)
    parcels = [(one.order_id, i.package_id, i.product_id, i.quantity) for one in shipped for i in one.packages]
    if parcels != lines:
        yield f"paid lines {lines}, packed {parcels}"


def gross(item: OrderItem) -> float:
    """A line's price, without freight and voucher."""
    return round(item.unit_price * item.quantity, 2)


@system.invariant
def amounts_add_up(tx: Happened) -> Iterator[str]:
    """An order's amounts are those of its lines."""
    for one in tx.of(order.InvoiceIssued):
        items = sum(map(gross, one.items))
        invoice = items + sum(i.freight_value - min(i.voucher, gross(i)) for i in one.items)
        if abs(one.total_items - items) >= 0.005 or abs(one.total_invoice - invoice) >= 0.005:
            yield f"{one.invoice_number}: {one.total_items} and {one.total_invoice}, its lines {items} and {invoice}"


@system.invariant
def nothing_held(tx: Happened) -> Iterator[str]:
    """What was reserved was sold or given back: no units are held when nothing is on its way (8a.1)."""
    held = Counter[tuple[int, int]]()
    for one in tx.of(stock.Reserved):
        held[one.seller_id, one.product_id] += one.quantity
    for one in tx.of(stock.Released, stock.Confirmed):
        held[one.seller_id, one.product_id] -= one.quantity
    if any(held.values()):
        yield f"held by seller and product: {held}"


@system.invariant
def replaced_together(tx: Happened) -> Iterator[str]:
    """A replacement is in product and in stock, once each, and told so, or nowhere (criterion 3)."""
    rows = [one.product for one in tx.of(product.ProductReplaced)]
    replaced = [(row.seller_id, row.product_id, row.version) for row in rows if row.version != "0"]  # "0": a reset
    stocked = [(one.seller_id, one.product_id, one.version) for one in tx.of(stock.VersionSet)]
    told = [(one.seller_id, one.product_id, one.version) for one in tx.of(product.ProductUpdated)]
    if not replaced == stocked == told or len(replaced) > 1:
        yield f"replaced in product {replaced}, in stock {stocked}, told {told}"


@system.invariant
def delivered_together(tx: Happened) -> Iterator[str]:
    """A delivery update is in shipment, customer, seller and order, and told so, or nowhere (criterion 3)."""
    delivered, arrived = tx.of(shipment.PackagesDelivered), tx.of(seller.ParcelsArrived)
    parcels = Counter((one.customer_id, one.order_id, i.package_id) for one in delivered for i in one.packages)
    noted = Counter((i.customer_id, i.order_id, i.package_id) for one in arrived for i in one.arrivals)
    customers = Counter(customer_id for customer_id, _, _ in parcels.elements())
    counted = Counter(one.id for one in tx.of(customer.Counted) for _ in range(one.delivered))
    due = Counter((one.customer_id, one.order_id, "IN_TRANSIT") for one in tx.of(shipment.DeliveryStarted))
    due.update((one.customer_id, one.order_id, "DELIVERED") for one in tx.of(shipment.DeliveryConcluded))
    told = [one.packages for one in tx.of(shipment.DeliveredTogether, shipment.DeliveryUpdated) if one.packages]
    for where, one, other in (
        ("seller", parcels, noted),
        ("customer", customers, counted),
        ("order", due, reached(tx, "IN_TRANSIT", "DELIVERED")),
        ("its answers", [parcels.total()] * 2 * bool(parcels), told),
    ):
        if one != other:
            yield f"shipment delivered {one}, {where} says {other}"


@system.invariant(
    key=lambda tx: (
        [(one.seller_id, one.product_id) for one in tx.of(stock.StockAdded, stock.StockRestarted, stock.Confirmed)]
        + [(i.seller_id, i.product_id) for one in paid(tx) for i in one.items]
    )
)
class UnitsConserved:
    """Units and lines gone from the stock are those that were sold, and no more than there were (8a.2, 8a.3)."""

    came: int = 0
    gone: Counter[str] = Counter()
    sold: Counter[str] = Counter()

    def settled(self, tx: Happened, item: tuple[int, int]) -> None:
        added, gone = tx.of(stock.StockAdded, stock.StockRestarted), tx.of(stock.Confirmed)
        self.came += sum(one.qty_available for one in added if (one.seller_id, one.product_id) == item)
        for counter, lines in ((self.gone, gone), (self.sold, [i for one in paid(tx) for i in one.items])):
            for one in lines:
                if (one.seller_id, one.product_id) == item:
                    counter.update(units=one.quantity, lines=1)

    def holds(self) -> Iterator[str]:
        if self.gone != self.sold or self.gone["units"] > self.came:
            yield f"{self.came} units came in, gone are {dict(self.gone)}, sold {dict(self.sold)}"


@system.invariant(
    key=lambda tx: (
        [one.id for one in tx.of(customer.Counted)]
        + [one.customer_id for one in tx.of(order.OrderStatusChanged, shipment.PackagesDelivered)]
    )
)
class CustomersCount:
    """A customer counts the orders that were paid, those that were not, and the parcels that arrived (8a.4, 8a.8)."""

    counted: Counter[str] = Counter()
    real: Counter[str] = Counter()

    def settled(self, tx: Happened, customer_id: int) -> None:
        for one in tx.of(customer.Counted):
            if one.id == customer_id:
                self.counted.update(paid=one.paid, failed=one.failed, delivered=one.delivered)
        for (whose, _, status), times in reached(tx, *PAYMENTS).items():
            self.real[PAYMENTS[status]] += times * (whose == customer_id)
        for one in tx.of(shipment.PackagesDelivered):
            self.real["delivered"] += len(one.packages) * (one.customer_id == customer_id)

    def holds(self) -> Iterator[str]:
        if self.counted != self.real:
            yield f"counted {dict(self.counted)}, of {dict(self.real)}"
