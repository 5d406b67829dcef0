"""Repair of what waits and of sagas (G11): retry, skip, undo, resolve, each a record with who and why.

An operator names a message that waits (`service@position`) or a saga (`Type/id`) of this service. What is said twice
changes nothing: `already`. `runtime.ops.plan` says beforehand what a repair would do. Comes after
`runtime.inbox.waiting` and `runtime.decide.sagas`; the writer commits the word with what follows from it. Fails with
`NotFound`, `Invalid` and `Contradicted`, which says why a repair cannot be.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from holdfast.core.declare.message import decode_stored, encode, message_of
from holdfast.core.explain.plan import RepairResult
from holdfast.core.log.batch import Batch
from holdfast.core.log.record import Record, parse_record_id, record_id
from holdfast.core.saga.repair import Verb
from holdfast.core.wire.frame import WireRecord
from holdfast.errors import Contradicted, Invalid, NotFound, Rejected
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.execute.effects import OutcomeWork
from holdfast.runtime.inbox.deliver import answer_waiting, envelope_at, stream_of
from holdfast.runtime.inbox.message import Slot, WaitingMessage
from holdfast.runtime.inbox.waiting import Removed
from holdfast.runtime.log.work import AwaitedWork, BatchWork
from holdfast.runtime.node import Node
from holdfast.runtime.ops.status import undeclared

RETRIED, SKIPPED, RESOLVED = "holdfast.repair.retried", "holdfast.repair.skipped", "holdfast.repair.outcome"
"""Stored types of an operator's repair on a message."""
Kind = Literal["retry", "skip", "undo", "resolve"]


class Ask(msgspec.Struct, frozen=True):
    """A repair that an operator asks for."""

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


async def repair(node: Node, ask: Ask) -> RepairResult:
    """Carry out a repair in this service, when it is durable. Raises Invalid, NotFound, Contradicted, Unavailable."""
    check_said(ask)
    if "/" in ask.target:
        return await _repair_saga(node, ask)
    return await _repair_message(node, ask)


def check_said(ask: Ask) -> None:
    """See that a repair says who, why and of what. Raises Invalid."""
    for name in ("by", "why", "target"):
        if not getattr(ask, name).strip():
            raise Invalid(f"a repair says who, why and of what: {name} is missing", errors=[(name, "missing")])


def slot_of(node: Node, target: str, stream: str = "") -> Slot | None:
    """The slot of a message that waits here; None where it does not wait any more. Raises NotFound."""
    found = node.waiting.find(target, stream)
    parsed = parse_record_id(target)
    if found is not None or parsed is None:
        if parsed is None:
            raise NotFound(f"{target[:200]} is no message (service@position) and no saga (Type/id)")
        return found
    producer, position = parsed
    conversations = node.conversations.conversations
    taken = [conversations[producer].state.durable.position] if producer in conversations else []
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


async def _repair_saga(node: Node, ask: Ask) -> RepairResult:
    name = ask.target.partition("/")[0]
    if name not in node.service.sagas:
        (row,) = await node.store.get("saga", [ask.target])
        raise NotFound(f"{node.name} has no saga {ask.target[:200]}" if row is None else undeclared(name))
    verb = verb_of(ask)
    first = await node.store.related(stream=ask.target, limit=1)
    if not first:
        raise NotFound(f"{node.name} has no saga {ask.target[:200]}")
    work = SagaRepairWork(node, ask, verb, first[0])
    node.writer.submit(work)
    position = await asyncio.shield(work.done)
    if position is None:
        return RepairResult(node.name, ask.kind, ask.target, "already", note=work.note)
    return RepairResult(node.name, ask.kind, ask.target, "applied", record_id(node.name, position))


