"""Transactions lent to handlers on a database server: each on a connection of its own.

Between `stores.server.reads` and `stores.server`, which inherits it. A connection is kept for the next handler when its
transaction has ended well, and dropped when anything about it is in question. Only the commit of what the handler did
takes the row `head`, after all of the handler's own statements: handlers wait for each other on their own rows alone.
"""

import logging
from abc import abstractmethod
from typing import Any

from holdfast.errors import StoreError, StoreFailed, TransactionRefused
from holdfast.ports.store import Lent
from holdfast.stores.server.reads import Broken, ServerReads

__all__ = ["ServerLends", "ServerLent"]

KEPT_MAX = 8
"""Connections kept for handlers."""

logger = logging.getLogger("holdfast.store")


class ServerLent:
    """One transaction on one connection."""

    def __init__(self, store: "ServerLends", connection: Any) -> None:
        self.connection = connection
        self._store = store
        self._open = True
        """Begun, and neither committed nor rolled back."""

    async def mark(self) -> None:
        """Nothing: the whole transaction is one handler's."""

    async def undo(self) -> None:
        """Roll back."""
        if self._open:
            self._open = False
            await self._store.give_back(self.connection, roll_back=True)

    def lost(self, error: BaseException) -> bool:
        """A deadlock, a serialization failure, a connection that is gone; also where another library wraps it."""
        seen: BaseException | None = error
        while seen is not None:
            if self._store.ends(self.connection, seen):
                return True
            seen = getattr(seen, "orig", None) or seen.__cause__ or seen.__context__
        return False

    def check(self) -> None:
        """Raises TransactionRefused where the handler ended its transaction, or left it failed."""
        if not self._open:
            raise TransactionRefused("the transaction to commit within is over")
        self._store.check_lent(self.connection)

    async def committed(self) -> None:
        """It is durable: the connection serves the next."""
        self._open = False
        await self._store.give_back(self.connection)

    async def drop(self) -> None:
        """Nothing more can be said on it."""
        self._open = False
        await self._store.dropped(self.connection)

    async def end(self) -> None:
        """Roll back where nothing else was done."""
        await self.undo()


class ServerLends(ServerReads):
    """The part of the port that lends."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self._kept: list[Any] = []

    @abstractmethod
    async def _connect_lent(self) -> Any:
        """A connection for handlers. Raises Broken, StoreError."""
        ...

    @abstractmethod
    async def _begin(self, connection: Any) -> None:
        """Raises Broken, StoreFailed."""
        ...

    @abstractmethod
    async def _roll_back(self, connection: Any) -> None:
        """Raises Broken, StoreFailed."""
        ...

    @abstractmethod
    def check_lent(self, connection: Any) -> None:
        """Raises TransactionRefused where it is not in a transaction that can be committed."""
        ...

    @abstractmethod
    def ends(self, connection: Any, error: BaseException) -> bool:
        """True where the error says that the server ended the transaction, through no fault of the statement's."""
        ...

    async def begin(self) -> Lent:
        """Begin on a kept connection, or on a new one."""
        await self.settle()
        while True:
            kept = bool(self._kept)
            connection = self._kept.pop() if kept else None
            try:
                connection = connection or await self._connect_lent()
                await self._begin(connection)
            except Broken as error:
                await self.dropped(connection)
                if not kept:
                    raise StoreFailed(f"the server of {self.log} is not to be reached: {error}") from error
            except BaseException:
                await self.dropped(connection)
                raise
            else:
                return ServerLent(self, connection)

    async def give_back(self, connection: Any, *, roll_back: bool = False) -> None:
        """Keep a connection for the next handler, if it is good for one."""
        try:
            if roll_back:
                await self._roll_back(connection)
        except (Broken, StoreError) as error:
            logger.warning("a handler's connection of %s is dropped: %s", self.log, error)
            await self.dropped(connection)
        except BaseException:
            await self.dropped(connection)
            raise
        else:
            if len(self._kept) < KEPT_MAX:
                self._kept.append(connection)
            else:
                await self.dropped(connection)
