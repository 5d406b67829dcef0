"""Receiving: each message is decided, or set aside on its stream, in the commit that moves the cursor.

A message whose handler fails (a bug, a payload that does not decode) is set aside. It blocks only its own stream; the
conversation continues. A cancel always comes after the command that it names, and there are four cases. If the command
waits undecided, it is answered `cancelled`. If it has begun a saga, the saga turns back unless it is past its pivot. If
it is being carried out, it is not tried again should it fail with nothing done. If it is decided, the cancel does
nothing, since the answer is on its way. Exchange comes before it, the writer after it. No message is dropped here; a
work fails with `StoreError` if its cursor has moved.
"""

import logging
from collections.abc import Callable, Sequence

import msgspec

from holdfast.core.declare.message import Rejection
from holdfast.core.log.batch import Batch, Cursor, Move
from holdfast.core.log.name import exchange_cursor
from holdfast.core.log.record import CANCEL_COMMAND, record_id
from holdfast.core.saga.stage import CANCEL, CONFIRM, DIED, gives_way, read
from holdfast.core.wire.frame import WireRecord
from holdfast.errors import Rejected, StoreError
from holdfast.runtime.decide.decision import Decision
from holdfast.runtime.decide.locks import StreamLocked
from holdfast.runtime.decide.saga_records import Target
from holdfast.runtime.inbox.deliver import answer_waiting, deliver, envelope_of, stage_told, stream_of
from holdfast.runtime.inbox.message import Slot, WaitingMessage
from holdfast.runtime.inbox.retry import CANCELLED, Retrier
from holdfast.runtime.inbox.stage_end import end_stage, end_stage_again
from holdfast.runtime.inbox.waiting import Removed

logger = logging.getLogger("holdfast.received")

CONFLICTS_MAX = 5
"""How often a work is tried whose cursor has moved; another work in its group may have been the cause once."""

Ended = Callable[[Exception | None], None]
"""It is called with None when a received message is durable, or with the error if it is not."""


def once_more(tries: int, producer: str) -> int:
    """One more try of a work that moves a cursor. Raises StoreError after too many: then it does not stand where this
    process left it, and who sent the message is told, so that both look again."""
    if tries >= CONFLICTS_MAX:
        raise StoreError(f"the store has another cursor for {producer} than this process committed; it is read again")
    return tries + 1


class Inbox:
    """Receives the messages that the peers of one service send."""

    def __init__(self, retrier: Retrier) -> None:
        self.retrier = retrier
        self.dispatch, self.streams, self.clock = retrier.dispatch, retrier.streams, retrier.clock
        self.waiting, self.turns, self.outcomes = retrier.waiting, retrier.turns, retrier.outcomes

    def work_of(
        self, producer: str, incarnation: str, before: int, record: WireRecord, ended: Ended | None
    ) -> "MessageWork | CancelWork":
        """The work of a received message. `before`: the position of the cursor after the message before it."""
        move = Move(exchange_cursor(producer), before, Cursor(incarnation, record.position))
        if record.kind == "command" and record.type == CANCEL_COMMAND:
            return CancelWork(self, producer, record, move, ended)
        return MessageWork(self, producer, record, move, ended)

    def open(self, producer: str, record: WireRecord) -> Decision:
        """Open an empty decision on a message that is handled now."""
        return Decision(envelope_of(producer, record, self.clock.now_us()), self.streams)

    def set_aside(
        self, stream: str, producer: str, record: WireRecord, error: Exception | None = None, *, feed: str = ""
    ) -> Slot:
        """Let a message wait behind the messages that already wait on its stream; `error`: why its handler failed. When
        its row is durable, the caller must call `added` of the retrier."""
        message = WaitingMessage(producer, record, self.clock.now_us(), feed=feed)
        if error is not None:
            self.retrier.note_failure(stream, message, error)
        return self.waiting.add(stream, message)


