"""The cart service: carts, the prices it knows of, and the checkout across all services.

Product prices come by feed and are kept by shelf (so many sellers), in the order of the product service's log: a quote
is one decision on one state, so it never shows a later price of a seller beside a missing earlier one (causal
replication).
"""

from collections.abc import Sequence

import msgspec

from holdfast import (
    Every,
    Keyed,
    Query,
    Rejected,
    Rejection,
    Service,
    answer,
    decide,
    evolve,
    pivot,
    step,
    undo,
)
from marketplace.bench import bench_routes
from marketplace.contracts.cart import (
    AddItem,
    CartSealed,
    CartTaken,
    CheckedOut,
    Checkout,
    ItemAdded,
    Quote,
    Quoted,
    Replicate,
    Replicated,
    Seal,
    TakeCart,
    cart,
)
from marketplace.contracts.order import ChangeStatus, InvoiceIssued, IssueInvoice, NumberOrder, OrderNumbered
from marketplace.contracts.payment import Pay, PaymentConfirmed
from marketplace.contracts.product import PriceUpdated, ProductAdded, ProductRemoved, ProductReplaced
from marketplace.contracts.shipment import Ship, ShipmentCreated
from marketplace.contracts.stock import Release, Reserve, Reserved
from marketplace.contracts.values import Buyer, CartItem

cart_service = Service(cart, owner="team-shop")
SHELF_SELLERS = 1000
"""Sellers whose prices are kept together: few quotes for a cart, and no state grows without bound."""


@cart_service.aggregate
class Cart:
    customer_id: int = 0
    status: str = "OPEN"
    items: list[CartItem] = []

    @decide(creates=True)
    def add(self, command: AddItem) -> ItemAdded:
        if command.item.quantity <= 0:
            raise Rejected("not_positive", "a line has at least one unit")
        return ItemAdded(command.customer_id, command.item)

    @decide(creates=True)
    def seal(self, command: Seal) -> CartSealed:
        return CartSealed(command.customer_id)

    @decide(creates=True)
    def take(self, command: TakeCart) -> CartTaken:
        if not self.items:
            raise Rejected("empty_cart", f"customer {command.customer_id} has nothing in the cart")
        return CartTaken(command.customer_id, command.tid, tuple(self.items))

    @evolve
    def added(self, event: ItemAdded) -> None:
        self.customer_id = event.customer_id
        self.items.append(event.item)

    @evolve
    def sealed(self, event: CartSealed) -> None:
        self.items = []

    @evolve
    def taken(self, event: CartTaken) -> None:
        self.items = []


class Known(msgspec.Struct):
    """A product as this service knows it."""

    price: float
    version: str


@cart_service.aggregate
class Replica:
    """The products of one shelf, by seller and product."""

    products: dict[str, Known] = {}

    @decide(creates=True)
    def replicate(self, command: Replicate) -> Replicated:
        known = self.products.get(f"{command.seller_id}/{command.product_id}")
        price, version = command.price, command.version
        if command.only_price and known is not None and known.version != version:
            price, version = known.price, known.version
        return Replicated(command.shelf, command.seller_id, command.product_id, price, version, command.removed)

    @decide(creates=True)
    def quote(self, command: Quote) -> Quoted:
        items, kept = list(command.items), list[int]()
        for place, item in enumerate(items):
            known = self.products.get(f"{item.seller_id}/{item.product_id}")
            if known is None or known.version != item.version:
                kept.append(place)  # stock decides
            elif known.price != item.unit_price:
                items[place] = msgspec.structs.replace(item, unit_price=known.price)
        return Quoted(command.shelf, command.customer_id, command.tid, tuple(items), tuple(kept))

    @evolve
    def replicated(self, event: Replicated) -> None:
        key = f"{event.seller_id}/{event.product_id}"
        if event.removed:
            self.products.pop(key, None)
        else:
            self.products[key] = Known(event.price, event.version)


