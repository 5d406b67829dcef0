"""The data a run begins with: sellers, customers, products and their stock, drawn from one seed.

Distributions are those of the benchmark's own generator. Nothing here knows how the rows get into the services.
"""

import random
import string
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

FIRST = ("Ana", "Bruno", "Carla", "Davi", "Elisa", "Fabio", "Gabi", "Hugo", "Iris", "Joao", "Luiza", "Marcos")
LAST = ("Almeida", "Barros", "Cardoso", "Dias", "Esteves", "Farias", "Gomes", "Lima", "Moraes", "Nunes", "Rocha")
CITIES = (("Sao Paulo", "SP"), ("Recife", "PE"), ("Curitiba", "PR"), ("Salvador", "BA"), ("Manaus", "AM"))
CATEGORIES = ("books", "garden", "kitchen", "music", "sports", "toys")
BRANDS = ("VISA", "AMERICAN_EXPRESS", "MASTER_CARD")


class Size(Struct, frozen=True):
    """How much there is."""

    customers: int = 1000
    products: int = 1000
    products_per_seller: int = 10
    units_per_product: int = 10_000
    declined: float = 0.0
    """Share of customers whose card is refused."""

    @property
    def sellers(self) -> int:
        """How many sellers there are."""
        return max(1, self.products // self.products_per_seller)


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def _place(rng: random.Random) -> dict[str, Any]:
    city, state = rng.choice(CITIES)
    return {
        "address": f"Rua {rng.choice(LAST)} {rng.randint(1, 999)}", "complement": f"ap {rng.randint(1, 99)}",
        "city": city, "state": state, "zip_code": _digits(rng, 8),
    }  # fmt: skip


def sellers(size: Size, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Every seller's row."""
    for number in range(1, size.sellers + 1):
        name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
        yield {
            "id": number, "name": name, "company_name": f"{name} Ltda", "email": f"seller{number}@example.com",
            "phone": _digits(rng, 10), "mobile_phone": _digits(rng, 11), "cpf": _digits(rng, 11),
            "cnpj": _digits(rng, 14), **_place(rng),
        }  # fmt: skip


def customers(size: Size, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Every customer's row, the card's security number with it: services do not keep that."""
    for number in range(1, size.customers + 1):
        first, last = rng.choice(FIRST), rng.choice(LAST)
        holder = f"{first} {last}" if rng.random() < 0.7 else f"{rng.choice(FIRST)} {rng.choice(LAST)}"
        card = _digits(rng, 12) + ("0002" if rng.random() < size.declined else _digits(rng, 3) + "1")
        yield {
            "id": number, "first_name": first, "last_name": last, "birth_date": f"19{rng.randint(50, 99)}-01-01",
            **_place(rng), "card_number": card, "card_security_number": _digits(rng, 3),
            "card_expiration": f"{rng.randint(1, 12):02}30", "card_holder_name": holder,
            "card_type": rng.choice(BRANDS), "data": "",
        }  # fmt: skip


def products(size: Size, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Every product's row: each seller has products 1 to `products_per_seller`."""
    for seller_id in range(1, size.sellers + 1):
        for product_id in range(1, size.products_per_seller + 1):
            yield {
                "seller_id": seller_id, "product_id": product_id, "name": f"Product {seller_id}-{product_id}",
                "sku": "".join(rng.choices(string.ascii_uppercase + string.digits, k=16)),
                "category": rng.choice(CATEGORIES), "description": "as good as it looks",
                "price": rng.randint(0, 9999) / 100, "freight_value": rng.randint(0, 999) / 100,
                "status": "approved", "version": "0",
            }  # fmt: skip


def stock_of(product: dict[str, Any], size: Size, rng: random.Random) -> dict[str, Any]:
    """The stock row of a product."""
    return {
        "seller_id": product["seller_id"], "product_id": product["product_id"],
        "qty_available": size.units_per_product, "qty_reserved": 0, "order_count": 0, "ytd": rng.randint(10, 99),
        "data": "", "version": "0",
    }  # fmt: skip
