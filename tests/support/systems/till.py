"""One service and no more: tills that are added to, by the messages of a peer `desk`, and whose handler can fail."""

import msgspec

from holdfast import Command, Contract, Event, Rejected, Service, decide, evolve
from holdfast.core.log.record import Headers
from holdfast.core.wire.frame import WireRecord
from holdfast.runtime.node import Node

till = Contract("till")


@till.event
class Added(Event):
    till: str
    cents: int


@till.command(key="till")
class Add(Command[Added]):
    till: str
    cents: int


class Broken(Exception):
    """A handler's bug."""


def make(broken: set[str]) -> Service:
    """A till; those in `broken` have a handler that fails."""
    service = Service(till)

    @service.aggregate
    class Till:
        cents: int = 0
        adds: int = 0

        @decide(creates=True)
        def add(self, command: Add) -> Added:
            if command.till in broken:
                raise Broken("not today")
            if command.cents < 0:
                raise Rejected("negative", "cannot be")
            return Added(command.till, command.cents)

        @evolve
        def added(self, event: Added) -> None:
            self.cents += event.cents
            self.adds += 1

    return service


def message(position: int, name: str, cents: int) -> WireRecord:
    """An `Add` as the peer `desk` sends it."""
    data = msgspec.Raw(msgspec.json.encode(Add(name, cents)))
    return WireRecord(position, "command", "till.add.v1", data, "tx", "tx", 1, headers=Headers(key=name))


async def adds(node: Node, name: str) -> int:
    """How often that till was added to, by its log."""
    (loaded,) = await node.store.load([f"Till/{name}"])
    return len([record for record in loaded.records if record.type == "till.added.v1"])
