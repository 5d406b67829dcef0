"""Repair of what waits and of sagas (G11): retry, skip, undo, resolve, each a record with who and why.

A person names a message that waits (`service@position`) or a saga (`Type/id`) of this service. What is said twice
changes nothing: `already`. `runtime.ops.plan` says beforehand what a repair would do. Comes after
`runtime.inbox.waiting` and `runtime.decide.sagas`; the writer commits the word with what follows from it. Fails with
`NotFound`, `Invalid` and `Contradicted`, which says why a repair cannot be.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from holdfast.core.batch import Batch, Duplicate
from holdfast.core.frame import WireRecord
from holdfast.core.mending import Verb
from holdfast.core.message import decode_stored, encode, message_of
from holdfast.core.record import Record, parse_record_id, record_id
from holdfast.errors import Contradicted, Invalid, NotFound, Rejected
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.execute.effects import OutcomeWork
from holdfast.runtime.inbox.message import Held, Place
from holdfast.runtime.inbox.receive import answer_unheard, envelope_of, stream_of
from holdfast.runtime.log.work import BatchWork
from holdfast.runtime.ops.why import undeclared

if TYPE_CHECKING:
    from holdfast.runtime.node import Node

RETRIED, SKIPPED, RESOLVED = "holdfast.repair.retried", "holdfast.repair.skipped", "holdfast.repair.outcome"
"""Stored types of a person's word on a message."""
Kind = Literal["retry", "skip", "undo", "resolve"]


class Ask(msgspec.Struct, frozen=True):
    """A repair that a person asks for."""

    kind: Kind
    target: str
    by: str
    why: str
    data: msgspec.Raw | None = None
    """Of `retry`: the payload to try in the place of the old one; of `resolve` as done: the event that an effect's
    outcome is."""
    decision: str = ""
    """Of `resolve`: `done`, `refused` (an effect) or `undone` (a saga)."""
    stream: str = ""
    """Where a message waits on several, as an event that two consumers fail at: which. Empty: where it waits first."""


class Mended(msgspec.Struct, frozen=True):
    """What a repair did."""

    service: str
    kind: str
    target: str
    how: Literal["applied", "already"]
    record: str = ""
    """The id of the record that says so."""
    note: str = ""


async def mend(node: "Node", ask: Ask) -> Mended:
    """Carry out a repair in this service, when it is durable. Raises Invalid, NotFound, Contradicted, Unavailable."""
    check_said(ask)
    if "/" in ask.target:
        return await _mend_saga(node, ask)
    return await _mend_message(node, ask)


def check_said(ask: Ask) -> None:
    """See that a repair says who, why and of what. Raises Invalid."""
    for name in ("by", "why", "target"):
        if not getattr(ask, name).strip():
            raise Invalid(f"a repair says who, why and of what: {name} is missing", errors=[(name, "missing")])


def held_at(node: "Node", target: str, stream: str = "") -> tuple[str, Place] | None:
    """The stream and place of a message that waits here; None where it does not wait any more. Raises NotFound."""
    found = node.waiting.find(target, stream)
    parsed = parse_record_id(target)
    if found is not None or parsed is None:
        if parsed is None:
            raise NotFound(f"{target[:200]} is no message (service@position) and no saga (Type/id)")
        return found
    producer, position = parsed
    conversations = node.conversations.conversations if node.conversations is not None else {}
    taken = [conversations[producer].cursor.position] if producer in conversations else []
    taken += [one.position for one in node.feeds.subscriptions if one.producer == producer]
    taken += [node.writer.head] if producer == node.name else []
    if position > max(taken, default=0):
        raise NotFound(f"{node.name} has not received {target}")
    return None


def verb_of(ask: Ask) -> Verb:
    """What a repair means for a saga. Raises Invalid."""
    if ask.kind != "resolve":
        return ask.kind
    if ask.decision == "done":
        return "done"
    if ask.decision == "undone":
        return "undone"
    raise Invalid("a saga is resolved as done or undone", errors=[("$.decision", "done or undone")])


