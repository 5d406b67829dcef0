"""Consistent cuts: how far each of several logs may be read so that no effect is seen without its cause.

A cut is a position per log. It is consistent when it is closed under cause: of every record up to it, the record that
caused it is up to it too; and when it never parts what was one commit. Logs are read one after another while they grow,
so what was read is seldom such a cut. The union of two consistent cuts is one, so among those within what was read
there is a greatest, and this finds it, run by run: the next run of a log (its records of one cause: all that one
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


class _Run:
    """Records that are admitted together: those of one handling, or all of a staged commit."""

    __slots__ = ("causes", "records")

    def __init__(self, records: list[Seen], causes: list[str]) -> None:
        self.records, self.causes = records, causes


class Cut:
    """The greatest consistent cut within what was read of some logs."""

    def __init__(self, logs: Iterable[str]) -> None:
        self.at = dict.fromkeys(logs, 0)
        """Log -> the position up to which it is admitted."""
        self.read = dict(self.at)
        """Log -> the position up to which it was read."""
        self._whole = dict(self.at)
        """Log -> a position up to which it was read, and that ends a commit."""
        self._instants: dict[str, list[Seen]] = {log: [] for log in self.at}
        """Log -> its last records, of one transaction and instant: of which more may come, and make them one commit."""
        self._runs: dict[str, deque[_Run]] = {log: deque() for log in self.at}
        """Log -> what is not admitted of the rest."""
        self._waiters: dict[str, dict[str, int]] = {log: {} for log in self.at}
        """Log -> logs whose next run it has caused -> the position that it has to come to."""
        self._ready = dict.fromkeys(self.at)
        """Logs to look at: something was read of them, or what they waited for has come."""

    def take(self, log: str, records: Sequence[Seen], upto: int, *, whole: bool) -> None:
        """What was read of a log after `read[log]`. `whole`: `upto` ends a commit, as the head of a log does."""
        instant, runs = self._instants[log], self._runs[log]
        for record in records:
            if instant and (record.at != instant[0].at or record.tx != instant[0].tx):
                _split(instant, runs)
                instant = []
            instant.append(record)
            if record.type == DONE:
                _confirmed(instant, runs)
                instant = []
        self.read[log] = max(self.read[log], upto)
        if whole:
            self._whole[log] = self.read[log]
            _split(instant, runs)
            instant = []
        self._instants[log] = instant
        self._ready[log] = None

    def advance(self) -> Iterator[tuple[str, list[Seen]]]:
        """What can be admitted now: (log, the records of one handling), causes before effects."""
        while self._ready:
            log = next(iter(self._ready))
            runs = self._runs[log]
            while runs and not self._missing(log, runs[0]):
                records = runs.popleft().records
                self.at[log] = records[-1].position
                yield log, records
            if not runs and self.read[log] == self._whole[log]:
                self.at[log] = self.read[log]  # a leap of positions leaves nothing to admit
            if waiters := self._waiters[log]:
                come = [waiter for waiter, position in waiters.items() if position <= self.at[log]]
                for waiter in come:
                    del waiters[waiter]
                self._ready.update(dict.fromkeys(come))
            del self._ready[log]

    def read_whole(self, log: str) -> bool:
        """Whether all that its head said was read."""
        return self.read[log] == self._whole[log]

    def blocked(self) -> dict[str, str]:
        """Log -> the cause that its next record waits for, of logs that cannot go on with what was read."""
        return {log: runs[0].causes[-1] for log, runs in self._runs.items() if runs and self._missing(log, runs[0])}

    def _missing(self, log: str, run: _Run) -> bool:
        """Whether a cause of it is not admitted; that one is then its last, and the log is looked at when it is. What
        is no record of these logs (an edge, a timer) never is one."""
        while run.causes:
            producer, _, position = run.causes[-1].rpartition("@")
            if producer in self.at and position.isdecimal() and int(position) > self.at[producer]:
                self._waiters[producer][log] = int(position)
                return True
            run.causes.pop()
        return False


def _confirmed(instant: list[Seen], runs: deque[_Run]) -> None:
    """Records of one instant that end with `DONE`: the parts of a staged transaction keep their own causes, and are one
    commit with it. They are events; what comes before them, such as a vote, is of commits of its own."""
    first = len(instant) - 1
    while first and instant[first - 1].kind == "event" and not instant[first - 1].destination:
        first -= 1
    _split(instant[:first], runs)
    runs.append(_Run(instant[first:], [one.cause for one in instant[first:]]))


def _split(instant: list[Seen], runs: deque[_Run]) -> None:
    """Records of one instant that no staged commit has made one: by their causes."""
    run: list[Seen] = []
    for record in instant:
        if run and record.cause != run[0].cause:
            runs.append(_Run(run, [run[0].cause]))
            run = []
        run.append(record)
    if run:
        runs.append(_Run(run, [run[0].cause]))
