"""PostgreSQL (psycopg 3): a schema for each log, in a database of the team.

With `stores.server.store` it promises all of `ports.store` but backup (the server's own tools do that). A group is one
statement and one round trip (`stores.postgres.statements`). It refuses a server whose commits do not survive a crash
(`fsync`, `full_page_writes`, `synchronous_commit`), unless the URL says `unsafe=true`. Fails as `stores.server.engine`
says.

    postgresql://user:password@host:5432/database?schema=stock
"""

import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Identifier

from holdfast.errors import (
    ConfigInvalid,
    StoreFailed,
    StoreForeign,
    TransactionLost,
    TransactionRefused,
)
from holdfast.ports.store import Capabilities
from holdfast.stores.planner import PlannedGroup
from holdfast.stores.postgres.statements import LOAD, LOAD_FROM_SNAPSHOT, REMOVE, WRITE, payload
from holdfast.stores.server.columns import HEAD, KEY, ROW, ROWS
from holdfast.stores.server.engine import Broken, Range, Unfit
from holdfast.stores.server.tenure import Change, Head

__all__ = ["PostgresEngine"]

CONNECT_SECONDS = 3
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

DURABLE = {"fsync": ("on",), "full_page_writes": ("on",), "synchronous_commit": ("on", "remote_write", "remote_apply")}
"""Settings without which a commit that returned may be lost, and the values that are safe."""


