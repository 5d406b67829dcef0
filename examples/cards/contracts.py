"""What the two services may say to each other: `order` sells seats, `wallet` charges cards."""

from holdfast import Command, Contract, Event, Sensitive

wallet = Contract("wallet")
order = Contract("order")


@wallet.event
class Charged(Event):
    order_id: str
    amount_cents: int
    charge: str
    """What the provider calls it."""


@wallet.event
class Refunded(Event):
    order_id: str
    amount_cents: int


@wallet.command(key="order_id")
class Charge(Command[Charged]):
    """Charge a card for one order."""

    order_id: str
    amount_cents: int
    card: Sensitive[str]


@wallet.command(key="order_id")
class Refund(Command[Refunded]):
    """Give back what was charged for one order."""

    order_id: str
    amount_cents: int
    charge: str


@order.event
class Reserved(Event):
    seat: str
    order_id: str


@order.event
class Released(Event):
    seat: str
    order_id: str


@order.event
class Sold(Event):
    seat: str
    order_id: str


@order.event
class Bought(Event):
    order_id: str
    seat: str
    amount_cents: int


@order.command(key="seat")
class Reserve(Command[Reserved]):
    """Hold a seat for an order."""

    seat: str
    order_id: str


@order.command(key="seat")
class Release(Command[Released]):
    """Let go of a seat."""

    seat: str
    order_id: str


@order.command(key="seat")
class Sell(Command[Sold]):
    """The seat is the order's, for good."""

    seat: str
    order_id: str


@order.command(key="order_id")
class Buy(Command[Bought]):
    """Buy one seat: reserve it, charge, sell; all of it or none."""

    order_id: str
    seat: str
    amount_cents: int
    card: Sensitive[str]
