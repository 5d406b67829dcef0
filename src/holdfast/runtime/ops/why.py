"""Why: what one service knows of an id, and which of its work does not go on without an operator.

`why` finds what an id names (a transaction, a correlation label, an idempotency key, a record, a stream, a bare key),
and gives every record of it here with where its sagas stand, what waits and why, and which repairs are possible.
`stuck`, `parked` and `unsettled` are the lists an operator begins with. The records are given as they are: whoever
shows them masks them first. Comes after `runtime.ops.status`, which says how one thing stands. Reads only. Fails with
`StoreError`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from holdfast.core.explain.overview import ListedSaga, ListedWaiting
from holdfast.core.explain.status import SagaStatus, WhyAnswer
from holdfast.core.log.record import Record, parse_record_id
from holdfast.runtime.edge.commands import KeyedRequest
from holdfast.runtime.inbox.message import Slot
from holdfast.runtime.ops.status import failure_of, held_of, peers_of, sagas_at, waiting_of

if TYPE_CHECKING:
    from holdfast.runtime.node import Node

TRANSACTIONS_MAX = 20
RECORDS_MAX = 10_000


class NamedById(msgspec.Struct):
    """What an id names here."""

    named: str
    """`transaction`, `correlation`, `idempotency key`, `record`, `stream`, `key`, `waiting`; empty: unknown here."""
    transactions: list[str]
    more: bool = False


async def find(node: "Node", id: str) -> NamedById:
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
        return NamedById("idempotency key", [msgspec.json.decode(row, type=KeyedRequest).tx])
    service = node.service
    records = [
        record
        for name in (*service.aggregates, *service.handlers, *service.effects)
        for record in await _of_stream(node, f"{name}/{id}")
    ]
    if records:
        return _found("key", sorted(records, key=lambda record: record.position), waiting)
    return _found("waiting", [], waiting)


def _names(id: str, slot: Slot) -> bool:
    """Whether an id names a waiting message."""
    message, stream = slot.message, slot.stream
    return id in (message.id, message.record.tx, message.record.correlation, stream, stream.partition("/")[2])


async def _of_stream(node: "Node", stream: str) -> list[Record]:
    """The records of a stream; if it is long, only its last ones."""
    (loaded,) = await node.store.load([stream])
    return list(loaded.records) or await node.store.related(stream=stream, limit=RECORDS_MAX)


def _found(named: str, records: list[Record], waiting: Sequence[str] = ()) -> NamedById:
    """What was found; `waiting`: the transactions of what waits there, which are named whatever else is left out."""
    transactions = list(dict.fromkeys([*(record.tx for record in records if record.tx not in waiting), *waiting]))
    return NamedById(named, transactions[-TRANSACTIONS_MAX:], len(transactions) > TRANSACTIONS_MAX)


async def records_of(node: "Node", transactions: list[str]) -> tuple[list[Record], bool]:
    """Every record here of these transactions in log order; whether that is all."""
    found: dict[int, Record] = {}
    complete = True
    for tx in transactions:
        records = await node.store.related(tx=tx, limit=RECORDS_MAX)
        complete = complete and len(records) < RECORDS_MAX
        found.update({record.position: record for record in records})
    return [found[position] for position in sorted(found)], complete


async def sagas_of(node: "Node", records: list[Record]) -> tuple[SagaStatus, ...]:
    """Where the sagas of these records stand that have not ended."""
    known = node.service.sagas
    streams = dict.fromkeys(
        one.stream for one in records if one.kind == "saga" or one.stream.partition("/")[0] in known
    )
    rows = await node.store.get("saga", list(streams)) if streams else []
    open_ = [stream for stream, row in zip(streams, rows, strict=True) if row is not None]
    return await sagas_at(node, open_)


async def why(node: "Node", *, id: str = "", tx: str = "") -> tuple[WhyAnswer, list[Record]]:
    """All that this service knows of an id, or of one transaction; the records of it apart, since they are not masked
    yet."""
    found = await find(node, id) if id else NamedById("transaction", [tx])
    records, complete = await records_of(node, found.transactions)
    known = bool(found.transactions and (id or records))
    transactions = set(found.transactions)
    answer = WhyAnswer(
        service=node.name,
        owner=node.service.owner,
        now=node.clock.now_us(),
        named=found.named if known else "",
        transactions=tuple(found.transactions) if known and found.named else (),
        more=found.more,
        complete=complete,
        sagas=await sagas_of(node, records),
        waiting=waiting_of(node, transactions),
        held=held_of(node, transactions),
        peers=peers_of(node),
        store=failure_of(node.writer.failure),
    )
    return answer, records


async def stuck(node: "Node", *, after: str = "", limit: int = 100) -> list[ListedSaga]:
    """Sagas that need an operator, with their owner, cause, age and possible repairs."""
    found = await node.sagas(status="stuck", after=after, limit=limit)
    return [_listed(node, saga) for saga in await sagas_at(node, [stream for stream, _ in found])]


def parked(node: "Node", *, everything: bool = False) -> list[ListedWaiting]:
    """Messages that are parked; with `everything` also those that fail and are tried again, or wait behind another."""
    service, owner, now = node.name, node.service.owner, node.clock.now_us()
    return [
        ListedWaiting(**msgspec.structs.asdict(message), service=service, owner=owner, now=now)
        for message in waiting_of(node)
        if message.parked or everything
    ]


async def unsettled(node: "Node", *, older_us: int = 0, after: str = "", limit: int = 100) -> list[ListedSaga]:
    """Sagas that have not ended and are older than that, with what each waits for."""
    now, found = node.clock.now_us(), list[ListedSaga]()
    while len(found) < limit and (page := await node.sagas(after=after, limit=limit)):
        after = page[-1][0]
        there = await sagas_at(node, [stream for stream, _ in page])
        found += [_listed(node, saga) for saga in there if now - saga.begun >= older_us]
    return found[:limit]


def _listed(node: "Node", saga: SagaStatus) -> ListedSaga:
    """A saga with whose it is."""
    service, owner, now = node.name, node.service.owner, node.clock.now_us()
    return ListedSaga(**msgspec.structs.asdict(saga), service=service, owner=owner, now=now)
