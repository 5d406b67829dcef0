"""A whole service: a shelf with products. Run it with `holdfast run first:service`."""

from holdfast import Command, Contract, Event, Rejected, Service, decide, evolve

shelf = Contract("shelf")
service = Service(shelf, owner="team-warehouse")


@shelf.event
class Moved(Event):
    sku: str
    units: int


@shelf.command(key="sku")
class Move(Command[Moved]):
    """Put units of one product on the shelf, or (fewer than none) take them off."""

    sku: str
    units: int


@service.aggregate
class Product:
    on_hand: int = 0

    @decide(creates=True)
    def move(self, command: Move) -> Moved:
        if self.on_hand + command.units < 0:
            raise Rejected("out_of_stock", "not that many on the shelf", available=self.on_hand)
        return Moved(command.sku, command.units)

    @evolve
    def moved(self, event: Moved) -> None:
        self.on_hand += event.units


@service.post("/shelf/{sku}/move/{units}")
def move(sku: str, units: int) -> Move:
    return Move(sku, units)
