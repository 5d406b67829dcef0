"""The store on PostgreSQL (psycopg 3): a schema for each log, in a database of yours.

Promises all of `ports.store` but backup (the server's own tools do that); one process writes a log at a time, another
can take over when it is gone. A group is one statement and one round trip: the payload goes as one JSON document, the
row `head` is changed first and all else rests on it. Refuses a server whose commits do not survive a crash (`fsync`,
`full_page_writes`, `synchronous_commit`), unless the URL says `unsafe=true`. Fails as `stores.server` says.

    postgresql://user:password@host:5432/database?schema=stock
"""

import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composed, Identifier

from holdfast.errors import (
    ConfigInvalid,
    StoreFailed,
    StoreForeign,
    TransactionLost,
    TransactionRefused,
)
from holdfast.ports.store import Capabilities
from holdfast.stores.planner import Group
from holdfast.stores.server.columns import COLUMNS, KEY, ROW, ROWS, as_text, headers_of
from holdfast.stores.server.reads import SNAPSHOT
from holdfast.stores.server.store import Broken, ServerStore, Unfit
from holdfast.stores.server.tenure import Change, Head

__all__ = ["PostgresStore"]

CONNECT_SECONDS = 3
Connection = psycopg.AsyncConnection[tuple[Any, ...]]

DURABLE = {"fsync": ("on",), "full_page_writes": ("on",), "synchronous_commit": ("on", "remote_write", "remote_apply")}
"""Settings without which a commit that returned may be lost, and the values that are safe."""

LOG_COLUMNS = ", ".join(f"log.{name}" for name in COLUMNS.split(", "))
WRITE = """
WITH given AS (SELECT %(group)s::jsonb AS j),
fence AS (
    UPDATE head SET position = %(position)s, group_count = group_count + 1
    WHERE incarnation = %(incarnation)s AND group_count = %(count)s
        AND NOT EXISTS (
            SELECT FROM given, jsonb_array_elements(j -> 'versions') AS e(v)
            WHERE (v ->> 1)::bigint <> coalesce(
                (SELECT max(version) FROM log WHERE stream = v ->> 0 AND stream <> ''), 0))
        AND NOT EXISTS (
            SELECT FROM given, jsonb_array_elements(j -> 'absent') AS e(v), small
            WHERE small.kind = v ->> 0 AND small.name = v ->> 1)
    RETURNING true AS holds
), records AS (
    INSERT INTO log (position, kind, destination, stream, version, type, data, tx, correlation, cause, at, headers)
    SELECT %(before)s + n, v ->> 0, v ->> 1, v ->> 2, (v ->> 3)::bigint, v ->> 4, v ->> 5, v ->> 6, v ->> 7, v ->> 8,
        (v ->> 9)::bigint, v ->> 10
    FROM fence, given, jsonb_array_elements(j -> 'records') WITH ORDINALITY AS e(v, n)
), fresh AS (
    INSERT INTO small (kind, name, data, bytes)
    SELECT v ->> 0, v ->> 1, v ->> 2, decode(v ->> 3, 'hex')
    FROM fence, given, jsonb_array_elements(j -> 'fresh') AS e(v)
), put AS (
    INSERT INTO small (kind, name, data, bytes)
    SELECT v ->> 0, v ->> 1, v ->> 2, decode(v ->> 3, 'hex')
    FROM fence, given, jsonb_array_elements(j -> 'put') AS e(v)
    ON CONFLICT (kind, name) DO UPDATE SET data = excluded.data, bytes = excluded.bytes
), gone AS (
    DELETE FROM small USING fence, given, jsonb_array_elements(j -> 'gone') AS e(v)
    WHERE small.kind = v ->> 0 AND small.name = v ->> 1
), moved AS (
    INSERT INTO cursors (name, incarnation, position)
    SELECT v ->> 0, v ->> 1, (v ->> 2)::bigint
    FROM fence, given, jsonb_array_elements(j -> 'cursors') AS e(v)
    ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation, position = excluded.position
)
SELECT pg_notify(%(channel)s, %(told)s) FROM fence
"""

