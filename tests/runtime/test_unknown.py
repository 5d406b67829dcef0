"""Unknown is a state (G5): a deadline calls a step off and undoes the saga; whatever answer comes is matched."""

import asyncio
from typing import Any

import pytest

from holdfast import Command, Contract, Event, Rejection, Retry, Service, System, answer, step
from holdfast.errors import CommandError
from holdfast.testing import VirtualSystem, run_virtual, virtual_time
from support.systems.sales import Faults, Sell, Sold, bodies, system, types

SLOW = Retry(attempts_max=1000, first_seconds=30, last_seconds=30, jitter=0)


def sale(virtual: VirtualSystem, order: str = "o1", **fields: Any) -> "asyncio.Task[Any]":
    """A sale asked for at the desk, on its way."""
    sell = Sell(order, **fields)
    return asyncio.get_running_loop().create_task(virtual.client.send(sell, wait_seconds=3000))


async def code_of(task: "asyncio.Task[Any]") -> str:
    """The code with which it was rejected; empty when it was accepted."""
    answer = (await task).answer
    return answer.code if isinstance(answer, Rejection) else ""


@virtual_time
async def test_a_command_that_waits_is_cancelled() -> None:
    """A step with no answer by its deadline is cancelled: its command, which waits at the till because its handler
    fails, is answered cancelled and never decided; what was taken before goes back, the caller hears `deadline`."""
    faults = Faults(broken={"pay:*"})
    async with VirtualSystem(system(faults, retry=SLOW)) as virtual:
        task = sale(virtual)
        await asyncio.sleep(4)
        assert [slot.message.error for slot in virtual.nodes["till"].waiting.slots()] == ["Broken: pay of o1"]
        assert await code_of(task) == "deadline"
        faults.broken.clear()
        await asyncio.sleep(100)
        await virtual.settle()
        assert types(virtual, "till") == [] and types(virtual, "depot") == ["taken", "returned"]
        assert [body["code"] for body in bodies(virtual.log("till"), "holdfast.rejected")] == ["cancelled"]
        assert types(virtual, "desk", "command")[-2:] == ["call_off", "depot.return"]


@virtual_time
async def test_an_acceptance_that_comes_late_is_undone() -> None:
    """A step that its service decides after the deadline is accepted, never used, and undone: paid, then refunded;
    and nothing is undone before that is known."""
    async with VirtualSystem(system()) as virtual:
        await virtual.crash("till")
        task = sale(virtual)
        await asyncio.sleep(60)
        assert not task.done() and types(virtual, "depot") == ["taken"], "while it is unknown nothing is undone"
        ((_, entry),) = await virtual.nodes["desk"].sagas()
        assert (entry.status, entry.overdue, entry.cause) == ("undoing", ("pay",), "deadline")
        await virtual.start("till")
        assert await code_of(task) == "deadline"
        await virtual.settle()
        assert types(virtual, "till") in ([], ["paid", "refunded"])
        assert types(virtual, "depot") == ["taken", "returned"] and types(virtual, "ledger") == []


@virtual_time
async def test_a_step_that_is_independent_holds_nothing_up() -> None:
    """With independent=True the steps before an unknown one are undone at once; the saga ends when it is known."""
    async with VirtualSystem(system(independent=True)) as virtual:
        await virtual.crash("till")
        task = sale(virtual)
        await asyncio.sleep(60)
        assert types(virtual, "depot") == ["taken", "returned"] and not task.done()
        await virtual.start("till")
        assert await code_of(task) == "deadline"
        await virtual.settle()
        assert types(virtual, "till") in ([], ["paid", "refunded"])


@pytest.mark.parametrize(("refused", "ends"), [(set[str](), ""), ({"book:*"}, "refused")])
def test_while_the_pivot_is_unknown_nothing_is_undone(refused: set[str], ends: str) -> None:
    """A pivot past its deadline only gets a cancel: its answer decides, a yes goes forward, a no undoes."""

    async def run() -> None:
        async with VirtualSystem(system(Faults(refused=refused))) as virtual:
            virtual.transport.cut.add("ledger")
            virtual.stores["ledger"].failing = True
            task = sale(virtual)
            await asyncio.sleep(30)
            ((_, entry),) = await virtual.nodes["desk"].sagas()
            assert (entry.status, entry.overdue) == ("running", ("book",)), "its answer decides"
            assert types(virtual, "desk", "command")[-1] == "call_off"
            assert types(virtual, "till") == ["paid"] and types(virtual, "depot") == ["taken"]
            virtual.stores["ledger"].failing = False
            virtual.transport.cut.clear()
            assert await code_of(task) == ends
            await virtual.settle()
            assert types(virtual, "till") == (["paid", "refunded"] if ends else ["paid"])

    run_virtual(run)


