"""Turns: commands from the edge that wait until a stream is free, in the order they came.

A command from the edge is not stored before it is decided, so it is never set aside like a received message. It waits
here in memory, behind a lock or behind the messages that wait on its stream. When the stream is released, the commands
that came before the next waiting message are tried again in order. The edge comes before it, the writer after it. Fails
with `Busy` if too many commands wait.
"""

import bisect
from typing import Protocol

from holdfast.errors import Busy, Unavailable
from holdfast.runtime.log.work import Work

QUEUED_MAX = 1_000
"""Commands from the edge that may wait for one stream."""


class TurnWork(Work, Protocol):
    """A work that can wait for its turn on a stream."""

    number: int
    """The place of the command among all commands that have ever waited; 0 if it has not waited."""
    turn: bool
    """True if the command has waited and no other command is before it now."""

    @property
    def at(self) -> int:
        """When it came, µs since 1970-01-01 UTC."""
        ...

    @property
    def tx(self) -> str:
        """The transaction that it begins."""
        ...

    @property
    def stored(self) -> str:
        """The stored type of its command."""
        ...


class Turns:
    """The commands of one service that wait for their turn."""

    def __init__(self) -> None:
        self._queued: dict[str, list[TurnWork]] = {}
        self._sequence = 0

    def queue(self, stream: str, work: TurnWork) -> None:
        """Let a command wait for its turn on a stream. Raises Busy when too many do."""
        queued = self._queued.setdefault(stream, [])
        if len(queued) >= QUEUED_MAX:
            raise Busy(
                f"{QUEUED_MAX} commands wait for the stream {stream}, which is the limit; try again later",
                retry_after_seconds=1.0,
            )
        if not work.number:
            self._sequence += 1
            work.number = self._sequence
        work.turn = False
        bisect.insort(queued, work, key=_number)

    def queued(self, stream: str, before: int = 0) -> bool:
        """True while commands wait for the stream; `before`: only those with a smaller number count."""
        queued = self._queued.get(stream)
        return bool(queued) and (not before or queued[0].number < before)

    def take(self, stream: str, before: int) -> list[TurnWork]:
        """Remove and return, in order, the commands of a stream that came before that time; 0: all commands."""
        queued = self._queued.get(stream, [])
        mine = [work for work in queued if not before or work.at < before]
        if len(mine) == len(queued):
            self._queued.pop(stream, None)
        else:
            self._queued[stream] = queued[len(mine) :]
        for work in mine:
            work.turn = True
        return mine

    def waiters(self) -> list[tuple[str, str, str, int]]:
        """(stream, transaction, command's type, since when) of the commands that wait for their turn."""
        return [(stream, work.tx, work.stored, work.at) for stream, works in self._queued.items() for work in works]

    def fail(self, error: Unavailable) -> None:
        """Fail all commands, since the store could not commit or the service stops."""
        queued, self._queued = self._queued, {}
        for work in (work for works in queued.values() for work in works):
            work.failed(error)


def _number(work: TurnWork) -> int:
    return work.number
