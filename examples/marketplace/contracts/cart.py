"""Cart: what customers are about to buy, and the checkout."""

from holdfast import Command, Contract, Event
from marketplace.contracts.values import Buyer, CartItem

cart = Contract("cart")


@cart.event
class ItemAdded(Event):
    customer_id: int
    item: CartItem


@cart.event
class CartSealed(Event):
    customer_id: int


@cart.event
class CartTaken(Event):
    """The cart was emptied for a checkout."""

    customer_id: int
    tid: str
    items: tuple[CartItem, ...]


@cart.event
class Replicated(Event):
    """What this service knows of a product now; of one that was removed nothing, whatever stands beside it."""

    shelf: int
    seller_id: int
    product_id: int
    price: float
    version: str
    removed: bool = False


@cart.event
class Quoted(Event):
    """Lines of a cart, with the prices that this service knows.

    `kept` are those, by their place, that are of another version than it knows: they stand as the customer saw them.
    """

    shelf: int
    customer_id: int
    tid: str
    items: tuple[CartItem, ...]
    kept: tuple[int, ...] = ()


@cart.event
class CheckedOut(Event):
    """The checkout has ended well: paid, and handed to shipment."""

    customer_id: int
    order_id: int
    invoice_number: str
    total_invoice: float
    tid: str


@cart.command(key="customer_id")
class AddItem(Command[ItemAdded]):
    """Put one product into a cart."""

    customer_id: int
    item: CartItem


@cart.command(key="customer_id")
class Seal(Command[CartSealed]):
    """Leave without buying: the cart is emptied."""

    customer_id: int


@cart.command(key="customer_id")
class TakeCart(Command[CartTaken]):
    """Empty the cart for a checkout."""

    customer_id: int
    tid: str


@cart.command(key="shelf")
class Replicate(Command[Replicated]):
    """Take over a product, or its new price where `version` is the one that is known."""

    shelf: int
    seller_id: int
    product_id: int
    price: float
    version: str
    only_price: bool = False
    removed: bool = False


@cart.command(key="shelf")
class Quote(Command[Quoted]):
    """Bring lines up to the prices that are known: all of a cart whose sellers are on that shelf."""

    shelf: int
    customer_id: int
    tid: str
    items: tuple[CartItem, ...]


@cart.command(key="customer_id")
class Checkout(Command[CheckedOut]):
    """Buy what is in the cart: all that is in stock, or nothing at all."""

    customer_id: int
    tid: str
    buyer: Buyer
