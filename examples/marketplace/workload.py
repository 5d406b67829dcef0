"""What a driver does: which transaction comes next, on which products, with which values.

Shares and ranges are those of the benchmark's driver. A workload is drawn from one seed and knows nothing of HTTP.
"""

import bisect
import itertools
import random
from typing import Literal

from msgspec import Struct

Kind = Literal["CUSTOMER_SESSION", "QUERY_DASHBOARD", "PRICE_UPDATE", "UPDATE_PRODUCT", "UPDATE_DELIVERY"]
KINDS: tuple[Kind, ...] = (
    "CUSTOMER_SESSION", "QUERY_DASHBOARD", "PRICE_UPDATE", "UPDATE_PRODUCT", "UPDATE_DELIVERY",
)  # fmt: skip
PAYMENTS = ("CREDIT_CARD", "DEBIT_CARD", "BOLETO")


class Mix(Struct, frozen=True):
    """The parameters of a workload."""

    upto: tuple[int, int, int, int, int] = (30, 35, 38, 40, 100)
    """Cumulative, in the order of KINDS: x is drawn from 0 to 100, and the first with x <= value is taken."""
    items_min: int = 1
    items_max: int = 10
    quantity_max: int = 10
    checkout_percent: int = 100
    voucher_percent: int = 5
    adjust_percent_max: int = 10
    """New prices are 1 % to this much (excluded) higher."""
    seller_zipf: float = 0.0
    """Constant of the Zipf distribution that draws sellers; 0 draws uniformly."""
    product_zipf: float = 0.0


class Ranks:
    """Numbers from 1 to n, uniform or by Zipf's law."""

    def __init__(self, count: int, constant: float, rng: random.Random) -> None:
        self._count, self._rng = count, rng
        weights = (1 / rank**constant for rank in range(1, count + 1)) if constant else ()
        self._upto = list(itertools.accumulate(weights))

    def draw(self) -> int:
        """A number."""
        if not self._upto:
            return self._rng.randint(1, self._count)
        return bisect.bisect_left(self._upto, self._rng.random() * self._upto[-1]) + 1


class Workload:
    """Draws what comes next."""

    def __init__(self, mix: Mix, sellers: int, products_per_seller: int, rng: random.Random) -> None:
        self.mix, self.rng = mix, rng
        self._sellers = Ranks(sellers, mix.seller_zipf, rng)
        self._products = Ranks(products_per_seller, mix.product_zipf, rng)
        self._count = sellers * products_per_seller

    def kind(self) -> Kind:
        """The next transaction."""
        x = self.rng.randint(0, 100)
        return next(kind for kind, upto in zip(KINDS, self.mix.upto, strict=True) if x <= upto)

    def product(self) -> tuple[int, int]:
        """(seller, product)."""
        return self._sellers.draw(), self._products.draw()

    def seller(self) -> int:
        """A seller."""
        return self._sellers.draw()

    def cart(self) -> list[tuple[int, int]]:
        """The distinct products of a session."""
        wanted = min(self.rng.randint(self.mix.items_min, self.mix.items_max), self._count)
        found: dict[tuple[int, int], None] = {}
        while len(found) < wanted:
            found[self.product()] = None
        return list(found)

    def quantity(self) -> int:
        """Units of one line."""
        return self.rng.randint(1, self.mix.quantity_max)

    def voucher(self, price: float) -> float:
        """What a line's voucher takes off; mostly nothing."""
        return round(price * 0.1, 2) if self.rng.randint(1, 100) <= self.mix.voucher_percent else 0.0

    def checks_out(self) -> bool:
        """Whether a session ends with a checkout; else the cart is sealed."""
        return self.rng.randint(1, 100) <= self.mix.checkout_percent

    def adjusted(self, price: float) -> float:
        """A new price."""
        return round(price * (1 + self.rng.randrange(1, self.mix.adjust_percent_max) / 100), 2)

    def payment(self) -> tuple[str, int]:
        """(payment type, installments)."""
        kind = self.rng.choice(PAYMENTS)
        return kind, self.rng.randint(1, 10) if kind == "CREDIT_CARD" else 0
