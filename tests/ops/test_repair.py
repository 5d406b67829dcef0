"""Stuck sagas, and what a person can do: retry, skip, undo, close by hand; on record, and once (G4, G11)."""

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast import Command, Contract, Event, Rejection, Retry, answer, pivot, step
from holdfast.core.declare.saga import SagaType
from holdfast.core.explain.overview import ListedSaga
from holdfast.core.explain.plan import AnswerGiven, Plan
from holdfast.core.saga.advance import advance, answered, woken
from holdfast.core.saga.progress import Begun, SagaState, apply
from holdfast.core.saga.repair import Action, actions, repaired
from holdfast.errors import Contradicted, NotFound
from holdfast.runtime.ops.plan import plan, plan_answer
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.runtime.ops.why import stuck, unsettled, why
from holdfast.testing import VirtualSystem, virtual_time
from support.systems.sales import Faults, Sell, Sold, system, types

SLOW = Retry(attempts_max=1000, first_seconds=30, last_seconds=30, jitter=0)


def ask(kind: Any, target: str, decision: str = "") -> Ask:
    """A repair of somebody, for some reason."""
    return Ask(kind, target, "on call", "it was looked into", decision=decision)


def sale(virtual: VirtualSystem, order: str = "o1", **fields: Any) -> "asyncio.Task[Any]":
    """A sale asked for at the desk, on its way."""
    sell = Sell(order, **fields)
    return asyncio.get_running_loop().create_task(virtual.client.send(sell, wait_seconds=3000))


async def code_of(task: "asyncio.Task[Any]") -> str:
    """The code with which it was rejected; empty when it was accepted."""
    answer = (await task).answer
    return answer.code if isinstance(answer, Rejection) else ""


async def stuck_one(virtual: VirtualSystem) -> ListedSaga:
    """The one saga that is stuck, in time."""
    await asyncio.sleep(30)
    (found,) = await stuck(virtual.nodes["desk"])
    return found


async def planned(virtual: VirtualSystem, wanted: Ask) -> Plan:
    """The plan of a repair, which has changed nothing."""
    before = virtual.digest()
    found = await plan(virtual.nodes["desk"], wanted)
    assert virtual.digest() == before
    return found


def sent(virtual: VirtualSystem, after: int) -> list[str]:
    """What the desk has sent since."""
    return [record.type for record in virtual.log("desk")[after:] if record.kind == "command"]


@virtual_time
async def test_a_stuck_undo_is_asked_again() -> None:
    """An undo that is refused for good leaves the saga stuck, in view with owner, cause, age and what can be done;
    `retry` asks for it again, as planned, and the saga ends undone; a second retry changes nothing."""
    faults = Faults(refused={"pay:*", "return:*"})
    async with VirtualSystem(system(faults)) as virtual:
        task = sale(virtual)
        found = await stuck_one(virtual)
        assert found.owner == "team-desk" and found.stuck.startswith("undo of take was rejected 5 times")
        assert {action.verb for action in found.actions} == {"retry", "skip", "resolve"} and not task.done()
        expected = await planned(virtual, ask("retry", found.id))
        assert [(one.service, one.type, one.what) for one in expected.sends] == [
            ("depot", "depot.return.v1", "undo of take")
        ]
        faults.refused.discard("return:*")
        length = len(virtual.log("desk"))
        assert (await repair(virtual.nodes["desk"], ask("retry", found.id))).how == "applied"
        assert await code_of(task) == "refused"
        assert sent(virtual, length) == [one.type for one in expected.sends]
        assert types(virtual, "depot") == ["taken", "returned"]
        assert (await repair(virtual.nodes["desk"], ask("retry", found.id))).how == "already"
        await virtual.settle()
        assert types(virtual, "desk", "repair") == ["repair.saga"]


