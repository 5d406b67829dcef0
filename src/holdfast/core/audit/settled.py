"""Settled transactions: a transaction is settled if nothing of it is left to happen, judged by a consistent cut.

A transaction is open while one of its messages is on its way or waits, while a consumer has not taken one of its
events, or while one of its sagas has not ended. A message may have no effects, so the cursors decide whether it was
taken: a `Mark` says what one service had received, and which of these messages waited. A mark counts once the cut has
reached the head at which the mark was true, so the effects of the message are in the cut as well. Comes after
`core.audit.cut`, and before `core.audit.invariant`, which judges. A transaction can open again if a consumer continued
it that no service declares any more (a reaction that was removed since): then `reopened` names it, and the caller
starts again from the beginning. A message from a service outside the system opens a transaction as an edge does.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from holdfast.core.audit.cut import Seen
from holdfast.core.log.name import exchange_cursor
from holdfast.core.log.record import SAGA, Record

if TYPE_CHECKING:  # a name for types: who tells a story does not load what declares services
    from holdfast.core.declare.service import Service

TURNS = frozenset(SAGA + name for name in ("begun", "stuck", "settled", "completed", "undone"))
"""The stored types of a saga's records that open or end it."""
CLOSING = ("done", "undone")
"""The verbs by which an operator closes a saga."""


class Mark(msgspec.Struct, frozen=True):
    """What one service had received when its log ended at `head`, or earlier."""

    head: int
    cursors: dict[str, int]
    """`exchange:PRODUCER`, `reaction:NAME:PRODUCER`, `saga:NAME:PRODUCER` -> position in that producer's log."""
    waiting: frozenset[tuple[str, int]] = frozenset()
    """(producer, position) of messages that are received and not decided."""


def goes_on(record: Seen | Record, *, staged: bool) -> bool | None:
    """For a record on a saga's stream: True if it opens the saga (again), False if it ends it, else None."""
    if record.kind == "saga":
        name = record.type.removeprefix(SAGA)
        if name in ("begun", "stuck"):
            return True
        return False if name == "settled" or (name in ("completed", "undone") and not staged) else None
    if record.kind == "repair":
        return False if _verb(record) in CLOSING else None
    return False if record.kind in ("event", "answer") and not staged else None


def _verb(record: Seen | Record) -> str:
    try:
        return str(msgspec.json.decode(record.data, type=dict[str, object]).get("verb", ""))
    except msgspec.DecodeError:
        return ""


class Open:
    """A transaction that is not settled."""

    __slots__ = ("at", "correlation", "left", "records", "sagas", "tx")

    def __init__(self, tx: str, correlation: str, at: int) -> None:
        self.tx, self.correlation, self.at = tx, correlation, at
        self.records: list[tuple[str, Seen]] = []
        """(log, record) of the events and answers, causes before effects."""
        self.left = 0
        """The number of messages and events that a consumer has not taken."""
        self.sagas: set[tuple[str, str]] = set()
        """(log, stream) of the sagas that have not ended."""


class Settling:
    """Which transactions of a system are open, and which have just settled."""

    def __init__(self, services: Mapping[str, "Service"]) -> None:
        self.open: dict[str, Open] = {}
        self.reopened: set[str] = set()
        """Transactions that went on after they had settled."""
        self._takers: dict[str, list[tuple[str, str]]] = {}
        """Stored type of an event -> (service, name of its cursor) of every consumer."""
        self._staged: set[tuple[str, str]] = set()
        self._due: dict[str, dict[str, deque[tuple[int, Open]]]] = {name: {} for name in services}
        """Service -> cursor's name -> the messages it has to take, in the order of the producer's log."""
        self._held: dict[str, dict[tuple[str, int], Open]] = {name: {} for name in services}
        """Service -> (producer, position) of messages that it has received and not decided."""
        self._touched: dict[str, Open] = {}
        for name, service in services.items():
            for reaction in service.reactions.values():
                for stored in reaction.events:
                    self._take_note(stored, name, f"reaction:{reaction.name}")
            for saga in service.sagas.values():
                if saga.begin.kind == "event":
                    for stored in saga.begin.stored_all:
                        self._take_note(stored, name, f"saga:{saga.name}")
                if saga.staged:
                    self._staged.add((name, saga.name))

    def _take_note(self, stored: str, service: str, consumer: str) -> None:
        producer = stored.partition(".")[0]
        self._takers.setdefault(stored, []).append((service, f"{consumer}:{producer}"))

    def take(self, log: str, run: Iterable[Seen]) -> None:
        """Take the records of one handling, in the order of a consistent cut."""
        opened, touched, due = self.open, self._touched, self._due
        for record in run:
            tx, kind = record.tx, record.kind
            found = opened.get(tx)
            if found is None:
                found = opened[tx] = Open(tx, record.correlation, record.at)
                if record.cause.rpartition("@")[0] in due:  # its cause is in the cut, and its transaction is not open
                    self.reopened.add(tx)
            touched[tx] = found
            if record.destination in due:
                self._owe(record.destination, exchange_cursor(log), record.position, found)
            if kind == "event" or kind == "answer":
                found.records.append((log, record))
                if kind == "event" and (takers := self._takers.get(record.type)):
                    for service, cursor in takers:
                        self._owe(service, cursor, record.position, found)
            if kind == "saga":
                if record.type in TURNS:
                    self._note_saga(log, record, found)
            elif kind != "command" and found.sagas and record.stream:
                self._note_saga(log, record, found)

    def _owe(self, service: str, cursor: str, position: int, found: Open) -> None:
        found.left += 1
        due = self._due[service]
        if cursor not in due:
            due[cursor] = deque()
        due[cursor].append((position, found))

    def _note_saga(self, log: str, record: Seen, found: Open) -> None:
        staged = (log, record.stream.partition("/")[0]) in self._staged
        goes = goes_on(record, staged=staged)
        if goes:
            found.sagas.add((log, record.stream))
        elif goes is False:
            found.sagas.discard((log, record.stream))

    def mark(self, service: str, mark: Mark) -> None:
        """Take what a service has received; the cut has reached `mark.head`."""
        held = self._held[service]
        for key in [key for key in held if key not in mark.waiting]:
            self._taken(held.pop(key))
        for name, due in self._due[service].items():
            reached, producer = mark.cursors.get(name, 0), name.rpartition(":")[2]
            while due and due[0][0] <= reached:
                position, found = due.popleft()
                if (producer, position) not in mark.waiting:
                    self._taken(found)
                elif (producer, position) in held:
                    self._taken(found)  # it waits for two consumers: one entry is enough to keep it open
                else:
                    held[producer, position] = found

    def _taken(self, found: Open) -> None:
        found.left -= 1
        self._touched[found.tx] = found

    def settled(self) -> list[Open]:
        """The transactions that have settled since the last call."""
        ended = [found for found in self._touched.values() if not found.left and not found.sagas]
        self._touched.clear()
        for found in ended:
            self.open.pop(found.tx, None)
        return ended
