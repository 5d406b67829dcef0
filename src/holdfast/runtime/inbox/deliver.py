"""Delivering: which stream a received message is for, and how it is decided there.

These plain functions take a message and the service's dispatch. They are used when a message is received, when it is
tried again, when an operator repairs it, and when a repair is planned or simulated. An error of a handler is passed on.
Only a staged command that fails becomes a vote against the commit, since its coordinator waits for a vote.
"""

import contextlib
import logging
from typing import Any

import msgspec

from holdfast.core.declare.message import decode_stored
from holdfast.core.log.record import record_id
from holdfast.core.saga.stage import CONFIRM, HELD, StageAttempt, Vote, read, stage_of
from holdfast.core.wire.frame import WireRecord
from holdfast.errors import Rejected
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.locks import StreamLocked
from holdfast.runtime.inbox.message import Slot, WaitingMessage

logger = logging.getLogger("holdfast.received")


def stream_of(dispatch: Dispatch, producer: str, record: WireRecord) -> str:
    """The stream of a message: `?/...` if this service has no handler for it; empty for an answer nobody waits for."""
    if record.kind != "command":
        stream = record.headers.answers.rpartition("#")[0]
        if not stream:
            return ""
        return stream if stream.partition("/")[0] in dispatch.service.sagas else f"?/{stream}"
    found, key = dispatch.service.contract.find(record.type), record.headers.key
    stream = dispatch.stream_of(found[0], record_id(producer, record.position), key) if found else ""
    return stream or f"?/{record.type}/{key}"


def stream_now(dispatch: Dispatch, stream: str, message: WaitingMessage) -> str:
    """The stream on which a waiting message belongs in this release; an earlier release may have had another."""
    return stream if message.feed else stream_of(dispatch, message.producer, message.record) or stream


def known(dispatch: Dispatch, message: WaitingMessage) -> bool:
    """Whether this release knows the type and the version of a waiting message."""
    record, service = message.record, dispatch.service
    stored, contract = record.type, service.contract
    if stored == HELD:
        with contextlib.suppress(msgspec.DecodeError):
            stored = msgspec.json.decode(record.data, type=Vote).type
    if record.kind != "command":
        saga = service.sagas.get(record.headers.answers.partition("/")[0])
        contract = saga.contracts.get(stored.partition(".")[0]) if saga else None
    return bool(message.feed) or stored.startswith("holdfast.") or bool(contract and contract.find(stored))


def stage_told(producer: str, record: WireRecord) -> str:
    """The stage that a confirm or a cancel ends."""
    try:
        return stage_of(producer, record.stream, msgspec.json.decode(record.data, type=StageAttempt).attempt)
    except msgspec.DecodeError:
        return "?"


def envelope_of(producer: str, record: WireRecord, at: int, edited: str = "") -> Envelope:
    """The envelope of a received message. If a repair has changed the message, `edited` is the id of that repair."""
    headers = record.headers
    asked = record.kind == "command" and bool(record.stream)  # a reaction's command has no stream: nobody waits
    return Envelope(
        edited or record_id(producer, record.position),
        record.tx,
        at,
        record.correlation,
        headers.hop,
        headers.debug,
        headers.traceparent,
        producer if asked else "",
        f"{record.stream}#{record.version}" if asked else "",
        headers.edge,
    )


def envelope_at(message: WaitingMessage, at: int) -> Envelope:
    """The envelope of a waiting message that is handled at that time."""
    return envelope_of(message.producer, message.record, at, message.edited)


def open_message(dispatch: Dispatch, message: WaitingMessage, at: int) -> tuple[Any, Envelope]:
    """A waiting command and its envelope. Raises Invalid if the command cannot be decoded."""
    command = decode_stored(dispatch.service.contract, message.record.type, bytes(message.record.data))
    return command, envelope_at(message, at)


def deliver(dispatch: Dispatch, producer: str, record: WireRecord, stream: str, decision: Decision) -> Decision:
    """Decide one received message for a stream that is in memory; `decision` was opened with its envelope.

    Returns the valid decision: a staged command that fails gets a new decision, which votes no. Raises what the
    handler raises.
    """
    is_command = record.kind == "command"
    if is_command and record.type == CONFIRM:
        raise LookupError(f"nothing is held for {stage_told(producer, record)}, and it is to be confirmed")
    if stream.startswith("?/"):
        raise LookupError(f"{dispatch.service.name} has no handler for {record.type} ({stream[2:]})")
    if is_command and record.headers.stage:
        return _vote(dispatch, producer, record, stream, decision)
    if is_command:
        command = decode_stored(dispatch.service.contract, record.type, bytes(record.data))
        dispatch.command(command, stream, decision)
    elif stream:
        version = int(record.headers.answers.rpartition("#")[2])
        dispatch.sagas.answer(stream, version, record.type, bytes(record.data), decision)
    return decision


def _vote(dispatch: Dispatch, producer: str, record: WireRecord, stream: str, decision: Decision) -> Decision:
    """Decide a staged command and lock its stream; if its decider raises, the vote is no."""
    try:
        stage, (began, _) = read(producer, record.stream, record.headers.stage)
        command = decode_stored(dispatch.service.contract, record.type, bytes(record.data))
        dispatch.stages.hold(command, stream, stage, began, decision)
    except StreamLocked:
        raise
    except Exception as error:
        service, message = dispatch.service.name, decision.envelope.id
        logger.warning(
            "the staged command %s failed on the stream %s of %s; %s votes no",
            message,
            stream,
            service,
            service,
            extra={"service": service, "stream": stream, "message_id": message, "peer": producer},
            exc_info=error,
        )
        decision = Decision(decision.envelope, decision.streams)
        decision.reject(Rejected("failed", type(error).__name__), stream)
    return decision


def answer_waiting(slot: Slot, no: Rejected, decision: Decision) -> None:
    """Reject a waiting command instead of its decider, and remove its row."""
    to = envelope_at(slot.message, decision.envelope.at)
    decision.reject(no, slot.stream, to=to)
    if to.edge:
        decision.outcomes.append((to.tx, decision.answer, len(decision.records) - 1))
    decision.rows.append(slot.gone())
