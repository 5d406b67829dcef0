"""The audit: it checks the invariants of a system over its logs, page by page.

Each page goes into the cut. The records that the cut admits are followed event by event, and open and settle
transactions. Each settled transaction is judged once; a fold is judged again only for the keys that changed. So the
work grows with the new records, not with the log, and the memory grows with the open transactions and the keys of the
folds. Pure: `runtime.ops.audit` reads pages from services.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from holdfast.core.audit.cut import Cut, Seen
from holdfast.core.audit.happened import Happened, Types
from holdfast.core.audit.invariant import Invariant, Judge, Violation
from holdfast.core.audit.settled import Mark, Open, Settling
from holdfast.core.declare.message import Contract
from holdfast.core.declare.service import Service
from holdfast.core.log.record import record_id
from holdfast.errors import Invalid

VIOLATIONS_MAX = 1_000
"""How many violations of single transactions are kept; further ones are only counted."""
CAUSES = "causes"
"""The name of the violation that a record's cause is in no log, or comes after the record."""


class Audited(Protocol):
    """The part of a system that an audit reads. `core.system.System` is one."""

    @property
    def services(self) -> Mapping[str, Service]:
        """The services by name."""
        ...

    @property
    def invariants(self) -> Mapping[str, Invariant]:
        """The invariants over all services, by name."""
        ...


class Report(msgspec.Struct, frozen=True):
    """The findings of an audit so far."""

    violations: tuple[Violation, ...]
    counted: dict[str, int]
    """Invariant -> how many transactions, or keys of a fold, it has judged."""
    settled: int
    """The number of transactions that were judged."""
    open: int
    """The number of transactions that are not settled."""
    oldest_us: int
    """When the oldest of these began; 0 if there is none."""
    cut: dict[str, int]
    """Service -> position up to which it was judged."""
    more: int = 0
    """The number of violations that are not in `violations`."""

    @property
    def passed(self) -> bool:
        """True when nothing is wrong, and every invariant had something to judge."""
        return not self.violations and all(self.counted.values())