async def _mend_saga(node: "Node", ask: Ask) -> Mended:
    name = ask.target.partition("/")[0]
    if name not in node.service.sagas:
        (row,) = await node.store.get("saga", [ask.target])
        raise NotFound(f"{node.name} has no saga {ask.target[:200]}" if row is None else undeclared(name))
    verb = verb_of(ask)
    first = await node.store.related(stream=ask.target, limit=1)
    if not first:
        raise NotFound(f"{node.name} has no saga {ask.target[:200]}")
    work = _SagaWork(node, ask, verb, first[0])
    node.writer.submit(work)
    position = await asyncio.shield(work.done)
    if position is None:
        return Mended(node.name, ask.kind, ask.target, "already", note=work.note)
    return Mended(node.name, ask.kind, ask.target, "applied", record_id(node.name, position))


async def _mend_message(node: "Node", ask: Ask) -> Mended:
    found = held_at(node, ask.target, ask.stream)
    if found is None:
        return Mended(node.name, ask.kind, ask.target, "already", note="it does not wait any more")
    stream, place = found
    if no := refused(node, ask, stream, place):
        raise Contradicted(no)
    if ask.kind == "resolve":
        return await _settle(node, ask, stream, place)
    edited = edited_of(node, ask, stream, place.held)
    if note := in_turn(ask, place.held, edited):
        return Mended(node.name, ask.kind, ask.target, "already", note=note)
    work = _MessageWork(node, ask, stream, place, edited)
    try:
        node.writer.submit(work)
        position = await asyncio.shield(work.done)
        if position is None:
            how = "it is being tried now" if place.running else "it does not wait any more"
            return Mended(node.name, ask.kind, ask.target, "already", note=how)
        identity = record_id(node.name, position)
        if edited is not None and node.waiting.has(stream, place.key):
            place.held.record, place.held.edited = edited, identity
            fresh = msgspec.structs.replace(place.held, parked=0, attempts=0, next_at=0)
            second = BatchWork(Batch(rows=(node.waiting.row_of(Place(place.key, fresh, True)),)))
            node.writer.submit(second)
            await asyncio.shield(second.done)
    finally:
        if work.changes:
            place.changing = False
            node.waiting.again(stream)
    if ask.kind == "retry":
        node.waiting.release(stream, place)
    return Mended(node.name, ask.kind, ask.target, "applied", identity)


def refused(node: "Node", ask: Ask, stream: str, place: Place) -> str:
    """Why a message that waits cannot be repaired so; empty when it can."""
    held, effect = place.held, node.service.effects.get(stream.partition("/")[0])
    if ask.kind == "undo":
        return "a message is retried, skipped, or resolved; what is undone is a saga"
    if ask.kind == "resolve" and effect is None:
        return f"{held.id} is no effect: what becomes of it is decided here; retry or skip it"
    if ask.kind == "resolve" and ask.decision not in ("done", "refused"):
        return "an effect is resolved as done or refused"
    if place.running and ask.kind != "retry":
        return f"{held.id} is being carried out now: wait for what becomes of it"
    if ask.kind == "skip" and held.unknown:
        return f"what became of {held.id} is unknown: resolve it as done or refused"
    if ask.kind == "skip" and held.record.kind != "command" and not held.feed:
        return f"{held.id} is an answer, and its saga needs it: mend what fails, then retry"
    if ask.kind == "retry" and ask.data is not None and held.unknown:
        return f"what became of {held.id} is unknown: it cannot be changed any more"
    if (
        ask.kind == "retry"
        and ask.data is not None
        and (held.record.kind != "command" or held.record.type.startswith("holdfast."))
    ):
        return "only a command can be changed"
    return ""


def in_turn(ask: Ask, held: Held, edited: WireRecord | None) -> str:
    """Why there is nothing to retry: it has not failed, and is as the word would make it; empty when there is."""
    same = edited is None or bytes(edited.data) == bytes(held.record.data)
    return "it has not failed: its turn comes" if ask.kind == "retry" and same and not held.error else ""