LOAD = f"""
SELECT {LOG_COLUMNS} FROM unnest(%s::text[]) AS wanted(stream) JOIN log ON log.stream = wanted.stream
WHERE log.stream <> '' AND log.version IS NOT NULL AND log.position <= %s ORDER BY log.position
"""
LOAD_FROM_SNAPSHOT = f"""
WITH wanted AS (
    SELECT given.stream, small.data, coalesce((small.data::jsonb ->> 'version')::bigint, 0) AS known
    FROM unnest(%s::text[]) AS given(stream)
    LEFT JOIN small ON small.kind = '{SNAPSHOT}' AND small.name = given.stream
)
SELECT {LOG_COLUMNS} FROM wanted JOIN log ON log.stream = wanted.stream AND log.version > wanted.known
WHERE log.stream <> '' AND log.position <= %s
UNION ALL
SELECT 0, '{SNAPSHOT}', '', stream, NULL, '', data, '', '', '', 0, '{{}}' FROM wanted WHERE data IS NOT NULL
ORDER BY position
"""

_encode = msgspec.json.encode


class PostgresStore(ServerStore):
    """The log `log` in the schema that the URL names, or in one named like the log; made when absent."""

    capabilities = Capabilities(durable=True, transactions="own", engine="postgres")
    backup_tool = "pg_dump, or a base backup with the write-ahead log"

    def __init__(self, url: str, log: str) -> None:
        super().__init__(log)
        self._blocks: dict[Connection, AbstractAsyncContextManager[psycopg.AsyncTransaction]] = {}
        """The transaction on each connection that is lent."""
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        self.schema = options.pop("schema", log)
        self._unsafe = options.pop("unsafe", "false") == "true"
        self._conninfo = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(options)))
        self._channel = f"holdfast_{self.schema}"
        self.where = f"the schema {self.schema!r}"
        try:
            conninfo_to_dict(self._conninfo)
        except psycopg.ProgrammingError:
            raise ConfigInvalid(
                "store URL: write postgresql://user:password@host:port/database, with ?schema=NAME if you like"
            ) from None

    async def _connect(self, *, writer: bool) -> Connection:
        name = f"holdfast {self.log} process {os.getpid()} on {socket.gethostname()}"
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._conninfo, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name=name[:63],
                prepare_threshold=1,
            )  # fmt: skip
        except psycopg.OperationalError as error:
            raise Broken(_line(error)) from error
        try:
            await connection.execute("SELECT set_config('search_path', %s, false)", (f'"{self.schema}"',))
            if writer:
                await self._check_durable(connection)
                await self._check_schema(connection)
        except psycopg.OperationalError as error:
            await connection.close()
            raise Broken(_line(error)) from error
        except psycopg.Error as error:
            await connection.close()
            raise StoreFailed(f"the database of {self.log}: {_line(error)}") from error
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _check_durable(self, connection: Connection) -> None:
        for name, safe in DURABLE.items():
            found = str((await self._query(connection, "SELECT current_setting(%s)", (name,)))[0][0])
            if found not in safe and not self._unsafe:
                raise StoreFailed(
                    f"the server of {self.log} has {name} = {found}: a commit may be lost in a crash; set it to"
                    f" {safe[0]}, or say unsafe=true in the store URL"
                )

    @asynccontextmanager
    async def _alone(self, connection: Connection) -> AsyncGenerator[None]:
        await self._query(connection, "SELECT pg_advisory_lock(hashtextextended(%s, 1))", (self._channel,))
        try:
            yield
        finally:
            if not connection.closed:
                await self._query(connection, "SELECT pg_advisory_unlock(hashtextextended(%s, 1))", (self._channel,))

    async def _meta(self, connection: Connection) -> dict[str, str] | None:
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        tables = {row[0] for row in await self._query(connection, sql, (self.schema,))}
        if "log" in tables and "meta" not in tables:
            raise StoreForeign(f"{self.where} has a table log that is not holdfast's; give another")
        return dict(await self._query(connection, "SELECT name, value FROM meta", ())) if "meta" in tables else None

    async def _create(self, connection: Connection) -> None:
        async with connection.transaction():
            there = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
            if not await self._query(connection, there, (self.schema,)):
                await connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(self.schema)))
            await connection.execute(files("holdfast.stores.postgres").joinpath("schema.sql").read_bytes())
            await connection.execute("INSERT INTO head VALUES (true, 0, 0, '') ON CONFLICT DO NOTHING")
            await connection.execute(
                "INSERT INTO meta VALUES ('log', %s), ('schema', '1'), ('needs', '1')", (self.log,)
            )

    async def _run_migration(self, connection: Connection, script: str, name: str, version: int) -> None:
        async with connection.transaction():
            await connection.execute(script.encode())
            await connection.execute("UPDATE meta SET value = %s WHERE name = %s", (str(version), name))

    def _load_query(self, streams: list[str], *, snapshots: bool, upto: int) -> tuple[str, list[Any]]:
        # An array: one text and one plan, however many streams.
        return (LOAD_FROM_SNAPSHOT if snapshots else LOAD), [streams, upto]

    def _rows_query(self, kind: str, keys: Sequence[str]) -> tuple[str, list[Any]]:
        return f"SELECT {ROW} FROM {ROWS} WHERE kind = %s AND {KEY} = ANY(%s::text[])", [kind, list(keys)]

    async def _query_nothing(self, connection: Connection, sql: Composed) -> None:
        try:
            await connection.execute(sql)
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    async def _disconnect(self, connection: Connection) -> None:
        self._blocks.pop(connection, None)
        await connection.close()

    async def _lock(self, connection: Connection) -> str | None:
        lock = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
        if (await self._query(connection, lock, (self._channel,)))[0][0]:
            return None
        holder = await self._query(
            connection,
            "SELECT application_name, backend_start FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND granted"
            " AND (classid::bigint << 32) | objid::bigint = hashtextextended(%s, 0)",
            (self._channel,),
        )
        return f"{holder[0][0]}, since {holder[0][1]:%Y-%m-%d %H:%M:%S}," if holder else "another process"

    async def _change_head(self, connection: Connection, change: Callable[[Head], Change]) -> Head:
        try:
            async with connection.transaction():
                found = await self._query(
                    connection, "SELECT position, group_count, incarnation FROM head FOR UPDATE", ()
                )
                after, opening = change(Head(*found[0]))
                await connection.execute(
                    "UPDATE head SET position = %s, group_count = %s, incarnation = %s", tuple(after)
                )
                if opening is not None:
                    await connection.execute(
                        "INSERT INTO incarnations (id, first, bridged, at) VALUES (%s, %s, %s, %s)",
                        (after.incarnation, *opening),
                    )
            return after
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    async def _connect_lent(self) -> Connection:
        connection = await self._connect(writer=False)
        path = SQL("SET search_path = {}, public").format(Identifier(self.schema))
        try:
            await self._query_nothing(connection, path)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _begin(self, connection: Connection) -> None:
        # By the driver's own block: inside it commit() and rollback() are refused.
        self._blocks[connection] = block = connection.transaction()
        try:
            await block.__aenter__()
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    async def _roll_back(self, connection: Connection) -> None:
        block = self._blocks.pop(connection, None)
        try:
            if block is not None:
                await block.__aexit__(psycopg.Rollback, psycopg.Rollback(), None)
        except psycopg.Error as error:
            raise Broken(_line(error)) from error  # a block of the handler's own is open, or the connection is gone
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            raise Broken("the handler ended its transaction")

    def check_lent(self, connection: Connection) -> None:
        """By what the driver knows."""
        status = connection.info.transaction_status
        if status is TransactionStatus.INERROR:
            raise TransactionRefused(
                "a statement of the handler failed and left its transaction failed; run what may fail inside"
                " `async with tx.connection.transaction():`"
            )
        if status is not TransactionStatus.INTRANS and not connection.closed:
            raise TransactionRefused("the transaction of the handler has ended before its commit")

    def ends(self, connection: Connection, error: BaseException) -> bool:
        """By its SQLSTATE: class 40 is rollback, 57P the server going down."""
        if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(("40", "57P")):
            return True
        return isinstance(error, psycopg.OperationalError) and connection.closed

    async def _write(self, connection: Connection, group: Group, before: Head, *, within: bool = False) -> None:
        values = {
            "group": _payload(group), "position": group.head, "before": before.position,
            "incarnation": before.incarnation, "count": before.groups, "channel": self._channel,
            "told": str(group.head),
        }  # fmt: skip
        try:
            cursor = await connection.execute(WRITE, values)
        except errors.UniqueViolation as error:
            raise Unfit(_line(error)) from error
        except psycopg.Error as error:
            raise (self._meaning_within if within else self._meaning)(connection, error) from error
        if cursor.rowcount != 1:
            raise Unfit("the row head is not as it was, or an assumption does not hold")
        if within:
            try:
                await self._blocks.pop(connection).__aexit__(None, None, None)
            except psycopg.Error as error:
                raise self._meaning_within(connection, error) from error

    def _meaning_within(self, connection: Connection, error: psycopg.Error) -> Exception:
        """On a connection that stands an error says that nothing is there: the handler's fault, or a deadlock."""
        if isinstance(found := self._meaning(connection, error), Broken):
            return found
        line = f"{type(error).__name__}: {_line(error)}"
        return TransactionLost(line) if self.ends(connection, error) else TransactionRefused(line)

    async def _query(self, connection: Connection, sql: str, values: Sequence[Any]) -> list[Any]:
        try:
            return await (await connection.execute(sql.encode(), values)).fetchall()
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    async def _remove(self, connection: Connection, kind: str, keys: tuple[str, Any], names: tuple[str, Any]) -> None:
        try:
            async with connection.transaction():
                await connection.execute(
                    "DELETE FROM small WHERE kind = %s AND name >= %s AND (%s::text IS NULL OR name < %s)",
                    (kind, keys[0], keys[1], keys[1]),
                )
                await connection.execute(
                    "DELETE FROM cursors WHERE name >= %s AND (%s::text IS NULL OR name < %s)",
                    (names[0], names[1], names[1]),
                )
        except psycopg.Error as error:
            raise self._meaning(connection, error) from error

    def _meaning(self, connection: Connection, error: psycopg.Error) -> Exception:
        """Broken where the connection is gone; on one that stands, an error says that nothing was done."""
        if connection.closed or isinstance(
            error, errors.AdminShutdown | errors.CrashShutdown | errors.CannotConnectNow
        ):
            return Broken(_line(error))
        return StoreFailed(f"the database of {self.log}: {type(error).__name__}: {_line(error)}")


def _payload(group: Group) -> str:
    """All that a group changes, as the document that WRITE takes apart."""
    put: list[Any] = []
    fresh: list[Any] = []
    gone: list[Any] = []
    for key, data in group.rows.items():
        if data is None:
            if key not in group.absent:
                gone.append(key)
            continue
        shown = as_text(data)
        (fresh if key in group.absent else put).append((*key, shown, data.hex() if shown is None else None))
    records = [
        (one.kind, one.destination, one.stream, one.version or None, one.type, one.data.decode(), one.tx,
         one.correlation, one.cause, one.at, headers_of(one))
        for one in group.records
    ]  # fmt: skip
    return _encode({
        "records": records, "put": put, "fresh": fresh, "gone": gone,
        "cursors": [(name, at.incarnation, at.position) for name, at in group.cursors.items()],
        "versions": list(group.versions_to_check()), "absent": list(group.absent_to_check()),
    }).decode()  # fmt: skip


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