@cart_service.reaction
def replicate(event: ProductAdded | ProductReplaced | PriceUpdated | ProductRemoved) -> Replicate | None:
    """Products and prices in the order of the product service's log."""
    if isinstance(event, ProductRemoved):
        return Replicate(event.seller_id // SHELF_SELLERS, event.seller_id, event.product_id, 0.0, "", removed=True)
    if not isinstance(event, PriceUpdated):
        row = event.product
        return Replicate(row.seller_id // SHELF_SELLERS, row.seller_id, row.product_id, row.price, row.version)
    if not event.applied:
        return None
    return Replicate(
        event.seller_id // SHELF_SELLERS, event.seller_id, event.product_id, event.price, event.version, only_price=True
    )


@cart_service.saga
class CheckoutSaga:
    checkout: Checkout

    @step
    def take(self) -> TakeCart:
        return TakeCart(self.checkout.customer_id, self.checkout.tid)

    @step
    def quote(self, take: CartTaken) -> list[Quote]:
        lines: dict[int, list[CartItem]] = {}
        for item in take.items:
            lines.setdefault(item.seller_id // SHELF_SELLERS, []).append(item)
        return [
            Quote(shelf, self.checkout.customer_id, self.checkout.tid, tuple(items)) for shelf, items in lines.items()
        ]

    @step(partial=True)
    def reserve(self, quote: list[Quoted]) -> list[Reserve]:
        return [Reserve(item.seller_id, item.product_id, item.quantity, item.version) for item in lines_of(quote)]

    @undo(reserve)
    def release(self, reserved: Reserved) -> Release:
        return Release(reserved.seller_id, reserved.product_id, reserved.quantity)

    @step
    def number(self, reserve: list[Reserved | Rejection]) -> NumberOrder:
        if not any(isinstance(found, Reserved) for found in reserve):
            raise Rejected("not_accepted", "nothing of the cart could be reserved", source="stock")
        return NumberOrder(self.checkout.customer_id)

    @step
    def invoice(self, quote: list[Quoted], reserve: list[Reserved | Rejection], number: OrderNumbered) -> IssueInvoice:
        kept = [item for item, found in zip(lines_of(quote), reserve, strict=True) if isinstance(found, Reserved)]
        return IssueInvoice(
            self.checkout.customer_id, number.order_id, self.checkout.tid, self.checkout.buyer, tuple(kept)
        )

    @undo(invoice)
    def fail_order(self, issued: InvoiceIssued) -> ChangeStatus:
        return ChangeStatus(issued.customer_id, issued.order_id, "PAYMENT_FAILED")

    @pivot
    def pay(self, invoice: InvoiceIssued) -> Pay:
        return Pay(
            invoice.customer_id, invoice.order_id, invoice.invoice_number, invoice.total_invoice, invoice.items,
            self.checkout.buyer,
        )  # fmt: skip

    @step
    def paid(self, pay: PaymentConfirmed) -> ChangeStatus:
        return ChangeStatus(pay.customer_id, pay.order_id, "PAYMENT_PROCESSED")

    @step
    def ship(self, invoice: InvoiceIssued) -> Ship:
        return Ship(invoice.customer_id, invoice.order_id, self.checkout.buyer, invoice.items)

    @answer
    def done(self, invoice: InvoiceIssued, ship: ShipmentCreated) -> CheckedOut:
        return CheckedOut(
            ship.customer_id, ship.order_id, invoice.invoice_number, invoice.total_invoice, self.checkout.tid
        )


def lines_of(quotes: Sequence[Quoted]) -> list[CartItem]:
    """All lines, in the order in which they were quoted."""
    return [item for quoted in quotes for item in quoted.items]


@cart_service.view
class Taken:
    """What was in a cart at a checkout, with the prices that were charged."""

    items: list[CartItem] = []

    @evolve(key=lambda event: (event.customer_id, event.tid))
    def quoted(self, event: Quoted) -> None:
        self.items.extend(event.items)


class ItemBody(msgspec.Struct, rename="pascal"):
    """A line as drivers send it."""

    seller_id: int
    product_id: int
    product_name: str
    unit_price: float
    freight_value: float
    quantity: int
    voucher: float = 0.0
    version: str = "0"


class CheckoutBody(msgspec.Struct, rename="pascal"):
    """A checkout as drivers send it. The card's security number is not even read."""

    customer_id: int
    first_name: str
    last_name: str
    street: str
    complement: str
    city: str
    state: str
    zip_code: str
    payment_type: str
    card_number: str = ""
    card_holder_name: str = ""
    card_expiration: str = ""
    card_brand: str = ""
    installments: int = 0
    tid: str = msgspec.field(name="instanceId", default="")


@cart_service.patch("/cart/{customer_id}/add")
def add_item(customer_id: int, body: ItemBody) -> AddItem:
    """Put a line into a cart."""
    return AddItem(customer_id, CartItem(**msgspec.structs.asdict(body)))


@cart_service.put("/cart/{customer_id}/add")
def put_item(customer_id: int, body: ItemBody) -> AddItem:
    """Put a line into a cart."""
    return add_item(customer_id, body)


@cart_service.patch("/cart/{customer_id}/seal")
def seal(customer_id: int) -> Seal:
    """Leave without buying."""
    return Seal(customer_id)


@cart_service.post("/cart/{customer_id}/seal")
def post_seal(customer_id: int) -> Seal:
    """Leave without buying."""
    return Seal(customer_id)


@cart_service.post("/cart/{customer_id}/checkout")
def checkout(customer_id: int, body: CheckoutBody):
    """Buy what is in the cart; `instanceId` is the idempotency key."""
    if body.customer_id != customer_id:
        raise Rejected("other_customer", "the customer in the path and the one in the body differ")
    fields = msgspec.structs.asdict(body)
    tid = fields.pop("tid")
    return Keyed(Checkout(customer_id, tid, Buyer(**fields)), tid)


@cart_service.get("/cart/{customer_id}/history/{tid}")
def history(customer_id: int, tid: str):
    """What was in the cart at a checkout."""
    return Query(Taken, customer_id, tid, shape=lambda row: [shown(item) for item in row["items"]])


def shown(item: dict[str, object]) -> dict[str, object]:
    """A line with the names that drivers use."""
    return {"".join(part.capitalize() for part in name.split("_")): value for name, value in item.items()}


bench_routes(cart_service, reset=[Every(Cart, Seal)], cleanup=[Every(Cart, Seal)])  # prices follow the products
