"""Staged commit: what it costs beside the same saga, and what a key that everybody wants does to it.

Each transaction takes one from a stock and writes a line of its own in another service. `apart`: every transaction has
a stock of its own; `hot`: all take from one, by an ordinary saga (which isolates nothing), staged with the stream
locked, and staged with the stock as an escrow field. SQLite, three services in one process.
"""

from pathlib import Path

from bench.holdfast_side import in_process
from bench.load import Measured, closed_loop
from holdfast import Command, Contract, Event, Service, System, answer, decide, escrow, evolve, step

stock, lines, desk = Contract("stock"), Contract("lines"), Contract("desk")


@stock.event
class Taken(Event):
    sku: str


@stock.event
class Lent(Event):
    sku: str


@stock.command(key="sku")
class Take(Command[Taken]):
    sku: str


@stock.command(key="sku")
class Lend(Command[Lent]):
    sku: str


@lines.event
class Written(Event):
    id: str


@lines.command(key="id")
class Write(Command[Written]):
    id: str


@desk.event
class Sold(Event):
    id: str


@desk.command(key="id")
class SellPlain(Command[Sold]):
    id: str
    sku: str


@desk.command(key="id")
class SellLocked(Command[Sold]):
    id: str
    sku: str


@desk.command(key="id")
class SellShared(Command[Sold]):
    id: str
    sku: str


stocks, writers, desks = Service(stock), Service(lines), Service(desk)


@stocks.aggregate
class Item:
    left: int = 1_000_000_000

    @decide(creates=True)
    def take(self, command: Take) -> Taken:
        return Taken(command.sku)

    @evolve
    def taken(self, event: Taken) -> None:
        self.left -= 1


@stocks.aggregate
class SharedItem:
    left: int = escrow(default=1_000_000_000, min=0)

    @decide(creates=True)
    def lend(self, command: Lend) -> Lent:
        return Lent(command.sku)

    @evolve
    def lent(self, event: Lent) -> None:
        self.left -= 1


@writers.aggregate
class Line:
    written: bool = False

    @decide(creates=True)
    def write(self, command: Write) -> Written:
        return Written(command.id)

    @evolve
    def done(self, event: Written) -> None:
        self.written = True


@desks.saga
class Plain:
    sell: SellPlain

    @step
    def both(self) -> list[Take | Write]:
        return [Take(self.sell.sku), Write(self.sell.id)]

    @answer
    def sold(self) -> Sold:
        return Sold(self.sell.id)


@desks.saga(staged=True)
class Locked:
    sell: SellLocked

    @step
    def both(self) -> list[Take | Write]:
        return [Take(self.sell.sku), Write(self.sell.id)]

    @answer
    def sold(self) -> Sold:
        return Sold(self.sell.id)


@desks.saga(staged=True)
class Shared:
    sell: SellShared

    @step
    def both(self) -> list[Lend | Write]:
        return [Lend(self.sell.sku), Write(self.sell.id)]

    @answer
    def sold(self) -> Sold:
        return Sold(self.sell.id)


system = System([stocks, writers, desks], name="sales")
KINDS = {"saga": SellPlain, "staged": SellLocked, "escrow": SellShared}


async def sales(folder: Path, kind: str, callers: int, seconds: float, *, hot: bool) -> Measured:
    """Transactions answered: an ordinary saga at its end, a staged one at its commit point."""
    sell = KINDS[kind]
    async with in_process(folder, system) as client:

        async def one(number: int) -> None:
            await client.run(sell(f"s{number}", "hot" if hot else f"k{number}"), wait_seconds=120)

        return await closed_loop(one, callers, seconds)
