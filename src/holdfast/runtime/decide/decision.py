"""Decisions: the envelope that a message is handled with, and everything that its handling decides.

The room that a message enters (edge, inbox, feeds, timers) makes its `Envelope` and opens a `Decision` with it.
Dispatch, sagas and stages fill the decision, and it becomes one batch: the records, the stream versions that were read,
and the rows that change. The decision also remembers its changes in memory, so that they can be undone if the batch is
not committed. Nothing here awaits, and nothing here fails.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast.core.declare.message import Context, Event, Rejection, encode, message_of
from holdfast.core.log.batch import Batch, Move, Row
from holdfast.core.log.record import NO_HEADERS, REJECTED, Headers, Kind, Record
from holdfast.core.saga.stage import Carried
from holdfast.errors import Rejected
from holdfast.runtime.decide.locks import Lock
from holdfast.runtime.log.streams import Entry, Streams


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """Everything that is known of a message except its content."""

    id: str
    """`log@position`, or the transaction's id at the edge."""
    tx: str
    at: int
    """When the message is handled, µs since 1970-01-01 UTC."""
    correlation: str = ""
    hop: int = 0
    debug: bool = False
    traceparent: str = ""
    caller: str = ""
    """The service that gets the answer; empty at the edge, and if no service waits for an answer."""
    answers: str = ""
    """`stream#version` of the command in the caller's log."""
    edge: bool = False

    def headers(self, *, outcome: bool = False, answers: bool = False) -> Headers:
        """The headers that a record inherits from this message."""
        if not (self.hop or self.debug or self.traceparent or outcome or answers):
            return NO_HEADERS
        return Headers(self.hop, self.debug, self.traceparent, answers=self.answers if answers else "", outcome=outcome)

    def context(self, key: str) -> Context:
        """The context that a handler gets; `key` is the key of the stream on which the message is handled."""
        return Context(self.at, self.id, key, self.correlation or self.tx, self.tx)


class Decision:
    """Everything that the handling of one message decides."""

    __slots__ = (
        "answer",
        "envelope",
        "locked",
        "opened",
        "outcomes",
        "reads",
        "records",
        "remembered",
        "rows",
        "streams",
        "timers",
        "unlocked",
    )

    def __init__(self, envelope: Envelope, streams: Streams) -> None:
        self.envelope = envelope
        self.streams = streams
        """The streams in memory, which the handling reads and changes."""
        self.records: list[Record] = []
        self.reads: list[tuple[str, int]] = []
        self.rows: list[Row] = []
        self.answer: Any = None
        """The event or Rejection that answers the message; None while a saga still works on the answer."""
        self.opened = 0
        """How many sagas it begins, minus how many it ends."""
        self.outcomes: list[tuple[str, Any, int]] = []
        """(transaction, event or Rejection, index of the record) for callers at the edge that wait for a saga's end."""
        self.timers: list[str] = []
        """Keys of the timers that it sets; their rows may be read only when they are in the store."""
        self.locked: tuple[str, str, Lock | None] | None = None
        """(stream, stage, the lock before) of the lock that it took or extended; None if it took none."""
        self.unlocked: dict[str, Lock] = {}
        """The streams that it unlocked, with their locks."""
        self.remembered: tuple[str, Carried | None] | None = None
        """(stage, the decision before) if it remembers or drops the decision of a stage; None otherwise."""

    def read(self, stream: str) -> Entry:
        """A stream in memory; the batch commits only at its version. Raises the error if it cannot be folded."""
        entry = self.streams[stream]
        self.reads.append((stream, entry.version))
        return entry

    def emit(self, events: Iterable[Event], answer: Any, stream: str, version: int) -> None:
        """Record events after that version of a stream; the record of the answer goes to the caller."""
        envelope = self.envelope
        tx, cause, at, correlation = envelope.tx, envelope.id, envelope.at, envelope.correlation
        for number, event in enumerate(events, version + 1):
            if event is answer:
                headers = envelope.headers(outcome=envelope.edge, answers=bool(envelope.answers))
                caller = envelope.caller
            else:
                headers, caller = envelope.headers(), ""
            stored, data = message_of(event).stored, encode(event)
            self.records.append(
                Record(0, "event", stored, data, tx, cause, at, correlation, stream, number, caller, headers)
            )

    def reject(self, no: Rejected | Rejection, stream: str, *, to: Envelope | None = None) -> None:
        """Record a rejection as the answer; it does not get a version. `to`: the envelope of the message that is
        answered, if it is not the message that is handled."""
        self.answer = no if isinstance(no, Rejection) else Rejection(no.code, no.message, no.facts)
        self._answer(REJECTED, encode(self.answer), stream, to or self.envelope, outcome=True)

    def vote(self, stored: str, data: bytes, stream: str = "") -> None:
        """Record a participant's answer to its coordinator: its vote, or that it carried out a decision."""
        self._answer(stored, data, stream, self.envelope)

    def _answer(self, stored: str, data: bytes, stream: str, to: Envelope, *, outcome: bool = False) -> None:
        headers = to.headers(outcome=outcome and to.edge, answers=bool(to.answers))
        tx, cause, at, correlation = to.tx, to.id, to.at, to.correlation
        record = Record(0, "answer", stored, data, tx, cause, at, correlation, stream, 0, to.caller, headers)
        self.records.append(record)

    def note(self, kind: Kind, stored: str, data: bytes, stream: str = "", *, at: int = 0) -> None:
        """Record an operator's repair or an attempt of an effect, which is neither an event nor an answer. `at`: when
        it was, if that is not the time of the message."""
        envelope = self.envelope
        headers = envelope.headers() if kind == "effect" else NO_HEADERS
        tx, cause, correlation = envelope.tx, envelope.id, envelope.correlation
        self.records.append(
            Record(0, kind, stored, data, tx, cause, at or envelope.at, correlation, stream, headers=headers)
        )

    def batch(self, *moves: Move, rows: Sequence[Row] = ()) -> Batch:
        """The batch that commits the decision. `rows`: more rows that change, after its own rows."""
        return Batch(tuple(self.records), tuple(self.reads), moves, (*self.rows, *rows) if rows else tuple(self.rows))
