"""Feeds over crashes: reactions and views take every event once, whoever dies before or after whichever commit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import msgspec
import pytest

from holdfast import Client, Command, Contract, Event, Running, Service, System, decide, evolve
from holdfast.core.log.batch import Batch, Committed, Cursor, Move, RowKind
from holdfast.core.log.record import Record
from holdfast.core.wire.frame import FeedPage, FeedRequest
from holdfast.errors import StoreFailed
from holdfast.ports.store import Page
from holdfast.runtime.clock import SystemClock
from holdfast.runtime.feeds.consumers import ViewConsumer
from holdfast.runtime.feeds.subscriptions import Subscription
from holdfast.runtime.node import Node
from holdfast.stores.memory import MemoryStore
from holdfast.testing import VirtualLoop, VirtualSystem, run_virtual, virtual_time
from holdfast.transports.local import LocalTransport
from support.http_services import Errand, Poke, lab_service
from support.scenarios import Grind, feeds

shop, post = Contract("shop"), Contract("post")


@shop.event
class Sold(Event):
    item: str
    number: int


@shop.command(key="item")
class Sell(Command[Sold]):
    item: str
    number: int


@post.event
class Sent(Event):
    item: str
    number: int


@post.command(key="item")
class Send(Command[Sent]):
    item: str
    number: int


def make(*, breaks: bool = False, wider: bool = False) -> System:
    """A shop that sells, and a post that sends what was sold by a reaction and counts it in a view."""
    shops, posts = Service(shop), Service(post)

    @shops.aggregate
    class Shelf:
        sold: int = 0

        @decide(creates=True)
        def sell(self, command: Sell) -> Sold:
            return Sold(command.item, command.number)

        @evolve
        def noted(self, event: Sold) -> None:
            self.sold += 1

    @posts.aggregate
    class Parcel:
        numbers: tuple[int, ...] = ()

        @decide(creates=True)
        def send(self, command: Send) -> Sent:
            return Sent(command.item, command.number)

        @evolve
        def noted(self, event: Sent) -> None:
            self.numbers = (*self.numbers, event.number)

    @posts.reaction
    def forward(event: Sold) -> list[Send]:
        return [Send(event.item, event.number)] if event.number % 2 else []

    class Counted:
        sold: int = 0
        sent: int = 0

        @evolve(key=lambda event: event.item)
        def on_sold(self, event: Sold) -> None:
            if breaks and event.item == "b":
                raise RuntimeError("not today")
            self.sold += 1

        @evolve(key=lambda event: event.item)
        def on_sent(self, event: Sent) -> None:
            self.sent += 1

    class Wider(Counted):
        both: int = 0

        @evolve(key=lambda event: event.item)
        def on_sent(self, event: Sent) -> None:
            self.sent += 1
            self.both = self.sold + self.sent

    Wider.__name__ = "Counted"
    posts.view(Wider if wider else Counted)
    return System([shops, posts], name="trade")


COUNT = 12


async def trade(system: VirtualSystem) -> None:
    """Sell, patiently, until every sale is recorded."""
    for number in range(COUNT):
        for _ in range(1000):
            try:
                await system.client.run(Sell("ab"[number % 2], number), key=f"k{number}", wait_seconds=1)
                break
            except Exception:  # noqa: BLE001 - the shop may be down
                await asyncio.sleep(0.05)


async def judged(system: VirtualSystem) -> list[str]:
    """What is wrong with what the post has."""
    found: list[str] = []
    sent = [
        msgspec.json.decode(record.data)["number"] for record in system.log("post") if record.type == "post.sent.v1"
    ]
    if any(record.destination for record in system.log("post") if record.type == "post.sent.v1"):
        found.append("an answer to a reaction's command goes to somebody, and nobody waits for it")
    if sorted(sent) != list(range(1, COUNT, 2)):
        found.append(f"sent {sent}")
    for item in ("a", "b"):
        numbers = [n for n in sent if "ab"[n % 2] == item]
        if numbers != sorted(numbers):
            found.append(f"out of order: {numbers}")
        row = (await system.client.query("post", "Counted", item)).row
        if row is None or (row["sold"], row["sent"]) != (COUNT // 2, len(numbers)):
            found.append(f"row {item}: {row}")
    return found


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_crash_at_any_commit_feeds_nothing_twice(loss: float) -> None:
    """G1, G3, G9: with either service dying before or after any of its commits, each event is sent and counted once."""

    crashes: list[str] = []

    async def run(service: str, number: int, after: bool) -> tuple[list[str], int]:
        async with VirtualSystem(make(), loss=loss) as system:
            if service:
                store = system.stores[service]
                (store.crash_after if after else store.crash_before).add(number)
            await trade(system)
            await system.settle()
            await asyncio.sleep(5)  # idle checkpoints are saved, and may be what crashes
            await system.settle()
            crashes.extend(system.crashes)
            return await judged(system), min(store.commits for store in system.stores.values())

    _, commits = run_virtual(lambda: run("", 0, False))
    assert commits >= 4
    for service in ("shop", "post"):
        for after in (False, True):
            for number in range(1, commits + 1):
                found, _ = run_virtual(lambda: run(service, number, after), seed=number)  # noqa: B023 - run at once
                assert found == [], (service, after, number)
    assert len(crashes) >= 2 * commits


@virtual_time
async def test_a_view_whose_class_changed_is_built_anew() -> None:
    """A changed view is rebuilt from the start of its logs while the rows of the old one serve; then it takes over."""
    async with VirtualSystem(make()) as system:
        await trade(system)
        await system.settle()
        await system.crash("post")
        changed = make(wider=True)
        system.services["post"] = changed.services["post"]
        await system.start("post")
        row = (await system.client.query("post", "Counted", "a")).row
        assert row is not None and row["sold"] == COUNT // 2, "the old rows serve meanwhile"
        await system.settle()
        await asyncio.sleep(30)
        assert await judged(system) == []
        row = (await system.client.query("post", "Counted", "b")).row
        assert row is not None and row["both"] >= row["sent"]


@virtual_time
async def test_a_failing_view_is_stale_in_one_row_and_harms_nobody() -> None:
    """A row whose evolver fails says so; other rows, reactions and commands go on; mended, it is whole again."""
    async with VirtualSystem(make(breaks=True)) as system:
        await trade(system)
        await asyncio.sleep(30)
        good, bad = [await system.client.query("post", "Counted", item) for item in ("a", "b")]
        assert good.row == {"sold": COUNT // 2, "sent": 0} and not good.stale
        assert bad.stale
        sent: list[Any] = [record for record in system.log("post") if record.type == "post.sent.v1"]
        assert len(sent) == COUNT // 2
        await system.crash("post")
        system.services["post"] = make().services["post"]
        await system.start("post")
        await system.settle()
        await system.nodes["post"].views.rebuild("Counted")
        await asyncio.sleep(30)
        assert await judged(system) == []


class SlowRows(MemoryStore):
    """Rows take a moment to come."""

    async def get(self, kind: RowKind, keys: Sequence[str]) -> list[bytes | None]:
        found = await super().get(kind, keys)
        await asyncio.sleep(0.001)
        return found


class FlushedMeanwhile(MemoryStore):
    """While the log is read something is told to `meanwhile`."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def read(self, *args: Any, **named: Any) -> Page:
        found = await super().read(*args, **named)
        if self.meanwhile is not None:
            told, self.meanwhile = self.meanwhile, None
            await told()
        return found


