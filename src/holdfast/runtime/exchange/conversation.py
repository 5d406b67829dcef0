"""A conversation: what is said between this service and one other, both ways.

Says flushed records in frames and takes the peer's, like TCP with piggy-backed acks: requests and answers both carry
data and acknowledgement. Live frames come from memory, catching up from the store. `runtime.exchange.exchange` owns all
of them; a transport comes after. A cursor this log has never given out halts this one conversation with `Forked`; every
other failure is tried again with backoff.
"""

import asyncio
import logging
from collections import deque
from typing import Protocol

from holdfast.core.log.batch import Cursor
from holdfast.core.log.name import exchange_cursor
from holdfast.core.log.record import Record
from holdfast.core.wire.frame import FRAME_BYTES_MAX, FRAME_RECORDS_MAX, Frame, WireRecord, check, to_wire
from holdfast.errors import (
    CommandError,
    ExchangeError,
    Forked,
    Gap,
    HoldfastError,
    Misdirected,
    StoreError,
    Unavailable,
    Unreachable,
)
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.ports.transport import Transport
from holdfast.runtime.inbox.receive import Inbox
from holdfast.runtime.log.incarnations import Incarnations
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.tasks import cancel_all

logger = logging.getLogger("holdfast.exchange")

ACK_DELAY_SECONDS = 0.02
DOWN_TRIES = 3
"""A peer that starts later, or again, is not worth a warning before it has missed so many tries."""
RESEND_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0
BACKOFF_FIRST_SECONDS, BACKOFF_LAST_SECONDS, BACKOFF_GROWTH = 0.05, 5.0, 1.5
"""A process that dies is back within a second: whoever waits for it should not sleep much longer than it was away."""
LIVE_RECORDS_MAX = 10_000
"""Records kept in memory for a peer; past it they are read from the store when the peer is back."""


class Party(Protocol):
    """What a conversation needs of the service it speaks for."""

    name: str
    peers: frozenset[str]
    store: Store
    writer: Writer
    inbox: Inbox
    transport: Transport
    clock: Clock
    history: Incarnations


class _Landing(asyncio.Future[None]):
    """That a frame's records are durable. Who waits for it and is cancelled goes when it has come, since only then
    is it known where the conversation stands; at once where it is cancelled again, as nobody may be held for ever."""

    _left = False

    def ended(self, error: Exception | None) -> None:
        """The last of them is durable, or is not."""
        if self.done():
            return
        if error is None:
            self.set_result(None)
        else:
            self.set_exception(error)

    def cancel(self, msg: object = None) -> bool:
        """The first time not: its waiter is cancelled when this has come."""
        if self._left:
            return super().cancel(msg)
        self._left = True
        return False


