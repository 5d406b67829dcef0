"""Commands over HTTP, and their outcomes.

Reads the caller's headers (idempotency key, correlation, preferences), runs the command at the node's edge, and answers
with the outcome: the accepting event is the body, the rest is in headers. Comes after the routes, before
`runtime.edge.commands`. Fails with `CommandError`s.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.core.declare.message import Command, MessageType, Rejection, decode_stored, encode, message_of
from holdfast.core.declare.service import Every
from holdfast.core.log.key import LABEL_CHARACTERS_MAX, label
from holdfast.core.log.record import REJECTED
from holdfast.core.wire.cloudevent import EVENT_TYPE
from holdfast.errors import Invalid, NotFound, Pending, Rejected, StoreError, Unavailable
from holdfast.runtime.decide.outcomes import Outcome
from holdfast.runtime.edge.commands import WAIT_SECONDS
from holdfast.runtime.edge.sweep import Swept, swept
from holdfast.runtime.node import Node
from holdfast.web.http import Request, Response, bounded_seconds, json_answer
from holdfast.web.problems import Refused

TRANSACTION, POSITION, TYPE = "Holdfast-Transaction", "Holdfast-Position", "Holdfast-Type"
CORRELATION = "X-Correlation-Id"
WAIT_SECONDS_MAX = 120.0

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_JSON = msgspec.json.Decoder()


class Asking(msgspec.Struct):
    """The options of a caller's request."""

    key: str = ""
    correlation: str = ""
    traceparent: str = ""
    debug: bool = False
    wait_seconds: float = WAIT_SECONDS
    asynchronous: bool = False


class _Incoming(msgspec.Struct):
    """A command as a CloudEvent (structured mode)."""

    specversion: str
    id: str
    source: str
    type: str
    data: msgspec.Raw
    correlation: str = ""
    traceparent: str = ""


def asking(request: Request) -> Asking:
    """The options of a request. Raises Invalid for an unusable key or label; other unknown options are ignored."""
    headers = request.headers
    found = Asking(
        label(headers.get("idempotency-key", ""), "Idempotency-Key"),
        correlation_of(request),
        traceparent(headers.get("traceparent") or headers.get("ce-traceparent", "")),
        headers.get("debug-log-enabled", "").strip().lower() == "true",
    )
    if not found.key and "ce-id" in headers:
        found.key = label(f"{headers.get('ce-source', '')}#{headers['ce-id']}", "ce-id")
    if prefer := headers.get("prefer"):
        _prefer(prefer, found)
    return found


def _prefer(text: str, found: Asking) -> None:
    """The caller's preferences (RFC 7240); unknown ones are ignored."""
    parts = (wish.partition(";")[0].strip().lower().partition("=") for wish in text.split(","))
    wishes = {name.strip(): value.strip() for name, _, value in parts}
    found.asynchronous = "respond-async" in wishes
    if found.asynchronous:
        found.wait_seconds = 0.0
    try:
        found.wait_seconds = bounded_seconds("wait", wishes.get("wait", ""), found.wait_seconds, WAIT_SECONDS_MAX)
    except Invalid:
        return


def correlation_of(request: Request) -> str:
    """The label that the caller gave, or an empty text. Raises Invalid."""
    headers = request.headers
    return label(headers.get("x-correlation-id") or headers.get("ce-correlation", ""), CORRELATION)


def traceparent(text: str) -> str:
    """The W3C trace context; empty if it is not valid, because such a context has to be ignored."""
    return text if len(text) <= LABEL_CHARACTERS_MAX and _TRACEPARENT.fullmatch(text) else ""


