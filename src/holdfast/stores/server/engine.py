"""The engine port: what an adapter of a database server provides: connections, SQL, and the meaning of driver errors.

Implemented by `stores.postgres.engine` and `stores.mysql.engine`, each with its schema beside it; used by the parts of
`stores.server`, which are the same for both. An engine decides nothing: it receives the expected row `head`
(`stores.server.tenure`) and the group (`stores.planner`). A connection has the driver's own type. Fails with `Broken`
if it is unknown what was done, with `Unfit` if nothing was written, and with `StoreError`s.
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
"""A connection of the driver's own type."""
Range = tuple[str, str | None]
"""Names from the first on, and below the second if there is one, in the order of bytes."""


class Broken(Exception):
    """The connection to the server is gone; it is unknown whether its last work was done."""


class Unfit(Exception):
    """Nothing was written: an assumption of the group, or the fence, did not hold."""


class Engine(Protocol):
    """A database server that can hold a log."""

    capabilities: Capabilities
    log: str
    """The log that owns the tables."""
    where: str
    """The place of the tables, in words."""
    backup_tool: str
    """The server's own tool for copies of the database."""
    shows_early: bool
    """True if others see a commit before it is on the disk."""

    # Connections.

    async def connect(self, *, writer: bool) -> Connection:
        """A connection for reading; or for writing, after a check that the server's commits survive a crash. Raises
        Broken, StoreFailed."""
        ...

    async def disconnect(self, connection: Connection) -> None:
        """Close a connection in any state. Raises Broken, StoreError."""
        ...

    async def lock(self, connection: Connection) -> str | None:
        """Take the right to write for as long as the connection lasts; else return its holder. Raises Broken,
        StoreFailed."""
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
        """Write a group if the row is still `before`; `within`: in the open transaction. Raises Broken, Unfit,
        StoreFailed; `within` also TransactionRefused and TransactionLost."""
        ...

    async def remove(self, connection: Connection, before: Head, kind: str, keys: Range, names: Range) -> bool:
        """Remove the rows of a kind and the cursors in two ranges, both or none. False, with nothing removed, if the
        row is not `before`. Raises Broken, StoreFailed."""
        ...

    async def change_head(self, connection: Connection, change: Callable[[Head], Change]) -> Head:
        """Lock the row, and let `change` return its new values and the opening to record. Returns the new row. A write
        is made durable even if the row stays the same. Raises Broken, and what `change` raises (then nothing has
        changed)."""
        ...

    # Transactions of handlers, on connections of their own.

    async def connect_lent(self) -> Connection:
        """A connection for handlers. Raises Broken, StoreError."""
        ...

    async def begin(self, connection: Connection) -> None:
        """Begin the transaction of a handler. Raises Broken, StoreFailed."""
        ...

    async def roll_back(self, connection: Connection) -> None:
        """Roll back the transaction of a handler. Raises Broken, StoreFailed."""
        ...

    def check_lent(self, connection: Connection) -> None:
        """Raise TransactionRefused if the connection has no transaction that can be committed."""
        ...

    def ends(self, connection: Connection, error: BaseException) -> bool:
        """True if the error says that the server ended the transaction, and the statement was not at fault."""
        ...

    # The tables.

    def alone(self, connection: Connection) -> AbstractAsyncContextManager[None]:
        """Exclude every other process from creating or changing this log's tables inside the block."""
        ...

    async def meta(self, connection: Connection) -> dict[str, str] | None:
        """The contents of `meta`; None if the tables do not exist. Raises StoreForeign."""
        ...

    async def create(self, connection: Connection) -> None:
        """Create the tables, in version 1. Raises Broken, StoreFailed."""
        ...

    async def run_migration(self, connection: Connection, script: str, name: str, version: int) -> None:
        """Run a half of a migration, and note it in `meta` under `name`. Raises Broken, StoreFailed."""
        ...


async def drop(engine: Engine, connection: Connection | None) -> None:
    """Close a connection that is not needed any more; do nothing if there is none."""
    if connection is not None:
        with suppress(Broken, StoreError):
            await engine.disconnect(connection)
