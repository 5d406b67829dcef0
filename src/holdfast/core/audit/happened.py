"""What happened in one transaction: its events and its outcome, as those who judge it see them.

`core.audit.settled` says which records are of it, `core.audit.audit` shows it to invariants (`core.audit.invariant`).
An event is decoded once, when the first asks for it; which records were asked for is remembered, since they are what a
violation names. Pure. Fails with `Invalid` for an event that does not decode.
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
    """Which message a stored type is, of the services of one system."""

    def __init__(self, contracts: Mapping[str, Contract]) -> None:
        self._contracts = contracts
        self._known: dict[str, MessageType | None] = {}

    def of(self, stored: str) -> MessageType | None:
        """The message, of whatever version: one that is not known here fails when it is decoded, so that it is not
        passed over. None for one of no contract that is known."""
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
        """False while something of it is left to happen."""
        self._decoded: dict[int, Any] = {}
        self._numbers: dict[type[Event], list[int]] | None = None
        """Class of an event -> which of the records are of it; made when it is asked for first."""
        self._found: dict[tuple[type[Event], ...], tuple[dict[int, None], list[Any]]] = {}
        """Classes -> which of the records are of them, and the events in these."""
        self._looked: dict[int, None] = {}

    @property
    def tx(self) -> str:
        """Its id."""
        return self._open.tx

    @property
    def correlation(self) -> str:
        """The label that its caller gave, or its id."""
        return self._open.correlation or self._open.tx

    @property
    def at_us(self) -> int:
        """When it began, in microseconds since 1970-01-01 UTC."""
        return self._open.at

    def of(self, *kinds: type[E]) -> list[E]:
        """Its events of these classes, in causal order. Raises Invalid for one that does not decode."""
        found = self._found.get(kinds)
        if found is None:
            numbers = self._find(kinds)
            found = self._found[kinds] = dict.fromkeys(numbers), [self._decode(number) for number in numbers]
        self._looked |= found[0]
        return found[1].copy()

    def placed(self, *kinds: type[E]) -> list[tuple[str, int, E]]:
        """The same, each with its place: (service, position in its log, event). Transactions do not settle in the order
        of a log: what depends on that order goes by the positions."""
        records = self._open.records
        return [(records[n][0], records[n][1].position, self._decode(n)) for n in self._find(kinds)]

    def _find(self, kinds: Collection[type[Event]]) -> Sequence[int]:
        """Which of the records are events of these classes; they are looked at from here on."""
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
        """Whether an event of this class is among them."""
        return bool(self.of(kind))

    @property
    def outcome(self) -> Event | Rejection | None:
        """What its caller was answered, or is; None where it has no answer (yet)."""
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
        """Another looks at it."""
        self._looked.clear()

    @property
    def was_looked_at(self) -> bool:
        """Whether a record was asked for since."""
        return bool(self._looked)

    def looked_at(self) -> tuple[str, ...]:
        """Ids of the records that were asked for since."""
        return tuple(map(self._id, self._looked))

    def ids(self) -> tuple[str, ...]:
        """Ids of all its events and answers."""
        return tuple(map(self._id, range(len(self._open.records))))

    def _id(self, number: int) -> str:
        log, record = self._open.records[number]
        return record_id(log, record.position)

    def _decode(self, number: int) -> Any:
        if (known := self._decoded.get(number)) is not None:
            return known
        found = self._decoded[number] = self._types.decode(self._open.records[number][1])
        return found
