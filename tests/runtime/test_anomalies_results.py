"""What must not happen to results, retries, and a local commit with its message: known anomalies, by number.

The numbers are those of the list that these tests were written from; what each asks for stands in its docstring, and
where holdfast does otherwise, why. Those of staged transactions are in `test_anomalies`.
"""

import asyncio
from collections import Counter

import pytest

from cards.contracts import Bought
from holdfast import Rejection, Retry
from holdfast.errors import CommandError, CommandFailed, KeyReused, Unavailable
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.runtime.ops.why import parked, stuck
from holdfast.testing import VirtualSystem, run_virtual, virtual_time
from support.systems.deals import until
from support.systems.payments import Provider, buy, office
from support.systems.sales import Broken, Faults, Sell, Sold, Take, bodies, system, types

SLOW = Retry(attempts_max=1000, first_seconds=30, last_seconds=30, jitter=0)
SERVICES = ("desk", "depot", "till", "ledger")
THREE = Sell("o1", ("tea", "cup", "pot"))


async def code_of(virtual: VirtualSystem, sell: Sell, seconds: float = 600) -> str:
    """How a sale ended, asked for until somebody answers: empty when it was done, else the code of the no."""
    while True:
        try:
            answer = (await virtual.client.send(sell, key=f"key-{sell.order}", wait_seconds=seconds)).answer
        except CommandError:
            await asyncio.sleep(0.3)
            continue
        return answer.code if isinstance(answer, Rejection) else ""


def balance(virtual: VirtualSystem) -> Counter[str]:
    """What is taken less what was returned, and paid less refunded."""
    found = Counter(types(virtual, "depot") + types(virtual, "till"))
    return Counter(goods=found["taken"] - found["returned"], money=found["paid"] - found["refunded"])


async def crashed(faults: Faults, sell: Sell, who: str, number: int, *, after: bool) -> VirtualSystem | None:
    """A sale with a crash at that commit, to its end; None where the service has not so many commits."""
    async with VirtualSystem(system(faults, deadline=0)) as virtual:
        (virtual.stores[who].crash_after if after else virtual.stores[who].crash_before).add(number)
        assert await code_of(virtual, sell) == ("refused" if faults.refused else "")
        await virtual.settle()
        return virtual if virtual.crashes else None


@pytest.mark.parametrize("refused", [set[str](), {"book:*"}, {"pay:*"}, {"take:pot"}])
@pytest.mark.parametrize("who", SERVICES)
def test_crash_between_steps(who: str, refused: set[str]) -> None:
    """13. A service that dies before or after any of its commits, on the way forward or back, goes on without running
    again what is done: each event once, balances unchanged where the sale fails."""
    points = 0
    for after in (False, True):
        number = 1
        while virtual := run_virtual(
            lambda n=number, a=after: crashed(Faults(refused=refused), THREE, who, n, after=a)
        ):
            counted = Counter(f"{name}:{body}" for name in SERVICES for body in _told(virtual, name))
            assert set(counted.values()) <= {1}, (who, number, after, counted)
            assert balance(virtual) == (Counter(goods=0, money=0) if refused else Counter(goods=3, money=1))
            number += 1
            points += 1
    takes_part = {
        "desk": True,
        "depot": True,
        "till": refused != {"take:pot"},
        "ledger": refused in (set(), {"book:*"}),
    }
    assert (points >= 2) == takes_part[who]


def _told(virtual: VirtualSystem, name: str) -> list[str]:
    return [f"{record.type} {record.data.decode()}" for record in virtual.log(name) if record.kind == "event"]


@virtual_time
async def test_failure_recorded_then_crash() -> None:
    """14. The no has come and is recorded, the coordinator dies before it undoes: here both are one commit, so a crash
    after it finds the undo recorded, one before it hears the no again; either way everything goes back."""
    for after in (False, True):
        crashed = [await _undone_after_crash(number, after=after) for number in range(1, 8)]
        assert sum(crashed) >= 4 and not crashed[-1], "at every commit of the desk, and past the last"


async def _undone_after_crash(number: int, *, after: bool) -> bool:
    async with VirtualSystem(system(Faults(refused={"pay:*"}), deadline=0)) as virtual:
        (virtual.stores["desk"].crash_after if after else virtual.stores["desk"].crash_before).add(number)
        assert await code_of(virtual, Sell("o1")) == "refused"
        log = virtual.log("desk")
        at = {record.type: record.position for record in log}
        assert at["holdfast.saga.undoing"] == at["depot.return.v1"] - 1, "decided and asked in one commit"
        await virtual.settle()
        assert balance(virtual)["goods"] == 0
        return bool(virtual.crashes)


