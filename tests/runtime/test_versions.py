"""Versions of messages over deployments: whoever is deployed first, nothing stored or on its way is passed by."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from holdfast import Contract, Service, System
from holdfast.core.wire.frame import WireRecord
from holdfast.errors import KeyReused
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.inbox.message import Slot, WaitingMessage
from holdfast.runtime.inbox.waiting import Waiting
from holdfast.runtime.ops import why
from holdfast.testing import VirtualSystem, explore, virtual_time
from support.systems.versioned_press import (
    File,
    Filed,
    author,
    deploy,
    press,
    print_of,
    reader,
    seen,
    titles,
    together,
    with_saga,
)


@virtual_time
async def test_events_of_an_earlier_version_reach_who_is_new() -> None:
    """G3: what was stored before an event had its new version is fed to a view, a reaction and a saga that know the
    new one, brought up to it; so is what they had not taken yet when they were deployed."""
    old, new = press(1), press(2)
    async with together(old.service, Service(Contract("desk"))) as system:
        await system.ask(old.Print("Faust"))
        await deploy(system, new.service)
        await system.ask(new.Print("Emma", 3))
        await deploy(system, with_saga(reader(new), new))
        await system.settle()
        assert titles(system, "filed") == titles(system, "thanked") == ["Faust", "Emma"]
        assert (await seen(system, "Faust"), await seen(system, "Emma")) == ((1, 1), (1, 3))


@virtual_time
async def test_an_event_newer_than_its_reader_is_not_passed_by() -> None:
    """G3: where the producer is deployed first, its readers stand before the first event of the new version, and say
    so; deployed in their turn they go on there, in order, and nothing is missing."""
    old, new = press(1), press(2)
    async with together(old.service, with_saga(reader(old), old)) as system:
        await system.ask(old.Print("Faust"))
        await system.settle()
        await deploy(system, new.service)
        await system.ask(new.Print("Emma", 3))
        await asyncio.sleep(30)
        assert titles(system, "filed") == titles(system, "thanked") == ["Faust"]
        failures = {one.consumer.name: str(one.failure) for one in system.nodes["desk"].feeds.subscriptions}
        assert set(failures) == {"reaction:keep", "saga:Thanking", "view:Titles@1"}
        assert all("press@2 is a press.printed.v2, newer than this service knows" in one for one in failures.values())
        with pytest.raises(AssertionError, match="newer than this service knows"):
            await system.settle(within_seconds=10)
        await deploy(system, with_saga(reader(new), new))
        await system.settle()
        assert titles(system, "filed") == titles(system, "thanked") == ["Faust", "Emma"]
        assert (await seen(system, "Faust"))[0] == (await seen(system, "Emma"))[0] == 1


@virtual_time
async def test_what_comes_before_the_newer_event_is_taken() -> None:
    """What a page holds before the first event that is too new is handled; a crash there loses and doubles nothing."""
    old, new = press(1), press(2)
    async with together(old.service, Service(Contract("desk"))) as system:
        for title in ("Faust", "Emma"):
            await system.ask(old.Print(title))
        await deploy(system, new.service)
        await system.ask(new.Print("Ulysses", 2))
        await deploy(system, reader(old))
        await asyncio.sleep(5)
        await system.restart("desk")
        await asyncio.sleep(30)
        assert titles(system, "filed") == ["Faust", "Emma"]
        await deploy(system, reader(new))
        await system.settle()
        assert titles(system, "filed") == ["Faust", "Emma", "Ulysses"]


@virtual_time
async def test_a_reader_that_stands_does_not_go_back() -> None:
    """What a reader has passed before the event that is too new stays passed, over tries and restarts: its position is
    what `at_least` and the log's lag are judged by."""
    old, new = press(1), press(2)
    async with together(new.service, with_saga(reader(old), old)) as system:
        await system.crash("desk")
        for title in ("a", "b", "c"):
            await system.ask(new.Clean(title))
        await system.ask(new.Print("Faust", 2))
        await system.start("desk")
        await asyncio.sleep(2)
        for _ in range(100):
            assert {one.position for one in system.nodes["desk"].feeds.subscriptions} == {3}
            await asyncio.sleep(0.3)
        cursors = await system.stores["desk"].cursors()
        assert {cursor.position for name, cursor in cursors.items() if name.endswith(":press")} >= {3}


