"""Which transactions are settled, beside what the stores themselves say, in systems that fail while they are read."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import msgspec
import pytest

from cards.services import order_service
from holdfast import Command, Happened, System
from holdfast.core.audit.audit import Audit
from holdfast.core.audit.cut import seen
from holdfast.core.audit.settled import Mark
from holdfast.core.log.record import Record
from holdfast.errors import CommandError, StoreError
from holdfast.runtime.decide.sagas import OpenSaga
from holdfast.runtime.ops.audit import audit, read_all, reading
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.runtime.ops.why import stuck
from holdfast.testing import Fault, VirtualSystem, run_virtual, virtual_time
from holdfast.testing.simulation.faults import Faults, kinds_at
from support.systems.deals import Deal, Fill, ring
from support.systems.payments import LIMIT, Provider, buy, resolve_all, wallet_of
from support.systems.reactions import Post, chained
from support.systems.sales import Faults as Wrongs
from support.systems.sales import Sell
from support.systems.sales import system as selling
from support.systems.trades import ALL, Move, Order, Trade
from support.systems.trades import system as trading

SEEDS = 8
LONG_SECONDS = 10_000
"""A clock that jumps back an hour makes what was to be tried again wait for it."""
Scenario = Callable[[VirtualSystem, random.Random], Coroutine[Any, Any, None]]


async def all_of(virtual: VirtualSystem, chance: random.Random, commands: Iterable[Command[Any]]) -> None:
    """Ask for these, each when it likes."""

    async def one(command: Command[Any], later: float) -> None:
        await asyncio.sleep(later)
        await virtual.ask(command, seconds=LONG_SECONDS)

    await asyncio.gather(*(one(command, chance.uniform(0, 5)) for command in commands))


async def deals(virtual: VirtualSystem, chance: random.Random) -> None:
    """Deals that end in all the ways a saga can."""
    for name in "abc":
        await virtual.ask(Fill(name, 3))
    hows: list[dict[str, Any]] = [
        {}, {"gifts": ("c",)}, {"pays": False}, {"books": False}, {"raises": True}, {"tell_refusals": 2},
        {"return_refusals": 1, "pays": False}, {"pay": False}, {"cells": ("a", "nowhere")},
    ]  # fmt: skip
    await all_of(virtual, chance, (Deal(f"d{n}", **chance.choice(hows)) for n in range(12)))


async def trades(virtual: VirtualSystem, chance: random.Random) -> None:
    """Trades, staged, alone and as steps of orders, some of them refused."""
    await asyncio.gather(*(virtual.ask(Move(name, 20, "")) for name in "abc"))

    def trade(number: int) -> Trade:
        one, other = chance.sample("abc", 2)
        return Trade(
            f"t{number}", ((one, -chance.choice((1, 15))), (other, 1)), lists=("x",), takes=(("s", 1),),
            how=chance.choice(("", "", "no")),
        )  # fmt: skip

    asked = [trade(n) if n % 2 else Order(f"o{n}", trade(n), after=chance.choice((0, -1))) for n in range(10)]
    await all_of(virtual, chance, asked)


async def sales(virtual: VirtualSystem, chance: random.Random) -> None:
    """Sales of several items."""
    posts = ("", "p")
    asked = [Sell(f"o{n}", tuple(chance.sample("abc", 2)), post=chance.choice(posts)) for n in range(10)]
    await all_of(virtual, chance, asked)


async def charges(virtual: VirtualSystem, chance: random.Random) -> None:
    """Sales whose charge is a call of somebody else, which breaks off or takes too long."""
    faults: list[list[str]] = [[], [], ["lost before"], ["lost after"], ["not done"], [str(LIMIT * 2)]]
    provider = PROVIDERS[virtual.system.name, id(virtual.system)]
    tasks: list[asyncio.Task[Any]] = []
    for n in range(8):
        provider.faults[f"o{n}"] = list(chance.choice(faults))
        provider.declines.update({f"o{n}"} if chance.random() < 0.3 else ())
        tasks.append(buy(virtual, f"o{n}"))
        await asyncio.sleep(chance.uniform(0, 1))
    await asyncio.gather(*tasks)
    await resolve_all(virtual, provider)


async def posts(virtual: VirtualSystem, chance: random.Random) -> None:
    """Posts whose notes go from reaction to reaction."""
    await all_of(virtual, chance, (Post(f"p{n}", chance.randint(0, 3)) for n in range(8)))


PROVIDERS: dict[tuple[str, int], Provider] = {}


def charging() -> System:
    """The office of examples/cards and a wallet, and who is charged."""
    provider = Provider()
    made = System([order_service, wallet_of(provider)], name="cards")
    PROVIDERS[made.name, id(made)] = provider
    return made


RUNS: dict[str, tuple[Callable[[], System], Scenario]] = {
    "ring": (ring, deals),
    "trading": (lambda: trading(*ALL), trades),
    "selling": (lambda: selling(Wrongs(refused={"pay:o1", "book:o2"}), deadline=5), sales),
    "charging": (charging, charges),
    "chained": (chained, posts),
}


def drawn(names: list[str], chance: random.Random) -> Faults:
    """Faults of every kind, somewhere early."""
    pairs = [(one, other) for one in names for other in names if one != other]
    places = names + [f"{one}{sign}{other}" for one, other in pairs for sign in "><"]
    wheres = [chance.choice(places) for _ in range(8)]
    return Faults(tuple(Fault(chance.choice(kinds_at(where)), where, chance.randint(1, 25)) for where in wheres))


class Moment(msgspec.Struct):
    """All stores at one instant."""

    logs: dict[str, list[Record]]
    marks: dict[str, Mark]
    sagas: set[str]
    """Transactions with a saga that has not ended."""


def moment(virtual: VirtualSystem) -> Moment:
    """The stores as they are: nothing happens meanwhile."""
    logs = {name: virtual.log(name) for name in virtual.stores}
    marks: dict[str, Mark] = {}
    sagas: set[str] = set()
    for name, store in virtual.stores.items():
        rows = store._rows  # pyright: ignore[reportPrivateUsage]
        waiting = [msgspec.json.decode(data) for (kind, _), data in rows.items() if kind == "waiting"]
        cursors = {one: at.position for one, at in store._cursors.items()}  # pyright: ignore[reportPrivateUsage]
        head = store._head  # pyright: ignore[reportPrivateUsage]
        marks[name] = Mark(head, cursors, frozenset((one["producer"], one["record"][0]) for one in waiting))
        sagas |= {msgspec.json.decode(data, type=OpenSaga).tx for (kind, _), data in rows.items() if kind == "saga"}
    return Moment(logs, marks, sagas)


def open_by_hand(system: System, found: Moment) -> set[str]:
    """Transactions with something left to happen, record by record: not received, or received and waiting; an event
    that one of those who take it has not got to; a saga that has not ended."""
    left = set(found.sagas)
    for log, records in found.logs.items():
        for record in records:
            for name, service in system.services.items():
                mark = found.marks[name]
                takers = ["exchange"] if record.destination == name else []
                if record.kind == "event":
                    takers += [
                        f"reaction:{one.name}" for one in service.reactions.values() if record.type in one.events
                    ]
                    takers += [
                        f"saga:{one.name}" for one in service.sagas.values()
                        if one.begin.kind == "event" and one.begin.stored == record.type
                    ]  # fmt: skip
                for taker in takers:
                    received = record.position <= mark.cursors.get(f"{taker}:{log}", 0)
                    if not received or (log, record.position) in mark.waiting:
                        left.add(record.tx)
    return left


def told(system: System, found: Moment, chance: random.Random) -> Audit:
    """An audit of a moment, given in pages of any size, service by service in any order, looked at in between."""
    judged = Audit(system)
    while any(judged.cut.read[name] < mark.head for name, mark in found.marks.items()):
        name = chance.choice(list(found.logs))
        mark, after, limit = found.marks[name], judged.cut.read[name], chance.randint(1, 40)
        rest = [seen(one) for one in found.logs[name] if one.position > after]
        upto = rest[limit - 1].position if len(rest) > limit else mark.head
        judged.take(name, rest[:limit], upto, head=mark.head, mark=mark)
        if chance.random() < 0.5:
            judged.check()
    for name, mark in found.marks.items():
        judged.take(name, [], mark.head, head=mark.head, mark=mark)
    judged.check()
    return judged


class Watching:
    """An audit that reads a system while it runs, a page here and a page there, and notes what it called settled."""

    def __init__(self, virtual: VirtualSystem, chance: random.Random) -> None:
        self.virtual, self.chance, self.audit = virtual, chance, Audit(virtual.system)
        self.settled: dict[str, dict[str, int]] = {}
        """Transaction -> the cut at which it was called settled."""
        self.moments: list[Moment] = []
        self._begun: set[str] = set()
        """Transactions of which something was seen."""
        self._looked = dict.fromkeys(virtual.services, 0)

    async def page(self, limit: int) -> None:
        """A page of one of the services, if it is up."""
        name = self.chance.choice(list(self.virtual.services))
        if name not in self.virtual.nodes:
            return
        try:
            found = await reading(self.virtual.nodes[name], self.audit.cut.read[name], limit)
        except (CommandError, StoreError):
            return
        self.audit.take(name, found.records, found.upto, head=found.head, mark=found.mark)
        self.look()

    def look(self) -> None:
        """Judge, and note what is not open any more."""
        self.audit.check()
        at = dict(self.audit.cut.at)
        for name, position in at.items():
            new = self.virtual.log(name)[self._looked[name] :]
            self._begun |= {one.tx for one in new if one.position <= position}
            self._looked[name] += sum(one.position <= position for one in new)
        for tx in self._begun - self.audit.settling.open.keys() - self.settled.keys():
            self.settled[tx] = at

    async def follow(self) -> None:
        """Read until it is cancelled; now and then keep how the stores stand."""
        while True:
            if self.chance.random() < 0.5 and len(self.moments) < 10:
                found = moment(self.virtual)
                self.moments += [found] if open_by_hand(self.virtual.system, found) else []
            await self.page(self.chance.choice((1, 10, 100, 1000)))
            await asyncio.sleep(self.chance.choice((0.0, 0.01, 0.1, 1.0)))

    async def rest(self) -> None:
        """Read all there is."""
        for name, node in self.virtual.nodes.items():
            found = await reading(node, self.audit.cut.read[name], 100_000)
            self.audit.take(name, found.records, found.upto, head=found.head, mark=found.mark)
        self.look()


async def run(make: Callable[[], System], scenario: Scenario, chance: random.Random) -> tuple[Watching, int]:
    """A run with faults, read all the while, and then to its end; how many had been called settled before that."""
    system = make()
    faults, loss = drawn(list(system.services), chance), chance.choice((0.0, 0.05))
    async with VirtualSystem(system, faults=faults, loss=loss) as virtual:
        watching = Watching(virtual, chance)
        following = asyncio.get_running_loop().create_task(watching.follow())
        try:
            await scenario(virtual, chance)
            await virtual.settle(within_seconds=LONG_SECONDS)
            early = len(watching.settled)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
        await watching.rest()
        watching.moments.append(moment(virtual))
        return watching, early


@pytest.mark.parametrize("name", RUNS)
def test_what_is_settled_stays_so(name: str) -> None:
    """Read while it runs and fails, in pages of any size and in any order of services: of a transaction that is called
    settled nothing more ever happens. At any moment the open ones are those that the stores themselves show something
    left of, whatever order the pages came in. When the system has come to rest none is open."""
    make, scenario = RUNS[name]
    early = moments = 0
    for seed in range(SEEDS):
        chance = random.Random(f"{name}{seed}")
        watching, before = run_virtual(partial(run, make, scenario, chance), seed=seed)
        early += before
        system, settling = watching.virtual.system, watching.audit.settling
        assert not settling.open and not settling.reopened and not watching.audit.cut.blocked()
        for log in watching.virtual.stores:
            for record in watching.virtual.log(log):
                assert record.position <= watching.settled[record.tx][log], (seed, log, record)
        for found in watching.moments:
            assert set(told(system, found, chance).settling.open) == open_by_hand(system, found)
        assert open_by_hand(system, watching.moments[-1]) == set()
        moments += len(watching.moments)
    assert min(early, moments) > 2 * SEEDS, (early, moments)


@virtual_time
async def test_a_transaction_that_goes_on_is_judged_anew() -> None:
    """Where a reaction was taken out of the code after it had acted, a transaction may be called settled before that:
    then it is named as opened again, and an audit that begins anew finds all of it in one."""
    judged: list[list[str]] = []
    system = chained(notes=False)

    @system.invariant
    def notes(tx: Happened) -> None:
        judged.append([record.type for _, record in tx._open.records])  # pyright: ignore[reportPrivateUsage]

    async with VirtualSystem(chained()) as virtual:
        await virtual.ask(Post("p", 1))
        await virtual.settle()
        found = Audit(system)
        page = await reading(virtual.nodes["mill"], 0, 1)
        found.take("mill", page.records, 1, head=1, mark=None)
        found.check()
        assert judged == [["mill.posted.v1"]] and not found.stale
        await read_all(found, virtual.nodes)
        assert found.settling.reopened == {page.records[0].tx} and found.stale
        report = await audit(system, virtual.nodes)
        assert report.settled == 1 and len(judged[-1]) > 4 and judged[-1][:1] == judged[0]


@pytest.mark.parametrize("without", ["mill", "notary"])
@virtual_time
async def test_what_comes_from_outside_opens_a_transaction(without: str) -> None:
    """Where a service is not in the system that is audited, what it sends opens a transaction, and nothing has to be
    judged anew for it, also when it is read while it comes in."""
    whole = chained()
    part = System([service for name, service in whole.services.items() if name != without])
    async with VirtualSystem(whole) as virtual:
        found = Audit(part)
        nodes = {name: virtual.nodes[name] for name in part.services}
        for n in range(5):
            await virtual.ask(Post(f"p{n}", 2))
            await asyncio.sleep(0.01 * n)
            await read_all(found, nodes)
        await virtual.settle()
        await read_all(found, nodes)
        assert not found.stale and not found.settling.open
        assert (await audit(part, nodes)).settled == 5


@virtual_time
async def test_a_saga_closed_by_hand_is_open_while_an_answer_is_due() -> None:
    """G4: a saga that a person closed is not settled while a command of it is on its way: its acceptance makes it stuck
    again, the transaction open all the while; when it is closed once more it is settled, and nothing was judged too
    early. A retry that ends a stuck saga settles it as well."""
    wrongs = Wrongs(refused={"return:cup"})
    async with VirtualSystem(selling(wrongs, independent=True)) as virtual:
        found = Audit(virtual.system)
        nodes = virtual.nodes
        await virtual.crash("till")
        asking = asyncio.get_running_loop().create_task(virtual.ask(Sell("o1", ("cup",))))
        await asyncio.sleep(30)
        (one,) = await stuck(nodes["desk"])
        for verb, decision in (("resolve", "undone"), ("", ""), ("resolve", "undone")):
            if verb:
                await repair(nodes["desk"], Ask("resolve", one.id, "me", "looked into", decision=decision))
            else:
                await virtual.start("till")
            await asyncio.sleep(30)
            await read_all(found, nodes)
            ended = [bool(found.settling.open), found.stale]
            assert ended == [bool(await stuck(nodes["desk"])) or "till" not in nodes, False]
        await asking
        assert not found.settling.open
        wrongs.refused |= {"pay:o2", "return:pot"}
        asking = asyncio.get_running_loop().create_task(virtual.ask(Sell("o2", ("pot",))))
        await asyncio.sleep(30)
        (one,) = await stuck(nodes["desk"])
        await read_all(found, nodes)
        assert len(found.settling.open) == 1
        wrongs.refused.clear()
        await repair(nodes["desk"], Ask("retry", one.id, "me", "the depot takes it back"))
        await asking
        await virtual.settle()
        await read_all(found, nodes)
        assert not found.settling.open and not found.stale and found.report().settled == 2
