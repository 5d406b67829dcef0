"""Seller: who sells, and what their dashboard shows."""

from msgspec import Struct

from holdfast import Command, Contract, Event
from marketplace.contracts.values import SellerRow

seller = Contract("seller")


class Arrival(Struct, frozen=True):
    """One parcel of a seller that has arrived (the benchmark's DeliveryNotification)."""

    customer_id: int
    order_id: int
    package_id: int
    seller_id: int
    product_id: int
    product_name: str
    delivery_date: str
    concluded: bool
    """It was among the last of its order."""
    status: str = "delivered"


@seller.event
class SellerAdded(Event):
    seller: SellerRow


@seller.event
class SellerRemoved(Event):
    id: int


@seller.event
class ParcelsArrived(Event):
    """All parcels of one delivery update, of whichever sellers."""

    tid: str
    arrivals: tuple[Arrival, ...]


@seller.command(key="tid")
class NoteArrivals(Command[ParcelsArrived]):
    """Parcels have arrived: their sellers' entries say so."""

    tid: str
    arrivals: tuple[Arrival, ...]


@seller.command(key="id")
class RemoveSeller(Command[SellerRemoved]):
    """The seller is as if never entered."""

    id: int


@seller.command(key="id")
class AddSeller(Command[SellerAdded]):
    """Enter a seller."""

    id: int
    seller: SellerRow
