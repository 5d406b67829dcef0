"""What must not happen to a staged transaction: known anomalies of distributed transactions, by number.

A coordinator of straw says to a real bank whatever a broken one might say: frames made by hand, told in any order. The
numbers are those of the list that these tests were written from; what each asks for stands in its docstring, and where
holdfast does otherwise, why.
"""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from holdfast import Rejection
from holdfast.core.log.batch import Cursor
from holdfast.core.log.record import REJECTED, Headers, Record
from holdfast.core.saga.stage import CANCEL, CONFIRM, DIED, DONE, HELD, StageAttempt, written
from holdfast.core.wire.frame import Frame, WireRecord
from holdfast.errors import Gap
from holdfast.runtime.node import Node
from holdfast.stores.memory import MemoryStore
from holdfast.testing import VirtualClock, VirtualSystem, virtual_time
from holdfast.transports.local import LocalTransport
from support.systems.deals import ask, until
from support.systems.trades import ALL, Move, Order, Trade, Traded, balances, events, make, system

T1, T2 = "Trading/t1", "Trading/t2"


class Straw:
    """The coordinator `desk`, of straw: says what it is told to, and reads what the bank answered."""

    def __init__(self, node: Node) -> None:
        self.node, self.position = node, 0

    async def __aenter__(self) -> "Straw":
        await self.node.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.node.close(drain=False)

    def move(self, amount: int, stream: str = T1, *, account: str = "a", began: int = 1, attempt: int = 0) -> Any:
        """A staged command."""
        data, headers = Move(account, amount, stream), Headers(key=account, stage=written(began, attempt))
        return ("bank.move.v1", msgspec.json.encode(data), stream, headers)

    def told(self, stored: str, stream: str = T1, attempt: int = 0) -> Any:
        """A decision."""
        return (stored, msgspec.json.encode(StageAttempt(attempt)), stream, Headers())

    def frame(self, *said: Any, after: int | None = None) -> Frame:
        """What is said, as one frame."""
        at = self.position if after is None else after
        records = tuple(
            WireRecord(n, "command", stored, msgspec.Raw(data), stream, stream, 1, "", stream, n, headers)
            for n, (stored, data, stream, headers) in enumerate(said, at + 1)
        )
        return Frame("desk", "bank", "i1", 1, at, at + len(records), Cursor(), 0, records)

    async def say(self, *said: Any) -> None:
        """Say it, once; it is durable then."""
        await self.node.exchange(self.frame(*said))
        self.position += len(said)
        await asyncio.sleep(0.01)

    async def log(self) -> list[Record]:
        """All that the bank has recorded."""
        return list((await self.node.store.read(0, 1000)).records)

    async def answers(self) -> list[str]:
        """What the bank answered, in order: stored types, or the code of a no."""
        found = [one for one in await self.log() if one.kind == "answer"]
        return [msgspec.json.decode(one.data)["code"] if one.type == REJECTED else one.type for one in found]

    async def amounts(self) -> list[int]:
        """The amounts moved."""
        return [msgspec.json.decode(one.data)["amount"] for one in await self.log() if one.kind == "event"]

    async def locked(self) -> list[str]:
        """What is locked, by the store."""
        return [key for key, _ in await self.node.store.scan("stage")]


def straw(store: MemoryStore | None = None) -> Straw:
    """A bank and its coordinator of straw."""
    return Straw(Node(make()["bank"], store or MemoryStore("bank"), LocalTransport(), VirtualClock(), peers=("desk",)))


@virtual_time
async def test_01_empty_rollback() -> None:
    """1. Empty rollback: a cancel for a transaction whose command never came reports success and changes nothing.
    Between holdfast services it cannot come so: order is kept, and nobody is told who was not asked."""
    async with straw() as desk:
        await desk.say(desk.told(CANCEL))
        assert await desk.answers() == [DONE] and await desk.amounts() == [] and await desk.locked() == []


@virtual_time
async def test_02_hanging() -> None:
    """2. Hanging: a command after its cancel. A frame that is out of order is a gap, or was received before and changes
    nothing; said in order against all custom, it is held, in view, until it is decided: a vote, no more."""
    async with straw() as desk:
        late = desk.frame(desk.move(5), desk.told(CANCEL))
        with pytest.raises(Gap):
            await desk.node.exchange(desk.frame(desk.told(CANCEL), after=1))
        await desk.node.exchange(late)
        await desk.node.exchange(msgspec.structs.replace(late, records=late.records[:1], upto=1))
        assert await desk.answers() == [HELD, DONE] and await desk.amounts() == [] and await desk.locked() == []


