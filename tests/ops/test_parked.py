"""Parked: a message that has failed too often waits for a person, who retries, changes or skips it (G11)."""

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast import Command, Contract, Event, Rejection, Retry, Service, System, decide, evolve
from holdfast.errors import Busy, Contradicted, Invalid, KeyReused, Misuse, NotFound
from holdfast.runtime.ops.plan import plan
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.runtime.ops.why import parked
from holdfast.testing import VirtualSystem, virtual_time
from support.systems.sales import Book, Booked, Faults, Sell, Sold, Take, bodies, system, types

TWICE = Retry(attempts_max=2, first_seconds=1, jitter=0)


def ask(kind: Any, target: str, **fields: Any) -> Ask:
    """A repair of somebody, for some reason."""
    return Ask(kind, target, "on call", "the handler is mended", **fields)


def raw(**fields: object) -> msgspec.Raw:
    """A payload."""
    return msgspec.Raw(msgspec.json.encode(fields))


def sale(virtual: VirtualSystem, order: str, **fields: Any) -> "asyncio.Task[Any]":
    """A sale asked for at the desk, on its way."""
    sell = Sell(order, **fields)
    return asyncio.get_running_loop().create_task(virtual.client.send(sell, wait_seconds=3000))


@virtual_time
async def test_a_message_parks_and_holds_up_its_own_stream_only() -> None:
    """After as many tries as its policy says a message is parked, with owner, cause, place and fingerprint; what comes
    after it on its stream waits behind it, other streams flow, a caller at the edge is told; a restart changes none."""
    faults = Faults(broken={"take:tea"})
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        first = sale(virtual, "o1")
        await asyncio.sleep(0.5)
        second = sale(virtual, "o2", items=("tea",))
        others = [sale(virtual, f"x{n}", items=(f"cup{n}",)) for n in range(20)]
        await asyncio.sleep(10)
        assert {(await one).answer for one in others} == {Sold(f"x{n}") for n in range(20)}
        for _ in range(2):
            node = virtual.nodes["depot"]
            (found,) = parked(node)
            assert (found.owner, found.error, found.attempts) == ("team-depot", "Broken: take of tea", 2)
            assert found.where.startswith("support.systems.sales.Faults.check:") and len(found.fingerprint) == 12
            behind = [one for one in parked(node, everything=True) if one.behind]
            assert [one.behind for one in behind] == [found.message] and not first.done() and not second.done()
            with pytest.raises(Busy, match="parked"):
                await virtual.client.send(Take("tea", "edge"))
            await virtual.restart("depot")
            await asyncio.sleep(200)
        faults.broken.clear()
        done = await repair(virtual.nodes["depot"], ask("retry", found.message))
        assert done.how == "applied" and (await first).answer == Sold("o1") and (await second).answer == Sold("o2")
        (word,) = [record for record in virtual.log("depot") if record.kind == "repair"]
        assert (word.cause, word.tx) == (found.message, found.tx)
        assert msgspec.json.decode(word.data)["by"] == "on call"
        again = await repair(virtual.nodes["depot"], ask("retry", found.message))
        assert again.how == "already" and types(virtual, "depot", "repair") == ["repair.retried"]


@virtual_time
async def test_a_key_that_was_answered_is_answered_again_while_its_stream_takes_nothing() -> None:
    """G3: a command that was accepted, asked for again with its key while a message is parked on its stream, gets the
    outcome recorded the first time, also after a restart; a new command is told to come back later."""
    faults = Faults()
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        first = await virtual.client.send(Take("tea", "edge"), key="once")
        faults.broken.add("take:tea")
        selling = sale(virtual, "o1")
        await asyncio.sleep(10)
        assert len(parked(virtual.nodes["depot"])) == 1
        for _ in range(2):
            assert await virtual.client.send(Take("tea", "edge"), key="once") == first
            with pytest.raises(KeyReused):
                await virtual.client.send(Take("tea", "other"), key="once")
            with pytest.raises(Busy, match="parked"):
                await virtual.client.send(Take("tea", "new"), key="twice")
            await virtual.restart("depot")
            await asyncio.sleep(1)
        selling.cancel()