@virtual_time
async def test_a_stuck_undo_is_passed_over() -> None:
    """`skip` takes the undo as done by somebody else: the rest is undone, the saga ends, and it survives a restart."""
    faults = Faults(refused={"book:*", "refund:*"})
    async with VirtualSystem(system(faults)) as virtual:
        task = sale(virtual)
        found = await stuck_one(virtual)
        await virtual.restart("desk")
        expected = await planned(virtual, ask("skip", found.id))
        assert [one.what for one in expected.sends] == ["undo of take"] and expected.saga == "undoing"
        task.cancel()
        await repair(virtual.nodes["desk"], ask("skip", found.id))
        await virtual.settle()
        assert types(virtual, "depot") == ["taken", "returned"] and types(virtual, "till") == ["paid"]
        await virtual.restart("desk")
        assert await stuck(virtual.nodes["desk"]) == [] and virtual.nodes["desk"].dispatch.sagas.open == 0


@virtual_time
async def test_a_step_after_the_pivot_is_passed_over_or_asked_again() -> None:
    """After the pivot there is no way back: `undo` is refused with the reason, `skip` and `retry` go forward."""
    faults = Faults(refused={"post:*"})
    async with VirtualSystem(system(faults)) as virtual:
        first = sale(virtual, "o1", post="book")
        found = await stuck_one(virtual)
        for kind, decision in (("undo", ""), ("resolve", "refused")):
            with pytest.raises(Exception, match=r"stuck|done or undone"):
                await repair(virtual.nodes["desk"], ask(kind, found.id, decision))
        await repair(virtual.nodes["desk"], ask("skip", found.id))
        assert (await first).answer == Sold("o1")
        second = sale(virtual, "o2", post="cup")
        found = await stuck_one(virtual)
        faults.refused.clear()
        await repair(virtual.nodes["desk"], ask("retry", found.id))
        assert (await second).answer == Sold("o2") and types(virtual, "depot").count("posted") == 1


trip = Contract("trip")


@trip.event
class Went(Event):
    place: str


@trip.command(key="place")
class Go(Command[Went]):
    place: str


@trip.command
class Travel(Command[Went]):
    place: str


class Journey:
    """A saga whose answer is made of what the step after its pivot answers."""

    travel: Travel

    @pivot
    def out(self) -> Go:
        return Go(self.travel.place)

    @step
    def home(self) -> Go:
        return Go("home")

    @answer
    def went(self, home: Went) -> Went:
        return home


def test_what_others_need_cannot_be_passed_over() -> None:
    """A step that was refused for good is not passed over, nor its saga closed as done, where the answer is made of
    what it would have answered: asked again or closed as undone it can be."""
    saga, state = SagaType(Journey, trip, "start"), SagaState()
    apply(saga, state, Begun(Travel("sea"), saga.fingerprint))
    advance(saga, state)
    answered(saga, state, 2, Went("sea"))
    for number in range(5):
        version = state.latest["home"][0]
        answered(saga, state, version, Rejection("closed"))
        if number < 4:
            woken(saga, state, f"retry:{version}")
    assert state.status == "stuck"
    assert [(one.verb, one.does) for one in actions(saga, state, "Journey/1")] == [
        ("retry", "asks trip for home again"),
        ("resolve", "closes it by hand as undone: nothing more is asked of anybody"),
    ]
    for verb in ("skip", "done"):
        with pytest.raises(Contradicted, match=r"the answer|its answer"):
            repaired(saga, state, verb, "me", "why")


@virtual_time
async def test_a_running_saga_is_undone_by_a_person() -> None:
    """`undo` calls off what has no answer and takes back the rest, as planned; past the pivot it is refused; said twice
    it changes nothing. The caller hears who and why."""
    faults = Faults(broken={"pay:*"})
    async with VirtualSystem(system(faults, retry=SLOW, deadline=0)) as virtual:
        task = sale(virtual)
        await asyncio.sleep(5)
        (found,) = await unsettled(virtual.nodes["desk"])
        assert found.waits[0].service == "till" and found.next == ("book (the pivot)", "post", "answer sold")
        assert found.actions[0] == Action("undo", found.id, "calls pay off; undoes take")
        expected = await planned(virtual, ask("undo", found.id))
        assert [one.what for one in expected.sends] == ["cancel of pay"] and expected.saga == "undoing"
        assert (await repair(virtual.nodes["desk"], ask("undo", found.id))).how == "applied"
        assert await code_of(task) == "undone"
        assert (await repair(virtual.nodes["desk"], ask("undo", found.id))).how == "already"
        await virtual.settle()
        assert types(virtual, "depot") == ["taken", "returned"] and types(virtual, "till") == []
    async with VirtualSystem(system(Faults(broken={"book:*"}), retry=SLOW, deadline=0)) as virtual:
        sale(virtual)
        await asyncio.sleep(5)
        (found,) = await unsettled(virtual.nodes["desk"])
        with pytest.raises(Contradicted, match="point of no return"):
            await repair(virtual.nodes["desk"], ask("undo", found.id))


