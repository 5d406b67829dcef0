"""A node: one service at work on its store.

The node connects the parts in the order in which data flows (edge, exchange and feeds -> writer -> store -> exchange
and feeds), starts and stops them, and answers the questions of peers, clients and operators. It decides nothing itself.
`start` fails with `StoreError` or `Misuse`. If the store fails later, the node answers `Unavailable` until the store
works again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from holdfast.core.declare.service import Service
from holdfast.core.log.batch import Cursor
from holdfast.core.log.record import Record
from holdfast.core.saga.stage import Standing
from holdfast.core.wire.frame import FeedPage, FeedRequest, Frame
from holdfast.errors import Forked, StoreError, Unavailable
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.ports.transport import Network
from holdfast.runtime.decide.dispatch import SNAPSHOT_EVERY, Dispatch
from holdfast.runtime.decide.outcomes import Outcomes
from holdfast.runtime.decide.sagas import OpenSaga
from holdfast.runtime.edge.commands import Edge
from holdfast.runtime.exchange.exchange import Exchange
from holdfast.runtime.execute.effects import Effects
from holdfast.runtime.execute.handlers import Handlers
from holdfast.runtime.feeds.consumers import ReactionConsumer, SagaConsumer
from holdfast.runtime.feeds.news import News
from holdfast.runtime.feeds.subscriptions import Consumer, Feeds
from holdfast.runtime.feeds.views import Views
from holdfast.runtime.inbox.doubt import Doubts
from holdfast.runtime.inbox.receive import Inbox
from holdfast.runtime.inbox.retry import Retrier
from holdfast.runtime.inbox.turns import Turns
from holdfast.runtime.inbox.waiting import Waiting
from holdfast.runtime.log.incarnations import Incarnations
from holdfast.runtime.log.rows import Mirror
from holdfast.runtime.log.streams import Streams
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.timers import Timers

logger = logging.getLogger("holdfast.node")

FEED_WAIT_SECONDS_MAX = 30.0
FEED_RECORDS_MAX = 1_000
DRAIN_SECONDS = 5.0
RECOVER_SECONDS = 0.5


class NodeState(StrEnum):
    """The state of a node; it moves only forward."""

    STARTING = "starting"
    """The node takes no work yet."""
    READY = "ready"
    DRAINING = "draining"
    """The node takes what comes, and reports that no more work should be sent."""
    CLOSED = "closed"


class Node:
    """One running service."""

    def __init__(
        self,
        service: Service,
        store: Store,
        transport: Network,
        clock: Clock,
        *,
        peers: Iterable[str] = (),
        snapshot_every: int = SNAPSHOT_EVERY,
        streams_in_memory_max: int = 100_000,
    ) -> None:
        service.check()
        self.service, self.name = service, service.name
        self.clock, self.store, self.transport = clock, store, transport
        self.peers = frozenset({*peers, *service.peers()} - {service.name})
        self.state = NodeState.STARTING
        self.started_at = 0
        """When the node became ready, µs since 1970-01-01 UTC; 0: it is not ready yet."""
        self.incarnations = Incarnations(())
        self.dispatch = Dispatch(service, snapshot_every=snapshot_every)
        self.streams = Streams(self.dispatch.folder_of, streams_max=streams_in_memory_max)
        self.writer = Writer(store, self.streams, flushed=self._flushed, crashed=self._crashed, service=self.name)
        self.outcomes = Outcomes(self.dispatch.sagas, on_timer=lambda key: self.timers.note(key))
        self.turns = Turns()
        self.waiting = Waiting(self.dispatch)
        self.handlers = Handlers(self.dispatch, self.streams, self.writer, store)
        self.retrier = Retrier(
            self.dispatch,
            self.streams,
            self.writer,
            self.waiting,
            self.turns,
            self.outcomes,
            clock,
            handle=self.handlers.take,
            attempt=self._attempt,
        )
        self.inbox = Inbox(self.retrier)
        self.effects = Effects(self.retrier)
        self.edge = Edge(self.inbox, self.writer, self.handlers, store)
        self.conversations = Exchange(
            self.name, self.peers, store, self.writer, self.inbox, transport, clock, self.incarnations
        )
        self.timers = Timers(
            self.dispatch,
            self.streams,
            store,
            clock,
            self.writer,
            landed=self.outcomes.landed,
            may_judge=self.conversations.heard,
        )
        self.feeds = Feeds(store, self.writer, self._feed_of, clock)
        self.views = Views(service, store, self.writer, self.feeds, self._standing_of)
        away = self.conversations.away
        self.doubts = Doubts(service, self.inbox, self.writer, store, transport, self.peers, away=away)
        self._news = News()
        self._recovering: asyncio.Task[None] | None = None

    @property
    def _mirrors(self) -> tuple[Mirror, ...]:
        """All in-memory copies of stored rows, in the order in which they are read."""
        return self.conversations, self.dispatch.stages, self.waiting, self.dispatch.sagas, self.timers

    def _attempt(self, stream: str) -> None:
        """Attempt the first message on the stream of an effect."""
        self.effects.take(stream)

    @property
    def takes_work(self) -> bool:
        """True while the node takes commands, frames and questions, also while it drains."""
        return self.state in (NodeState.READY, NodeState.DRAINING)

    @property
    def ready(self) -> bool:
        """True while callers should send new work to this node."""
        return self.state is NodeState.READY and self.writer.failure is None

    async def start(self) -> None:
        """Open the store, begin an incarnation, and continue everything from where the log ends."""
        self.handlers.check()
        opened = await self.store.open(self.clock.unique(), self.clock.now_us())
        self.incarnations.all = opened.incarnations
        self.writer.start(opened.head)
        await self._reload()
        sends_to = {name for saga in self.service.sagas.values() for name in saga.contracts}
        await self.conversations.start(sends_to - {self.name})
        self.timers.go()
        consumers: list[Consumer] = [*await self.views.prepare()]
        consumers += [ReactionConsumer(found, self.inbox) for found in self.service.reactions.values()]
        consumers += [
            SagaConsumer(found, self.inbox) for found in self.service.sagas.values() if found.begin.kind == "event"
        ]
        await self.feeds.start(consumers)
        await self.views.start()
        self.doubts.start()
        self.retrier.go()
        self.state, self.started_at = NodeState.READY, self.clock.now_us()

    async def _reload(self) -> None:
        """Read every row that is kept in memory from the store. Raises StoreError."""
        self.retrier.pause()
        for mirror in self._mirrors:
            await mirror.reload(self.store)

    def drain(self) -> None:
        """Report that no new work should be sent here (`ready` is False), and still take what comes."""
        if self.state is NodeState.READY:
            self.state = NodeState.DRAINING

    async def close(self, *, drain: bool = True) -> None:
        """Stop taking work, commit the works that wait (if `drain`), and close the store. Safe to call twice."""
        self.state = NodeState.CLOSED
        if self._recovering is not None:
            self._recovering.cancel()
        await self.feeds.close()
        await self.views.close()
        await self.timers.stop()
        await self.doubts.stop()
        self.retrier.stop()
        self.edge.crashed(Unavailable("the service is stopping"))
        await asyncio.gather(self._end_handlers(drain), self.effects.close(DRAIN_SECONDS if drain else 0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.writer.close(drain=drain)
        if drain:
            await self._drain_exchange()
        await self.conversations.close()
        self._news.tell()
        await self.store.close()

    async def _end_handlers(self, drain: bool) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.handlers.close(drain=drain)

    async def _drain_exchange(self) -> None:
        """Wait briefly for reachable peers to acknowledge what was sent to them; the rest stays in the log."""
        loop = asyncio.get_running_loop()
        conversations = self.conversations.conversations.values()
        end = loop.time() + 0.5
        while loop.time() < end:
            if all(one.idle or one.state.drained or one.failure for one in conversations):
                return
            await asyncio.sleep(0.01)

    async def exchange(self, frame: Frame) -> Frame:
        """Take a frame from a peer and answer when its records are durable. Raises ExchangeError, Unavailable."""
        if not self.takes_work:
            raise Unavailable(f"{self.name} is not running")
        return await self.conversations.serve(frame)

    async def _feed_of(self, producer: str, request: FeedRequest) -> FeedPage:
        """A page of the feed of a producer; the own feed needs no transport."""
        return await (self.feed(request) if producer == self.name else self.transport.feed(producer, request))

    async def feed(self, request: FeedRequest) -> FeedPage:
        """Event records after a position; waits up to `wait_ms` for the first. Raises Forked, Unavailable."""
        if not self.takes_work:
            raise Unavailable(f"{self.name} is not running")
        if request.after:
            if request.incarnation:
                self.incarnations.check(Cursor(request.incarnation, request.after), self.writer.head, "a feed's reader")
            elif request.after > self.writer.head:
                raise Forked(
                    f"the log of {self.name} ends at {self.writer.head}, but a reader asks for what follows"
                    f" {request.after}: a store was restored; see docs/restore.md"
                )
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
            if records or limit <= 0 or left <= 0 or not self.takes_work:
                return FeedPage(records, upto, self.incarnations.at(max(upto, 1))[0].id, head)
            after = upto
            if self.writer.head == head:  # otherwise something was flushed during the read, and nothing more may come
                await self._news.wait(left)

    async def standing(self, tx: str) -> Standing:
        """What this service knows of a staged transaction. Raises Unavailable, StoreError."""
        if not self.takes_work:
            raise Unavailable(f"{self.name} is not running")
        return await self.doubts.standing(tx)

    async def _standing_of(self, service: str, tx: str) -> Standing:
        return await (self.standing(tx) if service == self.name else self.transport.standing(service, tx))

    async def sagas(self, *, status: str = "", after: str = "", limit: int = 100) -> list[tuple[str, OpenSaga]]:
        """(stream, entry) of the open sagas, ordered by stream; `status`: only running, undoing or stuck ones."""
        found: list[tuple[str, OpenSaga]] = []
        while len(found) < limit and (rows := await self.store.scan("saga", after=after, limit=limit)):
            entries = [(stream, msgspec.json.decode(data, type=OpenSaga)) for stream, data in rows]
            found += [(stream, entry) for stream, entry in entries if status in ("", entry.status)]
            after = rows[-1][0]
        return found[:limit]

    def _flushed(self, sent: list[Record]) -> None:
        if sent:
            self.conversations.flushed(sent)
        self._news.tell()

    def _crashed(self) -> None:
        self.edge.crashed(
            Unavailable(f"the store of {self.name} does not take commits; try again", retry_after_seconds=2.0)
        )
        if self.state is not NodeState.CLOSED and (self._recovering is None or self._recovering.done()):
            self._recovering = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        """After a failed flush, read everything that memory keeps from the store again; then take work again."""
        while True:
            await asyncio.sleep(RECOVER_SECONDS)
            try:
                self.writer.head = await self.store.recover()
                await self._reload()
                self.writer.resume()
                self.retrier.go()
                self.conversations.reread_own()
                return
            except StoreError as error:
                logger.warning(
                    "%s cannot read its store, takes no work, and tries again in %g s: %s",
                    self.name,
                    RECOVER_SECONDS,
                    error,
                    extra={"service": self.name},
                )

    async def leap(self, first: int) -> None:
        """Continue the log at a higher position in a new incarnation. Raises StoreError."""
        async with self.writer.paused():
            opened = await self.store.leap(self.clock.unique(), self.clock.now_us(), first)
            self.incarnations.all = opened.incarnations
            self.writer.head = opened.head

    async def records_of(self, *, tx: str = "", correlation: str = "", stream: str = "") -> list[Record]:
        """All records of this service with a transaction id, a correlation label or a stream."""
        return await self.store.related(tx=tx, correlation=correlation, stream=stream)
