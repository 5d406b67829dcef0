"""What comes next in a saga is the same whether it is told from the saga's state or from the records of its stream."""

import asyncio
from collections.abc import Iterator

from holdfast.core.declare.saga import SagaType
from holdfast.core.explain.upcoming import reached_by_records, reached_by_state, upcoming
from holdfast.core.log.record import Record
from holdfast.core.saga.progress import SagaState, apply
from holdfast.runtime.decide.saga_records import from_record
from holdfast.runtime.ops.repair import Ask, repair
from holdfast.testing import VirtualSystem, virtual_time
from support.systems.sales import Faults, Sell
from support.systems.sales import system as selling
from support.systems.trades import Move, Trade
from support.systems.trades import system as trading


def moments(virtual: VirtualSystem, name: str) -> Iterator[tuple[SagaType, SagaState, list[Record]]]:
    """Every moment of every saga of a service: its declaration, its state, its records up to then."""
    streams: dict[str, list[Record]] = {}
    for record in virtual.log(name):
        if record.version and record.stream.partition("/")[0] in virtual.nodes[name].service.sagas:
            streams.setdefault(record.stream, []).append(record)
    for stream, records in streams.items():
        saga, state = virtual.nodes[name].service.sagas[stream.partition("/")[0]], SagaState()
        for number, record in enumerate(records, 1):
            apply(saga, state, from_record(saga, record))
            yield saga, state, records[:number]


def agreed(virtual: VirtualSystem, name: str) -> set[tuple[str, tuple[str, ...]]]:
    """(status, what comes next) of every moment, told alike from state and from records."""
    found: set[tuple[str, tuple[str, ...]]] = set()
    for saga, state, records in moments(virtual, name):
        by_records = reached_by_records(records, staged=saga.staged)
        told = upcoming(saga, reached_by_state(state))
        assert (by_records.status, upcoming(saga, by_records)) == (state.status, told), records[-1]
        found.add((state.status, told))
    return found


@virtual_time
async def test_a_saga_that_goes_forward_back_and_stuck() -> None:
    """Sales that end well, are undone, stand stuck and are retried or skipped: at each moment both tell the same."""
    faults = Faults(refused={"book:o2", "pay:o3", "return:*", "post:*"})
    async with VirtualSystem(selling(faults)) as virtual:
        sales = [Sell("o1"), Sell("o2"), Sell("o3", ("tea", "cup")), Sell("o4", (), "pot")]
        tasks = [asyncio.ensure_future(virtual.client.send(sell, wait_seconds=3000)) for sell in sales]
        await asyncio.sleep(60)
        desk = virtual.nodes["desk"]
        faults.refused.discard("post:*")
        while stuck := await desk.sagas(status="stuck"):
            for stream, entry in stuck:
                kind = "retry" if entry.step == "post" else "skip"
                await repair(desk, Ask(kind, stream, "on call", "it was looked into"))
            await asyncio.sleep(60)
        await asyncio.gather(*tasks)
        told = agreed(virtual, "desk")
    assert ("running", ("take", "pay", "book (the pivot)", "post", "answer sold")) in told
    assert ("running", ("post", "answer sold")) in told and ("running", ("answer sold",)) in told
    assert ("undoing", ("undo of pay", "undo of take")) in told and ("undoing", ("undo of take",)) in told
    assert {status for status, _ in told} == {"running", "undoing", "stuck", "completed", "undone"}


@virtual_time
async def test_a_staged_saga_that_commits_gives_way_and_is_cancelled() -> None:
    """Trades that commit, give way to one another and are cancelled: at each moment both tell the same."""
    async with VirtualSystem(trading()) as virtual:
        for account in ("a", "b"):
            await virtual.client.run(Move(account, 100))
        pair = (("a", -1), ("b", 1))
        trades = [Trade("d1", pair, pair), Trade("d2", pair[::-1], pair), Trade("d3", (("a", -900),))]
        await asyncio.gather(*(virtual.client.send(trade, wait_seconds=3000) for trade in trades))
        await virtual.settle()
        assert any(record.type == "holdfast.saga.again" for record in virtual.log("desk")), "none gave way"
        told = agreed(virtual, "desk")
    steps = ("move", "then", "take", "rename", "show")
    assert ("running", (*steps, "commit", "answer traded")) in told
    assert ("running", ("commit", "answer traded")) in told and ("committed", ()) in told and ("cancelling", ()) in told
