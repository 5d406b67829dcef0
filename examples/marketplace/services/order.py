"""The order service: orders, their amounts, and the history of each."""

from datetime import UTC, datetime, timedelta

import msgspec

from holdfast import Context, Every, Rejected, Service, decide, evolve
from marketplace.bench import bench_routes, blank
from marketplace.contracts.order import (
    Advance,
    ChangeStatus,
    InvoiceIssued,
    IssueInvoice,
    NumberOrder,
    NumbersRestarted,
    OrderNumbered,
    OrderRemoved,
    OrderStatusChanged,
    RemoveOrder,
    RestartNumbers,
    order,
)
from marketplace.contracts.shipment import ShipmentCreated
from marketplace.contracts.values import CartItem, OrderItem, money, total

order_service = Service(order, owner="team-shop")
AFTER = {
    "PAYMENT_PROCESSED": "INVOICED",
    "PAYMENT_FAILED": "INVOICED",
    "READY_FOR_SHIPMENT": "PAYMENT_PROCESSED",
    "IN_TRANSIT": "READY_FOR_SHIPMENT",
    "DELIVERED": "IN_TRANSIT",
}
"""Each status, and the one that it follows."""


@order_service.aggregate
class OrderNumbers:
    """The numbers of one customer's orders."""

    next_order_id: int = 1

    @decide(creates=True)
    def number(self, command: NumberOrder) -> OrderNumbered:
        return OrderNumbered(command.customer_id, self.next_order_id)

    @decide
    def restart(self, command: RestartNumbers) -> NumbersRestarted:
        return NumbersRestarted(command.customer_id)

    @evolve
    def numbered(self, event: OrderNumbered) -> None:
        self.next_order_id = event.order_id + 1

    @evolve
    def restarted(self, event: NumbersRestarted) -> None:
        self.next_order_id = 1


class History(msgspec.Struct):
    """A status, and when it was reached."""

    created_at: str
    status: str


@order_service.aggregate
class Order:
    customer_id: int = 0
    id: int = 0
    invoice_number: str = ""
    status: str = ""
    purchase_date: str = ""
    payment_date: str = ""
    delivered_carrier_date: str = ""
    delivered_customer_date: str = ""
    estimated_delivery_date: str = ""
    count_items: int = 0
    total_amount: float = 0.0
    total_freight: float = 0.0
    total_incentive: float = 0.0
    total_invoice: float = 0.0
    total_items: float = 0.0
    items: list[OrderItem] = []
    history: list[History] = []

    @decide(creates=True)
    def issue(self, command: IssueInvoice, context: Context) -> InvoiceIssued:
        if self.status:
            raise Rejected("exists", f"order {command.order_id} of customer {command.customer_id} is there already")
        now = datetime.fromtimestamp(context.at_us / 1e6, UTC)
        items = tuple(_line(command.order_id, n, item, now) for n, item in enumerate(command.items, 1))
        amount, freight = total(item.total_amount for item in items), total(item.freight_value for item in items)
        return InvoiceIssued(
            command.customer_id, command.order_id, command.tid,
            f"{command.customer_id}-{now:%Y%m%d}-{command.order_id}", now.isoformat(), amount, freight,
            total(item.voucher for item in items), money(amount + freight), total(item.total_items for item in items),
            items,
        )  # fmt: skip

    @decide
    def change(self, command: ChangeStatus, context: Context) -> OrderStatusChanged:
        return self._reached((command.status,), context)[0]

    @decide
    def advance(self, command: Advance, context: Context) -> tuple[OrderStatusChanged, ...]:
        return self._reached(command.statuses, context)

    @decide
    def remove(self, command: RemoveOrder) -> OrderRemoved:
        return OrderRemoved(command.customer_id, command.order_id, self._sellers())

    def _reached(self, statuses: tuple[str, ...], context: Context) -> tuple[OrderStatusChanged, ...]:
        for status, before in zip(statuses, (self.status, *statuses), strict=False):
            if AFTER.get(status) != before:
                raise Rejected("not_now", f"{status} does not follow {before}")
        at = datetime.fromtimestamp(context.at_us / 1e6, UTC).isoformat()
        return tuple(OrderStatusChanged(self.customer_id, self.id, one, at, self._sellers()) for one in statuses)

    def _sellers(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(item.seller_id for item in self.items))

    @evolve
    def issued(self, event: InvoiceIssued) -> None:
        self.customer_id, self.id, self.invoice_number = event.customer_id, event.order_id, event.invoice_number
        self.total_amount, self.total_freight, self.total_items = (
            event.total_amount, event.total_freight, event.total_items,
        )  # fmt: skip
        self.total_incentive, self.total_invoice = event.total_incentive, event.total_invoice
        self.items, self.count_items = list(event.items), len(event.items)
        self.purchase_date = event.issue_date
        self._reach("INVOICED", event.issue_date)

    @evolve
    def changed(self, event: OrderStatusChanged) -> None:
        if event.status == "PAYMENT_PROCESSED":
            self.payment_date = event.at
        elif event.status == "READY_FOR_SHIPMENT":
            self.delivered_carrier_date = event.at
        elif event.status == "DELIVERED":
            self.delivered_customer_date = event.at
        self._reach(event.status, event.at)

    @evolve
    def removed(self, event: OrderRemoved) -> None:
        blank(self)

    def _reach(self, status: str, at: str) -> None:
        self.status = status
        self.history.append(History(at, status))


def _line(order_id: int, number: int, item: CartItem, now: datetime) -> OrderItem:
    gross = money(item.unit_price * item.quantity)
    voucher = min(item.voucher, gross)
    return OrderItem(
        order_id, number, item.product_id, item.product_name, item.seller_id, item.unit_price, item.quantity,
        item.freight_value, gross, money(gross - voucher), voucher, (now + timedelta(days=3)).isoformat(),
    )  # fmt: skip


@order_service.reaction
def packed(event: ShipmentCreated) -> ChangeStatus:
    """What is packed is ready; it is delivered only after that is known (see the shipment service's depot)."""
    return ChangeStatus(event.customer_id, event.order_id, "READY_FOR_SHIPMENT")


bench_routes(
    order_service,
    reset=[Every(Order, RemoveOrder), Every(OrderNumbers, RestartNumbers)],
    cleanup=[Every(Order, RemoveOrder), Every(OrderNumbers, RestartNumbers)],
)
