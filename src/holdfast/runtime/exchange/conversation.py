"""The driver of a conversation: it asks one peer, over a transport that brings an answer back, and answers it.

`core.wire.conversation` decides; this driver does the I/O for it: a task that asks, timers, the transport, the store to
catch up from, and the writer that takes the received records. `runtime.exchange.exchange` owns all drivers; a transport
comes next. A cursor that this log has never given out halts this one conversation with `Forked`; every other failure is
logged and tried again with backoff.
"""

import asyncio
import logging
from typing import Protocol

from holdfast.core.log.batch import Cursor
from holdfast.core.log.name import exchange_cursor
from holdfast.core.log.record import Record
from holdfast.core.wire.conversation import Conversation
from holdfast.core.wire.frame import FRAME_RECORDS_MAX, Frame
from holdfast.errors import CommandError, ExchangeError, HoldfastError, StoreError
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.ports.transport import Transport
from holdfast.runtime.inbox.receive import Inbox
from holdfast.runtime.log.incarnations import Incarnations
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.tasks import cancel_all

logger = logging.getLogger("holdfast.exchange")

ACK_DELAY_SECONDS = 0.02
RESEND_SECONDS = 1.0
HEARTBEAT_SECONDS = 10.0


class Party(Protocol):
    """The parts of a service that its conversations need."""

    name: str
    peers: frozenset[str]
    store: Store
    writer: Writer
    inbox: Inbox
    transport: Transport
    clock: Clock
    incarnations: Incarnations


class _Landing(asyncio.Future[None]):
    """Done when the records of a frame are durable.

    The first cancellation of a waiter is deferred until then, since only then is the cursor known; a second one is
    immediate, since no caller may wait for ever.
    """

    _cancelled_once = False

    def ended(self, error: Exception | None) -> None:
        """Take the result: the last record is durable (None), or it is not."""
        if self.done():
            return
        if error is None:
            self.set_result(None)
        else:
            self.set_exception(error)

    def cancel(self, msg: object = None) -> bool:
        """Defer the first cancellation until this future is done; obey the second one at once."""
        if self._cancelled_once:
            return super().cancel(msg)
        self._cancelled_once = True
        return False


