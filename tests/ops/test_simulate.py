"""Simulating: what a repair would lead to, played on copies, is what it leads to (G4, G11)."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from holdfast import Command, Contract, Event, Happened, Rejection, Retry, Service, System, decide, evolve
from holdfast.core.audit.audit import Audit
from holdfast.core.audit.cut import seen
from holdfast.core.audit.settled import Open
from holdfast.core.declare.message import encode
from holdfast.core.log.record import REJECTED, Record, parse_record_id
from holdfast.core.wire.frame import to_wire
from holdfast.runtime.ops.audit import read_all
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.runtime.ops.simulate import FIRST_POSITION, Simulation
from holdfast.runtime.ops.why import parked, stuck
from holdfast.testing import VirtualSystem, virtual_time
from support.systems.payments import Provider, office
from support.systems.payments import buy as buy_seat
from support.systems.sales import Faults, Sell, system

TWICE = Retry(attempts_max=2, first_seconds=1, jitter=0)
Kind = Literal["retry", "skip", "undo", "resolve"]


def simulation(virtual: VirtualSystem) -> Simulation:
    """One that reads the logs of a system in virtual time."""

    def read(service: str, stream: str) -> list[Record]:
        return [record for record in virtual.log(service) if record.stream == stream]

    return Simulation(virtual.system, read, virtual.clock.now_us())


def ask(kind: Kind, target: str, **fields: Any) -> Ask:
    return Ask(kind, target, "on call", "it was looked into", **fields)


def sale(virtual: VirtualSystem, order: str = "o1", **fields: Any) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(virtual.client.send(Sell(order, **fields), wait_seconds=3000))


def record_of(virtual: VirtualSystem, identity: str) -> tuple[str, Record]:
    """A record by its id."""
    parsed = parse_record_id(identity)
    assert parsed is not None
    return parsed[0], next(one for one in virtual.log(parsed[0]) if one.position == parsed[1])


def told(records: list[tuple[str, Record]]) -> list[tuple[str, str, str, bytes]]:
    """What is said by records, but for times and positions, in an order of its own."""
    return sorted((name, r.kind, r.type, r.data) for name, r in records if not r.type.startswith("holdfast.repair"))


def since(virtual: VirtualSystem, before: dict[str, int]) -> list[tuple[str, Record]]:
    """What was recorded after these positions."""
    return [(name, r) for name, at in before.items() for r in virtual.log(name) if r.position > at]


def heads(virtual: VirtualSystem) -> dict[str, int]:
    return {name: len(virtual.log(name)) for name in virtual.stores}


@virtual_time
async def test_a_parked_message_that_is_retried() -> None:
    """What is simulated of a retry, to the end of the transaction, is what is recorded; nothing is written before."""
    faults = Faults(broken={"take:tea"})
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        task = sale(virtual)
        await asyncio.sleep(10)
        faults.broken.clear()
        (found,) = parked(virtual.nodes["depot"])
        before, digest = heads(virtual), virtual.digest()
        rest = simulation(virtual)
        producer, record = record_of(virtual, found.message)
        rest.message("depot", producer, to_wire(record))
        assert virtual.digest() == digest and rest.unknown == []
        assert rest.open_sagas([("desk", record.stream)]) == []
        assert all(one.position > FIRST_POSITION for _, one in rest.records)
        await repair(virtual.nodes["depot"], ask("retry", found.message))
        await task
        await virtual.settle()
        assert told(rest.records) == told(since(virtual, before))


@virtual_time
async def test_a_parked_message_that_is_skipped() -> None:
    """The saga that is told no turns back, as simulated."""
    faults = Faults(broken={"take:tea"})
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        task = sale(virtual, items=("cup", "tea"))
        await asyncio.sleep(10)
        (found,) = parked(virtual.nodes["depot"])
        before = heads(virtual)
        _, record = record_of(virtual, found.message)
        no = Rejection("skipped", "it was looked into", {"by": "on call"})
        rest = simulation(virtual)
        rest.said("depot", REJECTED, encode(no), record)
        rest.answer("desk", record.stream, record.version, REJECTED, encode(no), record.tx)
        assert rest.unknown == [] and rest.open_sagas([("desk", record.stream)]) == []
        await repair(virtual.nodes["depot"], ask("skip", found.message))
        assert isinstance((await task).answer, Rejection)
        await virtual.settle()
        skipped = [one for one in since(virtual, before) if one[1].type != REJECTED or one[0] != "depot"]
        assert told(rest.records) == told(skipped)


@virtual_time
async def test_a_stuck_undo_that_is_retried_and_a_saga_that_is_undone() -> None:
    """A saga's undo asked again ends it, as simulated; so does undoing one whose command waits: that is cancelled."""
    faults = Faults(refused={"pay:*", "return:*"})
    async with VirtualSystem(system(faults)) as virtual:
        task = sale(virtual)
        await asyncio.sleep(30)
        (found,) = await stuck(virtual.nodes["desk"])
        faults.refused.discard("return:*")
        before, rest = heads(virtual), simulation(virtual)
        rest.repair("desk", found.id, "retry", "on call", "it was looked into")
        assert rest.unknown == [] and rest.open_sagas([("desk", found.id)]) == []
        await repair(virtual.nodes["desk"], ask("retry", found.id))
        await task
        await virtual.settle()
        assert told(rest.records) == told(since(virtual, before))
    faults = Faults(broken={"pay:*"})
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        task = sale(virtual)
        await asyncio.sleep(10)
        (one,) = await virtual.nodes["desk"].sagas()
        before, rest = heads(virtual), simulation(virtual)
        rest.repair("desk", one[0], "undo", "on call", "it was looked into")
        assert rest.unknown == [] and rest.open_sagas([("desk", one[0])]) == []
        await repair(virtual.nodes["desk"], ask("undo", one[0]))
        await task
        await virtual.settle()
        events = [(name, r.type, r.data) for name, r in since(virtual, before) if r.kind == "event"]
        assert events == [(name, r.type, r.data) for name, r in rest.records if r.kind == "event"]