@virtual_time
async def test_03_cancel_twice_at_once() -> None:
    """3. Cancel twice concurrently: one takes effect, both answer success, balances are unchanged."""
    async with straw() as desk:
        await desk.say(desk.move(5))
        cancel = desk.frame(desk.told(CANCEL))
        await asyncio.gather(desk.node.exchange(cancel), desk.node.exchange(cancel))
        desk.position += 1
        await desk.say(desk.told(CANCEL))
        assert await desk.answers() == [HELD, DONE, DONE], "the repeated frame was one, the second cancel another"
        assert await desk.amounts() == [] and await desk.locked() == []


@virtual_time
async def test_04_duplicate_confirm() -> None:
    """4. Duplicate confirm: the frame said again does nothing. A confirm of its own, which no coordinator sends,
    waits in view (8) and does nothing either: nothing is confirmed twice."""
    async with straw() as desk:
        await desk.say(desk.move(5))
        confirm = desk.frame(desk.told(CONFIRM))
        await desk.node.exchange(confirm)
        await desk.node.exchange(confirm)
        desk.position += 1
        await desk.say(desk.told(CONFIRM))
        assert await desk.amounts() == [5] and await desk.answers() == [HELD, DONE]
        assert len(desk.node.waiting.slots()) == 1


@virtual_time
async def test_05_duplicate_command() -> None:
    """5. Duplicate try: the same command delivered again is decided once."""
    async with straw() as desk:
        move = desk.frame(desk.move(5))
        await asyncio.gather(*(desk.node.exchange(move) for _ in range(3)))
        desk.position += 1
        await desk.say(desk.told(CONFIRM))
        assert await desk.amounts() == [5] and await desk.answers() == [HELD, DONE]


@virtual_time
async def test_06_confirm_after_cancel() -> None:
    """6. Confirm after cancel: never a success; it waits in view, tried again, and holds up no other conversation."""
    async with straw() as desk:
        await desk.say(desk.move(5), desk.told(CANCEL), desk.told(CONFIRM))
        assert await desk.amounts() == [] and (await desk.answers()).count(DONE) == 1
        held = desk.node.waiting.slots()[0].message
        assert "nothing is held" in held.error
        await desk.say(desk.move(7, T2, account="b"), desk.told(CONFIRM, T2))
        assert await desk.amounts() == [7]


@virtual_time
async def test_07_cancel_after_confirm() -> None:
    """7. Cancel after confirm leaves the data. The list asks for a failure; ours says that it is done, for there is
    nothing to cancel: a coordinator of ours decides once, and its decision is one record."""
    async with straw() as desk:
        await desk.say(desk.move(5), desk.told(CONFIRM), desk.told(CANCEL))
        assert await desk.amounts() == [5] and await desk.locked() == []


@virtual_time
async def test_08_confirm_without_command() -> None:
    """8. Confirm without try: an error that is tried again, in view, never a silent success."""
    async with straw() as desk:
        await desk.say(desk.told(CONFIRM))
        await asyncio.sleep(30)
        held = desk.node.waiting.slots()[0].message
        assert held.attempts > 2 and "nothing is held" in held.error and await desk.answers() == []


@virtual_time
async def test_09_failure_in_the_second_phase() -> None:
    """9. Failure in phase two: a confirm whose commit fails takes nothing with it; it is carried out when it is said
    again. No user's code runs in it that could say no: what was voted on is already decided."""
    async with VirtualSystem(system()) as virtual:
        await ask(virtual, Move("a", 10), "a")
        bank = virtual.stores["bank"]
        asking = asyncio.ensure_future(ask(virtual, Trade("d1", (("a", -4), ("b", 4))), "d1"))
        await until(lambda: any(kind == "stage" for kind, _ in bank._rows))
        bank.crash_before.add(bank.commits + 1)
        assert (await asking).answer == Traded("d1")
        await virtual.settle()
        assert virtual.crashes == ["bank"] and balances(virtual) == {"a": 6, "b": 4}


@virtual_time
async def test_10_several_commands_of_one_transaction() -> None:
    """10. Several guarded calls in one branch: two commands of one transaction on one stream shadow nothing: both are
    there, in order, the second decided on the first."""
    async with straw() as desk:
        await desk.say(desk.move(5), desk.move(-5), desk.move(-1), desk.told(CANCEL))
        assert await desk.answers() == [HELD, HELD, "poor", DONE] and await desk.amounts() == []
        again = [desk.move(amount, attempt=1) for amount in (5, -3)]
        await desk.say(*again, desk.told(CONFIRM, attempt=1))
        assert await desk.amounts() == [5, -3]


