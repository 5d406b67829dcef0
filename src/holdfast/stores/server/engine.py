"""What the adapter of a database server brings: connections, its SQL, and what the errors of its driver mean.

Implemented by `stores.postgres.engine` and `stores.mysql.engine`, each with its schema beside it; used by the parts of
`stores.server`, which hold all that is the same on both. An engine decides nothing: it is told what the row `head` has
to be (`stores.server.tenure`) and what a group is (`stores.planner`). A connection is whatever the driver makes. Fails
with `Broken` where nobody can say what was done, with `Unfit` where nothing was written, and with `StoreError`s.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol

from holdfast.errors import StoreError
from holdfast.ports.store import Capabilities
from holdfast.stores.planner import PlannedGroup
from holdfast.stores.server.tenure import Change, Head

__all__ = ["Broken", "Connection", "Engine", "Range", "Unfit", "drop"]

Connection = Any
"""The driver's own."""
Range = tuple[str, str | None]
"""Names from the first on, and below the second where there is one, in the order of bytes."""


class Broken(Exception):
    """The connection to the server is gone; what it was doing may have been done or not."""


class Unfit(Exception):
    """Nothing was written: an assumption of the group, or the fence, did not hold."""


class Engine(Protocol):
    """A database server that can hold a log."""

    capabilities: Capabilities
    log: str
    """Whose tables these are."""
    where: str
    """The place of the tables, in words."""
    backup_tool: str
    """What copies the database: the server's own tool."""
    shows_early: bool
    """A commit is shown to others before it is on the disk."""

    # Connections.

    async def connect(self, *, writer: bool) -> Connection:
        """A connection to read on; or to write on, once the server was found to keep what it commits. Raises Broken,
        StoreFailed."""
        ...

    async def disconnect(self, connection: Connection) -> None:
        """Let go of a connection, whatever state it is in. Raises Broken, StoreError."""
        ...

    async def lock(self, connection: Connection) -> str | None:
        """Take the right to write, for as long as the connection lasts; else who has it. Raises Broken, StoreFailed."""
        ...

    # Reading.

    async def query(self, connection: Connection, sql: str, values: Sequence[Any]) -> list[Any]:
        """Rows of a query; placeholders are %s. Text may come as bytes. Raises Broken, StoreFailed."""
        ...

    def load_query(self, streams: list[str], *, snapshots: bool, upto: int) -> tuple[str, list[Any]]:
        """Versioned records of some streams up to a position, in order; with `snapshots` those after each stream's
        snapshot, and before them the snapshots, as rows of kind SNAPSHOT with their data."""
        ...

    def rows_query(self, kind: str, keys: Sequence[str]) -> tuple[str, list[Any]]:
        """Small rows by key."""
        ...

    # Writing: each in one durable transaction that compares the row `head` first.

    async def write(self, connection: Connection, group: PlannedGroup, before: Head, *, within: bool = False) -> None:
        """A group, if the row is still `before`; `within` the transaction that is open. Raises Broken, Unfit,
        StoreFailed; `within` also TransactionRefused and TransactionLost."""
        ...

    async def remove(self, connection: Connection, before: Head, kind: str, keys: Range, names: Range) -> bool:
        """Remove the rows of a kind and the cursors in two ranges, both or none. False, with nothing removed, where the
        row is not `before`. Raises Broken, StoreFailed."""
        ...

    async def change_head(self, connection: Connection, change: Callable[[Head], Change]) -> Head:
        """Lock the row, and let `change` say what it becomes and which opening is recorded. The row as it is then: also
        where that is as it was, something is made durable. Raises Broken, and what `change` raises (then nothing has
        changed)."""
        ...

    # Transactions of handlers, on connections of their own.

    async def connect_lent(self) -> Connection:
        """A connection for handlers. Raises Broken, StoreError."""
        ...

    async def begin(self, connection: Connection) -> None:
        """Raises Broken, StoreFailed."""
        ...

    async def roll_back(self, connection: Connection) -> None:
        """Raises Broken, StoreFailed."""
        ...

    def check_lent(self, connection: Connection) -> None:
        """Raises TransactionRefused where it is not in a transaction that can be committed."""
        ...

    def ends(self, connection: Connection, error: BaseException) -> bool:
        """True where the error says that the server ended the transaction, through no fault of the statement's."""
        ...

    # The tables.

    def alone(self, connection: Connection) -> AbstractAsyncContextManager[None]:
        """Nobody else makes or changes this log's tables inside."""
        ...

    async def meta(self, connection: Connection) -> dict[str, str] | None:
        """What the tables say of themselves; None where they are not there. Raises StoreForeign."""
        ...

    async def create(self, connection: Connection) -> None:
        """Make the tables, in version 1. Raises Broken, StoreFailed."""
        ...

    async def run_migration(self, connection: Connection, script: str, name: str, version: int) -> None:
        """Run a half of a migration, and note in `meta` under `name` that it was. Raises Broken, StoreFailed."""
        ...


async def drop(engine: Engine, connection: Connection | None) -> None:
    """Let go of a connection of which nothing more is asked; where there is none, nothing."""
    if connection is not None:
        with suppress(Broken, StoreError):
            await engine.disconnect(connection)
