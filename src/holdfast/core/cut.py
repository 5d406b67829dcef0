"""Consistent cuts: how far each of several logs may be read so that no effect is seen without its cause.

A cut is a position per log. It is consistent when it is closed under cause: of every record up to it, the record that
caused it is up to it too; and when it never parts what was one commit. Logs are read one after another while they grow,
so what was read is seldom such a cut. The union of two consistent cuts is one, so among those within what was read
there is a greatest, and this finds it, record by record: the next run of a log (its records of one cause: all that one
handling wrote) is admitted once its cause is. A log that has to wait is looked at again when the log it waits for has
come that far, so each record is touched once, whatever order the pages come in. Greedy is enough: what may be admitted
now may be admitted later too. (Chandy and Lamport, "Distributed Snapshots", 1985; Mattern, "Virtual Time", 1989.)
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from holdfast.core.record import Kind, Record
from holdfast.core.stage import DONE


class Seen(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record as an audit sees it: an array on the wire, its payload only where its kind is `SHOWN`."""

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
    """The final answer to a command from the edge."""
    data: msgspec.Raw


NOTHING = msgspec.Raw(b"null")
SHOWN = ("event", "answer", "repair")
"""Kinds of records whose payload an audit sees."""


def seen(record: Record, data: bytes | msgspec.Raw | None = None) -> Seen:
    """A record of a log as an audit sees it. `data` in the place of its payload."""
    payload = data if data is not None else record.data if record.kind in SHOWN else NOTHING
    return Seen(
        record.position, record.kind, record.type, record.tx, record.cause, record.at, record.correlation,
        record.stream, record.version, record.destination, record.headers.outcome, msgspec.Raw(payload),
    )  # fmt: skip


class Cut:
    """The greatest consistent cut within what was read of some logs."""

    def __init__(self, logs: Iterable[str]) -> None:
        self.at = dict.fromkeys(logs, 0)
        """Log -> the position up to which it is admitted."""
        self.read = dict(self.at)
        """Log -> the position up to which it was read."""
        self._whole = dict(self.at)
        """Log -> a position up to which it was read, and that ends a commit."""
        self._queues: dict[str, deque[Seen]] = {log: deque() for log in self.at}
        self._waiters: dict[str, set[str]] = {}
        """Log -> logs whose next record it has caused, and which it has not come to."""

    def take(self, log: str, records: Sequence[Seen], upto: int, *, whole: bool) -> None:
        """What was read of a log after `read[log]`. `whole`: `upto` ends a commit, as the head of a log does."""
        self._queues[log].extend(records)
        self.read[log] = max(self.read[log], upto)
        if whole:
            self._whole[log] = self.read[log]

    def advance(self) -> Iterator[tuple[str, list[Seen]]]:
        """What can be admitted now: (log, the records of one handling), causes before effects."""
        todo = deque(self.at)
        while todo:
            log = todo.popleft()
            before, queue = self.at[log], self._queues[log]
            while (run := self._next(log)) and not self._missing(log, run):
                for _ in run:
                    queue.popleft()
                self.at[log] = run[-1].position
                yield log, run
            if not queue and self.read[log] == self._whole[log]:
                self.at[log] = self.read[log]  # a leap of positions leaves nothing to admit
            if self.at[log] > before:
                todo.extend(self._waiters.pop(log, ()))

    def read_whole(self, log: str) -> bool:
        """Whether all that its head said was read."""
        return self.read[log] == self._whole[log]

    def blocked(self) -> dict[str, str]:
        """Log -> the cause that its next record waits for, of logs that cannot go on with what was read."""
        found: dict[str, str] = {}
        for log in self.at:
            if (run := self._next(log)) and (missing := self._missing(log, run)):
                found[log] = missing
        return found

    def _next(self, log: str) -> list[Seen]:
        """The next records of one handling; empty where not all of them were read."""
        run: list[Seen] = []
        block: list[Seen] = []
        for record in self._queues[log]:
            first = block[0] if block else record
            if record.cause == first.cause and len(run) == len(block):
                run.append(record)
            elif record.tx != first.tx or record.at != first.at:
                return run
            block.append(record)
            if record.type == DONE:  # the parts of a staged transaction keep their own causes; this ends their commit
                return block
        return run if run and block[-1].position <= self._whole[log] else []

    def _missing(self, log: str, run: list[Seen]) -> str:
        """A cause of these records that is not admitted. What is no record of these logs (an edge, a timer) never is
        one."""
        last = ""
        for record in run:
            if record.cause == last:
                continue
            last = record.cause
            producer, _, position = last.rpartition("@")
            if producer in self.at and position.isdecimal() and int(position) > self.at[producer]:
                self._waiters.setdefault(producer, set()).add(log)
                return last
        return ""
