"""What is fed: views, reactions, and sagas that events begin, each a consumer of `runtime.feeds.subscriptions`.

A view's page is one batch: the rows it changes and its checkpoint. A reaction's page is one batch: the commands it
sends and its checkpoint. A saga's beginning goes through the writer event by event, since its stream must be in memory.
A view that fails marks that one row stale and goes on. An event that a reaction or a saga's beginning fails at waits,
as a command does, and holds up what follows on its own stream only.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.core.declare.message import HOPS_MAX, Context, decode_stored, encode, message_of
from holdfast.core.declare.saga import SagaType
from holdfast.core.declare.view import ReactionType, ViewType
from holdfast.core.log.batch import Batch, Cursor, Move, Row
from holdfast.core.log.record import Headers, Record, record_id
from holdfast.core.wire.frame import FeedPage, WireRecord, to_wire
from holdfast.errors import CommandFailed
from holdfast.ports.store import Store
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.feeds.subscriptions import Subscription
from holdfast.runtime.inbox.deliver import envelope_at
from holdfast.runtime.inbox.message import Slot, WaitingMessage
from holdfast.runtime.inbox.receive import Inbox, once_more
from holdfast.runtime.log.work import AwaitedWork

logger = logging.getLogger("holdfast.consumers")

VIEW_ROWS_IN_MEMORY_MAX = 20_000


class ViewRow(msgspec.Struct, omit_defaults=True):
    """A row of a view as it is stored."""

    state: msgspec.Raw
    stale: str = ""
    """Why the row is not kept up any more; empty while it is. A rebuild cures it."""


class ViewConsumer:
    """One generation of a view."""

    begins = "start"

    def __init__(self, view: ViewType, generation: int, store: Store) -> None:
        self.view, self.generation, self.store = view, generation, store
        self.name = f"view:{view.name}@{generation}"
        self.types = tuple(view.events)
        self._rows: OrderedDict[str, tuple[Any, str]] = OrderedDict()
        self._turn = asyncio.Lock()

    def row_key(self, key: str) -> str:
        """The key of a row in the store."""
        return f"{self.view.name}@{self.generation}/{key}"

    async def take(self, feed: Subscription, page: FeedPage) -> None:
        """Fold a page into its rows. One page at a time, of whichever producer: two that change one row must not both
        begin with the row as it was, nor the second stand on a first that is not committed."""
        async with self._turn:
            await self._fold(feed, page)

    async def _fold(self, feed: Subscription, page: FeedPage) -> None:
        events: list[tuple[str, Any, Record]] = []
        unplaced: list[str] = []
        for record in page.records:
            try:
                event = decode_stored(self.view.events[record.type].home, record.type, record.data)
                keys = self.view.keys(event)
            except Exception as error:  # a row that is stale from the start says which event no row could be found for
                where = record_id(feed.producer, record.position)
                logger.exception(
                    "the view %s of %s cannot tell which row the event %s changes; it keeps a stale row for it",
                    self.view.name,
                    feed.writer.service,
                    where,
                    extra={"service": feed.writer.service, "stream": record.stream, "message_id": where},
                )
                self._rows[f"?{where}"] = (self.view.shape.new(), f"{type(error).__name__} at {where}: {error}"[:500])
                unplaced.append(f"?{where}")
            else:
                events += [(key, event, record) for key in keys]
        await self._load([key for key, _, _ in events])
        changed: dict[str, None] = dict.fromkeys(unplaced)
        for key, event, record in events:
            state, stale = self._rows[key]
            if stale:
                continue
            changed[key] = None
            try:
                self.view.evolve(state, event, key)
            except Exception as error:
                where = record_id(feed.producer, record.position)
                logger.exception(
                    "the view %s of %s cannot apply the event %s to its row %s; it is stale until a rebuild",
                    self.view.name,
                    feed.writer.service,
                    where,
                    key,
                    extra={"service": feed.writer.service, "stream": record.stream, "message_id": where},
                )
                self._rows[key] = (state, f"{type(error).__name__} at {where}: {error}"[:500])
        rows = tuple(Row("view", self.row_key(key), self._encode(key)) for key in changed)
        try:
            await feed.commit(Batch(rows=rows, moves=(feed.move(page, page.upto),)), page, page.upto)
        except BaseException:
            self._rows.clear()
            raise
        while len(self._rows) > VIEW_ROWS_IN_MEMORY_MAX:
            self._rows.popitem(last=False)

    async def _load(self, keys: list[str]) -> None:
        missing = [key for key in dict.fromkeys(keys) if key not in self._rows]
        found = await self.store.get("view", [self.row_key(key) for key in missing]) if missing else []
        for key, data in zip(missing, found, strict=True):
            if data is None:
                self._rows[key] = (self.view.shape.new(), "")
            else:
                row = msgspec.json.decode(data, type=ViewRow)
                self._rows[key] = (self.view.shape.decode(bytes(row.state)), row.stale)

    def _encode(self, key: str) -> bytes:
        state, stale = self._rows[key]
        return encode(ViewRow(msgspec.Raw(self.view.shape.encode(state)), stale))


class ReactionConsumer:
    """A reaction."""

    def __init__(self, reaction: ReactionType, inbox: Inbox) -> None:
        self.reaction, self.inbox = reaction, inbox
        self.name, self.begins = f"reaction:{reaction.name}", reaction.begins
        self.types = tuple(reaction.events)
        inbox.retrier.consumers[self.name] = self._again

    async def take(self, feed: Subscription, page: FeedPage) -> None:
        """Send what the events of a page lead to; one that fails waits, and what follows on its stream behind it."""
        inbox = self.inbox
        records: list[Record] = []
        aside: list[Slot] = []
        for record in page.records:
            stream, failure = f"{self.name}/{feed.producer}:{record.stream}", None
            if not inbox.retrier.trying(stream):
                try:
                    records += self._react(feed.producer, record)
                    continue
                except Exception as error:  # noqa: BLE001 - whatever it raises, its event waits
                    failure = error
            aside.append(inbox.set_aside(stream, feed.producer, to_wire(record), failure, feed=self.name))
        rows = tuple(slot.row() for slot in aside)
        try:
            await feed.commit(Batch(tuple(records), moves=(feed.move(page, page.upto),), rows=rows), page, page.upto)
        except BaseException:
            for slot in aside:
                inbox.waiting.remove(slot)
            raise
        for slot in aside:
            inbox.retrier.added(slot)

    def _again(self, message: WaitingMessage) -> Decision:
        """Decide an event that waits."""
        decision = Decision(envelope_at(message, self.inbox.clock.now_us()), self.inbox.streams)
        decision.records += self._react(message.producer, message.record)
        return decision

    def _react(self, producer: str, record: Record | WireRecord) -> list[Record]:
        if record.headers.hop >= HOPS_MAX:
            raise CommandFailed(f"{self.reaction.name}: {HOPS_MAX} hops from the edge: the services answer in a loop")
        event = decode_stored(self.reaction.events[record.type].home, record.type, bytes(record.data))
        cause, at = record_id(producer, record.position), self.inbox.clock.now_us()
        context = Context(at, cause, record.stream.partition("/")[2], record.correlation or record.tx, record.tx)
        made: list[Record] = []
        for command in self.reaction.react(event, context):
            message = message_of(command)
            key = message.key_of(command) if message.key_fields else ""
            headers = Headers(record.headers.hop + 1, record.headers.debug, record.headers.traceparent, key)
            made.append(
                Record(
                    0,
                    "command",
                    message.stored,
                    encode(command),
                    record.tx,
                    cause,
                    at,
                    record.correlation,
                    destination=message.contract,
                    headers=headers,
                )
            )
        return made


class SagaConsumer:
    """The beginning of a saga by an event."""

    def __init__(self, saga: SagaType, inbox: Inbox) -> None:
        self.saga, self.inbox = saga, inbox
        self.name, self.begins = f"saga:{saga.name}", saga.begins_at
        self.types = saga.begin.stored_all
        inbox.retrier.consumers[self.name] = lambda message: self.begin(message.producer, message.record)

    def begin(self, producer: str, record: Record | WireRecord) -> Decision:
        """Begin the saga of one event, its stream in memory. Raises what its first step raises."""
        inbox, headers = self.inbox, record.headers
        event = decode_stored(self.saga.begin.home, record.type, bytes(record.data))
        cause, at = record_id(producer, record.position), inbox.clock.now_us()
        envelope = Envelope(cause, record.tx, at, record.correlation, headers.hop, headers.debug, headers.traceparent)
        decision = Decision(envelope, inbox.streams)
        inbox.dispatch.sagas.begin(self.saga, event, f"{self.saga.name}/{cause}", decision)
        return decision

    async def take(self, feed: Subscription, page: FeedPage) -> None:
        """Begin a saga for each event of a page, in order; the checkpoint moves with each."""
        before = feed.durable.position
        works: list[_BeginWork] = []
        for record in page.records:
            to = page.upto if record is page.records[-1] else record.position
            move = Move(feed.cursor_name, before, Cursor(page.incarnation, to))
            works.append(_BeginWork(self, feed.producer, record, move))
            before = to
        for work in works:
            feed.writer.submit(work)
        results = await asyncio.gather(*(work.done for work in works), return_exceptions=True)
        for work, result in zip(works, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            feed.durably_at(work.move.after)


class _BeginWork(AwaitedWork[None]):
    """One event that begins a saga, on its way through the writer."""

    __slots__ = ("_consumer", "_decision", "_producer", "_record", "_slot", "_tries", "lane", "move", "streams")

    def __init__(self, consumer: SagaConsumer, producer: str, record: Record, move: Move) -> None:
        super().__init__()
        self._consumer, self._producer, self._record, self.move = consumer, producer, record, move
        self.lane = consumer.name
        self._decision: Decision | None = None
        self._slot: Slot | None = None
        self._tries = 0
        self.streams: Sequence[str] = (f"{consumer.saga.name}/{record_id(producer, record.position)}",)

    def handle(self) -> Batch | None:
        consumer, record, (stream,) = self._consumer, self._record, self.streams
        self._slot = self._decision = None
        self._tries = once_more(self._tries, consumer.name)
        try:
            decision = self._decision = consumer.begin(self._producer, record)
        except Exception as error:  # noqa: BLE001 - whatever its first step raises, its event waits
            inbox = consumer.inbox
            inbox.streams.forget(self.streams)
            self._slot = inbox.set_aside(stream, self._producer, to_wire(record), error, feed=consumer.name)
            return Batch(moves=(self.move,), rows=(self._slot.row(),))
        return decision.batch(self.move)

    def landed(self, position: int) -> None:
        inbox = self._consumer.inbox
        inbox.outcomes.landed(self._decision, position)
        if self._slot is not None:
            inbox.retrier.added(self._slot)
        self.finish(None)

    def taken_back(self) -> None:
        self._decision = None
        if self._slot is not None:
            self._consumer.inbox.waiting.remove(self._slot)
            self._slot = None
