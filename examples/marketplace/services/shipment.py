"""The shipment service: parcels, and their delivery, the oldest first."""

from datetime import UTC, datetime

import msgspec

from holdfast import Context, Rejected, Service, answer, decide, every, evolve, keyed, step
from marketplace.bench import bench_routes, blank
from marketplace.contracts.shipment import (
    Deliver,
    DeliveryConcluded,
    DeliveryStarted,
    DeliveryUpdated,
    DepotEmptied,
    Due,
    EmptyDepot,
    Enroll,
    Enrolled,
    OldestPicked,
    Package,
    PackagesDelivered,
    PickOldest,
    RemoveShipment,
    Ship,
    ShipmentCreated,
    ShipmentRemoved,
    UpdateDelivery,
    shipment,
)
from marketplace.contracts.values import total

shipment_service = Service(shipment, owner="team-warehouse")
SELLERS_MAX = 10
DEPOT = "all"


def _iso(context: Context) -> str:
    return datetime.fromtimestamp(context.at_us / 1e6, UTC).isoformat()


@shipment_service.aggregate
class Shipment:
    customer_id: int = 0
    order_id: int = 0
    package_count: int = 0
    total_freight_value: float = 0.0
    request_date: str = ""
    status: str = ""
    packages: list[Package] = []

    @decide(creates=True)
    def ship(self, command: Ship, context: Context) -> ShipmentCreated:
        if self.status:
            raise Rejected("exists", f"order {command.order_id} of customer {command.customer_id} is shipped already")
        now = _iso(context)
        packages = tuple(
            Package(n, item.seller_id, item.product_id, item.product_name, item.freight_value, item.quantity, now)
            for n, item in enumerate(command.items, 1)
        )
        freight = total(item.freight_value for item in command.items)
        return ShipmentCreated(command.customer_id, command.order_id, now, freight, packages)

    @decide
    def deliver(
        self, command: Deliver, context: Context
    ) -> tuple[DeliveryStarted | PackagesDelivered | DeliveryConcluded, ...]:
        now = _iso(context)
        arrived = tuple(
            msgspec.structs.replace(one, status="delivered", delivery_date=now)
            for one in self.packages
            if one.seller_id in command.sellers and one.status != "delivered"
        )
        key = (command.customer_id, command.order_id)
        open_ = sum(one.status != "delivered" for one in self.packages)
        started = (DeliveryStarted(*key),) if arrived and self.status == "approved" else ()
        concluded = (DeliveryConcluded(*key, now),) if arrived and open_ == len(arrived) else ()
        return (*started, PackagesDelivered(*key, now, arrived), *concluded)

    @evolve
    def created(self, event: ShipmentCreated) -> None:
        self.customer_id, self.order_id = event.customer_id, event.order_id
        self.package_count, self.packages = len(event.packages), list(event.packages)
        self.total_freight_value, self.request_date = event.total_freight_value, event.request_date
        self.status = "approved"

    @evolve
    def started(self, event: DeliveryStarted) -> None:
        self.status = "delivery_in_progress"

    @evolve
    def arrived(self, event: PackagesDelivered) -> None:
        new = {one.package_id: one for one in event.packages}
        self.packages = [new.get(one.package_id, one) for one in self.packages]

    @evolve
    def concluded(self, event: DeliveryConcluded) -> None:
        self.status = "concluded"

    @decide
    def remove(self, command: RemoveShipment) -> ShipmentRemoved:
        return ShipmentRemoved(command.customer_id, command.order_id)

    @evolve
    def removed(self, event: ShipmentRemoved) -> None:
        blank(self)


@shipment_service.aggregate
class Depot:
    """What waits for delivery: per seller, the orders in which they came; sellers by their oldest."""

    waiting: dict[int, list[tuple[int, int]]] = {}

    @decide(creates=True)
    def enroll(self, command: Enroll) -> Enrolled:
        return Enrolled(command.depot, command.customer_id, command.order_id, command.sellers)

    @decide(creates=True)
    def pick(self, command: PickOldest) -> OldestPicked:
        found: dict[tuple[int, int], list[int]] = {}
        for number, (seller_id, orders) in enumerate(self.waiting.items()):
            if number == command.sellers_max:
                break
            found.setdefault(orders[0], []).append(seller_id)
        due = tuple(Due(*order, tuple(sellers)) for order, sellers in found.items())
        return OldestPicked(command.depot, due)

    @decide
    def empty(self, command: EmptyDepot) -> DepotEmptied:
        return DepotEmptied(command.depot)

    @evolve
    def emptied(self, event: DepotEmptied) -> None:
        self.waiting = {}

    @evolve
    def enrolled(self, event: Enrolled) -> None:
        for seller_id in event.sellers:
            self.waiting.setdefault(seller_id, []).append((event.customer_id, event.order_id))

    @evolve
    def picked(self, event: OldestPicked) -> None:
        for due in event.due:
            for seller_id in due.sellers:
                orders = self.waiting.pop(seller_id)
                if orders[1:]:
                    self.waiting[seller_id] = orders[1:]


@shipment_service.reaction
def enroll(event: ShipmentCreated) -> Enroll:
    sellers = tuple(dict.fromkeys(one.seller_id for one in event.packages))
    return Enroll(DEPOT, event.customer_id, event.order_id, sellers)


@shipment_service.saga
class DeliverySaga:
    """All parcels of one update are delivered, or none was picked."""

    update: UpdateDelivery

    @step
    def pick(self) -> PickOldest:
        return PickOldest(DEPOT, SELLERS_MAX)

    @step
    def deliver(self, pick: OldestPicked) -> list[Deliver]:
        return [Deliver(due.customer_id, due.order_id, due.sellers) for due in pick.due]

    @answer
    def done(self, deliver: list[PackagesDelivered]) -> DeliveryUpdated:
        return DeliveryUpdated(self.update.tid, sum(len(found.packages) for found in deliver))


@shipment_service.patch("/shipment/{tid}")
def update_delivery(tid: str):
    """Deliver the oldest parcels of up to ten sellers; the path's id is the idempotency key."""
    return keyed(UpdateDelivery(tid), tid)


EMPTIED = [every(Shipment, RemoveShipment), every(Depot, EmptyDepot)]
bench_routes(shipment_service, reset=EMPTIED, cleanup=EMPTIED)