@virtual_time
async def test_11_invalid_context() -> None:
    """11. Invalid context: a staged command whose transaction cannot be read touches nothing; it is set aside on its
    stream, in view."""
    async with straw() as desk:
        stored, data, stream, _ = desk.move(5)
        await desk.say((stored, data, stream, Headers(key="a", stage="rubbish")))
        held = desk.node.waiting.slots()[0].message
        assert "ValueError" in held.error and await desk.answers() == [] and await desk.locked() == []


@pytest.mark.parametrize("after", [False, True])
@virtual_time
async def test_12_crash_after_the_decision(after: bool) -> None:
    """12. Crash after decision: the decision is durable before anybody is told; a coordinator that dies at it goes on
    to the same outcome, whichever it was, and locks are taken again by a participant that restarts."""
    for trade, yes in ((Trade("d1", (("a", -4),), (), ("tea",)), True), (Trade("d2", (("a", -99),)), False)):
        async with VirtualSystem(system()) as virtual:
            await ask(virtual, Move("a", 10), "a")
            desk = virtual.stores["desk"]
            asking = asyncio.ensure_future(ask(virtual, trade, trade.deal))
            answers = 2 if trade.lists else 1
            heard = lambda: sum(one.type == "holdfast.saga.answered" for one in virtual.log("desk"))  # noqa: E731
            await until(lambda: heard() == answers - 1 and bool(virtual.log("desk")))  # noqa: B023
            (desk.crash_after if after else desk.crash_before).add(desk.commits + 1)
            await virtual.restart("bank")
            answer = (await asking).answer
            await virtual.settle()
            assert (answer == Traded(trade.deal)) == yes and balances(virtual)["a"] == (6 if yes else 10)
            assert not any(node.dispatch.stages.held for node in virtual.nodes.values())


@virtual_time
async def test_15_time_out_while_a_participant_is_uncertain() -> None:
    """15. Time-out while a branch is uncertain: the deadline cancels, with that reason; what may have been decided is
    cancelled where it is, and a step that was never begun is not asked."""
    async with VirtualSystem(system("bank", "shop", "depot", "desk")) as virtual:
        await ask(virtual, Move("a", 10), "a")
        await virtual.crash("depot")
        no = await ask(virtual, Trade("d1", (("a", -4),), (), ("tea",), takes=(("tea", 1),)), "d1")
        assert isinstance(no.answer, Rejection) and no.answer.code == "deadline"
        await virtual.start("depot")
        await virtual.settle()
        assert balances(virtual) == {"a": 10} and events(virtual, "depot") == []
        assert virtual.log("shop") == [], "it was never asked"


@virtual_time
async def test_16_17_18_nothing_after_the_decision() -> None:
    """16, 17, 18. Registration after the decision, commit and rollback racing, repeated submit: one stream decides, one
    record after another: late votes change nothing, the first decision stands, a repeated request gets its answer."""
    async with VirtualSystem(system()) as virtual:
        await ask(virtual, Move("a", 10), "a")
        virtual.transport.cut.add("shop")
        trade = Trade("d1", (("a", -4),), (), ("tea",))
        asks = [asyncio.ensure_future(ask(virtual, trade, "same", seconds=90)) for _ in range(3)]
        await asyncio.sleep(11)
        virtual.transport.cut.clear()
        found = [await one for one in asks]
        await virtual.settle()
        assert {one.answer.code for one in found} == {"deadline"} and len({one.tx for one in found}) == 1
        decided = [one.type for one in virtual.log("desk") if one.headers.outcome]
        assert decided == [REJECTED] and len(virtual.log("shop")) > 0 and events(virtual, "shop") == []
        again = await ask(virtual, trade, "same")
        assert (again.tx, again.answer.code) == (found[0].tx, "deadline")


@virtual_time
async def test_19_20_one_coordinator() -> None:
    """19, 20. The same branch registered twice, two coordinators picking one transaction: a step is asked once, by the
    record that asks it; a stream's records have versions, so a second writer of the same log is refused (`StoreLocked`,
    or a conflict), and a second frame of the same records is none. After a crash the step is not asked again."""
    async with VirtualSystem(system()) as virtual:
        await ask(virtual, Move("a", 10), "a")
        asking = asyncio.ensure_future(ask(virtual, Trade("d1", (("a", -4), ("b", 4)), (), ("tea",)), "d1"))
        await until(lambda: any(one.kind == "command" for one in virtual.log("desk")))
        await virtual.restart("desk")
        assert (await asking).answer == Traded("d1")
        await virtual.settle()
        asked = [one for one in virtual.log("desk") if one.kind == "command" and one.headers.stage]
        assert len(asked) == 3 and len({(one.stream, one.version) for one in asked}) == 3


