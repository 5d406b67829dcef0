"""The store port: a service's log and the small tables around it, on some engine.

Comes after `runtime.log.writer`, which hands it groups of batches; before the engine. One verb writes: `commit`.
`holdfast.testing.conformance.store` decides what is a store: an adapter that passes it is one.
All methods are coroutines called from one event loop; they may overlap, except that `commit` is never called while
another `commit` of the same store is running. Failures are `holdfast.errors.StoreError`s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from holdfast.core.log.batch import Batch, CommitOutcome, Cursor, RowKind
from holdfast.core.log.record import Kind, Record

__all__ = ["RECORD_BYTES_MAX", "Capabilities", "Incarnation", "Lent", "Loaded", "Opened", "Page", "Snapshot", "Store"]

RECORD_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of one record's `data` that every store takes; more is refused. Half a frame, so that each record fits one."""


class Capabilities(msgspec.Struct, frozen=True):
    """What an engine can and cannot do, each limit with its reason in the adapter's docstring."""

    durable: bool
    """A commit survives the power going (memory: no)."""
    replicas: bool = False
    """Several processes may write to one log."""
    backup: bool = False
    """`backup` works while the store is being written to."""
    transactions: Literal["", "shared", "own"] = ""
    """What `begin` lends to handlers. `own`: a connection and a transaction for each. `shared`: the one connection that
    writes; nothing else is committed meanwhile, and several handlers may work in one transaction, one after another.
    Empty: nothing."""
    engine: str = ""
    """`sqlite`, `postgres` or `mysql`, for who writes SQL of his own."""


class Incarnation(msgspec.Struct, frozen=True):
    """One opening of a log for writing: the id it took and the first position it could give.

    `bridged` is the highest position below `first` that a repair declared lost: a cursor of an earlier incarnation
    that stands in the gap up to it is accepted again. 0 where no repair was.
    """

    id: str
    first: int
    bridged: int = 0


class Opened(msgspec.Struct, frozen=True):
    """What a store says when it opens: its head and all incarnations, oldest first.

    The head is the last position given (0: none), or after a leap the last one that never will be: the next record
    gets `head` + 1.
    """

    head: int
    incarnations: tuple[Incarnation, ...]


class Page(msgspec.Struct, frozen=True):
    """Records in commit order, and how far the search went: everything that matches in (after, upto] is here."""

    records: tuple[Record, ...]
    upto: int


class Snapshot(msgspec.Struct, frozen=True):
    """A folded stream as the runtime encoded it, stored as row (`snapshot`, stream)."""

    version: int
    shape: str
    """Fingerprint of the fields it was folded with; a snapshot of another shape is not used."""
    data: msgspec.Raw


class Loaded(msgspec.Struct, frozen=True):
    """A stream: its newest snapshot if asked for and there, and all its versioned records after it, oldest first."""

    snapshot: Snapshot | None
    records: tuple[Record, ...]


class Lent(Protocol):
    """A transaction lent to handlers. Who has begun it ends it, whatever happens."""

    @property
    def connection(self) -> Any:
        """The engine's own connection. It refuses to commit and to roll back, where the driver lets it."""
        ...

    async def mark(self) -> None:
        """What follows is one handler's. Raises StoreFailed."""
        ...

    async def undo(self) -> None:
        """Take back all since the mark; where transactions are not shared, all. Raises StoreFailed."""
        ...

    def lost(self, error: BaseException) -> bool:
        """True where that error of the driver says that the engine ended the transaction, and a new one may do."""
        ...

    async def end(self) -> None:
        """Roll back what is not committed, and give the connection back. Never raises; safe to call twice."""
        ...


