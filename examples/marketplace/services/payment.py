"""The payment service: charges each invoice once."""

import msgspec

from holdfast import Every, Rejected, Sensitive, Service, decide, evolve
from marketplace.bench import bench_routes, blank
from marketplace.contracts.payment import (
    Pay,
    PaymentConfirmed,
    PaymentFailed,
    PaymentRemoved,
    RemovePayment,
    payment,
)

payment_service = Service(payment, owner="team-money")
DECLINED = "0002"
"""Card numbers that end so are refused, as with the test numbers of card companies."""


class Line(msgspec.Struct):
    """One way in which an order was paid."""

    payment_sequential: int
    type: str
    installments: int
    value: float
    status: str


class Card(msgspec.Struct):
    """The card that was charged."""

    payment_sequential: int
    card_number: Sensitive[str]
    card_holder_name: Sensitive[str]
    card_expiration: Sensitive[str]
    card_brand: str


@payment_service.aggregate
class Payment:
    customer_id: int = 0
    order_id: int = 0
    invoice_number: str = ""
    status: str = ""
    lines: list[Line] = []
    cards: list[Card] = []

    @decide(creates=True)
    def pay(self, command: Pay) -> PaymentConfirmed:
        if self.status:
            raise Rejected("decided", f"invoice {command.invoice_number} is {self.status}")
        buyer = command.buyer
        if buyer.payment_type != "BOLETO" and buyer.card_number.endswith(DECLINED):
            failed = PaymentFailed(
                command.customer_id, command.order_id, command.invoice_number, command.total_invoice, "declined"
            )
            raise Rejected("payment_failed", "the card was declined", events=[failed], source="payment")
        return PaymentConfirmed(
            command.customer_id, command.order_id, command.invoice_number, command.total_invoice, buyer.payment_type,
            buyer.installments, tuple(item.voucher for item in command.items if item.voucher > 0), buyer.card_number,
            buyer.card_holder_name, buyer.card_expiration, buyer.card_brand,
        )  # fmt: skip

    @decide
    def remove(self, command: RemovePayment) -> PaymentRemoved:
        return PaymentRemoved(command.customer_id, command.order_id)

    @evolve
    def removed(self, event: PaymentRemoved) -> None:
        blank(self)

    @evolve
    def confirmed(self, event: PaymentConfirmed) -> None:
        self.customer_id, self.order_id, self.invoice_number = event.customer_id, event.order_id, event.invoice_number
        self.status = "succeeded"
        by_card = event.payment_type != "BOLETO"
        installments = event.installments if event.payment_type == "CREDIT_CARD" else 1
        self.lines.append(Line(1, event.payment_type, installments, event.total_invoice, self.status))
        if by_card:
            self.cards.append(
                Card(1, event.card_number, event.card_holder_name, event.card_expiration, event.card_brand)
            )
        for number, value in enumerate(event.vouchers, 2):
            self.lines.append(Line(number, "VOUCHER", 1, value, self.status))

    @evolve
    def failed(self, event: PaymentFailed) -> None:
        self.customer_id, self.order_id, self.invoice_number = event.customer_id, event.order_id, event.invoice_number
        self.status = "failed"


bench_routes(payment_service, reset=[Every(Payment, RemovePayment)], cleanup=[Every(Payment, RemovePayment)])
