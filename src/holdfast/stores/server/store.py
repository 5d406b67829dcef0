"""What stores on a database server have in common: one writer, its fence, and what to do when the connection breaks.

Comes between the planner and the engines (`stores.postgres`, `stores.mysql`), which bring a driver and its SQL. The
right to write is a lock that the server frees when the writer's connection ends; the row `head` names the incarnation
that may write, and every commit is made as that one: who lost the lock without knowing it can change nothing.

A commit whose connection breaks is in doubt. It is never guessed: on a new connection the row `head` is locked, which
waits for what the old one may still be doing, and its count of commits says whether the group is there. Before that is
believed a commit of our own is made durable, since an engine may show what is not on its disk yet. Until then every
method raises `StoreFailed`.
"""

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, ClassVar

from holdfast.core.batch import Batch, Committed, Cursor, Outcome, RowKind
from holdfast.errors import LimitExceeded, StoreError, StoreFailed, StoreLocked, TransactionLost
from holdfast.ports.store import Capabilities, Incarnation, Lent, Opened
from holdfast.stores.planner import Group, Key, Planner
from holdfast.stores.server.columns import HEAD, end_of, in_order, text
from holdfast.stores.server.lent import ServerLends, ServerLent
from holdfast.stores.server.migrations import MIGRATIONS, check
from holdfast.stores.server.reads import Broken
from holdfast.stores.server.tenure import Change, Doubt, Head, Tenure, taken

__all__ = ["Broken", "ServerStore", "Unfit"]

TRIES_MAX = 10
LOCK_SECONDS = 2.0
"""How long an opening waits for a writer that has just ended to be seen as gone."""
SETTLE_SECONDS = 1.0
"""How long a commit looks for its server before it says that it cannot."""
AGAIN_SECONDS = 0.05

logger = logging.getLogger("holdfast.store")


class Unfit(Exception):
    """Nothing was written: an assumption of the group, or the fence, did not hold."""


