"""A small system made to be crashed: a desk that deals, cells that give and take back, a till that is paid.

One saga, `Deal`, has everything a saga can have; what happens to it is said in the command that begins it: which cells
it takes from, what is refused and how often. `wrong` judges the logs alone, by code that shares nothing with the
runtime: every deal whole or undone, nothing twice, every record with its cause.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from holdfast import Command, Contract, Event, Rejected, Rejection, Service, System, answer, decide, evolve, pivot, step
from holdfast import undo as undoes
from holdfast.core.log.record import Record
from holdfast.errors import CommandError, StoreError
from holdfast.runtime.edge.commands import Outcome
from holdfast.testing import VirtualSystem

cell, till, desk = Contract("cell"), Contract("till"), Contract("desk")


@cell.event
class Filled(Event):
    id: str
    amount: int


@cell.event
class Taken(Event):
    id: str
    deal: str


@cell.event
class Returned(Event):
    id: str
    deal: str


@cell.event
class Refused(Event):
    id: str
    deal: str


@cell.command(key="id")
class Fill(Command[Filled]):
    id: str
    amount: int = 1


@cell.command(key="id")
class Take(Command[Taken]):
    id: str
    deal: str


@cell.command(key="id")
class Return(Command[Returned]):
    id: str
    deal: str
    refusals: int = 0


@till.event
class Paid(Event):
    deal: str


@till.event
class PaidBack(Event):
    deal: str


@till.event
class Told(Event):
    deal: str


@till.event
class Declined(Event):
    deal: str


@till.command(key="deal")
class Pay(Command[Paid]):
    deal: str
    fine: bool = True


@till.command(key="deal")
class PayBack(Command[PaidBack]):
    deal: str


@till.command(key="deal")
class Tell(Command[Told]):
    deal: str
    refusals: int = 0


@desk.event
class Booked(Event):
    deal: str


@desk.event
class Dealt(Event):
    deal: str
    got: tuple[str, ...]
    gifts: tuple[str, ...]


@desk.command(key="deal")
class Book(Command[Booked]):
    deal: str
    fine: bool = True


@desk.command(key="deal")
class Deal(Command[Dealt]):
    deal: str
    cells: tuple[str, ...] = ("a", "b")
    gifts: tuple[str, ...] = ()
    pay: bool = True
    pays: bool = True
    books: bool = True
    return_refusals: int = 0
    tell_refusals: int = 0
    raises: bool = False


Breaks = Callable[[Any], None]


def make(breaks: Breaks = lambda command: None) -> dict[str, Service]:
    """The three services; `breaks` is called first in every decider of cell and till, and may raise."""
    cells, tills, desks = Service(cell), Service(till), Service(desk)

    @cells.aggregate
    class Cell:
        amount: int = 0
        deals: dict[str, int] = {}
        """Deal -> refusals of its return."""

        @decide(creates=True)
        def fill(self, command: Fill) -> Filled:
            breaks(command)
            return Filled(command.id, command.amount)

        @decide
        def take(self, command: Take) -> Taken:
            breaks(command)
            if not self.amount:
                raise Rejected("empty", cell=command.id)
            return Taken(command.id, command.deal)

        @decide
        def put_back(self, command: Return) -> Returned:
            breaks(command)
            if self.deals[command.deal] < command.refusals:
                raise Rejected("not_now", events=[Refused(command.id, command.deal)])
            return Returned(command.id, command.deal)

        @evolve
        def filled(self, event: Filled) -> None:
            self.amount += event.amount

        @evolve
        def taken(self, event: Taken) -> None:
            self.amount -= 1
            self.deals[event.deal] = 0

        @evolve
        def returned(self, event: Returned) -> None:
            self.amount += 1
            del self.deals[event.deal]

        @evolve
        def refused(self, event: Refused) -> None:
            self.deals[event.deal] += 1

    @tills.aggregate
    class Slot:
        declined: int = 0

        @decide(creates=True)
        def pay(self, command: Pay) -> Paid:
            breaks(command)
            if not command.fine:
                raise Rejected("declined", "no money", events=[Declined(command.deal)])
            return Paid(command.deal)

        @decide
        def pay_back(self, command: PayBack) -> PaidBack:
            return PaidBack(command.deal)

        @decide(creates=True)
        def tell(self, command: Tell) -> Told:
            breaks(command)
            if self.declined < command.refusals:
                raise Rejected("not_yet", events=[Declined(command.deal)])
            return Told(command.deal)

        @evolve
        def noted(self, event: Declined) -> None:
            self.declined += 1

    _desk(desks)
    return {"cell": cells, "till": tills, "desk": desks}


def _desk(desks: Service) -> None:
    @desks.aggregate
    class Page:
        booked: bool = False

        @decide(creates=True)
        def book(self, command: Book) -> Booked:
            if not command.fine:
                raise Rejected("closed")
            return Booked(command.deal)

        @evolve
        def noted(self, event: Booked) -> None:
            self.booked = True

    @desks.saga
    class Dealing:
        deal: Deal

        @step
        def take(self) -> list[Take]:
            return [Take(name, self.deal.deal) for name in self.deal.cells]

        @undoes(take)
        def put_back(self, taken: Taken) -> Return:
            return Return(taken.id, taken.deal, self.deal.return_refusals)

        @step(partial=True)
        def gift(self) -> list[Take]:
            return [Take(name, self.deal.deal + "+") for name in self.deal.gifts]

        @undoes(gift)
        def give_back(self, taken: Taken) -> Return:
            return Return(taken.id, taken.deal)

        @step(when=lambda self: self.deal.pay, deadline_seconds=5)
        def pay(self, take: list[Taken]) -> Pay:
            if self.deal.raises:
                raise Rejected("changed_my_mind", got=len(take))
            return Pay(self.deal.deal, self.deal.pays)

        @undoes(pay)
        def pay_back(self, paid: Paid) -> PayBack:
            return PayBack(paid.deal)

        @pivot
        def book(self) -> Book:
            return Book(self.deal.deal, self.deal.books)

        @step
        def tell(self) -> Tell:
            return Tell(self.deal.deal, self.deal.tell_refusals)

        @answer
        def done(self, take: list[Taken], gift: list[Taken | Rejection], book: Booked) -> Dealt:
            got = tuple(taken.id for taken in take)
            gifts = tuple(found.id if isinstance(found, Taken) else found.code for found in gift)
            return Dealt(book.deal, got, gifts)


def ring(breaks: Breaks = lambda command: None) -> System:
    """The three services as a system."""
    return System(make(breaks).values(), name="ring")


async def ask(system: VirtualSystem, command: Command[Any], key: str, *, seconds: float = 120.0) -> Outcome:
    """The outcome of a command, asked for under one key until there is one, as a patient client would."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await system.client.send(command, key=key, wait_seconds=1.0)
            except (CommandError, StoreError):
                await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - asked, not told
            await asyncio.sleep(0.0005)