async def _repair_message(node: Node, ask: Ask) -> RepairResult:
    slot = slot_of(node, ask.target, ask.stream)
    if slot is None:
        return RepairResult(node.name, ask.kind, ask.target, "already", note="it does not wait any more")
    if no := refused(node, ask, slot):
        raise Contradicted(no)
    if ask.kind == "resolve":
        return await _resolve_effect(node, ask, slot)
    edited = edited_of(node, ask, slot)
    if note := in_turn(ask, slot.message, edited):
        return RepairResult(node.name, ask.kind, ask.target, "already", note=note)
    work: AwaitedWork[int | None]
    if ask.kind == "skip":
        work = SkipWork(node, ask, slot)
    elif edited is None:
        work = RetryNowWork(node, ask, slot)
    else:
        work = EditWork(node, ask, slot, edited)
    node.writer.submit(work)
    position = await asyncio.shield(work.done)
    if position is None:
        how = "it is being tried now" if slot.running else "it does not wait any more"
        return RepairResult(node.name, ask.kind, ask.target, "already", note=how)
    return RepairResult(node.name, ask.kind, ask.target, "applied", record_id(node.name, position))


def refused(node: Node, ask: Ask, slot: Slot) -> str:
    """Why a message that waits cannot be repaired so; empty when it can."""
    message, effect = slot.message, node.service.effects.get(slot.stream.partition("/")[0])
    if ask.kind == "undo":
        return "a message is retried, skipped, or resolved; what is undone is a saga"
    if ask.kind == "resolve" and effect is None:
        return f"{message.id} is no effect: what becomes of it is decided here; retry or skip it"
    if ask.kind == "resolve" and ask.decision not in ("done", "refused"):
        return "an effect is resolved as done or refused"
    if slot.running and ask.kind != "retry":
        return f"{message.id} is being carried out now: wait for what becomes of it"
    if ask.kind == "skip" and message.unknown:
        return f"what became of {message.id} is unknown: resolve it as done or refused"
    if ask.kind == "skip" and message.record.kind != "command" and not message.feed:
        return f"{message.id} is an answer, and its saga needs it: fix what fails, then retry"
    if ask.kind == "retry" and ask.data is not None and message.unknown:
        return f"what became of {message.id} is unknown: it cannot be changed any more"
    if (
        ask.kind == "retry"
        and ask.data is not None
        and (message.record.kind != "command" or message.record.type.startswith("holdfast."))
    ):
        return "only a command can be changed"
    return ""


def in_turn(ask: Ask, message: WaitingMessage, edited: WireRecord | None) -> str:
    """Why there is nothing to retry: it has not failed, and is as the repair would make it; empty when there is."""
    same = edited is None or bytes(edited.data) == bytes(message.record.data)
    return "it has not failed; it is still in the queue" if ask.kind == "retry" and same and not message.error else ""


def edited_of(node: Node, ask: Ask, slot: Slot) -> WireRecord | None:
    """The message with its new payload, which must fit its type and be for the same stream. Raises Invalid."""
    if ask.data is None:
        return None
    record = slot.message.record
    command = decode_stored(node.service.contract, record.type, bytes(ask.data))
    message = message_of(command)
    key = message.key_of(command) if message.key_fields else ""
    headers = msgspec.structs.replace(record.headers, key=key)
    changed = msgspec.structs.replace(record, type=message.stored, data=msgspec.Raw(encode(command)), headers=headers)
    if (found := stream_of(node.dispatch, slot.message.producer, changed)) != slot.stream:
        why = f"it waits on {slot.stream}, and changed so it would be for {found}"
        raise Invalid(why, errors=[("$.data", why)])
    return changed


async def _resolve_effect(node: Node, ask: Ask, slot: Slot) -> RepairResult:
    """Say what became of an effect's call, as its outcome."""
    message = slot.message
    envelope = envelope_at(message, node.clock.now_us())
    outcome: Any = Rejected("refused", ask.why, by=ask.by)
    if ask.decision == "done":
        outcome = event_of(node, ask, message)
    body = {"by": ask.by, "why": ask.why, "message": message.id, "outcome": ask.decision}
    work = OutcomeWork(node.effects, slot, envelope, outcome, repair=_repair_record(RESOLVED, body, slot, envelope.at))
    node.writer.submit(work)
    await asyncio.shield(work.done)
    return RepairResult(node.name, ask.kind, ask.target, "applied")


def event_of(node: Node, ask: Ask, message: WaitingMessage) -> Any:
    """The event that an operator says an effect's outcome is. Raises Invalid."""
    effect = node.service.effects[stream_of(node.dispatch, message.producer, message.record).partition("/")[0]]
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


