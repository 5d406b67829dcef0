"""Happened: the events and the outcome of one transaction, as an invariant sees them.

`core.audit.settled` says which records belong to it, `core.audit.audit` shows it to invariants
(`core.audit.invariant`). An event is decoded once, when an invariant first asks for it. The records that an invariant
asked for are remembered, because its violation names them. Pure. Fails with `Invalid` for an event that does not
decode.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from holdfast.core.audit.cut import Seen
from holdfast.core.audit.settled import Open
from holdfast.core.declare.message import Contract, Event, MessageType, Rejection, decode_stored
from holdfast.core.log.record import REJECTED, record_id

E = TypeVar("E", bound=Event)


class Types:
    """The messages of one system by stored type."""

    def __init__(self, contracts: Mapping[str, Contract]) -> None:
        self._contracts = contracts
        self._known: dict[str, MessageType | None] = {}

    def of(self, stored: str) -> MessageType | None:
        """The message in any version; an unknown version fails when it is decoded, so that it is not missed. None for a
        type of a contract that is not known."""
        if stored not in self._known:
            contract = self._contracts.get(stored.partition(".")[0])
            name = stored.rpartition(".v")[0].partition(".")[2]
            self._known[stored] = contract.by_name.get(name) if contract is not None else None
        return self._known[stored]

    def decode(self, record: Seen) -> Any:
        """The event in a record whose type is known, brought up to the version known here. Raises Invalid."""
        kind: Any = self.of(record.type)
        return decode_stored(kind.home, record.type, bytes(record.data))


class Happened:
    """What happened in one transaction: its events, causes before effects, and its outcome."""

    def __init__(self, found: Open, types: Types, *, settled: bool) -> None:
        self._open, self._types = found, types
        self.settled = settled
        """False while the transaction is not settled."""
        self._decoded: dict[int, Any] = {}
        self._numbers: dict[type[Event], list[int]] | None = None
        """Class of an event -> indexes of its records; made on the first request."""
        self._found: dict[tuple[type[Event], ...], tuple[dict[int, None], list[Any]]] = {}
        """Classes -> indexes of their records, and the events in these records."""
        self._looked: dict[int, None] = {}

    @property
    def tx(self) -> str:
        """The id of the transaction."""
        return self._open.tx

    @property
    def correlation(self) -> str:
        """The label that the caller gave, or the transaction's id."""
        return self._open.correlation or self._open.tx

    @property
    def at_us(self) -> int:
        """When the transaction began, in microseconds since 1970-01-01 UTC."""
        return self._open.at

    def of(self, *kinds: type[E]) -> list[E]:
        """The events of these classes, in causal order. Raises Invalid for an event that does not decode."""
        found = self._found.get(kinds)
        if found is None:
            numbers = self._find(kinds)
            found = self._found[kinds] = dict.fromkeys(numbers), [self._decode(number) for number in numbers]
        self._looked |= found[0]
        return found[1].copy()

    def placed(self, *kinds: type[E]) -> list[tuple[str, int, E]]:
        """The same events, each with its place: (service, position in its log, event). Transactions do not settle in
        the order of a log: an invariant that depends on that order has to use the positions."""
        records = self._open.records
        return [(records[n][0], records[n][1].position, self._decode(n)) for n in self._find(kinds)]

    def _find(self, kinds: Collection[type[Event]]) -> Sequence[int]:
        """Indexes of the records that are events of these classes; from now on these count as accessed."""
        by_class = self._numbers if self._numbers is not None else self._by_class()
        if len(kinds) == 1:
            (kind,) = kinds
            numbers = by_class.get(kind)
            if numbers is None:
                return ()
        else:
            numbers = sorted(number for kind in set(kinds) for number in by_class.get(kind, ()))
        looked = self._looked
        for number in numbers:
            looked[number] = None
        return numbers

    def _by_class(self) -> dict[type[Event], list[int]]:
        found = self._numbers = {}
        for number, (_, record) in enumerate(self._open.records):
            kind = self._types.of(record.type) if record.kind == "event" else None
            if kind is not None:
                found.setdefault(kind.cls, []).append(number)
        return found

    def __contains__(self, kind: type[Event]) -> bool:
        """Whether the transaction has an event of this class."""
        return bool(self.of(kind))

    @property
    def outcome(self) -> Event | Rejection | None:
        """The answer that the caller got or will get; None if there is none (yet)."""
        for number, (_, record) in enumerate(self._open.records):
            if record.outcome:
                self._looked[number] = None
                if record.type == REJECTED:
                    return msgspec.json.decode(record.data, type=Rejection)
                if self._types.of(record.type) is None:
                    return None
                return self._decode(number)
        return None

    def begin(self) -> None:
        """Start recording accesses for the next invariant."""
        self._looked.clear()

    @property
    def was_looked_at(self) -> bool:
        """Whether a record was accessed since."""
        return bool(self._looked)

    def looked_at(self) -> tuple[str, ...]:
        """Ids of the records that were accessed since."""
        return tuple(map(self._id, self._looked))

    def ids(self) -> tuple[str, ...]:
        """Ids of all events and answers of the transaction."""
        return tuple(map(self._id, range(len(self._open.records))))

    def _id(self, number: int) -> str:
        log, record = self._open.records[number]
        return record_id(log, record.position)

    def _decode(self, number: int) -> Any:
        if (known := self._decoded.get(number)) is not None:
            return known
        found = self._decoded[number] = self._types.decode(self._open.records[number][1])
        return found