@virtual_time
async def test_three_valued_answers() -> None:
    """21. Only a definite no undoes. What fails is tried again with a delay that grows to its bound, and then goes on
    as if nothing had been; an effect that is neither done nor refused is asked about, never assumed."""
    faults = Faults(broken={"pay:*"})
    policy = Retry(attempts_max=99, first_seconds=1, last_seconds=8, jitter=0)
    async with VirtualSystem(system(faults, retry=policy, deadline=0)) as virtual:
        task = asyncio.ensure_future(code_of(virtual, Sell("o1")))
        waits: list[float] = []
        await asyncio.sleep(0.2)
        for _ in range(5):
            held = virtual.nodes["till"].waiting.slots()[0].message
            attempts, since = held.attempts, virtual.clock.now_us()
            await until(lambda held=held, attempts=attempts: held.attempts != attempts)
            waits.append((virtual.clock.now_us() - since) / 1e6)
        assert [round(one) for one in waits] == [1, 2, 4, 8, 8] and not task.done()
        assert types(virtual, "depot") == ["taken"]
        faults.broken.clear()
        assert await task == "" and types(virtual, "till") == ["paid"]


@virtual_time
async def test_retry_limit() -> None:
    """22. An action that stays without an outcome past its tries is parked, with the reason; the saga's deadline undoes
    it, the cancel takes the parked command out, and what may have been done before is undone."""
    async with VirtualSystem(
        system(Faults(broken={"pay:*"}), retry=Retry(attempts_max=3, first_seconds=0.1), deadline=5)
    ) as virtual:
        task = asyncio.ensure_future(code_of(virtual, Sell("o1")))
        await asyncio.sleep(3)
        (found,) = parked(virtual.nodes["till"])
        assert (found.attempts, found.error) == (3, "Broken: pay of o1")
        assert await task == "deadline"
        await virtual.settle()
        assert parked(virtual.nodes["till"]) == [] and balance(virtual) == Counter(goods=0, money=0)


@virtual_time
async def test_an_undo_that_cannot_be() -> None:
    """23. A participant that refuses to undo for good ends in view, with owner, cause and what a person can do;
    it is never reported as done or undone, and its caller waits until somebody has said what becomes of it."""
    async with VirtualSystem(system(Faults(refused={"pay:*", "return:*"}), deadline=0)) as virtual:
        task = asyncio.ensure_future(virtual.client.send(Sell("o1"), wait_seconds=3000))
        await asyncio.sleep(60)
        (found,) = await stuck(virtual.nodes["desk"])
        assert found.owner == "team-desk" and {one.verb for one in found.actions} == {
            "retry",
            "skip",
            "resolve",
        }
        assert not task.done() and not any(record.headers.outcome for record in virtual.log("desk"))
        await repair(virtual.nodes["desk"], Ask("resolve", found.id, "me", "returned by hand", decision="undone"))
        answer = (await task).answer
        assert isinstance(answer, Rejection) and answer.code == "resolved"


@virtual_time
async def test_the_failed_step_itself() -> None:
    """24. The list has the failed step compensated too, by an empty rollback. Here a no is definite, nothing was done,
    and no undo is sent for it; and a cancel that finds nothing to cancel changes nothing."""
    async with VirtualSystem(system(Faults(refused={"pay:*"}), deadline=0)) as virtual:
        assert await code_of(virtual, Sell("o1")) == "refused"
        await virtual.settle()
        assert [stored for stored in types(virtual, "desk", "command") if "refund" in stored] == []
    async with VirtualSystem(system(deadline=2)) as virtual:
        virtual.transport.cut.add("till")
        task = asyncio.ensure_future(code_of(virtual, Sell("o1")))
        await asyncio.sleep(10)
        virtual.transport.cut.clear()
        assert await task == "deadline"
        await virtual.settle()
        assert types(virtual, "till") == ["paid", "refunded"], "decided before its cancel came, in order; then undone"


@virtual_time
async def test_side_by_side() -> None:
    """25. Of commands asked side by side one is rejected while another still waits: all are awaited, then what was
    accepted is undone, what comes later is never asked; an undo of a later step comes before those of earlier ones."""
    faults = Faults(refused={"take:cup"}, broken={"take:pot"})
    async with VirtualSystem(system(faults, retry=Retry(first_seconds=5, jitter=0), deadline=0)) as virtual:
        task = asyncio.ensure_future(code_of(virtual, THREE))
        await asyncio.sleep(3)
        assert types(virtual, "depot") == ["taken"] and not task.done(), (
            "pot waits; nothing is undone before it is known"
        )
        faults.broken.clear()
        assert await task == "refused"
        await virtual.settle()
        assert types(virtual, "depot") == ["taken", "taken", "returned", "returned"] and types(virtual, "till") == []
    async with VirtualSystem(system(Faults(refused={"book:*"}), deadline=0)) as virtual:
        assert await code_of(virtual, THREE) == "refused"
        undone = [stored for stored in types(virtual, "desk", "command") if "refund" in stored or "return" in stored]
        assert undone == ["till.refund", *["depot.return"] * 3]