@virtual_time
async def test_an_undo_that_would_be_refused_leaves_it_open() -> None:
    """What would not end is said to be open, in which state."""
    faults = Faults(refused={"pay:*", "return:*"})
    async with VirtualSystem(system(faults)) as virtual:
        sale(virtual)
        await asyncio.sleep(30)
        (found,) = await stuck(virtual.nodes["desk"])
        rest = simulation(virtual)
        rest.repair("desk", found.id, "retry", "on call", "it was looked into")
        assert rest.open_sagas([("desk", found.id)]) == [f"{found.id} would be undoing"]


@virtual_time
async def test_what_lies_outside_is_not_guessed() -> None:
    """An effect is named as unknown; nothing is called, and nothing after it is simulated."""
    provider = Provider()
    provider.faults["o1"] = ["not done"] * 50
    async with office(provider, seconds=20) as virtual:
        buy_seat(virtual)
        await asyncio.sleep(3)
        (waits,) = parked(virtual.nodes["wallet"], everything=True)
        calls = len(provider.calls)
        producer, record = record_of(virtual, waits.message)
        rest = simulation(virtual)
        rest.message("wallet", producer, to_wire(record))
        assert "outside of its log" in rest.unknown[0] and rest.records == [] and len(provider.calls) == calls


left, right = Contract("left"), Contract("right")


@left.event
class Said(Event):
    word: str


@left.command(key="word")
class Say(Command[Said]):
    word: str


@right.event
class Heard(Event):
    word: str


@right.command(key="word")
class Hear(Command[Heard]):
    word: str


def echoing(fails: Callable[[], bool]) -> System:
    """A service that says, another that reacts to what is said."""
    lefts, rights = Service(left, retry=TWICE), Service(right, retry=TWICE)

    @lefts.aggregate
    class Mouth:
        said: int = 0

        @decide(creates=True)
        def say(self, command: Say) -> Said:
            return Said(command.word)

        @evolve
        def noted(self, event: Said) -> None:
            self.said += 1

    @rights.aggregate
    class Ear:
        heard: int = 0

        @decide(creates=True)
        def hear(self, command: Hear) -> Heard:
            if fails():
                raise KeyError(command.word)
            return Heard(command.word)

        @evolve
        def noted(self, event: Heard) -> None:
            self.heard += 1

    @rights.reaction
    def listen(event: Said) -> Hear:
        return Hear(event.word)

    @lefts.reaction
    def echo(event: Heard) -> Say | None:
        return Say(event.word[1:]) if len(event.word) > 1 else None

    return System([lefts, rights])


@virtual_time
async def test_reactions_go_on_from_service_to_service() -> None:
    """What reactions would send, and what comes of it, is simulated over any number of hops."""
    broken = [True]
    async with VirtualSystem(echoing(lambda: broken[0])) as virtual:
        await virtual.client.run(Say("four"))
        await asyncio.sleep(10)
        broken[0] = False
        (found,) = parked(virtual.nodes["right"])
        producer, record = record_of(virtual, found.message)
        before, rest = heads(virtual), simulation(virtual)
        rest.message("right", producer, to_wire(record))
        await repair(virtual.nodes["right"], ask("retry", found.message))
        await virtual.settle()
        assert told(rest.records) == told(since(virtual, before)) and len(rest.records) == 13


@pytest.mark.parametrize("mended", [True, False])
def test_invariants_say_what_would_hold(mended: bool) -> None:
    """An invariant that the rest of a transaction would break is named before it is done; folds are judged with it."""

    @virtual_time
    async def main() -> None:
        broken = [True]
        made = echoing(lambda: broken[0])

        @made.invariant
        def all_is_heard(tx: Happened) -> Iterator[str]:
            """Whatever is said is heard."""
            if len(tx.of(Said)) != len(tx.of(Heard)):
                yield f"{len(tx.of(Said))} said, {len(tx.of(Heard))} heard"

        @made.invariant
        class FewAreHeard:
            """Fewer than six words are heard."""

            heard: int = 0

            def settled(self, tx: Happened) -> None:
                self.heard += len(tx.of(Heard))

            def holds(self) -> Iterator[str]:
                if self.heard >= 6:
                    yield f"{self.heard} were heard"

        async with VirtualSystem(made) as virtual:
            broken[0] = False
            await virtual.client.run(Say("abc"))
            await virtual.settle()
            broken[0] = True
            outcome = await virtual.client.send(Say("four"))
            await asyncio.sleep(10)
            broken[0] = False
            (found,) = parked(virtual.nodes["right"])
            producer, record = record_of(virtual, found.message)
            rest = simulation(virtual)
            if mended:
                rest.message("right", producer, to_wire(record))
            known = [(name, r) for name in virtual.stores for r in virtual.log(name) if r.tx == outcome.tx]
            audit = Audit(virtual.system)
            await read_all(audit, virtual.nodes)
            assert audit.report().violations == () and audit.report().open == 1
            opened = Open(outcome.tx, "", 0)
            opened.records = [(name, seen(r)) for name, r in (*known, *rest.records) if r.kind in ("event", "answer")]
            said = {one.invariant: one.says for one in audit.what_if(opened)}
            assert said == ({"FewAreHeard": "7 were heard"} if mended else {"all_is_heard": "1 said, 0 heard"})

    main()
