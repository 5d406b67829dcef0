"""Retry: tries the first waiting message of each stream when it is due.

A message whose handler fails waits with backoff and blocks only its own stream. After as many attempts as its policy
allows, the message is parked and waits for an operator. Due times are in a heap, so the cost of a retry does not depend
on how many streams wait. A try goes through the writer; for a handler's stream it goes through a transaction of the
store, for an effect's stream to the effects. `runtime.inbox.waiting` comes before it and keeps the queues. Errors of
handlers are logged and stored with the message; this module does not raise them.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Iterable
from typing import Any

from holdfast.core.log.batch import Batch
from holdfast.errors import Rejected, Unavailable
from holdfast.ports.clock import Clock
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.locks import StreamLocked
from holdfast.runtime.decide.outcomes import Outcomes
from holdfast.runtime.inbox.deliver import answer_waiting, deliver, envelope_at, known, open_message, stream_of
from holdfast.runtime.inbox.failure import failure_of
from holdfast.runtime.inbox.message import Slot, WaitingMessage
from holdfast.runtime.inbox.turns import Turns
from holdfast.runtime.inbox.waiting import Removed, Waiting
from holdfast.runtime.log.streams import Streams
from holdfast.runtime.log.work import BatchWork
from holdfast.runtime.log.writer import Writer

logger = logging.getLogger("holdfast.waiting")

RETRY_LATER_MS = 500
"""How long a message waits for its next try if the writer could not take it."""
CANCELLED = Rejected("cancelled", "it was called off before it was decided")
"""The answer to a command that its caller cancelled in time."""


class Retrier:
    """Tries the waiting messages of one service."""

    def __init__(
        self,
        dispatch: Dispatch,
        streams: Streams,
        writer: Writer,
        waiting: Waiting,
        turns: Turns,
        outcomes: Outcomes,
        clock: Clock,
        *,
        handle: "Callable[[str, HandlerRetry], None]",
        attempt: Callable[[str], None],
    ) -> None:
        self.dispatch, self.streams, self.writer = dispatch, streams, writer
        self.waiting, self.turns, self.outcomes, self.clock = waiting, turns, outcomes, clock
        self.handle = handle
        """Handles the first message of a handler's stream in a transaction of the store."""
        self.attempt = attempt
        """It is called with the stream of an effect whose first message must be tried."""
        self.consumers: dict[str, Callable[[WaitingMessage], Decision]] = {}
        """Consumer -> how it decides an event that waits; the consumers of feeds enter themselves."""
        self._trying: set[str] = set()
        """Streams whose first message is being tried."""
        self._due: list[tuple[int, str]] = []
        """A heap of (when, stream) at which a first message may be tried. An entry counts only while `_next` says the
        same of its stream: what is due at another time by now is left in the heap until it comes up."""
        self._next: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._going = False

    def pause(self) -> None:
        """Stop trying and forget the tries that run, since the waiting messages are read again from the store."""
        self._going = False
        self._trying.clear()
        self._due.clear()
        self._next.clear()
        self._disarm()

    def go(self) -> None:
        """Begin to try the waiting messages; everything that decides them must have been set up."""
        self._going = True
        for stream in self.waiting.streams():
            self._schedule(stream)

    def stop(self) -> None:
        """Stop trying."""
        self._going = False
        self._disarm()

    # What has changed on a stream.

    def added(self, slot: Slot) -> None:
        """A message that was set aside is durable now."""
        slot.durable = True
        self._move_on(slot.stream)

    def released(self, streams: Iterable[str]) -> None:
        """A transaction has released these streams: try the messages and commands that wait for them."""
        for stream in dict.fromkeys(streams):
            head = self.waiting.head(stream)
            self._give_turns(stream, before=head.message.since if head else 0)
            if head is not None:
                head.blocked = False
                self._try_due(stream)

    def removed(self, stream: str) -> None:
        """The first message of a stream has changed, or may be tried again: try it if it is due."""
        self._try_due(stream)
        if not self.waiting.holds(stream):
            self._give_turns(stream)

    def restored(self, removed: "list[Removed]") -> None:
        """Put messages back into their queues, since their removal was not committed."""
        self.waiting.restore(removed)
        for slot, _ in removed:
            self._schedule(slot.stream)

    def tried(self, stream: str, *, later: bool = False) -> None:
        """A try has ended: go on with the next message. `later`: the writer failed, and the message is not to blame."""
        self._trying.discard(stream)
        head = self.waiting.head(stream)
        if head is None:
            self._give_turns(stream)
            return
        if later:
            head.message.next_at = self.clock.now_us() + RETRY_LATER_MS * 1000
        self._move_on(stream)

    def unpark(self, slot: Slot) -> None:
        """An operator has had a message tried again: its attempts are counted from 0."""
        message = slot.message
        message.parked, message.attempts, message.next_at = 0, 0, 0
        self.removed(slot.stream)

    def cancelled(self, slot: Slot) -> None:
        """A cancel came for what is being carried out, or waits to be asked about: if it is parked, it is answered."""
        if not slot.message.unknown and not slot.running and self.waiting.waits(slot.key):
            self.writer.submit(CancelledWork(self, slot))

    # What a try came to.

    def note_failure(self, stream: str, message: WaitingMessage, error: Exception) -> None:
        """Count a failed attempt: the message waits for its next one, or is parked."""
        policy, now = self.dispatch.service.retry_of(message.record.type), self.clock.now_us()
        failure = failure_of(error)
        message.attempts += 1
        message.error, message.where, message.fingerprint = failure.error, failure.where, failure.fingerprint
        message.unread = not known(self.dispatch, message)
        if message.attempts >= policy.attempts_max:
            message.parked, message.next_at = now, 0
        else:
            message.next_at = now + policy.delay_us(message.attempts, self.clock.random())
        extra = {
            "service": self.dispatch.service.name,
            "stream": stream,
            "message_id": message.id,
            "attempts": message.attempts,
            "fingerprint": message.fingerprint,
            "correlation_id": message.record.correlation or message.record.tx,
        }
        level = logging.ERROR if message.parked else logging.WARNING
        logger.log(
            level,
            "the handler of message %s failed on the stream %s of %s; %s",
            message.id,
            stream,
            extra["service"],
            "it is parked" if message.parked else "it waits for another try",
            extra=extra,
            exc_info=error,
        )

    def keep_failed(self, slot: Slot, error: Exception) -> None:
        """A handler failed outside the writer: store the failure and let the message wait with a new backoff. If a
        cancel came for the message, answer it `cancelled` instead."""
        if slot.message.cancel_came and not slot.message.unknown:
            self.writer.submit(CancelledWork(self, slot))
            return
        self.note_failure(slot.stream, slot.message, error)
        work = BatchWork(Batch(rows=(slot.row(),)))
        work.done.add_done_callback(lambda done: self.tried(slot.stream, later=done.exception() is not None))
        self.writer.submit(work)

    def decide(self, message: WaitingMessage) -> Decision:
        """Decide a waiting message whose streams are in memory. Raises what its handler raises."""
        if message.feed:
            if message.feed not in self.consumers:
                raise LookupError(f"{self.dispatch.service.name} has no {message.feed} any more")
            return self.consumers[message.feed](message)
        stream = stream_of(self.dispatch, message.producer, message.record)
        decision = Decision(envelope_at(message, self.clock.now_us()), self.streams)
        return deliver(self.dispatch, message.producer, message.record, stream, decision)

    # When what is tried.

    def trying(self, stream: str) -> bool:
        """True while a message waits on the stream, or is being tried."""
        return self.waiting.holds(stream) or stream in self._trying

    @property
    def streams_tried(self) -> list[str]:
        """The streams whose first message is being tried; its outcome may not be durable yet."""
        return sorted(self._trying)

    def _ready(self, stream: str) -> Slot | None:
        """The first message of a stream, if it may be tried: None while it is being tried or changed, is not durable,
        is parked, or is blocked by the transaction that holds the stream."""
        head = self.waiting.ready(stream)
        if head is None or stream in self._trying or head.blocked or head.message.parked:
            return None
        return head

    def _move_on(self, stream: str) -> None:
        """Try the first message at once if it has never failed, and otherwise when it is due."""
        head = self._ready(stream)
        if head is not None and not head.message.next_at:
            self._try(stream)
        else:
            self._schedule(stream)

    def _try_due(self, stream: str) -> None:
        """Try the first message at once if it is due, and otherwise when it is due."""
        head = self._ready(stream)
        if head is not None and head.message.next_at <= self.clock.now_us():
            self._try(stream)
        else:
            self._schedule(stream)

    def _schedule(self, stream: str) -> None:
        """Plan the next try of the first message of a stream for its due time."""
        head = self._ready(stream)
        if head is None or not self._going:
            self._next.pop(stream, None)
            return
        due = head.message.next_at
        if self._next.get(stream) != due:
            self._next[stream] = due
            heapq.heappush(self._due, (due, stream))
        self._arm()

    def _arm(self) -> None:
        """Set the timer for the first due time."""
        while self._due and self._next.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        if not self._due:
            self._disarm()
        elif self._timer is None or self._due[0][0] != self._timer_at:
            self._disarm()
            self._timer_at = self._due[0][0]
            delay = max(0.0, (self._timer_at - self.clock.now_us()) / 1e6)
            self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        now = self.clock.now_us()
        while self._due and self._due[0][0] <= now:
            due, stream = heapq.heappop(self._due)
            if self._next.get(stream) == due:
                del self._next[stream]
                self._try_due(stream)
        self._arm()

    def _try(self, stream: str) -> None:
        if not self._going:
            return
        self._next.pop(stream, None)
        self._trying.add(stream)
        name = stream.partition("/")[0]
        if name in self.dispatch.service.effects:
            self.attempt(stream)
        elif name in self.dispatch.service.handlers:
            self.writer.submit(HandlerRetry(self, stream))
        else:
            self.writer.submit(RetryWork(self, stream))

    def _give_turns(self, stream: str, before: int = 0) -> None:
        for work in self.turns.take(stream, before):
            self.writer.submit(work)


