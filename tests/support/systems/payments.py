"""A provider in memory, and the office of examples/cards with a wallet that charges there: for tests of effects.

The provider carries out every request that reaches it, whatever becomes of who sent it, and charges each of them unless
it is told to honour keys. `judge` compares what it did with what the services and their customers believe.
"""

import asyncio
from collections import Counter
from typing import Any

import msgspec

from cards.contracts import Bought, Buy, Charge, Charged, Refund, Refunded, wallet
from cards.services import order_service
from holdfast import Attempt, Rejected, Retry, Service, System
from holdfast.errors import CommandError, NotDone
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.runtime.ops.why import parked
from holdfast.testing.simulation.system import VirtualSystem

FAST = Retry(attempts_max=50, first_seconds=0.2, last_seconds=1)
LIMIT = 2.0
"""Seconds that a call may take here; a sale waits 5 for its charge."""


class Lost(Exception):
    """The connection broke."""


class Provider:
    """A provider in memory. A request that has reached it is carried out, whatever becomes of who sent it."""

    def __init__(self, *, keys: bool = False) -> None:
        self.keys = keys
        self.lines: list[tuple[str, str, str]] = []
        """(charge, declined or refund; key; order), in the order done."""
        self.calls: list[tuple[str, str, str, int]] = []
        """(charge, probe or refund; order; key; number of the attempt), in the order begun."""
        self.faults: dict[str, list[str]] = {}
        """Order -> what happens to its next requests: `lost before`, `lost after`, `not done`, `cancelled`, seconds, or
        nothing."""
        self.probe_faults: dict[str, list[str]] = {}
        self.declines: set[str] = set()
        self.seconds = 0.05
        self.working: Counter[str] = Counter()
        self.at_once = 0
        self.seen: list[list[str]] = []
        """What stood in the wallet's log when each charge began."""
        self.log: Any = list[Any]

    def numbers(self, what: str, order: str) -> list[int]:
        """The numbers of an order's attempts; that all have the same key is checked."""
        mine = [(key, number) for kind, whose, key, number in self.calls if (kind, whose) == (what, order)]
        assert len({key for key, _ in mine}) <= 1, "another key for another attempt"
        return [number for _, number in mine]

    def count(self, kind: str, order: str) -> int:
        """Lines of that kind for an order."""
        return sum((one, whose) == (kind, order) for one, _, whose in self.lines)

    async def charge(self, command: Charge, attempt: Attempt) -> Charged:
        """Charge; an order in `declines` is declined."""
        order = command.order_id
        self.calls.append(("charge", order, attempt.key, attempt.number))
        self.seen.append([record.type for record in self.log() if record.kind == "effect"])
        faults = self.faults.get(order, [])
        fault = faults.pop(0) if faults else ""
        if fault == "not done":
            raise NotDone("the provider is down")
        if fault == "cancelled":
            raise asyncio.CancelledError
        await asyncio.sleep(0.01)
        if fault == "lost before":
            raise Lost
        await asyncio.shield(asyncio.ensure_future(self._do(order, attempt.key, fault)))
        if fault == "lost after":
            raise Lost
        return self._said(attempt.key, order, command.amount_cents)

    async def _do(self, order: str, key: str, fault: str) -> None:
        self.working[key] += 1
        self.at_once = max(self.at_once, self.working.total())
        await asyncio.sleep(float(fault) if fault[:1].isdigit() else self.seconds)
        self.working[key] -= 1
        if not (self.keys and any(key == known for _, known, _ in self.lines)):
            self.lines.append(("declined" if order in self.declines else "charge", key, order))

    async def look_up(self, command: Charge, attempt: Attempt) -> Charged | None:
        """What became of a key; fails while it is at work on it."""
        self.calls.append(("probe", command.order_id, attempt.key, attempt.number))
        faults = self.probe_faults.get(command.order_id, [])
        await asyncio.sleep(0.01)
        if self.working[attempt.key] or (faults and faults.pop(0)):
            raise Lost
        if not any(attempt.key == key for _, key, _ in self.lines):
            return None
        return self._said(attempt.key, command.order_id, command.amount_cents)

    async def refund(self, command: Refund, attempt: Attempt) -> Refunded:
        """Give back, once."""
        self.calls.append(("refund", command.order_id, attempt.key, attempt.number))
        await asyncio.sleep(0.01)
        if ("refund", command.charge, command.order_id) not in self.lines:
            self.lines.append(("refund", command.charge, command.order_id))
        await asyncio.sleep(0.01)
        return Refunded(command.order_id, command.amount_cents)

    def _said(self, key: str, order: str, cents: int) -> Charged:
        if order in self.declines:
            raise Rejected("declined")
        return Charged(order, cents, key)


