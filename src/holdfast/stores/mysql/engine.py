"""MariaDB (asyncmy): a database for each log. It is written for MySQL 8 too, but not tested there.

With `stores.server.store` it promises all of `ports.store` but backup (the server's own tools do that). A group is one
packet of statements (`stores.mysql.statements`). InnoDB shows a commit to others before it is on the disk (MySQL bug
74303), so a reader gets its rows only when the running commit is durable. It refuses a server whose commits do not
survive a crash (`innodb_flush_log_at_trx_commit`, `sync_binlog`, `innodb_doublewrite`), unless the URL says
`unsafe=true`. Fails as `stores.server.engine` says.

    mysql://user:password@host:3306/stock
"""

import asyncio
import os
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from asyncmy.connection import Connection as AsyncmyConnection
from asyncmy.constants import CLIENT
from asyncmy.errors import Error, IntegrityError

from holdfast.errors import ConfigInvalid, StoreError, StoreFailed, StoreForeign, TransactionRefused
from holdfast.ports.store import Capabilities
from holdfast.stores.mysql.statements import filled, name_of, packets, quoted, removal, statements
from holdfast.stores.planner import PlannedGroup
from holdfast.stores.server.columns import COLUMNS, HEAD, KEY, ROW, ROWS, SNAPSHOT, text
from holdfast.stores.server.engine import Broken, Connection, Range, Unfit
from holdfast.stores.server.tenure import Change, Head

__all__ = ["MySQLEngine"]

ALONE_SECONDS = 10
CONNECT_SECONDS = 3
PACKET_BYTES_MIN = 16 * 1024 * 1024
"""The packet size that the server must accept: a record of the largest size, with every quote doubled."""
MODES = "STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO"
"""Strict: the fence is a NULL that the column refuses. No backslash escapes: quotes are doubled, and that is all."""
SETTINGS = (
    "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog, @@innodb_doublewrite, @@max_allowed_packet"
)
DUPLICATE, NULL = 1062, 1048
ENDED = (1020, 1205, 1213)
"""Codes of a deadlock, of a lock wait time-out, and of a row that changed since it was read."""
CLIENT_ERRORS = 2000
"""Codes from here on are the client's own, for a failed connection; newer codes of MySQL 8 are treated the same."""
UNSAID = (0, 1040, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1205, 1213, 1927)
"""Codes that do not say what was done: the server is full or stops, or it ended the connection or the transaction; 0 if
the driver has no code."""
GONE = (OSError, EOFError, asyncio.IncompleteReadError, struct.error, AttributeError, RuntimeError, TimeoutError)
"""The driver's exceptions for a lost connection, beside its own errors."""


class LentConnection(cast("type[Any]", AsyncmyConnection)):
    """The driver's connection, which refuses to end a transaction while a handler works in it."""

    lent = False

    async def begin(self) -> None:
        """Refuse while lent."""
        self._refuse("begin")
        driver: Any = super()
        await driver.begin()

    async def commit(self) -> None:
        """Refuse while lent."""
        self._refuse("commit")
        driver: Any = super()
        await driver.commit()

    async def rollback(self) -> None:
        """Refuse while lent."""
        self._refuse("rollback")
        driver: Any = super()
        await driver.rollback()

    async def autocommit(self, value: bool) -> None:
        """Refuse while lent."""
        self._refuse("autocommit")
        driver: Any = super()
        await driver.autocommit(value)

    def _refuse(self, what: str) -> None:
        if self.lent:
            raise TransactionRefused(f"{what}: a handler may not begin or end its transaction; holdfast does it")


