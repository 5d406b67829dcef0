"""Sagas at run time: what they do, and that a crash of anybody at any commit changes nothing of it (G1, G3, G4)."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from holdfast import Contract, Rejection, Service, answer, decide, step
from holdfast.core.log.batch import Batch, Row
from holdfast.core.log.record import Record
from holdfast.core.saga.progress import SagaState
from holdfast.errors import Pending
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.edge.commands import Outcome
from holdfast.runtime.ops.status import progress
from holdfast.runtime.timers import Timers
from holdfast.stores.memory import MemoryStore
from holdfast.testing import VirtualSystem, run_virtual, virtual_time
from holdfast.testing.simulation.loop import VirtualClock
from support.systems.deals import Book, Booked, Deal, Dealt, Fill, ask, desk, judge, logged, ring, until, wrong

DEALS: dict[str, tuple[Deal, Any]] = {
    "completes": (Deal("d", gifts=("c", "e")), Dealt("d", ("a", "b"), ("c", "empty"))),
    "skips a step": (Deal("d", pay=False), Dealt("d", ("a", "b"), ())),
    "asks nothing": (Deal("d", cells=(), pay=False), Dealt("d", (), ())),
    "first step rejected": (Deal("d", cells=("a", "e", "b")), "empty"),
    "later step rejected": (Deal("d", gifts=("c",), pays=False), "declined"),
    "pivot rejected": (Deal("d", books=False), "closed"),
    "step says no itself": (Deal("d", raises=True), "changed_my_mind"),
    "undo refused at first": (Deal("d", pays=False, return_refusals=2), "declined"),
    "after the pivot refused at first": (Deal("d", tell_refusals=2), Dealt("d", ("a", "b"), ())),
}
"""What is asked -> the event that answers it, or the code of the no."""


async def deal(system: VirtualSystem, command: Deal) -> Any:
    """Deal with filled cells `a`, `b`, `c` and an empty one, `e`; the answer when everything is quiet."""
    for name in ("a", "b", "c", "e"):
        await ask(system, Fill(name, int(name != "e")), f"fill {name}")
    outcome = await ask(system, command, "deal")
    await system.settle()
    assert await ask(system, command, "deal") == outcome, "the recorded answer is another one"
    return outcome.answer


def expect(answer: Any, expected: Any) -> None:
    assert (answer.code if isinstance(answer, Rejection) else answer) == expected


async def no_other_state(system: VirtualSystem) -> None:
    """The state of every stream in memory is what a fold of its records gives."""
    for name, node in system.nodes.items():
        for stream, _ in await system.stores[name].streams(""):
            entry = node.streams.get(stream)
            if entry is None:
                continue
            (loaded,) = await system.stores[name].load([stream], snapshots=False)
            state, version = node.dispatch.folder_of(stream).fold(stream, loaded)
            assert version == entry.version, stream
            assert seen(state) == seen(entry.state), stream


def seen(state: Any) -> Any:
    """All that matters of a state."""
    if not isinstance(state, SagaState):
        return vars(state)
    left_out = {"timers", "plan", "instance", "begun", "front"}
    return {name: getattr(state, name) for name in SagaState.__slots__ if name not in left_out}


@pytest.mark.parametrize("name", DEALS)
def test_a_deal_ends_as_declared(name: str) -> None:
    """G4: a saga ends completed or undone, whatever is refused where; the logs hold each effect once."""
    command, expected = DEALS[name]

    async def main() -> None:
        async with VirtualSystem(ring()) as system:
            expect(await deal(system, command), expected)
            assert wrong(system, {"d": command}) == []
            await no_other_state(system)

    run_virtual(main)


def commits_of(command: Deal) -> dict[str, int]:
    async def main() -> dict[str, int]:
        async with VirtualSystem(ring()) as system:
            await deal(system, command)
            return {name: store.commits for name, store in system.stores.items()}

    return run_virtual(main)


def crash_at_every_commit(command: Deal, expected: Any, *, loss: float = 0.0, seed: int = 0) -> int:
    """Run the deal once for each commit of each service, crashing there, before it and after it."""
    runs = 0
    for service, commits in commits_of(command).items():
        for number in range(1, commits + 1):
            for after in (False, True):

                async def main(service: str = service, number: int = number, after: bool = after) -> list[str]:
                    async with VirtualSystem(ring(), loss=loss) as system:
                        store = system.stores[service]
                        (store.crash_after if after else store.crash_before).add(number)
                        expect(await deal(system, command), expected)
                        await no_other_state(system)
                        assert loss or system.crashes == [service]
                        return wrong(system, {"d": command})

                assert run_virtual(main, seed=seed + number) == [], (
                    f"{service} {'after' if after else 'before'} {number}"
                )
                runs += 1
    return runs


@pytest.mark.parametrize("name", DEALS)
def test_a_crash_at_any_commit_changes_nothing(name: str) -> None:
    """G1, G3, G4: whoever crashes, before or after whichever commit, the deal ends the same, nothing lost or twice."""
    assert crash_at_every_commit(*DEALS[name]) >= 16


@pytest.mark.soak
@pytest.mark.parametrize("name", DEALS)
@pytest.mark.parametrize("seed", range(1, 40))
def test_a_crash_at_any_commit_on_a_bad_network(name: str, seed: int) -> None:
    """The same for every kind of deal, while one message in five is lost."""
    assert crash_at_every_commit(*DEALS[name], loss=0.2, seed=seed * 1000) >= 16


def random_crashes(seed: int, deals: int) -> int:
    """Many deals of all kinds at once, random crashes and losses; the number of crashes."""

    async def main() -> int:
        async with VirtualSystem(ring(), loss=0.05, snapshot_every=5, streams_in_memory_max=6) as system:
            rng = random.Random(seed)
            for name in ("a", "b", "c"):
                await ask(system, Fill(name, deals * 2), f"fill {name}")
            await ask(system, Fill("e", 0), "fill e")
            kinds = [command for command, _ in DEALS.values()]
            asked = {f"d{n}": msgspec.structs.replace(rng.choice(kinds), deal=f"d{n}") for n in range(deals)}

            async def later(command: Deal) -> Outcome:
                await asyncio.sleep(rng.random() * 4)
                return await ask(system, command, command.deal)

            async def crashes() -> None:
                for _ in range(16):
                    await asyncio.sleep(rng.random() * 0.5)
                    store = system.stores[rng.choice(sorted(system.stores))]
                    (store.crash_before if rng.random() < 0.5 else store.crash_after).add(store.commits + 1)

            answers, _ = await asyncio.gather(asyncio.gather(*map(later, asked.values())), crashes())
            await system.settle()
            assert wrong(system, asked) == []
            await no_other_state(system)
            for command, outcome in zip(asked.values(), answers, strict=True):
                expected = next(
                    e for kind, e in DEALS.values() if msgspec.structs.replace(kind, deal=command.deal) == command
                )
                assert isinstance(outcome.answer, Rejection) == isinstance(expected, str)
            await asyncio.sleep(10)  # until the last deadline has passed
            assert [progress(node).sagas_open for node in system.nodes.values()] == [0, 0, 0]
            assert [progress(node).timers for node in system.nodes.values()] == [0, 0, 0]
            return len(system.crashes)

    return run_virtual(main, seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_many_deals_survive_random_crashes(seed: int) -> None:
    """G3, G4: fifty deals of all kinds, many crashes and a bad network: each deal whole or undone."""
    assert random_crashes(seed, 50) >= 6


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 400))
def test_many_more_deals_survive_random_crashes(seed: int) -> None:
    """The same on three hundred other schedules."""
    assert random_crashes(seed, 50) >= 6


@pytest.mark.parametrize("name", ["completes", "pivot rejected"])
def test_the_judge_can_fail(name: str) -> None:
    """An event that is there twice, one that is missing, a cause that is nowhere: each makes the judge complain."""
    command, _ = DEALS[name]

    async def main() -> dict[str, list[Record]]:
        async with VirtualSystem(ring()) as system:
            await deal(system, command)
            return {name: system.log(name) for name in system.stores}

    logs = run_virtual(main)
    assert judge(logs, {"d": command}) == []
    spoiled = 0
    for service, log in logs.items():
        for number, record in enumerate(log):
            orphan = msgspec.structs.replace(record, cause="cell@999")
            assert judge({**logs, service: [*log[:number], orphan, *log[number + 1 :]]}, {"d": command})
            if record.kind == "event" and not record.type.startswith("cell.filled"):
                spoiled += 1
                assert judge({**logs, service: [*log, record]}, {"d": command}), f"{record.type} twice"
                assert judge({**logs, service: [*log[:number], *log[number + 1 :]]}, {"d": command}), record.type
    assert spoiled >= 6


@virtual_time
async def test_an_unknown_step_is_neither_repeated_nor_undone() -> None:
    """G5: a step without an answer by its deadline is cancelled, in view, and neither repeated nor undone while it is
    unknown; the late answer finds the saga, which then ends undone; all of it survives restarts."""
    async with VirtualSystem(ring()) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name), f"fill {name}")
        await system.crash("till")
        with pytest.raises(Pending) as pending:
            await system.client.send(Deal("d"), key="deal", wait_seconds=20)
        for _ in range(2):
            ((stream, entry),) = await system.nodes["desk"].sagas()
            assert (entry.status, entry.overdue, entry.tx) == ("undoing", ("pay",), pending.value.tx)
            assert stream.startswith("Dealing/")
            assert await system.nodes["desk"].edge.status(pending.value.tx) is None
            await system.restart("desk")
            await asyncio.sleep(20)
        log = system.log("desk")
        assert [record.type for record in log].count("till.pay.v1") == 1
        assert [record.type for record in log].count("holdfast.saga.overdue") == 1
        await system.start("till")
        await system.settle()
        outcome = await system.nodes["desk"].edge.status(pending.value.tx)
        assert outcome is not None and isinstance(outcome.answer, Rejection) and outcome.answer.code == "deadline"
        assert wrong(system, {"d": Deal("d")}) == []


@virtual_time
async def test_an_answer_that_came_while_away_is_not_overdue() -> None:
    """G5: after a start a deadline is judged only when what was said meanwhile has been heard."""
    async with VirtualSystem(ring()) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name), f"fill {name}")
        asking = asyncio.ensure_future(system.client.send(Deal("d"), key="deal", wait_seconds=5))
        await until(lambda: logged(system, "desk", "till.pay.v1") > 0)
        system.transport.latency_seconds = 1.0
        await until(lambda: logged(system, "till", "till.paid.v1") > 0)
        await system.crash("desk")
        await asyncio.gather(asking, return_exceptions=True)
        assert not any(
            record.type == "holdfast.saga.answered" and record.headers.step == "pay" for record in system.log("desk")
        )
        await asyncio.sleep(60)
        await system.start("desk")
        await system.settle()
        assert not any(record.type == "holdfast.saga.overdue" for record in system.log("desk"))
        assert wrong(system, {"d": Deal("d")}) == []


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        (Deal("d", pays=False, return_refusals=9), "undo of take was rejected 5 times: not_now"),
        (Deal("d", tell_refusals=9), "tell was rejected 5 times: not_yet"),
    ],
)
def test_what_cannot_end_is_stuck_in_view(command: Deal, cause: str) -> None:
    """G4: a saga that can neither go on nor be undone is stuck, with its cause, after five attempts, restart or not."""

    async def main() -> None:
        async with VirtualSystem(ring()) as system:
            for name in ("a", "b"):
                await ask(system, Fill(name), f"fill {name}")
            with pytest.raises(Pending):
                await system.client.send(command, key="deal", wait_seconds=30)
            await system.settle()
            await system.restart("desk")
            await asyncio.sleep(60)
            ((_, entry),) = await system.nodes["desk"].sagas(status="stuck")
            assert entry.cause == cause
            types = [record.type for record in system.log("desk")]
            assert types.count("holdfast.saga.stuck") == 1
            assert max(types.count("cell.return.v1") / 2, types.count("till.tell.v1")) == 5

    run_virtual(main)


@virtual_time
async def test_a_saga_of_another_shape_is_stuck_not_guessed() -> None:
    """A running saga whose steps are declared otherwise after a restart is left alone, in view, as `unknown_shape`."""
    async with VirtualSystem(ring()) as system:
        for name in ("a", "b"):
            await ask(system, Fill(name), f"fill {name}")
        await system.crash("till")
        with pytest.raises(Pending):
            await system.client.send(Deal("d"), key="deal", wait_seconds=1)
        await system.crash("desk")
        system.services["desk"] = other_desk()
        await system.start("desk")
        await system.start("till")
        await asyncio.sleep(30)
        stream = (await system.stores["desk"].streams("Dealing/"))[0][0]
        entry = system.nodes["desk"].streams.get(stream)
        assert entry is not None and entry.state.status == "stuck" and "unknown_shape" in entry.state.stuck.cause
        assert not any(record.type == "desk.booked.v1" for record in system.log("desk"))
        assert not any(record.type == "cell.returned.v1" for record in system.log("cell"))


def other_desk() -> Service:
    """The desk as a later release might have it: no gifts."""
    service = Service(desk)

    @service.aggregate
    class Page:
        booked: bool = False

        @decide(creates=True)
        def book(self, command: Book) -> Booked:
            return Booked(command.deal)

    @service.saga
    class Dealing:
        deal: Deal

        @step
        def book(self) -> Book:
            return Book(self.deal.deal)

        @answer
        def done(self, book: Booked) -> Dealt:
            return Dealt(book.deal, (), ())

    return service


@virtual_time
async def test_a_timer_that_cannot_be_read_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A row that is no timer is said and kept; the timers behind it fire all the same."""
    async with VirtualSystem(ring()) as system:
        await ask(system, Fill("a", 5), "fill")
        rotten = [Row("timer", key, b"rotten") for key in (f"{1:016d}/Dealing/x#deadline:pay", "0/never#x", "~")]
        await MemoryStore.commit(system.stores["desk"], [Batch(rows=tuple(rotten))])
        await system.restart("desk")
        outcome = await ask(system, Deal("d", cells=("a",), tell_refusals=2), "d")
        assert outcome.answer == Dealt("d", ("a",), ())
        assert await system.stores["desk"].get("timer", [row.key for row in rotten]) == [b"rotten"] * 3
    assert caplog.text.count("cannot be read and stays in the store") == 3


