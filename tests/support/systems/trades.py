"""A bank, a shop, a depot with a hot counter, and a desk whose trades are staged: a system for staged commit.

What happens is said in the command that begins a trade. An office asks for trades as one step of an ordinary saga.
"""

from collections import Counter

import msgspec

from holdfast import Command, Contract, Event, Rejected, Service, System, answer, decide, escrow, evolve, step
from holdfast import undo as undoes
from holdfast.core.log.record import Record
from holdfast.testing import VirtualSystem

bank, shop, depot, desk, office = (Contract(name) for name in ("bank", "shop", "depot", "desk", "office"))


@bank.event
class Moved(Event):
    account: str
    amount: int
    deal: str = ""


@bank.command(key="account")
class Move(Command[Moved]):
    account: str
    amount: int
    deal: str = ""


@shop.event
class Listed(Event):
    sku: str
    deal: str


@shop.command(key="sku")
class List(Command[Listed]):
    sku: str
    deal: str
    how: str = ""


@depot.event
class Took(Event):
    sku: str
    deal: str
    quantity: int


@depot.event
class Renamed(Event):
    sku: str
    name: str


@depot.command(key="sku")
class Take(Command[Took]):
    """Take from a stock; a negative quantity puts back."""

    sku: str
    deal: str
    quantity: int


@depot.command(key="sku")
class Rename(Command[Renamed]):
    sku: str
    name: str


@desk.event
class Traded(Event):
    deal: str


@desk.command(key="deal")
class Trade(Command[Traded]):
    deal: str
    moves: tuple[tuple[str, int], ...] = ()
    then: tuple[tuple[str, int], ...] = ()
    lists: tuple[str, ...] = ()
    how: str = ""
    takes: tuple[tuple[str, int], ...] = ()
    renames: tuple[str, ...] = ()


@office.event
class Ordered(Event):
    deal: str


@office.command(key="deal")
class Order(Command[Ordered]):
    """An ordinary saga: pay a deposit, then a trade as its second step, then a move that may be refused."""

    deal: str
    trade: Trade
    after: int = 0
    rename: str = ""


def make() -> dict[str, Service]:
    """A bank whose accounts never go below zero, a shop, a depot, a desk whose trades are staged, an office."""
    banks, shops, desks = Service(bank), Service(shop), Service(desk)

    @banks.aggregate
    class Account:
        balance: int = 0
        moves: int = 0

        @decide(creates=True)
        def move(self, command: Move) -> Moved:
            if self.balance + command.amount < 0:
                raise Rejected("poor", balance=self.balance)
            return Moved(command.account, command.amount, command.deal)

        @evolve
        def moved(self, event: Moved) -> None:
            self.balance += event.amount
            self.moves += 1

    @shops.aggregate
    class Item:
        deals: list[str] = []

        @decide(creates=True)
        def list(self, command: List) -> Listed:
            if command.how == "raises":
                raise RuntimeError("a bug")
            if command.how == "no":
                raise Rejected("no")
            return Listed(command.sku, command.deal)

        @evolve
        def listed(self, event: Listed) -> None:
            self.deals.append(event.deal)

    @desks.saga(staged=True)
    class Trading:
        trade: Trade

        @step
        def move(self) -> list[Move]:
            return [Move(account, amount, self.trade.deal) for account, amount in self.trade.moves]

        @step
        def then(self, move: list[Moved]) -> list[Move]:
            return [Move(account, amount, self.trade.deal) for account, amount in self.trade.then]

        @step
        def take(self) -> list[Take]:
            return [Take(sku, self.trade.deal, quantity) for sku, quantity in self.trade.takes]

        @step
        def rename(self) -> list[Rename]:
            return [Rename(sku, self.trade.deal) for sku in self.trade.renames]

        @step
        def show(self) -> list[List]:
            return [List(sku, self.trade.deal, self.trade.how) for sku in self.trade.lists]

        @answer
        def traded(self, move: list[Moved]) -> Traded:
            return Traded(self.trade.deal)

    return {"bank": banks, "shop": shops, "depot": make_depot(), "desk": desks, "office": make_office()}


def make_depot() -> Service:
    """Stock that many take from at once."""
    depots = Service(depot)

    @depots.aggregate
    class Stock:
        on_hand: int = escrow(default=100, min=0)
        name: str = ""

        @decide(creates=True)
        def take(self, command: Take) -> Took:
            if command.quantity > self.on_hand:
                raise Rejected("out_of_stock", on_hand=self.on_hand)
            return Took(command.sku, command.deal, command.quantity)

        @decide(creates=True)
        def rename(self, command: Rename) -> Renamed:
            return Renamed(command.sku, command.name)

        @evolve
        def took(self, event: Took) -> None:
            self.on_hand -= event.quantity

        @evolve
        def renamed(self, event: Renamed) -> None:
            self.name = event.name

    return depots


def make_office() -> Service:
    """An ordinary saga with a trade as one step."""
    offices = Service(office)

    @offices.view
    class Deal:
        moved: int = 0
        listed: int = 0

        @evolve(key=lambda event: event.deal or "-")
        def on_moved(self, event: Moved) -> None:
            self.moved += 1

        @evolve(key=lambda event: event.deal or "-")
        def on_listed(self, event: Listed) -> None:
            self.listed += 1

    @offices.saga
    class Ordering:
        order: Order

        @step
        def deposit(self) -> Move:
            return Move("deposit", 10, self.order.deal)

        @undoes(deposit)
        def give_back(self, moved: Moved) -> Move:
            return Move("deposit", -10, self.order.deal)

        @step
        def trade(self) -> Trade:
            return self.order.trade

        @undoes(trade)
        def trade_back(self, traded: Traded) -> Trade:
            trade = self.order.trade
            back = tuple((account, -amount) for account, amount in trade.moves)
            return Trade(trade.deal + "-back", back)

        @step
        def name(self) -> Rename | None:
            return Rename(self.order.rename, self.order.deal) if self.order.rename else None

        @step
        def then(self) -> Move | None:
            return Move("strict", self.order.after, self.order.deal) if self.order.after else None

        @answer
        def ordered(self) -> Ordered:
            return Ordered(self.order.deal)

    return offices


def system(*names: str) -> System:
    """These services; the bank, the shop and the desk if none is named."""
    services = make()
    return System([services[name] for name in names or ("bank", "shop", "desk")], name="trading")


ALL = ("bank", "shop", "depot", "desk", "office")


def events(virtual: VirtualSystem, name: str) -> list[Record]:
    """The events of a log."""
    return [record for record in virtual.log(name) if record.kind == "event"]


def balances(virtual: VirtualSystem) -> Counter[str]:
    """What the bank's log says of each account."""
    found = Counter[str]()
    for record in events(virtual, "bank"):
        body = msgspec.json.decode(record.data)
        found[body["account"]] += body["amount"]
    return found
