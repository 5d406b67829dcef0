"""Customer: who buys, and how often that went well."""

from holdfast import Command, Contract, Event, Sensitive

customer = Contract("customer")


@customer.event
class CustomerAdded(Event):
    id: int
    first_name: str
    last_name: str
    address: str
    complement: str
    birth_date: Sensitive[str]
    zip_code: str
    city: str
    state: str
    card_number: Sensitive[str]
    card_expiration: Sensitive[str]
    card_holder_name: Sensitive[str]
    card_type: str
    data: str


@customer.event
class Counted(Event):
    """What has happened to the customer's orders."""

    id: int
    paid: int = 0
    failed: int = 0
    delivered: int = 0


@customer.command(key="id")
class AddCustomer(Command[CustomerAdded]):
    """Enter a customer."""

    id: int
    first_name: str
    last_name: str
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


@customer.command(key="id")
class Count(Command[Counted]):
    """Count payments and parcels."""

    id: int
    paid: int = 0
    failed: int = 0
    delivered: int = 0
