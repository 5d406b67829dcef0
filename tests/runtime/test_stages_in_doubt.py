"""Doubt: what became of a staged transaction is asked, never guessed; what a person says never contradicts it."""

import asyncio
from typing import Any

import msgspec
import pytest

from holdfast import Rejection
from holdfast.errors import Contradicted, Invalid, NotFound
from holdfast.runtime.edge.commands import Outcome
from holdfast.runtime.inbox.doubt import RESOLVED
from holdfast.runtime.ops.resolve import resolve
from holdfast.testing import VirtualSystem, virtual_time
from support.systems.deals import ask, until
from support.systems.trades import ALL, Move, Order, Ordered, Trade, Traded, balances, events, system

TRADE = Trade("d1", (("a", -30), ("b", 30)), (), ("tea",))


def stage_rows(virtual: VirtualSystem) -> dict[str, int]:
    """How many rows of locks and of remembered decisions each store has."""
    return {
        name: sum(kind in ("stage", "decided") for kind, _ in store._rows) for name, store in virtual.stores.items()
    }


async def begun(virtual: VirtualSystem, trade: Trade = TRADE) -> "tuple[asyncio.Task[Any], str]":
    """A trade that the bank holds and the shop has not heard of; its transaction."""
    await ask(virtual, Move("a", 100), "a")
    virtual.transport.cut.add("shop")
    task = asyncio.ensure_future(ask(virtual, trade, trade.deal, seconds=9000))
    bank = virtual.nodes["bank"].dispatch.stages
    await until(lambda: stage_rows(virtual)["bank"] == len(trade.moves))
    return task, next(hold.tx for _, hold in bank.items())


async def in_doubt(virtual: VirtualSystem) -> "tuple[asyncio.Task[Any], str]":
    """The shop was told to commit; the bank was not, and the desk is gone."""
    await ask(virtual, Move("a", 100), "a")
    virtual.transport.cut.add("shop")
    task = asyncio.ensure_future(ask(virtual, TRADE, "d1", seconds=9000))
    await until(lambda: stage_rows(virtual)["bank"] == 2)
    tx = next(hold.tx for _, hold in virtual.nodes["bank"].dispatch.stages.items())
    virtual.transport.cut.clear()
    await until(lambda: stage_rows(virtual)["shop"] == 1)
    virtual.transport.cut.add("bank")
    await until(lambda: len(events(virtual, "shop")) == 1)
    await virtual.crash("desk")
    virtual.transport.cut.clear()
    return task, tx


@virtual_time
async def test_a_peer_that_was_told_tells() -> None:
    """G6: the coordinator gone, a participant in doubt asks the others; who was told knows, and it carries it out.
    When the coordinator is back and tells, that is no news."""
    async with VirtualSystem(system()) as virtual:
        task, _ = await in_doubt(virtual)
        await until(lambda: balances(virtual) == {"a": 70, "b": 30})
        assert stage_rows(virtual)["bank"] == 1, "remembered until the coordinator has said it"
        await virtual.restart("bank")
        await virtual.start("desk")
        assert (await task).answer == Traded("d1")
        await virtual.settle()
        assert balances(virtual) == {"a": 70, "b": 30} and set(stage_rows(virtual).values()) == {0}


@virtual_time
async def test_not_known_is_not_cancelled() -> None:
    """G6: the coordinator gone and nobody told, what is held stays held, however long; then the coordinator decides."""
    async with VirtualSystem(system()) as virtual:
        task, _ = await begun(virtual)
        await virtual.crash("desk")
        virtual.transport.cut.clear()
        await asyncio.sleep(3600)
        assert stage_rows(virtual)["bank"] == 2 and balances(virtual) == {"a": 100}
        await virtual.start("desk")
        assert (await task).answer == Traded("d1"), "it hears all votes before it judges a deadline"
        await virtual.settle()
        assert balances(virtual) == {"a": 70, "b": 30} and set(stage_rows(virtual).values()) == {0}


@virtual_time
async def test_the_coordinator_is_resolved_by_cancelling() -> None:
    """28. Forced stop. An operator cancels what is undecided, on record, once; what has ended is a conflict, and a
    commit of what not all have voted on is refused."""
    async with VirtualSystem(system()) as virtual:
        task, tx = await begun(virtual)
        desk = virtual.nodes["desk"]
        with pytest.raises(Contradicted, match="not all have voted"):
            await resolve(desk, tx, commit=True, by="me", why="impatient")
        with pytest.raises(Contradicted, match="desk is there and has not decided"):
            await resolve(virtual.nodes["bank"], tx, commit=False, by="me", why="impatient")
        with pytest.raises(Invalid, match="why is missing"):
            await resolve(desk, tx, commit=False, by="me", why=" ")
        done = await resolve(desk, tx, commit=False, by="on call", why="shop is away")
        assert (done.how, done.commit) == ("decided", False)
        answer = (await task).answer
        assert answer.code == "resolved" and answer.facts == {"by": "on call", "why": "shop is away"}
        again = await resolve(desk, tx, commit=False, by="on call", why="shop is away")
        assert again.how == "already"
        with pytest.raises(Contradicted, match="was cancelled"):
            await resolve(desk, tx, commit=True, by="me", why="sorry")
        (said,) = [record for record in virtual.log("desk") if record.type == RESOLVED]
        assert msgspec.json.decode(said.data)["why"] == "shop is away" and said.tx == tx
        virtual.transport.cut.clear()
        await virtual.settle()
        assert balances(virtual) == {"a": 100} and set(stage_rows(virtual).values()) == {0}
        with pytest.raises(NotFound):
            await resolve(desk, "nobody", commit=False, by="me", why="x")


