"""The record: one row of a service's log, and the only shape in which a service remembers anything.

It comes before everything else in the flow: `core.log.batch` groups the records that commit together, the store gives
them positions, exchange and feeds carry them on. This module has values only and never raises.
"""

from typing import Any, Literal

import msgspec

Kind = Literal["event", "command", "answer", "saga", "effect", "repair"]
"""What a record is: an event (public once flushed), a command this service sends, an answer that is no event
(rejected or cancelled), a step in the progress of a saga of this service, an attempt at an effect, or an operator's
repair."""

REJECTED = "holdfast.rejected"
"""The stored type of an answer that rejects a command."""
CANCEL_COMMAND = "holdfast.call_off"
"""The stored type of a cancel: it names a command of the same stream, and it goes the same way. A service that
has not decided that command answers it `cancelled`; a service that has decided it, or is working on it, does nothing.
The stored type keeps an older word for a cancel, because logs hold it and other releases read it."""
SAGA = "holdfast.saga."
"""The prefix of the stored types of a saga's own progress."""
BEGUN, ANSWERED = SAGA + "begun", SAGA + "answered"
"""Stored types: a saga exists; a command of it was answered. Each holds a message of a contract."""


class Headers(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The fields of a record beside its payload. A field that has its default value is not stored."""

    hop: int = 0
    """How many reactions and sagas were begun between the edge and this record; see `HOPS_MAX` in
    `core.declare.message`."""
    debug: bool = False
    """`debug-log-enabled`: sampled at the edge, inherited by every record that follows."""
    traceparent: str = ""
    """W3C trace context as it came in at the edge."""
    key: str = ""
    """Of a command: the key of the stream it is for, readable even when the payload is not."""
    answers: str = ""
    """Of an answer: `stream#version` of the command record it answers, in the log of the service that sent it."""
    outcome: bool = False
    """True on the record that is the final answer to a command from the edge."""
    step: str = ""
    """Of a saga's record: the step it belongs to."""
    index: int = 0
    """Of a saga's command: its place in the step's group."""
    attempt: int = 0
    """Of a saga's command: 0 for the first time it is asked, then 1, 2, ..."""
    early: bool = False
    """Of a saga's command: a step before the pivot, which may be answered `busy`."""
    undoes: int = 0
    """Of an undo command: the version (in the saga's stream) of the command it undoes."""
    edge: bool = False
    """Of a command that a service sends itself: its answer is the final one to a command from the edge."""
    stage: str = ""
    """Of a staged command: when its transaction began and which attempt this is, `AT#ATTEMPT`."""


NO_HEADERS = Headers()


class Record(msgspec.Struct, frozen=True, gc=False):
    """One row of a log. Before commit its `position` is 0; the store returns the first position it gave to a batch."""

    position: int
    kind: Kind
    type: str
    """Stored type: `contract.name.vN` of a message, or one of holdfast's own (`holdfast.*`)."""
    data: bytes
    """The payload, UTF-8 JSON, encoded once. Never holds a position of its own commit."""
    tx: str
    """The transaction: id of the edge record that caused all this."""
    cause: str
    """Id (`log@position`, or the transaction's id at the edge) of the message whose handling wrote this record."""
    at: int
    """Microseconds since 1970-01-01 UTC, taken when the message was handled."""
    correlation: str = ""
    """The label the caller gave; empty if it gave none; then the transaction's id is the label."""
    stream: str = ""
    """`Type/key` of the aggregate or saga; empty when the record belongs to none."""
    version: int = 0
    """1, 2, ... within the stream; 0 for a record that does not count as a version (a rejection)."""
    destination: str = ""
    """The service this record is for, by exchange; empty for a record that stays in this service."""
    headers: Headers = NO_HEADERS


def record_id(log: str, position: int) -> str:
    """The id of a record, unique in the whole system: `log@position`."""
    return f"{log}@{position}"


def parse_record_id(text: str) -> tuple[str, int] | None:
    """`(log, position)` of a record id, or None if the text is not one."""
    log, at, position = text.rpartition("@")
    if not at or not log or not position.isascii() or not position.isdigit():
        return None
    return log, int(position)


def body_of(record: Record) -> dict[str, Any]:
    """The payload of a record as an object; an empty one when the payload is not an object."""
    try:
        return msgspec.json.decode(record.data, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
