"""Releases that know more, or less, or other things than the one before: what waits goes on (G3, G4)."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from holdfast import Command, Contract, Event, Retry, Service, System, decide, evolve
from holdfast.core.audit.audit import Audit
from holdfast.core.audit.cut import Seen
from holdfast.core.audit.invariant import Violation
from holdfast.core.audit.settled import Mark
from holdfast.core.declare.message import decode_stored
from holdfast.core.log.record import REJECTED
from holdfast.core.saga.stage import HELD, Vote
from holdfast.core.wire.frame import WireRecord
from holdfast.errors import HoldfastError, Invalid
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.inbox.deliver import known
from holdfast.runtime.inbox.message import Slot, WaitingMessage
from holdfast.runtime.inbox.waiting import Waiting
from holdfast.runtime.node import Node
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.testing import VirtualSystem, explore, run_virtual, virtual_time
from support.systems.shelf import Books, Put, system
from support.systems.versioned_press import author, deploy, press, reader, titles, together, with_saga


@virtual_time
async def test_an_answer_newer_than_its_asker_waits_for_it() -> None:
    """G4: the responder is deployed first, and its answer is of a version that the saga does not know: it waits, in the
    end parked, and the saga goes on when its own release comes."""
    old, new = press(1), press(2)
    before, after = author(old), author(new)
    async with together(old.service, before.service) as virtual:
        await deploy(virtual, new.service)
        asking = asyncio.create_task(virtual.ask(before.Publish("Faust")))
        await asyncio.sleep(1200)
        held = virtual.nodes["author"].waiting.slots()[0].message
        assert "press.printed.v2 is not a message" in held.error and held.parked and held.unread and not asking.done()
        await deploy(virtual, before.service)
        assert virtual.nodes["author"].waiting.slots()[0].message.parked, "the same release knows no more than before"
        asking.cancel()
        await deploy(virtual, after.service)
        await virtual.settle()
        assert [one.type for one in virtual.log("author") if one.kind == "event"] == ["author.published.v1"]


@virtual_time
async def test_a_producer_that_is_taken_back_hides_nothing() -> None:
    """G3: the log of a producer that went back to an earlier release holds events that it does not know itself: a
    reader that knows them no better stands before them too, and takes them in order once both are deployed again."""
    old, new = press(1), press(2)
    async with together(old.service, with_saga(reader(old), old)) as virtual:
        await deploy(virtual, new.service)
        await virtual.ask(new.Print("Emma", 3))
        await deploy(virtual, old.service)
        await virtual.ask(old.Print("Faust"))
        await asyncio.sleep(30)
        assert titles(virtual, "filed") == []
        await deploy(virtual, new.service)
        await deploy(virtual, with_saga(reader(new), new))
        await virtual.settle()
        assert titles(virtual, "filed") == titles(virtual, "thanked") == ["Emma", "Faust"]


def viewer(of: Any, fields: int) -> Service:
    """A desk whose view counts everything so many times."""
    service, Printed = Service(Contract("desk")), of.Printed

    class Titles:
        a: int = 0

        @evolve(key=lambda event: "all")
        def on_printed(self, event: Printed) -> None:
            for name in "abc"[:fields]:
                setattr(self, name, getattr(self, name) + 1)

    for name in "bc"[: fields - 1]:
        Titles.__annotations__[name] = int
        setattr(Titles, name, 0)
    service.view(Titles)
    return service


@virtual_time
async def test_a_view_half_built_is_not_built_on_by_another_class() -> None:
    """A generation that was being built when its class changed once more is given up: the new class is built from the
    start, and its rows say all."""
    old, new = press(1), press(2)
    async with together(old.service, viewer(old, 1)) as virtual:
        for title in "abc":
            await virtual.ask(old.Print(title))
        await virtual.settle()
        await deploy(virtual, new.service)
        await virtual.ask(new.Print("d", 3))
        await deploy(virtual, viewer(old, 2))
        await asyncio.sleep(30)
        assert virtual.nodes["desk"].views.rebuilding() == {"Titles": 2}, "it stands before what it does not know"
        await deploy(virtual, viewer(new, 3))
        await asyncio.sleep(60)
        assert virtual.nodes["desk"].views.rebuilding() == {}
        found = await virtual.client.query("desk", "Titles", "all")
        assert found.row == {"a": 4, "b": 4, "c": 4} and not found.stale
        (feed,) = virtual.nodes["desk"].views.subscriptions("Titles")
        assert feed.consumer.name == "view:Titles@3"


def clerk(*, broken: bool) -> tuple[Service, type[Any], type[Any]]:
    """A service that notes what it has filed by a reaction, which may have a bug."""
    contract = Contract("clerk")
    service = Service(contract, retry=Retry(attempts_max=2, first_seconds=5.0, jitter=0.0))

    @contract.event
    class Filed(Event):
        title: str

    @contract.command(key="title")
    class File(Command[Filed]):
        title: str

    @contract.event
    class Noted(Event):
        title: str

    @contract.command(key="title")
    class Note(Command[Noted]):
        title: str

    @service.aggregate
    class Folder:
        n: int = 0

        @decide(creates=True)
        def file(self, command: File) -> Filed:
            return Filed(command.title)

        @decide(creates=True)
        def note(self, command: Note) -> Noted:
            return Noted(command.title)

        @evolve
        def filed(self, event: Filed) -> None:
            self.n += 1

        @evolve
        def noted(self, event: Noted) -> None:
            self.n += 1

    @service.reaction
    def keep(event: Filed) -> Note:
        if broken:
            raise RuntimeError("a bug")
        return Note(event.title)

    return service, File, Noted


@pytest.mark.parametrize("busy", [False, True])
def test_what_waits_is_tried_when_all_that_decides_it_is_there(monkeypatch: pytest.MonkeyPatch, *, busy: bool) -> None:
    """An event that waits for a reaction, and is due when its service starts, is not tried before the reaction is
    there, though something that arrives meanwhile has all that waits looked at (`busy`): a mended release takes it with
    the one try that it has left."""
    broken, File, _ = clerk(broken=True)
    read = Node._reload

    async def reload(self: Node) -> None:
        await read(self)
        if busy:
            self.retrier.removed(self.waiting.streams()[0])
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with VirtualSystem(broken) as virtual:
            await virtual.ask(File("a"))
            await asyncio.sleep(1)
            await virtual.crash("clerk")
            await asyncio.sleep(60)
            virtual.services["clerk"] = clerk(broken=False)[0]
            monkeypatch.setattr(Node, "_reload", reload)
            await virtual.start("clerk")
            await virtual.settle(within_seconds=30)
            types = [one.type for one in virtual.log("clerk") if one.kind == "event"]
            assert types == ["clerk.filed.v1", "clerk.noted.v1"]

    run_virtual(main)


def held(stream: str, kind: str = "command", stored: str = "press.print.v2", data: Any = None, **how: Any) -> Slot:
    """A message that waits on a stream, parked for a type that was not known."""
    payload = msgspec.Raw(msgspec.json.encode(data or {}))
    record = WireRecord(3, kind, stored, payload, "t", "t", 0)  # type: ignore[arg-type]
    message = WaitingMessage("desk", record, 0, parked=5, attempts=12, error="no", **how)
    return Slot(f"{stream}#000000000003", message, durable=True)


def queue_of(slot: Slot) -> Waiting:
    """A queue in which nothing else waits."""
    waiting = Waiting(Dispatch(Service(Contract("idle"))))
    waiting.put(slot)
    return waiting


def test_a_call_that_may_have_been_made_is_not_made_under_another_name() -> None:
    """G5: an effect that was started, or whose outcome is unknown, stays parked where it is when its function has
    another name: under that its idempotency key would be another, and neither call nor probe would find the first."""
    for how in ({"started": 1}, {"unknown": True}, {"started": 2, "unknown": True, "unread": True}):
        slot = held("charge/o1", **how)
        waiting = queue_of(slot)
        assert waiting.rehome(lambda slot: "charge_card/o1", lambda message: True) == []
        assert waiting.streams() == ["charge/o1"] and slot.message.parked and slot.key.startswith("charge/")
    waiting = queue_of(slot := held("charge/o1"))
    assert len(waiting.rehome(lambda slot: "charge_card/o1", lambda message: True)) == 2
    assert waiting.streams() == ["charge_card/o1"] and not slot.message.parked


@pytest.mark.parametrize(("unread", "knows", "freed"), [(True, True, True), (True, False, False), (False, True, False)])
def test_what_is_known_now_and_was_not_is_tried_anew(*, unread: bool, knows: bool, freed: bool) -> None:
    """What was parked for a type that its release did not know, and this one does, is tried again; nothing else is."""
    slot = held("Publishing/x", unread=unread)
    rows = queue_of(slot).rehome(lambda slot: slot.stream, lambda message: knows)
    assert (slot.message.parked == 0) == freed and [row.key for row in rows] == [slot.key] * freed


@virtual_time
async def test_which_types_are_known() -> None:
    """Commands by the contract, answers by those of the saga, a staged vote by what it holds; what is the exchange's
    own is always known, and so is what a feed brought; nonsense is not."""
    new = press(2)
    async with together(new.service, author(new).service) as virtual:
        at, press_at = virtual.nodes["author"].dispatch, virtual.nodes["press"].dispatch

        def answer(stored: str, data: Any = None) -> WaitingMessage:
            found = held("Publishing/x", "event", stored, data).message
            headers = msgspec.structs.replace(found.record.headers, answers="Publishing/x#1")
            found.record = msgspec.structs.replace(found.record, headers=headers)
            return found

        assert [known(press_at, held("", stored=f"press.print.v{n}").message) for n in (1, 2, 3)] == [True, True, False]
        assert [known(at, answer(f"press.printed.v{n}")) for n in (1, 2, 3)] == [True, True, False]
        votes = [Vote(type=f"press.printed.v{n}", event=msgspec.Raw(b"{}")) for n in (2, 3)]
        assert [known(at, answer(HELD, one)) for one in votes] == [True, False]
        assert known(at, answer(REJECTED)) and known(at, answer(HELD, [])) and not known(at, answer("nobody.said.v1"))
        assert known(at, held("x", "event", "press.printed.v9", feed="reaction:x").message)


def test_a_retry_policy_is_for_every_version() -> None:
    """A policy is found under the earlier names of its message too: what waits since before a release keeps to it."""
    new, policy = press(2), Retry(attempts_max=2)
    new.service.retry(new.Print, policy)
    assert [new.service.retry_of(f"press.print.v{n}") for n in (1, 2)] == [policy, policy]
    assert new.service.retry_of("press.printed.v1").attempts_max == 12


def test_an_upcast_that_raises_is_said() -> None:
    """Whatever an upcast raises, its message does not fit: who follows it says so, and the audit goes on."""
    contract = Contract("press")

    @contract.event(version=2, upcasts={1: lambda old: {"run": old["title"].split(",")[1]}})
    class Printed(Event):
        run: str

    with pytest.raises(Invalid):
        decode_stored(contract, "press.printed.v1", b'{"title": "x"}')

    class Follows:
        def follow(self, event: Put) -> None: ...

    made = system()
    made.invariant(Follows)
    books = Books(made)
    books.enter(("shelf", "shelf.put.v1", {"units": 1}))
    books.put("a")
    books.audit.check()
    (one,) = books.audit.report().violations
    assert isinstance(one, Violation) and one.says.startswith("could not judge") and one.correlation == one.tx == "t1"


@virtual_time
async def test_a_saga_whose_class_is_gone_cannot_be_repaired_here() -> None:
    """A repair of a saga that this release does not have is refused with what would cure it."""
    old = press(1)
    declared = with_saga(reader(old), old)
    async with together(old.service, declared) as virtual:
        asking = asyncio.create_task(virtual.ask(old.Print("Faust")))
        while not virtual.nodes["desk"].dispatch.sagas.open:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.0001)
        await deploy(virtual, reader(old))
        await asking
        desk = virtual.nodes["desk"]
        ((saga, _),) = await desk.sagas()
        for kind, decision in (("retry", ""), ("undo", ""), ("resolve", "done")):
            with pytest.raises(HoldfastError, match="Thanking is no saga of this release"):
                await repair(desk, Ask(kind, saga, "me", "why", decision=decision))


def test_an_earlier_event_is_open_until_the_saga_that_it_begins_has_taken_it() -> None:
    """A transaction whose event is of an earlier version has not settled before all that takes it, by whatever version
    it knows, has taken it."""
    new = press(2)
    audit = Audit(System([new.service, with_saga(reader(new), new)], name="print shop"))
    payload = msgspec.Raw(b'{"title": "a"}')
    one = Seen(1, "event", "press.printed.v1", "t", "t", 0, "", "Plate/a", 1, "", False, payload)
    audit.take("press", [one], 1, head=1, mark=None)
    cursors: dict[str, int] = {}
    for consumer in ("reaction:keep", "saga:Thanking"):
        audit.check()
        assert audit.report().open == 1, f"{consumer} has not taken it"
        cursors[f"{consumer}:press"] = 1
        audit.take("desk", [], len(cursors), head=len(cursors), mark=Mark(len(cursors), dict(cursors)))
    audit.check()
    assert audit.report().open == 0 and audit.report().settled == 1


def test_a_view_of_events_with_a_history_is_not_rebuilt_for_it() -> None:
    """What a view is compared by is its class and the present versions of its events, not how many there were."""
    first, second = viewer(press(1), 1).views["Titles"], viewer(press(2), 1).views["Titles"]
    assert first.fingerprint.endswith(":press.printed.v1") and second.fingerprint.endswith(":press.printed.v2")
    assert System([viewer(press(2), 1)], name="x").services["desk"].fed_by()[0].stored == "press.printed.v2"


OLD, NEW = press(1), press(2)
BEFORE, AFTER = author(OLD), author(NEW)
publishing = System([OLD.service, BEFORE.service], name="publishing")


async def crossing(virtual: VirtualSystem, services: Sequence[Service]) -> None:
    """Both are deployed while a command waits for one that is not reached, or its answer for who asked."""
    virtual.transport.cut.add("press")
    asking = asyncio.create_task(virtual.ask(BEFORE.Publish("a"), "a"))
    await asyncio.sleep(0.1)
    for service in services:
        virtual.services[service.name] = service
        virtual.crash_soon(service.name)
        while service is not getattr(virtual.nodes.get(service.name), "service", None):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.05)
        virtual.transport.cut.clear()
        await asyncio.sleep(virtual.random.random() * 2)
    asking.cancel()
    await virtual.settle()
    types = [one.type for one in virtual.log("author")]
    begun = types.count("holdfast.saga.begun")
    printed = [one.type for one in virtual.log("press") if one.kind == "event"]
    assert types.count("author.published.v1") == len(printed) == begun <= 1


async def responder_first(virtual: VirtualSystem) -> None:
    await crossing(virtual, (NEW.service, AFTER.service))


async def asker_first(virtual: VirtualSystem) -> None:
    await crossing(virtual, (AFTER.service, NEW.service))


@pytest.mark.parametrize("scenario", [responder_first, asker_first])
def test_what_is_on_its_way_survives_two_deployments(scenario: Any) -> None:
    """G1, G3, G4: a command and its answer cross the deployments of who is asked and who asks, whichever comes first,
    and whatever goes wrong meanwhile: one print, one answer."""
    assert explore(publishing, scenario, schedules=80, seed=4).runs == 80


@pytest.mark.soak
@pytest.mark.parametrize("scenario", [responder_first, asker_first])
def test_what_is_on_its_way_survives_for_longer(scenario: Any) -> None:
    """The same on thousands of schedules."""
    assert explore(publishing, scenario, schedules=3_000, seed=5).runs == 3_000
