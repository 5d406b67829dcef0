"""The writer: one decision is one commit, neighbours are unharmed, what was read is checked, memory is only a cache."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from holdfast import Rejection
from holdfast.core.log.batch import Batch, CommitOutcome, Row
from holdfast.core.log.record import Record
from holdfast.errors import Unavailable
from holdfast.stores.memory import MemoryStore
from holdfast.testing import VirtualSystem, run_virtual, virtual_time
from support.systems.deals import Deal, Fill, Take, Taken, ask, logged, ring, until, wrong

KINDS = ("request", "waiting", "timer", "saga", "snapshot", "view", "service")


def watch(system: VirtualSystem, name: str) -> list[Batch]:
    """Every batch that is handed to a service's store from here on."""
    seen: list[Batch] = []
    store = system.stores[name]
    commit = store.commit

    async def watched(batches: Sequence[Batch]) -> list[CommitOutcome]:
        seen.extend(batches)
        return await commit(batches)

    store.commit = watched  # type: ignore[method-assign]
    return seen


@virtual_time
async def test_one_decision_is_one_batch() -> None:
    """G1: events, commands, the answer, timers, the key, the mark that a message was handled: all in one batch."""
    async with VirtualSystem(ring()) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name, 5), f"fill {name}")
        at_desk, at_cell, at_till = (watch(system, name) for name in ("desk", "cell", "till"))
        await system.client.send(Deal("d", pays=False), key="k")
        await system.settle()
        begun = next(batch for batch in at_desk if any(r.type == "holdfast.saga.begun" for r in batch.records))
        assert [record.type for record in begun.records] == ["holdfast.saga.begun", "cell.take.v1", "cell.take.v1"]
        assert sorted(row.kind for row in begun.rows) == ["request", "saga"] and len(begun.reads) == 1
        taken = [batch for batch in at_cell if any(r.type == "cell.taken.v1" for r in batch.records)]
        assert [(len(b.records), len(b.moves), b.moves[0].name) for b in taken] == [(1, 1, "exchange:desk")] * 2
        assert all(b.records[0].destination == "desk" and b.reads for b in taken), "the answer is the event itself"
        (declined,) = [batch for batch in at_till if any(r.type == "till.declined.v1" for r in batch.records)]
        assert [record.type for record in declined.records] == ["till.declined.v1", "holdfast.rejected"]
        assert len(declined.moves) == 1
        asked = next(batch for batch in at_desk if any(r.type == "till.pay.v1" for r in batch.records))
        assert (
            [record.type for record in asked.records]
            == ["holdfast.saga.answered", "holdfast.saga.skipped", "till.pay.v1"]
            and {row.kind for row in asked.rows} == {"timer"}
            and asked.moves
        )
        undoing = next(batch for batch in at_desk if any(r.type == "holdfast.saga.undoing" for r in batch.records))
        assert [r.type for r in undoing.records][-2:] == ["cell.return.v1"] * 2 and undoing.moves
        ended = next(batch for batch in at_desk if any(r.headers.outcome for r in batch.records))
        assert ("saga", None) in [(row.kind, row.data) for row in ended.rows] and ended.moves


@virtual_time
async def test_a_crash_between_deciding_and_the_flush_leaves_nothing() -> None:
    """G1: of what was decided and not committed there is no record, no row and no cursor."""
    async with VirtualSystem(ring()) as system:
        store = system.stores["desk"]
        await asyncio.sleep(2)
        before = dict(await store.cursors()), {kind: await store.scan(kind) for kind in KINDS}  # type: ignore[arg-type]
        store.crash_before.add(store.commits + 1)
        with pytest.raises(Unavailable):
            await system.client.send(Deal("d"), key="k")
        await system.settle()
        assert system.crashes == ["desk"] and not system.log("desk")
        after = dict(await store.cursors()), {kind: await store.scan(kind) for kind in KINDS}  # type: ignore[arg-type]
        assert after == before


async def behind_its_back(store: MemoryStore, stream: str, stored: str, data: bytes) -> None:
    """Append an event as another replica would: the service does not know."""
    version = dict(await store.streams(stream))[stream]
    record = Record(0, "event", stored, data, "t", "t", 1, stream=stream, version=version + 1)
    await MemoryStore.commit(store, [Batch((record,), reads=((stream, version),))])


