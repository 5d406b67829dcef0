"""Stock: how many units there are, and how many of them are spoken for."""

from holdfast import Command, Contract, Event

stock = Contract("stock")


@stock.event
class StockAdded(Event):
    seller_id: int
    product_id: int
    qty_available: int
    qty_reserved: int
    order_count: int
    ytd: int
    data: str
    version: str


@stock.event
class Reserved(Event):
    seller_id: int
    product_id: int
    quantity: int


@stock.event
class Released(Event):
    seller_id: int
    product_id: int
    quantity: int


@stock.event
class Confirmed(Event):
    """The units are sold."""

    seller_id: int
    product_id: int
    quantity: int


@stock.event
class VersionSet(Event):
    seller_id: int
    product_id: int
    version: str


@stock.event
class StockRestarted(Event):
    """So many units of version "0", none of them held or sold."""

    seller_id: int
    product_id: int
    qty_available: int


@stock.event
class StockRemoved(Event):
    seller_id: int
    product_id: int


@stock.command(key=("seller_id", "product_id"))
class RestartStock(Command[StockRestarted]):
    """Begin anew with so many units of version "0"."""

    seller_id: int
    product_id: int
    qty_available: int = 10_000


@stock.command(key=("seller_id", "product_id"))
class RemoveStock(Command[StockRemoved]):
    """The stock is as if never entered."""

    seller_id: int
    product_id: int


@stock.command(key=("seller_id", "product_id"))
class AddStock(Command[StockAdded]):
    """Enter the stock of one product."""

    seller_id: int
    product_id: int
    qty_available: int
    qty_reserved: int = 0
    order_count: int = 0
    ytd: int = 0
    data: str = ""
    version: str = "0"


@stock.command(key=("seller_id", "product_id"))
class Reserve(Command[Reserved]):
    """Hold units of one version of a product."""

    seller_id: int
    product_id: int
    quantity: int
    version: str


@stock.command(key=("seller_id", "product_id"))
class Release(Command[Released]):
    """Give held units back."""

    seller_id: int
    product_id: int
    quantity: int


@stock.command(key=("seller_id", "product_id"))
class Confirm(Command[Confirmed]):
    """Held units are sold."""

    seller_id: int
    product_id: int
    quantity: int


@stock.command(key=("seller_id", "product_id"))
class SetVersion(Command[VersionSet]):
    """The product is another one from now on."""

    seller_id: int
    product_id: int
    version: str
