"""Order: orders, their invoices, and what has become of them."""

from holdfast import Command, Contract, Event
from marketplace.contracts.values import Buyer, CartItem, OrderItem

order = Contract("order")


@order.event
class OrderNumbered(Event):
    customer_id: int
    order_id: int


@order.event
class InvoiceIssued(Event):
    customer_id: int
    order_id: int
    tid: str
    invoice_number: str
    issue_date: str
    total_amount: float
    total_freight: float
    total_incentive: float
    total_invoice: float
    total_items: float
    items: tuple[OrderItem, ...]


@order.event
class OrderStatusChanged(Event):
    """Each status once and in order; `sellers` are those with a line in the order."""

    customer_id: int
    order_id: int
    status: str
    at: str
    sellers: tuple[int, ...]


@order.event
class NumbersRestarted(Event):
    """The next order of the customer is the first again."""

    customer_id: int


@order.event
class OrderRemoved(Event):
    customer_id: int
    order_id: int
    sellers: tuple[int, ...]


@order.command(key="customer_id")
class RestartNumbers(Command[NumbersRestarted]):
    """Number the customer's orders from 1 again."""

    customer_id: int


@order.command(key=("customer_id", "order_id"))
class RemoveOrder(Command[OrderRemoved]):
    """The order is as if it had never been."""

    customer_id: int
    order_id: int


@order.command(key="customer_id")
class NumberOrder(Command[OrderNumbered]):
    """The customer's next order number."""

    customer_id: int


@order.command(key=("customer_id", "order_id"))
class IssueInvoice(Command[InvoiceIssued]):
    """Enter an order of what could be reserved."""

    customer_id: int
    order_id: int
    tid: str
    buyer: Buyer
    items: tuple[CartItem, ...]


@order.command(key=("customer_id", "order_id"))
class Advance(Command[OrderStatusChanged]):
    """An order has come through these, one after the other."""

    customer_id: int
    order_id: int
    statuses: tuple[str, ...]


@order.command(key=("customer_id", "order_id"))
class ChangeStatus(Command[OrderStatusChanged]):
    """An order has come further."""

    customer_id: int
    order_id: int
    status: str
