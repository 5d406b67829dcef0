"""The batch: all that one handling decides, committed whole or not at all (G1).

Comes after the deciders (aggregate, saga, view), which fill it; before the store, whose `commit` is the one verb that
writes. A batch also names what it read, so that a decision taken on stale state cannot be committed (G2).
"""

from typing import Literal

import msgspec

from holdfast.core.log.record import Record

RowKind = Literal["request", "waiting", "timer", "saga", "stage", "decided", "snapshot", "view", "service"]
"""The small tables around the log.

`request`: an idempotency key and the content it was used with; `waiting`: messages that are received and not yet
decided; `timer`: due times; `saga`: sagas that have not ended; `stage`: locked streams with the events that are held
for a staged transaction; `decided`: decisions on staged transactions that did not come from their coordinator;
`snapshot`: folded streams; `view`: read models; `service`: this service's own switches.
"""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row of a small table after the commit: put when `data` is bytes, deleted when it is None."""

    kind: RowKind
    key: str
    data: bytes | None
    fresh: bool = False
    """True: the row must not exist yet, else the whole batch is answered with `Duplicate`."""


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """How far a consumer has come in a producer's log: position, and the incarnation that wrote it."""

    incarnation: str = ""
    position: int = 0


class Move(msgspec.Struct, frozen=True, gc=False):
    """One cursor or checkpoint, from where this batch read it to where it leaves it."""

    name: str
    """`exchange:PRODUCER`, or of a feed `reaction:NAME:PRODUCER`, `saga:NAME:PRODUCER`, `view:NAME@N:PRODUCER`."""
    before: int
    after: Cursor


class Batch(msgspec.Struct, frozen=True, gc=False):
    """What one handling changes. Records get consecutive positions in the order given."""

    records: tuple[Record, ...] = ()
    reads: tuple[tuple[str, int], ...] = ()
    """(stream, version) of every stream the decision rests on, as it was before `records`; 0 means absent. A stream
    that is appended to is listed too: its records continue at version + 1."""
    moves: tuple[Move, ...] = ()
    rows: tuple[Row, ...] = ()


class Committed(msgspec.Struct, frozen=True, gc=False):
    """The batch is durable. Its records have the positions `position`, `position` + 1, ..."""

    position: int


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """The stream or cursor `what` has moved since the batch read it. Nothing of the batch was written."""

    what: str
    expected: int
    found: int


class Duplicate(msgspec.Struct, frozen=True, gc=False):
    """A row that had to be fresh exists already and holds `data`. Nothing of the batch was written."""

    kind: RowKind
    key: str
    data: bytes


CommitOutcome = Committed | Conflict | Duplicate
