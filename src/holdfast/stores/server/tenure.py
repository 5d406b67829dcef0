"""The tenure of a log on a database server: one incarnation's right to write it, as its holder knows it.

The row `head` says which incarnation may write, the last position given, and how many groups were committed. Whatever
writes compares that row, inside its own transaction, with the row as the holder left it (`Tenure.head`), and changes
nothing where they differ: this comparison is the fence. Comes between `stores.server.writer`, which asks the engine,
and nothing else: a tenure is told what was found, and says what the row becomes, whether a group whose commit was cut
off is there, and why the log is lost. It raises `StoreLocked` (another incarnation holds the log) and `StoreFailed`
(somebody wrote as this one); either is final.
"""

from collections.abc import Callable
from typing import NamedTuple

from holdfast.errors import StoreError, StoreFailed, StoreLocked
from holdfast.stores.planner import PlannedGroup

__all__ = ["FENCED", "Change", "Doubt", "Head", "Opening", "Tenure", "taken"]

FENCED = 2
"""Added to the count of groups, so that a group still on its way is refused. Not 1: that is the group."""


class Head(NamedTuple):
    """The row `head`: the last position given, how many groups were committed, and the incarnation that may write."""

    position: int
    groups: int
    incarnation: str


class Opening(NamedTuple):
    """What is recorded of a new incarnation: the first position it can give, how far it bridges a gap, and when."""

    first: int
    bridged: int
    at: int


class Change(NamedTuple):
    """What the row `head` becomes, and the opening that is recorded with it, if it begins an incarnation."""

    head: Head
    opening: Opening | None = None


class Doubt(NamedTuple):
    """A group whose commit was cut off: it may be there or not."""

    group: PlannedGroup
    lent: bool
    """It was sent on a handler's connection, which does not have the lock: the server may still get it."""


def taken(incarnation: str, at: int) -> Callable[[Head], Change]:
    """How an incarnation takes the log, whoever held it before."""

    def change(found: Head) -> Change:
        return Change(found._replace(incarnation=incarnation), Opening(found.position + 1, 0, at))

    return change


class Tenure:
    """The right to write a log, from its taking to its loss."""

    __slots__ = ("_log", "doubt", "head", "lost", "there")

    def __init__(self, log: str, head: Head) -> None:
        self._log = log
        self.head = head
        """The row as the holder's last durable change left it: what the fence of the next one compares with."""
        self.doubt: Doubt | None = None
        """Until it is resolved nothing may be written, and nothing be read."""
        self.there: PlannedGroup | None = None
        """The group that was last in doubt, where it was found to be there."""
        self.lost: StoreError | None = None
        """Why this holder may never write again."""

    def check(self) -> None:
        """Raises StoreLocked or StoreFailed where the log is lost."""
        if self.lost is not None:
            raise self.lost

    def lose(self, reason: StoreError) -> StoreError:
        """Give the log up for ever; the reason, to be raised."""
        self.lost = reason
        return reason

    def committed(self, group: PlannedGroup) -> None:
        """A group is durable: the row became what the group makes of it."""
        seen = self.head
        self.head = Head(group.head, seen.groups + 1, seen.incarnation)

    def compare(self, found: Head) -> None:
        """The fence, on a row that was read. Raises StoreLocked where it is not as the holder left it."""
        if found != self.head:
            raise self._taken_over()

    def leap(self, incarnation: str, at: int, first: int) -> Callable[[Head], Change]:
        """How a new incarnation begins at `first`, above the head. Raises StoreLocked as `compare` does."""

        def change(found: Head) -> Change:
            self.compare(found)
            return Change(Head(first - 1, found.groups, incarnation), Opening(first, first - 1, at))

        return change

    def resolve(self, found: Head) -> Change:
        """What the row becomes when the holder comes back to it on a new connection, its lock taken again.

        The count of groups says whether the one in doubt is there. A connection that broke had the lock, and since it
        is ours again nothing more comes from there. A handler's connection had none: what it sent may still arrive, so
        the count is raised past it. That this change is durable makes what it rests on durable too, since an engine may
        show what is not on its disk yet. Raises StoreLocked, StoreFailed.
        """
        if found.incarnation != self.head.incarnation:
            raise self._taken_over()
        lent = self.doubt is not None and self.doubt.lent
        more = found.groups - self.head.groups
        # FENCED is there already where the change of an earlier try was durable and its answer was lost.
        possible = (0,) if self.doubt is None else (0, 1, FENCED) if lent else (0, 1)
        if more not in possible:
            raise self.lose(StoreFailed(f"another process has written to the log of {self._log}"))
        return Change(found._replace(groups=found.groups + FENCED) if lent and more == 0 else found)

    def resolved(self, head: Head) -> PlannedGroup | None:
        """The row is durably as `resolve` said: nothing is in doubt. The group that was, if it is there."""
        there = head.groups == self.head.groups + 1
        self.there = self.doubt.group if self.doubt is not None and there else None
        self.head = head
        self.doubt = None
        return self.there

    def _taken_over(self) -> StoreError:
        return self.lose(StoreLocked(f"another process has begun to write to the log of {self._log}"))