def edited_of(node: "Node", ask: Ask, stream: str, held: Held) -> WireRecord | None:
    """The message with its new payload, which must fit its type and be for the same stream. Raises Invalid."""
    if ask.data is None:
        return None
    command = decode_stored(node.service.contract, held.record.type, bytes(ask.data))
    message = message_of(command)
    key = message.key_of(command) if message.key_fields else ""
    headers = msgspec.structs.replace(held.record.headers, key=key)
    changed = msgspec.structs.replace(
        held.record, type=message.stored, data=msgspec.Raw(encode(command)), headers=headers
    )
    if (found := stream_of(node.dispatch, held.producer, changed)) != stream:
        why = f"it waits on {stream}, and changed so it would be for {found}"
        raise Invalid(why, errors=[("$.data", why)])
    return changed


async def _settle(node: "Node", ask: Ask, stream: str, place: Place) -> Mended:
    held = place.held
    envelope = envelope_of(held.producer, held.record, node.clock.now_us(), held.edited)
    outcome: Any = Rejected("refused", ask.why, by=ask.by)
    if ask.decision == "done":
        outcome = event_of(node, ask, held)
    body = {"by": ask.by, "why": ask.why, "message": held.id, "outcome": ask.decision}
    word = _word(RESOLVED, body, stream, held, envelope.at)
    work = OutcomeWork(node.effects, stream, place.key, held.started, envelope, outcome, word=word)
    node.writer.submit(work)
    await asyncio.shield(work.done)
    return Mended(node.name, ask.kind, ask.target, "applied")


def event_of(node: "Node", ask: Ask, held: Held) -> Any:
    """The event that a person says an effect's outcome is. Raises Invalid."""
    effect = node.service.effects[stream_of(node.dispatch, held.producer, held.record).partition("/")[0]]
    names = " or ".join(cls.__name__ for cls in effect.command.answers)
    if ask.data is None:
        raise Invalid(f"say what was done: data is a {names}", errors=[("$.data", f"a {names}")])
    reason = ""
    for cls in effect.command.answers:
        try:
            return msgspec.json.decode(bytes(ask.data), type=cls)
        except msgspec.DecodeError as error:
            reason = str(error)
    raise Invalid(f"data is no {names}: {reason}", errors=[("$.data", reason)])


def _word(stored: str, body: dict[str, Any], stream: str, held: Held, at: int) -> Record:
    """A person's word on a message: beside its stream, caused by it."""
    return Record(0, "repair", stored, encode(body), held.record.tx, held.id, at, held.record.correlation, stream)


