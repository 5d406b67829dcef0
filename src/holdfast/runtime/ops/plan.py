"""Plans: what a repair would do, worked out on a copy of the streams it touches, before anything is written.

The copy is folded again from the store; the same pure code runs on it that a repair runs. Nothing of it is kept. What
another service would do with an answer is asked there (`plan_answer`). Comes beside `runtime.ops.repair`; fails as that
does, with `NotFound`, `Invalid` and `Contradicted`.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.core.declare.message import Rejection, message_of
from holdfast.core.declare.saga import SagaType
from holdfast.core.explain.plan import AnswerGiven, Plan, Sent
from holdfast.core.log.record import CANCEL_COMMAND, REJECTED
from holdfast.core.saga.advance import answered
from holdfast.core.saga.progress import Asked, CancelSent, Completed, Progress, SagaState, Undone
from holdfast.core.saga.repair import repaired
from holdfast.errors import Contradicted, Invalid, NotFound
from holdfast.runtime.decide.decision import Decision
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.saga_records import decode_answer
from holdfast.runtime.inbox.deliver import deliver, envelope_at, stream_of
from holdfast.runtime.inbox.message import Slot, WaitingMessage
from holdfast.runtime.log.streams import Streams
from holdfast.runtime.node import Node
from holdfast.runtime.ops.repair import (
    Ask,
    already,
    check_said,
    edited_of,
    event_of,
    in_turn,
    refused,
    slot_of,
    verb_of,
)


async def plan(node: Node, ask: Ask) -> Plan:
    """What a repair would do in this service. Raises NotFound, Invalid, Contradicted."""
    check_said(ask)
    if "/" in ask.target:
        return await _plan_saga(node, ask)
    slot = slot_of(node, ask.target, ask.stream)
    if slot is None:
        return Plan(node.name, ask.kind, ask.target, "already", ("it does not wait any more",))
    if no := refused(node, ask, slot):
        raise Contradicted(no)
    message = slot.message
    edited = edited_of(node, ask, slot) if ask.kind == "retry" else None
    if note := in_turn(ask, message, edited):
        return Plan(node.name, ask.kind, ask.target, "already", (note,))
    if ask.kind == "skip":
        gone = "it is left out" if message.feed else f"{message.producer} is answered rejected (skipped)"
        return _with_answer(node, ask, message, gone, REJECTED, Rejection("skipped", ask.why, {"by": ask.by}))
    if ask.kind == "resolve" and ask.decision == "refused":
        no = Rejection("refused", ask.why, {"by": ask.by})
        return _with_answer(node, ask, message, f"{message.producer} is answered rejected (refused)", REJECTED, no)
    if ask.kind == "resolve":
        event = event_of(node, ask, message)
        stored = message_of(event).stored
        planned = _with_answer(node, ask, message, f"{message.producer} is answered {stored}", stored, event)
        return msgspec.structs.replace(planned, events=(stored,))
    if slot.stream.partition("/")[0] in node.service.effects:
        return _plan_effect(node, ask, slot)
    return await _plan_message(
        node, ask, slot.stream, msgspec.structs.replace(message, record=edited or message.record)
    )


async def plan_answer(node: Node, given: AnswerGiven) -> Plan:
    """What a saga of this service would do with an answer. Raises NotFound, Invalid."""
    saga, state = await _folded(node, given.stream)
    before = state.status
    try:
        answer = decode_answer(saga, given.type, bytes(given.data))
    except LookupError:
        why = f"{given.type[:200]} answers nothing that {saga.name} asks"
        raise Invalid(why, errors=[("$.type", why)]) from None
    progress = answered(saga, state, given.version, answer)
    if not progress:
        return Plan(node.name, "answer", given.stream, "already", (f"it does not wait for that; it is {before}",))
    return _of_progress(node, "answer", given.stream, state, progress)


async def _folded(node: Node, stream: str) -> tuple[SagaType, SagaState]:
    """A saga, and a copy of its state."""
    saga = node.service.sagas.get(stream.partition("/")[0])
    (loaded,) = await node.store.load([stream]) if saga is not None else (None,)
    if saga is None or loaded is None or not loaded.records:
        raise NotFound(f"{node.name} has no saga {stream[:200]}")
    state, _ = node.dispatch.folder_of(stream).fold(stream, loaded)
    return saga, state


async def _plan_saga(node: Node, ask: Ask) -> Plan:
    saga, state = await _folded(node, ask.target)
    verb = verb_of(ask)
    if note := already(state, verb):
        return Plan(node.name, ask.kind, ask.target, "already", (note,), saga=state.status)
    progress = repaired(saga, state, verb, ask.by, ask.why)
    return _of_progress(node, ask.kind, ask.target, state, progress)


def _of_progress(node: Node, kind: str, target: str, state: SagaState, progress: Iterable[Progress]) -> Plan:
    sends: list[Sent] = []
    does: list[str] = []
    for item in progress:
        if isinstance(item, Asked):
            message = message_of(item.command)
            what = f"undo of {item.step}" if item.undoes else item.step
            key = message.key_of(item.command) if message.key_fields else ""
            sends.append(Sent(message.contract, message.stored, key, what))
            does.append(f"{message.contract} is asked for {message.name} of {key or 'no key'} ({what})")
        elif isinstance(item, CancelSent):
            asked = state.asked[item.to]
            message = message_of(asked.command)
            sends.append(Sent(message.contract, CANCEL_COMMAND, what=f"cancel of {asked.step}"))
            does.append(f"{asked.step} is cancelled at {message.contract}")
        elif isinstance(item, Completed | Undone):
            does.append(f"it ends as {'completed' if isinstance(item, Completed) else 'undone'}")
    waits = [f"{a.step}" for version, a in state.asked.items() if version not in state.answers]
    if not state.ended:
        waited = f", and waits for {', '.join(dict.fromkeys(waits))}" if waits else ""
        does.append(f"it is {state.status} then{waited}")
    return Plan(node.name, kind, target, "apply", tuple(does), tuple(sends), saga=state.status)


def _plan_effect(node: Node, ask: Ask, slot: Slot) -> Plan:
    message, effect = slot.message, node.service.effects[slot.stream.partition("/")[0]]
    if message.unknown and effect.probe is not None:
        does, calls = "the probe is asked what became of it; where nothing did, the call is made", effect.probe.__name__
    elif message.unknown and effect.idempotent:
        does, calls = "the call, which is idempotent, is made again", effect.name
    elif message.unknown:
        raise Contradicted(
            f"what became of {message.id} is unknown and there is no probe to ask: resolve it as done or refused"
        )
    else:
        does, calls = "the call is made", effect.name
    return Plan(node.name, ask.kind, ask.target, "apply", (does,), calls=(calls,))


async def _plan_message(node: Node, ask: Ask, stream: str, message: WaitingMessage) -> Plan:
    """Decide the message on a copy of its stream."""
    name = stream.partition("/")[0]
    if name in node.service.handlers:
        return Plan(node.name, ask.kind, ask.target, "apply", (f"{name} is run again, in a transaction",))
    if message.feed:
        return Plan(node.name, ask.kind, ask.target, "apply", (f"{message.feed} takes {message.record.type} again",))
    dispatch = Dispatch(node.service)
    streams = Streams(dispatch.folder_of)
    if dispatch.folds(stream):
        (loaded,) = await node.store.load([stream], snapshots=False)
        streams.put(stream, loaded)
    now = stream_of(dispatch, message.producer, message.record)
    try:
        decision = Decision(envelope_at(message, node.clock.now_us()), streams)
        decision = deliver(dispatch, message.producer, message.record, now, decision)
    except Exception as error:  # noqa: BLE001 - what a handler raises is the plan
        fails = f"it fails again: {type(error).__name__}: {error}"[:500]
        return Plan(node.name, ask.kind, ask.target, "apply", (fails, "it waits again, with its attempts anew"))
    return _of_decision(node, ask, message, decision)


def _of_decision(node: Node, ask: Ask, message: WaitingMessage, decision: Decision) -> Plan:
    commands = [one for one in decision.records if one.kind == "command"]
    sends = tuple(Sent(one.destination, one.type, one.headers.key, one.headers.step) for one in commands)
    events = tuple(one.type for one in decision.records if one.kind == "event")
    does = [f"{one.type} is recorded on {one.stream}" for one in decision.records if one.kind == "event"]
    does += [f"{sent.service} is asked for {sent.type} of {sent.key or 'no key'}" for sent in sends]
    answer = next((one for one in decision.records if one.headers.answers), None)
    if answer is not None and answer.type == REJECTED:
        code = msgspec.json.decode(answer.data, type=Rejection).code
        does.append(f"{answer.destination} is answered rejected ({code})")
    elif answer is not None:
        does.append(f"{answer.destination} is answered {answer.type}")
    given = _given(message, answer.type, answer.data) if answer is not None else None
    return Plan(node.name, ask.kind, ask.target, "apply", tuple(does), sends, events, answer=given)


def _with_answer(node: Node, ask: Ask, message: WaitingMessage, does: str, stored: str, answer: Any) -> Plan:
    given = None if message.feed else _given(message, stored, msgspec.json.encode(answer))
    return Plan(node.name, ask.kind, ask.target, "apply", (does,), answer=given)


def _given(message: WaitingMessage, stored: str, data: bytes) -> AnswerGiven | None:
    record = message.record
    if not record.stream:
        return None
    return AnswerGiven(message.producer, record.stream, record.version, stored, msgspec.Raw(data))
