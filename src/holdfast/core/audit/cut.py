"""Consistent cuts: how far each of several logs may be read so that no effect is seen without its cause.

A cut is a position per log. It is consistent if it is closed under cause (for every record in the cut, the record that
caused it is in the cut too) and if it never splits a commit. Logs are read one after another while they grow, so the
pages that were read seldom form such a cut. The union of two consistent cuts is consistent, so there is a greatest one
within the pages, and this module finds it, run by run: the next run of a log (its records of one cause: all that one
handling wrote) is admitted once its cause is admitted. A log that has to wait is checked again when the log it waits
for has come that far, so each record is touched once, in whatever order the pages come. A greedy search is enough: a
run that may be admitted now may also be admitted later. (Chandy and Lamport, "Distributed Snapshots", 1985; Mattern,
"Virtual Time", 1989.)
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from holdfast.core.log.record import Kind, Record
from holdfast.core.saga.stage import DONE, HELD


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record as an audit sees it: an array on the wire, with its payload only if its kind is `SHOWN`."""

    position: int
    kind: Kind
    type: str
    tx: str
    cause: str
    at: int
    correlation: str
    stream: str
    version: int
    destination: str
    outcome: bool
    """True for the final answer to a command from the edge."""
    data: msgspec.Raw


NOTHING = msgspec.Raw(b"null")
SHOWN = ("event", "answer", "repair")
"""Kinds of records whose payload an audit sees."""


def seen(record: Record) -> Seen:
    """A record of a log as an audit sees it."""
    return Seen(
        record.position,
        record.kind,
        record.type,
        record.tx,
        record.cause,
        record.at,
        record.correlation,
        record.stream,
        record.version,
        record.destination,
        record.headers.outcome,
        msgspec.Raw(record.data) if record.kind in SHOWN else NOTHING,
    )


class _Log:
    """The records of one log that were read and are not admitted, with counts of those that belong together: no object
    is made for each record."""

    __slots__ = ("at", "causes", "counts", "first", "last", "parts", "records", "tx")

    def __init__(self) -> None:
        self.records: deque[Seen] = deque()
        self.counts: deque[int] = deque()
        """The length of each run. A run is admitted together: the records of one handling, or a whole staged commit."""
        self.parts: list[int] = []
        """Counts by cause at the last instant: further records may come and make them one commit."""
        self.first = 0
        """Index of the first part in the trailing run of event-only parts: the commit that `DONE` ends begins there."""
        self.tx, self.at, self.last = "", -1, ""
        """The transaction, the time and the last cause of that instant."""
        self.causes: list[str] = []
        """Causes of the first run that are not admitted yet; empty before the run is examined."""

    def extend(self, records: Sequence[Seen], *, whole: bool) -> None:
        """Add the records that were read next."""
        parts = self.parts
        self.records.extend(records)
        for record in records:
            if record.at != self.at or record.tx != self.tx:
                self.counts.extend(parts)
                parts.clear()
                self.first = 0
                self.at, self.tx = record.at, record.tx
            if parts and record.cause == self.last:
                parts[-1] += 1
            else:
                parts.append(1)
                self.last = record.cause
            if record.type == DONE:  # the parts of a staged transaction keep their own causes; this ends their commit
                first = min(self.first, len(parts) - 1)
                self.counts.extend(parts[:first])
                self.counts.append(sum(parts[first:]))
                parts.clear()
                self.first = 0
            elif record.kind != "event" or record.destination:
                self.first = len(parts)
                if record.type == HELD:
                    self.last = ""  # a vote is a commit of its own, though what it held has the same cause
        if whole:
            self.counts.extend(parts)
            parts.clear()
            self.first = 0

    def look(self) -> list[str]:
        """The causes of the first run."""
        for record in islice(self.records, self.counts[0]):
            if not self.causes or record.cause != self.causes[-1]:
                self.causes.append(record.cause)
        return self.causes

    def pop(self) -> list[Seen]:
        """Remove and return the first run; it is admitted."""
        count = self.counts.popleft()
        return [self.records.popleft() for _ in range(count)] if count > 1 else [self.records.popleft()]


class Cut:
    """The greatest consistent cut within the pages of some logs."""

    def __init__(self, logs: Iterable[str]) -> None:
        self.at = dict.fromkeys(logs, 0)
        """Log -> the position up to which it is admitted."""
        self.read = dict(self.at)
        """Log -> the position up to which it was read."""
        self._whole = dict(self.at)
        """Log -> a position up to which it was read and at which a commit ends."""
        self._logs = {log: _Log() for log in self.at}
        self._waiters: dict[str, dict[str, int]] = {log: {} for log in self.at}
        """Log -> logs that wait for it -> the position that it has to reach for them."""
        self._ready = dict.fromkeys(self.at)
        """Logs to examine: they were read further, or the cause that they waited for was admitted."""

    def take(self, log: str, records: Sequence[Seen], upto: int, *, whole: bool) -> None:
        """Take records of a log after `read[log]`. `whole`: a commit ends at `upto`, as at the head of a log."""
        self._logs[log].extend(records, whole=whole)
        self.read[log] = max(self.read[log], upto)
        if whole:
            self._whole[log] = self.read[log]
        self._ready[log] = None

    def advance(self) -> Iterator[tuple[str, list[Seen]]]:
        """Admit all that can be admitted now: (log, the records of one handling), causes before effects."""
        while self._ready:
            log = next(iter(self._ready))
            found = self._logs[log]
            while found.counts and not self._missing(log):
                run = found.pop()
                self.at[log] = run[-1].position
                yield log, run
            if not found.counts and self.read[log] == self._whole[log]:
                self.at[log] = self.read[log]  # a leap of positions leaves nothing to admit
            if waiters := self._waiters[log]:
                come = [waiter for waiter, position in waiters.items() if position <= self.at[log]]
                for waiter in come:
                    del waiters[waiter]
                self._ready.update(dict.fromkeys(come))
            del self._ready[log]

    def read_whole(self, log: str) -> bool:
        """Whether the log was read up to the head that it gave."""
        return self.read[log] == self._whole[log]

    def blocked(self) -> dict[str, str]:
        """Log -> the cause that its next record waits for, for logs that cannot go on with the pages so far."""
        return {log: found.causes[-1] for log, found in self._logs.items() if found.counts and self._missing(log)}

    def _missing(self, log: str) -> bool:
        """Whether a cause of the first run is not admitted. That cause is then the last one, and the log is examined
        again when it is admitted. A cause that is no record of these logs (an edge, a timer) never blocks."""
        causes = self._logs[log].causes or self._logs[log].look()
        while causes:
            producer, _, position = causes[-1].rpartition("@")
            if producer in self.at and position.isdecimal() and int(position) > self.at[producer]:
                self._waiters[producer][log] = int(position)
                return True
            causes.pop()
        return False
