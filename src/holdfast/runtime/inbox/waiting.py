"""Receiving: each message is decided, or set aside on its stream, in the commit that moves the cursor.

A message whose handler fails (a bug, a payload that does not decode) waits with backoff and holds up its own stream
only; the conversation goes on. Tried as often as its policy says it is parked, and waits for a person. What waits is
durable and in view. Exchange and feeds come before, the writer after; nothing is dropped here, and nothing raised by a
handler gets past it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from holdfast.core.batch import Batch, Row
from holdfast.core.frame import WireRecord
from holdfast.core.message import encode
from holdfast.core.stage import read
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.runtime.decide.decision import Handled
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.stages import StreamHeld
from holdfast.runtime.execute.handlers import Transactions
from holdfast.runtime.inbox.cancel import CancelledWork
from holdfast.runtime.inbox.failure import failure_of
from holdfast.runtime.inbox.message import Held, Place, in_the_air, placed, rehome
from holdfast.runtime.inbox.receive import handle_message, known, stream_now, stream_of
from holdfast.runtime.inbox.retry import HandlerRetry, RetryWork
from holdfast.runtime.log.streams import Memory
from holdfast.runtime.log.work import BatchWork
from holdfast.runtime.log.writer import Writer

logger = logging.getLogger("holdfast.waiting")

RETRY_LATER_MS = 500
"""Delay after which a message is tried that could not be, the writer being down."""
STREAM_WAITING_MAX = 1_000
"""Messages that may wait on one stream; past it a command is answered `busy`."""


class Waiting:
    """What waits in one service, by stream, in the order received."""

    def __init__(self, dispatch: Dispatch, memory: Memory, store: Store, clock: Clock) -> None:
        self.dispatch, self.memory, self.store, self.clock = dispatch, memory, store, clock
        self.settle: Callable[[str, Any, int], None] = lambda tx, answer, position: None
        """Told the end of every saga begun at the edge; the edge listens."""
        self.freed: Callable[[str, int], None] = lambda stream, before: None
        """Told whose turn it is on a stream: of those who came before a time (0: all). The edge listens."""
        self.parked: Callable[[str], bool] = lambda stream: False
        """Whether commands from the edge wait for a stream; the edge knows."""
        self.transactions: Transactions | None = None
        """Where commands that have a handler run."""
        self.effects: Callable[[str], None] = lambda stream: None
        """Told the stream of an effect whose first message is to be tried."""
        self.consumers: dict[str, Callable[[Held], Handled]] = {}
        """Consumer -> how it decides an event that waits; the consumers of feeds enter themselves."""
        self.leaving: set[str] = set()
        """Keys of messages whose outcome is on its way to the log: none gets two, and no row of one is put again."""
        self._queues: dict[str, deque[Place]] = {}
        self._sequence = 0
        self._writer: Writer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._retrying: set[str] = set()
        self._going = False

    async def start(self, writer: Writer) -> None:
        """Read what waits from the store; `go` has it tried."""
        calls = in_the_air(self.places(), self.dispatch.service.effects)
        self._writer, self._going = writer, False
        self._queues.clear()
        self._retrying.clear()
        self.leaving.clear()
        after = ""
        while rows := await self.store.scan("waiting", after=after):
            for key, data in rows:
                stream, _, number = key.rpartition("#")
                self._sequence = max(self._sequence, int(number))
                self._queues.setdefault(stream, deque()).append(placed(key, data, calls))
                after = key
        rows = rehome(self._queues, partial(stream_now, self.dispatch), partial(known, self.dispatch))
        if rows:
            await self.store.commit([Batch(rows=tuple(rows))])

    def go(self) -> None:
        """Go on trying: all that decides what waits is there."""
        self._going = True
        self._schedule()

    def stop(self) -> None:
        """Try no more."""
        if self._timer is not None:
            self._timer.cancel()

    def ages(self, stream: str) -> list[tuple[int, str]]:
        """Of the transactions that hold a stream, and of all that wait for it."""
        return [*self.dispatch.stages.ages(stream), *(age for _, age in self._staged(stream))]

    def _staged(self, stream: str) -> "list[tuple[str, tuple[int, str]]]":
        """(stage, age) of the staged commands that wait on a stream."""
        records = ((place.held.producer, place.held.record) for place in self._queues.get(stream, ()))
        return [read(who, record.stream, record.headers.stage) for who, record in records if record.headers.stage]

    def failing(self, stream: str) -> bool:
        """True while the first message of a stream waits because its handler failed."""
        queue = self._queues.get(stream)
        return bool(queue and queue[0].held.error)

    def parked_at(self, stream: str) -> bool:
        """True while the first message of a stream is parked."""
        queue = self._queues.get(stream)
        return bool(queue and queue[0].held.parked)

    def awaits(self, stage: str) -> bool:
        """True while a command of that transaction waits here."""
        return any(stage == found for stream in self._queues for found, _ in self._staged(stream))

    def take_out(self, stage: str) -> "list[tuple[str, int, Place]]":
        """The messages of a transaction that wait, taken out, with their places."""
        found: list[tuple[str, int, Place]] = []
        for stream, queue in list(self._queues.items()):
            for number, place in reversed(list(enumerate(queue))):
                record = place.held.record
                if record.headers.stage and read(place.held.producer, record.stream, record.headers.stage)[0] == stage:
                    found.append((stream, number, place))
                    self.unhold(stream, place)
        return found

    def take(self, stream: str, place: Place) -> int:
        """Take one message out of its queue; its number there."""
        number = self._queues[stream].index(place)
        self.unhold(stream, place)
        return number

    def has(self, stream: str, key: str) -> bool:
        """Whether the message of that row waits."""
        return key not in self.leaving and any(place.key == key for place in self._queues.get(stream, ()))

    def gone(self, stream: str, key: str) -> None:
        """The message of that row waits no more."""
        for place in [place for place in self._queues.get(stream, ()) if place.key == key]:
            self.unhold(stream, place)

    def put_in(self, places: "list[tuple[str, int, Place]]") -> None:
        """They were not taken out after all."""
        for stream, number, place in reversed(places):
            self._queues.setdefault(stream, deque()).insert(number, place)

    def unlocked(self, stream: str) -> None:
        """A transaction has let go of a stream: what waits on it goes on."""
        queue = self._queues.get(stream)
        self.freed(stream, queue[0].held.since if queue else 0)
        if not queue:
            return
        queue[0].blocked = False
        if queue[0].durable and not self._rests(stream):
            if queue[0].held.next_at <= self.clock.now_us():
                self._retry(stream)
            else:
                self._schedule()

    def holds(self, stream: str) -> bool:
        """True while something waits on the stream: nothing passes it."""
        return stream in self._queues

    def items(self) -> list[tuple[str, Held]]:
        """(stream, message) of all that waits, each stream's in order."""
        return [(stream, place.held) for stream, place in self.places()]

    def places(self) -> list[tuple[str, Place]]:
        """(stream, place) of all that waits, each stream's in order."""
        return [(stream, place) for stream, queue in self._queues.items() for place in queue]

    def hold(
        self, stream: str, producer: str, record: WireRecord, error: Exception | None, *, feed: str = ""
    ) -> "Place":
        """Set a message aside, behind what waits on its stream already. It is tried when it is `kept`."""
        queue = self._queues.setdefault(stream, deque())
        self._sequence += 1
        now = self.clock.now_us()
        held = Held(producer, record, now, feed=feed)
        if error is not None:
            self._failed(stream, held, error)
        place = Place(f"{stream}#{self._sequence:012d}", held, False)
        queue.append(place)
        return place

    def kept(self, stream: str, place: "Place") -> None:
        """A message that was set aside is durable now."""
        place.durable = True
        queue = self._queues.get(stream)
        if not place.held.next_at and queue and queue[0] is place and not self._rests(stream):
            self._retry(stream)
        else:
            self._schedule()

    def unhold(self, stream: str, place: "Place") -> None:
        """It was not set aside after all: its batch is not committed."""
        queue = self._queues.get(stream)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._queues[stream]

    def _failed(self, stream: str, held: Held, error: Exception) -> None:
        policy, now = self.dispatch.service.retry_of(held.record.type), self.clock.now_us()
        failure = failure_of(error)
        held.attempts += 1
        held.error, held.where, held.fingerprint = failure.error, failure.where, failure.fingerprint
        held.unread = not known(self.dispatch, held)
        if held.attempts >= policy.attempts_max:
            held.parked, held.next_at = now, 0
        else:
            held.next_at = now + policy.delay_us(held.attempts, self.clock.random())
        extra = {
            "stream": stream, "message_id": held.id, "attempts": held.attempts, "fingerprint": held.fingerprint,
            "correlation_id": held.record.correlation or held.record.tx,
        }  # fmt: skip
        level, how = (logging.ERROR, "is parked") if held.parked else (logging.WARNING, "waits")
        logger.log(level, "a message %s: its handler failed", how, extra=extra, exc_info=error)

    def _schedule(self) -> None:
        queues = self._queues.items()
        due = [q[0].held.next_at for stream, q in queues if q[0].durable and not self._rests(stream)]
        if not due or not self._going:
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
            if queue[0].durable and queue[0].held.next_at <= now and not self._rests(stream)
        ]
        for stream in due:
            self._retry(stream)
        self._schedule()

    def _rests(self, stream: str) -> bool:
        """True while its first message is being tried, is parked or changed, or waits for who holds the stream."""
        queue = self._queues.get(stream)
        first = queue[0] if queue else None
        return stream in self._retrying or bool(first and (first.blocked or first.changing or first.held.parked))

    def _retry(self, stream: str) -> None:
        if self._writer is None or not self._going:
            return
        self._retrying.add(stream)
        name = stream.partition("/")[0]
        if name in self.dispatch.service.effects:
            self.effects(stream)
        elif name in self.dispatch.service.handlers:
            self._writer.submit(HandlerRetry(self, stream, self._writer))
        else:
            self._writer.submit(RetryWork(self, stream))

    def apart(self, stream: str) -> bool:
        """True for the stream of a handler or an effect: its messages are all set aside, and then carried out."""
        apart = self.dispatch.apart
        return bool(apart) and stream.partition("/")[0] in apart

    def busy(self, stream: str) -> bool:
        """True while something waits on the stream, or is being tried."""
        return stream in self._queues or stream in self._retrying

    def full(self, stream: str) -> bool:
        """True when no more of what may be refused is taken on the stream."""
        return len(self._queues.get(stream, ())) >= STREAM_WAITING_MAX

    def retry(self, stream: str) -> tuple[Batch | None, Handled | None, "Place | None"]:
        """Try the first message of a stream again: the batch holds what it decides, or its new backoff.

        The place is the message's where it has been taken from the queue.
        """
        queue = self._queues.get(stream)
        if not queue or not queue[0].durable or queue[0].changing:
            return None, None, None
        place = queue[0]
        key, held = place.key, place.held
        try:
            handled = self.decide(held)
        except StreamHeld:
            place.blocked = True
            return None, None, None
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, its message waits
            self.memory.forget([stream])
            self._failed(stream, held, error)
            return Batch(rows=(Row("waiting", key, encode(held)),)), None, None
        queue.popleft()
        if not queue:
            del self._queues[stream]
        rows = (*handled.rows, Row("waiting", key, None))
        return Batch(tuple(handled.records), tuple(handled.reads), (), rows), handled, place

    def decide(self, held: Held) -> Handled:
        """Decide a message that waits, its streams in memory. Raises what its handler raises."""
        if held.feed:
            if held.feed not in self.consumers:
                raise LookupError(f"{self.dispatch.service.name} has no {held.feed} any more")
            return self.consumers[held.feed](held)
        stream = stream_of(self.dispatch, held.producer, held.record)
        return handle_message(
            self.dispatch, self.memory, held.producer, held.record, stream, self.clock.now_us(), edited=held.edited
        )

    def put_back(self, stream: str, place: "Place") -> None:
        """The try is not committed: the message waits first in its stream again."""
        self._queues.setdefault(stream, deque()).appendleft(place)

    def settled(self, handled: Handled | None, position: int) -> None:
        """A handling has landed: sagas are counted, and callers at the edge get the ends that are in it."""
        if handled is not None:
            self.dispatch.sagas.landed(handled)
            for tx, answer, number in handled.settled:
                self.settle(tx, answer, position + number)

    def let_go(self, handled: Handled | None, gone: "list[tuple[str, int, Place]]") -> None:
        """A decision has landed: whoever waits on the streams that it freed goes on."""
        if not gone and (handled is None or not handled.let_go):
            return
        streams = [*(handled.let_go if handled else ()), *(stream for stream, _, _ in gone)]
        for stream in dict.fromkeys(streams):
            self.unlocked(stream)

    def retried(self, stream: str, *, later: bool = False) -> None:
        """A try has landed: on to the next. `later`: the writer could not take it, no message is to blame."""
        self._retrying.discard(stream)
        queue = self._queues.get(stream)
        if later and queue:
            queue[0].held.next_at = self.clock.now_us() + RETRY_LATER_MS * 1000
        if queue and queue[0].durable and not queue[0].held.next_at and not self._rests(stream):
            self._retry(stream)
        else:
            self._schedule()
        if not queue:
            self.freed(stream, 0)

    def first(self, stream: str) -> "Place | None":
        """The place of the message that is next on a stream, if it is durable and not being changed."""
        queue = self._queues.get(stream)
        return queue[0] if queue and queue[0].durable and not queue[0].changing else None

    def find(self, message: str, on: str = "") -> "tuple[str, Place] | None":
        """The stream and place of a message that waits, by its id `producer@position`; `on`: which of its streams."""
        places = (one for one in self.places() if one[1].held.id == message and on in ("", one[0]))
        return next(places, None)

    def asked_by(self, producer: str, stream: str, version: int) -> "tuple[str, Place] | None":
        """The stream and place of a command that waits, by its stream and version in its producer's log."""
        for found, place in self.places():
            held = place.held
            if held.producer == producer and (held.record.stream, held.record.version) == (stream, version):
                return (found, place) if place.key not in self.leaving else None
        return None

    def again(self, stream: str) -> None:
        """What comes first on a stream has changed: on with it."""
        queue = self._queues.get(stream)
        if queue and queue[0].durable and not self._rests(stream) and queue[0].held.next_at <= self.clock.now_us():
            self._retry(stream)
        else:
            self._schedule()
        if not queue:
            self.freed(stream, 0)

    def called_off(self, place: Place) -> None:
        """A cancel came for what is being carried out, or waits to be asked about: what is parked is looked at anew."""
        stream = place.key.rpartition("#")[0]
        if not place.held.unknown and not place.running and self.has(stream, place.key) and self._writer is not None:
            self._writer.submit(CancelledWork(self, stream, place))

    def release(self, stream: str, place: "Place") -> None:
        """A person has had a message tried again: its attempts are counted anew."""
        held = place.held
        held.parked, held.attempts, held.next_at = 0, 0, 0
        self.again(stream)

    def row_of(self, place: "Place") -> Row:
        """The row of a message that waits."""
        return Row("waiting", place.key, encode(place.held))

    def keep_failed(self, stream: str, place: "Place", error: Exception) -> None:
        """A handler failed: its message waits, with a new backoff, once that is durable; or it is called off."""
        if self._writer is None:
            return
        if place.held.called_off and not place.held.unknown:
            self._writer.submit(CancelledWork(self, stream, place))
            return
        self._failed(stream, place.held, error)
        work = BatchWork(Batch(rows=(self.row_of(place),)))
        work.done.add_done_callback(lambda done: self.retried(stream, later=done.exception() is not None))
        self._writer.submit(work)