@pytest.mark.parametrize("failing", ["tea", "cup", "pot"])
def test_one_of_many_fails(failing: str) -> None:
    """27. Where one of a group of commands is rejected, exactly those that were accepted are undone, each once; also
    when the coordinator dies at any commit on the way."""

    async def one(number: int, *, after: bool) -> bool:
        async with VirtualSystem(system(Faults(refused={f"take:{failing}"}), deadline=0)) as virtual:
            (virtual.stores["desk"].crash_after if after else virtual.stores["desk"].crash_before).add(number)
            assert await code_of(virtual, THREE) == "refused"
            await virtual.settle()
            returned = [body["item"] for body in bodies(virtual.log("depot"), "depot.returned.v1")]
            assert sorted(map(str, returned)) == sorted({"tea", "cup", "pot"} - {failing})
            return bool(virtual.crashes)

    for after in (False, True):
        number = 1
        while run_virtual(lambda n=number, a=after: one(n, after=a)):
            number += 1
        assert number > 3


@virtual_time
async def test_the_initiator_fails() -> None:
    """29. Who begins fails before it has decided: nothing is recorded, the error reaches the caller, and its key is
    free for another try."""
    faults = Faults(broken={"take:tea"})
    async with VirtualSystem(system(faults)) as virtual:
        with pytest.raises(CommandFailed) as caught:
            await virtual.client.send(Take("tea", "o1"), key="k")
        assert isinstance(caught.value.__cause__, Broken) and virtual.log("depot") == []
        faults.broken.clear()
        await virtual.client.send(Take("tea", "o2"), key="k")
        with pytest.raises(KeyReused):
            await virtual.client.send(Take("tea", "o1"), key="k")


@virtual_time
async def test_the_business_says_no() -> None:
    """30. A no is recorded and sends nothing: no event, no message, no change. And where the store cannot begin, the
    business is not run for good: nothing of it is there."""
    async with VirtualSystem(system(Faults(refused={"take:tea"}))) as virtual:
        answer = (await virtual.client.send(Take("tea", "o1"))).answer
        assert isinstance(answer, Rejection) and [record.type for record in virtual.log("depot")] == [
            "holdfast.rejected"
        ]
        virtual.stores["depot"].failing = True
        with pytest.raises(Unavailable):
            await virtual.client.send(Take("cup", "o1"))
        assert len(virtual.log("depot")) == 1


@virtual_time
async def test_the_commit_fails_cleanly() -> None:
    """31. A commit that failed has left nothing: no event, no message to another service; the same key runs it anew."""
    async with VirtualSystem(system(deadline=0)) as virtual:
        virtual.stores["desk"].failing = True
        with pytest.raises(Unavailable):
            await virtual.client.send(Sell("o1"), key="k")
        await asyncio.sleep(5)
        assert virtual.log("desk") == [] and virtual.log("depot") == []
        virtual.stores["desk"].failing = False
        await asyncio.sleep(2)
        assert (await virtual.client.send(Sell("o1"), key="k")).answer == Sold("o1")


@virtual_time
async def test_the_answer_of_the_commit_is_lost() -> None:
    """32. The commit is durable and whoever waited never heard: the message goes out all the same, once, and the same
    key gets the outcome that was recorded."""
    async with VirtualSystem(system(deadline=0)) as virtual:
        virtual.stores["desk"].crash_after.add(1)
        with pytest.raises(CommandError):
            await virtual.client.send(Sell("o1"), key="k")
        await asyncio.sleep(5)
        assert virtual.crashes == ["desk"] and types(virtual, "depot") == ["taken"]
        assert (await virtual.client.send(Sell("o1"), key="k")).answer == Sold("o1")
        await virtual.settle()
        assert types(virtual, "depot") == ["taken"] and types(virtual, "till") == ["paid"]


@virtual_time
async def test_the_question_comes_before_the_business() -> None:
    """33. A cancel that comes while its command still waits wins: the command is answered cancelled, and its handler,
    though it could run now, never does; no guard has to be left behind, since nothing can come after."""
    faults = Faults(broken={"pay:*"})
    async with VirtualSystem(system(faults, retry=SLOW, deadline=2)) as virtual:
        assert await code_of(virtual, Sell("o1")) == "deadline"
        faults.broken.clear()
        await asyncio.sleep(300)
        await virtual.restart("till")
        await asyncio.sleep(300)
        assert types(virtual, "till") == [] and types(virtual, "till", "answer") == ["rejected"]


@virtual_time
async def test_the_question_has_no_answer() -> None:
    """34. While nobody can say what became of a call it stays unknown: it is neither dropped nor made again; only a
    definite no ends it, or the word that it is done."""
    provider = Provider()
    async with office(provider) as virtual:
        provider.faults["o1"], provider.probe_faults["o1"] = ["lost after"], ["lost"] * 5
        task = buy(virtual)
        await asyncio.sleep(1)
        held = virtual.nodes["wallet"].waiting.slots()[0].message
        assert held.unknown and not task.done() and provider.numbers("charge", "o1") == [1]
        assert isinstance(await task, Bought) and provider.count("charge", "o1") == 1
