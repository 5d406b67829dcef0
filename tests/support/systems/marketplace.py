"""What is entered into the marketplace of examples/ before a test of it, and a customer who buys there."""

from holdfast.testing import VirtualSystem
from marketplace.contracts.cart import AddItem, Checkout
from marketplace.contracts.customer import AddCustomer
from marketplace.contracts.product import AddProduct
from marketplace.contracts.seller import AddSeller
from marketplace.contracts.stock import AddStock
from marketplace.contracts.values import Buyer, CartItem, CustomerRow, ProductRow, SellerRow


def row(seller: int, number: int, version: str = "0") -> ProductRow:
    """A product."""
    return ProductRow(seller, number, f"p{number}", "s", "c", "d", 10.0, 1.5, version=version)


async def enter(virtual: VirtualSystem, sellers: int, customers: int) -> None:
    """Sellers with two products each, and customers."""
    for seller in range(1, sellers + 1):
        await virtual.ask(AddSeller(seller, SellerRow(seller)))
        for number in (1, 2):
            await virtual.ask(AddProduct(seller, number, row(seller, number)))
            await virtual.ask(AddStock(seller, number, 20))
    for customer in range(1, customers + 1):
        await virtual.ask(AddCustomer(customer, CustomerRow(customer, "a", "b")))


async def buys(virtual: VirtualSystem, tid: str, customer: int, *lines: tuple[int, int, int], card: str = "1") -> None:
    """A customer buys: (seller, product, units) of each line."""
    for seller, number, units in lines:
        item = CartItem(seller, number, f"p{number}", 10.0, 1.5, units, 2.0, "0")
        await virtual.ask(AddItem(customer, item), f"{tid}/{seller}/{number}")
    buyer = Buyer(customer, "a", "b", "s", "", "c", "x", "1", "CREDIT_CARD", card, "", "", "", 1)
    await virtual.ask(Checkout(customer, tid, buyer), tid)