@virtual_time
async def test_26_nested() -> None:
    """26. Nested: a staged command that would begin a saga itself is voted no, `not_staged`: one transaction has one
    coordinator. The working forms: several steps of one staged saga, or a staged saga as a step of an ordinary one."""
    async with VirtualSystem(system(*ALL)) as virtual:
        await ask(virtual, Move("a", 10), "a")
        no = await virtual.client.send(Order("o1", Trade("d1", (("a", -4), ("a", -99)))))
        assert no.answer.code == "poor"
        yes = await virtual.client.send(Order("o2", Trade("d2", (("a", -4),), (("b", 4),), ("tea",))))
        assert not isinstance(yes.answer, Rejection)
        await virtual.settle()
        found = balances(virtual)
        assert (found["a"], found["b"], found["deposit"]) == (6, 4, 10)
    node = Node(make()["desk"], MemoryStore("desk"), LocalTransport(), VirtualClock(), peers=("bank",))
    async with Straw(node):
        data, headers = msgspec.Raw(msgspec.json.encode(Trade("d1", ()))), Headers(key="d1", stage="1#0")
        record = WireRecord(1, "command", "desk.trade.v1", data, T1, T1, 1, "", T1, 1, headers)
        await node.exchange(Frame("bank", "desk", "i1", 1, 0, 1, Cursor(), 0, (record,)))
        (answer,) = [one for one in (await node.store.read(0, 10)).records if one.kind == "answer"]
        assert msgspec.json.decode(answer.data)["code"] == "not_staged"


@virtual_time
async def test_35_two_transactions_one_row() -> None:
    """35. Two global transactions writing one row: the younger gets no lock before the first ends, the older waits in
    order, and a transaction enters again where it holds."""
    async with straw() as desk:
        await desk.say(desk.move(5, T1, began=5), desk.move(1, T2, began=9), desk.move(2, T1, began=5))
        assert await desk.answers() == [HELD, DIED, HELD]
        await desk.say(desk.move(7, "Trading/t0", began=1))
        assert (await desk.answers())[3:] == [] and len(await desk.locked()) == 1
        await desk.say(desk.told(CONFIRM, T1))
        await until(lambda: not desk.node.waiting.slots())
        await asyncio.sleep(0.1)
        assert (await desk.answers())[3:] == [DONE, HELD]
        await desk.say(desk.told(CONFIRM, "Trading/t0"))
        assert await desk.amounts() == [5, 2, 7]


@virtual_time
async def test_36_opposite_lock_orders() -> None:
    """36. Opposite lock orders at once: both end within their deadlines, the loser by giving way and trying again."""
    async with VirtualSystem(system()) as virtual:
        for name in "ab":
            await ask(virtual, Move(name, 10), name)
        one = Trade("d1", (("a", -1),), (("b", 1),))
        two = Trade("d2", (("b", -1),), (("a", 1),))
        found = await asyncio.gather(ask(virtual, one, "d1"), ask(virtual, two, "d2"))
        assert [outcome.answer for outcome in found] == [Traded("d1"), Traded("d2")]
        await virtual.settle()
        assert balances(virtual) == Counter({"a": 10, "b": 10})


@virtual_time
async def test_37_a_row_changed_between_the_phases() -> None:
    """37. A row changed outside between the phases: nobody is outside: an ordinary command on what is held waits until
    it is decided, so a cancel has nothing to overwrite. (A foreign process is kept out by the store's lock.)"""
    async with straw() as desk:
        await desk.say(desk.move(5))
        plain = asyncio.ensure_future(desk.node.edge.run(Move("a", 3)))
        await asyncio.sleep(5)
        assert not plain.done() and await desk.amounts() == []
        await desk.say(desk.told(CANCEL))
        await plain
        assert await desk.amounts() == [3]


@virtual_time
async def test_38_a_rollback_before_the_first_phase_has_written() -> None:
    """38. Rollback before phase one wrote its record: the command that still waits for a lock is taken out and answered
    `cancelled`; it is never decided afterwards."""
    async with straw() as desk:
        await desk.say(desk.move(5, T2, began=9), desk.move(7, T1, began=1), desk.told(CANCEL, T1))
        assert await desk.answers() == [HELD, "cancelled", DONE]
        await desk.say(desk.told(CONFIRM, T2))
        await asyncio.sleep(5)
        assert await desk.amounts() == [5] and desk.node.waiting.slots() == [] and await desk.locked() == []