async def test_an_event_flushed_during_an_empty_read_is_not_waited_for() -> None:
    """G2: what is flushed while a page is read that holds nothing is handed out at once, not after the long-poll."""
    store = FlushedMeanwhile("lab")
    transport, clock = LocalTransport(), SystemClock()
    async with Running(System([lab_service]), lambda: {"lab": Node(lab_service, store, transport, clock)}) as running:
        client, node = Client.of(running), running.nodes["lab"]
        await client.run(Poke("r", "a"))
        store.meanwhile = lambda: client.send(Errand("r", "a"), wait_seconds=4)
        async with asyncio.timeout(5):
            page = await node.feed(FeedRequest(0, ("lab.ended.v1",), 10, 20_000))
        assert [record.type for record in page.records] == ["lab.ended.v1"]
        await client.close()


class OneFeed:
    """What a view knows of a feed: a producer, and a commit that takes a moment, or fails."""

    def __init__(self, store: MemoryStore, producer: str, *, fails: bool = False) -> None:
        self.store, self.producer, self.fails = store, producer, fails

    def move(self, page: FeedPage, to: int) -> Move:
        return Move(self.producer, 0, Cursor("i", to))

    async def commit(self, batch: Batch, page: FeedPage, to: int) -> None:
        await asyncio.sleep(0.001)
        if self.fails:
            self.fails = False
            raise StoreFailed("not now")
        assert [type(one) for one in await self.store.commit([batch])] == [Committed]


@pytest.mark.parametrize("fails", [False, True])
async def test_two_feeds_of_one_view_change_one_row_one_after_the_other(fails: bool) -> None:
    """G3: two producers' events for one row, at once, with rows that are slow to load, or a first commit that fails:
    each is in the row once."""
    store = SlowRows("lab")
    await store.open("one", 1)
    view = ViewConsumer(lab_service.views["Totals"], 1, store)

    def page(position: int) -> FeedPage:
        data = b'{"room":"r","shelf":"s","times":1}'
        return FeedPage((Record(position, "event", "lab.poked.v1", data, "t", "t", 1),), position, "i", position)

    first, second = OneFeed(store, "one", fails=fails), OneFeed(store, "two")
    results = await asyncio.gather(
        view.take(cast(Subscription, first), page(1)), view.take(cast(Subscription, second), page(2)),
        return_exceptions=True,
    )  # fmt: skip
    assert [isinstance(found, StoreFailed) for found in results] == [fails, False]
    if fails:
        await view.take(cast(Subscription, first), page(1))
    (row,) = await store.get("view", [view.row_key("all")])
    assert msgspec.json.decode(row or b"")["state"]["times"] == 2
    await store.close()


def test_a_checkpoint_that_stands_elsewhere_is_read_again() -> None:
    """G3: where a saga's checkpoint is not where this process left it, its beginning is not tried for ever: after a few
    conflicts it is read again, and the feed goes on from there."""

    async def main() -> list[str]:
        async with VirtualSystem(feeds()) as system:
            await system.client.run(Grind("b1"))
            await system.settle()
            there = (await system.stores["store"].cursors())["saga:Storing:press"]
            moved = Move("saga:Storing:press", there.position, Cursor(there.incarnation, there.position + 1))
            await system.stores["store"].commit([Batch(moves=(moved,))])
            await system.client.run(Grind("b2"))
            await system.client.run(Grind("b3"))
            await system.settle()
            await system.client.run(Grind("b4"))
            await system.settle()
            return [msgspec.json.decode(one.data)["bag"] for one in system.log("store") if one.kind == "event"]

    loop = VirtualLoop()
    loop.rounds_left = 20_000
    try:
        assert loop.run_until_complete(main())[-1] == "b4"
    finally:
        loop.close()
