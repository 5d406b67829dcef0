"""The store on a database server: the port, made of the common parts of all engines and of one engine's own SQL.

Comes between the runtime and the engines (`stores.postgres.engine`, `stores.mysql.engine`). One connection writes
(`stores.server.writer`, with the tenure and its fence), READERS others read, and handlers are lent their own; reads
return only what the writer knows to be committed. One process writes a log at a time; another one takes over when it is
gone. Fails with `StoreFailed` while the server cannot be reached, and with the `StoreError`s that the port names.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.core.log.batch import Batch, CommitOutcome, Cursor, RowKind
from holdfast.core.log.record import Kind, Record
from holdfast.errors import StoreError, StoreFailed
from holdfast.ports.store import Capabilities, Lent, Loaded, Opened, Page, Snapshot
from holdfast.stores.server.columns import (
    COLUMNS,
    KEY,
    ROW,
    ROWS,
    SNAPSHOT,
    bytes_of,
    in_order,
    range_of,
    record_of,
    text,
)
from holdfast.stores.server.engine import Broken, Engine, drop
from holdfast.stores.server.lent import Lending, ServerLent
from holdfast.stores.server.migrations import Schema, connect_writer
from holdfast.stores.server.readers import Readers
from holdfast.stores.server.writer import ServerWriter

__all__ = ["ServerStore"]


class ServerStore:
    """A log on a database server."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.log = engine.log
        self.writer = ServerWriter(engine)
        self._readers = Readers(engine, self.writer)
        self._lending = Lending(engine, self.writer.recover)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the engine."""
        return self.engine.capabilities

    async def migrate(self, *, contract: bool = False) -> Schema:
        """Create the tables, or bring them up to this release, while other processes use them. Use `contract` only when
        no process runs older code."""
        try:
            connection, schema = await connect_writer(self.engine, "contract" if contract else "expand")
        except Broken as error:
            raise self._unreachable(error) from error
        await drop(self.engine, connection)
        return schema

    async def open(self, incarnation: str, at: int) -> Opened:
        """Connect, check, take the right to write, and begin an incarnation."""
        if self.writer.is_open:
            raise StoreError(f"the store of {self.log} is already open")
        try:
            return await self.writer.open(incarnation, at)
        except Broken as error:
            await self.close()
            raise self._unreachable(error) from error
        except BaseException:
            await self.close()
            raise

    def _unreachable(self, error: Broken) -> StoreFailed:
        return StoreFailed(f"the server of {self.log} cannot be reached: {error}")

    async def close(self) -> None:
        """Close every connection."""
        await self.writer.close()
        await self._readers.close()
        await self._lending.close()

    # Writing.

    async def begin(self) -> Lent:
        """Lend a separate connection, in a transaction."""
        return await self._lending.begin()

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Commit one group in one transaction; `within`: in a handler's transaction."""
        if within is not None and not isinstance(within, ServerLent):
            raise StoreError(
                "the transaction of the handlers belongs to another store, so nothing can be committed within it"
            )
        return await self.writer.commit(batches, within)

    async def recover(self) -> int:
        """Connect again if the connection is gone, find out about a group in doubt, and return the head."""
        return await self.writer.recover()

    async def leap(self, incarnation: str, at: int, first: int) -> Opened:
        """Begin an incarnation at `first`, above the head."""
        return await self.writer.leap(incarnation, at, first)

    async def clear(self, kind: RowKind, prefix: str, cursor_prefix: str) -> None:
        """Remove rows and cursors by prefix, both or none."""
        if not prefix or not cursor_prefix:
            raise ValueError("clear needs a prefix of rows and one of cursors: an empty one would remove everything")
        await self.writer.clear(kind, prefix, cursor_prefix)

    # Reading: nothing while a commit is in doubt, and nothing of the log past the head.

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
        """A page of the log; with a destination the partial index serves it."""
        head = await self.writer.recover()
        upto = min(upto or head, head)
        sql = f"SELECT {COLUMNS} FROM log WHERE position > %s AND position <= %s"
        values: list[Any] = [after, upto]
        for column, wanted in (("kind", kinds), ("type", types)):
            if wanted:
                sql += f" AND {column} IN ({','.join(['%s'] * len(wanted))})"
                values += wanted
        if destination:
            sql += " AND destination = %s AND destination <> ''"
            values.append(destination)
        found = await self._records(f"{sql} ORDER BY position LIMIT %s", [*values, limit])
        return Page(tuple(found), found[-1].position if len(found) == limit else upto)

    async def load(self, streams: Sequence[str], *, upto: int = 0, snapshots: bool = True) -> list[Loaded]:
        """All streams, each from its snapshot on, in one query."""
        head = await self.writer.recover()
        found: dict[str, tuple[list[Snapshot], list[Record]]] = {stream: ([], []) for stream in streams}
        sql, values = self.engine.load_query(list(found), snapshots=snapshots and not upto, upto=upto or head)
        for row in await self._readers.ask(sql, values) if streams else ():
            if text(row[1]) == SNAPSHOT:
                found[text(row[3])][0].append(msgspec.json.decode(row[6], type=Snapshot))
            else:
                record = record_of(row)
                found[record.stream][1].append(record)
        return [
            Loaded(snapshot[0] if snapshot else None, tuple(records))
            for snapshot, records in (found[stream] for stream in streams)
        ]

    async def related(
        self, *, tx: str = "", correlation: str = "", stream: str = "", limit: int = 1000
    ) -> list[Record]:
        """Read by one of three indexes."""
        column, value = ("tx", tx) if tx else ("correlation", correlation) if correlation else ("stream", stream)
        sql = f"SELECT {COLUMNS} FROM log WHERE {column} = %s AND {column} <> '' AND position <= %s"
        return await self._records(f"{sql} ORDER BY position LIMIT %s", [value, await self.writer.recover(), limit])

    async def get(self, kind: RowKind, keys: Sequence[str]) -> list[bytes | None]:
        """Rows by key, all in one query."""
        await self.writer.recover()
        return in_order(keys, await self._readers.ask(*self.engine.rows_query(kind, keys))) if keys else []

    async def scan(
        self, kind: RowKind, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, bytes]]:
        """Rows in key order."""
        await self.writer.recover()
        sql, values = range_of(f"SELECT {ROW} FROM {ROWS} WHERE kind = %s AND", KEY, prefix, after)
        found = await self._readers.ask(f"{sql} ORDER BY {KEY} LIMIT %s", [kind, *values, limit])
        return [(text(key), bytes_of(data, blob)) for key, data, blob in found]

    async def streams(self, prefix: str, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
        """Streams in order, with their versions."""
        head = await self.writer.recover()
        where = "SELECT stream, max(version) FROM log WHERE stream <> '' AND version IS NOT NULL AND position <= %s AND"
        sql, values = range_of(where, "stream", prefix, after)
        found = await self._readers.ask(f"{sql} GROUP BY stream ORDER BY stream LIMIT %s", [head, *values, limit])
        return [(text(stream), version) for stream, version in found]

    async def _records(self, sql: str, values: Sequence[Any]) -> list[Record]:
        return [record_of(row) for row in await self._readers.ask(sql, values)]

    async def cursors(self) -> dict[str, Cursor]:
        """A copy of the cursors in memory."""
        return await self.writer.cursors()

    async def backup(self, target: Path) -> None:
        """Refuse: a server has its own tool for backups."""
        raise StoreError(f"holdfast makes no backup of a database server: use {self.engine.backup_tool}")
