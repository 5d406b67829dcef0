"""Receiving: each message is decided, or set aside on its stream, in the commit that moves the cursor.

A message whose handler fails (a bug, a payload that does not decode) waits with backoff and holds up its own stream
only; the conversation goes on. What waits is durable and in view. Exchange comes before, the writer after; nothing is
dropped here, and nothing raised by a handler gets past it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.core.batch import Batch, Cursor, Duplicate, Move, Row
from holdfast.core.frame import WireRecord
from holdfast.core.message import encode
from holdfast.errors import Rejected, StoreError, Unavailable
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.runtime.dispatch import Dispatch, Envelope, Handled
from holdfast.runtime.memory import Memory
from holdfast.runtime.received import envelope_of, handle_message, open_message, stream_of
from holdfast.runtime.transactions import Transactions
from holdfast.runtime.works import BatchWork
from holdfast.runtime.writer import Writer

logger = logging.getLogger("holdfast.waiting")

RETRY_FIRST_MS, RETRY_LAST_MS = 500, 60_000
CONFLICTS_MAX = 5
STREAM_WAITING_MAX = 1_000
"""Messages that may wait on one stream; past it a command is answered `busy`."""


class Held(msgspec.Struct):
    """A message that waits, as it is stored."""

    producer: str
    record: WireRecord
    since: int
    attempts: int = 0
    next_at: int = 0
    error: str = ""
    """Of the last attempt; empty for one that only waits behind another."""


class Waiting:
    """What waits in one service, by stream, in the order received."""

    def __init__(self, dispatch: Dispatch, memory: Memory, store: Store, clock: Clock) -> None:
        self.dispatch, self.memory, self.store, self.clock = dispatch, memory, store, clock
        self.settle: Callable[[str, Any, int], None] = lambda tx, answer, position: None
        """Told the end of every saga begun at the edge; the edge listens."""
        self.transactions: Transactions | None = None
        """Where commands that have a handler run."""
        self._queues: dict[str, deque[_Place]] = {}
        self._sequence = 0
        self._writer: Writer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retrying: set[str] = set()

    async def start(self, writer: Writer) -> None:
        """Read what waits from the store, and go on trying."""
        self._writer = writer
        self._queues.clear()
        self._retrying.clear()
        after = ""
        while rows := await self.store.scan("waiting", after=after):
            for key, data in rows:
                stream, _, number = key.rpartition("#")
                self._sequence = max(self._sequence, int(number))
                self._queues.setdefault(stream, deque()).append(_Place(key, msgspec.json.decode(data, type=Held), True))
                after = key
        self._schedule()

    def stop(self) -> None:
        """Try no more."""
        if self._timer is not None:
            self._timer.cancel()

    def holds(self, stream: str) -> bool:
        """True while something waits on the stream: nothing passes it."""
        return stream in self._queues

    def items(self) -> list[tuple[str, Held]]:
        """(stream, message) of all that waits, each stream's in order."""
        return [(stream, place.held) for stream, queue in self._queues.items() for place in queue]

    def hold(self, stream: str, producer: str, record: WireRecord, error: Exception | None) -> "_Place":
        """Set a message aside, behind what waits on its stream already. It is tried when it is `kept`."""
        queue = self._queues.setdefault(stream, deque())
        self._sequence += 1
        now = self.clock.now_us()
        held = Held(producer, record, now)
        if error is not None:
            self._failed(stream, held, error)
        place = _Place(f"{stream}#{self._sequence:012d}", held, False)
        queue.append(place)
        return place

    def kept(self, stream: str, place: "_Place") -> None:
        """A message that was set aside is durable now."""
        place.durable = True
        queue = self._queues.get(stream)
        if not place.held.next_at and queue and queue[0] is place and stream not in self._retrying:
            self._retry(stream)
        else:
            self._schedule()

    def unhold(self, stream: str, place: "_Place") -> None:
        """It was not set aside after all: its batch is not committed."""
        queue = self._queues.get(stream)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._queues[stream]

    def _failed(self, stream: str, held: Held, error: Exception) -> None:
        delay = min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** min(held.attempts, 16))
        held.attempts += 1
        held.next_at = self.clock.now_us() + round(delay * (0.75 + self.clock.random() / 2)) * 1000
        held.error = f"{type(error).__name__}: {error}"[:500]
        logger.warning(
            "a message waits: its handler failed",
            extra={
                "stream": stream,
                "attempts": held.attempts,
                "correlation_id": held.record.correlation or held.record.tx,
            },
            exc_info=error,
        )

    def _schedule(self) -> None:
        queues = self._queues.items()
        due = [q[0].held.next_at for stream, q in queues if q[0].durable and stream not in self._retrying]
        if not due or self._writer is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, (min(due) - self.clock.now_us()) / 1e6)
        self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        now = self.clock.now_us()
        due = [
            stream
            for stream, queue in self._queues.items()
            if queue[0].durable and queue[0].held.next_at <= now and stream not in self._retrying
        ]
        for stream in due:
            self._retry(stream)
        self._schedule()

    def _retry(self, stream: str) -> None:
        if self._writer is not None:
            self._retrying.add(stream)
            work = _HandlerRetry(self, stream, self._writer) if self.in_transaction(stream) else None
            self._writer.submit(work or _RetryWork(self, stream))

    def in_transaction(self, stream: str) -> bool:
        """True for the stream of a handler: its messages are all set aside, and then decided in a transaction."""
        return stream.partition("/")[0] in self.dispatch.service.handlers

    def full(self, stream: str) -> bool:
        """True when no more of what may be refused is taken on the stream."""
        return len(self._queues.get(stream, ())) >= STREAM_WAITING_MAX

    def retry(self, stream: str) -> tuple[Batch | None, Handled | None, "_Place | None"]:
        """Try the first message of a stream again: the batch holds what it decides, or its new backoff.

        The place is the message's where it has been taken from the queue.
        """
        queue = self._queues.get(stream)
        if not queue or not queue[0].durable:
            return None, None, None
        place = queue[0]
        key, held = place.key, place.held
        try:
            handled = handle_message(self.dispatch, self.memory, held.producer, held.record, self.clock.now_us())
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, its message waits
            self.memory.forget([stream])
            self._failed(stream, held, error)
            return Batch(rows=(Row("waiting", key, encode(held)),)), None, None
        queue.popleft()
        if not queue:
            del self._queues[stream]
        rows = (*handled.rows, Row("waiting", key, None))
        return Batch(tuple(handled.records), tuple(handled.reads), (), rows), handled, place

    def put_back(self, stream: str, place: "_Place") -> None:
        """The try is not committed: the message waits first in its stream again."""
        self._queues.setdefault(stream, deque()).appendleft(place)

    def settled(self, handled: Handled | None, position: int) -> None:
        """A handling has landed: sagas are counted, and callers at the edge get the ends that are in it."""
        if handled is not None:
            self.dispatch.sagas.open += handled.opened
            for tx, answer in handled.settled:
                self.settle(tx, answer, position + len(handled.records) - 1)

    def retried(self, stream: str, *, later: bool = False) -> None:
        """A try has landed: on to the next. `later`: the writer could not take it, no message is to blame."""
        self._retrying.discard(stream)
        queue = self._queues.get(stream)
        if later and queue:
            queue[0].held.next_at = self.clock.now_us() + RETRY_FIRST_MS * 1000
        if queue and queue[0].durable and not queue[0].held.next_at:
            self._retry(stream)
        else:
            self._schedule()

    def first(self, stream: str) -> "_Place | None":
        """The place of the message that is next on a stream, if it is durable."""
        queue = self._queues.get(stream)
        return queue[0] if queue and queue[0].durable else None

    def keep_failed(self, stream: str, place: "_Place", error: Exception) -> None:
        """A handler failed: its message waits, with a new backoff, once that is durable."""
        self._failed(stream, place.held, error)
        if self._writer is None:
            return
        work = BatchWork(Batch(rows=(Row("waiting", place.key, encode(place.held)),)))
        work.done.add_done_callback(lambda done: self.retried(stream, later=done.exception() is not None))
        self._writer.submit(work)


