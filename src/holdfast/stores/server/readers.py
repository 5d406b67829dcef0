"""The connections to read on of a store on a database server, beside the one that writes.

A part of `stores.server.store`, which brings the questions. Nothing is read while a commit is in doubt: the writer says
so. Where an engine shows a commit before it is on the disk, what is read waits for the commit under way. A connection
that broke is replaced, once; `StoreFailed` where the server is not to be reached.
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
    """At most READERS connections, made when they are needed."""

    def __init__(self, engine: Engine, writer: ServerWriter) -> None:
        self._engine = engine
        self._writer = writer
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(READERS)

    async def ask(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Rows of a query; on a new connection where the one it was asked on has broken meanwhile. They leave only when
        the commit that may have been seen is durable."""
        async with self._free:
            try:
                found = await self._ask_once(sql, values)
            except Broken:
                await self.close()  # if one has broken, those that idle have too
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
            await drop(self._engine, connection)  # cancelled in the middle of an answer, it is of no more use either
            raise
        if self._writer.is_open:
            self._idle.append(connection)
        else:
            await drop(self._engine, connection)  # the store was closed meanwhile
        return found

    async def close(self) -> None:
        """Let go of the connections that nobody reads on."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await drop(self._engine, connection)
