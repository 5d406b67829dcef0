"""The one connection that writes to a log on a database server: the connection of the log's holder, and the recovery
when it breaks.

A part of `stores.server.store`, between the planner and the engine. The right to write is a lock that the server frees
when the connection ends; the fence (`stores.server.tenure`) is in every transaction: a process that lost the lock
without knowing it can change nothing. A commit whose connection breaks is in doubt, and its outcome is never guessed:
on a new connection the row `head` is locked, which waits for the end of the old transaction, and its count of groups
says whether the group is there. Until then nothing is written or read: `StoreFailed`. If another process has taken the
log, this is final: `StoreLocked`.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from holdfast.core.log.batch import Batch, CommitOutcome, Committed, Cursor, RowKind
from holdfast.errors import LimitExceeded, StoreError, StoreFailed, StoreLocked, TransactionLost
from holdfast.ports.store import Incarnation, Opened
from holdfast.stores.planner import Key, PlannedGroup, Planner
from holdfast.stores.prefixes import end_of
from holdfast.stores.server.columns import HEAD, in_order, text
from holdfast.stores.server.engine import Broken, Connection, Engine, Unfit, drop
from holdfast.stores.server.lent import ServerLent
from holdfast.stores.server.migrations import connect_writer
from holdfast.stores.server.tenure import Doubt, Head, Tenure, taken

__all__ = ["ServerWriter"]

TRIES_MAX = 10
LOCK_SECONDS = 2.0
"""How long an opening waits until the server notices that the last writer is gone."""
SETTLE_SECONDS = 1.0
"""How long a commit tries to reach its server before it fails."""
AGAIN_SECONDS = 0.05

logger = logging.getLogger("holdfast.store")


class ServerWriter:
    """Writes as long as its tenure lasts. No method is called while another commit, leap or clear is under way."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.log = engine.log
        self.connection: Connection | None = None
        self.committing: asyncio.Future[None] | None = None
        """Done when the running commit has ended."""
        self.tenure = Tenure(engine.log, Head(0, 0, ""))
        self._planner: Planner | None = None
        self._settling = asyncio.Lock()

    # Taking the log, and giving it up.

    async def open(self, incarnation: str, at: int) -> Opened:
        """Take the right to write, and begin an incarnation. Raises Broken, StoreError."""
        connection, _ = await connect_writer(self._engine)
        self.connection = connection
        await self._take_lock(connection, LOCK_SECONDS)
        head = await self._engine.change_head(connection, taken(incarnation, at))
        found = await self._engine.query(connection, "SELECT name, incarnation, position FROM cursors", ())
        cursors = {text(name): Cursor(text(by), position) for name, by, position in found}
        self.tenure = Tenure(self.log, head)
        self._planner = Planner(head.position, cursors)
        return Opened(head.position, await self._incarnations())

    async def close(self) -> None:
        """Close the connection, which also frees the lock."""
        self._planner = None
        connection, self.connection = self.connection, None
        await drop(self._engine, connection)

    @property
    def is_open(self) -> bool:
        """True after an opening, until the close."""
        return self._planner is not None

    def opened(self) -> Planner:
        """The tenure of the log. Raises the error by which the log was lost, and StoreFailed if the store is closed."""
        self.tenure.check()
        if self._planner is None:
            raise StoreFailed(f"the store of {self.log} is closed")
        return self._planner

    async def _take_lock(self, connection: Connection, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (holder := await self._engine.lock(connection)) is not None:
            if time.monotonic() > end:
                raise StoreLocked(f"{holder} writes to the log of {self.log}; stop it first, or use another store")
            await asyncio.sleep(AGAIN_SECONDS)

    async def _incarnations(self) -> tuple[Incarnation, ...]:
        sql = "SELECT id, first, bridged FROM incarnations ORDER BY number"
        found = await self._engine.query(self.connection, sql, ())
        return tuple(Incarnation(text(id), first, bridged) for id, first, bridged in found)

    # Commits.

    async def commit(self, batches: Sequence[Batch], within: ServerLent | None) -> list[CommitOutcome]:
        """Commit one group in one transaction. If the connection breaks, the outcome is looked up on a new one, and a
        group that is not there is tried again, for up to `SETTLE_SECONDS`."""
        group = self.opened().begin(batches)
        committing = self.committing = asyncio.get_running_loop().create_future()
        looked_up = False
        try:
            if within is not None:
                return await self._commit_within(within, batches)
            for _ in range(TRIES_MAX):
                await self.recover()
                planner, tenure = self.opened(), self.tenure
                if group.first != planner.head + 1:
                    group = planner.plan(batches)  # a group that was in doubt is there after all
                try:
                    if not group.empty:
                        await self._engine.write(self.connection, group, tenure.head)
                        tenure.committed(group)
                    elif not looked_up:
                        await self._compare()  # memory is only right about the log while it is ours
                except Unfit:
                    await self._look_up(group)
                    looked_up, group = True, planner.plan(batches)
                    continue
                except Broken as error:
                    logger.warning(
                        "%s: the connection broke during a commit; looking up whether the commit is there: %s",
                        self.log,
                        error,
                    )
                    tenure.doubt = Doubt(group, lent=False)
                    await self._drop()
                    await self.recover()
                    if tenure.there is group:
                        return group.outcomes
                    continue
                planner.keep(group)
                return group.outcomes
            raise StoreFailed(f"{self.log}: the server refused or interrupted the same commit {TRIES_MAX} times")
        finally:
            self.committing = None
            committing.set_result(None)

    async def _commit_within(self, lent: ServerLent, batches: Sequence[Batch]) -> list[CommitOutcome]:
        """Commit a group with a handler's work; nothing if a batch is refused."""
        await self.recover()
        planner, tenure = self.opened(), self.tenure
        group = planner.plan(batches)
        if not all(isinstance(outcome, Committed) for outcome in group.outcomes):
            await lent.end()
            return group.outcomes
        lent.check()
        try:
            await self._engine.write(lent.connection, group, tenure.head, within=True)
        except Unfit:
            await lent.end()
            await self._look_up(group)
            outcomes = planner.plan(batches).outcomes
            if all(isinstance(outcome, Committed) for outcome in outcomes):
                raise TransactionLost("another commit has changed what the handler's commit rests on") from None
            return outcomes
        except Broken as error:
            logger.warning(
                "%s: the connection of a handler broke during its commit; looking up whether the commit is there: %s",
                self.log,
                error,
            )
            tenure.doubt = Doubt(group, lent=True)
            await lent.drop()
            await self.recover()
            if tenure.there is group:
                return group.outcomes
            raise TransactionLost(f"the connection broke during the commit: {error}") from error
        tenure.committed(group)
        planner.keep(group)
        await lent.committed()
        return group.outcomes

    async def _compare(self) -> None:
        """Check the fence on the current row. Raises StoreLocked, Broken."""
        position, groups, incarnation = (await self._engine.query(self.connection, HEAD, ()))[0]
        self.tenure.compare(Head(position, groups, text(incarnation)))

    async def _look_up(self, group: PlannedGroup) -> None:
        """After a refused group: raise if it can never be written, else replace its assumptions by the real values."""
        try:
            await self._compare()
            if not group.assumed and not group.absent:
                raise StoreFailed(f"{self.log}: the versions of a batch do not follow its reads")
            versions = dict.fromkeys(group.assumed, 0) | await self._versions(list(group.assumed))
            rows: dict[Key, bytes | None] = {}
            for kind, _ in group.absent:
                keys = [key for one, key in group.absent if one == kind and (kind, key) not in rows]
                if keys:
                    found = await self._engine.query(self.connection, *self._engine.rows_query(kind, keys))
                    rows.update(zip(((kind, key) for key in keys), in_order(keys, found), strict=True))
            self.opened().learn(versions, rows)
        except Broken as error:
            raise await self._gone(error) from error

    async def _versions(self, streams: list[str]) -> dict[str, int]:
        if not streams:
            return {}
        marks = ",".join(["%s"] * len(streams))
        sql = f"SELECT stream, max(version) FROM log WHERE stream IN ({marks}) AND stream <> '' GROUP BY stream"
        found = await self._engine.query(self.connection, sql, streams)
        return {text(stream): version or 0 for stream, version in found}

    # A connection that broke.

    async def recover(self) -> int:
        """Connect again if the connection is gone, find out about a group in doubt, and return the head."""
        if self.tenure.doubt is None and self.connection is not None:
            return self.opened().head
        async with self._settling:
            end = time.monotonic() + SETTLE_SECONDS
            while self.tenure.doubt is not None or self.connection is None:
                self.opened()
                try:
                    await self._find_out()
                except Broken as error:
                    await self._drop()
                    if time.monotonic() > end:
                        raise StoreFailed(f"the server of {self.log} cannot be reached: {error}") from error
                    await asyncio.sleep(AGAIN_SECONDS)
            return self.opened().head

    async def _find_out(self) -> None:
        planner, tenure = self.opened(), self.tenure
        if self.connection is None:
            connection, _ = await connect_writer(self._engine)
            try:
                await self._take_lock(connection, SETTLE_SECONDS)
            except BaseException:
                await drop(self._engine, connection)
                raise
            self.connection = connection
        head = await self._engine.change_head(self.connection, tenure.resolve)
        if (group := tenure.resolved(head)) is not None:
            planner.keep(group)

    async def _drop(self) -> None:
        """Close a connection that is not usable, and forget it first: on some engines the next transaction on it would
        commit its open work."""
        connection, self.connection = self.connection, None
        await drop(self._engine, connection)

    async def _gone(self, error: Broken) -> StoreFailed:
        await self._drop()
        return StoreFailed(f"the server of {self.log} is gone: {error}")

    # Other writes.

    async def leap(self, incarnation: str, at: int, first: int) -> Opened:
        """Begin an incarnation at `first`, above the head."""
        head, tenure = await self.recover(), self.tenure
        if first <= head:
            raise LimitExceeded(f"position {first} is not above the head, {head}")
        try:
            tenure.head = await self._engine.change_head(self.connection, tenure.leap(incarnation, at, first))
            self.opened().head = first - 1
            return Opened(first - 1, await self._incarnations())
        except Broken as error:
            reason = f"the server of {self.log} was gone in a leap ({error}); start the service again"
            raise tenure.lose(StoreFailed(reason)) from error

    async def clear(self, kind: RowKind, prefix: str, cursor_prefix: str) -> None:
        """Remove rows and cursors by prefix, both or none."""
        await self.recover()
        planner = self.opened()
        keys, names = (prefix, end_of(prefix)), (cursor_prefix, end_of(cursor_prefix))
        try:
            if not await self._engine.remove(self.connection, self.tenure.head, kind, keys, names):
                await self._compare()
                raise StoreError(f"nothing was cleared in {self.log}: the row `head` has changed meanwhile; try again")
        except Broken as error:
            raise await self._gone(error) from error
        planner.cursors = {name: at for name, at in planner.cursors.items() if not name.startswith(cursor_prefix)}

    async def cursors(self) -> dict[str, Cursor]:
        """A copy of the cursors in memory."""
        await self.recover()
        return dict(self.opened().cursors)