@virtual_time
async def test_a_changed_payload_answers_the_original() -> None:
    """Edit and retry: the operator's record has an id of its own and is caused by the original; what is decided is
    caused by that record, and answers the original command. A payload for another stream, or none, is refused."""
    faults = Faults(broken={"take:tea"})
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        task = sale(virtual, "o1")
        await asyncio.sleep(10)
        node = virtual.nodes["depot"]
        (found,) = parked(node)
        for wrong, error in ((raw(item="cup", order="o1"), "another|for Item/cup"), (raw(item="tea"), "order")):
            with pytest.raises(Invalid, match=error):
                await repair(node, ask("retry", found.message, data=wrong))
        before = virtual.digest()
        planned = await plan(node, ask("retry", found.message, data=raw(item="tea", order="o1-b")))
        assert planned.does[0].startswith("it fails again") and virtual.digest() == before
        faults.broken.clear()
        planned = await plan(node, ask("retry", found.message, data=raw(item="tea", order="o1-b")))
        assert planned.events == ("depot.taken.v1",) and planned.answer is not None and virtual.digest() == before
        done = await repair(node, ask("retry", found.message, data=raw(item="tea", order="o1-b")))
        assert (await task).answer == Sold("o1")
        (taken,) = [record for record in virtual.log("depot") if record.type == "depot.taken.v1"]
        assert taken.cause == done.record and msgspec.json.decode(taken.data)["order"] == "o1-b"
        (word,) = [record for record in virtual.log("depot") if record.kind == "repair"]
        assert word.cause == found.message and taken.headers.answers.startswith("Sale/")


@virtual_time
async def test_a_skipped_command_is_answered_no() -> None:
    """Skip answers the sender rejected; its saga turns back, what waited behind goes on; twice changes nothing."""
    faults = Faults(broken={"take:tea"})
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        task = sale(virtual, "o1", items=("cup", "tea"))
        await asyncio.sleep(0.5)
        second = sale(virtual, "o2")
        await asyncio.sleep(10)
        faults.broken.clear()
        node = virtual.nodes["depot"]
        (found,) = parked(node)
        planned = await plan(node, ask("skip", found.message))
        assert planned.answer is not None and planned.answer.service == "desk"
        assert (await repair(node, ask("skip", found.message))).how == "applied"
        answer = (await task).answer
        assert isinstance(answer, Rejection) and answer.code == "skipped" and answer.facts["by"] == "on call"
        assert (await second).answer == Sold("o2")
        assert (await repair(node, ask("skip", found.message))).how == "already"
        await virtual.settle()
        assert types(virtual, "depot").count("taken") == 2 and types(virtual, "depot").count("returned") == 1


@virtual_time
async def test_a_repair_said_twice_at_once_is_done_once() -> None:
    """Of two repairs of one message that come at the same time one is applied, the other says `already`."""
    faults = Faults(broken={"take:tea"})
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        task = sale(virtual, "o1")
        await asyncio.sleep(10)
        node = virtual.nodes["depot"]
        (found,) = parked(node)
        both = await asyncio.gather(*(repair(node, ask("skip", found.message)) for _ in range(2)))
        assert sorted(one.how for one in both) == ["already", "applied"]
        await task
        await virtual.settle()
        assert types(virtual, "depot", "repair") == ["repair.skipped"]
        assert len(bodies(virtual.log("depot"), "holdfast.rejected")) == 1


@virtual_time
async def test_a_reaction_takes_the_events_of_a_stream_in_order() -> None:
    """An event that comes while one before it on its stream waits is taken after it, though it would not fail."""
    broken = {"o1"}
    slow = Retry(attempts_max=99, first_seconds=20, last_seconds=20, jitter=0)
    services = [*system(Faults()).services.values(), listener(broken, slow)]
    async with VirtualSystem(System(services, name="all")) as virtual:
        await virtual.client.run(Book("o1"))
        await asyncio.sleep(1)
        broken.clear()
        await virtual.client.run(Book("o1"))
        await virtual.client.run(Book("o2"))
        await asyncio.sleep(1)
        assert [body["order"] for body in bodies(virtual.log("echo"), "echo.heard.v1")] == ["o2"]
        await asyncio.sleep(60)
        commands = [record for record in virtual.log("echo") if record.type == "echo.hear.v1"]
        causes = [int(record.cause.partition("@")[2]) for record in commands if record.headers.key == "o1"]
        assert len(causes) == 2 and causes == sorted(causes)


@virtual_time
async def test_repairs_that_cannot_be_are_refused() -> None:
    """Who and why are needed; a target that is none, or was never received, is not found; a saga's answer that waits
    cannot be skipped, a message cannot be undone; and nothing is recorded."""
    faults = Faults(broken={"take:tea"})
    async with VirtualSystem(system(faults, retry=TWICE, deadline=0)) as virtual:
        sale(virtual, "o1")
        await asyncio.sleep(10)
        node = virtual.nodes["depot"]
        (found,) = parked(node)
        with pytest.raises(Invalid, match="why"):
            await repair(node, Ask("retry", found.message, "me", " "))
        for target in ("nonsense", "desk@999999", "elsewhere@1", "Sale/none"):
            with pytest.raises(NotFound):
                await repair(node, ask("retry", target))
        for kind in ("undo", "resolve"):
            with pytest.raises(Contradicted):
                await repair(node, ask(kind, found.message, decision="done"))
        assert types(virtual, "depot", "repair") == []


