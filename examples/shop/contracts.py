"""What the four services of the shop may say to each other; nothing else is shared."""

from msgspec import Struct

from holdfast import Command, Contract, Event, Sensitive

stock = Contract("stock")
payment = Contract("payment")
shipping = Contract("shipping")
order = Contract("order")


@stock.event
class Restocked(Event):
    sku: str
    quantity: int


@stock.event
class Reserved(Event):
    sku: str
    order_id: str
    quantity: int


@stock.event
class Released(Event):
    sku: str
    order_id: str
    quantity: int


@stock.command(key="sku")
class Restock(Command[Restocked]):
    """Put units of one product on the shelf."""

    sku: str
    quantity: int


@stock.command(key="sku")
class Reserve(Command[Reserved]):
    """Hold units of one product for an order."""

    sku: str
    order_id: str
    quantity: int


@stock.command(key="sku")
class Release(Command[Released]):
    """Put the units held for an order back."""

    sku: str
    order_id: str


@payment.event
class Charged(Event):
    order_id: str
    amount_cents: int


@payment.event
class ChargeFailed(Event):
    order_id: str
    amount_cents: int
    reason: str


@payment.event
class Refunded(Event):
    order_id: str
    amount_cents: int


@payment.command(key="order_id")
class Charge(Command[Charged]):
    """Charge the customer's card for one order."""

    order_id: str
    amount_cents: int
    card_number: Sensitive[str]


@payment.command(key="order_id")
class Refund(Command[Refunded]):
    """Give back what was charged for one order."""

    order_id: str


@shipping.event
class Shipped(Event):
    order_id: str
    parcels: int


@shipping.command(key="order_id")
class Ship(Command[Shipped]):
    """Send the goods of one order."""

    order_id: str
    parcels: int


class Item(Struct, frozen=True):
    """One line of an order: a value inside messages."""

    sku: str
    quantity: int
    price_cents: int


@order.event
class Placed(Event):
    order_id: str
    customer_id: str
    items: tuple[Item, ...]


@order.event
class Confirmed(Event):
    order_id: str
    amount_cents: int


@order.event
class Cancelled(Event):
    order_id: str


@order.event
class CheckedOut(Event):
    order_id: str
    amount_cents: int


@order.command(key="order_id")
class Place(Command[Placed]):
    """Enter an order."""

    order_id: str
    customer_id: str
    items: tuple[Item, ...]


@order.command(key="order_id")
class Confirm(Command[Confirmed]):
    """The order is paid and will be shipped."""

    order_id: str
    amount_cents: int


@order.command(key="order_id")
class Cancel(Command[Cancelled]):
    """The order is off."""

    order_id: str


@order.command(key="order_id")
class Checkout(Command[CheckedOut]):
    """Buy: reserve every item, charge, confirm, ship; all of it or none."""

    order_id: str
    customer_id: str
    items: tuple[Item, ...]
    card_number: Sensitive[str] = "4111111111111111"