def wallet_of(provider: Provider, *, probe: bool = True, idempotent: bool = False, seconds: float = LIMIT) -> Service:
    """The wallet, anew."""
    service = Service(wallet, owner="team-money", retry=FAST)

    async def look_up(command: Charge, attempt: Attempt) -> Charged | None:
        return await provider.look_up(command, attempt)

    @service.effect(probe=look_up if probe else None, idempotent=idempotent, seconds=seconds)
    async def charge(command: Charge, attempt: Attempt) -> Charged:
        return await provider.charge(command, attempt)

    @service.effect(idempotent=True, seconds=LIMIT)
    async def refund(command: Refund, attempt: Attempt) -> Refunded:
        return await provider.refund(command, attempt)

    return service


def office(provider: Provider, **how: Any) -> VirtualSystem:
    """The office and its wallet."""
    virtual = VirtualSystem(System([order_service, wallet_of(provider, **how)], name="cards"))
    provider.log = lambda: virtual.log("wallet")
    return virtual


def buy(virtual: VirtualSystem, order: str = "o1") -> "asyncio.Task[Any]":
    """A sale on its way; its customer asks with the same key until there is an answer."""

    async def customer() -> Any:
        while True:
            try:
                return (await virtual.client.send(Buy(order, f"seat {order}", 700, "4111"), key=order)).answer
            except CommandError:
                await asyncio.sleep(0.3)

    return asyncio.get_running_loop().create_task(customer())


def notes(virtual: VirtualSystem) -> list[str]:
    """What the effects left in the wallet's log, beside outcomes; a probe's with what it found."""
    found = [record for record in virtual.log("wallet") if record.kind == "effect"]
    bodies = [msgspec.json.decode(record.data) for record in found]
    return [
        f"{record.type.rpartition('.')[2]} {body.get('found', '')}".strip()
        for record, body in zip(found, bodies, strict=True)
    ]


def judge(virtual: VirtualSystem, provider: Provider, answers: dict[str, Any]) -> None:
    """One charge at most for an order; what is charged and not given back is sold, told, and nothing else is."""
    events = [(name, record) for name in ("order", "wallet") for record in virtual.log(name) if record.kind == "event"]
    told = Counter((record.type, msgspec.json.decode(record.data)["order_id"]) for _, record in events)
    for order, answer in answers.items():
        charges, refunds = provider.count("charge", order), provider.count("refund", order)
        assert charges <= 1 and refunds <= charges, (order, provider.lines)
        good = isinstance(answer, Bought)
        assert good == (charges - refunds == 1) == bool(told["order.sold.v1", order]), (order, answer)
        assert told["order.reserved.v1", order] == told["order.released.v1", order] + good, order
        assert (told["wallet.charged.v1", order], told["wallet.refunded.v1", order]) == (charges, refunds)
        provider.numbers("charge", order)


async def resolve_all(virtual: VirtualSystem, provider: Provider) -> None:
    """A person looks every parked call up at the provider, and says it again where the service crashes meanwhile."""
    for _ in range(30):
        try:
            node = virtual.nodes["wallet"]
            for found in parked(node):
                assert found.unknown, "parked, and its outcome is known"
                order = found.stream.partition("/")[2]
                keys = [key for kind, key, whose in provider.lines if (kind, whose) == ("charge", order)]
                data = msgspec.Raw(msgspec.json.encode(Charged(order, 700, keys[0]))) if keys else None
                decision = "done" if keys else "refused"
                await repair(node, Ask("resolve", found.message, "on call", "looked it up", data, decision))
            return
        except (CommandError, KeyError):
            await asyncio.sleep(0.5)
    raise AssertionError("what is parked cannot be resolved")
