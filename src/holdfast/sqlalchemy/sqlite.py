"""SQLAlchemy on an `apsw.Connection`: the part of a DB-API driver that its SQLite dialect needs.

SQLAlchemy knows Python's own `sqlite3` and has no dialect for apsw, with which a SQLite store writes. Used by
`holdfast.sqlalchemy` only. Results are read whole. Errors are DB-API errors; the apsw error is their cause.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, cast

import apsw
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

__all__ = ["ApswDialect", "AsyncApswDialect", "Connection"]


class Error(Exception):
    """An error of the DB-API."""


class InterfaceError(Error):
    """One of how the driver is used."""


class DatabaseError(Error):
    """One of the database."""


class DataError(DatabaseError):
    """A value."""


class OperationalError(DatabaseError):
    """A statement, or the file."""


class IntegrityError(DatabaseError):
    """A constraint."""


class InternalError(DatabaseError):
    """SQLite itself."""


class ProgrammingError(DatabaseError):
    """How a statement is used."""


class NotSupportedError(DatabaseError):
    """What SQLite does not do."""


class Driver:
    """The driver module, as far as SQLAlchemy uses it."""

    paramstyle: ClassVar[str] = "qmark"
    sqlite_version_info: ClassVar[tuple[int, ...]] = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    sqlite_version: ClassVar[str] = apsw.sqlite_lib_version()
    Error, InterfaceError, DatabaseError, DataError = Error, InterfaceError, DatabaseError, DataError
    OperationalError, IntegrityError, InternalError = OperationalError, IntegrityError, InternalError
    ProgrammingError, NotSupportedError = ProgrammingError, NotSupportedError
    Binary = bytes


class Connection:
    """A connection that was lent; it can neither commit nor roll back."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.driver_connection = connection

    def cursor(self) -> "DriverCursor":
        """A cursor."""
        return DriverCursor(self.driver_connection)


class DriverCursor:
    """A cursor that runs one statement at a time and reads all its rows."""

    arraysize = 1

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._rows: Iterator[Any] = iter(())
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self.rowcount = -1
        self.lastrowid = 0

    def execute(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run a statement and read its rows."""
        self.description, self.rowcount = None, -1
        try:
            cursor = self._connection.cursor()
            cursor.exec_trace = self._described
            self._rows = iter(cast(Any, cursor).execute(sql, tuple(values)).fetchall())
            if self.description is None:
                self.rowcount, self.lastrowid = self._connection.changes(), self._connection.last_insert_rowid()
        except apsw.ConstraintError as error:
            raise IntegrityError(str(error)) from error
        except apsw.Error as error:
            raise OperationalError(str(error)) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each row of values."""
        changed = 0
        for values in rows:
            self.execute(sql, values)
            changed += max(self.rowcount, 0)
        self.rowcount = changed

    def _described(self, cursor: Any, sql: str, values: Any) -> bool:
        # The columns are read before the first step: a statement without rows ends with that step and loses them.
        columns = cursor.get_description()
        self.description = tuple((name, kind, *(None,) * 5) for name, kind in columns) or None
        return True

    def fetchone(self) -> Any:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[Any]:
        """At most that many rows."""
        return [row for row, _ in zip(self._rows, range(size), strict=False)]

    def fetchall(self) -> list[Any]:
        """All remaining rows."""
        return list(self._rows)

    def close(self) -> None:
        """Forget the rows."""
        self._rows = iter(())


class ApswDialect(SQLiteDialect):
    """SQLite by apsw."""

    driver = "apsw"
    default_paramstyle = "qmark"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """What serves as the driver's module."""
        return Driver

    def create_connect_args(self, url: Any) -> Any:
        """None: connections are lent."""
        return (), {}


class AsyncApswDialect(ApswDialect):
    """The same under an `AsyncSession`; nothing in it ever waits."""

    is_async = True
    supports_statement_cache = True