def _repair_record(stored: str, body: dict[str, Any], slot: Slot, at: int) -> Record:
    """The record of an operator's repair of a message: beside its stream, caused by it."""
    message = slot.message
    tx, correlation = message.record.tx, message.record.correlation
    return Record(0, "repair", stored, encode(body), tx, message.id, at, correlation, slot.stream)


def _still_waits(node: Node, slot: Slot) -> bool:
    """Whether a message still waits. Raises Contradicted where it has an outcome on its way to the log."""
    if slot.key in node.waiting.leaving:
        raise Contradicted(f"{slot.message.id} has an outcome already")
    return node.waiting.slot(slot.key) is slot


class RetryNowWork(AwaitedWork["int | None"]):
    """An operator's retry of a message as it is, on its way through the writer."""

    __slots__ = ("_ask", "_node", "_slot")
    streams: Sequence[str] = ()

    def __init__(self, node: Node, ask: Ask, slot: Slot) -> None:
        super().__init__()
        self._node, self._ask, self._slot = node, ask, slot

    def handle(self) -> Batch | None:
        """The repair, and the row of the message with its attempts counted from 0."""
        node, ask, slot = self._node, self._ask, self._slot
        if not _still_waits(node, slot) or slot.running:
            self.finish(None)
            return None
        if slot.changing:
            raise Contradicted(f"{slot.message.id} is being changed by somebody else now")
        body = {"by": ask.by, "why": ask.why, "message": slot.message.id}
        record = _repair_record(RETRIED, body, slot, node.clock.now_us())
        fresh = msgspec.structs.replace(slot.message, parked=0, attempts=0, next_at=0)
        # A handler's row is not put again: its transaction commits beside the writer, and may remove it first.
        is_handler = slot.stream.partition("/")[0] in node.service.handlers
        return Batch((record,), rows=() if is_handler else (slot.row(fresh),))

    def landed(self, position: int) -> None:
        """It is durable: the message is tried."""
        self._node.retrier.unpark(self._slot)
        self.finish(position)


class SkipWork(AwaitedWork["int | None"]):
    """An operator's skip of a message, on its way through the writer."""

    __slots__ = ("_ask", "_decision", "_node", "_removed", "_slot")
    streams: Sequence[str] = ()

    def __init__(self, node: Node, ask: Ask, slot: Slot) -> None:
        super().__init__()
        self._node, self._ask, self._slot = node, ask, slot
        self._decision: Decision | None = None
        self._removed: list[Removed] = []

    def handle(self) -> Batch | None:
        """The repair, and the answer of what is skipped: nobody waits for the answer to an event."""
        node, ask, slot = self._node, self._ask, self._slot
        if not _still_waits(node, slot):
            self.finish(None)
            return None
        if refused(node, ask, slot):
            raise Contradicted(f"{slot.message.id} is being carried out now")
        envelope = envelope_at(slot.message, node.clock.now_us())
        decision = self._decision = Decision(envelope, node.streams)
        body = {"by": ask.by, "why": ask.why, "message": slot.message.id}
        decision.records.append(_repair_record(SKIPPED, body, slot, envelope.at))
        if slot.message.feed:
            decision.rows.append(slot.gone())
        else:
            answer_waiting(slot, Rejected("skipped", ask.why, by=ask.by), decision)
        self._removed = [(slot, node.waiting.remove(slot))]
        return decision.batch()

    def landed(self, position: int) -> None:
        """It is durable: the next message of the stream is tried."""
        self._node.outcomes.landed(self._decision, position)
        self._node.retrier.removed(self._slot.stream)
        self.finish(position)

    def taken_back(self) -> None:
        """It waits as before."""
        self._node.retrier.restored(self._removed)
        self._removed = []


