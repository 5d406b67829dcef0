"""A conversation as a state machine: how far this log has come with one peer in both directions, and what to do next.

It takes each input (a frame, an answer, a failure, a durable cursor, an appended record) and says what to do next:
which span to frame, which records are new, which acknowledgement is owed. It works like TCP with piggy-backed
acknowledgements: requests and answers both carry data and an acknowledgement. A driver comes after it
(`runtime.exchange.conversation`) and has the tasks, the timers, the transport, the store and the writer. Two kinds of
drivers can drive it. A driver that sends requests reports each answer with `take_answer`. A driver with a one-way
transport reports every frame that it sends with `sent`, every frame that arrives with `take_request`, and a missing
acknowledgement with `failed`.

It refuses by name: Misdirected, Garbled and Gap (a frame that cannot be taken; nothing of it is applied), and Forked (a
cursor this log has never given out, or one that falls back: a restored store).
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from holdfast.core.log.batch import Cursor
from holdfast.core.log.record import Record
from holdfast.core.wire.frame import FRAME_BYTES_MAX, FRAME_RECORDS_MAX, Frame, WireRecord, check, to_wire
from holdfast.errors import Forked, Gap, HoldfastError, Misdirected, Unavailable, Unreachable

MEMORY_RECORDS_MAX = 10_000
"""How many records are kept in memory for a peer; further ones are read from the store when the peer is back."""
DOWN_TRIES = 3
"""A peer that starts later or restarts is worth a warning only after this number of failed tries."""
BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_LAST_SECONDS = 5.0
BACKOFF_GROWTH = 1.5
"""A process that dies is back within a second: a peer that waits for it should not sleep much longer."""


class OwnIncarnation(Protocol):
    """One opening of this log for writing: an incarnation."""

    @property
    def id(self) -> str:
        """The id by which frames name it."""
        ...

    @property
    def first(self) -> int:
        """The first position that it could give."""
        ...


class OwnLog(Protocol):
    """The incarnations of a log, as a conversation needs them: who wrote a position, and which cursors were given
    out."""

    @property
    def current(self) -> OwnIncarnation:
        """The incarnation that writes now."""
        ...

    def at(self, position: int) -> tuple[OwnIncarnation, int]:
        """The incarnation that wrote a position, and its last position (0: it still writes)."""
        ...

    def check(self, cursor: Cursor, head: int, who: str) -> None:
        """Raise Forked unless this log has given out the cursor."""
        ...


class Conversation:
    """How far this log and one peer's log have come with each other."""

    __slots__ = (
        "ack_sent_upto",
        "acked_upto",
        "begun",
        "covered_upto",
        "durable",
        "failure",
        "failures",
        "forgiven",
        "halted",
        "held_upto",
        "incarnations",
        "me",
        "memory",
        "memory_after",
        "peer",
        "peer_head",
        "peer_heard",
        "peers",
        "probing",
        "received_upto",
        "saved_upto",
        "sent_upto",
        "taken_upto",
    )

    def __init__(
        self,
        me: str,
        peer: str,
        peers: frozenset[str],
        incarnations: OwnLog,
        *,
        durable: Cursor,
        acked_upto: int,
        head: int,
    ) -> None:
        self.me = me
        self.peer = peer
        self.peers = peers
        self.incarnations = incarnations
        self.begun = False
        """True once anything has been said to this peer."""

        # The records of this log for the peer: acked_upto <= held_upto <= head.
        self.acked_upto = acked_upto
        """The peer's durable cursor in this log."""
        self.saved_upto = acked_upto
        """The part of `acked_upto` that this service's own store knows."""
        self.held_upto = acked_upto
        """The peer holds the records up to here, durable or on the way to be."""
        self.sent_upto = acked_upto
        """Records up to here went out in frames whose arrival is not confirmed."""
        self.memory: deque[WireRecord] = deque()
        """All flushed records for the peer after `memory_after` that it has not acknowledged."""
        self.memory_after = head

        # The records of the peer's log for this one: durable.position <= received_upto <= peer_head.
        self.durable = durable
        """This service's durable cursor in the peer's log: the acknowledgement in every frame."""
        self.received_upto = durable.position
        """Records up to here were handed to the writer."""
        self.covered_upto = 0
        """All records of the peer for this service up to here were handed to the writer; there may be none."""
        self.taken_upto = 0
        """All records of the peer for this service up to here are durable."""
        self.peer_head = 0
        """The highest position of the peer's log that is known."""
        self.ack_sent_upto = durable.position
        """The peer was told that records up to here are durable."""
        self.peer_heard = False
        """True once the peer has sent all its records, or was found down, since this service started."""

        self.failure: HoldfastError | None = None
        self.failures = 0
        self.halted = False
        """True while the conversation is halted by Forked, until a repair."""
        self.forgiven = False
        """True after an operator said that the peer's store was restored: the next cursor of the peer is accepted as it
        is."""
        self.probing = False
        """True if the next frame carries no records and asks for the peer's position."""

    # The next frame to send.

    def append(self, record: Record) -> None:
        """Take a flushed record for this peer."""
        if len(self.memory) >= MEMORY_RECORDS_MAX:
            self.memory.clear()
            self.memory_after = record.position
        else:
            self.memory.append(to_wire(record))

    @property
    def owed(self) -> int:
        """How many records the peer has not acknowledged, as far as memory goes; all earlier records count as one,
        until the peer has said which of them it holds."""
        return len(self.memory) + (self.acked_upto < self.memory_after and not self.memory and self.begun)

    @property
    def drained(self) -> bool:
        """True if the peer has acknowledged all records in memory for it."""
        return not self.memory and self.acked_upto >= self.memory_after

    @property
    def unsent(self) -> bool:
        """True while memory has records that have not gone out."""
        return bool(self.memory) and self.memory[-1].position > max(self.held_upto, self.sent_upto)

    @property
    def unread(self) -> bool:
        """True while the store may have records that the peer does not hold."""
        return self.held_upto < self.memory_after

    @property
    def owes_ack(self) -> bool:
        """True while records are durable and the peer has not been told."""
        return self.durable.position > self.ack_sent_upto

    @property
    def next_after(self) -> int:
        """The position after which the next request begins."""
        return max(self.held_upto, self.acked_upto)

    def probe(self) -> Frame:
        """A frame without records that fits any receiver: its answer says how far the peer has come."""
        current = self.incarnations.current
        return Frame(self.me, self.peer, current.id, current.first, 0, 0, self.durable, self.received_upto)

    def remembers(self, after: int) -> bool:
        """True when memory has all records for the peer after a position; otherwise the store is read."""
        return after >= self.memory_after

    def remembered(self, after: int, head: int) -> tuple[tuple[WireRecord, ...], int]:
        """The next records after a position that memory reaches back to, and how far the search went."""
        records = tuple([record for record in self.memory if record.position > after]) if self.memory else ()
        if not records:
            return (), head
        if len(records) > FRAME_RECORDS_MAX:
            records = records[:FRAME_RECORDS_MAX]
            return bounded(records, records[-1].position)
        return bounded(records, max(head, records[-1].position))

    def read(self, after: int, records: Sequence[Record], upto: int, head: int) -> tuple[tuple[WireRecord, ...], int]:
        """The next records after a position, from a page of the store that was read up to `upto`."""
        if records or upto < head:
            return bounded(tuple([to_wire(record) for record in records]), upto)
        self.memory_after = min(self.memory_after, after)  # there is no gap: memory serves from here on
        return self.remembered(after, head)

    def frame(self, after: int, since: int, records: tuple[WireRecord, ...], upto: int, ack: Cursor) -> Frame | None:
        """The frame with the records found after `since`, for a peer that holds all records up to `after`.

        Its records are of one incarnation. None if the rest of the incarnation after `since` has no records for the
        peer and a later incarnation may have some: then the search goes on at `end_of(since)`.
        """
        incarnation, last = self.incarnations.at(since + 1)
        if last and upto > last:
            records = tuple([record for record in records if record.position <= last])
            upto = last
            if not records:
                return None
        return Frame(
            self.me,
            self.peer,
            incarnation.id,
            incarnation.first,
            after,
            max(after, upto),
            ack,
            self.received_upto,
            records,
        )

    def end_of(self, since: int) -> int:
        """The last position of the incarnation that a search after `since` is in."""
        return self.incarnations.at(since + 1)[1]

    def sent(self, frame: Frame) -> None:
        """Note that a frame went out whose arrival is not confirmed: an answer, or any frame of a one-way transport."""
        if frame.records:
            self.sent_upto = max(self.sent_upto, frame.upto)
        self.ack_sent_upto = frame.ack.position

    def resend(self) -> None:
        """Send again, after a time-out, all records that went out and are not confirmed."""
        self.sent_upto = self.held_upto

    # The acknowledgements of the peer.

    def take_request(self, frame: Frame, head: int) -> None:
        """Take the acknowledgement of a frame that may be old, or come twice. Raises Forked."""
        self.incarnations.check(frame.ack, head, self.peer)
        self._acknowledged(frame.ack.position)
        if frame.have > self.held_upto:
            self.held_upto = max(frame.have, self.acked_upto)

    def take_answer(self, request: Frame, answer: Frame, acked_before: int, head: int) -> None:
        """Take the acknowledgement of the answer to a request, which is newer than the request.

        `acked_before`: what was acknowledged when the request was made. Raises Misdirected, Forked.
        """
        if answer.sender != self.peer:
            raise Misdirected(
                f"{self.me} asked {self.peer!r}, but {answer.sender!r} answered; check the URLs of the services"
            )
        self.probing = False
        self.ack_sent_upto = max(self.ack_sent_upto, request.ack.position)
        ack = answer.ack
        self.incarnations.check(ack, head, self.peer)
        if self.forgiven:
            self.forgiven = False
            self.acked_upto = ack.position
            self.memory_after = head
            self.memory.clear()
        elif ack.position < acked_before:
            raise Forked(
                f"{self.peer} had received up to {acked_before} and now says {ack.position}: its store was restored"
            )
        self._acknowledged(ack.position)
        self.held_upto = max(answer.have, self.acked_upto)

    def _acknowledged(self, position: int) -> None:
        if position > self.acked_upto:
            self.acked_upto = position
            memory = self.memory
            while memory and memory[0].position <= position:
                memory.popleft()

    def forgive(self) -> None:
        """Accept the next cursor of the peer, because an operator has said that the peer's store was restored."""
        self.forgiven = True
        self.probing = True

    # The records of the peer's log for this one.

    @property
    def behind(self) -> int:
        """Positions of the peer's log that are not taken yet."""
        return max(0, self.peer_head - self.taken_upto)

    def accept(self, frame: Frame) -> tuple[WireRecord, ...]:
        """The records of a frame that are new here, in order. Raises Misdirected, Garbled, Gap."""
        if frame.incarnation != self.durable.incarnation and frame.first <= self.received_upto:
            check(frame, self.me, self.peers, frame.after)
            self.peer_head = max(self.peer_head, frame.upto)
            return ()  # an older part sent again, or a fork: our ack tells the sender, which knows its own incarnations
        records = check(frame, self.me, self.peers, self.received_upto)
        self.peer_head = max(self.peer_head, frame.upto)
        if not records:
            self._covered(frame.upto)
        return records

    def handed_over(self, position: int, upto: int) -> None:
        """Note that the writer has the records of a frame up to `upto`, the last one at `position`; it will say when
        they are durable."""
        self.received_upto = position
        self._covered(upto)

    def landed(self, cursor: Cursor) -> None:
        """Note that the records that were handed over are durable, and the cursor too."""
        self.durable = cursor
        self._covered(self.covered_upto)

    def _covered(self, upto: int) -> None:
        self.covered_upto = max(self.covered_upto, upto)
        if self.durable.position == self.received_upto:
            self.taken_upto = self.covered_upto

    def not_landed(self, cursor: Cursor) -> None:
        """Go back to the cursor that the store holds: the records that were handed over may not be durable."""
        self.durable = cursor
        self.received_upto = cursor.position
        self.covered_upto = self.taken_upto

    def peer_is_done(self, answer: Frame) -> None:
        """Take an answer without records: the peer has no more records for this service up to the end of the frame.

        This does not hold if the frame begins after the records held here: then records that this service had
        reported as held did not become durable.
        """
        self.peer_head = max(self.peer_head, answer.upto)
        if answer.after <= self.received_upto:
            self._covered(answer.upto)
            self.peer_heard = True

    # Failures.

    def succeeded(self) -> None:
        """Note that a request was answered."""
        self.failure = None
        self.failures = 0
        self.halted = False

    def failed(self, error: HoldfastError) -> bool:
        """Note that a request failed: records are sent again from the peer's last acknowledgement.

        True if it is worth a warning: the kind of failure is new, or the peer stays down.
        """
        if isinstance(error, Unavailable | Unreachable):
            warn = self.failures == DOWN_TRIES
        else:
            warn = type(self.failure) is not type(error)
        self.failure = error
        self.failures += 1
        self.halted = isinstance(error, Forked)
        self.probing = self.probing or isinstance(error, Gap)
        self.held_upto = self.acked_upto
        self.sent_upto = self.acked_upto
        return warn

    @property
    def backoff_seconds(self) -> float:
        """How long to wait before the next try, without jitter."""
        return min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * BACKOFF_GROWTH ** min(self.failures, 20))

    def reread(self, cursor: Cursor, head: int) -> None:
        """Start again from the store's cursor and send what the peer has not acknowledged; memory serves from the head
        on."""
        self.not_landed(cursor)
        self.memory.clear()
        self.memory_after = head
        self.held_upto = self.acked_upto
        self.sent_upto = self.acked_upto


def bounded(records: tuple[WireRecord, ...], upto: int) -> tuple[tuple[WireRecord, ...], int]:
    """As many of the records as fit a frame, at least one, and how far they go."""
    size = 0
    for number, record in enumerate(records):
        size += len(bytes(record.data))
        if number and size > FRAME_BYTES_MAX:
            return records[:number], records[number - 1].position
    return records, upto
