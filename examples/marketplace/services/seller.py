"""The seller service: sellers, and the dashboard of what is open for each of them.

A dashboard is one row: its totals and its entries are read together, so they always agree (a consistent query).
"""

from typing import Any

import msgspec

from holdfast import Every, Query, Rejected, Sensitive, Service, decide, evolve
from marketplace.bench import bench_routes, blank
from marketplace.contracts.order import InvoiceIssued, OrderRemoved, OrderStatusChanged
from marketplace.contracts.seller import (
    AddSeller,
    NoteArrivals,
    ParcelsArrived,
    RemoveSeller,
    SellerAdded,
    SellerRemoved,
    seller,
)
from marketplace.contracts.values import SellerRow, total

seller_service = Service(seller, owner="team-sellers")
CLOSED = ("DELIVERED", "PAYMENT_FAILED")


@seller_service.aggregate
class Seller:
    id: int = 0
    name: str = ""
    company_name: str = ""
    email: Sensitive[str] = ""
    phone: Sensitive[str] = ""
    mobile_phone: Sensitive[str] = ""
    cpf: Sensitive[str] = ""
    cnpj: Sensitive[str] = ""
    address: str = ""
    complement: str = ""
    city: str = ""
    state: str = ""
    zip_code: str = ""

    @decide(creates=True)
    def add(self, command: AddSeller) -> SellerAdded:
        if self.id:
            raise Rejected("exists", f"seller {command.id} is there already")
        return SellerAdded(command.seller)

    @decide
    def remove(self, command: RemoveSeller) -> SellerRemoved:
        return SellerRemoved(command.id)

    @evolve
    def removed(self, event: SellerRemoved) -> None:
        blank(self)

    @evolve
    def added(self, event: SellerAdded) -> None:
        for name, value in msgspec.structs.asdict(event.seller).items():
            setattr(self, name, value)


@seller_service.aggregate
class DeliveryNote:
    """What one delivery update brought, for all its sellers: nobody else's note, so none waits for another."""

    parcels: int = 0

    @decide(creates=True)
    def note(self, command: NoteArrivals) -> ParcelsArrived:
        if self.parcels:
            raise Rejected("exists", f"delivery {command.tid} is noted already")
        return ParcelsArrived(command.tid, command.arrivals)

    @evolve
    def noted(self, event: ParcelsArrived) -> None:
        self.parcels = len(event.arrivals)


class Entry(msgspec.Struct):
    """One line of an open order."""

    customer_id: int
    order_id: int
    natural_key: str
    package_id: int
    product_id: int
    product_name: str
    unit_price: float
    quantity: int
    total_items: float
    total_amount: float
    total_incentive: float
    total_invoice: float
    freight_value: float
    order_status: str = "INVOICED"
    delivery_status: str = ""
    delivery_date: str = ""


@seller_service.view
class Dashboard:
    """What is open for one seller: lines by customer and order."""

    entries: dict[str, list[Entry]] = {}
    early: dict[str, dict[int, str]] = {}
    """Parcels that arrived for lines not known here yet: orders come from another log than arrivals."""

    @evolve(key=lambda event: event.seller.id)
    def opened(self, event: SellerAdded) -> None:
        """A seller has a dashboard before the first order."""

    @evolve(key=lambda event: [item.seller_id for item in event.items])
    def invoiced(self, event: InvoiceIssued, key: str) -> None:
        order = f"{event.customer_id}/{event.order_id}"
        self.entries[order] = [
            Entry(
                event.customer_id, event.order_id, f"{order}/{item.order_item_id}", item.order_item_id,
                item.product_id, item.product_name, item.unit_price, item.quantity, item.total_items,
                item.total_amount, item.voucher, total([item.total_amount, item.freight_value]), item.freight_value,
            )
            for item in event.items
            if item.seller_id == int(key)
        ]  # fmt: skip
        self._mark(order, self.early.pop(order, {}))

    @evolve(key=lambda event: list(event.sellers))
    def changed(self, event: OrderStatusChanged) -> None:
        order = f"{event.customer_id}/{event.order_id}"
        if event.status in CLOSED:
            self.entries.pop(order, None)
            self.early.pop(order, None)
        for entry in self.entries.get(order, ()):
            entry.order_status = event.status
            if event.status == "READY_FOR_SHIPMENT" and not entry.delivery_status:
                entry.delivery_status = "ready_to_ship"

    @evolve(key=lambda event: list(event.sellers))
    def removed(self, event: OrderRemoved) -> None:
        self.entries.pop(f"{event.customer_id}/{event.order_id}", None)
        self.early.pop(f"{event.customer_id}/{event.order_id}", None)

    @evolve(key=lambda event: [one.seller_id for one in event.arrivals])
    def delivered(self, event: ParcelsArrived, key: str) -> None:
        for one in event.arrivals:
            order, arrived = f"{one.customer_id}/{one.order_id}", {one.package_id: one.delivery_date}
            if one.seller_id != int(key):
                continue
            if order not in self.entries and not one.concluded:  # an order that is concluded may be closed already
                self.early.setdefault(order, {}).update(arrived)
            self._mark(order, arrived)

    def _mark(self, order: str, arrived: dict[int, str]) -> None:
        for entry in self.entries.get(order, ()):
            if date := arrived.get(entry.package_id):
                entry.delivery_status, entry.delivery_date = "delivered", date


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A dashboard as drivers read it: the totals, and the entries that they are the totals of."""
    orders: list[list[dict[str, Any]]] = list(row["entries"].values())
    entries = [entry for lines in orders for entry in lines]
    view: dict[str, Any] = {"count_orders": len(orders), "count_items": len(entries)}
    for name in ("total_amount", "freight_value", "total_incentive", "total_invoice", "total_items"):
        shown_as = "total_freight" if name == "freight_value" else name
        view[shown_as] = total(entry[name] for entry in entries)
    return {"sellerView": view, "orderEntries": entries}


@seller_service.post("/seller")
def add_seller(body: SellerRow) -> AddSeller:
    """Enter a seller."""
    return AddSeller(body.id, body)


@seller_service.get("/seller/dashboard/{seller_id}")
def dashboard(seller_id: int):
    """What is open for a seller, with its totals."""
    return Query(Dashboard, seller_id, shape=shown)


bench_routes(seller_service, reset=[], cleanup=[Every(Seller, RemoveSeller)])  # dashboards follow the orders