class EditWork(AwaitedWork["int | None"]):
    """An operator's retry of a message with a new payload, on its way through the writer.

    It takes two commits, since the message's row names the position of the repair's record: the first writes the
    record, the second the row. In between the message is not tried: a try that began would end under another id, and
    so under another idempotency key.
    """

    __slots__ = ("_ask", "_edited", "_marked", "_node", "_slot")
    streams: Sequence[str] = ()

    def __init__(self, node: Node, ask: Ask, slot: Slot, edited: WireRecord) -> None:
        super().__init__()
        self._node, self._ask, self._slot, self._edited = node, ask, slot, edited
        self._marked = False

    def handle(self) -> Batch | None:
        """The first commit: the record of the repair, with the new payload."""
        node, ask, slot = self._node, self._ask, self._slot
        if not _still_waits(node, slot) or slot.running:
            self.finish(None)
            return None
        if slot.changing:
            raise Contradicted(f"{slot.message.id} is being changed by somebody else now")
        slot.changing = self._marked = True
        body: dict[str, Any] = {"by": ask.by, "why": ask.why, "message": slot.message.id}
        body |= {"type": self._edited.type, "data": self._edited.data}
        return Batch((_repair_record(RETRIED, body, slot, node.clock.now_us()),))

    def landed(self, position: int) -> None:
        """The record is durable: on to the row."""
        node, slot = self._node, self._slot
        if node.waiting.slot(slot.key) is not slot:
            self._end()
            self.finish(position)
            return
        slot.message.record, slot.message.edited = self._edited, record_id(node.name, position)
        fresh = msgspec.structs.replace(slot.message, parked=0, attempts=0, next_at=0)
        second = BatchWork(Batch(rows=(slot.row(fresh),)))
        second.done.add_done_callback(lambda done: self._row_landed(position, done.exception()))
        node.writer.submit(second)

    def _row_landed(self, position: int, error: BaseException | None) -> None:
        """The row is durable, or is not: the message is tried as it is now."""
        self._end()
        if isinstance(error, Exception):
            super().failed(error)
        else:
            self._node.retrier.unpark(self._slot)
            self.finish(position)

    def _end(self) -> None:
        if self._marked:
            self._slot.changing = self._marked = False
            self._node.retrier.removed(self._slot.stream)

    def taken_back(self) -> None:
        """It waits as before."""
        if self._marked:
            self._slot.changing = self._marked = False

    def failed(self, error: Exception) -> None:
        """Nothing of it was written."""
        self._end()
        super().failed(error)


class SagaRepairWork(AwaitedWork["int | None"]):
    """An operator's repair of a saga, on its way through the writer."""

    __slots__ = ("_ask", "_decision", "_first", "_node", "_verb", "note", "streams")

    def __init__(self, node: Node, ask: Ask, verb: Verb, first: Record) -> None:
        super().__init__()
        self._node, self._ask, self._first = node, ask, first
        self._verb: Verb = verb
        self.streams = (ask.target,)
        self.note = ""
        self._decision: Decision | None = None

    def handle(self) -> Batch | None:
        """The repair, and all that follows from it now."""
        node, stream, ask, first = self._node, self.streams[0], self._ask, self._first
        state = node.streams[stream].state
        self.note = already(state, self._verb)
        if self.note:
            self.finish(None)
            return None
        cause, headers = record_id(node.name, first.position), first.headers
        now = node.clock.now_us()
        envelope = Envelope(cause, first.tx, now, first.correlation, headers.hop, headers.debug)
        decision = self._decision = Decision(envelope, node.streams)
        node.dispatch.sagas.repair(stream, self._verb, ask.by, ask.why, decision)
        return decision.batch()

    def landed(self, position: int) -> None:
        """It is durable."""
        self._node.outcomes.landed(self._decision, position)
        self.finish(position)

    def taken_back(self) -> None:
        """It has changed nothing beside the saga in memory."""
        self._decision = None


def already(state: Any, verb: Verb) -> str:
    """Why a repair of a saga has nothing to do; empty when it has."""
    if verb == "undo":
        return f"the saga is {state.status}" if state.status in ("undoing", "undone", "cancelling") else ""
    if verb in ("retry", "skip"):
        return "" if state.status == "stuck" else f"the saga is {state.status}, not stuck"
    return f"the saga is {state.status}" if state.ended and state.status in ("completed", "undone") else ""