class RetryWork:
    """Another try at the first message that waits on a stream."""

    __slots__ = ("_decision", "_removed", "_retrier", "_stream", "streams")
    lane = ""

    def __init__(self, retrier: Retrier, stream: str) -> None:
        self._retrier, self._stream = retrier, stream
        self._decision: Decision | None = None
        self._removed: list[Removed] = []
        self.streams = (stream,) if retrier.dispatch.folds(stream) else ()

    def handle(self) -> Batch | None:
        """Decide the message; if it fails, keep it with a new backoff; if its stream is locked, let it wait."""
        retrier, stream = self._retrier, self._stream
        self._decision, self._removed = None, []
        slot = retrier.waiting.ready(stream)
        if slot is None:
            retrier.tried(stream)
            return None
        try:
            decision = retrier.decide(slot.message)
        except StreamLocked:
            slot.blocked = True
            retrier.tried(stream)
            return None
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, its message waits
            retrier.streams.forget([stream])
            retrier.note_failure(stream, slot.message, error)
            return Batch(rows=(slot.row(),))
        self._decision = decision
        self._removed = [(slot, retrier.waiting.remove(slot))]
        return decision.batch(rows=(slot.gone(),))

    def landed(self, position: int) -> None:
        """It is durable."""
        self._retrier.outcomes.landed(self._decision, position)
        self._retrier.tried(self._stream)

    def taken_back(self) -> None:
        """It waits as before."""
        self._retrier.restored(self._removed)
        self._removed = []
        if self._decision is not None:
            self._retrier.dispatch.stages.take_back(self._decision)

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; it is tried again."""
        self._retrier.tried(self._stream, later=True)


class HandlerRetry:
    """The first message that waits on a handler's stream, on its way through a transaction of the store."""

    __slots__ = ("_crashes", "_decision", "_retrier", "_slot", "_stream", "streams")
    key = ""
    lane = ""

    def __init__(self, retrier: Retrier, stream: str) -> None:
        self._retrier, self._stream = retrier, stream
        self._crashes = retrier.writer.crashes
        self._slot: Slot | None = None
        self._decision: Decision | None = None
        self.streams = (stream,)

    def handle(self) -> Batch | None:
        """Hand the message over to a transaction of the store."""
        self._retrier.handle(self._stream, self)
        return None

    def begin(self) -> tuple[Any, Envelope] | None:
        """The command that is first on the stream."""
        retrier = self._retrier
        slot = self._slot = retrier.waiting.ready(self._stream)
        if slot is None:
            retrier.tried(self._stream)
            return None
        slot.running = True
        return open_message(retrier.dispatch, slot.message, retrier.clock.now_us())

    def batch(self, decision: Decision) -> Batch:
        """The batch of the decision, which also removes the message from the waiting messages."""
        self._decision = decision
        return decision.batch(rows=(self._slot.gone(),) if self._slot is not None else ())

    def landed(self, position: int) -> None:
        """It is durable."""
        if self._slot is not None:
            self._retrier.waiting.remove(self._slot)
        self._retrier.outcomes.landed(self._decision, position)
        self._retrier.tried(self._stream)

    def taken_back(self) -> None:
        """It waits as before."""

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; it is tried again."""
        if self._slot is not None:
            self._slot.running = False
        if self._crashes != self._retrier.writer.crashes:
            return  # all waiting messages are read again from the store
        if self._slot is None or isinstance(error, Unavailable):
            self._retrier.tried(self._stream, later=True)
        else:
            self._retrier.keep_failed(self._slot, error)


class CancelledWork:
    """The answer `cancelled` to a command whose cancel came while it was carried out, and which did nothing."""

    __slots__ = ("_decision", "_removed", "_retrier", "_slot")
    lane = ""
    streams = ()

    def __init__(self, retrier: Retrier, slot: Slot) -> None:
        self._retrier, self._slot = retrier, slot
        self._decision: Decision | None = None
        self._removed: list[Removed] = []

    def handle(self) -> Batch | None:
        """Answer the command and remove it from the waiting messages."""
        retrier = self._retrier
        slot = retrier.waiting.slot(self._slot.key)
        if slot is None or not retrier.waiting.waits(slot.key):
            return None
        envelope = envelope_at(slot.message, retrier.clock.now_us())
        decision = self._decision = Decision(envelope, retrier.streams)
        answer_waiting(slot, CANCELLED, decision)
        self._removed = [(slot, retrier.waiting.remove(slot))]
        return decision.batch()

    def landed(self, position: int) -> None:
        """It is durable."""
        self._retrier.outcomes.landed(self._decision, position)
        self._retrier.tried(self._slot.stream)

    def taken_back(self) -> None:
        """It waits as before."""
        self._retrier.restored(self._removed)
        self._removed = []

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; it is tried again."""
        self._retrier.tried(self._slot.stream, later=True)