class _Place:
    """A message's place in the queue of its stream. Compared by identity."""

    __slots__ = ("durable", "held", "key")

    def __init__(self, key: str, held: Held, durable: bool) -> None:
        self.key, self.held, self.durable = key, held, durable
        """`durable`: its row is committed; until then it is not tried."""


class MessageWork:
    """One received message on its way through the writer."""

    __slots__ = (
        "_before", "_done", "_handled", "_incarnation", "_place", "_producer", "_record", "_stream", "_tries",
        "_waiting", "lane", "streams",
    )  # fmt: skip

    def __init__(
        self, waiting: Waiting, producer: str, incarnation: str, before: int, record: WireRecord,
        done: "asyncio.Future[None] | None",
    ) -> None:  # fmt: skip
        self._waiting, self._producer, self._incarnation = waiting, producer, incarnation
        self._before, self._record, self._done, self._tries = before, record, done, 0
        self._stream = stream_of(waiting.dispatch, producer, record)
        self.lane = producer
        self.streams = (self._stream,) if self._stream and not self._stream.startswith("?/") else ()
        self._handled: Handled | None = None
        self._place: _Place | None = None

    def handle(self) -> Batch | None:
        """Decide the message, or set it aside; the cursor moves in either case."""
        waiting, record, stream = self._waiting, self._record, self._stream
        self._handled = None
        self._tries += 1
        if self._tries > CONFLICTS_MAX:
            raise StoreError(f"the cursor of {self._producer} stands elsewhere than this process left it")
        move = Move(f"exchange:{self._producer}", self._before, Cursor(self._incarnation, record.position))
        if stream and waiting.holds(stream):
            if record.headers.early and waiting.full(stream):
                handled = self._handled = Handled()
                busy = Rejected("busy", f"{STREAM_WAITING_MAX} messages wait on {stream}")
                envelope = envelope_of(self._producer, record, waiting.clock.now_us())
                waiting.dispatch.reject(busy, None, stream, envelope, waiting.memory, handled)
                return Batch(tuple(handled.records), moves=(move,))
            return self._hold(move, None)
        if waiting.in_transaction(stream):
            return self._hold(move, None)  # so that a handler holds up nothing but its own stream
        try:
            at = waiting.clock.now_us()
            handled = self._handled = handle_message(waiting.dispatch, waiting.memory, self._producer, record, at)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, its message waits
            waiting.memory.forget(self.streams)
            self._handled = None
            return self._hold(move, error)
        return Batch(tuple(handled.records), tuple(handled.reads), (move,), tuple(handled.rows))

    def _hold(self, move: Move, error: Exception | None) -> Batch:
        place = self._place = self._waiting.hold(self._stream, self._producer, self._record, error)
        return Batch(moves=(move,), rows=(Row("waiting", place.key, encode(place.held)),))

    def taken_back(self) -> None:
        """It is not set aside after all."""
        if self._place is not None:
            self._waiting.unhold(self._stream, self._place)
            self._place = None

    def landed(self, position: int) -> None:
        """It is durable."""
        self._waiting.settled(self._handled, position)
        if self._place is not None:
            self._waiting.kept(self._stream, self._place)
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self.failed(Rejected("duplicate"))

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; the sender will say it again."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class _RetryWork:
    """Another try at the first message that waits on a stream."""

    __slots__ = ("_handled", "_place", "_stream", "_waiting", "lane", "streams")

    def __init__(self, waiting: Waiting, stream: str) -> None:
        self._handled: Handled | None = None
        self._place: _Place | None = None
        self._waiting, self._stream, self.lane = waiting, stream, ""
        self.streams = () if stream.startswith("?/") or not stream else (stream,)

    def handle(self) -> Batch | None:
        batch, self._handled, self._place = self._waiting.retry(self._stream)
        if batch is None:
            self._waiting.retried(self._stream)
        return batch

    def landed(self, position: int) -> None:
        self._waiting.settled(self._handled, position)
        self._waiting.retried(self._stream)

    def taken_back(self) -> None:
        if self._place is not None:
            self._waiting.put_back(self._stream, self._place)
            self._place = None

    def duplicate(self, found: Duplicate) -> None:
        self._waiting.retried(self._stream)

    def failed(self, error: Exception) -> None:
        self._waiting.retried(self._stream, later=True)


