"""The customer service: who buys, and how often that went well."""

import msgspec

from holdfast import Every, Rejected, Sensitive, Service, decide, evolve
from marketplace.bench import bench_routes, blank
from marketplace.contracts.customer import (
    AddCustomer,
    Count,
    Counted,
    CountsRestarted,
    CustomerAdded,
    CustomerRemoved,
    RemoveCustomer,
    RestartCounts,
    customer,
)
from marketplace.contracts.payment import PaymentConfirmed, PaymentFailed
from marketplace.contracts.values import CustomerRow

customer_service = Service(customer, owner="team-shop")


@customer_service.aggregate
class Customer:
    id: int = 0
    first_name: str = ""
    last_name: str = ""
    address: str = ""
    complement: str = ""
    birth_date: Sensitive[str] = ""
    zip_code: str = ""
    city: str = ""
    state: str = ""
    card_number: Sensitive[str] = ""
    card_expiration: Sensitive[str] = ""
    card_holder_name: Sensitive[str] = ""
    card_type: str = ""
    data: str = ""
    success_payment_count: int = 0
    failed_payment_count: int = 0
    delivery_count: int = 0

    @decide(creates=True)
    def add(self, command: AddCustomer) -> CustomerAdded:
        if self.id:
            raise Rejected("exists", f"customer {command.id} is there already")
        return CustomerAdded(command.customer)

    @decide(creates=True)
    def count(self, command: Count) -> Counted:
        return Counted(**msgspec.structs.asdict(command))

    @decide
    def restart(self, command: RestartCounts) -> CountsRestarted:
        return CountsRestarted(command.id)

    @decide
    def remove(self, command: RemoveCustomer) -> CustomerRemoved:
        return CustomerRemoved(command.id)

    @evolve
    def restarted(self, event: CountsRestarted) -> None:
        self.success_payment_count = self.failed_payment_count = self.delivery_count = 0

    @evolve
    def removed(self, event: CustomerRemoved) -> None:
        blank(self)

    @evolve
    def added(self, event: CustomerAdded) -> None:
        for name, value in msgspec.structs.asdict(event.customer).items():
            setattr(self, name, value)

    @evolve
    def counted(self, event: Counted) -> None:
        self.success_payment_count += event.paid
        self.failed_payment_count += event.failed
        self.delivery_count += event.delivered


@customer_service.reaction
def count(event: PaymentConfirmed | PaymentFailed) -> Count:
    paid = isinstance(event, PaymentConfirmed)
    return Count(event.customer_id, paid=int(paid), failed=int(not paid))


@customer_service.post("/customer")
def add_customer(body: CustomerRow) -> AddCustomer:
    """Enter a customer."""
    return AddCustomer(body.id, body)


bench_routes(customer_service, reset=[Every(Customer, RestartCounts)], cleanup=[Every(Customer, RemoveCustomer)])
