"""Values inside messages of several services, and the arithmetic of money.

Money is what the benchmark's drivers send: a JSON number with two decimals. Every sum is rounded to cents at once, so
that no service and no audit ever differs in the last bit.
"""

from collections.abc import Iterable

from msgspec import Struct

from holdfast import Sensitive


class CartItem(Struct, frozen=True):
    """A line of a cart. `version`: of the product, as the customer saw it."""

    seller_id: int
    product_id: int
    product_name: str
    unit_price: float
    freight_value: float
    quantity: int
    voucher: float
    version: str


class Buyer(Struct, frozen=True):
    """Who checks out, where it goes, and how it is paid. The card's security number is nowhere: it is never stored."""

    customer_id: int
    first_name: str
    last_name: str
    street: str
    complement: str
    city: str
    state: str
    zip_code: str
    payment_type: str
    card_number: Sensitive[str]
    card_holder_name: Sensitive[str]
    card_expiration: Sensitive[str]
    card_brand: str
    installments: int


class OrderItem(Struct, frozen=True):
    """A line of an order. Freight is per line, the voucher what it took off the line at the most."""

    order_id: int
    order_item_id: int
    product_id: int
    product_name: str
    seller_id: int
    unit_price: float
    quantity: int
    freight_value: float
    total_items: float
    total_amount: float
    voucher: float
    shipping_limit_date: str


class SellerRow(Struct, frozen=True):
    """A seller as it is entered; what else a driver sends is not read."""

    id: int
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


class CustomerRow(Struct, frozen=True):
    """A customer as it is entered; the card's security number, which drivers send, is not even read."""

    id: int
    first_name: str
    last_name: str
    address: str = ""
    complement: str = ""
    birth_date: Sensitive[str] = ""
    zip_code: str = ""
    city: str = ""
    state: str = ""
    card_number: Sensitive[str] = ""
    card_expiration: Sensitive[str] = ""
    card_holder_name: Sensitive[str] = ""
    card_type: str = ""
    data: str = ""


class ProductRow(Struct, frozen=True):
    """A product as its seller enters it."""

    seller_id: int
    product_id: int
    name: str
    sku: str
    category: str
    description: str
    price: float
    freight_value: float
    status: str = "approved"
    version: str = "0"


def money(value: float) -> float:
    """An amount, rounded to cents."""
    return round(value, 2)


def total(values: Iterable[float]) -> float:
    """A sum of amounts, rounded to cents."""
    return money(sum(values))