@virtual_time
async def test_a_pivot_that_waits_is_cancelled_and_undone() -> None:
    """A pivot that its service cannot decide is answered cancelled after its deadline: the saga turns back."""
    async with VirtualSystem(system(Faults(broken={"book:*"}), retry=SLOW)) as virtual:
        assert await code_of(sale(virtual)) == "cancelled"
        await virtual.settle()
        assert types(virtual, "till") == ["paid", "refunded"] and types(virtual, "depot") == ["taken", "returned"]


@virtual_time
async def test_after_the_pivot_a_deadline_only_reports() -> None:
    """A step after the pivot is never cancelled: it is overdue, in view, and goes on when its service can."""
    faults = Faults(broken={"post:*"})
    async with VirtualSystem(system(faults, retry=Retry(first_seconds=1, last_seconds=10, attempts_max=99))) as virtual:
        task = sale(virtual, post="book")
        await asyncio.sleep(30)
        ((_, entry),) = await virtual.nodes["desk"].sagas()
        assert (entry.status, entry.overdue) == ("running", ("post",))
        assert "call_off" not in types(virtual, "desk", "command")
        faults.broken.clear()
        assert (await task).answer == Sold("o1")


agency = Contract("agency")


@agency.event
class Arranged(Event):
    order: str


@agency.command
class Arrange(Command[Arranged]):
    order: str
    post: str = ""


def agencies() -> Service:
    """A service whose saga has one step: a sale, which is a saga of the desk."""
    service = Service(agency)

    @service.saga
    class Arrangement:
        arrange: Arrange

        @step(deadline_seconds=3)
        def sell(self) -> Sell:
            return Sell(self.arrange.order, post=self.arrange.post)

        @answer
        def arranged(self) -> Arranged:
            return Arranged(self.arrange.order)

    return service


@pytest.mark.parametrize("restarted", [False, True])
def test_a_cancel_turns_a_saga_back_that_its_command_began(restarted: bool) -> None:
    """A cancel that meets a saga before its pivot has that saga undone, which calls off in its turn what has no
    answer; after a restart of the service too. Both callers hear why."""

    async def run() -> None:
        faults = Faults(broken={"pay:*"})
        services = [*system(faults, retry=SLOW, deadline=0).services.values(), agencies()]
        async with VirtualSystem(System(services, name="all")) as virtual:
            task = asyncio.get_running_loop().create_task(virtual.client.send(Arrange("o1"), wait_seconds=3000))
            await asyncio.sleep(1)
            if restarted:
                await virtual.restart("desk")
            assert await code_of(task) == "deadline"
            await virtual.settle()
            assert types(virtual, "depot") == ["taken", "returned"] and types(virtual, "till") == []
            assert [body["code"] for body in bodies(virtual.log("desk"), "holdfast.rejected")] == ["cancelled"]

    run_virtual(run)


@virtual_time
async def test_a_cancel_does_not_turn_a_saga_past_its_pivot() -> None:
    """A cancel that comes when the pivot was asked does nothing: the saga goes forward to its end."""
    faults = Faults(broken={"post:*"})
    retry = Retry(first_seconds=1, last_seconds=5, attempts_max=99)
    services = [*system(faults, retry=retry, deadline=0).services.values(), agencies()]
    async with VirtualSystem(System(services, name="all")) as virtual:
        task = asyncio.get_running_loop().create_task(virtual.client.send(Arrange("o1", "book"), wait_seconds=3000))
        await asyncio.sleep(20)
        assert "call_off" in types(virtual, "agency", "command") and not task.done()
        faults.broken.clear()
        assert await code_of(task) == "deadline"
        await virtual.settle()
        assert types(virtual, "desk") == ["sold"] and types(virtual, "till") == ["paid"]


@virtual_time
async def test_the_same_at_every_crash() -> None:
    """The desk or the till crashing before or after any commit, and what waits being cancelled: each sale ends undone,
    with nothing taken and nothing paid, and no command is decided after it was answered cancelled."""

    async def one(who: str, number: int, after: bool) -> bool:
        faults = Faults(broken={"pay:*"})
        async with VirtualSystem(system(faults, retry=SLOW, deadline=2)) as virtual:
            (virtual.stores[who].crash_after if after else virtual.stores[who].crash_before).add(number)
            try:
                await asyncio.wait_for(virtual.client.send(Sell("o1"), key="k", wait_seconds=40), 50)
            except CommandError:  # what its caller hears is not what is tested
                await asyncio.sleep(20)
            faults.broken.clear()
            await virtual.settle()
            events = types(virtual, "till")
            assert events in ([], ["paid", "refunded"]), (who, number, after, events)
            assert types(virtual, "depot") in ([], ["taken", "returned"]), (who, number, after)
            return bool(virtual.crashes)

    for who in ("desk", "till"):
        for after in (False, True):
            number = 1
            while await one(who, number, after):
                number += 1
            assert number > 2, "crashed at so few commits?"