class SlowTimers:
    """A store that holds one timer and takes its time to say so."""

    def __init__(self, key: str) -> None:
        self.key, self.seconds = key, 0.0
        self.asked: list[list[str]] = []

    async def scan(self, kind: str, *, after: str = "") -> list[tuple[str, bytes]]:
        await asyncio.sleep(self.seconds)
        return [] if after else [(self.key, b"{}")]

    async def get(self, kind: str, keys: list[str]) -> list[bytes | None]:
        self.asked.append(keys)
        return [None for _ in keys]


@virtual_time
async def test_a_timer_that_rings_while_timers_are_read_again_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A service reads its timers again, which takes a while, and one comes due meanwhile: it fires then, once."""
    clock = VirtualClock()
    store: Any = SlowTimers(f"{clock.now_us() + 2_000_000:016d}/Dealing/x#deadline:pay")
    nothing: Any = None
    writer: Any = object()
    timers = Timers(
        Dispatch(Service(Contract("idle"))), nothing, store, clock, writer, landed=nothing, may_judge=lambda: True
    )
    await timers.reload(store)
    timers.go()
    store.seconds = 5.0
    await timers.reload(store)
    assert store.asked == []
    await asyncio.sleep(1.0)
    assert store.asked == [[store.key]]
    await timers.stop()
    assert not caplog.records


@virtual_time
async def test_a_timer_that_cannot_be_looked_up_whatever_the_reason_rings_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A driver with a bug loses no timer: it is said, and asked again."""
    clock = VirtualClock()
    store: Any = SlowTimers(f"{clock.now_us() + 2_000_000:016d}/Dealing/x#deadline:pay")
    get = store.get
    nothing: Any = None
    writer: Any = object()
    timers = Timers(
        Dispatch(Service(Contract("idle"))), nothing, store, clock, writer, landed=nothing, may_judge=lambda: True
    )

    async def broken(kind: str, keys: list[str]) -> list[bytes | None]:
        store.get = get
        raise RuntimeError("the driver has a bug")

    store.get = broken
    await timers.reload(store)
    timers.go()
    await asyncio.sleep(10.0)
    await timers.stop()
    assert store.asked == [[store.key]] and caplog.text.count("unexpected error") == 1
