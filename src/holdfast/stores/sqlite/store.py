"""The store on SQLite: one file, one process that writes it, durable and fast by group commit.

Promises all of `ports.store`; capabilities: durable (`synchronous=FULL`, also on macOS), backup (online), no replicas
(SQLite has one writer, so a second one is refused with its holder named). One thread writes (`stores.sqlite.writer`),
READERS others read on connections of their own, which in WAL mode neither wait for it nor hold it up. An answer made
of many rows leaves SQLite as one text: a step per row would fight for the GIL once per row. All threads end with
`close`, and none keeps a process from exiting. Fails with the `StoreError`s that the port names.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from holdfast.core.log.batch import Batch, CommitOutcome, Cursor, RowKind
from holdfast.core.log.record import Headers, Kind, Record
from holdfast.errors import StoreError, StoreFailed, StoreForeign
from holdfast.ports.store import Capabilities, Incarnation, Lent, Loaded, Opened, Page, Snapshot
from holdfast.stores.prefixes import end_of
from holdfast.stores.sqlite.file import (
    Connection,
    FileLock,
    connect_reader,
    connect_writer,
    create,
    peek,
    store_error,
    sync_folder,
)
from holdfast.stores.sqlite.lent import SQLiteLent, StatementGuard
from holdfast.stores.sqlite.threads import Threads
from holdfast.stores.sqlite.writer import SqliteWriter

__all__ = ["SQLiteStore"]

logger = logging.getLogger("holdfast.store")
READERS = 2
T = TypeVar("T")

ONE_TEXT = "SELECT group_concat(item) FROM ({})"
ITEM = """json_array(position, kind, type, data, tx, cause, at, correlation, stream, ifnull(version, 0), destination,
    json(headers)) AS item"""
READ = f"SELECT {ITEM} FROM log WHERE position > ? AND position <= ?{{}} ORDER BY position LIMIT ?"
LOAD = f"""
SELECT {ITEM} FROM (SELECT value ->> 0 AS wanted, value ->> 1 AS known FROM json_each(?))
    CROSS JOIN log INDEXED BY log_stream
WHERE stream = wanted AND stream <> '' AND version > known AND position <= ? ORDER BY position LIMIT -1"""
RELATED = f"SELECT {ITEM} FROM log WHERE {{0}} = ? AND {{0}} <> '' AND position <= ? ORDER BY position LIMIT ?"
ROW = "json_array(key, iif(typeof(data) = 'text', data, NULL), iif(typeof(data) = 'blob', hex(data), NULL)) AS item"
GET = f"""
SELECT {ROW} FROM (SELECT value AS wanted FROM json_each(?)) CROSS JOIN rows WHERE kind = ? AND key = wanted LIMIT -1"""
SCAN = f"SELECT {ROW} FROM rows WHERE kind = ? AND key > ? AND key >= ? AND key < ? ORDER BY key LIMIT ?"
STREAMS = """
WITH RECURSIVE found(stream) AS (   -- from each name straight to the next: a stream's records are not walked through
    SELECT min(stream) FROM log WHERE stream > :after AND stream >= :start AND stream < :end AND stream <> ''
        AND version IS NOT NULL AND position <= :head
    UNION ALL
    SELECT (SELECT min(log.stream) FROM log WHERE log.stream > found.stream AND log.stream < :end AND log.stream <> ''
        AND version IS NOT NULL AND position <= :head)
    FROM found WHERE found.stream IS NOT NULL LIMIT :limit
)
SELECT json_array(stream, (SELECT version FROM log WHERE log.stream = found.stream AND log.stream <> ''
    AND version IS NOT NULL AND position <= :head ORDER BY version DESC LIMIT 1)) AS item
