"""What goes into a handling beside the message, and all that comes out of it.

An `Envelope` is made where a message comes in (edge, exchange, feeds, timers); a `Handled` is filled by dispatch,
sagas and stages, and becomes one batch. Values only; nothing here can fail.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.core.batch import Row
from holdfast.core.record import NO_HEADERS, Headers, Record
from holdfast.core.stage import Carried

if TYPE_CHECKING:
    from holdfast.runtime.decide.stages import Held


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What is known of a message beside its content."""

    id: str
    """`log@position`, or the transaction's id at the edge."""
    tx: str
    at: int
    correlation: str = ""
    hop: int = 0
    debug: bool = False
    traceparent: str = ""
    caller: str = ""
    """The service that gets the answer; empty at the edge, and where nobody waits for one."""
    answers: str = ""
    """`stream#version` of the command in the caller's log."""
    edge: bool = False

    def headers(self, *, outcome: bool = False, answers: bool = False) -> Headers:
        """The headers that a record inherits from this message."""
        if not (self.hop or self.debug or self.traceparent or outcome or answers):
            return NO_HEADERS
        return Headers(self.hop, self.debug, self.traceparent, answers=self.answers if answers else "", outcome=outcome)


class Handled:
    """All that one handling decided."""

    __slots__ = ("answer", "decided", "held", "let_go", "opened", "reads", "records", "rows", "settled", "timers")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.reads: list[tuple[str, int]] = []
        self.rows: list[Row] = []
        self.answer: Any = None
        """The event or Rejection that answers the message; None while a saga still works on it."""
        self.opened = 0
        """Sagas that it begins, less those that it ends."""
        self.settled: list[tuple[str, Any, int]] = []
        """(transaction, event or Rejection, which of the records) for callers at the edge who wait for a saga's end."""
        self.held: tuple[str, str, Held | None] | None = None
        """A stream that it locked or holds more on, for which transaction, and what that held before."""
        self.decided: tuple[str, Carried | None] | None = None
        """A stage of which a decision is remembered from now on, or no more, and what was before."""
        self.let_go: dict[str, Held] = {}
        """Streams that it unlocked, and what was held."""
        self.timers: list[str] = []
        """Keys of the timers that it sets: nobody may look for their rows before they are in the store."""