class MessageWork:
    """One received message on its way through the writer."""

    __slots__ = (
        "_decision",
        "_ended",
        "_inbox",
        "_move",
        "_producer",
        "_record",
        "_removed",
        "_slot",
        "_stage",
        "_stream",
        "_tries",
        "lane",
        "streams",
    )

    def __init__(self, inbox: Inbox, producer: str, record: WireRecord, move: Move, ended: Ended | None) -> None:
        self._inbox, self._producer, self._record = inbox, producer, record
        self._move, self._ended, self._tries = move, ended, 0
        self._stream = stream_of(inbox.dispatch, producer, record)
        self.lane = producer
        self.streams: Sequence[str] = (self._stream,) if self._stream and not self._stream.startswith("?/") else ()
        self._stage = ""
        """The stage that this message ends, if it confirms or cancels a staged transaction; otherwise empty."""
        if record.kind == "command" and record.type in (CONFIRM, CANCEL):
            self._stage = stage_told(producer, record)
            self.streams = inbox.dispatch.stages.streams_of(self._stage)
        self._decision: Decision | None = None
        self._slot: Slot | None = None
        self._removed: list[Removed] = []

    def handle(self) -> Batch | None:
        """Decide the message, or set it aside; the cursor moves in either case."""
        inbox, record, stream = self._inbox, self._record, self._stream
        self._decision = None
        self._tries = once_more(self._tries, self._producer)
        if self._stage:
            return self._end_stage()
        staged: tuple[str, tuple[int, str]] | None = None
        if record.headers.stage and record.kind == "command":
            try:
                staged = read(self._producer, record.stream, record.headers.stage)
            except ValueError as error:
                return self._set_aside(error)
            if staged[0] in inbox.dispatch.stages.decisions:
                return self._reject(Rejected("resolved", "its transaction was resolved here, by force"))
        if stream and self._is_behind(staged):
            return self._wait_behind(staged)
        if stream.partition("/")[0] in inbox.dispatch.apart:
            return self._set_aside(None)  # so that a handler or an effect blocks only its own stream
        try:
            decision = inbox.open(self._producer, record)
            self._decision = decision = deliver(inbox.dispatch, self._producer, record, stream, decision)
        except StreamLocked:
            return self._wait_behind(staged)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, its message waits
            inbox.streams.forget(self.streams)
            return self._set_aside(error)
        return decision.batch(self._move)

    def _is_behind(self, staged: tuple[str, tuple[int, str]] | None) -> bool:
        """Whether another message or transaction is before it on its stream; its own transaction does not count."""
        inbox, stream = self._inbox, self._stream
        if staged is None:
            return inbox.waiting.holds(stream)
        if inbox.dispatch.stages.holds(stream, staged[0]):
            return False
        return inbox.waiting.holds(stream) or inbox.turns.queued(stream)

    def _wait_behind(self, staged: tuple[str, tuple[int, str]] | None) -> Batch:
        """Let the message wait, or reject it at once: if it is staged and younger, or if too many messages wait."""
        waiting, stream = self._inbox.waiting, self._stream
        if staged is not None:
            ahead = (*self._inbox.dispatch.stages.ages(stream), *waiting.ages(stream))
            if waiting.failing(stream) or gives_way(staged[1], ahead):
                return self._reject(Rejected(DIED, f"an older transaction is before it on {stream}"))
        elif self._record.headers.early and waiting.full(stream):
            return self._reject(Rejected("busy", f"too many messages wait on {stream}"))
        return self._set_aside(None)

    def _reject(self, no: Rejected) -> Batch:
        decision = self._decision = self._inbox.open(self._producer, self._record)
        decision.reject(no, self._stream)
        return decision.batch(self._move)

    def _end_stage(self) -> Batch:
        """Carry out the coordinator's confirm or cancel."""
        inbox, stage, commit = self._inbox, self._stage, self._record.type == CONFIRM
        stages = inbox.dispatch.stages
        decision = inbox.open(self._producer, self._record)
        if (known := stages.decisions.get(stage)) is not None:
            end_stage_again(stages, known, commit, decision)
        elif commit and not stages.streams_of(stage):
            return self._set_aside(LookupError(f"nothing is held for {stage}, and it is to be confirmed"))
        else:
            self._removed = end_stage(stages, inbox.waiting, stage, commit, decision)
        self._decision = decision
        return decision.batch(self._move)

    def _set_aside(self, error: Exception | None) -> Batch:
        slot = self._slot = self._inbox.set_aside(self._stream, self._producer, self._record, error)
        return Batch(moves=(self._move,), rows=(slot.row(),))

    def taken_back(self) -> None:
        """Undo what `handle` changed: the message set aside, the locks, and the messages that it removed."""
        inbox = self._inbox
        if self._slot is not None:
            inbox.waiting.remove(self._slot)
            self._slot = None
        if self._decision is not None:
            inbox.dispatch.stages.take_back(self._decision)
        if self._removed:
            inbox.retrier.restored(self._removed)
            self._removed = []

    def landed(self, position: int) -> None:
        """It is durable."""
        retrier = self._inbox.retrier
        if self._decision is not None:
            self._inbox.outcomes.landed(self._decision, position)
            if self._decision.unlocked or self._removed:
                retrier.released([*self._decision.unlocked, *(slot.stream for slot, _ in self._removed)])
        if self._slot is not None:
            retrier.added(self._slot)
        if self._ended is not None:
            self._ended(None)

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; the sender will say it again."""
        if self._ended is not None:
            self._ended(error)


class CancelWork:
    """One cancel on its way through the writer."""

    __slots__ = (
        "_decision",
        "_ended",
        "_inbox",
        "_marked",
        "_move",
        "_producer",
        "_record",
        "_removed",
        "_target",
        "_tries",
        "lane",
    )

    def __init__(self, inbox: Inbox, producer: str, record: WireRecord, move: Move, ended: Ended | None) -> None:
        self._inbox, self._producer, self._record, self._move = inbox, producer, record, move
        self._ended, self._tries, self.lane = ended, 0, producer
        self._decision: Decision | None = None
        self._removed: list[Removed] = []
        self._marked: Slot | None = None
        """The command that is being carried out; it is answered `cancelled` if it fails with nothing done."""
        try:
            self._target = msgspec.json.decode(bytes(record.data), type=Target).version
        except msgspec.DecodeError as error:
            logger.error(
                "%s cannot decode the cancel %s; it cancels nothing: %s",
                inbox.dispatch.service.name,
                record_id(producer, record.position),
                error,
                extra={
                    "service": inbox.dispatch.service.name,
                    "peer": producer,
                    "message_id": record_id(producer, record.position),
                },
            )
            self._target = 0

    @property
    def streams(self) -> Sequence[str]:
        """The stream of the saga that the cancelled command has begun here; empty if it has begun none."""
        called = self._inbox.dispatch.sagas.called
        begun = called.get(f"{self._producer}:{self._record.stream}#{self._target}")
        return (begun,) if begun else ()

    def handle(self) -> Batch | None:
        """Answer an undecided command, turn a saga back, or do nothing; the cursor moves in each case."""
        inbox, record = self._inbox, self._record
        self._marked, self._removed = None, []
        self._tries = once_more(self._tries, self._producer)
        decision = self._decision = inbox.open(self._producer, record)
        slot = inbox.waiting.find_command(self._producer, record.stream, self._target)
        if slot is not None and (slot.running or slot.message.unknown):
            self._marked = slot
            marked = msgspec.structs.replace(slot.message, cancel_came=True)
            # A handler commits outside the writer, so a row that is put here might come after the handler removed it.
            return Batch((), (), (self._move,), (slot.row(marked),) if slot.message.started else ())
        if slot is not None:
            self._removed = [(slot, inbox.waiting.remove(slot))]
            answer_waiting(slot, CANCELLED, decision)
        else:
            for stream in self.streams:
                cause = Rejection("cancelled", "its caller called it off")
                inbox.dispatch.sagas.cancel(stream, cause, decision)
        return decision.batch(self._move)

    def landed(self, position: int) -> None:
        """It is durable."""
        inbox = self._inbox
        inbox.outcomes.landed(self._decision, position)
        for slot, _ in self._removed:
            inbox.retrier.removed(slot.stream)
        if self._marked is not None:
            self._marked.message.cancel_came = True
            inbox.retrier.cancelled(self._marked)
        if self._ended is not None:
            self._ended(None)

    def taken_back(self) -> None:
        """Put the command that was removed back into its queue."""
        self._inbox.retrier.restored(self._removed)
        self._removed = []

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; the sender will say it again."""
        if self._ended is not None:
            self._ended(error)
