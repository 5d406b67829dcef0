"""The reading connections of a store on a database server, beside the one that writes.

A part of `stores.server.store`, which gives the queries. Nothing is read while the writer has a commit in doubt. If an
engine shows a commit before it is on the disk, the rows that were read wait for the running commit. A broken connection
is replaced once; `StoreFailed` if the server cannot be reached.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from holdfast.errors import StoreFailed
from holdfast.stores.server.engine import Broken, Connection, Engine, drop
from holdfast.stores.server.writer import ServerWriter

__all__ = ["Readers"]

READERS = 2


class Readers:
    """At most READERS connections; each is made when it is needed."""

    def __init__(self, engine: Engine, writer: ServerWriter) -> None:
        self._engine = engine
        self._writer = writer
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(READERS)

    async def ask(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """The rows of a query, on a new connection if the first one was broken. They are returned only when a commit
        that they may show is durable."""
        async with self._free:
            try:
                found = await self._ask_once(sql, values)
            except Broken:
                await self.close()  # if one connection is broken, the idle ones are broken too
                try:
                    found = await self._ask_once(sql, values)
                except Broken as error:
                    raise StoreFailed(f"the server of {self._engine.log} cannot be reached: {error}") from error
        committing = self._writer.committing
        if self._engine.shows_early and committing is not None:
            await asyncio.shield(committing)
            await self._writer.recover()
        return found

    async def _ask_once(self, sql: str, values: Sequence[Any]) -> list[Any]:
        self._writer.opened()
        connection = self._idle.pop() if self._idle else None
        try:
            connection = connection or await self._engine.connect(writer=False)
            found = await self._engine.query(connection, sql, values)
        except BaseException:
            # After a cancellation in the middle of an answer the connection is not usable either.
            await drop(self._engine, connection)
            raise
        if self._writer.is_open:
            self._idle.append(connection)
        else:
            await drop(self._engine, connection)  # the store was closed meanwhile
        return found

    async def close(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await drop(self._engine, connection)
