"""Seller: who sells, and what their dashboard shows."""

from holdfast import Command, Contract, Event, Sensitive

seller = Contract("seller")


@seller.event
class SellerAdded(Event):
    id: int
    name: str
    company_name: str
    email: Sensitive[str]
    phone: Sensitive[str]
    mobile_phone: Sensitive[str]
    cpf: Sensitive[str]
    cnpj: Sensitive[str]
    address: str
    complement: str
    city: str
    state: str
    zip_code: str


@seller.command(key="id")
class AddSeller(Command[SellerAdded]):
    """Enter a seller."""

    id: int
    name: str
    company_name: str
    email: Sensitive[str] = ""
    phone: Sensitive[str] = ""
    mobile_phone: Sensitive[str] = ""
    cpf: Sensitive[str] = ""
    cnpj: Sensitive[str] = ""
    address: str = ""
    complement: str = ""
    city: str = ""
    state: str = ""
    zip_code: str = ""
