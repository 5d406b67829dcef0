"""The store port: a service's log and the small tables around it, on some engine.

Comes after `runtime.log.writer`, which hands it groups of batches; before the engine. One verb writes: `commit`.
An adapter is a store if it passes `holdfast.testing.conformance.store`.
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
"""The limit on the bytes of one record's `data`, the same in every store. It is half a frame, so each record fits
one."""


class Capabilities(msgspec.Struct, frozen=True):
    """The capabilities of an engine; the adapter's docstring gives the reason for each limit."""

    durable: bool
    """A commit survives a power failure (memory: no)."""
    replicas: bool = False
    """Several processes may write to one log."""
    backup: bool = False
    """`backup` works while the store is being written to."""
    transactions: Literal["", "shared", "own"] = ""
    """What `begin` lends to handlers. `own`: a connection and a transaction for each handler. `shared`: the one
    connection that writes; nothing else is committed meanwhile, and several handlers may work in one transaction, one
    after another. Empty: no transactions."""
    engine: str = ""
    """`sqlite`, `postgres` or `mysql`, for handlers with SQL of their own."""


class Incarnation(msgspec.Struct, frozen=True):
    """One opening of a log for writing: the id it took and the first position it could give.

    `bridged` is the highest position below `first` that a repair declared lost: a cursor of an earlier incarnation
    that stands in the gap up to it is accepted again. 0 if there was no repair.
    """

    id: str
    first: int
    bridged: int = 0


class Opened(msgspec.Struct, frozen=True):
    """The state of a store when it opens: its head and all incarnations, oldest first.

    The head is the last position given (0: none), or after a leap the last position that is skipped: the next record
    gets `head` + 1.
    """

    head: int
    incarnations: tuple[Incarnation, ...]


class Page(msgspec.Struct, frozen=True):
    """Records in commit order, and how far the search went: all matching records in (after, upto] are here."""

    records: tuple[Record, ...]
    upto: int


class Snapshot(msgspec.Struct, frozen=True):
    """A folded stream as the runtime encoded it, stored as row (`snapshot`, stream)."""

    version: int
    shape: str
    """The fingerprint of the fields it was folded with; a snapshot with another shape is not used."""
    data: msgspec.Raw


class Loaded(msgspec.Struct, frozen=True):
    """A stream: its newest snapshot, if requested and present, and all its versioned records after it, oldest first."""

    snapshot: Snapshot | None
    records: tuple[Record, ...]


class Lent(Protocol):
    """A transaction lent to handlers. The caller that began it must end it in every case."""

    @property
    def connection(self) -> Any:
        """The engine's own connection. It refuses to commit and to roll back, if the driver allows that."""
        ...

    async def mark(self) -> None:
        """Mark the beginning of one handler's work. Raises StoreFailed."""
        ...

    async def undo(self) -> None:
        """Undo all work since the mark; if transactions are not shared, all work. Raises StoreFailed."""
        ...

    def lost(self, error: BaseException) -> bool:
        """True if this error of the driver says that the engine ended the transaction, and a new one may succeed."""
        ...

    async def end(self) -> None:
        """Roll back if it is not committed, and give the connection back. Never raises; safe to call twice."""
        ...


class Store(Protocol):
    """A log and its small tables.

    Guarantees of every store: positions are gap-free within an incarnation and given in commit order (G2); a
    batch for which `commit` returned `Committed` is durable by the engine's highest setting (G8), and every later read
    sees it; no read returns uncommitted data, or a record while a record with a lower position is still to come.
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
        """Begin a transaction for handlers. If it is `shared`, every `commit` waits until it has ended, except the
        one `within` it. Raises StoreFailed, and StoreError if the engine lends no transactions."""
        ...

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Commit each batch whole or not at all, all of them in one durable flush; one outcome for each, in order.

        A batch is checked against the state its predecessors in the group leave. In order: every `reads` stream is at
        the version named; every `moves` cursor is at `before`; every fresh row is absent. The first check that
        fails gives the outcome (`Conflict`, `Duplicate`), the batch writes nothing, and the other batches go on. An
        empty batch is `Committed` at the next position. A record's version must follow on from what the batch read:
        the store relies on it, and fails the group if it would give one version twice.

        Raises StoreFailed when the engine could not make the group durable. Then either nothing of it is there, and
        the adapter has verified that; or the engine could not be asked, and every other method raises StoreFailed
        until `recover` succeeds. Raises LimitExceeded (a record's `data` is over `RECORD_BYTES_MAX`) before anything
        is written.

        `within` a transaction, the batches and the handlers' work commit together or not at all: if one batch is
        refused, nothing is written and the outcomes say why. It may then also raise TransactionRefused (the engine
        refuses the handlers' work, or they ended the transaction themselves) and TransactionLost (the connection
        broke, and the adapter has verified that nothing is there).
        """
        ...

    async def recover(self) -> int:
        """Find out, after a failed commit, whether its group is there after all, and return the head.

        Raises StoreFailed while the engine cannot be asked. Later reads include the group if it is there.
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
        """The rows' data, in the order asked; None if there is no such row."""
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
        `cursor_prefix` (neither may be empty: ValueError), durably: this is how a view's old generation is removed."""
        ...

    async def leap(self, incarnation: str, at: int, first: int) -> Opened:
        """Begin a new incarnation at position `first` (above the head, else LimitExceeded), bridging the gap: the
        repair of a restored store."""
        ...

    async def backup(self, target: Path) -> None:
        """Write a consistent copy to `target` (if it exists: StoreForeign) while the store goes on."""
        ...

    async def close(self) -> None:
        """Finish the running calls and disconnect from the engine. Safe to call twice, and on a store that never
        opened."""
        ...
