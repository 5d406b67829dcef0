"""What goes into the handling of a message beside the message, and all that comes out of it.

An `Envelope` is made where a message comes in (edge, inbox, feeds, timers). A `Decision` is opened with it, filled by
dispatch, sagas and stages, and becomes one batch: its records, what they rest on, and the rows that change with them.
It also remembers what it changed in memory, so that a batch that is not committed can be taken back. Nothing here
awaits, and nothing here can fail.
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
    """What is known of a message beside its content."""

    id: str
    """`log@position`, or the transaction's id at the edge."""
    tx: str
    at: int
    """When it is handled, µs since 1970-01-01 UTC."""
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

    def context(self, key: str) -> Context:
        """What a handler may ask of this message; `key` is that of the stream it is handled on."""
        return Context(self.at, self.id, key, self.correlation or self.tx, self.tx)


class Decision:
    """All that one handling decided."""

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
        """The streams in memory, which the handling reads and moves on."""
        self.records: list[Record] = []
        self.reads: list[tuple[str, int]] = []
        self.rows: list[Row] = []
        self.answer: Any = None
        """The event or Rejection that answers the message; None while a saga still works on it."""
        self.opened = 0
        """Sagas that it begins, less those that it ends."""
        self.outcomes: list[tuple[str, Any, int]] = []
        """(transaction, event or Rejection, which of the records) for callers at the edge who wait for a saga's end."""
        self.timers: list[str] = []
        """Keys of the timers that it sets: nobody may look for their rows before they are in the store."""
        self.locked: tuple[str, str, Lock | None] | None = None
        """A stream that it locked or holds more on, for which stage, and the lock that was there before."""
        self.unlocked: dict[str, Lock] = {}
        """Streams that it unlocked, and their locks."""
        self.remembered: tuple[str, Carried | None] | None = None
        """A stage of which a decision is remembered from now on, or no more, and what was remembered before."""

    def read(self, stream: str) -> Entry:
        """A stream in memory, on whose version the decision rests. Raises why it cannot be folded."""
        entry = self.streams[stream]
        self.reads.append((stream, entry.version))
        return entry

    def emit(self, events: Iterable[Event], answer: Any, stream: str, version: int) -> None:
        """Record events on a stream that is at that version; the record of the answer goes to the caller."""
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
        """Record a no as the answer; it counts as no version. `to`: the envelope of the message that is answered, where
        that is another than the one that is handled."""
        self.answer = no if isinstance(no, Rejection) else Rejection(no.code, no.message, no.facts)
        self._answer(REJECTED, encode(self.answer), stream, to or self.envelope, outcome=True)

    def vote(self, stored: str, data: bytes, stream: str = "") -> None:
        """Record a participant's answer to its coordinator: what it holds, or that a decision is carried out."""
        self._answer(stored, data, stream, self.envelope)

    def _answer(self, stored: str, data: bytes, stream: str, to: Envelope, *, outcome: bool = False) -> None:
        headers = to.headers(outcome=outcome and to.edge, answers=bool(to.answers))
        tx, cause, at, correlation = to.tx, to.id, to.at, to.correlation
        record = Record(0, "answer", stored, data, tx, cause, at, correlation, stream, 0, to.caller, headers)
        self.records.append(record)

    def note(self, kind: Kind, stored: str, data: bytes, stream: str = "", *, at: int = 0) -> None:
        """Record what is neither event nor answer: an operator's repair, or an attempt of an effect. `at`: when it was,
        where that is not the time of the message."""
        envelope = self.envelope
        headers = envelope.headers() if kind == "effect" else NO_HEADERS
        tx, cause, correlation = envelope.tx, envelope.id, envelope.correlation
        self.records.append(
            Record(0, kind, stored, data, tx, cause, at or envelope.at, correlation, stream, headers=headers)
        )

    def batch(self, *moves: Move, rows: Sequence[Row] = ()) -> Batch:
        """The batch that commits all of it. `rows`: what changes beside, after its own rows."""
        return Batch(tuple(self.records), tuple(self.reads), moves, (*self.rows, *rows) if rows else tuple(self.rows))
