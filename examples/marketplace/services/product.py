"""The product service: what is offered, at which price, in which version."""

import msgspec

from holdfast import Every, Keyed, Rejected, Service, answer, decide, evolve, step
from marketplace.bench import bench_routes, blank
from marketplace.contracts.product import (
    AddProduct,
    PriceUpdated,
    ProductAdded,
    ProductRemoved,
    ProductReplaced,
    ProductUpdated,
    RemoveProduct,
    ReplaceProduct,
    RestartVersion,
    UpdatePrice,
    UpdateProduct,
    product,
)
from marketplace.contracts.stock import SetVersion
from marketplace.contracts.values import ProductRow

product_service = Service(product, owner="team-catalogue")


@product_service.aggregate
class Product:
    seller_id: int = 0
    product_id: int = 0
    name: str = ""
    sku: str = ""
    category: str = ""
    description: str = ""
    price: float = 0.0
    freight_value: float = 0.0
    status: str = "approved"
    version: str = ""
    active: bool = False

    @decide(creates=True)
    def add(self, command: AddProduct) -> ProductAdded:
        if self.active:
            raise Rejected("exists", "this product is offered already", version=self.version)
        return ProductAdded(command.product)

    @decide
    def set_price(self, command: UpdatePrice) -> PriceUpdated:
        if command.price < 0:
            raise Rejected("negative", "a price is not negative")
        applied = command.version == self.version
        return PriceUpdated(command.seller_id, command.product_id, command.price, command.version, applied)

    @decide
    def replace(self, command: ReplaceProduct) -> ProductReplaced:
        return ProductReplaced(command.product, self._row())

    @decide
    def restart(self, command: RestartVersion) -> ProductReplaced:
        if not self.active:
            raise Rejected("not_there", "this product is not offered")
        return ProductReplaced(msgspec.structs.replace(self._row(), version="0"), self._row())

    @decide
    def remove(self, command: RemoveProduct) -> ProductRemoved:
        return ProductRemoved(command.seller_id, command.product_id)

    @evolve
    def removed(self, event: ProductRemoved) -> None:
        blank(self)

    def _row(self) -> ProductRow:
        return ProductRow(
            self.seller_id, self.product_id, self.name, self.sku, self.category, self.description, self.price,
            self.freight_value, self.status, self.version,
        )  # fmt: skip

    def _take(self, row: ProductRow) -> None:
        for name, value in msgspec.structs.asdict(row).items():
            setattr(self, name, value)
        self.active = True

    @evolve
    def added(self, event: ProductAdded) -> None:
        self._take(event.product)

    @evolve
    def priced(self, event: PriceUpdated) -> None:
        if event.applied:
            self.price = event.price

    @evolve
    def replaced(self, event: ProductReplaced) -> None:
        self._take(event.product)


@product_service.saga(staged=True)
class Replacement:
    """Product and stock change their version together: nobody sees one without the other, or either before.

    Both are asked side by side. Who buys or prices the product meanwhile waits in order, and finds what was decided.
    """

    update: UpdateProduct

    @step
    def replace(self) -> list[ReplaceProduct | SetVersion]:
        seller_id, product_id, row = self.update.seller_id, self.update.product_id, self.update.product
        return [ReplaceProduct(seller_id, product_id, row), SetVersion(seller_id, product_id, row.version)]

    @answer
    def done(self) -> ProductUpdated:
        return ProductUpdated(self.update.seller_id, self.update.product_id, self.update.product.version)


class PriceBody(msgspec.Struct, rename="camel"):
    """A new price as drivers send it."""

    seller_id: int
    product_id: int
    price: float
    version: str
    tid: str = msgspec.field(name="instanceId", default="")


@product_service.post("/product")
def add_product(body: ProductRow) -> AddProduct:
    """Enter a product."""
    return AddProduct(body.seller_id, body.product_id, body)


@product_service.patch("/product")
def update_price(body: PriceBody):
    """Set the price of one version; `instanceId` is the idempotency key."""
    return Keyed(UpdatePrice(body.seller_id, body.product_id, body.price, body.version), body.tid)


@product_service.put("/product")
def update_product(body: ProductRow):
    """Replace a product; its new version is the transaction's id, and the idempotency key."""
    return Keyed(UpdateProduct(body.seller_id, body.product_id, body), body.version)


bench_routes(product_service, reset=[Every(Product, RestartVersion)], cleanup=[Every(Product, RemoveProduct)])