@virtual_time
async def test_what_was_read_is_checked() -> None:
    """G2: a decision that rests on a version which has moved is taken again on the new one - a rejection too."""
    async with VirtualSystem(ring()) as system:
        store = system.stores["cell"]
        await ask(system, Fill("a"), "fill")
        assert (await ask(system, Take("a", "1"), "1")).answer == Taken("a", "1")
        await behind_its_back(store, "Cell/a", "cell.filled.v1", b'{"id":"a","amount":1}')
        assert (await ask(system, Take("a", "2"), "2")).answer == Taken("a", "2"), "rejected on stale state"
        await behind_its_back(store, "Cell/a", "cell.filled.v1", b'{"id":"a","amount":1}')
        await behind_its_back(store, "Cell/a", "cell.taken.v1", b'{"id":"a","deal":"x"}')
        rejected = await ask(system, Take("a", "3"), "3")
        assert isinstance(rejected.answer, Rejection), "accepted on stale state"
        versions = [record.version for record in system.log("cell") if record.stream == "Cell/a" and record.version]
        assert versions == list(range(1, 7))


@virtual_time
async def test_a_conflict_harms_no_neighbour_and_keeps_the_order() -> None:
    """Of a group in which one stream has moved, the others land as they were, and the commands on that stream are
    decided again in the order they came."""
    async with VirtualSystem(ring(), flush_seconds=0.01) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name, 3), f"fill {name}")
        for amount in (b"2", b"0", b"0", b"0", b"0", b"0", b"0", b"0"):
            await behind_its_back(
                system.stores["cell"], "Cell/a", "cell.filled.v1", b'{"id":"a","amount":' + amount + b"}"
            )
        first = [system.client.send(Take(name, f"{n}"), key=f"{name}{n}") for n in range(4) for name in ("a", "b")]
        tasks = [asyncio.ensure_future(one) for one in first]
        await asyncio.sleep(0.005)  # the group is in its flush: these go into the next one
        tasks += [
            asyncio.ensure_future(system.client.send(Take(name, f"{n}"), key=f"{name}{n}"))
            for n in range(4, 7)
            for name in ("a", "b")
        ]
        outcomes = await asyncio.gather(*tasks)
        of_a = [outcome for outcome, task in zip(outcomes, tasks, strict=True) if tasks.index(task) % 2 == 0]
        assert [isinstance(outcome.answer, Taken) for outcome in of_a] == [True] * 5 + [False] * 2
        assert [outcome.position for outcome in of_a] == sorted(outcome.position for outcome in of_a)
        deals = [
            msgspec.json.decode(record.data)["deal"]
            for record in system.log("cell")
            if record.stream == "Cell/a" and record.type == "cell.taken.v1"
        ]
        assert deals == ["0", "1", "2", "3", "4"]
        assert sum(r.stream == "Cell/b" and r.type == "cell.taken.v1" for r in system.log("cell")) == 3


@virtual_time
async def test_a_failed_flush_leaves_no_trace_in_memory() -> None:
    """After a flush that failed, state is what the log says: what was decided for it is not."""
    async with VirtualSystem(ring(), flush_seconds=0.01) as system:
        await ask(system, Fill("a", 5), "fill")
        sent = [asyncio.ensure_future(system.client.send(Take("a", f"{n}"))) for n in range(3)]
        await asyncio.sleep(0.005)
        sent += [asyncio.ensure_future(system.client.send(Take("a", f"{n}"))) for n in range(3, 6)]
        system.stores["cell"].failing = True
        found = await asyncio.gather(*sent, return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in found)
        system.stores["cell"].failing = False
        await asyncio.sleep(5)
        for number in range(5):
            assert (await ask(system, Take("a", f"x{number}"), f"x{number}")).answer == Taken("a", f"x{number}")
        assert isinstance((await ask(system, Take("a", "y"), "y")).answer, Rejection)


