"""Progress of sagas as records of the log, and records back as progress.

A command that is asked is a command record, the final answer an event or a rejection, a person's word a repair, the
rest `holdfast.saga.*`. `runtime.decide.sagas` writes and folds them; `core.progress` says what they mean. Reading fails
with what decoding raises.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.core.message import Rejection, decode_stored, encode, message_of
from holdfast.core.progress import (
    Again,
    Answered,
    Asked,
    Begun,
    CalledOff,
    Cancelled,
    Committed,
    Completed,
    Overdue,
    Progress,
    Repaired,
    SagaState,
    Settled,
    Skipped,
    Stuck,
    Told,
    Undoing,
    Undone,
)
from holdfast.core.record import CALL_OFF, REJECTED, Headers, Record
from holdfast.core.saga import SagaType
from holdfast.core.stage import CANCEL, CONFIRM, DONE, HELD, Decision, Vote, written

if TYPE_CHECKING:
    from holdfast.runtime.decide.decision import Envelope

SAGA = "holdfast.saga."
_BODIES: dict[str, type[Any]] = {
    "skipped": Skipped, "overdue": Overdue, "stuck": Stuck, "undoing": Undoing, "again": Again, "settled": Settled,
    "cancelled": Cancelled,
}  # fmt: skip
_NAMES = {cls: name for name, cls in _BODIES.items()}
_ENDS, _OF_STEPS = (Completed, Undone, Committed, Cancelled), (Skipped, Overdue, Stuck, Undoing)


REPAIRED = "holdfast.repair.saga"
"""The stored type of a person's word on a saga."""


class Target(msgspec.Struct, frozen=True):
    """Of a cancel: the version, in the saga's stream, of the command that is called off."""

    version: int


class _Begun(msgspec.Struct):
    type: str
    message: msgspec.Raw
    shape: str
    destination: str = ""
    answers: str = ""
    at: int = 0


class _Answered(msgspec.Struct):
    to: int
    type: str
    answer: msgspec.Raw


def from_record(saga: SagaType, record: Record) -> Progress:
    """The progress that a saga's record stands for."""
    if record.type == REPAIRED:
        return msgspec.json.decode(record.data, type=Repaired)
    if record.kind == "command":
        headers = record.headers
        if record.type == CALL_OFF:
            return CalledOff(msgspec.json.decode(record.data, type=Target).version)
        if record.type in (CONFIRM, CANCEL):
            attempt = msgspec.json.decode(record.data, type=Decision).attempt
            return Told(record.destination, record.type == CONFIRM, attempt)
        command = decode_stored(saga.contracts[record.type.partition(".")[0]], record.type, record.data)
        return Asked(headers.step, headers.index, command, headers.attempt, headers.undoes)
    if record.kind == "event":
        event = decode_stored(saga.contracts[record.type.partition(".")[0]], record.type, record.data)
        return Committed(event) if saga.staged else Completed(event)
    if record.type == REJECTED:
        cause = msgspec.json.decode(record.data, type=Rejection)
        return Cancelled(cause) if saga.staged else Undone(cause)
    name = record.type.removeprefix(SAGA)
    if name == "begun":
        body = msgspec.json.decode(record.data, type=_Begun)
        message = decode_stored(saga.begin.home, body.type, bytes(body.message))
        return Begun(message, body.shape, body.destination, body.answers, body.at)
    if name == "answered":
        found = msgspec.json.decode(record.data, type=_Answered)
        return Answered(found.to, decode_answer(saga, found.type, bytes(found.answer)))
    if name == "committed":
        return Committed()
    if name in ("completed", "undone"):
        return Completed() if name == "completed" else Undone(msgspec.json.decode(record.data, type=Rejection))
    return msgspec.json.decode(record.data, type=_BODIES[name])


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


def to_record(
    saga: SagaType, stream: str, version: int, item: Progress, state: SagaState, envelope: "Envelope"
) -> Record:
    """The record that says this, at that version of the saga's stream."""
    kind, stored, data, destination = "saga", "", b"{}", ""
    headers = envelope.headers()
    begun = state.begun or Begun(None, "")
    if isinstance(item, Asked):
        message = message_of(item.command)
        kind, stored, data, destination = "command", message.stored, encode(item.command), message.contract
        key = message.key_of(item.command) if message.key_fields else ""
        headers = Headers(
            envelope.hop, envelope.debug, envelope.traceparent, key,
            step=item.step, index=item.index, attempt=item.attempt, undoes=item.undoes,
            early=not item.undoes and saga.by_name[item.step] < saga.pivot,
            stage=written(begun.at, state.attempt) if saga.staged else "",
        )  # fmt: skip
    elif isinstance(item, Answered):
        stored = SAGA + "answered"
        data = encode({"to": item.to, "type": _type_of(item.answer), "answer": item.answer})
        if (asked := state.asked.get(item.to)) is not None:
            headers = msgspec.structs.replace(headers, step=asked.step, index=asked.index)
    elif isinstance(item, Told):
        kind, stored, destination = "command", CONFIRM if item.commit else CANCEL, item.service
        data = encode(Decision(item.attempt))
    elif isinstance(item, CalledOff):
        asked = state.asked[item.to]
        kind, stored, destination = "command", CALL_OFF, message_of(asked.command).contract
        data, headers = encode(Target(item.to)), msgspec.structs.replace(headers, step=asked.step, index=asked.index)
    elif isinstance(item, Repaired):
        kind, stored, data = "repair", REPAIRED, encode(item)
    elif isinstance(item, Begun):
        stored = SAGA + "begun"
        body = {"type": saga.begin.stored, "message": item.message, "shape": item.shape,
                "destination": item.destination, "answers": item.answers}  # fmt: skip
        data = encode(body | {"at": item.at} if item.at else body)
    elif isinstance(item, _ENDS) and not getattr(item, "again", False):
        edge = saga.begin.kind == "command" and not begun.destination
        kind, stored, data = _end(item)
        if saga.begin.kind == "event" and isinstance(item, (Undone, Cancelled)):
            kind, stored = "saga", SAGA + _END_NAMES[type(item)]
            data = encode(item) if isinstance(item, Cancelled) else data
        destination = begun.destination
        headers = msgspec.structs.replace(headers, answers=begun.answers, outcome=edge)
    else:
        stored, data = SAGA + _NAMES[type(item)], encode(item)
        if isinstance(item, _OF_STEPS):
            headers = msgspec.structs.replace(headers, step=item.step)
    return Record(
        0, kind, stored, data, envelope.tx, envelope.id, envelope.at, envelope.correlation, stream, version,
        destination, headers,
    )  # fmt: skip


def outcome(item: Progress) -> Any:
    """What a caller at the edge gets of a saga's end."""
    match item:
        case Undone() | Cancelled():
            return item.cause
        case Completed() | Committed():
            return item.answer
        case _:
            raise TypeError(f"{type(item).__name__} is no end of a saga")


_END_NAMES: dict[type[Any], str] = {
    Completed: "completed", Committed: "committed", Undone: "undone", Cancelled: "cancelled",
}  # fmt: skip


def _type_of(answer: Any) -> str:
    if isinstance(answer, (Rejection, Done)):
        return REJECTED if isinstance(answer, Rejection) else DONE
    return message_of(answer).stored


def _end(item: Completed | Undone | Committed | Cancelled) -> tuple[Any, str, bytes]:
    if isinstance(item, (Undone, Cancelled)):
        return "answer", REJECTED, encode(item.cause)
    if item.answer is None:
        return "saga", SAGA + _END_NAMES[type(item)], b"{}"
    return "event", message_of(item.answer).stored, encode(item.answer)