@virtual_time
async def test_a_participant_is_not_resolved_against_what_a_peer_knows() -> None:
    """G6: the coordinator gone, an operator cannot cancel at one participant what another was told to commit."""
    async with VirtualSystem(system()) as virtual:
        task, tx = await in_doubt(virtual)
        bank = virtual.nodes["bank"]
        with pytest.raises(Contradicted, match="shop knows that it was committed"):
            await resolve(bank, tx, commit=False, by="me", why="desk is gone")
        assert (await resolve(bank, tx, commit=True, by="me", why="desk is gone")).how == "told"
        assert balances(virtual) == {"a": 70, "b": 30}
        await virtual.start("desk")
        assert (await task).answer == Traded("d1")
        await virtual.settle()


@pytest.mark.parametrize("commit", [False, True])
@virtual_time
async def test_a_participant_resolved_as_the_coordinator_then_decides(commit: bool) -> None:
    """G6: forced the way it then comes, nothing is said twice; forced otherwise, that is recorded, and the transaction
    is stuck in view, mixed; nothing is overwritten. What has not voted cannot be committed."""
    async with VirtualSystem(system()) as virtual:
        task, tx = await begun(virtual)
        bank = virtual.nodes["bank"]
        await virtual.crash("desk")
        done = await resolve(bank, tx, commit=commit, by="on call", why="desk is gone for good")
        assert done.how == "forced" and stage_rows(virtual)["bank"] == 1
        again = await resolve(bank, tx, commit=commit, by="on call", why="desk is gone for good")
        assert again.how == "already"
        with pytest.raises(Contradicted):
            await resolve(bank, tx, commit=not commit, by="on call", why="a mistake")
        forced = {"a": 70, "b": 30} if commit else {"a": 100}
        assert balances(virtual) == forced
        assert await ask(virtual, Move("b", 1), "free again")
        await virtual.restart("bank")
        await asyncio.sleep(60)
        await virtual.start("desk")
        answer = (await task).answer
        assert answer.code == "deadline", "the shop never voted"
        virtual.transport.cut.clear()
        await virtual.settle()
        (_, *open_) = [("", None), *await virtual.nodes["desk"].sagas()]
        if commit:
            assert [entry.status for _, entry in open_] == ["stuck"] and "mixed" in open_[0][1].cause
            no = [one for one in virtual.log("bank") if one.kind == "answer" and b'"mixed"' in one.data]
            assert len(no) == 1 and no[0].destination == "desk"
        else:
            assert open_ == []
        assert {name: n for name, n in balances(virtual).items() if name == "a"} == {"a": forced["a"]}
        assert set(stage_rows(virtual).values()) == {0}


@virtual_time
async def test_a_late_command_of_a_resolved_transaction_is_no() -> None:
    """G6: resolved at a participant, the transaction gets nothing more there, whatever its coordinator still asks."""
    async with VirtualSystem(system()) as virtual:
        trade = Trade("d1", (("a", -30),), (("a", -5),), ("tea",))
        await ask(virtual, Move("a", 100), "a")
        virtual.transport.cut.add("desk")  # its answers and commands come through when it asks itself, then nothing
        task = asyncio.ensure_future(ask(virtual, trade, "d1", seconds=9000))
        virtual.transport.cut.clear()
        await until(lambda: stage_rows(virtual)["bank"] == 1)
        tx = next(hold.tx for _, hold in virtual.nodes["bank"].dispatch.stages.items())
        await virtual.crash("desk")
        await resolve(virtual.nodes["bank"], tx, commit=False, by="on call", why="desk is gone")
        await virtual.start("desk")
        answer = (await task).answer
        await virtual.settle()
        assert isinstance(answer, Rejection) and balances(virtual) == {"a": 100}
        assert set(stage_rows(virtual).values()) == {0} and events(virtual, "shop") == []