@virtual_time
async def test_each_command_has_its_own_policy() -> None:
    """`service.retry` says it for one command, `Service(retry=)` for the rest; what cannot be is refused."""
    made = system(
        Faults(broken={"take:*", "pay:*"}), retry=Retry(attempts_max=3, first_seconds=1, jitter=0), deadline=0
    )
    made.services["depot"].retry(Take, Retry(attempts_max=1))
    async with VirtualSystem(made) as virtual:
        sale(virtual, "o1")
        await asyncio.sleep(0.1)
        assert [one.attempts for one in parked(virtual.nodes["depot"])] == [1]
    with pytest.raises(Misuse, match="already has a Retry"):
        made.services["depot"].retry(Take, Retry())
    for wrong in ({"attempts_max": 0}, {"first_seconds": 0}, {"last_seconds": 0.1}, {"growth": 0.5}, {"jitter": 1}):
        with pytest.raises(Misuse, match=next(iter(wrong))):
            Retry(**wrong)  # pyright: ignore[reportArgumentType]


def test_the_delays_grow_to_their_bound() -> None:
    """Each delay is `growth` times the one before, up to the last, and jitter moves it by its part."""
    policy = Retry(first_seconds=1, last_seconds=6, growth=2, jitter=0.5)
    assert [policy.delay_us(n, 0.5) for n in (1, 2, 3, 4, 5000)] == [1e6, 2e6, 4e6, 6e6, 6e6]
    assert (policy.delay_us(1, 0.0), policy.delay_us(1, 1.0)) == (5e5, 15e5)


echo = Contract("echo")


@echo.event
class Heard(Event):
    order: str


@echo.command(key="order")
class Hear(Command[Heard]):
    order: str


def listener(broken: set[str], retry: Retry) -> Service:
    """A service that reacts to payments, begins a saga by bookings, and has a view of them."""
    service = Service(echo, owner="team-echo", retry=retry)

    @service.aggregate
    class Ear:
        heard: int = 0

        @decide(creates=True)
        def hear(self, command: Hear) -> Heard:
            return Heard(command.order)

        @evolve
        def has(self, event: Heard) -> None:
            self.heard += 1

    @service.reaction
    def on_booking(event: Booked) -> Hear:
        if event.order in broken:
            raise RuntimeError(f"cannot hear {event.order}")
        return Hear(event.order)

    def key(event: Booked) -> str:
        if event.order in broken:
            raise RuntimeError(f"no row for {event.order}")
        return event.order

    @service.view
    class Bookings:
        count: int = 0

        @evolve(key=key)
        def booked(self, event: Booked) -> None:
            self.count += 1

    return service


@virtual_time
async def test_an_event_that_a_reaction_fails_at_parks_alone() -> None:
    """A reaction that fails at one event parks it on its source's stream; the events of other streams are taken, a
    restart keeps it, a retry takes it once, a skip leaves it out. A view that finds no row for an event goes on."""
    broken = {"o1", "o3"}
    services = [*system(Faults()).services.values(), listener(broken, TWICE)]
    async with VirtualSystem(System(services, name="all")) as virtual:
        for order in ("o1", "o2", "o3", "o4"):
            assert (await sale(virtual, order)).answer == Sold(order)
        await asyncio.sleep(10)
        assert types(virtual, "echo") == ["heard", "heard"]
        await virtual.restart("echo")
        node = virtual.nodes["echo"]
        first, third = parked(node)
        assert first.stream == "reaction:on_booking/ledger:Page/o1" and first.error.startswith("RuntimeError")
        rows = {key.partition("/")[2] for key, _ in await virtual.stores["echo"].scan("view")}
        assert {"o2", "o4"} < rows and {row[0] for row in rows - {"o2", "o4"}} == {"?"}, "the view went on"
        broken.clear()
        assert (await repair(node, ask("retry", first.message))).how == "applied"
        assert (await repair(node, ask("skip", third.message))).how == "applied"
        await virtual.settle()
        heard = [body["order"] for body in bodies(virtual.log("echo"), "echo.heard.v1")]
        assert heard == ["o2", "o4", "o1"] and parked(node, everything=True) == []
