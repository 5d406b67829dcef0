"""The shipment service: parcels, and their delivery, the oldest first.

An update picks from the depot what it delivers; nobody else delivers for these sellers or to these customers until it
has ended. So updates side by side neither wait for each other nor overtake, and each takes the next that is free. What
was picked is then delivered in a staged transaction: in shipments, customers, sellers and orders, or nowhere.
"""

from collections import Counter
from datetime import UTC, datetime
from itertools import islice

import msgspec

from holdfast import Context, Every, Keyed, Rejected, Service, answer, decide, evolve, pivot, step, undo
from marketplace.bench import bench_routes, blank
from marketplace.contracts.customer import Count
from marketplace.contracts.order import Advance, OrderStatusChanged
from marketplace.contracts.seller import Arrival, NoteArrivals
from marketplace.contracts.shipment import (
    Deliver,
    DeliveredTogether,
    DeliverTogether,
    DeliveryConcluded,
    DeliveryStarted,
    DeliveryUpdated,
    DepotEmptied,
    Due,
    EmptyDepot,
    Enroll,
    Enrolled,
    Forget,
    GiveBack,
    LetGo,
    OldestPicked,
    Package,
    PackagesDelivered,
    PickOldest,
    PutBack,
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
LOOKED_AT_MAX = 100
"""Shipments that are looked at for sellers who are free; what is not found now is found when others have ended."""
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
        if not arrived:
            raise Rejected("delivered", "these sellers' parcels were delivered before")
        started = (DeliveryStarted(*key),) if self.status == "approved" else ()
        concluded = (DeliveryConcluded(*key, now),) if open_ == len(arrived) else ()
        return (*started, PackagesDelivered(*key, now, arrived, bool(started), bool(concluded)), *concluded)

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
    """What waits for delivery, in the order in which it came, and what is on its way."""

    count: int = 0
    waiting: dict[int, Due] = {}
    picked: dict[str, tuple[Due, ...]] = {}
    """By update."""

    @decide(creates=True)
    def enroll(self, command: Enroll) -> Enrolled:
        return Enrolled(command.depot, command.customer_id, command.order_id, command.sellers)

    @decide(creates=True)
    def pick(self, command: PickOldest) -> OldestPicked:
        under_way = [due for picked in self.picked.values() for due in picked]
        customers = {due.customer_id for due in under_way}
        sellers = {seller_id for due in under_way for seller_id in due.sellers}
        found: list[Due] = []
        left = command.sellers_max
        for due in islice(self.waiting.values(), LOOKED_AT_MAX):
            free = [seller_id for seller_id in due.sellers if seller_id not in sellers][:left]
            sellers.update(due.sellers)  # who has an older one does not deliver a younger one
            if free and due.customer_id not in customers:
                found.append(msgspec.structs.replace(due, sellers=tuple(free)))
                left -= len(free)
            if not left:
                break
        return OldestPicked(command.depot, command.tid, tuple(found))

    @decide
    def give_back(self, command: GiveBack) -> PutBack:
        return PutBack(command.depot, command.tid)

    @decide
    def forget(self, command: Forget) -> LetGo:
        return LetGo(command.depot, command.tid)

    @decide
    def empty(self, command: EmptyDepot) -> DepotEmptied:
        return DepotEmptied(command.depot)

    @evolve
    def emptied(self, event: DepotEmptied) -> None:
        self.waiting, self.picked = {}, {}

    @evolve
    def enrolled(self, event: Enrolled) -> None:
        self.count += 1
        self.waiting[self.count] = Due(self.count, event.customer_id, event.order_id, event.sellers)

    @evolve
    def was_picked(self, event: OldestPicked) -> None:
        if event.due:
            self.picked[event.tid] = event.due
        for due in event.due:
            now = self.waiting[due.number]
            left = tuple(seller_id for seller_id in now.sellers if seller_id not in due.sellers)
            if left:
                self.waiting[due.number] = msgspec.structs.replace(now, sellers=left)
            else:
                del self.waiting[due.number]

    @evolve
    def put_back(self, event: PutBack) -> None:
        for due in self.picked.pop(event.tid, ()):
            left = self.waiting.get(due.number)
            sellers = due.sellers + (left.sellers if left is not None else ())
            self.waiting[due.number] = msgspec.structs.replace(due, sellers=sellers)
        self.waiting = dict(sorted(self.waiting.items()))

    @evolve
    def let_go(self, event: LetGo) -> None:
        self.picked.pop(event.tid, None)


@shipment_service.reaction
def enroll(event: OrderStatusChanged) -> Enroll | None:
    """What is packed waits for delivery, as soon as its order says so: so it is never delivered before."""
    if event.status != "READY_FOR_SHIPMENT":
        return None
    return Enroll(DEPOT, event.customer_id, event.order_id, event.sellers)


@shipment_service.saga
class DeliverySaga:
    """Who picks delivers, or puts it back."""

    update: UpdateDelivery

    @step
    def pick(self) -> PickOldest:
        return PickOldest(DEPOT, self.update.tid, SELLERS_MAX)

    @undo(pick)
    def give_back(self, picked: OldestPicked) -> GiveBack | None:
        return GiveBack(DEPOT, picked.tid) if picked.due else None

    @pivot
    def deliver(self, pick: OldestPicked) -> DeliverTogether | None:
        return DeliverTogether(self.update.tid, pick.due) if pick.due else None

    @answer
    def done(self, deliver: DeliveredTogether | None) -> DeliveryUpdated:
        return DeliveryUpdated(self.update.tid, deliver.packages if deliver is not None else 0)


@shipment_service.saga(staged=True)
class Delivery:
    """Parcels arrive in shipments, customers, sellers and orders together: one command per customer and per order, one
    for all sellers."""

    deliver_together: DeliverTogether

    @step
    def deliver(self) -> list[Deliver]:
        return [Deliver(due.customer_id, due.order_id, due.sellers) for due in self.deliver_together.due]

    @step
    def tell(self, deliver: list[PackagesDelivered]) -> list[Count | Advance | NoteArrivals]:
        parcels = Counter[int]()
        orders: list[Advance] = []
        for one in deliver:
            parcels[one.customer_id] += len(one.packages)
            reached = ("IN_TRANSIT",) * one.started + ("DELIVERED",) * one.concluded
            if reached:
                orders.append(Advance(one.customer_id, one.order_id, reached))
        arrivals = tuple(
            Arrival(
                one.customer_id, one.order_id, parcel.package_id, parcel.seller_id, parcel.product_id,
                parcel.product_name, parcel.delivery_date, one.concluded, parcel.status,
            )
            for one in deliver
            for parcel in one.packages
        )  # fmt: skip
        counts = [Count(customer_id, delivered=count) for customer_id, count in parcels.items()]
        return [*counts, NoteArrivals(self.deliver_together.tid, arrivals), *orders]

    @answer
    def done(self, deliver: list[PackagesDelivered]) -> DeliveredTogether:
        return DeliveredTogether(self.deliver_together.tid, sum(len(found.packages) for found in deliver))


@shipment_service.reaction
def ended(event: DeliveredTogether) -> Forget:
    """The sellers' next parcels may follow."""
    return Forget(DEPOT, event.tid)


@shipment_service.patch("/shipment/{tid}")
def update_delivery(tid: str):
    """Deliver the oldest parcels of up to ten sellers; the path's id is the idempotency key."""
    return Keyed(UpdateDelivery(tid), tid)


EMPTIED = [Every(Shipment, RemoveShipment), Every(Depot, EmptyDepot)]
bench_routes(shipment_service, reset=EMPTIED, cleanup=EMPTIED)
