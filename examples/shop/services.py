"""The shop's services. Each could live in a repository of its own: they share contracts, nothing else.

No handler guards itself against a message that comes twice: that is what holdfast is there for.
"""

from holdfast import Command, Query, Rejected, Service, System, answer, decide, evolve, pivot, step, undo
from shop.contracts import (
    Cancel,
    Cancelled,
    Charge,
    Charged,
    ChargeFailed,
    CheckedOut,
    Checkout,
    Confirm,
    Confirmed,
    Place,
    Placed,
    Refund,
    Refunded,
    Release,
    Released,
    Reserve,
    Reserved,
    Restock,
    Restocked,
    Ship,
    Shipped,
    order,
    payment,
    shipping,
    stock,
)

stock_service = Service(stock, owner="team-warehouse")
payment_service = Service(payment, owner="team-money")
shipping_service = Service(shipping, owner="team-warehouse")
order_service = Service(order, owner="team-shop")


@stock_service.aggregate
class StockItem:
    on_hand: int = 0
    held: dict[str, int] = {}

    @decide(creates=True)
    def restock(self, command: Restock) -> Restocked:
        if command.quantity <= 0:
            raise Rejected("not_positive", "a restock adds at least one unit")
        return Restocked(command.sku, command.quantity)

    @decide
    def reserve(self, command: Reserve) -> Reserved:
        if not 0 < command.quantity <= self.on_hand:
            raise Rejected("out_of_stock", "not that many on hand", available=self.on_hand)
        return Reserved(command.sku, command.order_id, command.quantity)

    @decide
    def release(self, command: Release) -> Released:
        if command.order_id not in self.held:
            raise Rejected("not_reserved", f"order {command.order_id} holds nothing of it")
        return Released(command.sku, command.order_id, self.held[command.order_id])

    @evolve
    def restocked(self, event: Restocked) -> None:
        self.on_hand += event.quantity

    @evolve
    def reserved(self, event: Reserved) -> None:
        self.on_hand -= event.quantity
        self.held[event.order_id] = self.held.get(event.order_id, 0) + event.quantity

    @evolve
    def released(self, event: Released) -> None:
        self.on_hand += event.quantity
        del self.held[event.order_id]


@payment_service.aggregate
class Payment:
    charged_cents: int = 0
    refunded: bool = False

    @decide(creates=True)
    def charge(self, command: Charge) -> Charged:
        if command.card_number.endswith("0002"):  # the number that card companies give out for a refused card
            failed = ChargeFailed(command.order_id, command.amount_cents, "declined")
            raise Rejected("declined", "the card was declined", events=[failed])
        return Charged(command.order_id, command.amount_cents)

    @decide
    def refund(self, command: Refund) -> Refunded:
        if not self.charged_cents or self.refunded:
            raise Rejected("nothing_to_refund", f"order {command.order_id} has nothing to give back")
        return Refunded(command.order_id, self.charged_cents)

    @evolve
    def charged(self, event: Charged) -> None:
        self.charged_cents += event.amount_cents

    @evolve
    def given_back(self, event: Refunded) -> None:
        self.refunded = True


@shipping_service.aggregate
class Shipment:
    parcels: int = 0

    @decide(creates=True)
    def ship(self, command: Ship) -> Shipped:
        return Shipped(command.order_id, command.parcels)

    @evolve
    def shipped(self, event: Shipped) -> None:
        self.parcels += event.parcels


@order_service.aggregate
class Order:
    status: str = "new"

    @decide(creates=True)
    def place(self, command: Place) -> Placed:
        if self.status != "new":
            raise Rejected("placed_already", f"order {command.order_id} is {self.status}")
        if not command.items:
            raise Rejected("empty", "an order has at least one item")
        return Placed(command.order_id, command.customer_id, command.items)

    @decide
    def confirm(self, command: Confirm) -> Confirmed:
        if self.status != "placed":
            raise Rejected("not_open", f"order {command.order_id} is {self.status}")
        return Confirmed(command.order_id, command.amount_cents)

    @decide
    def cancel(self, command: Cancel) -> Cancelled:
        if self.status != "placed":
            raise Rejected("not_open", f"order {command.order_id} is {self.status}")
        return Cancelled(command.order_id)

    @evolve
    def placed(self, event: Placed) -> None:
        self.status = "placed"

    @evolve
    def confirmed(self, event: Confirmed) -> None:
        self.status = "confirmed"

    @evolve
    def cancelled(self, event: Cancelled) -> None:
        self.status = "cancelled"


@order_service.saga
class CheckoutSaga:
    checkout: Checkout

    @step
    def place(self) -> Place:
        return Place(self.checkout.order_id, self.checkout.customer_id, self.checkout.items)

    @undo(place)
    def cancel(self, placed: Placed) -> Cancel:
        return Cancel(placed.order_id)

    @step
    def reserve(self) -> list[Reserve]:
        return [Reserve(item.sku, self.checkout.order_id, item.quantity) for item in self.checkout.items]

    @undo(reserve)
    def release(self, reserved: Reserved) -> Release:
        return Release(reserved.sku, reserved.order_id)

    @step(deadline_seconds=30)
    def charge(self, reserve: list[Reserved]) -> Charge:
        amount = sum(item.quantity * item.price_cents for item in self.checkout.items)
        return Charge(self.checkout.order_id, amount, self.checkout.card_number)

    @undo(charge)
    def refund(self, charged: Charged) -> Refund:
        return Refund(charged.order_id)

    @pivot
    def confirm(self, charge: Charged) -> Confirm:
        return Confirm(self.checkout.order_id, charge.amount_cents)

    @step
    def ship(self) -> Ship:
        return Ship(self.checkout.order_id, len(self.checkout.items))

    @answer
    def done(self, confirm: Confirmed) -> CheckedOut:
        return CheckedOut(self.checkout.order_id, confirm.amount_cents)


@order_service.view
class OrderPage:
    """What a customer sees of one order. Shipping has a log of its own: what it says may come before the rest."""

    status: str = ""
    amount_cents: int = 0
    parcels: int = 0

    @evolve(key=lambda event: event.order_id)
    def placed(self, event: Placed) -> None:
        self.status = self.status or "placed"

    @evolve(key=lambda event: event.order_id)
    def confirmed(self, event: Confirmed) -> None:
        self.status, self.amount_cents = "shipped" if self.parcels else "confirmed", event.amount_cents

    @evolve(key=lambda event: event.order_id)
    def cancelled(self, event: Cancelled) -> None:
        self.status = "cancelled"

    @evolve(key=lambda event: event.order_id)
    def shipped(self, event: Shipped) -> None:
        self.status, self.parcels = "shipped", event.parcels


@order_service.post("/orders/{order_id}/checkout")
def checkout(order_id: str, body: Checkout) -> Command[CheckedOut]:
    if body.order_id != order_id:
        raise Rejected("other_order", "the order in the path and the one in the body differ")
    return body


@order_service.get("/orders/{order_id}")
def order_page(order_id: str):
    return Query(OrderPage, order_id)


shop = System([order_service, stock_service, payment_service, shipping_service], name="shop")
