"""The stock service: units on hand, reserved and sold."""

import msgspec

from holdfast import Every, Rejected, Service, decide, evolve
from marketplace.bench import bench_routes, blank
from marketplace.contracts.shipment import ShipmentCreated
from marketplace.contracts.stock import (
    AddStock,
    Confirm,
    Confirmed,
    Release,
    Released,
    RemoveStock,
    Reserve,
    Reserved,
    RestartStock,
    SetVersion,
    StockAdded,
    StockRemoved,
    StockRestarted,
    VersionSet,
    stock,
)

stock_service = Service(stock, owner="team-warehouse")


@stock_service.aggregate
class StockItem:
    seller_id: int = 0
    product_id: int = 0
    qty_available: int = 0
    qty_reserved: int = 0
    order_count: int = 0
    ytd: int = 0
    data: str = ""
    version: str = ""

    @decide(creates=True)
    def add(self, command: AddStock) -> StockAdded:
        if self.version:
            raise Rejected("exists", "this product has a stock already")
        return StockAdded(**msgspec.structs.asdict(command))

    @decide
    def reserve(self, command: Reserve) -> Reserved:
        if command.version != self.version:
            raise Rejected("unavailable", "the product is another one now", version=self.version)
        left = self.qty_available - self.qty_reserved
        if not 0 < command.quantity <= left:
            raise Rejected("out_of_stock", "not that many left", qty_available=left)
        return Reserved(command.seller_id, command.product_id, command.quantity)

    @decide
    def release(self, command: Release) -> Released:
        return Released(command.seller_id, command.product_id, command.quantity)

    @decide
    def confirm(self, command: Confirm) -> Confirmed:
        return Confirmed(command.seller_id, command.product_id, command.quantity)

    @decide
    def set_version(self, command: SetVersion) -> VersionSet:
        return VersionSet(command.seller_id, command.product_id, command.version)

    @decide
    def restart(self, command: RestartStock) -> StockRestarted:
        if not self.version:
            raise Rejected("not_there", "this product has no stock")
        return StockRestarted(command.seller_id, command.product_id, command.qty_available)

    @decide
    def remove(self, command: RemoveStock) -> StockRemoved:
        return StockRemoved(command.seller_id, command.product_id)

    @evolve
    def restarted(self, event: StockRestarted) -> None:
        self.qty_available, self.qty_reserved, self.order_count = event.qty_available, 0, 0
        self.version = "0"

    @evolve
    def removed(self, event: StockRemoved) -> None:
        blank(self)

    @evolve
    def added(self, event: StockAdded) -> None:
        for name, value in msgspec.structs.asdict(event).items():
            setattr(self, name, value)

    @evolve
    def reserved(self, event: Reserved) -> None:
        self.qty_reserved += event.quantity

    @evolve
    def released(self, event: Released) -> None:
        self.qty_reserved -= event.quantity

    @evolve
    def confirmed(self, event: Confirmed) -> None:
        self.qty_available -= event.quantity
        self.qty_reserved -= event.quantity
        self.order_count += 1

    @evolve
    def is_another(self, event: VersionSet) -> None:
        self.version = event.version


@stock_service.reaction
def sold(event: ShipmentCreated) -> list[Confirm]:
    """What was paid and packed is not held any more: it is gone."""
    return [Confirm(one.seller_id, one.product_id, one.quantity) for one in event.packages]


@stock_service.post("/stock")
def add_stock(body: AddStock) -> AddStock:
    """Enter the stock of a product."""
    return body


bench_routes(stock_service, reset=[Every(StockItem, RestartStock)], cleanup=[Every(StockItem, RemoveStock)])