class MySQLEngine:
    """The log `log` in the database that the URL names, or in one with the log's name; it is created if absent."""

    capabilities = Capabilities(durable=True, transactions="own", engine="mysql")
    backup_tool = "mariadb-backup, or mysqldump --single-transaction"
    shows_early = True

    def __init__(self, url: str, log: str) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        self.log = log
        self.database = unquote(parts.path.strip("/")) or log
        self.where = f"the database {self.database!r}"
        self._unsafe = options.pop("unsafe", "false") == "true"
        if not parts.hostname or options or "/" in self.database or len(self.database) > 64:
            raise ConfigInvalid(
                "the store URL is not valid; write mysql://user:password@host:port/database"
                " (the only option is ?unsafe=true)"
            )
        self._to: dict[str, Any] = {
            "host": parts.hostname,
            "port": parts.port or 3306,
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
        }

    # Connections.

    async def connect(self, *, writer: bool) -> Connection:
        """Connect to the log's database, which is created for a writer; reads see committed data."""
        connection = LentConnection(
            **self._to,
            charset="utf8mb4",
            client_flag=CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            program_name=f"holdfast {self.log} process {os.getpid()}",
            max_allowed_packet=1 << 30,
        )
        try:
            await connection.connect()
        except Error as error:
            raise self._meaning(error) from error
        except GONE as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
        try:
            await self._say(connection, f"SET SESSION sql_mode = '{MODES}'")
            if writer:
                await self._check_durable(connection)
                there = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
                if not await self.query(connection, there, (self.database,)):
                    await self._say(connection, f"CREATE DATABASE IF NOT EXISTS {name_of(self.database)}")
            await self._say(connection, f"USE {name_of(self.database)}")
            await self._say(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        except BaseException:
            await self.disconnect(connection)
            raise
        return connection

    async def _check_durable(self, connection: Connection) -> None:
        flush, binlog, sync, doublewrite, packet = (await self.query(connection, SETTINGS, ()))[0]
        found = (
            (f"innodb_flush_log_at_trx_commit = {flush}", int(flush) == 1),
            (f"sync_binlog = {sync}", not int(binlog) or int(sync) == 1),
            (f"innodb_doublewrite = {doublewrite}", str(doublewrite).upper() not in ("0", "OFF")),
        )
        wrong = [setting for setting, safe in found if not safe]
        if wrong and not self._unsafe:
            raise StoreFailed(
                f"the server of {self.log} has {', '.join(wrong)}: a commit may be lost in a crash; set it to 1, or"
                " write unsafe=true in the store URL"
            )
        if int(packet) < PACKET_BYTES_MIN:
            raise StoreFailed(
                f"the server of {self.log} has max_allowed_packet = {packet}; set at least {PACKET_BYTES_MIN}"
            )

    async def disconnect(self, connection: Connection) -> None:
        """Close the connection; this ends its open transaction."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.ensure_closed()
        except (Error, *GONE):
            connection.close()

    async def lock(self, connection: Connection) -> str | None:
        """Take a named lock of the session; else return its holder from the process list."""
        name = f"holdfast {self.database}"[:64]
        if (await self.query(connection, "SELECT GET_LOCK(%s, 0)", (name,)))[0][0] == 1:
            return None
        sql = "SELECT id, host FROM information_schema.processlist WHERE id = IS_USED_LOCK(%s)"
        holder = await self.query(connection, sql, (name,))
        return f"connection {holder[0][0]} from {text(holder[0][1])}" if holder else "another process"

    # Reading.

    async def query(self, connection: Connection, sql: str, values: Sequence[Any]) -> list[Any]:
        """Return the rows of a query."""
        try:
            async with connection.cursor() as cursor:
                await cursor.execute(filled(sql, values))
                return list(await cursor.fetchall())
        except Error as error:
            raise self._meaning(error) from error
        except GONE as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    async def _say(self, connection: Connection, statements: str) -> None:
        try:
            await self._run(connection, statements)
        except Error as error:
            raise self._meaning(error) from error
        except GONE as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    async def _run(self, connection: Connection, packet: str) -> None:
        """Send statements, and read the result of each. Raises the driver's errors."""
        await connection.query(packet)
        while connection._result is not None and connection._result.has_next:
            await connection.next_result()

    def load_query(self, streams: list[str], *, snapshots: bool, upto: int) -> tuple[str, list[Any]]:
        """The query has a placeholder for each stream."""
        marks = ",".join(["%s"] * len(streams))
        plain = f"SELECT {COLUMNS} FROM log WHERE stream IN ({marks}) AND stream <> '' AND version IS NOT NULL"
        if not snapshots:
            return f"{plain} AND position <= %s ORDER BY position", [*streams, upto]
        taken = f"SELECT json_value(data, '$.version') FROM small WHERE kind = '{SNAPSHOT}' AND name = stream"
        sql = (
            f"SELECT 0 AS position, '{SNAPSHOT}', '', name, NULL, '', data, '', '', '', 0, '{{}}' FROM small"
            f" WHERE kind = '{SNAPSHOT}' AND name IN ({marks})"
            f" UNION ALL {plain} AND version > coalesce(({taken}), 0) AND position <= %s ORDER BY position"
        )
        return sql, [*streams, *streams, upto]

    def rows_query(self, kind: str, keys: Sequence[str]) -> tuple[str, list[Any]]:
        """The query has a placeholder for each key."""
        marks = ",".join(["%s"] * len(keys))
        return f"SELECT {ROW} FROM {ROWS} WHERE kind = %s AND {KEY} IN ({marks})", [kind, *keys]

    # Writing.

    async def write(self, connection: Connection, group: PlannedGroup, before: Head, *, within: bool = False) -> None:
        """Send one packet, or several if the group is large."""
        connection.lent = False
        begin = () if within else ("START TRANSACTION",)
        try:
            for packet in packets((*begin, *statements(group, before))):
                await self._run(connection, packet)
        except Error as error:
            code = _code(error)
            if code == NULL or (code == DUPLICATE and isinstance(error, IntegrityError)):
                await self._say(connection, "ROLLBACK")
                raise Unfit(str(error)) from error
            # The COMMIT itself may have failed: the writer looks up what is there and never guesses.
            raise Broken(str(error)) from error
        except GONE as error:
            raise Broken(f"{type(error).__name__}: {error}") from error

    async def remove(self, connection: Connection, before: Head, kind: str, keys: Range, names: Range) -> bool:
        """Send one packet."""
        try:
            await self._run(connection, removal(before, kind, keys, names))
        except Error as error:
            if _code(error) == NULL:
                await self._say(connection, "ROLLBACK")
                return False
            raise Broken(str(error)) from error  # a half-done transaction may be open, so the connection is closed
        except GONE as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
        return True

    async def change_head(self, connection: Connection, change: Callable[[Head], Change]) -> Head:
        """Change the row in one transaction; on failure the connection is closed, which ends the transaction."""
        await self._say(connection, "START TRANSACTION")
        try:
            position, groups, incarnation = (await self.query(connection, f"{HEAD} FOR UPDATE", ()))[0]
            after, opening = change(Head(position, groups, text(incarnation)))
            now = f"position = {after.position}, group_count = {after.groups}"
            changes = [f"UPDATE head SET {now}, incarnation = {quoted(after.incarnation)}"]
            if opening is not None:
                values = ", ".join(str(int(one)) for one in opening)
                changes.append(
                    f"INSERT INTO incarnations (id, first, bridged, at) VALUES ({quoted(after.incarnation)}, {values})"
                )
            # An update that changes nothing writes nothing: this one makes sure of a durable write.
            changes.append("UPDATE meta SET value = value + 1 WHERE name = 'commits'")
            await self._say(connection, "; ".join([*changes, "COMMIT"]))
        except BaseException:
            await self.disconnect(connection)
            raise
        return after

    # Transactions of handlers.

    async def connect_lent(self) -> Connection:
        """Connect as for reading."""
        return await self.connect(writer=False)

    async def begin(self, connection: Connection) -> None:
        """Begin; from then on the connection refuses to begin or end a transaction."""
        await self._say(connection, "START TRANSACTION")
        connection.lent = True

    async def roll_back(self, connection: Connection) -> None:
        """Roll back with a statement of its own."""
        connection.lent = False
        await self._say(connection, "ROLLBACK")

    def check_lent(self, connection: Connection) -> None:
        """Check the status that the server sends with each answer."""
        if connection.connected and not connection.get_transaction_status():
            raise TransactionRefused(
                "the transaction of the handler has ended before its commit: by a COMMIT, or by a statement that"
                " commits by itself, such as CREATE TABLE"
            )

    def ends(self, connection: Connection, error: BaseException) -> bool:
        """Decide by the error code."""
        if isinstance(error, Error):
            return _code(error) in ENDED or isinstance(self._meaning(error), Broken)
        return isinstance(error, GONE) and not connection.connected

    # The tables.

    @asynccontextmanager
    async def alone(self, connection: Connection) -> AsyncGenerator[None]:
        """Take a named lock of the session, other than the writer's lock."""
        name = f"holdfast-schema {self.database}"[:64]
        if (await self.query(connection, "SELECT GET_LOCK(%s, %s)", (name, ALONE_SECONDS)))[0][0] != 1:
            raise StoreError(f"{self.where} is being created or changed by another process; try again")
        try:
            yield
        finally:
            with suppress(Broken):
                await self.query(connection, "SELECT RELEASE_LOCK(%s)", (name,))

    async def meta(self, connection: Connection) -> dict[str, str] | None:
        """Read the table `meta`, if it has rows."""
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        tables = {text(row[0]) for row in await self.query(connection, sql, (self.database,))}
        if "log" in tables and "meta" not in tables:
            raise StoreForeign(f"{self.where} has a table `log` that holdfast did not make; name another database")
        found = await self.query(connection, "SELECT name, value FROM meta", ()) if "meta" in tables else []
        return {text(name): text(value) for name, value in found} or None

    async def create(self, connection: Connection) -> None:
        """Run statement by statement. The row that marks the end comes last: an interrupted creation is started
        again."""
        await self._say(connection, files("holdfast.stores.mysql").joinpath("schema.sql").read_text("utf-8"))
        await self._say(
            connection,
            "START TRANSACTION; INSERT IGNORE INTO head VALUES (1, 0, 0, ''); INSERT IGNORE INTO meta VALUES"
            f" ('log', {quoted(self.log)}), ('schema', '1'), ('needs', '1'), ('commits', 0); COMMIT",
        )

    async def run_migration(self, connection: Connection, script: str, name: str, version: int) -> None:
        """The note in `meta` comes last: an interrupted half is run again."""
        await self._say(connection, f"{script}; UPDATE meta SET value = '{version}' WHERE name = '{name}'")

    # What an error means.

    def _meaning(self, error: Error) -> Exception:
        """Broken if the server is gone, or if its answer does not say what was done."""
        code = _code(error)
        if code >= CLIENT_ERRORS or code in UNSAID:
            return Broken(str(error))
        return StoreFailed(f"the database of {self.log} failed: {error}")


def _code(error: Error) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0
