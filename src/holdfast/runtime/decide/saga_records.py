"""Progress of sagas as records of the log, and records back as progress.

A command of the saga is a command record, its final answer is an event or a rejection, an operator's repair is a repair
record, and all other progress has a type `holdfast.saga.*`. For each class of progress, one function writes the record
and one reads it; a test shows that the two are inverse. `runtime.decide.sagas` uses them; `core.saga.progress` says
what the progress means. Reading fails with the error of a record that does not decode.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.core.declare.message import Rejection, decode_stored, encode, message_of
from holdfast.core.declare.saga import SagaType
from holdfast.core.log.record import ANSWERED, BEGUN, CANCEL_COMMAND, REJECTED, SAGA, Headers, Kind, Record
from holdfast.core.saga.progress import (
    Again,
    Answered,
    Asked,
    Begun,
    Cancelled,
    CancelSent,
    CarriedOut,
    Completed,
    Overdue,
    Progress,
    Repaired,
    SagaCommitted,
    SagaState,
    Skipped,
    Stuck,
    Told,
    Undoing,
    Undone,
)
from holdfast.core.saga.stage import CANCEL, CONFIRM, DONE, HELD, StageAttempt, Vote, written
from holdfast.runtime.decide.decision import Envelope

REPAIRED = "holdfast.repair.saga"
"""The stored type of an operator's repair of a saga."""

_BODIES: dict[str, type[Any]] = {
    SAGA + "skipped": Skipped,
    SAGA + "overdue": Overdue,
    SAGA + "stuck": Stuck,
    SAGA + "undoing": Undoing,
    SAGA + "again": Again,
    SAGA + "settled": CarriedOut,
    SAGA + "cancelled": Cancelled,
    REPAIRED: Repaired,
}
"""Classes of progress whose record is the encoded value itself, by stored type."""
_STORED = {cls: stored for stored, cls in _BODIES.items()}
_END_STORED: dict[type[Any], str] = {
    Completed: SAGA + "completed",
    SagaCommitted: SAGA + "committed",
    Undone: SAGA + "undone",
    Cancelled: SAGA + "cancelled",
}
"""Stored types of ends that answer nobody: the saga was begun by an event, or it answers nothing."""


class Target(msgspec.Struct, frozen=True):
    """The payload of a cancel: the version, in the saga's stream, of the command to cancel."""

    version: int


class _BegunData(msgspec.Struct):
    type: str
    message: msgspec.Raw
    shape: str
    destination: str = ""
    answers: str = ""
    at: int = 0


class _AnsweredData(msgspec.Struct):
    to: int
    type: str
    answer: msgspec.Raw


def from_record(saga: SagaType, record: Record) -> Progress:
    """The progress that a saga's record stands for."""
    reader = _READERS.get(record.type)
    if reader is not None:
        return reader(saga, record)
    if record.kind == "command":
        headers = record.headers
        return Asked(headers.step, headers.index, _message(saga, record), headers.attempt, headers.undoes)
    if record.kind == "event":
        return SagaCommitted(_message(saga, record)) if saga.staged else Completed(_message(saga, record))
    return msgspec.json.decode(record.data, type=_BODIES[record.type])


def _message(saga: SagaType, record: Record) -> Any:
    return decode_stored(saga.contracts[record.type.partition(".")[0]], record.type, record.data)


def _read_begun(saga: SagaType, record: Record) -> Begun:
    body = msgspec.json.decode(record.data, type=_BegunData)
    message = decode_stored(saga.begin.home, body.type, bytes(body.message))
    return Begun(message, body.shape, body.destination, body.answers, body.at)


def _read_answered(saga: SagaType, record: Record) -> Answered:
    found = msgspec.json.decode(record.data, type=_AnsweredData)
    return Answered(found.to, decode_answer(saga, found.type, bytes(found.answer)))


def _read_told(saga: SagaType, record: Record) -> Told:
    attempt = msgspec.json.decode(record.data, type=StageAttempt).attempt
    return Told(record.destination, record.type == CONFIRM, attempt)


def _read_rejected(saga: SagaType, record: Record) -> Undone | Cancelled:
    cause = msgspec.json.decode(record.data, type=Rejection)
    return Cancelled(cause) if saga.staged else Undone(cause)


_READERS: dict[str, Callable[[SagaType, Record], Progress]] = {
    BEGUN: _read_begun,
    ANSWERED: _read_answered,
    SAGA + "completed": lambda saga, record: Completed(),
    SAGA + "committed": lambda saga, record: SagaCommitted(),
    SAGA + "undone": lambda saga, record: Undone(msgspec.json.decode(record.data, type=Rejection)),
    CANCEL_COMMAND: lambda saga, record: CancelSent(msgspec.json.decode(record.data, type=Target).version),
    CONFIRM: _read_told,
    CANCEL: _read_told,
    REJECTED: _read_rejected,
}


def decode_answer(saga: SagaType, stored: str, data: bytes) -> Any:
    """The event or Rejection that answers one of the saga's commands."""
    if stored == REJECTED:
        return msgspec.json.decode(data, type=Rejection)
    if stored == DONE:
        return Done()
    if stored == HELD:
        vote = msgspec.json.decode(data, type=Vote)
        stored, data = vote.type, bytes(vote.event)
    return decode_stored(saga.contracts[stored.partition(".")[0]], stored, data)


class Done(msgspec.Struct, frozen=True):
    """A participant's answer to the decision that it was told."""


