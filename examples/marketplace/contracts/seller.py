"""Seller: who sells, and what their dashboard shows."""

from holdfast import Command, Contract, Event
from marketplace.contracts.values import SellerRow

seller = Contract("seller")


@seller.event
class SellerAdded(Event):
    seller: SellerRow


@seller.event
class SellerRemoved(Event):
    id: int


@seller.command(key="id")
class RemoveSeller(Command[SellerRemoved]):
    """The seller is as if never entered."""

    id: int


@seller.command(key="id")
class AddSeller(Command[SellerAdded]):
    """Enter a seller."""

    id: int
    seller: SellerRow