async def decode_command(request: Request, message: MessageType, stored: str, how: Asking) -> Any:
    """The command in a request's body: plain JSON, or a CloudEvent around it. Raises Invalid, HttpError 415."""
    body = await request.json_body()
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == EVENT_TYPE:
        try:
            event = msgspec.json.decode(body, type=_Incoming)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"the body is not a CloudEvent: {error}", errors=[("$", str(error))]) from None
        if event.type not in (stored, message.stored, message.name):
            raise Invalid(
                f"a CloudEvent of type {event.type} was sent to the command {stored}",
                errors=[("$.type", f"expected {message.stored}")],
            )
        how.key = how.key or label(f"{event.source}#{event.id}", "$.id")
        how.correlation = how.correlation or label(event.correlation, "$.correlation")
        how.traceparent = how.traceparent or traceparent(event.traceparent)
        body = bytes(event.data)
    if stored in (message.stored, message.name):
        return message.decode(body)
    return decode_stored(message.home, stored, body)


async def run(node: Node, command: Command[Any], request: Request, how: Asking) -> Response:
    """Run a command as the caller asks. Raises Refused around a Rejected, and the edge's CommandErrors."""
    if not node.takes_work:
        raise Unavailable(f"{node.name} is not running")
    try:
        outcome = await node.edge.run(
            command,
            key=how.key,
            correlation=how.correlation,
            debug=how.debug,
            traceparent=how.traceparent,
            wait_seconds=how.wait_seconds,
        )
    except Pending as error:
        _tell(request, how, error.tx, 0)
        if not how.asynchronous:
            raise
        return _later(request, error.tx, None)
    _tell(request, how, outcome.tx, outcome.position)
    if how.asynchronous and how.wait_seconds == 0:
        return _later(request, outcome.tx, outcome)
    if isinstance(outcome.answer, Rejection):
        raise rejected(outcome.answer)
    return Response(encode(outcome.answer), 200, {TYPE: message_of(outcome.answer).stored})


async def run_every(node: Node, sweeps: Sequence[Every], request: Request, how: Asking) -> Response:
    """Run a command on every aggregate of some types: `{"accepted", "rejected"}`, counted. Raises CommandErrors."""
    if not node.takes_work:
        raise Unavailable(f"{node.name} is not running")
    done = Swept()
    for sweep in sweeps:
        await swept(node.edge, node.store, sweep, done, key=how.key, correlation=how.correlation)
    return json_answer({"accepted": done.accepted, "rejected": done.rejected})


def _tell(request: Request, how: Asking, tx: str, position: int) -> None:
    request.out |= {TRANSACTION: tx, CORRELATION: how.correlation or tx}
    if position:
        request.out[POSITION] = str(position)


def rejected(no: Rejection) -> Rejected:
    """A recorded rejection as the exception that was raised."""
    error = Rejected(no.code, no.message)
    error.facts = no.facts
    return error


def _later(request: Request, tx: str, outcome: Outcome | None) -> Response:
    headers = {"Location": f"{request.mount}/transactions/{tx}", "Preference-Applied": "respond-async"}
    return json_answer(status_of(tx, outcome), 202, headers)


def status_of(tx: str, outcome: Outcome | None) -> dict[str, Any]:
    """The state of a transaction, as plain values."""
    if outcome is None:
        return {"transaction": tx, "status": "pending"}
    no = isinstance(outcome.answer, Rejection)
    return {
        "transaction": tx,
        "status": "rejected" if no else "accepted",
        "type": REJECTED if no else message_of(outcome.answer).stored,
        "answer": outcome.answer,
        "position": outcome.position,
    }


async def transaction(node: Node, request: Request) -> Response:
    """GET /transactions/{tx}: pending, accepted or rejected. Raises NotFound for a transaction that was not begun
    here."""
    tx = request.params["tx"]
    try:
        outcome = await node.edge.status(tx)
        begun = outcome is not None or any(record.cause == tx for record in await node.store.related(tx=tx))
    except StoreError as error:
        raise Refused(error, {}) from None
    if not begun:
        raise NotFound(f"transaction {tx[:200]} was not begun in {node.name}")
    request.out[TRANSACTION] = tx if tx.isascii() else ""
    return json_answer(status_of(tx, outcome))