def logged(system: VirtualSystem, name: str, stored: str) -> int:
    """How many records of a type a service's log holds."""
    return sum(record.type == stored for record in system.log(name))


def wrong(system: VirtualSystem, deals: dict[str, Deal], *, clocks_agree: bool = True) -> list[str]:
    """What the logs say that may not be, empty when all is well; every deal must have ended."""
    return judge({name: system.log(name) for name in system.stores}, deals, clocks_agree=clocks_agree)


def judge(logs: dict[str, list[Record]], deals: dict[str, Deal], *, clocks_agree: bool = True) -> list[str]:
    """The same, of these logs; where the services' clocks do not agree, a cause may be dated after its effect."""
    found = [text for name in logs for text in _unrelated(name, logs, clocks_agree=clocks_agree)]
    seen: dict[str, Counter[str]] = {}
    for records in logs.values():
        for record in records:
            if record.kind == "event":
                body = msgspec.json.decode(record.data)
                name = record.type.split(".")[1]
                seen.setdefault(body.get("deal", ""), Counter())[f"{name}:{body.get('id', '')}"] += 1
    for deal, command in deals.items():
        found += _judged(deal, command, seen.get(deal, Counter()), seen.get(deal + "+", Counter()))
    return found


def _judged(deal: str, command: Deal, main: Counter[str], gifts: Counter[str]) -> list[str]:
    done = main["dealt:"]
    expected: Counter[str] = Counter()
    if done:
        expected.update({f"taken:{name}": 1 for name in command.cells})
        expected.update({"dealt:": 1, "booked:": 1, "told:": 1, "paid:": int(command.pay)})
    else:
        taken = {name: main[f"taken:{name}"] for name in command.cells}
        expected.update({f"taken:{name}": min(count, 1) for name, count in taken.items()})
        expected.update({f"returned:{name}": min(count, 1) for name, count in taken.items()})
        expected.update({"paid:": min(main["paid:"], 1), "paid_back:": min(main["paid:"], 1)})
    main = Counter({name: count for name, count in main.items() if not name.startswith(("refused", "declined"))})
    found = [f"{deal}: {name} {main[name]} times, not {expected[name]}" for name in {*main, *expected}
             if main[name] != expected[name]]  # fmt: skip
    for name in command.gifts:
        kept = gifts[f"taken:{name}"] - gifts[f"returned:{name}"]
        if gifts[f"taken:{name}"] > 1 or kept < 0 or (kept and not done):
            found.append(f"{deal}: gift {name}: {dict(gifts)}")
    return found


def _unrelated(name: str, logs: dict[str, list[Record]], *, clocks_agree: bool) -> list[str]:
    """G7: records without a transaction, or whose cause is found nowhere."""
    found: list[str] = []
    for record in logs[name]:
        log, _, position = record.cause.partition("@")
        if log in logs and position:
            at = int(position)
            cause = next((one for one in logs[log] if one.position == at), None)
            fine = cause is not None and cause.tx == record.tx and (cause.at <= record.at or not clocks_agree)
        else:
            timer = record.cause.startswith(f"{name}!") and record.stream.startswith("Dealing/")
            fine = record.cause == record.tx or timer
        if not record.tx or not fine:
            found.append(f"{name}@{record.position} {record.type}: tx {record.tx!r}, cause {record.cause!r}")
    return found
