"""Calling off: a cancel that follows the command it names down the ordered conversation.

The cancel comes after its command, always: so either that waits here undecided, and is answered `cancelled`; or it has
begun a saga here, which turns back if it is not past its pivot; or it is being carried out, and is not tried again if
that fails with nothing done; or it is decided, and the cancel does nothing: the answer is on its way. Comes after
exchange, before the writer, as `runtime.inbox.receive` does for everything else.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from holdfast.core.batch import Batch, Cursor, Duplicate, Move
from holdfast.core.frame import WireRecord
from holdfast.core.message import Rejection
from holdfast.core.record import CALL_OFF
from holdfast.errors import Rejected
from holdfast.runtime.decide.decision import Handled
from holdfast.runtime.decide.saga_records import Target
from holdfast.runtime.inbox.message import Place
from holdfast.runtime.inbox.receive import Ended, MessageWork, answer_unheard, envelope_of, once_more

if TYPE_CHECKING:
    from holdfast.runtime.inbox.waiting import Waiting

logger = logging.getLogger("holdfast.callingoff")

CANCELLED = Rejected("cancelled", "it was called off before it was decided")


def incoming(
    waiting: "Waiting", producer: str, incarnation: str, before: int, record: WireRecord,
    ended: Ended | None,
) -> "MessageWork | CallOffWork":  # fmt: skip
    """The work of a received message. `before`: the cursor as the message before it leaves it."""
    if record.kind == "command" and record.type == CALL_OFF:
        move = Move(f"exchange:{producer}", before, Cursor(incarnation, record.position))
        return CallOffWork(waiting, producer, record, move, ended)
    return MessageWork(waiting, producer, incarnation, before, record, ended)


class CallOffWork:
    """One cancel on its way through the writer."""

    __slots__ = ("_ended", "_handled", "_marked", "_move", "_number", "_place", "_producer", "_record", "_stream",
                 "_target", "_tries", "_waiting", "lane")  # fmt: skip

    def __init__(self, waiting: "Waiting", producer: str, record: WireRecord, move: Move, ended: Ended | None) -> None:
        self._waiting, self._producer, self._record, self._move = waiting, producer, record, move
        self._ended, self.lane = ended, producer
        self._handled: Handled | None = None
        self._place: Place | None = None
        self._marked: Place | None = None
        """What is being carried out, and is to be answered `cancelled` if nothing comes of it."""
        self._stream, self._number, self._tries = "", 0, 0
        try:
            self._target = msgspec.json.decode(bytes(record.data), type=Target).version
        except msgspec.DecodeError as error:
            logger.error("a cancel cannot be read, and cancels nothing: %s", error, extra={"peer": producer})
            self._target = 0

    @property
    def streams(self) -> Sequence[str]:
        """The saga that its command has begun here, if it has."""
        begun = self._waiting.dispatch.sagas.called.get(f"{self._producer}:{self._record.stream}#{self._target}")
        return (begun,) if begun else ()

    def handle(self) -> Batch | None:
        """Answer what is undecided, turn a saga back, or do nothing; the cursor moves."""
        waiting, record, handled = self._waiting, self._record, Handled()
        self._place, self._marked, self._handled = None, None, handled
        self._tries = once_more(self._tries, self._producer)
        at = waiting.clock.now_us()
        found = waiting.asked_by(self._producer, record.stream, self._target)
        if found is not None and (found[1].running or found[1].held.unknown):
            self._marked = found[1]
            marked = Place(found[1].key, msgspec.structs.replace(found[1].held, called_off=True), True)
            # A handler commits beside the writer, so a row put here might come after its own word that it is gone.
            rows = (waiting.row_of(marked),) if found[1].held.started else ()
            return Batch((), (), (self._move,), rows)
        if found is not None:
            self._stream, self._place = found
            self._number = waiting.take(self._stream, self._place)
            answer_unheard(waiting, self._place, CANCELLED, at, handled)
        else:
            for stream in self.streams:
                cause = Rejection("cancelled", "its caller called it off")
                envelope = envelope_of(self._producer, record, at)
                waiting.dispatch.sagas.call_off(stream, cause, envelope, waiting.memory, handled)
        return Batch(tuple(handled.records), tuple(handled.reads), (self._move,), tuple(handled.rows))

    def landed(self, position: int) -> None:
        """It is durable."""
        self._waiting.settled(self._handled, position)
        if self._place is not None:
            self._waiting.again(self._stream)
        if self._marked is not None:
            self._marked.held.called_off = True
            self._waiting.called_off(self._marked)
        if self._ended is not None:
            self._ended(None)

    def taken_back(self) -> None:
        """What it took out waits as before."""
        if self._place is not None:
            self._waiting.put_in([(self._stream, self._number, self._place)])
            self._place = None

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self.failed(RuntimeError("a cancel has no fresh rows"))

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; the sender will say it again."""
        if self._ended is not None:
            self._ended(error)


class CancelledWork:
    """The answer `cancelled` to a command whose cancel came while it was carried out, nothing of which was done."""

    __slots__ = ("_handled", "_number", "_place", "_stream", "_taken", "_waiting", "lane", "streams")

    def __init__(self, waiting: "Waiting", stream: str, place: Place) -> None:
        self._waiting, self._stream, self._place = waiting, stream, place
        self.lane, self.streams = "", ()
        self._handled: Handled | None = None
        self._number, self._taken = 0, False

    def handle(self) -> Batch | None:
        """Answer it, and let it wait no more."""
        waiting, handled, self._taken = self._waiting, Handled(), False
        if not waiting.has(self._stream, self._place.key):
            return None
        answer_unheard(waiting, self._place, CANCELLED, waiting.clock.now_us(), handled)
        self._number, self._taken = waiting.take(self._stream, self._place), True
        self._handled = handled
        return Batch(tuple(handled.records), (), (), tuple(handled.rows))

    def landed(self, position: int) -> None:
        """It is durable."""
        self._waiting.settled(self._handled, position)
        self._waiting.retried(self._stream)

    def taken_back(self) -> None:
        """It waits as before."""
        if self._taken:
            self._waiting.put_in([(self._stream, self._number, self._place)])
            self._taken = False

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self.failed(RuntimeError("a cancel has no fresh rows"))

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; it is tried again."""
        self._waiting.retried(self._stream, later=True)
