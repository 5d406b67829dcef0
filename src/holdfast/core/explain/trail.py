"""The trail: a tree by cause of one transaction's records from every service, with what is unfinished and comes next.

Pure: the caller gives the records of each service and the declared sagas, which tell what a saga would do next.
`build` makes the tree, `walk` goes through it; every other order of the same records starts from these two. Comes after
the stores, before `core.explain.story` and everything else that shows a trail. A record whose cause is missing becomes
a root, so an incomplete answer still shows all its records. (Causal trees: Lamport, "Time, Clocks", 1978.)
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from holdfast.core.audit.settled import goes_on
from holdfast.core.declare.saga import SagaType
from holdfast.core.explain.upcoming import reached_by_records, upcoming
from holdfast.core.log.record import ANSWERED, BEGUN, CANCEL_COMMAND, SAGA, Record, body_of, record_id


class Item(msgspec.Struct, frozen=True):
    """A record in the tree, with its effects, oldest first."""

    id: str
    service: str
    record: Record
    children: tuple["Item", ...] = ()


class Unfinished(msgspec.Struct, frozen=True):
    """Something that has not happened yet."""

    what: Literal["command", "answer", "saga"]
    """The kind: a command without an outcome, an answer that its sender has not taken, or a saga that has not ended."""
    id: str
    """The record it rests on: the command, the answer, or the beginning of the saga."""
    service: str
    """The service that has to act; if that service was not asked, this is only what the others know."""
    why: str
    next: tuple[str, ...] = ()
    """For a saga: its declared steps that come next, in order."""


class Trail(msgspec.Struct, frozen=True):
    """All that is known about one id."""

    roots: tuple[Item, ...]
    unfinished: tuple[Unfinished, ...]
    transactions: tuple[str, ...]
    counted: int
    """Records."""
    asked: tuple[str, ...]
    """The services that gave records or said that they have none."""


def build(
    records_by_service: Mapping[str, Iterable[Record]], sagas: Mapping[str, Mapping[str, SagaType]] | None = None
) -> Trail:
    """The trail of these records. `sagas`: service -> saga name -> its declaration, if known."""
    logs = {name: sorted(records, key=lambda record: record.position) for name, records in records_by_service.items()}
    by_id = {record_id(name, record.position): (name, record) for name, log in logs.items() for record in log}
    caused: dict[str, list[str]] = {}
    roots: list[str] = []
    for identity, (_, record) in by_id.items():
        if record.cause in by_id and record.cause != identity:
            caused.setdefault(record.cause, []).append(identity)
        else:
            roots.append(identity)
    ordered = sorted(roots, key=lambda identity: _when(by_id[identity]))
    tree, placed = _grow(ordered, caused, by_id)
    while lost := [identity for identity in by_id if identity not in placed]:
        # Causes in a circle: no log of ours holds them, but records that came over a wire are shown all the same.
        more, seen = _grow(lost[:1], caused, by_id, placed)
        tree, placed = (*tree, *more), placed | seen
    unfinished = [*_open_commands(logs, by_id, caused), *_open_sagas(logs, sagas or {})]
    transactions = tuple(dict.fromkeys(record.tx for _, record in sorted(by_id.values(), key=_when)))
    return Trail(tree, tuple(unfinished), transactions, len(by_id), tuple(logs))


def walk(trail: Trail) -> Iterator[tuple[Item, int]]:
    """Every record with the number of its causes in the trail: a cause before its effects, else the oldest first.

    A record that a clock stamped earlier than its cause comes right after its cause.
    """
    ready = [_ready(item, 0) for item in trail.roots]
    heapq.heapify(ready)
    while ready:
        _, _, _, item, depth = heapq.heappop(ready)
        yield item, depth
        for child in item.children:
            heapq.heappush(ready, _ready(child, depth + 1))


def _ready(item: Item, depth: int) -> tuple[int, str, int, Item, int]:
    """An item whose cause has been told; the oldest of these items is told first."""
    return item.record.at, item.service, item.record.position, item, depth


def _when(found: tuple[str, Record]) -> tuple[int, str, int]:
    return found[1].at, found[0], found[1].position


def _grow(
    roots: list[str],
    caused: Mapping[str, list[str]],
    by_id: Mapping[str, tuple[str, Record]],
    placed: frozenset[str] = frozenset(),
) -> tuple[tuple[Item, ...], frozenset[str]]:
    """The trees under these roots, grown without recursion (a chain may be long), and every id in them."""
    seen = set(placed)
    order: list[str] = []
    below: dict[str, list[str]] = {}
    todo = list(reversed(roots))
    while todo:
        identity = todo.pop()
        if identity in seen:
            continue
        seen.add(identity)
        order.append(identity)
        children = [child for child in caused.get(identity, ()) if child not in seen]
        below[identity] = sorted(children, key=lambda child: _when(by_id[child]))
        todo.extend(reversed(below[identity]))
    made: dict[str, Item] = {}
    for identity in reversed(order):
        service, record = by_id[identity]
        children = tuple(made.pop(child) for child in below[identity] if child in made)
        made[identity] = Item(identity, service, record, children)
    return tuple(made[root] for root in roots if root in made), frozenset(seen)


def _open_commands(
    logs: Mapping[str, list[Record]], by_id: Mapping[str, tuple[str, Record]], caused: Mapping[str, list[str]]
) -> list[Unfinished]:
    found: list[Unfinished] = []
    for identity, (service, record) in by_id.items():
        if not record.destination:
            continue
        taken = (by_id[child] for child in caused.get(identity, ()) if by_id[child][0] == record.destination)
        if any(child.kind not in ("effect", "repair") for _, child in taken):
            continue
        if record.type == CANCEL_COMMAND:
            continue  # a cancel has no answer: the command that it names is answered, and is shown until then
        if record.kind == "command":
            where = record.destination
            if _answered(logs[service], record):
                continue
            known = "has not handled it" if where in logs else "was not asked, and no answer is known"
            found.append(Unfinished("command", identity, where, f"{record.type}: {where} {known}"))
        elif record.destination in logs:
            found.append(
                Unfinished(
                    "answer", identity, record.destination, f"{record.type}: {record.destination} has not taken it"
                )
            )
    return found


def _answered(log: list[Record], command: Record) -> bool:
    return any(
        record.stream == command.stream and record.type == ANSWERED and body_of(record).get("to") == command.version
        for record in log
    )


def _open_sagas(logs: Mapping[str, list[Record]], sagas: Mapping[str, Mapping[str, SagaType]]) -> list[Unfinished]:
    found: list[Unfinished] = []
    for service, log in logs.items():
        streams: dict[str, list[Record]] = {}
        for record in log:
            streams.setdefault(record.stream, []).append(record)
        for stream, records in streams.items():
            begun = next((record for record in records if record.type == BEGUN), None)
            saga = sagas.get(service, {}).get(stream.partition("/")[0])
            staged = saga.staged if saga is not None else any(record.headers.stage for record in records)
            if begun is None or _ended(records, staged=staged):
                continue
            reached = reached_by_records(records, staged=staged)
            ahead = upcoming(saga, reached) if saga is not None else ()
            why = f"{stream}: {_standing(records, reached.status)}"
            found.append(Unfinished("saga", record_id(service, begun.position), service, why, ahead))
    return found


def _ended(records: list[Record], *, staged: bool) -> bool:
    """Whether its last record ends it: a saga that an operator closed may be stuck again."""
    said = (goes_on(record, staged=staged) for record in records)
    return next((not goes for goes in reversed([one for one in said if one is not None])), False)


def _standing(records: list[Record], status: str) -> str:
    """The status of a saga that has not ended, in words."""
    if status == "stuck":
        stuck = next(record for record in reversed(records) if record.type == SAGA + "stuck")
        return f"stuck: {body_of(stuck).get('cause', '')}"
    answered = {body_of(record).get("to") for record in records if record.type == ANSWERED}
    asked = [record for record in records if record.kind == "command" and record.type != CANCEL_COMMAND]
    waits = [record for record in asked if record.version not in answered]
    waited = ", ".join(f"{'undo of ' if record.headers.undoes else ''}{record.headers.step}" for record in waits)
    overdue = ", ".join(sorted({record.headers.step for record in records if record.type == SAGA + "overdue"}))
    late = f" (overdue: {overdue})" if overdue and waits else ""
    return f"{status}, waits for {waited or 'its next step'}{late}"
