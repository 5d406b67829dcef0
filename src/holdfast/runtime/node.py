"""A node: one service at work on its store.

Puts the hops together in the order data flows (edge and exchange and feeds -> writer -> store -> exchange and feeds),
starts and stops them, and answers the questions that peers, clients and operators ask. Nothing is decided here. Start
fails with `StoreError` or `Misuse`; a store that fails later makes the node answer `Unavailable` until it is back.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.core.batch import Cursor
from holdfast.core.frame import FeedPage, FeedRequest, Frame
from holdfast.core.record import Record
from holdfast.core.service import Service
from holdfast.core.stage import Standing
from holdfast.errors import Forked, StoreError, Unavailable
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.ports.transport import Transport
from holdfast.runtime.decide.dispatch import SNAPSHOT_EVERY, Dispatch
from holdfast.runtime.decide.sagas import OpenSaga
from holdfast.runtime.edge.commands import Edge
from holdfast.runtime.exchange.exchange import Exchange
from holdfast.runtime.execute.effects import Effects
from holdfast.runtime.execute.handlers import Transactions
from holdfast.runtime.feeds.consumers import ReactionConsumer, SagaConsumer
from holdfast.runtime.feeds.subscriptions import Consumer, Feeds
from holdfast.runtime.feeds.views import Views
from holdfast.runtime.inbox.doubt import Doubts, standing
from holdfast.runtime.inbox.waiting import Waiting
from holdfast.runtime.log.incarnations import History
from holdfast.runtime.log.streams import Memory
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.timers import Timers

logger = logging.getLogger("holdfast.node")

FEED_WAIT_SECONDS_MAX = 30.0
FEED_RECORDS_MAX = 1_000
DRAIN_SECONDS = 5.0
RECOVER_SECONDS = 0.5


class Node:
    """One running service."""

    def __init__(
        self,
        service: Service,
        store: Store,
        transport: Transport,
        clock: Clock,
        *,
        peers: Iterable[str] = (),
        snapshot_every: int = SNAPSHOT_EVERY,
        streams_in_memory_max: int = 100_000,
    ) -> None:
        service.check()
        self.service, self.name, self.store, self.transport, self.clock = service, service.name, store, transport, clock
        self.peers = frozenset({*peers, *service.peers()} - {service.name})
        self.dispatch = Dispatch(service, snapshot_every=snapshot_every)
        self.memory = Memory(self.dispatch.folder_of, streams_max=streams_in_memory_max)
        self.writer = Writer(store, self.memory, flushed=self._flushed, crashed=self._crashed)
        self.waiting = Waiting(self.dispatch, self.memory, store, clock)
        self.edge = Edge(self.dispatch, self.memory, self.writer, self.waiting, store, clock)
        self.transactions = Transactions(self.dispatch, self.memory, self.writer, store)
        self.waiting.transactions = self.edge.transactions = self.transactions
        self.effects = Effects(self.dispatch, self.memory, self.writer, self.waiting, clock)
        self.waiting.effects = self.effects.take
        self.timers = Timers(self.dispatch, self.memory, store, clock, self.waiting)
        self.feeds = Feeds(store, self.writer, self._feed_of, clock)
        self.views = Views(service, store, self.writer, self.feeds, self._standing_of)
        self.doubts = Doubts(self)
        self.history = History(())
        self.conversations: Exchange | None = None
        self.started = False
        self.started_at = 0
        self._news: set[asyncio.Future[None]] = set()
        """Those who wait for something to be flushed."""
        self._recovering: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Open the store, begin an incarnation, take up everything where the log left it."""
        self.transactions.start()
        opened = await self.store.open(self.clock.unique(), self.clock.now_us())
        self.history = History(opened.incarnations)
        self.waiting.settle, self.waiting.freed = self.edge.settle, self.edge.freed
        self.waiting.parked = self.edge.parked
        self.writer.start(opened.head)
        await self.dispatch.stages.start(self.store)
        await self.waiting.start(self.writer)
        await self._count_sagas()
        self.conversations = Exchange(
            self.name, self.peers, self.store, self.writer, self.waiting, self.transport, self.clock, self.history
        )
        sends_to = {name for saga in self.service.sagas.values() for name in saga.contracts}
        await self.conversations.start(sends_to - {self.name})
        self.timers.may_judge = self.conversations.heard
        await self.timers.start(self.writer)
        consumers: list[Consumer] = [*await self.views.prepare()]
        consumers += [ReactionConsumer(found, self.waiting, self.clock) for found in self.service.reactions.values()]
        consumers += [
            SagaConsumer(found, self.dispatch, self.memory, self.waiting, self.clock)
            for found in self.service.sagas.values()
            if found.begin.kind == "event"
        ]
        await self.feeds.start(consumers)
        await self.views.start()
        self.doubts.start()
        self.waiting.go()
        self.started, self.started_at = True, self.clock.now_us()

    async def close(self, *, drain: bool = True) -> None:
        """Stop taking work, commit what waits, let go of the store. Safe to call twice."""
        self.started, self._closing = False, True
        if self._recovering is not None:
            self._recovering.cancel()
        await self.feeds.close()
        await self.views.close()
        await self.timers.stop()
        await self.doubts.stop()
        self.waiting.stop()
        self.edge.crashed(Unavailable("the service is stopping"))
        await asyncio.gather(self._end_transactions(drain), self.effects.close(DRAIN_SECONDS if drain else 0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.writer.close(drain=drain)
        if self.conversations is not None:
            if drain:
                await self._drain_exchange()
            await self.conversations.close()
        self._tell_news()
        await self.store.close()

    async def _end_transactions(self, drain: bool) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.transactions.close(drain=drain)

    async def _drain_exchange(self) -> None:
        """Give peers that are up a moment to acknowledge what they were sent; the rest waits in the log."""
        loop = asyncio.get_running_loop()
        conversations = self.conversations.conversations.values() if self.conversations is not None else ()
        end = loop.time() + 0.5
        while loop.time() < end:
            if all(one.idle or one.drained or one.failure for one in conversations):
                return
            await asyncio.sleep(0.01)

    async def exchange(self, frame: Frame) -> Frame:
        """Take a peer's frame, answer when it is durable. Raises ExchangeError, Unavailable."""
        if self.conversations is None or not self.started:
            raise Unavailable(f"{self.name} is not running")
        return await self.conversations.serve(frame)

    async def _feed_of(self, producer: str, request: FeedRequest) -> FeedPage:
        """A page of any feed that comes here; its own needs no transport."""
        return await (self.feed(request) if producer == self.name else self.transport.feed(producer, request))

    async def feed(self, request: FeedRequest) -> FeedPage:
        """Event records after a position; waits up to `wait_ms` for the first. Raises Forked, Unavailable."""
        if not self.started:
            raise Unavailable(f"{self.name} is not running")
        if request.after:
            if request.incarnation:
                self.history.check(Cursor(request.incarnation, request.after), self.writer.head, "a feed's reader")
            elif request.after > self.writer.head:
                raise Forked(f"the log of {self.name} ends at {self.writer.head}; {request.after} is past it")
        loop = asyncio.get_running_loop()
        end = loop.time() + min(request.wait_ms / 1000, FEED_WAIT_SECONDS_MAX)
        after, limit = request.after, min(request.limit, FEED_RECORDS_MAX)
        types = self.service.contract.with_newer(request.types)
        while True:
            head = self.writer.head
            page = None
            if limit > 0 and head > after:
                page = await self.store.read(after, limit, kinds=("event",), types=types, upto=head)
            upto = page.upto if page else max(after, head if limit > 0 else 0)
            records = page.records if page else ()
            left = end - loop.time()
            if records or limit <= 0 or left <= 0 or not self.started:
                return FeedPage(records, upto, self.history.at(max(upto, 1))[0].id, head)
            after = upto
            if self.writer.head == head:  # else something was flushed while this read, and its news are over
                await self._wait_news(left)

    async def standing(self, tx: str) -> Standing:
        """What this service knows of a staged transaction. Raises Unavailable, StoreError."""
        if not self.started:
            raise Unavailable(f"{self.name} is not running")
        return await standing(self, tx)

    async def _standing_of(self, service: str, tx: str) -> Standing:
        return await (self.standing(tx) if service == self.name else self.transport.standing(service, tx))

    async def _wait_news(self, seconds: float) -> None:
        """Wait until something is flushed, or so long."""
        loop = asyncio.get_running_loop()
        news: asyncio.Future[None] = loop.create_future()
        self._news.add(news)
        timer = loop.call_later(seconds, _come, news)
        try:
            await news
        finally:
            timer.cancel()
            self._news.discard(news)

    def _tell_news(self) -> None:
        for news in self._news:
            _come(news)

    async def sagas(self, *, status: str = "", after: str = "", limit: int = 100) -> list[tuple[str, OpenSaga]]:
        """(stream, entry) of sagas that have not ended, by stream name; `status`: running, undoing or stuck."""
        found: list[tuple[str, OpenSaga]] = []
        while len(found) < limit and (rows := await self.store.scan("saga", after=after, limit=limit)):
            entries = [(stream, msgspec.json.decode(data, type=OpenSaga)) for stream, data in rows]
            found += [(stream, entry) for stream, entry in entries if status in ("", entry.status)]
            after = rows[-1][0]
        return found[:limit]

    async def _count_sagas(self) -> None:
        count, after = 0, ""
        called: dict[str, str] = {}
        stuck: set[str] = set()
        while rows := await self.store.scan("saga", after=after):
            for stream, data in rows:
                entry = msgspec.json.decode(data, type=OpenSaga)
                called.update({entry.caller: stream} if entry.caller else {})
                stuck.update((stream,) if entry.status == "stuck" else ())
            count, after = count + len(rows), rows[-1][0]
        sagas = self.dispatch.sagas
        sagas.open, sagas.called, sagas.stuck = count, called, stuck

    def _flushed(self, sent: list[Record]) -> None:
        if sent and self.conversations is not None:
            self.conversations.flushed(sent)
        self._tell_news()

    def _crashed(self) -> None:
        self.edge.crashed(Unavailable("the store is not taking commits", retry_after_seconds=2.0))
        if not self._closing and (self._recovering is None or self._recovering.done()):
            self._recovering = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        """After a failed flush everything kept in memory is read again from the store; then work is taken again."""
        while True:
            await asyncio.sleep(RECOVER_SECONDS)
            try:
                self.writer.head = await self.store.settle()
                if self.conversations is not None:
                    self.conversations.reread(await self.store.cursors())
                await self.dispatch.stages.start(self.store)
                await self.waiting.start(self.writer)
                await self.timers.reread()
                await self._count_sagas()
                self.writer.resume()
                self.waiting.go()
                if self.conversations is not None:
                    self.conversations.reread_own()
                return
            except StoreError as error:
                logger.warning("the store cannot be read: %s", error)

    async def leap(self, first: int) -> None:
        """Go on at a higher position, in a new incarnation. Raises StoreError."""
        async with self.writer.paused():
            opened = await self.store.leap(self.clock.unique(), self.clock.now_us(), first)
            self.history.incarnations = opened.incarnations
            self.writer.head = opened.head

    async def records_of(self, *, tx: str = "", correlation: str = "", stream: str = "") -> list[Record]:
        """Every record of this service that belongs to one id."""
        return await self.store.related(tx=tx, correlation=correlation, stream=stream)

    def progress(self) -> dict[str, Any]:
        """How far everything is: cursors, checkpoints, what waits. Read from memory; see docs/operations.md."""
        exchange = {
            peer: {
                "received": one.cursor.position, "incarnation": one.cursor.incarnation, "peer_head": one.peer_head,
                "behind": max(0, one.peer_head - one.seen), "acknowledged": one.acked, "owed": one.owed,
                "failure": _failure(one.failure), "halted": one.halted,
            }
            for peer, one in (self.conversations.conversations if self.conversations else {}).items()
        }  # fmt: skip
        feeds = [
            {
                "consumer": one.consumer.name, "producer": one.producer, "position": one.position,
                "lag": max(0, one.producer_head - one.position), "failure": _failure(one.failure),
            }
            for one in self.feeds.subscriptions
        ]  # fmt: skip
        waiting = [
            {
                "stream": stream, "message": f"{held.producer}@{held.record.position}", "type": held.record.type,
                "tx": held.record.tx, "since": held.since, "attempts": held.attempts, "next_at": held.next_at,
                "error": held.error, "parked": held.parked, "unknown": held.unknown,
            }
            for stream, held in self.waiting.items()
        ]  # fmt: skip
        return {
            "service": self.name, "owner": self.service.owner, "head": self.writer.head,
            "incarnation": self.history.current.id if self.history.incarnations else "",
            "store": _failure(self.writer.failure), "inbox": self.writer.waiting, "timers": len(self.timers),
            "sagas_open": self.dispatch.sagas.open, "sagas_stuck": len(self.dispatch.sagas.stuck),
            "exchange": exchange, "feeds": feeds, "waiting": waiting, "rebuilding": self.views.rebuilding(),
        }  # fmt: skip


def _failure(error: Exception | None) -> str:
    return "" if error is None else f"{type(error).__name__}: {error}"


def _come(news: "asyncio.Future[None]") -> None:
    if not news.done():
        news.set_result(None)