@virtual_time
async def test_a_saga_closed_by_hand_is_closed() -> None:
    """`resolve` closes a stuck saga as undone, or as done where its answer can be made; its caller is answered once,
    nothing more is asked of anybody."""
    faults = Faults(refused={"pay:*", "return:*"})
    async with VirtualSystem(system(faults)) as virtual:
        task = sale(virtual)
        found = await stuck_one(virtual)
        length = len(virtual.log("desk"))
        await repair(virtual.nodes["desk"], ask("resolve", found.id, "undone"))
        assert await code_of(task) == "resolved" and sent(virtual, length) == []
        assert (await repair(virtual.nodes["desk"], ask("resolve", found.id, "undone"))).how == "already"
        with pytest.raises(NotFound):
            await repair(virtual.nodes["desk"], ask("resolve", "Sale/nobody", "undone"))
        await virtual.settle()
    async with VirtualSystem(system(Faults(refused={"post:*"}))) as virtual:
        task = sale(virtual, post="book")
        found = await stuck_one(virtual)
        assert (await planned(virtual, ask("resolve", found.id, "done"))).saga == "completed"
        await repair(virtual.nodes["desk"], ask("resolve", found.id, "done"))
        assert (await task).answer == Sold("o1")
        await virtual.settle()


@virtual_time
async def test_an_acceptance_after_the_end_by_hand_is_seen() -> None:
    """An answer that accepts something of a saga closed by hand makes it stuck again, its caller not answered twice."""
    faults = Faults(refused={"return:cup"})
    async with VirtualSystem(system(faults, independent=True)) as virtual:
        await virtual.crash("till")
        task = sale(virtual, items=("cup",))
        found = await stuck_one(virtual)
        virtual.stores["till"].crash_before.clear()
        await repair(virtual.nodes["desk"], ask("resolve", found.id, "undone"))
        assert await code_of(task) == "resolved"
        await virtual.start("till")
        await asyncio.sleep(30)
        late = [record for record in virtual.log("till") if record.kind == "event"]
        again = await stuck(virtual.nodes["desk"])
        assert bool(late) == bool(again) and [one.stuck for one in again] == [
            "pay was accepted after the saga had been closed by hand" for _ in late
        ]
        assert late, "the till paid before the cancel came"
        assert virtual.nodes["desk"].dispatch.sagas.open == 1
        await virtual.restart("desk")
        assert len(await stuck(virtual.nodes["desk"])) == 1
        await repair(virtual.nodes["desk"], ask("resolve", found.id, "undone"))
        assert await stuck(virtual.nodes["desk"]) == []
        outcomes = [record for record in virtual.log("desk") if record.headers.outcome]
        assert len(outcomes) == 1


@virtual_time
async def test_a_plan_goes_on_in_the_service_that_would_be_answered() -> None:
    """The answer that a repair would give is planned at the saga that would get it: what it would ask, and be."""
    faults = Faults(broken={"pay:*"})
    async with VirtualSystem(system(faults, retry=Retry(attempts_max=1), deadline=0)) as virtual:
        task = sale(virtual)
        await asyncio.sleep(5)
        found, _ = await why(virtual.nodes["till"], id="o1")
        (waits,) = found.waiting
        assert found.named == "waiting" and waits.parked
        skipped = await plan(virtual.nodes["till"], ask("skip", waits.message))
        assert skipped.answer is not None
        then = await plan_answer(virtual.nodes["desk"], skipped.answer)
        assert [one.what for one in then.sends] == ["undo of take"] and then.saga == "undoing"
        wrong = AnswerGiven("desk", "Sale/none", 1, "holdfast.rejected", msgspec.Raw(b'{"code":"x"}'))
        with pytest.raises(NotFound):
            await plan_answer(virtual.nodes["desk"], wrong)
        await repair(virtual.nodes["till"], ask("skip", waits.message))
        assert await code_of(task) == "skipped"
