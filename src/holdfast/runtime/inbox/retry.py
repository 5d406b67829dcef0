"""Another try at what waits first on a stream, on its way through the writer, or through a transaction.

`runtime.inbox.waiting` makes one when a message's time has come. What fails again waits on with a longer delay, until
its policy parks it. Comes after `runtime.inbox.receive`, which says how a message is decided.
"""

from typing import TYPE_CHECKING, Any

from holdfast.core.batch import Batch, Duplicate, Row
from holdfast.errors import Unavailable
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.inbox.receive import open_message
from holdfast.runtime.log.writer import Writer

if TYPE_CHECKING:
    from holdfast.runtime.inbox.message import Place
    from holdfast.runtime.inbox.waiting import Waiting


class RetryWork:
    """Another try at the first message that waits on a stream."""

    __slots__ = ("_handled", "_place", "_stream", "_waiting", "lane", "streams")

    def __init__(self, waiting: "Waiting", stream: str) -> None:
        self._handled: Handled | None = None
        self._place: Place | None = None
        self._waiting, self._stream, self.lane = waiting, stream, ""
        self.streams = (stream,) if waiting.dispatch.folds(stream) else ()

    def handle(self) -> Batch | None:
        """Decide it, or leave it to a transaction."""
        batch, self._handled, self._place = self._waiting.retry(self._stream)
        if batch is None:
            self._waiting.retried(self._stream)
        return batch

    def landed(self, position: int) -> None:
        """It is durable."""
        self._waiting.settled(self._handled, position)
        self._waiting.retried(self._stream)

    def taken_back(self) -> None:
        """It waits as before."""
        if self._place is not None:
            self._waiting.put_back(self._stream, self._place)
            self._place = None
        if self._handled is not None:
            self._waiting.dispatch.stages.take_back(self._handled)

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self._waiting.retried(self._stream)

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; it is tried again."""
        self._waiting.retried(self._stream, later=True)


class HandlerRetry:
    """The first message that waits on a handler's stream, on its way through a transaction."""

    __slots__ = ("_crashes", "_handled", "_place", "_stream", "_waiting", "_writer", "key", "lane", "streams")

    def __init__(self, waiting: "Waiting", stream: str, writer: Writer) -> None:
        self._waiting, self._stream, self._writer = waiting, stream, writer
        self._crashes = writer.crashes
        self._place: Place | None = None
        self._handled: Handled | None = None
        self.key, self.lane, self.streams = "", "", (stream,)

    def handle(self) -> Batch | None:
        """Decide it, or leave it to a transaction."""
        if self._waiting.transactions is not None:
            self._waiting.transactions.take(self._stream, self)
        return None

    def begin(self) -> tuple[Any, Envelope] | None:
        """The command that is first on the stream."""
        place = self._place = self._waiting.first(self._stream)
        if place is None:
            self._waiting.retried(self._stream)
            return None
        place.running = True
        return open_message(self._waiting.dispatch, place.held, self._waiting.clock.now_us())

    def batch(self, handled: Handled) -> Batch:
        """What its handler decided, and that it waits no more."""
        self._handled = handled
        gone = (Row("waiting", self._place.key, None),) if self._place is not None else ()
        return Batch(tuple(handled.records), tuple(handled.reads), (), (*handled.rows, *gone))

    def landed(self, position: int) -> None:
        """It is durable."""
        if self._place is not None:
            self._waiting.unhold(self._stream, self._place)
        self._waiting.settled(self._handled, position)
        self._waiting.retried(self._stream)

    def taken_back(self) -> None:
        """It waits as before."""

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self._waiting.retried(self._stream)

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; it is tried again."""
        if self._place is not None:
            self._place.running = False
        if self._crashes != self._writer.crashes:
            return  # all that waits has been read again, or will be
        if self._place is None or isinstance(error, Unavailable):
            self._waiting.retried(self._stream, later=True)
        else:
            self._waiting.keep_failed(self._stream, self._place, error)