class Conversation:
    """What is said between this service and one other, both ways."""

    def __init__(self, exchange: Party, peer: str, cursor: Cursor, acked: int) -> None:
        self.exchange, self.peer, self.cursor = exchange, peer, cursor
        self.received = cursor.position
        """Handed to the writer; `cursor` is what is durable of it."""
        self.acked = acked
        self.have = acked
        self.shown = acked
        self.failure: HoldfastError | None = None
        self.failures = 0
        self.halted = False
        self.peer_head = 0
        self.seen = 0
        """Up to here all that the peer has for this service is taken, durably."""
        self._live: deque[WireRecord] = deque()
        self._floor = exchange.writer.head
        self._acked_sent = cursor.position
        self._serving = 0
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._receiving: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._heart: asyncio.TimerHandle | None = None
        self._said = True
        """Since the last beat."""
        self._forgiven = False
        self._asks = False
        """The next frame says nothing and asks where the peer stands."""
        self.heard = False
        """True once the peer has said all that it has, or was found down, since this service started."""
        self.saved = acked
        """What of `acked` the store knows."""

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._wake.set()

    async def stop(self) -> None:
        """Send no more."""
        for handle in (self._alarm, self._heart):
            if handle is not None:
                handle.cancel()
        await cancel_all((self._task, self._receiving))

    def add(self, record: Record) -> None:
        """A flushed record for this peer."""
        if len(self._live) >= LIVE_RECORDS_MAX:
            self._live.clear()
            self._floor = record.position
        else:
            self._live.append(to_wire(record))
        if not self._serving:
            self._wake.set()

    def reread(self, cursor: Cursor) -> None:
        """Stand where the store says, and say what the peer has not acknowledged from there; memory serves from the
        head on."""
        self.cursor, self.received = cursor, cursor.position
        self._live.clear()
        self._floor = self.exchange.writer.head
        self.have = self.shown = self.acked
        if self.idle:
            self.start()
        self._wake.set()

    @property
    def idle(self) -> bool:
        """True while nothing has ever been said to this peer."""
        return self._task is None

    @property
    def owed(self) -> int:
        """Records for the peer that it has not acknowledged, as far as memory goes; what lies before that counts as
        one, until the peer has said what it knows of it."""
        return len(self._live) + (self.acked < self._floor and not self._live and not self.idle)

    @property
    def drained(self) -> bool:
        """True when the peer has acknowledged all that is in memory for it."""
        return not self._live and self.acked >= self._floor

    def acknowledged(self, ack: Cursor, have: int, *, seen: int | None) -> None:
        """Take the peer's cursor in this log. `seen`: what it had acknowledged before the request that this answers."""
        history, head = self.exchange.history, self.exchange.writer.head
        history.check(ack, head, self.peer)
        if seen is not None and self._forgiven:
            self._forgiven, self.acked, self._floor = False, ack.position, head
            self._live.clear()
        elif seen is not None and ack.position < seen:
            raise Forked(f"{self.peer} had received up to {seen} and says {ack.position} now: its store was restored")
        if ack.position > self.acked:
            self.acked = ack.position
            while self._live and self._live[0].position <= self.acked:
                self._live.popleft()
        if seen is not None or have > self.have:
            self.have = max(have, self.acked)

    def forgive(self) -> None:
        """The peer's store was restored, and somebody has said that this is known: its next cursor is believed."""
        self._forgiven = self._asks = True
        self._wake.set()

    async def receive(self, frame: Frame) -> None:
        """Take a frame's records; returns when all of them are durable. Raises ExchangeError, Unavailable."""
        async with self._lock:
            exchange = self.exchange
            self.peer_head = max(self.peer_head, frame.upto)
            if frame.incarnation != self.cursor.incarnation and frame.first <= self.received:
                check(frame, exchange.name, exchange.peers, frame.after)
                return  # an older part said again, or a fork: our ack tells the sender, who knows its own history
            records = check(frame, exchange.name, exchange.peers, self.received)
            if not records:
                self.seen = max(self.seen, frame.upto)
                return
            landing = _Landing()
            before, last = self.received, records[-1]
            for record in records:
                ended = landing.ended if record is last else None
                exchange.writer.submit(exchange.inbox.work_of(self.peer, frame.incarnation, before, record, ended))
                before = record.position
            self.received = before
            try:
                await landing
            except BaseException:
                await self._reread()
                raise
            self.cursor = Cursor(frame.incarnation, before)
            self.seen = max(self.seen, frame.upto)

    async def _reread(self) -> None:
        try:
            cursors = await self.exchange.store.cursors()
        except StoreError as error:
            logger.warning("cursors could not be read: %s", error)
            return
        self.cursor = cursors.get(exchange_cursor(self.peer), Cursor())
        self.received = self.cursor.position

    async def serve(self, frame: Frame) -> Frame:
        """Answer a frame that the peer sent."""
        self.acknowledged(frame.ack, frame.have, seen=None)
        self._serving += 1
        try:
            await self.receive(frame)
            answer = await self.build(max(self.have, frame.have))
        finally:
            self._serving -= 1
        if answer.records:
            self.shown = max(self.shown, answer.upto)
            self._ring(RESEND_SECONDS)
        self._acked_sent = answer.ack.position
        if self._live and self._live[-1].position > max(self.have, self.shown):
            self._wake.set()
        return answer

    async def build(self, after: int) -> Frame:
        """The frame that says all that comes after a position, and what has been received.

        Its records are of one incarnation; where the log went on in a later one with nothing to say before, that one.
        """
        exchange = self.exchange
        head, ack, since = exchange.writer.head, self.cursor, after
        while True:
            incarnation, end = exchange.history.at(since + 1)
            records, upto = await self._records(since, head)
            if end and upto > end:
                records, upto = tuple(record for record in records if record.position <= end), end
                if not records:
                    since = end
                    continue
            return Frame(
                exchange.name,
                self.peer,
                incarnation.id,
                incarnation.first,
                after,
                max(after, upto),
                ack,
                self.received,
                records,
            )

    def _probe(self) -> Frame:
        """A frame without records that fits any receiver: its answer says how far the peer has come."""
        exchange, current = self.exchange, self.exchange.history.current
        return Frame(exchange.name, self.peer, current.id, current.first, 0, 0, self.cursor, self.received)

    async def _records(self, after: int, head: int) -> tuple[tuple[WireRecord, ...], int]:
        """What comes next for this peer, and how far the search went; from memory while the peer keeps up."""
        if after < self._floor:
            page = await self.exchange.store.read(after, FRAME_RECORDS_MAX, destination=self.peer, upto=head)
            if page.records or page.upto < head:
                return _bounded(tuple(to_wire(record) for record in page.records), page.upto)
            self._floor = min(self._floor, after)  # nothing in between: memory serves from here on
        records = tuple([record for record in self._live if record.position > after]) if self._live else ()
        if not records:
            return (), head
        if len(records) > FRAME_RECORDS_MAX:
            records = records[:FRAME_RECORDS_MAX]
            return _bounded(records, records[-1].position)
        return _bounded(records, max(head, records[-1].position))

    async def _run(self) -> None:
        self._beat()
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._said = True
            try:
                await self._say()
                self.failure, self.failures, self.halted = None, 0, False
            except (ExchangeError, CommandError, StoreError) as error:
                self.heard = True
                await self._fail(error)
                self._wake.set()
            except Exception as error:
                logger.exception("exchange with %s failed in a way nobody foresaw", self.peer)
                self.heard = True
                await self._fail(ExchangeError(f"{type(error).__name__}: {error}"))
                self._wake.set()

    def _beat(self) -> None:
        """Every so often, where nothing was said in between, something is."""
        if not self._said:
            self._wake.set()
        self._said = False
        seconds = HEARTBEAT_SECONDS * (0.75 + self.exchange.clock.random() / 2)
        self._heart = asyncio.get_running_loop().call_later(seconds, self._beat)

    async def _say(self) -> None:
        seen = self.acked
        frame = self._probe() if self._asks else await self.build(max(self.have, self.acked))
        answer = await self.exchange.transport.exchange(self.peer, frame)
        if answer.sender != self.peer:
            raise Misdirected(f"asked {self.peer!r}, {answer.sender!r} answered")
        self._asks = False
        self._acked_sent = max(self._acked_sent, frame.ack.position)
        self.acknowledged(answer.ack, answer.have, seen=seen)
        if self._receiving is not None:
            await self._receiving
            self._receiving = None
        if answer.records:
            self._receiving = asyncio.get_running_loop().create_task(self._receive_answer(answer))
            self._receiving.add_done_callback(lambda done: done.cancelled() or done.exception())
        else:
            self.peer_head = max(self.peer_head, answer.upto)
            self.seen = max(self.seen, answer.upto)
            self.heard = True
        self._next()

    def _next(self) -> None:
        """What there is to do: more to say now, or an alarm for an ack that is owed or a resend."""
        if (self._live and self._live[-1].position > max(self.have, self.shown)) or self.have < self._floor:
            self._wake.set()
        elif self._live:
            self._ring(RESEND_SECONDS)
        if self.cursor.position > self._acked_sent:
            self._ring(ACK_DELAY_SECONDS)

    async def _receive_answer(self, answer: Frame) -> None:
        await self.receive(answer)
        self._next()

    def _ring(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._alarm is not None and not self._alarm.cancelled() and loop.time() < self._alarm.when() <= when:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_at(when, self._rung)

    def _rung(self) -> None:
        self._alarm = None
        self.shown = self.have
        self._wake.set()

    async def _fail(self, error: HoldfastError) -> None:
        if (
            self.failures == DOWN_TRIES
            if isinstance(error, Unavailable | Unreachable)
            else type(self.failure) is not type(error)
        ):
            logger.warning("exchange with %s: %s", self.peer, error, extra={"peer": self.peer})
        self.failure = error
        self.halted = isinstance(error, Forked)
        self._asks = self._asks or isinstance(error, Gap)
        self.failures += 1
        self._receiving = None
        self.have, self.shown = self.acked, self.acked
        delay = min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * BACKOFF_GROWTH ** min(self.failures, 20))
        await asyncio.sleep(delay * (0.5 + self.exchange.clock.random()))


def _bounded(records: tuple[WireRecord, ...], upto: int) -> tuple[tuple[WireRecord, ...], int]:
    """As many of the records as fit a frame, one at the least, and how far they go."""
    size = 0
    for number, record in enumerate(records):
        size += len(bytes(record.data))
        if number and size > FRAME_BYTES_MAX:
            return records[:number], records[number - 1].position
    return records, upto
