"""Exchange: one ordered conversation each way with every other service, and one with itself.

Flushed records with a destination go to their conversation; what a service tells itself goes straight back to its
writer, under a cursor like any other. Comes after the writer, before a transport. What a peer acknowledged is kept, so
that a cursor that falls back later is known for what it is: a restored store (`Forked`).
"""

import asyncio
import logging

from holdfast.core.log.batch import Batch, Cursor, Row
from holdfast.core.log.name import exchange_cursor, peer_of
from holdfast.core.log.record import Record
from holdfast.core.wire.conversation import BACKOFF_LAST_SECONDS
from holdfast.core.wire.frame import Frame, check, to_wire
from holdfast.errors import HoldfastError, Misdirected, StoreError
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.ports.transport import Transport
from holdfast.runtime.exchange.conversation import AskingDriver
from holdfast.runtime.inbox.receive import Inbox
from holdfast.runtime.log.incarnations import Incarnations
from holdfast.runtime.log.work import BatchWork
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.tasks import Periodic, cancel_all

logger = logging.getLogger("holdfast.exchange")

ACK_SAVE_SECONDS = 1.0


class Exchange:
    """All conversations of one service, the one with itself included."""

    def __init__(
        self,
        name: str,
        peers: frozenset[str],
        store: Store,
        writer: Writer,
        inbox: Inbox,
        transport: Transport,
        clock: Clock,
        incarnations: Incarnations,
    ) -> None:
        self.name = name
        self.peers = peers
        self.store = store
        self.writer = writer
        self.inbox = inbox
        self.transport = transport
        self.clock = clock
        self.incarnations = incarnations
        self.conversations: dict[str, AskingDriver] = {}
        self._mine = Cursor()
        """The position up to which messages of this service to itself were handed to the writer."""
        self._own_broken: asyncio.Task[None] | None = None
        self._saving = Periodic(ACK_SAVE_SECONDS, lambda: bool(self._moved()), self._save_acks, service=name)

    async def start(self, talks_to: set[str]) -> None:
        """Continue every conversation, and the messages of this service to itself, from the cursors of the store."""
        cursors = await self.store.cursors()
        acked = await self.store.get("service", [f"acked:{peer}" for peer in sorted(self.peers)])
        for peer, found in zip(sorted(self.peers), acked, strict=True):
            durable = cursors.get(exchange_cursor(peer), Cursor())
            self.conversations[peer] = AskingDriver(self, peer, durable, int(found) if found else 0)
        known = {peer_of(name) for name in cursors} - {""}
        for peer in sorted(talks_to | known):
            if peer in self.conversations:
                self.conversations[peer].start()
        await self._read_own(cursors)
        self._saving.start()

    def _moved(self) -> dict[str, int]:
        """The positions that peers have acknowledged and that the store does not have yet."""
        states = [(peer, conversation.state) for peer, conversation in self.conversations.items()]
        return {peer: state.acked_upto for peer, state in states if state.acked_upto != state.saved_upto}

    async def _save_acks(self) -> None:
        """Store what peers have acknowledged: a lower cursor later shows a restored store."""
        moved = self._moved()
        work = BatchWork(
            Batch(rows=tuple(Row("service", f"acked:{peer}", b"%d" % acked) for peer, acked in moved.items()))
        )
        try:
            self.writer.submit(work)
            await work.done
            for peer, acked in moved.items():
                self.conversations[peer].state.saved_upto = acked
        except HoldfastError as error:
            logger.debug(
                "%s could not save what its peers acknowledged; it tries again: %s",
                self.name,
                error,
                extra={"service": self.name},
            )

    async def _read_own(self, cursors: dict[str, Cursor]) -> None:
        """Hand the messages of this service to itself that are not handled yet to the writer."""
        mine = cursors.get(exchange_cursor(self.name), Cursor())
        position, found = mine.position, list[Record]()
        while position < self.writer.head:  # what is flushed while this reads is not submitted, so it is read too
            page = await self.store.read(position, 1000, destination=self.name)
            found += page.records
            position = page.upto
        self._mine = mine
        self._own_broken = None
        for record in found:
            self._submit_own(record)

    async def close(self) -> None:
        """End all conversations."""
        await cancel_all((self._own_broken,), self.name)
        await self._saving.stop()
        await asyncio.gather(*(conversation.stop() for conversation in self.conversations.values()))

    async def reload(self, store: Store) -> None:
        """After a failed flush, go on by what the store says: what memory held for peers may lack records that are in
        the log after all, and what was received may not be."""
        cursors = await store.cursors()
        for peer, conversation in self.conversations.items():
            conversation.reread(cursors.get(exchange_cursor(peer), Cursor()))

    def reread_own(self) -> None:
        """Read the messages of this service to itself again when the writer takes work again."""
        if self._own_broken is not None:
            self._own_broken.cancel()
        self._own_broken = asyncio.get_running_loop().create_task(self._repair_own())

    def away(self, peer: str) -> bool:
        """True while a peer cannot be reached, and for a service that is no peer."""
        conversation = self.conversations.get(peer)
        return conversation is None or conversation.failure is not None

    def heard(self) -> bool:
        """True once every peer of a begun conversation has said what it has, or was found down."""
        return all(one.state.peer_heard or one.idle for one in self.conversations.values())

    def flushed(self, records: list[Record]) -> None:
        """Records are durable: those with a destination go on their way."""
        for record in records:
            to = record.destination
            if not to:
                continue
            if to == self.name:
                self._submit_own(record)
            elif (conversation := self.conversations.get(to)) is not None:
                conversation.append(record)
                if conversation.idle:
                    conversation.start()

    def _submit_own(self, record: Record) -> None:
        if self._own_broken is not None or record.position <= self._mine.position:
            return  # it is read from the store when the cursor is known again, or was
        before, self._mine = self._mine.position, Cursor(self.incarnations.at(record.position)[0].id, record.position)
        work = self.inbox.work_of(self.name, self._mine.incarnation, before, to_wire(record), self._own_ended)
        self.writer.submit(work)

    def _own_ended(self, error: Exception | None) -> None:
        if error is not None and self._own_broken is None:
            pause = BACKOFF_LAST_SECONDS * (0.1 + self.clock.random() / 5)
            self._own_broken = asyncio.get_running_loop().create_task(self._repair_own(pause))

    async def _repair_own(self, pause_seconds: float = 0.0) -> None:
        while True:
            await asyncio.sleep(pause_seconds)
            pause_seconds = BACKOFF_LAST_SECONDS * (0.1 + self.clock.random() / 5)
            try:
                return await self._read_own(await self.store.cursors())
            except StoreError as error:
                logger.warning(
                    "%s cannot read the messages that it sent to itself; it tries again: %s",
                    self.name,
                    error,
                    extra={"service": self.name},
                )

    async def serve(self, frame: Frame) -> Frame:
        """Answer a peer's frame. Raises ExchangeError, Unavailable."""
        conversation = self.conversations.get(frame.sender)
        if conversation is None or frame.receiver != self.name:
            check(frame, self.name, self.peers, frame.after)
            raise Misdirected(f"the frame comes from {frame.sender!r}, which is not a peer of {self.name!r}")
        return await conversation.serve(frame)
