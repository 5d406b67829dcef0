"""Status: how the sagas of a service stand, what waits and why, what is held, how far everything is.

Reads the store, and what the node keeps in memory, into the values of `core.explain.status` and
`core.explain.overview`; a list of them is made in `runtime.ops.why`. Nothing in these values is a payload, so there is
nothing to mask. Comes after everything that it tells of; nothing that decides or commits asks it. Fails with
`StoreError`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.core.declare.message import message_of
from holdfast.core.explain.overview import (
    ExchangeStatus,
    FeedStatus,
    ProgressStatus,
    StageList,
    StageStatus,
    Waiter,
    WaitingEntry,
)
from holdfast.core.explain.status import (
    HoldStatus,
    PeerStatus,
    SagaStatus,
    StepStatus,
    TimerStatus,
    WaitingStatus,
)
from holdfast.core.explain.upcoming import reached_by_state, upcoming
from holdfast.core.saga.progress import SagaState
from holdfast.core.saga.repair import Action, actions
from holdfast.ports.store import Loaded
from holdfast.runtime.decide.sagas import timer_key
from holdfast.runtime.inbox.doubt import coordinator_of
from holdfast.runtime.inbox.message import Slot, WaitingMessage

if TYPE_CHECKING:
    from holdfast.runtime.node import Node


async def sagas_at(node: "Node", streams: Sequence[str]) -> tuple[SagaStatus, ...]:
    """The status of these sagas: what each waits for, what comes next, when it wakes, what an operator can do."""
    timers = await _timers(node, streams)
    loaded = await node.store.load(list(streams)) if streams else []
    return tuple(
        _saga(node, stream, one, timers.get(stream, []))
        for stream, one in zip(streams, loaded, strict=True)
        if one.records
    )


async def _timers(node: "Node", streams: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Saga -> (name, due) of its timers that are set still: what was answered in time is woken by none."""
    set_ = [
        (stream, one) for stream, found in (node.timers.of(set(streams)) if streams else {}).items() for one in found
    ]
    rows = await node.store.get("timer", [timer_key(due, stream, name) for stream, (name, due) in set_]) if set_ else []
    there: dict[str, list[tuple[str, int]]] = {}
    for (stream, one), row in zip(set_, rows, strict=True):
        if row is not None:
            there.setdefault(stream, []).append(one)
    return there


def _saga(node: "Node", stream: str, loaded: Loaded, timers: list[tuple[str, int]]) -> SagaStatus:
    name = stream.partition("/")[0]
    if (saga := node.service.sagas.get(name)) is None:
        return _undeclared(stream, name, loaded)
    state: SagaState = node.dispatch.folder_of(stream).fold(stream, loaded)[0]
    first = loaded.records[0]
    return SagaStatus(
        id=stream,
        tx=first.tx,
        correlation=first.correlation,
        status=state.status,
        begun=first.at,
        since=loaded.records[-1].at,
        cause=state.cause.code if state.cause else "",
        stuck=state.stuck.cause if state.stuck else "",
        step=state.stuck.step if state.stuck else "",
        waits=_awaited(state, loaded),
        next=upcoming(saga, reached_by_state(state)),
        timers=tuple(TimerStatus(name, due) for name, due in timers),
        actions=actions(saga, state, stream),
    )


def _awaited(state: SagaState, loaded: Loaded) -> tuple[StepStatus, ...]:
    """The commands of the attempt that counts that have no answer yet."""
    at = {record.version: record.at for record in loaded.records}
    found: list[StepStatus] = []
    for version, asked in sorted(state.asked.items()):
        if version in state.answers or not _current(state, version):
            continue
        message = message_of(asked.command)
        found.append(
            StepStatus(
                step=asked.step,
                service=message.contract,
                type=message.stored,
                key=message.key_of(asked.command) if message.key_fields else "",
                since=at.get(version, loaded.records[0].at),
                undo=bool(asked.undoes),
                overdue=asked.step in state.overdue,
            )
        )
    return tuple(found)


def undeclared(name: str) -> str:
    """What is said of an open saga whose class is not there."""
    return f"{name} is no saga of this release: run one that has it"


def _undeclared(stream: str, name: str, loaded: Loaded) -> SagaStatus:
    """An open saga whose class the release that runs does not have: nothing goes on until one does."""
    first = loaded.records[0]
    return SagaStatus(
        id=stream,
        tx=first.tx,
        correlation=first.correlation,
        status="stuck",
        begun=first.at,
        since=loaded.records[-1].at,
        stuck=f"undeclared: {undeclared(name)}",
    )


def _current(state: SagaState, version: int) -> bool:
    """Whether a command is of the attempt that counts."""
    asked = state.asked[version]
    if asked.undoes:
        return state.undos.get(asked.undoes) == version
    return state.latest.get(asked.step, {}).get(asked.index) == version


def waiting_of(node: "Node", transactions: set[str] | None = None) -> tuple[WaitingStatus, ...]:
    """The waiting messages of these or all transactions: why each waits, behind what, and what an operator can do."""
    found: list[WaitingStatus] = []
    for slot in node.waiting.slots():
        first = node.waiting.head(slot.stream)
        if transactions is None or slot.message.record.tx in transactions:
            found.append(_waits(node, slot, first if first is not slot else None))
    return tuple(found)


