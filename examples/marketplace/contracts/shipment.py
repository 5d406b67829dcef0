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
    """Parcels of some sellers in one shipment; `number`: the smaller came the earlier."""

    number: int
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
    """Parcels have arrived. `started`: they are the shipment's first; `concluded`: its last."""

    customer_id: int
    order_id: int
    delivery_date: str
    packages: tuple[Package, ...]
    started: bool
    concluded: bool


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
    """What one update delivers; until it has ended nobody else delivers for these sellers or to these customers."""

    depot: str
    tid: str
    due: tuple[Due, ...]


@shipment.event
class PutBack(Event):
    """What was picked was not delivered: it is the oldest again."""

    depot: str
    tid: str


@shipment.event
class LetGo(Event):
    """What was picked was delivered."""

    depot: str
    tid: str


@shipment.event
class DeliveredTogether(Event):
    """Shipments, customers, sellers and orders have it, all of it."""

    tid: str
    packages: int


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
    tid: str
    sellers_max: int


@shipment.command(key="depot")
class GiveBack(Command[PutBack]):
    """What an update picked waits again, before all others."""

    depot: str
    tid: str


@shipment.command(key="depot")
class Forget(Command[LetGo]):
    """What an update picked is delivered: the next of its sellers may follow."""

    depot: str
    tid: str


@shipment.command(key="tid")
class DeliverTogether(Command[DeliveredTogether]):
    """Deliver these parcels everywhere or nowhere."""

    tid: str
    due: tuple[Due, ...]


@shipment.command(key="tid")
class UpdateDelivery(Command[DeliveryUpdated]):
    """Deliver the oldest parcels of up to ten sellers: all of them or none."""

    tid: str