def busy(snapshot_every: int, streams_max: int, *, restarts: bool) -> list[Any]:
    """The events of a log that many commands on many streams wrote, one after another, with these settings."""

    async def main() -> list[Any]:
        async with VirtualSystem(ring(), snapshot_every=snapshot_every, streams_in_memory_max=streams_max) as system:
            rng = random.Random(5)
            for number in range(150):
                name = f"c{rng.randrange(12)}"
                command = Fill(name, 2) if rng.random() < 0.4 else Take(name, f"d{number}")
                await ask(system, command, f"k{number}")
                if restarts and number % 40 == 39:
                    await system.restart("cell")
            node = system.nodes["cell"]
            assert len(node.streams) <= streams_max
            snapshots = await system.stores["cell"].scan("snapshot")
            assert bool(snapshots) == (snapshot_every < 100), "no snapshot was ever used"
            return [(r.type, r.stream, r.version, r.data) for r in system.log("cell")]

    return run_virtual(main)


def test_snapshots_and_memory_make_no_difference() -> None:
    """With a snapshot every three versions, three streams in memory and restarts the log is the same, byte for byte."""
    plain = busy(1000, 1000, restarts=False)
    assert len(plain) == 150
    assert busy(3, 1000, restarts=True) == plain
    assert busy(1000, 3, restarts=False) == plain
    assert busy(3, 3, restarts=True) == plain


@virtual_time
async def test_a_snapshot_of_another_shape_is_not_used() -> None:
    """A snapshot whose fields are not those of the class now is passed over: the state is folded from the records."""
    async with VirtualSystem(ring(), snapshot_every=2) as system:
        await ask(system, Fill("a", 5), "fill")
        await ask(system, Take("a", "x"), "x")
        store = system.stores["cell"]
        ((key, data),) = await store.scan("snapshot")
        other = msgspec.json.decode(data)
        assert other["version"] == 2
        other["shape"], other["data"] = "older", {"amount": 99, "deals": {}}
        await system.crash("cell")
        await store.open("tamper", 1)
        await MemoryStore.commit(store, [Batch(rows=(Row("snapshot", key, msgspec.json.encode(other)),))])
        await system.start("cell")
        assert (await ask(system, Fill("a", 1), "more")).answer
        entry = system.nodes["cell"].streams.get("Cell/a")
        assert entry is not None and entry.state.amount == 5 and entry.version == 3


@virtual_time
async def test_an_evicted_stream_of_a_group_on_its_way_is_not_lost() -> None:
    """However small memory is, streams of commits on their way stay, and fifty deals at once all end well."""
    async with VirtualSystem(ring(), streams_in_memory_max=1, snapshot_every=4) as system:
        for name in ("a", "b", "c"):
            await ask(system, Fill(name, 60), f"fill {name}")
        deals = {f"d{n}": Deal(f"d{n}", gifts=("c",), pays=n % 4 != 0, books=n % 5 != 0) for n in range(50)}
        await asyncio.gather(*(ask(system, command, deal) for deal, command in deals.items()))
        await system.settle()
        assert wrong(system, deals) == []
        await until(lambda: all(len(node.streams) <= 2 for node in system.nodes.values()))
        assert logged(system, "desk", "desk.dealt.v1") == sum(c.pays and c.books for c in deals.values())


@pytest.mark.parametrize("rounds", range(16))
def test_a_service_that_is_closed_does_not_take_itself_up_again(rounds: int) -> None:
    """G9: a commit that fails while its service closes begins no recovery: what was closed says nothing to anybody when
    the store is there again, and leaves no task behind."""

    async def main() -> None:
        async with VirtualSystem(ring(), flush_seconds=0.0) as system:
            node = system.nodes["cell"]
            asking = asyncio.ensure_future(system.client.send(Fill("a")))
            for _ in range(rounds):
                await asyncio.sleep(0)
            await system.restart("cell")
            await asyncio.gather(asking, return_exceptions=True)
            await asyncio.sleep(2)
            assert node.conversations is not None
            assert all(one.idle for one in node.conversations.conversations.values())
            assert not [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "cr_frame", None)
                        and task.get_coro().cr_frame.f_locals.get("self") is node]  # fmt: skip

    run_virtual(main)