@virtual_time
async def test_a_view_waits_for_all_of_a_transaction() -> None:
    """G6: a read that names the committed transaction sees the parts of all services, or says that it is behind."""
    async with VirtualSystem(system(*ALL)) as virtual:
        await ask(virtual, Move("a", 100), "a")
        virtual.transport.latency_seconds = 0.2
        outcome: Outcome = await virtual.client.send(TRADE)
        assert outcome.answer == Traded("d1")
        query = virtual.client.query
        first = await query("office", "Deal", "d1", wait_seconds=0)
        assert first.row is None, "nobody waited"
        whole = await query("office", "Deal", "d1", transaction=outcome.tx)
        assert whole.row == {"moved": 2, "listed": 1} and not whole.behind
        virtual.transport.cut.add("shop")
        task = asyncio.ensure_future(ask(virtual, Trade("d2", (("a", -1),), (), ("mug",)), "d2", seconds=60))
        await until(lambda: stage_rows(virtual)["bank"] == 1)
        tx = next(hold.tx for _, hold in virtual.nodes["bank"].dispatch.stages.items())
        held = await query("office", "Deal", "d2", transaction=tx, wait_seconds=2)
        assert held.behind and held.row is None
        virtual.transport.cut.clear()
        await task


@virtual_time
async def test_a_view_is_behind_while_anything_is_held() -> None:
    """G6: a participant that voted and was not told yet has not all of the transaction, though others have."""
    async with VirtualSystem(system(*ALL)) as virtual:
        _, tx = await in_doubt(virtual)
        query = virtual.client.query
        assert (await query("office", "Deal", "d1", transaction=tx, wait_seconds=8)).behind
        await virtual.start("desk")
        whole = await query("office", "Deal", "d1", transaction=tx, wait_seconds=10)
        assert whole.row == {"moved": 2, "listed": 1} and not whole.behind


@virtual_time
async def test_what_waits_has_not_voted_and_is_not_committed() -> None:
    """G6: the coordinator gone, a participant where a part of the transaction still waits for a lock cannot commit."""
    async with VirtualSystem(system()) as virtual:
        await ask(virtual, Move("a", 100), "a")
        virtual.transport.latency_seconds = 0.2
        older = asyncio.ensure_future(ask(virtual, Trade("d1", (("a", -1),), (("b", 1),)), "d1", seconds=9000))
        await asyncio.sleep(0.05)
        younger = asyncio.ensure_future(ask(virtual, Trade("d2", (("b", 5),), (), ("tea",)), "d2", seconds=9000))
        await asyncio.sleep(0.05)
        virtual.transport.cut.add("shop")
        bank = virtual.nodes["bank"]
        await until(lambda: bool(bank.waiting.slots()))
        (waiting,) = bank.waiting.slots()
        tx = waiting.message.record.tx
        await virtual.crash("desk")
        with pytest.raises(Contradicted, match="bank has not voted on all its commands"):
            await resolve(bank, tx, commit=True, by="me", why="desk is gone")
        virtual.transport.cut.clear()
        await virtual.start("desk")
        assert {(await older).answer, (await younger).answer} == {Traded("d1"), Traded("d2")}
        await virtual.settle()


@virtual_time
async def test_the_commit_record_is_where_the_outcome_says() -> None:
    """The position of the outcome is that of the commit record, which names its transaction."""
    async with VirtualSystem(system()) as virtual:
        await ask(virtual, Move("a", 100), "a")
        outcome = await virtual.client.send(TRADE)
        record = virtual.log("desk")[outcome.position - 1]
        assert record.headers.outcome and record.tx == outcome.tx and record.kind == "event"
        empty = await virtual.client.send(Trade("empty", ()))
        assert virtual.log("desk")[empty.position - 1].headers.outcome
        found = await virtual.nodes["bank"].doubts.standing(outcome.tx)
        assert [one.commit for one in found.decided] in ([], [True])


@virtual_time
async def test_a_staged_group_is_one_step_of_a_saga() -> None:
    """G4, G6: an ordinary saga asks for a trade, all or none of it; a later no undoes it by a trade of its own."""
    async with VirtualSystem(system(*ALL)) as virtual:
        await ask(virtual, Move("a", 100), "a")
        yes = await virtual.client.run(Order("o1", TRADE, 5))
        assert yes == Ordered("o1")
        no = await virtual.client.send(Order("o2", Trade("d2", (("a", -30), ("b", -999)), (), ("tea",))))
        assert no.answer.code == "poor"
        undone = await virtual.client.send(Order("o3", Trade("d3", (("a", -7), ("b", 7))), -999))
        assert undone.answer.code == "poor"
        await virtual.settle()
        found = balances(virtual)
        assert {name: found[name] for name in ("a", "b", "deposit", "strict")} == {
            "a": 70, "b": 30, "deposit": 10, "strict": 5,
        }  # fmt: skip
        deals = [msgspec.json.decode(one.data)["deal"] for one in events(virtual, "bank")]
        assert deals.count("d3") == 2 and deals.count("d3-back") == 2 and "d2" not in deals