class PostgresEngine:
    """The log `log` in the schema that the URL names, or in one with the log's name; it is created if absent."""

    capabilities = Capabilities(durable=True, transactions="own", engine="postgres")
    backup_tool = "pg_dump, or a base backup with the write-ahead log"
    shows_early = False

    def __init__(self, url: str, log: str) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        self.log = log
        self.schema = options.pop("schema", log)
        self.where = f"the schema {self.schema!r}"
        self._unsafe = options.pop("unsafe", "false") == "true"
        self._conninfo = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(options)))
        self._channel = f"holdfast_{self.schema}"
        self._blocks: dict[Connection, AbstractAsyncContextManager[psycopg.AsyncTransaction]] = {}
        """The transaction of each lent connection."""
        try:
            conninfo_to_dict(self._conninfo)
        except psycopg.ProgrammingError:
            raise ConfigInvalid(
                "the store URL is not valid; write postgresql://user:password@host:port/database"
                " (?schema=NAME is optional)"
            ) from None

    # Connections.

    async def connect(self, *, writer: bool) -> Connection:
        """Connect with only the schema's tables visible."""
        name = f"holdfast {self.log} process {os.getpid()} on {socket.gethostname()}"
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                application_name=name[:63],
                prepare_threshold=1,
            )
        except psycopg.OperationalError as error:
            raise Broken(_line(error)) from error
        try:
            await self._say(connection, SQL("SET search_path = {}").format(Identifier(self.schema)))
            if writer:
                await self._check_durable(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _check_durable(self, connection: Connection) -> None:
        for name, safe in DURABLE.items():
            found = str((await self.query(connection, "SELECT current_setting(%s)", (name,)))[0][0])
            if found not in safe and not self._unsafe:
                raise StoreFailed(
                    f"the server of {self.log} has {name} = {found}: a commit may be lost in a crash; set it to"
                    f" {safe[0]}, or write unsafe=true in the store URL"
                )

    async def disconnect(self, connection: Connection) -> None:
        """Close the connection; this ends its open transaction."""
        self._blocks.pop(connection, None)
        await connection.close()

    async def lock(self, connection: Connection) -> str | None:
        """Take an advisory lock of the session; else return its holder from `pg_stat_activity`."""
        lock = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
        if (await self.query(connection, lock, (self._channel,)))[0][0]:
            return None
        holder = await self.query(
            connection,
            "SELECT application_name, backend_start FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND granted"
            " AND (classid::bigint << 32) | objid::bigint = hashtextextended(%s, 0)",
            (self._channel,),
        )
        return f"{holder[0][0]}, since {holder[0][1]:%Y-%m-%d %H:%M:%S}," if holder else "another process"

    # Reading.

    async def query(self, connection: Connection, sql: str, values: Sequence[Any]) -> list[Any]:
        """Return the rows of a query."""
        try:
            return await (await connection.execute(sql.encode(), values)).fetchall()
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    async def _say(self, connection: Connection, statement: Any, values: Sequence[Any] | None = None) -> None:
        try:
            await connection.execute(statement, values)
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    @asynccontextmanager
    async def _transaction(self, connection: Connection) -> AsyncGenerator[None]:
        try:
            async with connection.transaction():
                yield
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    def load_query(self, streams: list[str], *, snapshots: bool, upto: int) -> tuple[str, list[Any]]:
        """The query takes the streams as an array: one text and one plan for any number."""
        return (LOAD_FROM_SNAPSHOT if snapshots else LOAD), [streams, upto]

    def rows_query(self, kind: str, keys: Sequence[str]) -> tuple[str, list[Any]]:
        """The query takes the keys as an array."""
        return f"SELECT {ROW} FROM {ROWS} WHERE kind = %s AND {KEY} = ANY(%s::text[])", [kind, list(keys)]

    # Writing.

    async def write(self, connection: Connection, group: PlannedGroup, before: Head, *, within: bool = False) -> None:
        """Send one statement; within a handler's transaction also its commit."""
        values = {
            "group": payload(group),
            "position": group.head,
            "before": before.position,
            "incarnation": before.incarnation,
            "count": before.groups,
            "channel": self._channel,
            "told": str(group.head),
        }
        try:
            cursor = await connection.execute(WRITE, values)
        except errors.UniqueViolation as error:
            raise Unfit(_line(error)) from error
        except psycopg.Error as error:
            raise (self._meaning_within if within else self._meaning)(connection, error) from error
        if cursor.rowcount != 1:
            raise Unfit("the row `head` has changed, or an assumption does not hold")
        if within:
            try:
                await self._blocks.pop(connection).__aexit__(None, None, None)
            except psycopg.Error as error:
                raise self._meaning_within(connection, error) from error

    async def remove(self, connection: Connection, before: Head, kind: str, keys: Range, names: Range) -> bool:
        """Send one statement."""
        values = {
            "incarnation": before.incarnation,
            "count": before.groups,
            "kind": kind,
            "key": keys[0],
            "key_end": keys[1],
            "name": names[0],
            "name_end": names[1],
        }
        try:
            return (await connection.execute(REMOVE, values)).rowcount == 1
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    async def change_head(self, connection: Connection, change: Callable[[Head], Change]) -> Head:
        """Change the row in one transaction; PostgreSQL writes the row even if it stays the same, so this is always
        durable."""
        async with self._transaction(connection):
            found = await self.query(connection, f"{HEAD} FOR UPDATE", ())
            after, opening = change(Head(*found[0]))
            await self._say(connection, "UPDATE head SET position = %s, group_count = %s, incarnation = %s", after)
            if opening is not None:
                sql = "INSERT INTO incarnations (id, first, bridged, at) VALUES (%s, %s, %s, %s)"
                await self._say(connection, sql, (after.incarnation, *opening))
        return after

    # Transactions of handlers.

    async def connect_lent(self) -> Connection:
        """Connect with the schema's tables and the team's tables in `public` visible."""
        connection = await self.connect(writer=False)
        try:
            await self._say(connection, SQL("SET search_path = {}, public").format(Identifier(self.schema)))
        except BaseException:
            await connection.close()
            raise
        return connection

    async def begin(self, connection: Connection) -> None:
        """Begin with the driver's own block: inside it commit() and rollback() are refused."""
        self._blocks[connection] = block = connection.transaction()
        try:
            await block.__aenter__()
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    async def roll_back(self, connection: Connection) -> None:
        """Leave the block, which finds out whether the handler has ended the transaction."""
        block = self._blocks.pop(connection, None)
        try:
            if block is not None:
                await block.__aexit__(psycopg.Rollback, psycopg.Rollback(), None)
        except psycopg.Error as error:
            raise Broken(_line(error)) from error  # a block of the handler's own is open, or the connection is gone
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            raise Broken("the handler ended its transaction")

    def check_lent(self, connection: Connection) -> None:
        """Check the transaction status that the driver knows."""
        status = connection.info.transaction_status
        if status is TransactionStatus.INERROR:
            raise TransactionRefused(
                "a statement of the handler failed, and so did its transaction; run statements that may fail inside"
                " `async with tx.connection.transaction():`"
            )
        if status is not TransactionStatus.INTRANS and not connection.closed:
            raise TransactionRefused("the transaction of the handler has ended before its commit")

    def ends(self, connection: Connection, error: BaseException) -> bool:
        """Decide by the SQLSTATE: class 40 is a rollback, 57P a server that stops."""
        if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(("40", "57P")):
            return True
        return isinstance(error, psycopg.OperationalError) and connection.closed

    # The tables.

    @asynccontextmanager
    async def alone(self, connection: Connection) -> AsyncGenerator[None]:
        """Take an advisory lock of the session, other than the writer's lock."""
        await self.query(connection, "SELECT pg_advisory_lock(hashtextextended(%s, 1))", (self._channel,))
        try:
            yield
        finally:
            if not connection.closed:
                await self.query(connection, "SELECT pg_advisory_unlock(hashtextextended(%s, 1))", (self._channel,))

    async def meta(self, connection: Connection) -> dict[str, str] | None:
        """Read the table `meta`, if it exists."""
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        tables = {row[0] for row in await self.query(connection, sql, (self.schema,))}
        if "log" in tables and "meta" not in tables:
            raise StoreForeign(f"{self.where} has a table `log` that holdfast did not make; name another schema")
        return dict(await self.query(connection, "SELECT name, value FROM meta", ())) if "meta" in tables else None

    async def create(self, connection: Connection) -> None:
        """Create all in one transaction, the schema too."""
        there = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
        async with self._transaction(connection):
            if not await self.query(connection, there, (self.schema,)):
                await self._say(connection, SQL("CREATE SCHEMA {}").format(Identifier(self.schema)))
            await self._say(connection, files("holdfast.stores.postgres").joinpath("schema.sql").read_bytes())
            await self._say(connection, "INSERT INTO head VALUES (true, 0, 0, '') ON CONFLICT DO NOTHING")
            values = "VALUES ('log', %s), ('schema', '1'), ('needs', '1')"
            await self._say(connection, f"INSERT INTO meta {values}", (self.log,))

    async def run_migration(self, connection: Connection, script: str, name: str, version: int) -> None:
        """Run it in one transaction with the note in `meta`."""
        async with self._transaction(connection):
            await self._say(connection, script.encode())
            await self._say(connection, "UPDATE meta SET value = %s WHERE name = %s", (str(version), name))

    # What an error means.

    def _meaning(self, connection: Connection, error: psycopg.Error) -> Exception:
        """Broken if the connection is gone; on a live connection an error means that nothing was done."""
        if connection.closed or isinstance(
            error, errors.AdminShutdown | errors.CrashShutdown | errors.CannotConnectNow
        ):
            return Broken(_line(error))
        return StoreFailed(f"the database of {self.log} failed: {type(error).__name__}: {_line(error)}")

    def _meaning_within(self, connection: Connection, error: psycopg.Error) -> Exception:
        """On a live connection an error means that nothing is committed: a fault of the handler, or a deadlock."""
        if isinstance(found := self._meaning(connection, error), Broken):
            return found
        line = f"{type(error).__name__}: {_line(error)}"
        return TransactionLost(line) if self.ends(connection, error) else TransactionRefused(line)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
