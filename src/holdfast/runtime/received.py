"""Received messages: which stream one is for, what is known of it, and how it is decided.

Comes between what receives (exchange, and waiting for what was set aside) and dispatch. What a handler raises is passed
on: whoever brought the message decides whether it waits.
"""

from typing import Any

from holdfast.core.frame import WireRecord
from holdfast.core.message import decode_stored
from holdfast.core.record import record_id
from holdfast.core.saga import SagaType
from holdfast.runtime.dispatch import Dispatch, Envelope, Handled
from holdfast.runtime.memory import Memory


def stream_of(dispatch: Dispatch, producer: str, record: WireRecord) -> str:
    """The stream a message is for; `?/...` when this service has none for it; empty for an answer nobody waits for."""
    if record.kind != "command":
        stream = record.headers.answers.rpartition("#")[0]
        if not stream:
            return ""
        return stream if stream.partition("/")[0] in dispatch.service.sagas else f"?/{stream}"
    found = dispatch.service.contract.find(record.type)
    by = dispatch.service.deciders.get(found[0].name) if found else None
    if by is None:
        return f"?/{record.type}/{record.headers.key}"
    if isinstance(by, SagaType):
        return f"{by.name}/{record_id(producer, record.position)}"
    return f"{by.name}/{record.headers.key}"


def envelope_of(producer: str, record: WireRecord, at: int) -> Envelope:
    """The envelope of a received message."""
    headers = record.headers
    asked = record.kind == "command" and bool(record.stream)  # a reaction's command has no stream: nobody waits
    return Envelope(
        record_id(producer, record.position), record.tx, at, record.correlation, headers.hop, headers.debug,
        headers.traceparent, producer if asked else "", f"{record.stream}#{record.version}" if asked else "",
    )  # fmt: skip


def open_message(dispatch: Dispatch, producer: str, record: WireRecord, at: int) -> tuple[Any, Envelope]:
    """A received command and its envelope. Raises Invalid."""
    command = decode_stored(dispatch.service.contract, record.type, bytes(record.data))
    return command, envelope_of(producer, record, at)


def handle_message(dispatch: Dispatch, memory: Memory, producer: str, record: WireRecord, at: int) -> Handled:
    """Decide one received message, its streams in memory. Raises what the handler raises."""
    headers, is_command = record.headers, record.kind == "command"
    envelope = envelope_of(producer, record, at)
    stream = stream_of(dispatch, producer, record)
    if stream.startswith("?/"):
        raise LookupError(f"{dispatch.service.name} has no handler for {record.type} ({stream[2:]})")
    if is_command:
        command, envelope = open_message(dispatch, producer, record, at)
        return dispatch.command(command, stream, envelope, memory)
    handled = Handled()
    if stream:
        version = int(headers.answers.rpartition("#")[2])
        dispatch.sagas.answer(stream, version, record.type, bytes(record.data), envelope, memory, handled)
    return handled
