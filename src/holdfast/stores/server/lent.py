"""Transactions lent to handlers on a database server: each on a connection of its own.

A part of `stores.server.store`; `stores.server.writer` commits a handler's work. A connection is kept for the next
handler if its transaction has ended well, and closed in every other case. Only the commit takes the row `head`, after
all of the handler's own statements: handlers only wait for each other on their own rows. Fails with `StoreFailed` if
the server cannot be reached, and with `TransactionRefused` if a handler ended its transaction.
"""

import logging
from collections.abc import Awaitable, Callable

from holdfast.errors import StoreError, StoreFailed, TransactionRefused
from holdfast.stores.server.engine import Broken, Connection, Engine, drop

__all__ = ["Lending", "ServerLent"]

KEPT_MAX = 8
"""How many connections are kept for handlers."""

logger = logging.getLogger("holdfast.store")


class ServerLent:
    """One transaction on one connection."""

    def __init__(self, lending: "Lending", connection: Connection) -> None:
        self.connection = connection
        self._lending = lending
        self._open = True
        """True after the beginning, until the commit or the rollback."""

    async def mark(self) -> None:
        """Do nothing: the whole transaction belongs to one handler."""

    async def undo(self) -> None:
        """Roll back."""
        if self._open:
            self._open = False
            await self._lending.give_back(self.connection, roll_back=True)

    def lost(self, error: BaseException) -> bool:
        """True for a deadlock, a serialization failure or a lost connection, even if another library wraps the
        error."""
        seen: BaseException | None = error
        while seen is not None:
            if self._lending.engine.ends(self.connection, seen):
                return True
            seen = getattr(seen, "orig", None) or seen.__cause__ or seen.__context__
        return False

    def check(self) -> None:
        """Raise TransactionRefused if the handler ended its transaction, or left it failed."""
        if not self._open:
            raise TransactionRefused(
                "the transaction of the handlers has ended already, so nothing can be committed within it"
            )
        self._lending.engine.check_lent(self.connection)

    async def committed(self) -> None:
        """Note that the commit is durable, and keep the connection for the next handler."""
        self._open = False
        await self._lending.give_back(self.connection)

    async def drop(self) -> None:
        """Close the connection: it cannot be used any more."""
        self._open = False
        await drop(self._lending.engine, self.connection)

    async def end(self) -> None:
        """Roll back if the transaction is still open."""
        await self.undo()


class Lending:
    """The connections of handlers."""

    def __init__(self, engine: Engine, recover: Callable[[], Awaitable[int]]) -> None:
        self.engine = engine
        self._recover = recover
        self._kept: list[Connection] = []
        self._open = False
        """True from the first lent connection until the store closes: connections are kept."""

    async def begin(self) -> ServerLent:
        """Begin on a kept connection, or on a new one."""
        await self._recover()
        self._open = True
        while True:
            kept = bool(self._kept)
            connection = self._kept.pop() if kept else None
            try:
                connection = connection or await self.engine.connect_lent()
                await self.engine.begin(connection)
            except Broken as error:
                await drop(self.engine, connection)
                if not kept:
                    raise StoreFailed(f"the server of {self.engine.log} cannot be reached: {error}") from error
            except BaseException:
                await drop(self.engine, connection)
                raise
            else:
                return ServerLent(self, connection)

    async def give_back(self, connection: Connection, *, roll_back: bool = False) -> None:
        """Keep a connection for the next handler, if it is still usable."""
        try:
            if roll_back:
                await self.engine.roll_back(connection)
        except (Broken, StoreError) as error:
            logger.warning(
                "%s: a connection lent to a handler failed; it is closed and replaced when needed: %s",
                self.engine.log,
                error,
            )
            await drop(self.engine, connection)
        except BaseException:
            await drop(self.engine, connection)
            raise
        else:
            if self._open and len(self._kept) < KEPT_MAX:
                self._kept.append(connection)
            else:
                await drop(self.engine, connection)

    async def close(self) -> None:
        """Close the kept connections now, and the lent ones when they come back."""
        self._open = False
        kept, self._kept = self._kept, []
        for connection in kept:
            await drop(self.engine, connection)