class Audit:
    """The invariants of one system, and how far each has come."""

    def __init__(self, system: Audited) -> None:
        self.cut = Cut(system.services)
        self.settling = Settling(system.services)
        self._types = Types(_contracts(system.services))
        self._judges = [Judge(one) for one in system.invariants.values()]
        self._flight = any(one.wants_flight for one in system.invariants.values())
        self._following: dict[type[Any], list[Judge]] = {}
        """Class of an event -> the invariants that follow it."""
        for judge in self._judges:
            for kind in judge.invariant.follows:
                self._following.setdefault(kind, []).append(judge)
        self._marks: dict[str, deque[Mark]] = {name: deque() for name in system.services}
        """Service -> marks that the cut has not reached: the oldest, so that the cut reaches one, and the newest."""
        self._single: list[Violation] = []
        self._more = 0
        self._settled = 0
        self._pages = dict.fromkeys(system.services, 0)
        self._lost: dict[str, tuple[str, int]] = {}
        """Log -> a cause it waits for that is past the end of the cause's log, and how many pages of that log had been
        read when this was seen first."""
        self._causeless: list[Violation] = []

    def take(self, service: str, records: Sequence[Seen], upto: int, *, head: int, mark: Mark | None) -> None:
        """Take a page of a service's log after `cut.read[service]`, and what the service had received before `head`."""
        self.cut.take(service, records, upto, whole=upto >= head)
        self._pages[service] += 1
        marks = self._marks[service]
        if mark is not None:
            if len(marks) > 1 or (marks and marks[-1].head == mark.head):
                marks.pop()
            marks.append(mark)

    @property
    def stale(self) -> bool:
        """True if a transaction went on after it had settled: then start the audit again from the beginning."""
        return bool(self.settling.reopened)

    @property
    def unfinished(self) -> bool:
        """True if a transaction is open, or if a log waits for a cause that was not read."""
        return bool(self.settling.open or self.cut.blocked())

    def check(self) -> list[Violation]:
        """Judge as far as the pages allow. Returns new violations of single transactions and all present ones of
        folds."""
        fresh: list[Violation] = []
        for log, run in self.cut.advance():
            self.settling.take(log, run)
            if self._following:
                fresh += self._follow((log, record) for record in run)
        for service, marks in self._marks.items():
            newest = None
            while marks and marks[0].head <= self.cut.at[service]:
                newest = marks.popleft()
            if newest is not None:
                self.settling.mark(service, newest)
        for found in self.settling.settled():
            self._settled += 1
            tx = Happened(found, self._types, settled=True)
            for judge in self._judges:
                fresh += judge.settled(tx)
        room = max(0, VIOLATIONS_MAX - len(self._single))
        self._single += fresh[:room]
        self._more += len(fresh[room:])
        self._look_for_causes()
        return fresh + self._folded() + self._causeless

    def what_if(self, found: Open) -> list[Violation]:
        """The violations if a transaction had settled in this form, and those of the folds with it.

        Folds are only judged if the transaction was read with all others and is still open. The audit cannot be used
        for anything else afterwards.
        """
        known = self.settling.open.pop(found.tx, None) is not None
        tx = Happened(found, self._types, settled=True)
        judges = [judge for judge in self._judges if known or not judge.invariant.folds]
        wrong = [one for judge in judges for one in judge.settled(tx)]
        if known:
            wrong += self._follow((log, one) for log, one in found.records if one.position > self.cut.at[log])
        return wrong + (self._folded() if self._settled else [])

    def _follow(self, records: Iterable[tuple[str, Seen]]) -> list[Violation]:
        """Give the next events to the invariants that follow them."""
        found: list[Violation] = []
        for log, record in records:
            kind = self._types.of(record.type) if record.kind == "event" else None
            judges = self._following.get(kind.cls, ()) if kind is not None else ()
            if kind is None or not judges:
                continue
            id, label = record_id(log, record.position), record.correlation or record.tx
            try:
                event = self._types.decode(record)
            except Invalid as error:
                found += [judge.unread(error, id, record.tx, label) for judge in judges]
                continue
            for judge in judges:
                found += judge.follow(event, id, record.tx, label)
        return found

    def _folded(self) -> list[Violation]:
        flying = [Happened(found, self._types, settled=False) for found in self.settling.open.values()]
        return [one for judge in self._judges for one in judge.check(flying if self._flight else ())]

    def _look_for_causes(self) -> None:
        """Find records whose cause comes after them, or is past the end of a log that was read again since."""
        waits = self.cut.blocked()
        blocked = {log: cause for log, cause in waits.items() if self._past(cause) or _in_circle(log, waits)}
        self._lost = {log: self._seen_first(log, cause) for log, cause in blocked.items()}
        said = "a record of {0} after {0}@{1} was caused by {2}, which {3}: was a store restored?"
        self._causeless = [
            Violation(
                CAUSES,
                said.format(log, self.cut.at[log], cause, "is not there" if self._past(cause) else "comes after it"),
                (cause,),
            )
            for log, (cause, pages) in self._lost.items()
            if _in_circle(log, waits) or self._pages[cause.rpartition("@")[0]] > pages
        ]

    def _seen_first(self, log: str, cause: str) -> tuple[str, int]:
        known = self._lost.get(log)
        return known if known is not None and known[0] == cause else (cause, self._pages[cause.rpartition("@")[0]])

    def _past(self, cause: str) -> bool:
        log, _, position = cause.rpartition("@")
        return self.cut.read_whole(log) and int(position) > self.cut.read[log]

    def report(self) -> Report:
        """The report on everything found; call it after `check`."""
        folds = [one for judge in self._judges for one in judge.wrong]
        opened = self.settling.open.values()
        return Report(
            violations=(*self._single, *folds, *self._causeless),
            counted={judge.invariant.name: judge.counted for judge in self._judges},
            settled=self._settled,
            open=len(opened),
            oldest_us=min((one.at for one in opened), default=0),
            cut=dict(self.cut.at),
            more=self._more,
        )


def _in_circle(log: str, waits: Mapping[str, str]) -> bool:
    """Whether a log waits for a cause that waits for that log itself."""
    passed: set[str] = set()
    at = log
    while at in waits and at not in passed:
        passed.add(at)
        at = waits[at].rpartition("@")[0]
    return at == log and bool(passed)


def _contracts(services: Mapping[str, Service]) -> dict[str, Contract]:
    """The contracts of the services, and of all services whose events they take."""
    found = {event.contract: event.home for service in services.values() for event in service.fed_by()}
    return found | {name: service.contract for name, service in services.items()}
