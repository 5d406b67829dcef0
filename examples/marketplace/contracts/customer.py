"""Customer: who buys, and how often that went well."""

from holdfast import Command, Contract, Event
from marketplace.contracts.values import CustomerRow

customer = Contract("customer")


@customer.event
class CustomerAdded(Event):
    customer: CustomerRow


@customer.event
class Counted(Event):
    """What has happened to the customer's orders."""

    id: int
    paid: int = 0
    failed: int = 0
    delivered: int = 0


@customer.event
class CountsRestarted(Event):
    """Every count of the customer is zero again."""

    id: int


@customer.event
class CustomerRemoved(Event):
    id: int


@customer.command(key="id")
class RestartCounts(Command[CountsRestarted]):
    """Count from zero again."""

    id: int


@customer.command(key="id")
class RemoveCustomer(Command[CustomerRemoved]):
    """The customer is as if never entered."""

    id: int


@customer.command(key="id")
class AddCustomer(Command[CustomerAdded]):
    """Enter a customer."""

    id: int
    customer: CustomerRow


@customer.command(key="id")
class Count(Command[Counted]):
    """Count payments and parcels."""

    id: int
    paid: int = 0
    failed: int = 0
    delivered: int = 0
