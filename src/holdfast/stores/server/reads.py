"""What is read of a log on a database server: on connections of its own, beside the one that writes.

The reading half of `stores.server`, which inherits it. Nothing is read while a commit is in doubt, and nothing of the
log past the head. Where an engine shows a commit before it is on the disk, what is read waits for the commit under
way. A connection that broke is replaced, once; `StoreFailed` where the server is not to be reached.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

import msgspec

from holdfast.core.batch import RowKind
from holdfast.core.record import Kind, Record
from holdfast.errors import StoreError, StoreFailed
from holdfast.ports.store import Loaded, Page, Snapshot
from holdfast.stores.planner import Planner
from holdfast.stores.server.columns import (
    COLUMNS,
    KEY,
    ROW,
    ROWS,
    bytes_of,
    in_order,
    range_of,
    record_of,
    text,
)

__all__ = ["SNAPSHOT", "Broken", "ServerReads"]

READERS = 2
SNAPSHOT = "snapshot"


class Broken(Exception):
    """The connection to the server is gone; what it was doing may have been done or not."""


class ServerReads(ABC):
    """The methods of the port that read."""

    shows_early: ClassVar[bool] = False
    """The engine shows a commit to others before it is on the disk."""

    def __init__(self, log: str) -> None:
        self.log = log
        self._readers: list[Any] = []
        self._free = asyncio.Semaphore(READERS)
        self._committing: asyncio.Future[None] | None = None

    @abstractmethod
    async def _connect(self, *, writer: bool) -> Any:
        """A connection; the writer's checks durability, brings the schema up to date, and looks whose log it is.
        Raises Broken, StoreError."""
        ...

    @abstractmethod
    async def _disconnect(self, connection: Any) -> None: ...

    @abstractmethod
    async def _query(self, connection: Any, sql: str, values: Sequence[Any]) -> list[Any]:
        """Rows of a query; placeholders are %s. Text may come as bytes. Raises Broken, StoreFailed."""
        ...

    @abstractmethod
    def _load_query(self, streams: list[str], *, snapshots: bool, upto: int) -> tuple[str, list[Any]]:
        """Versioned records of some streams up to a position, in order; with `snapshots` those after each stream's
        snapshot, and before them the snapshots, as rows of kind SNAPSHOT with their data."""
        ...

    def _rows_query(self, kind: str, keys: Sequence[str]) -> tuple[str, list[Any]]:
        """Small rows by key."""
        marks = ",".join(["%s"] * len(keys))
        return f"SELECT {ROW} FROM {ROWS} WHERE kind = %s AND {KEY} IN ({marks})", [kind, *keys]

    @abstractmethod
    async def settle(self) -> int:
        """The head, once nothing is in doubt."""
        ...

    @abstractmethod
    def _opened(self) -> Planner: ...

    async def dropped(self, connection: Any) -> None:
        """Close a connection, whatever state it is in."""
        if connection is not None:
            with suppress(Broken, StoreError):
                await self._disconnect(connection)

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
        head = await self.settle()
        upto = min(upto or head, head)
        sql, values = f"SELECT {COLUMNS} FROM log WHERE position > %s AND position <= %s", [after, upto]
        filled: list[Any] = list(values)
        for column, wanted in (("kind", kinds), ("type", types)):
            if wanted:
                sql += f" AND {column} IN ({','.join(['%s'] * len(wanted))})"
                filled += wanted
        if destination:
            sql += " AND destination = %s AND destination <> ''"
            filled.append(destination)
        found = await self._records(f"{sql} ORDER BY position LIMIT %s", [*filled, limit])
        return Page(tuple(found), found[-1].position if len(found) == limit else upto)

    async def load(self, streams: Sequence[str], *, upto: int = 0, snapshots: bool = True) -> list[Loaded]:
        """All streams, each from its snapshot on, in one query."""
        head = await self.settle()
        found: dict[str, tuple[list[Snapshot], list[Record]]] = {stream: ([], []) for stream in streams}
        sql, values = self._load_query(list(found), snapshots=snapshots and not upto, upto=upto or head)
        for row in await self._ask(sql, values) if streams else ():
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
        """By one of three indexes."""
        column, value = ("tx", tx) if tx else ("correlation", correlation) if correlation else ("stream", stream)
        sql = f"SELECT {COLUMNS} FROM log WHERE {column} = %s AND {column} <> '' AND position <= %s"
        return await self._records(f"{sql} ORDER BY position LIMIT %s", [value, await self.settle(), limit])

    async def get(self, kind: RowKind, keys: Sequence[str]) -> list[bytes | None]:
        """Rows by key, all in one query."""
        await self.settle()
        return in_order(keys, await self._ask(*self._rows_query(kind, keys))) if keys else []

    async def scan(
        self, kind: RowKind, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, bytes]]:
        """Rows in key order."""
        await self.settle()
        sql, values = range_of(f"SELECT {ROW} FROM {ROWS} WHERE kind = %s AND", KEY, prefix, after)
        found = await self._ask(f"{sql} ORDER BY {KEY} LIMIT %s", [kind, *values, limit])
        return [(text(key), bytes_of(data, blob)) for key, data, blob in found]

    async def streams(self, prefix: str, *, after: str = "", limit: int = 100) -> list[tuple[str, int]]:
        """Streams in order, with their versions."""
        head = await self.settle()
        where = "SELECT stream, max(version) FROM log WHERE stream <> '' AND version IS NOT NULL AND position <= %s AND"
        sql, values = range_of(where, "stream", prefix, after)
        found = await self._ask(f"{sql} GROUP BY stream ORDER BY stream LIMIT %s", [head, *values, limit])
        return [(text(stream), version) for stream, version in found]

    async def _records(self, sql: str, values: Sequence[Any]) -> list[Record]:
        return [record_of(row) for row in await self._ask(sql, values)]

    async def _ask(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Rows of a query on a connection to read on; on a new one where that has broken meanwhile. What is read leaves
        only when the commit that may have been seen is durable."""
        found: list[Any] = []
        async with self._free:
            for again in (True, False):
                self._opened()
                connection = self._readers.pop() if self._readers else None
                try:
                    connection = connection or await self._connect(writer=False)
                    found = await self._query(connection, sql, values)
                except Broken as error:
                    await self.dropped(connection)
                    if not again:
                        raise StoreFailed(f"the server of {self.log} is not to be reached: {error}") from error
                    await self._drop_readers()
                except BaseException:
                    await self.dropped(connection)  # cancelled in the middle of an answer, it is of no more use
                    raise
                else:
                    self._readers.append(connection)
                    break
        if self.shows_early and self._committing is not None:
            await asyncio.shield(self._committing)
            await self.settle()
        return found

    async def _drop_readers(self) -> None:
        readers, self._readers = self._readers, []
        for connection in readers:
            await self.dropped(connection)
