"""The marketplace as a system: eight services, each with a log of its own. `holdfast run marketplace.system:system`."""

from holdfast import System
from marketplace.services.cart import cart_service
from marketplace.services.customer import customer_service
from marketplace.services.order import order_service
from marketplace.services.payment import payment_service
from marketplace.services.product import product_service
from marketplace.services.seller import seller_service
from marketplace.services.shipment import shipment_service
from marketplace.services.stock import stock_service

system = System(
    [
        cart_service,
        product_service,
        stock_service,
        order_service,
        payment_service,
        shipment_service,
        seller_service,
        customer_service,
    ],
    name="marketplace",
)