class _HandlerRetry:
    """The first message that waits on a handler's stream, on its way through a transaction."""

    __slots__ = ("_crashes", "_handled", "_place", "_stream", "_waiting", "_writer", "key", "lane", "streams")

    def __init__(self, waiting: Waiting, stream: str, writer: Writer) -> None:
        self._waiting, self._stream, self._writer = waiting, stream, writer
        self._crashes = writer.crashes
        self._place: _Place | None = None
        self._handled: Handled | None = None
        self.key, self.lane, self.streams = "", "", (stream,)

    def handle(self) -> Batch | None:
        if self._waiting.transactions is not None:
            self._waiting.transactions.take(self._stream, self)
        return None

    def begin(self) -> tuple[Any, Envelope] | None:
        place = self._place = self._waiting.first(self._stream)
        if place is None:
            self._waiting.retried(self._stream)
            return None
        return open_message(
            self._waiting.dispatch, place.held.producer, place.held.record, self._waiting.clock.now_us()
        )

    def batch(self, handled: Handled) -> Batch:
        self._handled = handled
        gone = (Row("waiting", self._place.key, None),) if self._place is not None else ()
        return Batch(tuple(handled.records), tuple(handled.reads), (), (*handled.rows, *gone))

    def landed(self, position: int) -> None:
        if self._place is not None:
            self._waiting.unhold(self._stream, self._place)
        self._waiting.settled(self._handled, position)
        self._waiting.retried(self._stream)

    def taken_back(self) -> None:
        pass

    def duplicate(self, found: Duplicate) -> None:
        self._waiting.retried(self._stream)

    def failed(self, error: Exception) -> None:
        if self._crashes != self._writer.crashes:
            return  # all that waits has been read again, or will be
        if self._place is None or isinstance(error, Unavailable):
            self._waiting.retried(self._stream, later=True)
        else:
            self._waiting.keep_failed(self._stream, self._place, error)
