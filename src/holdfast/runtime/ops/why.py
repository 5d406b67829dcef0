"""Inquiry: what one service knows of an id, and what of its work does not go on by itself.

`why` finds what an id names (a transaction, a correlation label, an idempotency key, a record, a stream, a bare key),
and gives every record of it here with where its sagas stand, what waits and why, and which repairs are possible.
`stuck`, `parked` and `unsettled` are the lists an operator begins with. Reads only. Fails with `StoreError`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.core.declare.message import message_of
from holdfast.core.declare.saga import SagaType
from holdfast.core.log.record import Record, parse_record_id
from holdfast.core.saga.progress import SagaState
from holdfast.core.saga.repair import Action, actions
from holdfast.ports.store import Loaded
from holdfast.runtime.decide.sagas import timer_key
from holdfast.runtime.edge.commands import Request
from holdfast.runtime.inbox.doubt import coordinator_of
from holdfast.runtime.inbox.message import Slot, WaitingMessage

if TYPE_CHECKING:
    from holdfast.runtime.node import Node

TRANSACTIONS_MAX = 20
RECORDS_MAX = 10_000


class Found(msgspec.Struct):
    """What an id names here."""

    named: str
    """`transaction`, `correlation`, `idempotency key`, `record`, `stream`, `key`, `waiting`; empty: unknown here."""
    transactions: list[str]
    more: bool = False


async def find(node: "Node", id: str) -> Found:
    """What an id names in this service, and its transactions, the newest last."""
    store = node.store
    waiting = list(
        dict.fromkeys(held.record.tx for held in (slot.message for slot in node.waiting.slots() if _names(id, slot)))
    )
    if "/" in id and (found := await _of_stream(node, id)):
        return _found("stream", found, waiting)
    parsed = parse_record_id(id)
    if parsed is not None and parsed[0] == node.name and 0 < parsed[1] <= node.writer.head:
        page = await store.read(parsed[1] - 1, 1)
        return _found("record", list(page.records))
    if records := await store.related(tx=id, limit=1):
        return _found("transaction", records)
    if records := await store.related(correlation=id, limit=RECORDS_MAX):
        return _found("correlation", records)
    (row,) = await store.get("request", [id])
    if row is not None:
        return Found("idempotency key", [msgspec.json.decode(row, type=Request).tx])
    service = node.service
    records = [
        record for name in (*service.aggregates, *service.handlers, *service.effects)
        for record in await _of_stream(node, f"{name}/{id}")
    ]  # fmt: skip
    if records:
        return _found("key", sorted(records, key=lambda record: record.position), waiting)
    return _found("waiting", [], waiting)


def _names(id: str, slot: Slot) -> bool:
    """Whether an id names a message that waits."""
    message, stream = slot.message, slot.stream
    return id in (message.id, message.record.tx, message.record.correlation, stream, stream.partition("/")[2])


async def _of_stream(node: "Node", stream: str) -> list[Record]:
    """The records of a stream: its last ones, where it is long."""
    (loaded,) = await node.store.load([stream])
    return list(loaded.records) or await node.store.related(stream=stream, limit=RECORDS_MAX)


def _found(named: str, records: list[Record], waiting: Sequence[str] = ()) -> Found:
    """What was found; `waiting`: the transactions of what waits there, which are named whatever else is left out."""
    transactions = list(dict.fromkeys([*(record.tx for record in records if record.tx not in waiting), *waiting]))
    return Found(named, transactions[-TRANSACTIONS_MAX:], len(transactions) > TRANSACTIONS_MAX)


async def records_of(node: "Node", transactions: list[str]) -> tuple[list[Record], bool]:
    """Every record here of these transactions in log order; whether that is all."""
    found: dict[int, Record] = {}
    complete = True
    for tx in transactions:
        records = await node.store.related(tx=tx, limit=RECORDS_MAX)
        complete = complete and len(records) < RECORDS_MAX
        found.update({record.position: record for record in records})
    return [found[position] for position in sorted(found)], complete


async def sagas_of(node: "Node", records: list[Record]) -> list[dict[str, Any]]:
    """Where the sagas of these records stand that have not ended."""
    known = node.service.sagas
    streams = dict.fromkeys(
        one.stream for one in records if one.kind == "saga" or one.stream.partition("/")[0] in known
    )
    rows = await node.store.get("saga", list(streams)) if streams else []
    open_ = [stream for stream, row in zip(streams, rows, strict=True) if row is not None]
    return await sagas_at(node, open_)


async def sagas_at(node: "Node", streams: Sequence[str]) -> list[dict[str, Any]]:
    """Where these sagas stand: what each waits for, what comes next, when it is woken, what a person can do."""
    timers = await _timers(node, streams)
    loaded = await node.store.load(list(streams)) if streams else []
    found = [_saga(node, stream, one, timers.get(stream, [])) for stream, one in zip(streams, loaded, strict=True)]
    return [one for one in found if one is not None]


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


def _saga(node: "Node", stream: str, loaded: Loaded, timers: list[tuple[str, int]]) -> dict[str, Any] | None:
    if not loaded.records:
        return None
    name = stream.partition("/")[0]
    if (saga := node.service.sagas.get(name)) is None:
        return _undeclared(stream, name, loaded)
    state: SagaState = node.dispatch.folder_of(stream).fold(stream, loaded)[0]
    first, at = loaded.records[0], {record.version: record.at for record in loaded.records}
    waits = [
        {
            "step": asked.step, "service": message_of(asked.command).contract, "type": message_of(asked.command).stored,
            "key": message_of(asked.command).key_of(asked.command) if message_of(asked.command).key_fields else "",
            "since": at.get(version, first.at), "undo": bool(asked.undoes), "overdue": asked.step in state.overdue,
        }
        for version, asked in sorted(state.asked.items()) if version not in state.answers and _current(state, version)
    ]  # fmt: skip
    return {
        "id": stream, "tx": first.tx, "correlation": first.correlation, "status": state.status,
        "begun": first.at, "since": loaded.records[-1].at, "cause": state.cause.code if state.cause else "",
        "stuck": state.stuck.cause if state.stuck else "", "step": state.stuck.step if state.stuck else "",
        "waits": waits, "next": upcoming(saga, state),
        "timers": [{"name": name, "due": due} for name, due in timers],
        "actions": [msgspec.to_builtins(one) for one in actions(saga, state, stream)],
    }  # fmt: skip


def undeclared(name: str) -> str:
    """What is said of an open saga whose class is not there."""
    return f"{name} is no saga of this release: run one that has it"


def _undeclared(stream: str, name: str, loaded: Loaded) -> dict[str, Any]:
    """An open saga whose class the release that runs does not have: nothing goes on until one does."""
    first, stuck = loaded.records[0], f"undeclared: {undeclared(name)}"
    return {
        "id": stream, "tx": first.tx, "correlation": first.correlation, "status": "stuck", "begun": first.at,
        "since": loaded.records[-1].at, "cause": "", "stuck": stuck, "step": "", "waits": [], "next": [], "timers": [],
        "actions": [],
    }  # fmt: skip


def _current(state: SagaState, version: int) -> bool:
    """Whether a command is of the attempt that counts."""
    asked = state.asked[version]
    if asked.undoes:
        return state.undos.get(asked.undoes) == version
    return state.latest.get(asked.step, {}).get(asked.index) == version


def upcoming(saga: SagaType, state: SagaState) -> list[str]:
    """The declared steps that are still to come, in order."""
    if state.ended or state.status in ("stuck", "cancelling"):
        return []
    if state.status == "undoing":
        done = {state.asked[version].step for version in state.undos}
        return [f"undo of {step.name}" for step in reversed(saga.steps)
                if step.undo and step.name not in done and _any_accepted(state, step.name)]  # fmt: skip
    left = [step for step in saga.steps if step.name not in state.latest and step.name not in state.skipped]
    named = [f"{step.name} (the pivot)" if step.pivot else step.name for step in left]
    if saga.staged and state.status == "committed":
        return []
    named += ["commit"] if saga.staged else []
    return [*named, f"answer {saga.answer.function.__name__}"] if saga.answer else named


def _any_accepted(state: SagaState, step: str) -> bool:
    versions = state.latest.get(step, {}).values()
    return any(version in state.answers and not hasattr(state.answers[version], "code") for version in versions)


def waiting_of(node: "Node", transactions: set[str] | None = None) -> list[dict[str, Any]]:
    """What waits here, of these transactions or all: why, behind what, and what a person can do."""
    found: list[dict[str, Any]] = []
    for slot in node.waiting.slots():
        first = node.waiting.head(slot.stream)
        if transactions is None or slot.message.record.tx in transactions:
            found.append(_waits(node, slot, first if first is not slot else None))
    return found


def _waits(node: "Node", slot: Slot, first: Slot | None = None) -> dict[str, Any]:
    """One that waits; `first`: the one that is before it on its stream and holds it up."""
    held, stream = slot.message, slot.stream
    holders = [] if first else [lock.hold.tx for lock in node.dispatch.stages.held.get(stream, {}).values()]
    return {
        "stream": stream, "message": held.id, "from": held.producer, "type": held.record.type, "tx": held.record.tx,
        "correlation": held.record.correlation, "since": held.since, "attempts": held.attempts,
        "next_at": held.next_at, "error": held.error, "where": held.where, "fingerprint": held.fingerprint,
        "parked": held.parked, "unknown": held.unknown, "running": slot.running,
        "behind": first.message.id if first else "", "first": _waits(node, first) if first else None,
        "locked": holders[0] if holders else "",
        "actions": [msgspec.to_builtins(one) for one in message_actions(node, stream, held)],
    }  # fmt: skip


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


def held_of(node: "Node", transactions: set[str] | None = None) -> list[dict[str, Any]]:
    """What staged transactions hold here, of these or all."""
    return [
        {"stream": stream, "tx": hold.tx, "stage": hold.stage, "coordinator": coordinator_of(hold.stage),
         "since": hold.since, "waiting": node.waiting.count(stream)}
        for stream, hold in node.dispatch.stages.items() if transactions is None or hold.tx in transactions
    ]  # fmt: skip


def peers_of(node: "Node") -> dict[str, dict[str, Any]]:
    """Conversations that fail or owe something."""
    found: dict[str, dict[str, Any]] = {}
    for peer, one in (node.conversations.conversations).items():
        behind = max(0, one.peer_head - one.seen)
        if one.failure is not None or one.owed or behind:
            failure = f"{type(one.failure).__name__}: {one.failure}" if one.failure is not None else ""
            found[peer] = {"failure": failure, "owed": one.owed, "behind": behind}
    return found


async def why(node: "Node", *, id: str = "", tx: str = "") -> tuple[dict[str, Any], list[Record]]:
    """All that this service knows of an id, or of one transaction, and the records of it."""
    found = await find(node, id) if id else Found("transaction", [tx])
    records, complete = await records_of(node, found.transactions)
    named = found.named if found.transactions and (id or records) else ""
    transactions = set(found.transactions)
    store = node.writer.failure
    return {
        "service": node.name, "owner": node.service.owner, "now": node.clock.now_us(), "named": named,
        "transactions": found.transactions if named else [], "more": found.more, "complete": complete,
        "sagas": await sagas_of(node, records), "waiting": waiting_of(node, transactions),
        "held": held_of(node, transactions), "peers": peers_of(node),
        "store": f"{type(store).__name__}: {store}" if store else "",
    }, records  # fmt: skip


async def stuck(node: "Node", *, after: str = "", limit: int = 100) -> list[dict[str, Any]]:
    """Sagas that need a person, with owner, cause, age and what can be done."""
    found = await node.sagas(status="stuck", after=after, limit=limit)
    return [_owned(node, one) for one in await sagas_at(node, [stream for stream, _ in found])]


def parked(node: "Node", *, everything: bool = False) -> list[dict[str, Any]]:
    """Messages that are parked; with `everything` also those that fail and are tried again, or wait behind another."""
    found = [one for one in waiting_of(node) if one["parked"] or everything]
    return [_owned(node, one) for one in found]


async def unsettled(node: "Node", *, older_us: int = 0, after: str = "", limit: int = 100) -> list[dict[str, Any]]:
    """Sagas that have not ended and are older than that, with what each waits for."""
    now, found = node.clock.now_us(), list[dict[str, Any]]()
    while len(found) < limit and (page := await node.sagas(after=after, limit=limit)):
        after = page[-1][0]
        there = await sagas_at(node, [stream for stream, _ in page])
        found += [_owned(node, one) for one in there if now - one["begun"] >= older_us]
    return found[:limit]


def _owned(node: "Node", one: dict[str, Any]) -> dict[str, Any]:
    return {"service": node.name, "owner": node.service.owner, "now": node.clock.now_us(), **one}
