"""A shelf and a till, and books of them: their logs entered by hand, as an audit reads them."""

from collections.abc import Iterator
from typing import Any

import msgspec

from holdfast import Command, Contract, Event, Happened, Service, System, decide, evolve
from holdfast.core.audit.audit import Audit
from holdfast.core.audit.cut import NOTHING, Seen
from holdfast.core.audit.settled import Mark
from holdfast.core.log.record import REJECTED

shelf, till = Contract("shelf"), Contract("till")
shelves, tills = Service(shelf), Service(till)


@shelf.event(version=2, upcasts={1: lambda old: {"sku": old["name"], "units": old["units"]}})
class Put(Event):
    sku: str
    units: int


@shelf.event
class Gone(Event):
    sku: str
    units: int


@till.event
class Paid(Event):
    sku: str
    units: int


@shelf.command(key="sku")
class Fill(Command[Put]):
    sku: str
    units: int


@till.command(key="sku")
class Pay(Command[Paid]):
    sku: str
    units: int


@shelves.aggregate
class Board:
    units: int = 0

    @decide(creates=True)
    def fill(self, command: Fill) -> Put:
        return Put(command.sku, command.units)

    @evolve
    def put(self, event: Put) -> None:
        self.units += event.units


@tills.aggregate
class Drawer:
    units: int = 0

    @decide(creates=True)
    def pay(self, command: Pay) -> Paid:
        return Paid(command.sku, command.units)

    @evolve
    def paid(self, event: Paid) -> None:
        self.units += event.units


class Books:
    """Two logs, entered by hand, and an audit that reads them."""

    def __init__(self, system: System) -> None:
        self.audit = Audit(system)
        self.heads = {"shelf": 0, "till": 0}
        self.number = 0

    def enter(
        self, *said: tuple[str, str, dict[str, Any]], tx: str = "", cause: str = "", outcome: bool = False
    ) -> str:
        """The events of one transaction: (log, type, payload) each. Its id."""
        self.number += 1
        tx = tx or f"t{self.number}"
        for log, stored, data in said:
            self.heads[log] += 1
            kind: Any = "answer" if stored == REJECTED else "event" if data else "command"
            destination = "" if data else "till"
            payload = msgspec.Raw(msgspec.json.encode(data)) if data else NOTHING
            one = Seen(
                self.heads[log], kind, stored, tx, cause or tx, self.number, "", "", 0, destination, outcome, payload
            )
            self.audit.take(log, [one], self.heads[log], head=self.heads[log], mark=None)
        return tx

    def put(self, sku: str, units: int = 1, log: str = "shelf", name: str = "put.v2") -> str:
        """One transaction of one event."""
        return self.enter((log, f"{log}.{name}", {"sku": sku, "units": units}))

    def fly(self) -> str:
        """A transaction with a message on its way."""
        return self.enter(("shelf", "shelf.put.v2", {"sku": "f", "units": 1}), ("shelf", "till.pay.v1", {}))

    def land(self) -> None:
        """All that is on its way arrives."""
        mark = Mark(self.heads["till"], {"exchange:shelf": self.heads["shelf"]})
        self.audit.take("till", [], self.heads["till"], head=self.heads["till"], mark=mark)

    def says(self) -> list[str]:
        """What is wrong, of all invariants."""
        self.audit.check()
        return [f"{one.key}: {one.says}" if one.key else one.says for one in self.audit.report().violations]


def system() -> System:
    """The two services."""
    return System([shelves, tills], name="stall")


def books(*declared: Any, key: Any = None) -> Books:
    """Empty books, with these invariants."""
    made = system()
    for one in declared:
        made.invariant(one) if key is None else made.invariant(key=key)(one)
    return Books(made)


def skus_of(tx: Happened) -> list[str]:
    """The goods that a transaction is about."""
    return [event.sku for event in tx.of(Put, Gone)]


def good(tx: Happened) -> Iterator[str]:
    """It judges, whatever the others do."""
    if Put in tx:
        yield "good judged"