@virtual_time
async def test_a_key_asked_again_after_a_new_version_has_its_answer() -> None:
    """G2: a command that was asked before its new version came is the same command, brought up to it; another under
    its key is refused, as ever."""
    old, new = press(1), press(2)
    async with together(old.service, reader(old)) as system:
        first = await system.ask(old.Print("Faust"), key="k")
        await deploy(system, new.service)
        again = await system.ask(new.Print("Faust", 1), key="k")
        assert again.tx == first.tx
        with pytest.raises(KeyReused):
            await system.ask(new.Print("Faust", 2), key="k")
        await system.settle()
        assert len([one for one in system.log("press") if one.kind == "event"]) == 1


def test_who_asks_by_old_names_gets_the_new_ones_too() -> None:
    """Types of this contract are completed by later versions; those of others, and nonsense, stay as they are."""
    contract = press(2).service.contract
    assert contract.with_newer(["press.printed.v1"]) == ("press.printed.v1", "press.printed.v2")
    asked = ["press.printed.v2", "press.gone.v1", "press.printed.vx", "press.printed.v²", "other.printed.v1", ""]
    asked += ["press.printed.v-1", "press.printed.v" + "9" * 5000, "press.printed.v1.v2"]
    assert contract.with_newer(asked) == tuple(asked)
    assert [contract.find(stored) for stored in asked[1:]] == [None] * (len(asked) - 1)
    assert contract.with_newer([]) == ()


def test_what_anybody_may_ask_is_not_kept_without_bounds() -> None:
    """Answers are kept for readers, who ask the same again; long questions, and many of them, fill no memory."""
    contract = press(2).service.contract
    tracemalloc.start()
    try:
        for number in range(3_000):
            contract.with_newer([f"press.{number}.v{n}" for n in range(2 if number % 20 else 1_000)])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 600_000
    assert contract.with_newer(["press.printed.v1"]) == ("press.printed.v1", "press.printed.v2")


@virtual_time
async def test_a_command_newer_than_its_receiver_waits_for_it() -> None:
    """G4: a sender deployed first is in nobody's way: its command waits, in the end parked, and is carried out once its
    receiver is deployed too."""
    old, new = press(1), press(2)
    writer = author(new)
    async with together(old.service, writer.service) as system:
        asking = asyncio.create_task(system.ask(writer.Publish("Faust")))
        await asyncio.sleep(1200)
        held = system.nodes["press"].waiting.slots()[0].message
        assert "no handler for press.print.v2" in held.error and held.parked and not asking.done()
        await deploy(system, new.service)
        assert (await asking).answer == writer.Published("Faust")
        await system.restart("press")
        await system.settle()
        assert [one.type for one in system.log("press") if one.kind == "event"] == ["press.printed.v2"]


OLD, NEW = press(1), press(2)
first_version = System([OLD.service, with_saga(reader(OLD), OLD)], name="print shop")
READER = with_saga(reader(NEW), NEW)


async def deploying(system: VirtualSystem, services: Sequence[Service]) -> None:
    """Prints before, between and after the deployments of press and desk, while what came of them is on its way."""

    async def ask(title: str, of: SimpleNamespace) -> None:
        await system.ask(print_of(of)(title), title)

    await asyncio.gather(ask("a", OLD), ask("b", OLD))
    for service in services:
        system.services[service.name] = service
        system.crash_soon(service.name)
        while service is not getattr(system.nodes.get(service.name), "service", None):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.05)
        of = NEW if system.services["press"] is NEW.service else OLD
        await asyncio.gather(ask(f"after {service.name}", of), ask(f"again {service.name}", of))
    await system.settle()
    printed = [msgspec.json.decode(one.data)["title"] for one in system.log("press") if one.kind == "event"]
    assert sorted(titles(system, "filed")) == sorted(titles(system, "thanked")) == sorted(printed)
    assert len(printed) == 6 and len(set(printed)) == 6


