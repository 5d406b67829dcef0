"""Closing a service comes to an end, whatever its engine does: tasks are let go, and who waits for them is told."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from holdfast.core.log.batch import Batch, CommitOutcome, Cursor
from holdfast.core.wire.frame import Frame
from holdfast.errors import StoreError, Unavailable
from holdfast.ports.store import Lent, Loaded
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.node import DRAIN_SECONDS, Node
from holdfast.runtime.tasks import PATIENCE_SECONDS, cancel_all
from holdfast.stores.memory import MemoryStore
from holdfast.testing import virtual_time
from holdfast.transports.local import LocalTransport
from support.systems.payments import Provider, buy, office
from support.systems.till import Add, adds, make, message


class Hanging(MemoryStore):
    """A store whose engine hangs where it is told to; a stubborn one does not let a commit be cancelled either."""

    def __init__(self, *, stubborn: bool = False) -> None:
        super().__init__("till")
        self.answers = asyncio.Event()
        self.answers.set()
        self.stubborn = stubborn
        self.at_work = 0

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        await self._work()
        return await super().commit(batches, within=within)

    async def load(self, streams: Sequence[str], *, upto: int = 0, snapshots: bool = True) -> list[Loaded]:
        await self._work()
        return await super().load(streams, upto=upto, snapshots=snapshots)

    async def _work(self) -> None:
        self.at_work += 1
        while True:
            try:
                await self.answers.wait()
                break
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise


FRAME = Frame("desk", "till", "i1", 1, 0, 1, Cursor(), 0, (message(1, "a", 10),))


async def running(store: Hanging) -> Node:
    """The till, with a stream in memory."""
    node = Node(make(set()), store, LocalTransport(), SystemClock(), peers=("desk",))
    await node.start()
    await node.edge.run(Add("a", 1))
    return node


async def rounds(count: int = 5) -> None:
    """Let what is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


@virtual_time
async def test_a_bearer_that_is_cancelled_twice_goes_at_once() -> None:
    """G3: a caller that gives a frame up waits until it is known where it stands, and nobody is held who gives up on
    that too: who brings the frame again may get a no first, and it is handled once."""
    store = Hanging()
    node = await running(store)
    store.answers.clear()
    bearer = asyncio.create_task(node.exchange(FRAME))
    await rounds()
    bearer.cancel()
    await rounds()
    assert not bearer.done()
    bearer.cancel()
    await rounds()
    gone = bearer.cancelled()
    store.answers.set()
    assert gone
    await rounds()
    with contextlib.suppress(StoreError):
        await node.exchange(FRAME)
    answer = await node.exchange(FRAME)
    assert (answer.ack, await adds(node, "a")) == (Cursor("i1", 1), 2)
    await node.close()


@virtual_time
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("drain", [False, True])
async def test_a_service_whose_engine_hangs_is_closed(drain: bool, stubborn: bool) -> None:
    """G8: within seconds; a caller whose command is on its way is told that it is not known, and so is a peer."""
    store = Hanging(stubborn=stubborn)
    node = await running(store)
    store.answers.clear()
    asking = asyncio.create_task(node.edge.run(Add("a", 1)))
    bearer = asyncio.create_task(node.exchange(FRAME))
    await rounds()
    assert store.at_work
    begun = asyncio.get_running_loop().time()
    await node.close(drain=drain)
    assert asyncio.get_running_loop().time() - begun <= 2 * DRAIN_SECONDS + 4 * PATIENCE_SECONDS
    if not stubborn:
        told = await asyncio.gather(asking, bearer, return_exceptions=True)
        assert [type(one) for one in told] == [Unavailable, Unavailable], told
    for task in (asking, bearer):
        task.cancel()
        task.cancel()
    store.answers.set()


@virtual_time
async def test_what_begins_to_load_while_a_service_is_closed_ends_with_it() -> None:
    """A command that is looked at in the middle of the end fails, and nothing goes on reading from a closed store."""
    store = Hanging()
    node = await running(store)
    asking = asyncio.create_task(node.edge.run(Add("b", 1)))  # its stream is not in memory
    await asyncio.sleep(0)  # it waits for its turn
    store.answers.clear()
    await node.writer.close(drain=False)
    with pytest.raises(Unavailable):
        await asking
    mine = [one for one in asyncio.all_tasks() if getattr(one.get_coro(), "__qualname__", "").startswith("Writer.")]
    assert not mine
    store.answers.set()
    await node.close(drain=False)


@virtual_time
async def test_a_call_that_swallows_its_cancel_does_not_hold_its_service() -> None:
    """An effect's function that catches everything goes on alone; the service is closed all the same."""
    provider, asked = Provider(), asyncio.Event()

    async def deaf(*_: object) -> None:
        asked.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)
                return

    provider.charge = deaf  # type: ignore[assignment, method-assign]
    virtual = office(provider, seconds=3000)
    async with virtual:
        sale = buy(virtual)
        await asked.wait()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await virtual.nodes["wallet"].close()
        assert loop.time() - begun < 2 * DRAIN_SECONDS + 4 * PATIENCE_SECONDS
        sale.cancel()


@virtual_time
async def test_a_task_that_does_not_end_is_left_behind_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """Those that end are waited for, one that goes on is cancelled once more; one that swallows every cancel is left
    after a while, with an error."""
    stubborn, done = Hanging(stubborn=True), asyncio.create_task(asyncio.sleep(0.5))
    stubborn.answers.clear()

    async def hesitant() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await stubborn.answers.wait()
        await stubborn.answers.wait()

    held, twice = asyncio.create_task(stubborn._work()), asyncio.create_task(hesitant())
    await rounds()
    await cancel_all([done, held, twice, None])
    assert done.cancelled() and twice.cancelled() and not held.done()
    assert "1 tasks do not end" in caplog.text
    stubborn.answers.set()
    await held