class _MessageWork:
    """Retry or skip of a message, on its way through the writer."""

    __slots__ = ("_ask", "_edited", "_handled", "_node", "_number", "_place", "_stream", "_taken", "changes", "done",
                 "lane", "streams")  # fmt: skip

    def __init__(self, node: "Node", ask: Ask, stream: str, place: Place, edited: WireRecord | None) -> None:
        self._node, self._ask, self._stream, self._place, self._edited = node, ask, stream, place, edited
        self.lane, self.streams = "", ()
        self._handled: Handled | None = None
        self._number, self._taken = 0, False
        self.changes = False
        """The message is not tried until its new payload is durable."""
        self.done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def handle(self) -> Batch | None:
        """The word; with it, of a message that is skipped, the answer."""
        node, ask, held, self._taken = self._node, self._ask, self._place.held, False
        waiting, handled = node.waiting, Handled()
        if self._place.key in waiting.leaving:
            raise Contradicted(f"{held.id} has an outcome already")
        if not waiting.has(self._stream, self._place.key) or (ask.kind == "retry" and self._place.running):
            self.done.set_result(None)
            return None
        at = node.clock.now_us()
        body: dict[str, Any] = {"by": ask.by, "why": ask.why, "message": held.id}
        if ask.kind == "retry":
            if self._place.changing:
                raise Contradicted(f"{held.id} is being changed by somebody else now")
            # A try that began while the word is flushed would end under another id, and so another idempotency key.
            self._place.changing = self.changes = self._edited is not None
            body |= {"type": self._edited.type, "data": self._edited.data} if self._edited is not None else {}
            handled.records.append(_word(RETRIED, body, self._stream, held, at))
            fresh = msgspec.structs.replace(held, parked=0, attempts=0, next_at=0)
            if self._edited is None and self._stream.partition("/")[0] not in node.service.handlers:
                handled.rows.append(waiting.row_of(Place(self._place.key, fresh, True)))
        else:
            if refused(node, ask, self._stream, self._place):
                raise Contradicted(f"{held.id} is being carried out now")
            handled.records.append(_word(SKIPPED, body, self._stream, held, at))
            no = Rejected("skipped", ask.why, by=ask.by)
            answer_unheard(waiting, self._place, no, at, handled)
            if held.feed:
                del handled.records[1:]  # nobody waits for an answer
            self._number, self._taken = waiting.take(self._stream, self._place), True
        self._handled = handled
        return Batch(tuple(handled.records), (), (), tuple(handled.rows))

    def landed(self, position: int) -> None:
        """It is durable."""
        self._node.waiting.settled(self._handled, position)
        if self._taken:
            self._node.waiting.again(self._stream)
        self.done.set_result(position)

    def taken_back(self) -> None:
        """It waits as before."""
        if self._taken:
            self._node.waiting.put_in([(self._stream, self._number, self._place)])
            self._taken = False
        if self.changes:
            self._place.changing = self.changes = False

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self.failed(RuntimeError("a repair has no fresh rows"))

    def failed(self, error: Exception) -> None:
        """Nothing of it was written."""
        if not self.done.done():
            self.done.set_exception(error)


class _SagaWork:
    """A person's word on a saga, on its way through the writer."""

    __slots__ = ("_ask", "_first", "_handled", "_node", "_verb", "done", "lane", "note", "streams")

    def __init__(self, node: "Node", ask: Ask, verb: Verb, first: Record) -> None:
        self._node, self._ask, self._first = node, ask, first
        self._verb: Verb = verb
        self.lane, self.streams = "", (ask.target,)
        self.note = ""
        self._handled: Handled | None = None
        self.done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def handle(self) -> Batch | None:
        """The word, and all that follows from it now."""
        node, stream, ask, first = self._node, self.streams[0], self._ask, self._first
        state = node.memory[stream].state
        self.note = already(state, self._verb)
        if self.note:
            self.done.set_result(None)
            return None
        handled = self._handled = Handled()
        cause = record_id(node.name, first.position)
        envelope = Envelope(
            cause, first.tx, node.clock.now_us(), first.correlation, first.headers.hop, first.headers.debug
        )
        node.dispatch.sagas.mend(stream, self._verb, ask.by, ask.why, envelope, node.memory, handled)
        return Batch(tuple(handled.records), tuple(handled.reads), (), tuple(handled.rows))

    def landed(self, position: int) -> None:
        """It is durable."""
        self._node.waiting.settled(self._handled, position)
        self.done.set_result(position)

    def taken_back(self) -> None:
        """It has changed nothing beside the saga in memory."""
        self._handled = None

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self.failed(RuntimeError("a repair has no fresh rows"))

    def failed(self, error: Exception) -> None:
        """Nothing of it was written."""
        if not self.done.done():
            self.done.set_exception(error)


def already(state: Any, verb: Verb) -> str:
    """Why a repair of a saga has nothing to do; empty when it has."""
    if verb == "undo":
        return f"the saga is {state.status}" if state.status in ("undoing", "undone", "cancelling") else ""
    if verb in ("retry", "skip"):
        return "" if state.status == "stuck" else f"the saga is {state.status}, not stuck"
    return f"the saga is {state.status}" if state.ended and state.status in ("completed", "undone") else ""