class ServerStore(ServerLends):
    """A log on a database server. Subclasses bring connections (of any type) and SQL."""

    capabilities: ClassVar[Capabilities]
    where: str = ""
    """The place of the tables, in words."""
    backup_tool: ClassVar[str] = ""
    """What copies the database: the server's own tool."""

    def __init__(self, log: str) -> None:
        super().__init__(log)
        self._planner: Planner | None = None
        self._writing: Any = None
        self._tenure = Tenure(log, Head(0, 0, ""))
        self._settling = asyncio.Lock()
        self._migrating = ""
        """`expand` or `contract` while that is done."""
        self._version = 0, 0

    # What an engine brings.

    @abstractmethod
    async def _lock(self, connection: Any) -> str | None:
        """Take the right to write, for as long as the connection lasts; else who has it."""
        ...

    @abstractmethod
    async def _change_head(self, connection: Any, change: Callable[[Head], Change]) -> Head:
        """In one durable transaction: lock the row, let `change` say what it becomes, record the opening that it names
        too, if any. The row as it is now. Raises Broken, and what `change` raises (then nothing has changed)."""
        ...

    @abstractmethod
    async def _write(self, connection: Any, group: Group, before: Head, *, within: bool = False) -> None:
        """Make a group durable in one transaction, if the row is still `before`; `within` the one that is open.

        Raises Broken, Unfit, StoreFailed, and TransactionRefused where it is the transaction's fault.
        """
        ...

    @abstractmethod
    async def _remove(self, connection: Any, kind: str, keys: tuple[str, Any], names: tuple[str, Any]) -> None:
        """Remove rows and cursors in two ranges, both or none. Raises Broken, StoreFailed."""
        ...

    @abstractmethod
    def _alone(self, connection: Any) -> AbstractAsyncContextManager[None]:
        """Nobody else makes or changes this log's tables inside."""
        ...

    @abstractmethod
    async def _meta(self, connection: Any) -> dict[str, str] | None:
        """What the tables say of themselves; None where they are not there. Raises StoreForeign."""
        ...

    @abstractmethod
    async def _create(self, connection: Any) -> None:
        """Make the tables, in version 1."""
        ...

    @abstractmethod
    async def _run_migration(self, connection: Any, script: str, name: str, version: int) -> None:
        """Run a half of a migration, and note in `meta` under `name` that it was."""
        ...

    # The tables.

    async def migrate(self, *, contract: bool = False) -> tuple[int, int]:
        """Make the tables, or bring them up to this release, while other processes use them: (version, oldest code that
        may use them). `contract` only when no process runs older code any more."""
        self._migrating = "contract" if contract else "expand"
        try:
            await self._disconnect(await self._connect(writer=True))
        except Broken as error:
            raise StoreFailed(f"the server of {self.log} is not to be reached: {error}") from error
        finally:
            self._migrating = ""
        return self._version

    async def _check_schema(self, connection: Any) -> None:
        async with self._alone(connection):
            meta, contract = await self._meta(connection), self._migrating == "contract"
            if meta is None:
                await self._create(connection)
                meta, contract = await self._meta(connection) or {}, True
            engine = self.capabilities.engine
            for number in MIGRATIONS if self._migrating or contract else ():
                if meta.get("log") == self.log and int(meta["schema"]) < number.version:
                    await self._run_migration(connection, number.expand[engine], "schema", number.version)
                if meta.get("log") == self.log and contract and int(meta["needs"]) < number.version:
                    await self._run_migration(connection, number.contract[engine], "needs", number.version)
            meta = await self._meta(connection) or {}
        check(self.where, meta, self.log)
        self._version = int(meta["schema"]), int(meta["needs"])

    # The port.

    async def open(self, incarnation: str, at: int) -> Opened:
        """Connect, check, take the right to write, and begin an incarnation."""
        if self._planner is not None:
            raise StoreError(f"the store of {self.log} is open already")
        try:
            connection = self._writing = await self._connect(writer=True)
            await self._take_lock(connection, LOCK_SECONDS)
            head = await self._change_head(connection, taken(incarnation, at))
            cursors = await self._query(connection, "SELECT name, incarnation, position FROM cursors", ())
            self._tenure = Tenure(self.log, head)
            self._planner = Planner(
                head.position, {text(name): Cursor(text(by), position) for name, by, position in cursors}
            )
            return Opened(head.position, await self._incarnations())
        except Broken as error:
            await self.close()
            raise StoreFailed(f"the server of {self.log} is not to be reached: {error}") from error
        except BaseException:
            await self.close()
            raise

    async def _take_lock(self, connection: Any, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (holder := await self._lock(connection)) is not None:
            if time.monotonic() > end:
                raise StoreLocked(f"{holder} writes to the log of {self.log}; stop it first, or give another store")
            await asyncio.sleep(AGAIN_SECONDS)

    async def _incarnations(self) -> tuple[Incarnation, ...]:
        found = await self._query(self._writing, "SELECT id, first, bridged FROM incarnations ORDER BY number", ())
        return tuple(Incarnation(text(id), first, bridged) for id, first, bridged in found)

    async def close(self) -> None:
        """Let go of every connection."""
        self._planner = None
        connections = [self._writing, *self._readers, *self._kept]
        self._writing, self._readers, self._kept = None, [], []
        for connection in connections:
            if connection is not None:
                with suppress(Broken, StoreError):
                    await self._disconnect(connection)

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[Outcome]:
        """One group, one transaction. Where the connection breaks the outcome is found out, and what is not there is
        tried again on a new one, for as long as `SETTLE_SECONDS`."""
        group = self._opened().begin(batches)
        committing = self._committing = asyncio.get_running_loop().create_future()
        try:
            if within is not None:
                if not isinstance(within, ServerLent):
                    raise StoreError("the transaction to commit within is another store's")
                return await self._commit_within(within, batches)
            for _ in range(TRIES_MAX):
                await self.settle()
                planner = self._opened()
                if group.first != planner.head + 1:
                    group = planner.plan(batches)  # one that was in doubt is there after all
                try:
                    if not group.empty:
                        await self._write(self._writing, group, self._tenure.head)
                        self._tenure.committed(group)
                except Unfit:
                    await self._look_up(group)
                    group = planner.plan(batches)
                    continue
                except Broken as error:
                    logger.warning("the connection of %s broke in a commit: %s", self.log, error)
                    self._tenure.doubt = Doubt(group, lent=False)
                    self._writing = await self.dropped(self._writing)
                    await self.settle()
                    if self._tenure.there is group:
                        return group.outcomes
                    continue
                planner.keep(group)
                return group.outcomes
            raise StoreFailed(f"{self.log}: the group was refused or cut off {TRIES_MAX} times")
        finally:
            self._committing = None
            committing.set_result(None)

    async def _commit_within(self, lent: ServerLent, batches: Sequence[Batch]) -> list[Outcome]:
        """A group with what a handler did; nothing where a batch is refused."""
        await self.settle()
        planner = self._opened()
        group = planner.plan(batches)
        if not all(isinstance(outcome, Committed) for outcome in group.outcomes):
            await lent.end()
            return group.outcomes
        lent.check()
        try:
            await self._write(lent.connection, group, self._tenure.head, within=True)
        except Unfit:
            await lent.end()
            await self._look_up(group)
            outcomes = planner.plan(batches).outcomes
            if all(isinstance(outcome, Committed) for outcome in outcomes):
                raise TransactionLost("what the group assumed has changed") from None
            return outcomes
        except Broken as error:
            logger.warning("a handler's connection of %s broke in its commit: %s", self.log, error)
            self._tenure.doubt = Doubt(group, lent=True)
            await lent.drop()
            await self.settle()
            if self._tenure.there is group:
                return group.outcomes
            raise TransactionLost(f"the connection broke in the commit: {error}") from error
        self._tenure.committed(group)
        planner.keep(group)
        await lent.committed()
        return group.outcomes

    async def _look_up(self, group: Group) -> None:
        """Nothing of a group was written: say why it can never be, or replace what it assumed by what is."""
        try:
            position, groups, incarnation = (await self._query(self._writing, HEAD, ()))[0]
            self._tenure.compare(Head(position, groups, text(incarnation)))
            if not group.assumed and not group.absent:
                raise StoreFailed(f"{self.log}: the versions of a batch do not follow its reads")
            versions = dict.fromkeys(group.assumed, 0) | await self._versions(list(group.assumed))
            rows: dict[Key, bytes | None] = {}
            for kind, _ in group.absent:
                keys = [key for one, key in group.absent if one == kind and (kind, key) not in rows]
                if keys:
                    found = await self._query(self._writing, *self._rows_query(kind, keys))
                    rows.update(zip(((kind, key) for key in keys), in_order(keys, found), strict=True))
            self._opened().learn(versions, rows)
        except Broken as error:
            self._writing = await self.dropped(self._writing)
            raise StoreFailed(f"the server of {self.log} is gone: {error}") from error

    async def _versions(self, streams: list[str]) -> dict[str, int]:
        if not streams:
            return {}
        marks = ",".join(["%s"] * len(streams))
        sql = f"SELECT stream, max(version) FROM log WHERE stream IN ({marks}) AND stream <> '' GROUP BY stream"
        return {text(stream): version or 0 for stream, version in await self._query(self._writing, sql, streams)}

    async def settle(self) -> int:
        """Connect again where the connection is gone, and find out about a group that is in doubt. The head."""
        if self._tenure.doubt is None and self._writing is not None:
            return self._opened().head
        async with self._settling:
            end = time.monotonic() + SETTLE_SECONDS
            while self._tenure.doubt is not None or self._writing is None:
                self._opened()
                try:
                    await self._find_out()
                except Broken as error:
                    self._writing = await self.dropped(self._writing)
                    if time.monotonic() > end:
                        raise StoreFailed(f"the server of {self.log} is not to be reached: {error}") from error
                    await asyncio.sleep(AGAIN_SECONDS)
            return self._opened().head

    async def _find_out(self) -> None:
        planner = self._opened()
        if self._writing is None:
            connection = await self._connect(writer=True)
            try:
                await self._take_lock(connection, SETTLE_SECONDS)
            except BaseException:
                await self.dropped(connection)
                raise
            self._writing = connection
        head = await self._change_head(self._writing, self._tenure.resolve)
        if (group := self._tenure.resolved(head)) is not None:
            planner.keep(group)

    async def leap(self, incarnation: str, at: int, first: int) -> Opened:
        """Begin an incarnation at `first`, above the head."""
        head = await self.settle()
        if first <= head:
            raise LimitExceeded(f"position {first} is not above the head, {head}")
        try:
            self._tenure.head = await self._change_head(self._writing, self._tenure.leap(incarnation, at, first))
            self._opened().head = first - 1
            return Opened(first - 1, await self._incarnations())
        except Broken as error:
            reason = f"the server of {self.log} was gone in a leap ({error}); start the service again"
            raise self._tenure.lose(StoreFailed(reason)) from error

    async def clear(self, kind: RowKind, prefix: str, cursor_prefix: str) -> None:
        """Remove rows and cursors by prefix, both or none."""
        if not prefix or not cursor_prefix:
            raise ValueError("clear needs a prefix of rows and one of cursors: an empty one would remove everything")
        await self.settle()
        planner = self._opened()
        try:
            ends = (cursor_prefix, end_of(cursor_prefix))
            await self._remove(self._writing, kind, (prefix, end_of(prefix)), ends)
        except Broken as error:
            self._writing = await self.dropped(self._writing)
            raise StoreFailed(f"the server of {self.log} is gone: {error}") from error
        planner.cursors = {name: at for name, at in planner.cursors.items() if not name.startswith(cursor_prefix)}

    async def cursors(self) -> dict[str, Cursor]:
        """A copy of what is kept in memory."""
        await self.settle()
        return dict(self._opened().cursors)

    async def backup(self, target: Path) -> None:
        """Refused: a server has its own tool for it."""
        raise StoreError(f"holdfast makes no backup of a database server: use {self.backup_tool}")

    def _opened(self) -> Planner:
        self._tenure.check()
        if self._planner is None:
            raise StoreFailed(f"the store of {self.log} is closed")
        return self._planner