class Store(Protocol):
    """A log and its small tables.

    Guarantees of every store: positions are gap-free within an incarnation and given in commit order (G2); what
    `commit` returned as `Committed` is durable by the engine's highest setting (G8) and is seen by every later read;
    no read ever returns anything that is not committed, nor a record while one of a lower position is still to come.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        ...

    async def open(self, incarnation: str, at: int) -> Opened:
        """Open for writing and begin the incarnation with that id at time `at` (µs); creates an absent store.

        Raises StoreLocked (another process writes to it; names the holder), StoreForeign (not a holdfast store),
        StoreCorrupt, SchemaNewer (written by a later release), StoreMismatch (the log of another service).
        """
        ...

    async def begin(self) -> Lent:
        """Begin a transaction for handlers. Where it is `shared`, `commit` waits until it has ended, other than the one
        `within` it. Raises StoreFailed, and StoreError where the engine lends none."""
        ...

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Commit each batch whole or not at all, all of them in one durable flush; one outcome for each, in order.

        A batch is checked against the state its predecessors in the group leave. In order: every `reads` stream is at
        the version named; every `moves` cursor is at `before`; every fresh row is absent. The first that does not
        hold is the outcome (`Conflict`, `Duplicate`), the batch leaves nothing, and its neighbours go through. An
        empty batch is `Committed` at the next position. A record's version must follow on from what the batch read:
        the store relies on it, and fails the group where it would give one version twice.

        Raises StoreFailed when the engine could not make the group durable. Then either nothing of it is there, which
        the adapter has made sure of by looking, never by guessing; or the engine could not be asked, and every other
        method raises StoreFailed until `recover` could. And LimitExceeded (a record's `data` over `RECORD_BYTES_MAX`),
        before anything is written.

        `within` a transaction, the batches and what was done in it are committed together or not at all: where one
        batch is refused, nothing is written and the outcomes say why. Then it may also raise TransactionRefused (the
        engine does not take what the handlers did, or they ended the transaction themselves) and TransactionLost (the
        connection broke, and looking has shown that nothing is there).
        """
        ...

    async def recover(self) -> int:
        """After a commit that failed: find out whether its group is there after all. The head.

        Raises StoreFailed while the engine cannot be asked. What is read after it includes the group if it is there.
        """
        ...

    async def read(
        self,
        after: int,
        limit: int,
        *,
        kinds: Sequence[Kind] = (),
        types: Sequence[str] = (),
        destination: str = "",
        upto: int = 0,
    ) -> Page:
        """At most `limit` records of the log in (after, upto], oldest first; `upto` 0 means the head.

        `kinds`, `types`, `destination`: only records that match each one given. The page's `upto` is the position of
        the last record when it holds `limit` of them, else the `upto` asked for (never past the head).
        """
        ...

    async def load(self, streams: Sequence[str], *, upto: int = 0, snapshots: bool = True) -> list[Loaded]:
        """Each stream, in the order asked; absent ones are empty. `upto` > 0: as it was at that position, from the
        records alone."""
        ...

    async def related(
        self, *, tx: str = "", correlation: str = "", stream: str = "", limit: int = 1000
    ) -> list[Record]:
        """Records of one transaction, of one correlation label, or on one stream (rejections of version 0 included),
        in log order. Exactly one of the three is given."""
        ...

    async def get(self, kind: RowKind, keys: Sequence[str]) -> list[bytes | None]:
        """The rows' data, in the order asked; None where there is no such row."""
        ...

    async def scan(
        self, kind: RowKind, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, bytes]]:
        """(key, data) of rows whose key begins with `prefix` and is greater than `after`, in UTF-8 byte order."""
        ...

    async def streams(self, prefix: str, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
        """(stream, version) of streams beginning with `prefix`, greater than `after`, in UTF-8 byte order."""
        ...

    async def cursors(self) -> dict[str, Cursor]:
        """Every cursor and checkpoint by name."""
        ...

    async def clear(self, kind: RowKind, prefix: str, cursor_prefix: str) -> None:
        """Remove all rows of `kind` whose key begins with `prefix` and all cursors whose name begins with
        `cursor_prefix` (neither may be empty: ValueError), durably: how a view's old generation goes."""
        ...

    async def leap(self, incarnation: str, at: int, first: int) -> Opened:
        """Begin a new incarnation at position `first` (above the head, else LimitExceeded), bridging the gap: the
        repair of a restored store."""
        ...

    async def backup(self, target: Path) -> None:
        """Write a consistent copy to `target` (must not exist, else StoreForeign) while the store goes on."""
        ...

    async def close(self) -> None:
        """Finish what is running and let go of the engine. Safe to call twice, and on a store that never opened."""
        ...
