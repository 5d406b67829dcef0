"""A transaction on the connection that writes a SQLite store, lent to handlers.

Made by `stores.sqlite.store` while nothing else is written; handlers work on it in the event loop's thread, one after
another, each behind a savepoint of its own. While one does, an authorizer refuses what a handler may not do: ending the
transaction, changing holdfast's own tables, and switches that change how the file is written. It raises
`TransactionRefused` when such a statement is prepared.
"""

from collections.abc import Awaitable, Callable

import apsw

from holdfast.errors import StoreFailed, TransactionRefused
from holdfast.stores.sqlite.file import Connection

__all__ = ["SQLiteLent", "StatementGuard"]

OWN_TABLES = {"log", "rows", "cursors", "meta", "incarnations", "writing"}
SAVEPOINT = "holdfast_handler"
READING_PRAGMAS = {
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "table_info",
    "table_list",
    "table_xinfo",
}
CHANGES = {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
TABLE_FIRST = {*CHANGES, apsw.SQLITE_DROP_TABLE}
TABLE_SECOND = {
    apsw.SQLITE_ALTER_TABLE,
    apsw.SQLITE_CREATE_INDEX,
    apsw.SQLITE_CREATE_TRIGGER,
    apsw.SQLITE_CREATE_TEMP_TRIGGER,
    apsw.SQLITE_DROP_INDEX,
    apsw.SQLITE_DROP_TRIGGER,
}
"""Statements that name a table, and as which of an authorizer's arguments."""


class StatementGuard:
    """The authorizer of a handler's statements; SQLite calls it when a statement is prepared."""

    def __init__(self, connection: Connection) -> None:
        self.on = False
        """True while a handler is at work; holdfast's own statements may do anything."""
        connection.authorizer = self._may

    def _may(self, what: int, first: str | None, second: str | None, database: str | None, by: str | None) -> int:
        if not self.on:
            return apsw.SQLITE_OK
        if what == apsw.SQLITE_TRANSACTION:
            raise TransactionRefused(f"{first}: a handler may not begin or end its transaction; holdfast does it")
        if what == apsw.SQLITE_SAVEPOINT and second == SAVEPOINT:
            raise TransactionRefused(f"{first} {second}: this savepoint belongs to holdfast; use another name")
        named = first if what in TABLE_FIRST else second if what in TABLE_SECOND else None
        if named is not None and named.lower() in OWN_TABLES:
            raise TransactionRefused(f"the table {named} belongs to holdfast; a handler may read it, but not change it")
        if what in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
            raise TransactionRefused("a handler may not attach or detach a file")
        if what == apsw.SQLITE_PRAGMA and second is not None and (first or "").lower() not in READING_PRAGMAS:
            raise TransactionRefused(f"PRAGMA {first} = {second}: a handler may not change a setting")
        return apsw.SQLITE_OK


class SQLiteLent:
    """The transaction, from BEGIN to its commit or its end."""

    def __init__(self, connection: Connection, guard: StatementGuard, end: Callable[[], Awaitable[None]]) -> None:
        self.connection = connection
        self._guard, self._end = guard, end
        self._marked = self._ended = False
        self.over = False

    async def mark(self) -> None:
        """Set a savepoint and release the one before it; the work since then stays."""
        self._guard.on = False
        self._say((f"RELEASE {SAVEPOINT}; " if self._marked else "") + f"SAVEPOINT {SAVEPOINT} -- of holdfast")
        self._marked = self._guard.on = True

    async def undo(self) -> None:
        """Roll back to the savepoint."""
        self._guard.on = False
        self._say(f"ROLLBACK TO {SAVEPOINT} -- of holdfast")

    def lost(self, error: BaseException) -> bool:
        """Never true: no other process writes to the file."""
        return False

    def close(self) -> None:
        """Note that no handler works on the connection any more."""
        self._guard.on = False
        self.over = True

    async def end(self) -> None:
        """Roll back, if it is not committed."""
        self.close()
        if not self._ended:
            self._ended = True
            await self._end()

    def _say(self, sql: str) -> None:
        try:
            self.connection.execute(sql)
        except apsw.Error as error:
            # A full or failing disk may have ended the whole transaction.
            raise StoreFailed(f"the transaction of a handler has ended: {error}") from error