class _Written(msgspec.Struct):
    """The fields of a progress record that it does not inherit from the message."""

    stored: str
    data: bytes = b"{}"
    kind: Kind = "saga"
    destination: str = ""
    headers: Headers | None = None
    """None: the record inherits the headers of the message that caused it."""


def to_record(
    saga: SagaType, stream: str, version: int, item: Progress, state: SagaState, envelope: Envelope
) -> Record:
    """The record of a progress at that version of the saga's stream."""
    found = _WRITERS.get(type(item), _write_body)(saga, item, state, envelope)
    tx, cause, at, correlation = envelope.tx, envelope.id, envelope.at, envelope.correlation
    headers = found.headers or envelope.headers()
    return Record(
        0,
        found.kind,
        found.stored,
        found.data,
        tx,
        cause,
        at,
        correlation,
        stream,
        version,
        found.destination,
        headers,
    )


def _write_begun(saga: SagaType, item: Begun, state: SagaState, envelope: Envelope) -> _Written:
    body: dict[str, Any] = {
        "type": saga.begin.stored,
        "message": item.message,
        "shape": item.shape,
        "destination": item.destination,
        "answers": item.answers,
    }
    return _Written(BEGUN, encode(body | {"at": item.at} if item.at else body))


def _write_asked(saga: SagaType, item: Asked, state: SagaState, envelope: Envelope) -> _Written:
    message = message_of(item.command)
    began = state.begun.at if state.begun is not None else 0
    headers = Headers(
        envelope.hop,
        envelope.debug,
        envelope.traceparent,
        message.key_of(item.command) if message.key_fields else "",
        step=item.step,
        index=item.index,
        attempt=item.attempt,
        undoes=item.undoes,
        early=not item.undoes and saga.by_name[item.step] < saga.pivot,
        stage=written(began, state.attempt) if saga.staged else "",
    )
    return _Written(message.stored, encode(item.command), "command", message.contract, headers)


def _write_answered(saga: SagaType, item: Answered, state: SagaState, envelope: Envelope) -> _Written:
    data = encode({"to": item.to, "type": _type_of(item.answer), "answer": item.answer})
    asked = state.asked.get(item.to)
    return _Written(ANSWERED, data, headers=_of_step(envelope, asked) if asked is not None else None)


def _write_told(saga: SagaType, item: Told, state: SagaState, envelope: Envelope) -> _Written:
    return _Written(CONFIRM if item.commit else CANCEL, encode(StageAttempt(item.attempt)), "command", item.service)


def _write_cancel_sent(saga: SagaType, item: CancelSent, state: SagaState, envelope: Envelope) -> _Written:
    asked = state.asked[item.to]
    home, headers = message_of(asked.command).contract, _of_step(envelope, asked)
    return _Written(CANCEL_COMMAND, encode(Target(item.to)), "command", home, headers)


def _write_end(
    saga: SagaType, item: Completed | Undone | SagaCommitted | Cancelled, state: SagaState, envelope: Envelope
) -> _Written:
    """Write an end: it is an answer if somebody waits for it, and a saga record otherwise."""
    if isinstance(item, Cancelled) and item.again:
        return _write_body(saga, item, state, envelope)  # it is not the end: the saga tries again
    begun = state.begun or Begun(None, "")
    edge = saga.begin.kind == "command" and not begun.destination
    headers = msgspec.structs.replace(envelope.headers(), answers=begun.answers, outcome=edge)
    kind: Kind
    if isinstance(item, Undone | Cancelled):
        kind, stored, data = "answer", REJECTED, encode(item.cause)
        if saga.begin.kind == "event":
            kind, stored = "saga", _END_STORED[type(item)]
            data = encode(item) if isinstance(item, Cancelled) else data
    elif item.answer is None:
        kind, stored, data = "saga", _END_STORED[type(item)], b"{}"
    else:
        kind, stored, data = "event", message_of(item.answer).stored, encode(item.answer)
    return _Written(stored, data, kind, begun.destination, headers)


def _write_body(saga: SagaType, item: Any, state: SagaState, envelope: Envelope) -> _Written:
    headers = None
    if isinstance(item, Skipped | Overdue | Stuck | Undoing):
        headers = msgspec.structs.replace(envelope.headers(), step=item.step)
    return _Written(_STORED[type(item)], encode(item), "repair" if isinstance(item, Repaired) else "saga", "", headers)


_WRITERS: dict[type[Any], Callable[[SagaType, Any, SagaState, Envelope], _Written]] = {
    Begun: _write_begun,
    Asked: _write_asked,
    Answered: _write_answered,
    Told: _write_told,
    CancelSent: _write_cancel_sent,
    Completed: _write_end,
    SagaCommitted: _write_end,
    Undone: _write_end,
    Cancelled: _write_end,
}


def _of_step(envelope: Envelope, asked: Asked) -> Headers:
    return msgspec.structs.replace(envelope.headers(), step=asked.step, index=asked.index)


def outcome(item: Progress) -> Any:
    """The answer that a caller at the edge gets from the end of a saga."""
    match item:
        case Undone() | Cancelled():
            return item.cause
        case Completed() | SagaCommitted():
            return item.answer
        case _:
            raise TypeError(f"{type(item).__name__} does not end a saga, so it has no outcome")


def _type_of(answer: Any) -> str:
    if isinstance(answer, Rejection | Done):
        return REJECTED if isinstance(answer, Rejection) else DONE
    return message_of(answer).stored
