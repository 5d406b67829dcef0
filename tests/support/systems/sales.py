"""A small sale across four services whose handlers can be told to fail, refuse or be slow: for tests of repair.

`desk` has the saga: take goods at `depot`, pay at `till`, book at `ledger` (the pivot), post at `depot`. `Faults` says
what goes wrong where; it is shared by all services of one system and can be changed while it runs.
"""

from dataclasses import dataclass, field

import msgspec

from holdfast import (
    Command,
    Contract,
    Event,
    Rejected,
    Retry,
    Service,
    System,
    answer,
    decide,
    evolve,
    pivot,
    step,
    undo,
)
from holdfast.core.log.record import Record
from holdfast.testing.simulation.system import VirtualSystem

depot, till, ledger, desk = (Contract(name) for name in ("depot", "till", "ledger", "desk"))


@depot.event
class Taken(Event):
    item: str
    order: str


@depot.event
class Returned(Event):
    item: str
    order: str


@depot.event
class Posted(Event):
    item: str
    order: str


@depot.command(key="item")
class Take(Command[Taken]):
    item: str
    order: str


@depot.command(key="item")
class Return(Command[Returned]):
    item: str
    order: str


@depot.command(key="item")
class Post(Command[Posted]):
    item: str
    order: str


@till.event
class Paid(Event):
    order: str


@till.event
class Refunded(Event):
    order: str


@till.command(key="order")
class Pay(Command[Paid]):
    order: str


@till.command(key="order")
class Refund(Command[Refunded]):
    order: str


@ledger.event
class Booked(Event):
    order: str


@ledger.command(key="order")
class Book(Command[Booked]):
    order: str


@desk.event
class Sold(Event):
    order: str


@desk.command
class Sell(Command[Sold]):
    order: str
    items: tuple[str, ...] = ("tea",)
    post: str = ""


class Broken(Exception):
    """A handler's bug."""


DEFAULT = Retry()


@dataclass
class Faults:
    """What goes wrong: names of commands with `:` and the key, or `*` for every key."""

    broken: set[str] = field(default_factory=set[str])
    refused: set[str] = field(default_factory=set[str])

    def check(self, name: str, key: str) -> None:
        """Raise what is to be raised for that command."""
        if {f"{name}:{key}", f"{name}:*"} & self.broken:
            raise Broken(f"{name} of {key}")
        if {f"{name}:{key}", f"{name}:*"} & self.refused:
            raise Rejected("refused", f"{name} of {key} is refused")


def make(faults: Faults, retry: Retry, deadline: float, *, independent: bool = False) -> dict[str, Service]:
    """The four services, anew."""
    depots, tills = Service(depot, owner="team-depot", retry=retry), Service(till, owner="team-till", retry=retry)
    ledgers, desks = Service(ledger, owner="team-books", retry=retry), Service(desk, owner="team-desk", retry=retry)

    @depots.aggregate
    class Item:
        orders: set[str] = set()

        @decide(creates=True)
        def take(self, command: Take) -> Taken:
            faults.check("take", command.item)
            return Taken(command.item, command.order)

        @decide
        def put_back(self, command: Return) -> Returned:
            faults.check("return", command.item)
            if command.order not in self.orders:
                raise Rejected("not_taken")
            return Returned(command.item, command.order)

        @decide(creates=True)
        def post(self, command: Post) -> Posted:
            faults.check("post", command.item)
            return Posted(command.item, command.order)

        @evolve
        def taken(self, event: Taken) -> None:
            self.orders.add(event.order)

        @evolve
        def returned(self, event: Returned) -> None:
            self.orders.remove(event.order)

        @evolve
        def posted(self, event: Posted) -> None:
            pass

    @tills.aggregate
    class Payment:
        paid: bool = False

        @decide(creates=True)
        def pay(self, command: Pay) -> Paid:
            faults.check("pay", command.order)
            return Paid(command.order)

        @decide
        def refund(self, command: Refund) -> Refunded:
            faults.check("refund", command.order)
            return Refunded(command.order)

        @evolve
        def did_pay(self, event: Paid) -> None:
            self.paid = True

        @evolve
        def did_refund(self, event: Refunded) -> None:
            self.paid = False

    @ledgers.aggregate
    class Page:
        @decide(creates=True)
        def book(self, command: Book) -> Booked:
            faults.check("book", command.order)
            return Booked(command.order)

        @evolve
        def booked(self, event: Booked) -> None:
            pass

    @desks.saga
    class Sale:
        sell: Sell

        @step
        def take(self) -> list[Take]:
            return [Take(item, self.sell.order) for item in self.sell.items]

        @undo(take)
        def put_back(self, taken: Taken) -> Return:
            return Return(taken.item, taken.order)

        @step(deadline_seconds=deadline, independent=independent)
        def pay(self) -> Pay:
            return Pay(self.sell.order)

        @undo(pay)
        def refund(self, paid: Paid) -> Refund:
            return Refund(paid.order)

        @pivot(deadline_seconds=deadline)
        def book(self) -> Book:
            return Book(self.sell.order)

        @step(deadline_seconds=deadline)
        def post(self) -> Post | None:
            return Post(self.sell.post, self.sell.order) if self.sell.post else None

        @answer
        def sold(self) -> Sold:
            return Sold(self.sell.order)

    return {"depot": depots, "till": tills, "ledger": ledgers, "desk": desks}


def system(
    faults: Faults | None = None, *, retry: Retry = DEFAULT, deadline: float = 5, independent: bool = False
) -> System:
    """The four services as a system."""
    return System(make(faults or Faults(), retry, deadline, independent=independent).values(), name="selling")


def types(virtual: VirtualSystem, name: str, kind: str = "event") -> list[str]:
    """Short names of the records of a kind in a log, in order."""
    found = (record.type for record in virtual.log(name) if record.kind == kind)
    return [stored.removeprefix("holdfast.").removeprefix(f"{name}.").removesuffix(".v1") for stored in found]


def bodies(records: list[Record], stored: str) -> list[dict[str, object]]:
    """The payloads of the records of that type."""
    return [msgspec.json.decode(record.data) for record in records if record.type == stored]