FROM found WHERE stream IS NOT NULL ORDER BY stream LIMIT -1"""

_Fields = tuple[int, Kind, str, str, str, str, int, str, str, int, str, Headers]
_records = msgspec.json.Decoder(list[_Fields])
_rows = msgspec.json.Decoder(list[tuple[str, str | None, str | None]])
_streams = msgspec.json.Decoder(list[tuple[str, int]])


class SQLiteStore:
    """The log `log` in the file at `path`, which is made when absent. `vfs` names another apsw VFS, for tests."""

    capabilities = Capabilities(durable=True, backup=True, transactions="shared", engine="sqlite")

    def __init__(self, path: str | os.PathLike[str], log: str, *, vfs: str = "") -> None:
        self.path = Path(path).absolute()
        self.log = log
        self._vfs = vfs
        self._lock = FileLock(self.path)
        self._writing: Threads | None = None
        self._reading: Threads | None = None
        self._writer: SqliteWriter | None = None
        self._turn = asyncio.Lock()
        """Held by the running write; by handlers as long as their transaction lasts."""
        self._guard: StatementGuard | None = None

    async def open(self, incarnation: str, at: int) -> Opened:
        """Check the file, take the lock, and begin an incarnation."""
        if self._writing is not None:
            raise StoreError(f"{self.path.name} is already open")
        self._writing = Threads(f"holdfast-write-{self.log}", 1)
        try:
            self._writer, opened = await self._writing.run(partial(self._open, incarnation, at))
        except BaseException:
            await self.close()
            raise
        self._reading = Threads(f"holdfast-read-{self.log}", READERS, ending=_close_reader)
        return opened

    def _open(self, incarnation: str, at: int) -> tuple[SqliteWriter, Opened]:
        peek(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(at)
            if not peek(self.path):
                create(self.path, self.log)
            connection = connect_writer(self.path, self.log, self._vfs)
        except (apsw.Error, OSError) as error:
            raise store_error(self.path, error) from error
        try:
            writer = SqliteWriter(self.path, connection)
            incarnations = writer.begin(incarnation, at, writer.planner.head + 1, 0)
        except (apsw.Error, StoreError) as error:
            connection.close()
            raise store_error(self.path, error) from error
        return writer, Opened(writer.planner.head, tuple(incarnations))

    async def close(self) -> None:
        """End the threads, readers first, so that the last connection to close brings the file up to date."""
        reading, self._reading = self._reading, None
        writing, self._writing = self._writing, None
        writer, self._writer = self._writer, None
        self._guard = None
        if reading is not None:
            await reading.close()
        if writing is not None:
            try:
                if writer is not None:
                    await writing.run(writer.close)
            finally:
                await writing.close()
                self._lock.release()

    async def begin(self) -> SQLiteLent:
        """Lend the connection that writes."""
        await self._turn.acquire()
        try:
            await self._run(SqliteWriter.begin_lent)
            connection = self._opened().connection
            self._guard = self._guard or StatementGuard(connection)
        except BaseException:
            await self._ended()
            raise
        return SQLiteLent(connection, self._guard, self._ended)

    async def _ended(self) -> None:
        """End the transaction of the handlers, and free the connection for the next write."""
        try:
            if self._writer is not None:
                await self._run(SqliteWriter.end_lent)
        except StoreError as error:
            logger.warning("%s: the transaction of a handler could not be rolled back: %s", self.log, error)
        finally:
            self._turn.release()

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Commit one group in one transaction with one fsync."""
        if within is None:
            return await self._write(lambda writer: writer.commit(batches))
        if not isinstance(within, SQLiteLent) or within.over:
            raise StoreError(
                "the transaction of the handlers has ended already or belongs to another store; nothing"
                " can be committed within it"
            )
        within.close()
        return await self._run(lambda writer: writer.commit_within(batches))

    async def recover(self) -> int:
        """Find out about a group in doubt, on the writer thread."""
        return await self._write(lambda writer: writer.recover())

    async def leap(self, incarnation: str, at: int, first: int) -> Opened:
        """Begin an incarnation at `first`, above the head."""

        def leap(writer: SqliteWriter) -> tuple[list[Incarnation], int]:
            return writer.leap(incarnation, at, first), writer.planner.head

        incarnations, head = await self._write(leap)
        return Opened(head, tuple(incarnations))

    async def clear(self, kind: RowKind, prefix: str, cursor_prefix: str) -> None:
        """Remove rows and cursors by prefix, both or none."""
        if not prefix or not cursor_prefix:
            raise ValueError("clear needs a prefix of rows and one of cursors: an empty one would remove everything")
        ends, cursor_ends = (prefix, _end(prefix)), (cursor_prefix, _end(cursor_prefix))
        await self._write(lambda writer: writer.clear(kind, ends, cursor_ends))

    async def cursors(self) -> dict[str, Cursor]:
        """A copy of the writer's cursors in memory."""
        return dict(self._opened().planner.cursors)

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
        head = self._opened().planner.head
        upto = min(upto or head, head)
        where = ""
        values: list[Any] = [after, upto]
        for column, wanted in (("kind", kinds), ("type", types)):
            if wanted:
                where += f" AND {column} IN ({','.join('?' * len(wanted))})"
                values += wanted
        if destination:
            where += " AND destination = ? AND destination <> ''"
            values.append(destination)
        found = await self._records(READ.format(where), (*values, limit))
        return Page(tuple(found), found[-1].position if len(found) == limit else upto)

    async def load(self, streams: Sequence[str], *, upto: int = 0, snapshots: bool = True) -> list[Loaded]:
        """All streams in one query, each from its snapshot on."""
        stored = await self.get("snapshot", streams) if snapshots and not upto else [None] * len(streams)
        upto = upto or self._opened().planner.head
        found: dict[str, tuple[Snapshot | None, list[Record]]] = {}
        for stream, data in zip(streams, stored, strict=True):
            snapshot = msgspec.json.decode(data, type=Snapshot) if data is not None else None
            found[stream] = (snapshot, [])
        wanted = [(stream, snapshot.version if snapshot else 0) for stream, (snapshot, _) in found.items()]
        for record in await self._records(LOAD, (_json(wanted), upto)) if wanted else ():
            found[record.stream][1].append(record)
        return [Loaded(snapshot, tuple(records)) for snapshot, records in (found[stream] for stream in streams)]

    async def related(
        self, *, tx: str = "", correlation: str = "", stream: str = "", limit: int = 1000
    ) -> list[Record]:
        """Read by one of three indexes."""
        column, value = ("tx", tx) if tx else ("correlation", correlation) if correlation else ("stream", stream)
        return await self._records(RELATED.format(column), (value, self._opened().planner.head, limit))

    async def get(self, kind: RowKind, keys: Sequence[str]) -> list[bytes | None]:
        """Rows by key, all in one query."""
        found = dict(await self._rows(GET, (_json(keys), kind)))
        return [found.get(key) for key in keys]

    async def scan(
        self, kind: RowKind, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, bytes]]:
        """Rows in key order."""
        return await self._rows(SCAN, (kind, after, prefix, _end(prefix), limit))

    async def streams(self, prefix: str, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
        """Streams in order, with their versions."""
        head = self._opened().planner.head
        values = {"after": after, "start": prefix, "end": _end(prefix), "head": head, "limit": limit}
        return await self._read(lambda connection: _streams.decode(_text(connection, STREAMS, values)))

    async def backup(self, target: Path) -> None:
        """Copy by SQLite's online backup, in one read transaction; the copy gets its name when it is complete."""
        if self._reading is None:  # not opened here: another process may have it, and only reading is needed
            return await asyncio.to_thread(lambda: self._backup(connect_reader(self.path, self._vfs), target))
        await self._read(lambda connection: self._backup(connection, target))

    def _backup(self, connection: Connection, target: Path) -> None:
        if target.exists():
            raise StoreForeign(f"{target.name} already exists; give a new name")
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        try:
            copy = apsw.Connection(str(part))
            try:
                with copy.backup("main", connection, "main") as backup:
                    backup.step(-1)
            finally:
                copy.close()
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.link(part, target)
            sync_folder(target.parent)
        except FileExistsError as error:
            raise StoreForeign(f"{target.name} already exists; give a new name") from error
        except OSError as error:
            raise StoreFailed(f"the backup to {target.name} failed: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)

    def _opened(self) -> SqliteWriter:
        if self._writer is None:
            raise StoreFailed(f"{self.path.name} is closed")
        return self._writer

    async def _write(self, call: Callable[[SqliteWriter], T]) -> T:
        async with self._turn:
            return await self._run(call)

    async def _run(self, call: Callable[[SqliteWriter], T]) -> T:
        writer, writing = self._opened(), self._writing
        if writing is None:
            raise StoreFailed(f"{self.path.name} is closed")
        return await writing.run(partial(call, writer))

    async def _read(self, call: Callable[[Connection], T]) -> T:
        if self._reading is None:
            raise StoreFailed(f"{self.path.name} is closed")
        return await self._reading.run(partial(self._on_reader, call))

    def _on_reader(self, call: Callable[[Connection], T]) -> T:
        try:
            if not hasattr(_local, "connection"):
                _local.connection = connect_reader(self.path, self._vfs)
            return call(_local.connection)
        except apsw.Error as error:
            raise store_error(self.path, error) from error

    async def _records(self, sql: str, values: Sequence[Any]) -> list[Record]:
        return await self._read(lambda connection: _as_records(_text(connection, sql, values)))

    async def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[str, bytes]]:
        found = await self._read(lambda connection: _rows.decode(_text(connection, sql, values)))
        return [(key, text.encode() if text is not None else bytes.fromhex(blob or "")) for key, text, blob in found]


_local = threading.local()
"""Each reader thread's connection. A thread serves one store, so its connection is that store's."""


def _close_reader() -> None:
    if connection := getattr(_local, "connection", None):
        connection.close()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _end(prefix: str) -> str | bytes:
    """The least value above every text that begins with `prefix`; if there is no such text, a blob, which is above any
    text."""
    return end_of(prefix) or b""


def _text(connection: Connection, sql: str, values: Any) -> str:
    """A query's items as one JSON array, made inside SQLite in one step."""
    try:
        return f"[{connection.execute(ONE_TEXT.format(sql), values).get or ''}]"
    except apsw.TooBigError:
        # SQLite's longest text is 10^9 bytes; such an answer comes item by item.
        return f"[{','.join(item for (item,) in connection.execute(sql, values))}]"


def _as_records(text: str) -> list[Record]:
    return [
        Record(position, kind, type, data.encode(), tx, cause, at, label, stream, version, destination, headers)
        for position, kind, type, data, tx, cause, at, label, stream, version, destination, headers in _records.decode(
            text
        )
    ]
