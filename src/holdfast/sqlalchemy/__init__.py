"""The team's own SQLAlchemy sessions, joined to the transaction of a handler.

`joined` gives a session of the team's maker on the connection that a handler was lent: its changes are committed with
the handler's events, or not at all. The session's own commit and rollback end a savepoint. Needs the extra
`sqlalchemy`. Fails with `Misuse` if the maker does not suit the engine; other errors are SQLAlchemy's own.
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar, cast, overload

from sqlalchemy import Engine, create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from holdfast.core.declare.handler import LocalTransaction
from holdfast.errors import Misuse

__all__ = ["joined"]

A = TypeVar("A", bound=AsyncSession)
S = TypeVar("S", bound=Session)

DIALECTS = {"postgres": "postgresql+psycopg://", "mysql": "mysql+asyncmy://", "sqlite": "sqlite+holdfast_async://"}
registry.register("sqlite.holdfast", "holdfast.sqlalchemy.sqlite", "ApswDialect")
registry.register("sqlite.holdfast_async", "holdfast.sqlalchemy.sqlite", "AsyncApswDialect")

_lent: ContextVar[Any] = ContextVar("lent")
"""The connection that the engine returns for the current connect call."""


@overload
def joined(tx: LocalTransaction, sessions: async_sessionmaker[A]) -> AbstractAsyncContextManager[A]: ...
@overload
def joined(tx: LocalTransaction, sessions: sessionmaker[S]) -> AbstractAsyncContextManager[S]: ...
def joined(tx: LocalTransaction, sessions: Any) -> AbstractAsyncContextManager[Any]:
    """A session of that maker inside the handler's transaction; it is flushed at the end of the block.

    An `async_sessionmaker` on every engine; a `sessionmaker` on SQLite alone, since a server's driver is asynchronous
    (there `session.run_sync` of an `AsyncSession` brings a `Session`). A maker with its own `binds` uses other
    connections.
    """
    if isinstance(sessions, async_sessionmaker):
        return _joined_async(tx, cast("async_sessionmaker[AsyncSession]", sessions))
    if tx.engine != "sqlite":
        raise Misuse(
            f"joined: the driver of {tx.engine} is asynchronous; give an async_sessionmaker, whose session.run_sync"
            " brings a Session"
        )
    return _joined_sync(tx, sessions)


@asynccontextmanager
async def _joined_async(
    tx: LocalTransaction, sessions: async_sessionmaker[AsyncSession]
) -> AsyncGenerator[AsyncSession]:
    token = _lent.set(tx.connection)
    try:
        connection = await _async_engine(DIALECTS[tx.engine]).connect()
    finally:
        _lent.reset(token)
    try:
        await connection.begin()
        async with sessions(bind=connection, join_transaction_mode="create_savepoint") as session:
            yield session
            await session.commit()
    finally:
        await connection.close()


@asynccontextmanager
async def _joined_sync(tx: LocalTransaction, sessions: sessionmaker[Session]) -> AsyncGenerator[Session]:
    token = _lent.set(tx.connection)
    try:
        connection = _engine().connect()
    finally:
        _lent.reset(token)
    with connection, connection.begin(), sessions(bind=connection, join_transaction_mode="create_savepoint") as session:
        yield session
        session.commit()


@cache
def _async_engine(url: str) -> AsyncEngine:
    options: dict[str, Any] = {"use_native_hstore": False} if url.startswith("postgresql") else {}
    options |= {"creator": _adapted} if url.startswith("sqlite") else {"async_creator": _connection}
    found = create_async_engine(url, poolclass=NullPool, pool_reset_on_return=None, **options)
    _leave_alone(found.sync_engine)
    return found


@cache
def _engine() -> Engine:
    found = create_engine("sqlite+holdfast://", poolclass=NullPool, pool_reset_on_return=None, creator=_adapted)
    _leave_alone(found)
    return found


def _leave_alone(engine: Engine) -> None:
    """An engine that never ends the transaction or closes the connection, because both belong to the store."""
    dialect: Any = engine.dialect
    for name in ("do_begin", "do_commit", "do_rollback", "do_close", "do_terminate"):
        setattr(dialect, name, _nothing)


def _nothing(connection: Any) -> None:
    """Do nothing: the store does it."""


async def _connection() -> Any:
    return _lent.get()


def _adapted() -> Any:
    from holdfast.sqlalchemy.sqlite import Connection

    return Connection(_lent.get())