async def reader_first(system: VirtualSystem) -> None:
    await deploying(system, (READER, NEW.service))


async def producer_first(system: VirtualSystem) -> None:
    await deploying(system, (NEW.service, READER))


@pytest.mark.parametrize("scenario", [reader_first, producer_first])
def test_deployments_survive_whatever_goes_wrong(scenario: Any) -> None:
    """G1, G3, G4: whoever is deployed first, and whatever crashes or is lost meanwhile: each print is filed once and
    thanked for once."""
    assert explore(first_version, scenario, schedules=60, seed=2).runs == 60


@pytest.mark.soak
@pytest.mark.parametrize("scenario", [reader_first, producer_first])
def test_deployments_survive_for_longer(scenario: Any) -> None:
    """The same on thousands of schedules."""
    assert explore(first_version, scenario, schedules=3_000, seed=3).runs == 3_000


def test_what_has_found_its_decider_stands_in_the_order_received() -> None:
    """Messages that waited where nothing decided them go among those of their stream, oldest first, each row moved with
    its message, and are tried anew; what is at home stays as it is."""

    def slot(stream: str, number: int, **how: Any) -> Slot:
        record = WireRecord(number, "command", "press.print.v2", msgspec.Raw(b"{}"), "t", "t", 0)
        return Slot(f"{stream}#{number:012d}", WaitingMessage("desk", record, 0, **how), durable=True)

    lost = [slot("?/print/a", 3, parked=5, attempts=12, error="no handler"), slot("?/print/a", 7)]
    home = [slot("Plate/a", 5, attempts=2, error="bug"), slot("Plate/b", 6)]
    waiting = Waiting(Dispatch(Service(Contract("idle"))))
    for one in (*lost, *home):
        waiting.put(one)
    rows = waiting.rehome(lambda slot: "Plate/a" if slot.stream.startswith("?") else slot.stream, lambda message: False)
    found = {stream: [message.record.position for message in waiting.on(stream)] for stream in waiting.streams()}
    assert found == {"Plate/a": [3, 5, 7], "Plate/b": [6]}
    assert [(row.key, row.data is None) for row in rows] == [
        ("?/print/a#000000000003", True), ("Plate/a#000000000003", False),
        ("?/print/a#000000000007", True), ("Plate/a#000000000007", False),
    ]  # fmt: skip
    assert not any(one.message.parked or one.message.error for one in lost) and home[0].message.error == "bug"
    assert waiting.rehome(lambda slot: slot.stream, lambda message: True) == []


@virtual_time
async def test_a_saga_whose_class_is_gone_is_said_and_goes_on_when_it_is_back() -> None:
    """A release without the class of a saga that is under way: it is in view as stuck, with what would cure it, and
    hurts no other; a release that has it again takes it up where it stood."""
    system = VirtualSystem(System([OLD.service, with_saga(reader(OLD), OLD)], name="print shop"))
    async with system:
        system.transport.cut.add("press")
        declared, without = system.services["desk"], reader(OLD)
        asking = asyncio.create_task(system.ask(OLD.Print("Faust")))
        await asyncio.sleep(0.1)
        system.transport.cut.clear()
        while not system.nodes["desk"].dispatch.sagas.open:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.0001)
        await deploy(system, without)
        await asking
        desk = system.nodes["desk"]
        (one,) = await why.unsettled(desk)
        assert one.status == "stuck" and one.stuck.startswith("undeclared: Thanking is no saga of this release")
        (told,) = (await why.why(desk, tx=one.tx))[0].sagas
        assert told.stuck == one.stuck and told.id == one.id
        assert (await system.ask(File("Emma"))).answer == Filed("Emma")
        await deploy(system, declared)
        await system.settle()
        assert titles(system, "thanked") == ["Faust"] and await why.unsettled(system.nodes["desk"]) == []
