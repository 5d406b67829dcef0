"""Shipment: parcels on their way."""

from msgspec import Struct

from holdfast import Command, Contract, Event
from marketplace.contracts.values import Buyer, OrderItem

shipment = Contract("shipment")


class Package(Struct, frozen=True):
    """One line of an order in its box."""

    package_id: int
    seller_id: int
    product_id: int
    product_name: str
    freight_value: float
    quantity: int
    shipping_date: str
    status: str = "shipped"
    delivery_date: str = ""


class Due(Struct, frozen=True):
    """Parcels of some sellers in one shipment."""

    customer_id: int
    order_id: int
    sellers: tuple[int, ...]


@shipment.event
class ShipmentCreated(Event):
    customer_id: int
    order_id: int
    request_date: str
    total_freight_value: float
    packages: tuple[Package, ...]


@shipment.event
class DeliveryStarted(Event):
    """The first parcel of a shipment was delivered."""

    customer_id: int
    order_id: int


@shipment.event
class PackagesDelivered(Event):
    customer_id: int
    order_id: int
    delivery_date: str
    packages: tuple[Package, ...]


@shipment.event
class DeliveryConcluded(Event):
    """All parcels of a shipment are delivered."""

    customer_id: int
    order_id: int
    at: str


@shipment.event
class Enrolled(Event):
    depot: str
    customer_id: int
    order_id: int
    sellers: tuple[int, ...]


@shipment.event
class OldestPicked(Event):
    depot: str
    due: tuple[Due, ...]


@shipment.event
class DeliveryUpdated(Event):
    tid: str
    packages: int


@shipment.event
class ShipmentRemoved(Event):
    customer_id: int
    order_id: int


@shipment.event
class DepotEmptied(Event):
    depot: str


@shipment.command(key=("customer_id", "order_id"))
class RemoveShipment(Command[ShipmentRemoved]):
    """The shipment is as if it had never been."""

    customer_id: int
    order_id: int


@shipment.command(key="depot")
class EmptyDepot(Command[DepotEmptied]):
    """Nothing waits for delivery any more."""

    depot: str


@shipment.command(key=("customer_id", "order_id"))
class Ship(Command[ShipmentCreated]):
    """Pack every line of a paid order."""

    customer_id: int
    order_id: int
    buyer: Buyer
    items: tuple[OrderItem, ...]


@shipment.command(key=("customer_id", "order_id"))
class Deliver(Command[PackagesDelivered]):
    """Parcels of these sellers have arrived."""

    customer_id: int
    order_id: int
    sellers: tuple[int, ...]


@shipment.command(key="depot")
class Enroll(Command[Enrolled]):
    """A shipment waits for its delivery."""

    depot: str
    customer_id: int
    order_id: int
    sellers: tuple[int, ...]


@shipment.command(key="depot")
class PickOldest(Command[OldestPicked]):
    """For each of some sellers the oldest shipment with parcels of theirs that are not delivered."""

    depot: str
    sellers_max: int


@shipment.command(key="tid")
class UpdateDelivery(Command[DeliveryUpdated]):
    """Deliver the oldest parcels of up to ten sellers: all of them or none."""

    tid: str
