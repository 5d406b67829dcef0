"""Seller: who sells, and what their dashboard shows."""

from holdfast import Command, Contract, Event
from marketplace.contracts.values import SellerRow

seller = Contract("seller")


@seller.event
class SellerAdded(Event):
    seller: SellerRow


@seller.command(key="id")
class AddSeller(Command[SellerAdded]):
    """Enter a seller."""

    id: int
    seller: SellerRow