def _waits(node: "Node", slot: Slot, first: Slot | None = None) -> WaitingStatus:
    """One that waits; `first`: the one that is before it on its stream and holds it up."""
    held, stream = slot.message, slot.stream
    holders = [] if first else [lock.hold.tx for lock in node.dispatch.stages.held.get(stream, {}).values()]
    return WaitingStatus(
        stream=stream,
        message=held.id,
        producer=held.producer,
        type=held.record.type,
        tx=held.record.tx,
        correlation=held.record.correlation,
        since=held.since,
        attempts=held.attempts,
        next_at=held.next_at,
        error=held.error,
        where=held.where,
        fingerprint=held.fingerprint,
        parked=held.parked,
        unknown=held.unknown,
        running=slot.running,
        behind=first.message.id if first else "",
        first=_waits(node, first) if first else None,
        locked=holders[0] if holders else "",
        actions=tuple(message_actions(node, stream, held)),
    )


def message_actions(node: "Node", stream: str, held: WaitingMessage) -> list[Action]:
    """The repairs that a message which waits can take."""
    effect = node.service.effects.get(stream.partition("/")[0])
    found: list[Action] = []
    if not held.error and not held.parked:
        return []
    if effect is not None and held.unknown:
        if effect.probe is not None or effect.idempotent:
            asks = "asks the probe what became of it" if effect.probe is not None else "makes the call again"
            found.append(Action("retry", held.id, asks))
        found.append(Action("resolve", held.id, "says that it was done, with its event", "--done --data EVENT"))
        found.append(Action("resolve", held.id, "says that nothing was done, and nothing will be", "--refused"))
        return found
    found.append(Action("retry", held.id, "tries it again now, its attempts counted anew; --data changes it"))
    if held.feed:
        found.append(Action("skip", held.id, f"{held.feed} leaves this event out"))
    elif held.record.kind == "command":
        found.append(
            Action("skip", held.id, f"answers {held.producer} rejected (skipped); what waits behind it goes on")
        )
    return found


def held_of(node: "Node", transactions: set[str] | None = None) -> tuple[HoldStatus, ...]:
    """The locks of these or all staged transactions here."""
    return tuple(
        HoldStatus(
            stream=stream,
            tx=hold.tx,
            stage=hold.stage,
            coordinator=coordinator_of(hold.stage),
            since=hold.since,
            waiting=node.waiting.count(stream),
        )
        for stream, hold in node.dispatch.stages.items()
        if transactions is None or hold.tx in transactions
    )


async def stages(node: "Node", tx: str = "") -> StageList:
    """What staged transactions hold here, since when, and who waits for it; of one also what is known of it."""
    held = (
        StageStatus(
            stream=stream,
            tx=hold.tx,
            correlation=hold.correlation,
            stage=hold.stage,
            coordinator=coordinator_of(hold.stage),
            began=hold.at,
            since=hold.since,
            beside=hold.beside,
            commands=len(hold.parts),
            waiting=_waiters(node, stream),
        )
        for stream, hold in node.dispatch.stages.items()
        if tx in ("", hold.tx)
    )
    decisions = tuple(node.dispatch.stages.decisions.values())
    return StageList(tuple(held), decisions, await node.standing(tx) if tx else None)


def _waiters(node: "Node", stream: str) -> tuple[Waiter, ...]:
    """What waits on a stream: received messages, then callers at the edge."""
    received = [
        Waiter(message.record.tx, message.record.type, message.producer, message.since)
        for message in node.waiting.on(stream)
    ]
    callers = [Waiter(tx, stored, "", at) for found, tx, stored, at in node.turns.waiters() if found == stream]
    return (*received, *callers)


def peers_of(node: "Node") -> dict[str, PeerStatus]:
    """The conversations that fail, lag behind or have records to send."""
    return {
        peer: PeerStatus(one.failure, one.owed, one.behind)
        for peer, one in _exchanges(node).items()
        if one.failure or one.owed or one.behind
    }


def _exchanges(node: "Node") -> dict[str, ExchangeStatus]:
    """How far the conversation with each peer has come."""
    return {
        peer: ExchangeStatus(
            received=one.state.durable.position,
            incarnation=one.state.durable.incarnation,
            peer_head=one.state.peer_head,
            behind=one.state.behind,
            acknowledged=one.state.acked_upto,
            owed=one.state.owed,
            failure=failure_of(one.failure),
            halted=one.state.halted,
        )
        for peer, one in node.conversations.conversations.items()
    }


def progress(node: "Node") -> ProgressStatus:
    """How far everything is: cursors, checkpoints, what waits. Read from memory; see docs/operations.md."""
    feeds = (
        FeedStatus(
            consumer=one.consumer.name,
            producer=one.producer,
            position=one.position,
            lag=max(0, one.producer_head - one.position),
            failure=failure_of(one.failure),
        )
        for one in node.feeds.subscriptions
    )
    return ProgressStatus(
        service=node.name,
        owner=node.service.owner,
        head=node.writer.head,
        incarnation=node.incarnations.current.id if node.incarnations.all else "",
        store=failure_of(node.writer.failure),
        inbox=node.writer.waiting,
        timers=len(node.timers),
        sagas_open=node.dispatch.sagas.open,
        sagas_stuck=len(node.dispatch.sagas.stuck),
        exchange=_exchanges(node),
        feeds=tuple(feeds),
        waiting=tuple(_entry(slot.stream, slot.message) for slot in node.waiting.slots()),
        rebuilding=node.views.rebuilding(),
    )


def _entry(stream: str, held: WaitingMessage) -> WaitingEntry:
    """A waiting message in short."""
    return WaitingEntry(
        stream=stream,
        message=held.id,
        type=held.record.type,
        tx=held.record.tx,
        since=held.since,
        attempts=held.attempts,
        next_at=held.next_at,
        error=held.error,
        parked=held.parked,
        unknown=held.unknown,
    )


def failure_of(error: Exception | None) -> str:
    """An error as text: its type and its message; empty for no error."""
    return "" if error is None else f"{type(error).__name__}: {error}"
