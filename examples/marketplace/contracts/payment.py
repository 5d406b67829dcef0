"""Payment: who was charged what."""

from holdfast import Command, Contract, Event, Sensitive
from marketplace.contracts.values import Buyer, OrderItem

payment = Contract("payment")


@payment.event
class PaymentConfirmed(Event):
    customer_id: int
    order_id: int
    invoice_number: str
    total_invoice: float
    payment_type: str
    installments: int
    vouchers: tuple[float, ...]
    card_number: Sensitive[str]
    card_holder_name: Sensitive[str]
    card_expiration: Sensitive[str]
    card_brand: str


@payment.event
class PaymentFailed(Event):
    customer_id: int
    order_id: int
    invoice_number: str
    total_invoice: float
    reason: str


@payment.event
class PaymentRemoved(Event):
    customer_id: int
    order_id: int


@payment.command(key=("customer_id", "order_id"))
class RemovePayment(Command[PaymentRemoved]):
    """The payment is as if it had never been."""

    customer_id: int
    order_id: int


@payment.command(key=("customer_id", "order_id"))
class Pay(Command[PaymentConfirmed]):
    """Charge an invoice, once."""

    customer_id: int
    order_id: int
    invoice_number: str
    total_invoice: float
    items: tuple[OrderItem, ...]
    buyer: Buyer
