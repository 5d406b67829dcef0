"""Product: what sellers offer, its price and its version."""

from holdfast import Command, Contract, Event
from marketplace.contracts.values import ProductRow

product = Contract("product")


@product.event
class ProductAdded(Event):
    product: ProductRow


@product.event
class PriceUpdated(Event):
    """A new price. `applied` is false where it was meant for a version that is gone: then nothing has changed."""

    seller_id: int
    product_id: int
    price: float
    version: str
    applied: bool


@product.event
class ProductReplaced(Event):
    """Another product under the same key: carts with the version before cannot be bought any more."""

    product: ProductRow
    before: ProductRow


@product.event
class ProductUpdated(Event):
    """The replacement has reached the stock."""

    seller_id: int
    product_id: int
    version: str


@product.event
class ProductRemoved(Event):
    seller_id: int
    product_id: int


@product.command(key=("seller_id", "product_id"))
class RestartVersion(Command[ProductReplaced]):
    """The product as it is, in version "0"."""

    seller_id: int
    product_id: int


@product.command(key=("seller_id", "product_id"))
class RemoveProduct(Command[ProductRemoved]):
    """The product is as if never entered."""

    seller_id: int
    product_id: int


@product.command(key=("seller_id", "product_id"))
class AddProduct(Command[ProductAdded]):
    """Enter a product."""

    seller_id: int
    product_id: int
    product: ProductRow


@product.command(key=("seller_id", "product_id"))
class UpdatePrice(Command[PriceUpdated]):
    """Set the price of one version."""

    seller_id: int
    product_id: int
    price: float
    version: str


@product.command(key=("seller_id", "product_id"))
class ReplaceProduct(Command[ProductReplaced]):
    """Replace all fields; the version with them."""

    seller_id: int
    product_id: int
    product: ProductRow


@product.command(key=("seller_id", "product_id"))
class UpdateProduct(Command[ProductUpdated]):
    """Replace a product here and in the stock, or in neither."""

    seller_id: int
    product_id: int
    product: ProductRow