class AskingDriver:
    """One conversation over a transport that asks and is answered."""

    def __init__(self, party: Party, peer: str, durable: Cursor, acked_upto: int) -> None:
        self.party = party
        self.peer = peer
        self.state = Conversation(
            party.name,
            peer,
            party.peers,
            party.incarnations,
            durable=durable,
            acked_upto=acked_upto,
            head=party.writer.head,
        )
        self._serving = 0
        """Requests of the peer that are being answered: what is appended meanwhile goes with the answer."""
        self._lock = asyncio.Lock()
        """One frame at a time is handed to the writer."""
        self._wake = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._asked_since_beat = True

    @property
    def failure(self) -> HoldfastError | None:
        """Why the last request failed; None when it was answered."""
        return self.state.failure

    @property
    def idle(self) -> bool:
        """True while nothing has ever been said to this peer."""
        return not self.state.begun

    def start(self) -> None:
        """Begin to ask."""
        self.state.begun = True
        self._asking = asyncio.get_running_loop().create_task(self._ask_for_ever())
        self._wake.set()

    async def stop(self) -> None:
        """Stop asking."""
        for handle in (self._alarm, self._heartbeat):
            if handle is not None:
                handle.cancel()
        await cancel_all((self._asking, self._receiving), self.party.name)

    def append(self, record: Record) -> None:
        """A flushed record for this peer."""
        self.state.append(record)
        if not self._serving:
            self._wake.set()

    def reread(self, durable: Cursor) -> None:
        """Go on from the cursor of the store after a failed flush."""
        self.state.reread(durable, self.party.writer.head)
        if self.idle:
            self.start()
        self._wake.set()

    def forgive(self) -> None:
        """The peer's store was restored, and an operator has said that this is known: its next cursor is believed."""
        self.state.forgive()
        self._wake.set()

    async def receive(self, frame: Frame) -> None:
        """Take a frame's records; returns when all of them are durable. Raises ExchangeError, Unavailable."""
        async with self._lock:
            state = self.state
            records = state.accept(frame)
            if not records:
                return
            writer, inbox = self.party.writer, self.party.inbox
            landing = _Landing()
            before = state.received_upto
            last = records[-1]
            for record in records:
                ended = landing.ended if record is last else None
                writer.submit(inbox.work_of(self.peer, frame.incarnation, before, record, ended))
                before = record.position
            state.handed_over(before, frame.upto)
            try:
                await landing
            except BaseException:
                await self._reread_received()
                raise
            state.landed(Cursor(frame.incarnation, before))

    async def _reread_received(self) -> None:
        try:
            cursors = await self.party.store.cursors()
        except StoreError as error:
            logger.warning(
                "%s could not read from its store how far it has received from %s: %s",
                self.party.name,
                self.peer,
                error,
                extra={"service": self.party.name, "peer": self.peer},
            )
            return
        self.state.not_landed(cursors.get(exchange_cursor(self.peer), Cursor()))

    async def serve(self, frame: Frame) -> Frame:
        """Answer a frame that the peer sent. Raises ExchangeError, Unavailable."""
        state = self.state
        state.take_request(frame, self.party.writer.head)
        self._serving += 1
        try:
            await self.receive(frame)
            answer = await self._make_frame(max(state.held_upto, frame.have))
        finally:
            self._serving -= 1
        state.sent(answer)
        if answer.records:
            self._ring(RESEND_SECONDS)
        if state.unsent:
            self._wake.set()
        return answer

    async def _make_frame(self, after: int) -> Frame:
        """The frame that says what comes after a position, and what has been received: from memory while the peer keeps
        up, otherwise from the store."""
        state, head = self.state, self.party.writer.head
        ack, since = state.durable, after
        while True:
            if state.remembers(since):
                records, upto = state.remembered(since, head)
            else:
                page = await self.party.store.read(since, FRAME_RECORDS_MAX, destination=self.peer, upto=head)
                records, upto = state.read(since, page.records, page.upto, head)
            frame = state.frame(after, since, records, upto, ack)
            if frame is not None:
                return frame
            since = state.end_of(since)

    async def _ask_for_ever(self) -> None:
        self._beat()
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._asked_since_beat = True
            try:
                await self._ask()
                self.state.succeeded()
            except (ExchangeError, CommandError, StoreError) as error:
                await self._pause(error)
            except Exception as error:
                logger.exception(
                    "unexpected error in the exchange of %s with %s; it tries again",
                    self.party.name,
                    self.peer,
                    extra={"service": self.party.name, "peer": self.peer},
                )
                await self._pause(ExchangeError(f"{type(error).__name__}: {error}"))

    async def _ask(self) -> None:
        state = self.state
        acked_before = state.acked_upto
        request = state.probe() if state.probing else await self._make_frame(state.next_after)
        answer = await self.party.transport.exchange(self.peer, request)
        state.take_answer(request, answer, acked_before, self.party.writer.head)
        if self._receiving is not None:
            await self._receiving
            self._receiving = None
        if answer.records:
            self._receiving = asyncio.get_running_loop().create_task(self._receive_answer(answer))
            self._receiving.add_done_callback(lambda done: done.cancelled() or done.exception())
        else:
            state.peer_is_done(answer)
        self._go_on()

    async def _receive_answer(self, answer: Frame) -> None:
        await self.receive(answer)
        self._go_on()

    def _go_on(self) -> None:
        """Ask again now if there is more to say; otherwise later, if something is sent again or acknowledged."""
        state = self.state
        if state.unsent or state.unread:
            self._wake.set()
        elif state.memory:
            self._ring(RESEND_SECONDS)
        if state.owes_ack:
            self._ring(ACK_DELAY_SECONDS)

    def _ring(self, seconds: float) -> None:
        """Set the alarm, unless it rings earlier already."""
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if self._alarm is not None and not self._alarm.cancelled() and loop.time() < self._alarm.when() <= when:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = loop.call_at(when, self._rung)

    def _rung(self) -> None:
        self._alarm = None
        self.state.resend()
        self._wake.set()

    def _beat(self) -> None:
        """Ask the peer at regular times if nothing was asked since the last time."""
        if not self._asked_since_beat:
            self._wake.set()
        self._asked_since_beat = False
        seconds = HEARTBEAT_SECONDS * (0.75 + self.party.clock.random() / 2)
        self._heartbeat = asyncio.get_running_loop().call_later(seconds, self._beat)

    async def _pause(self, error: HoldfastError) -> None:
        """Wait with backoff after a failed request, then ask again."""
        state = self.state
        state.peer_heard = True
        if state.failed(error):
            logger.warning(
                "the exchange of %s with %s fails; it tries again: %s",
                self.party.name,
                self.peer,
                error,
                extra={"service": self.party.name, "peer": self.peer},
            )
        self._receiving = None
        await asyncio.sleep(state.backoff_seconds * (0.5 + self.party.clock.random()))
        self._wake.set()
