"""Handlers: a command handled in the store's own transaction, beside the team's own tables.

Where an aggregate decides from folded events, a handler is an `async def` that reads and writes tables through
`tx.connection`; its events are committed with those writes or not at all (G1). Comes after
`core.declare.message`; `runtime.execute.handlers` runs handlers. Fails with `Misuse` when a function is
registered that cannot work.
"""

import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.core.declare.aggregate import as_events, is_a
from holdfast.core.declare.message import Command, Context, Event, MessageType, message_type
from holdfast.errors import CommandFailed, Misuse

HANDLER_SECONDS = 10.0
"""How long a handler may take if it does not say."""


class LocalTransaction:
    """The local transaction that a handler works in; only holdfast commits it and rolls it back."""

    def __init__(self, connection: Any, context: Context, engine: str = "") -> None:
        self.context = context
        """The context of the command: time, message id, key, correlation and transaction id."""
        self.engine = engine
        """`sqlite`, `postgres` or `mysql`."""
        self._connection = connection
        self._events: list[Event] = []

    @property
    def connection(self) -> Any:
        """The engine's own connection, inside the transaction: an `apsw.Connection` (SQLite), a
        `psycopg.AsyncConnection` (PostgreSQL) or an `asyncmy` connection (MariaDB, MySQL)."""
        if self._connection is None:
            raise CommandFailed("the transaction of this handler has ended; a handler may not keep it and use it later")
        return self._connection

    def emit(self, event: Event) -> None:
        """Record one more event, before the one that the handler returns. Raises CommandFailed for anything else."""
        if self._connection is None:
            raise CommandFailed("the transaction of this handler has ended; a handler may not keep it and use it later")
        self._events += as_events((event,), "tx.emit")

    def end(self) -> tuple[Event, ...]:
        """Release the connection, and return the emitted events."""
        self._connection = None
        return tuple(self._events)


class HandlerType:
    """A handler as it was registered: its command, its time limit and its name."""

    def __init__(self, function: Callable[..., Any], contract: str, seconds: float) -> None:
        self.name: str = function.__name__
        where = f"{contract}.{self.name}"
        if not inspect.iscoroutinefunction(function):
            raise Misuse(f"{where}: a handler must be an async def, because it waits for a connection")
        try:
            hints = typing.get_type_hints(function)
        except NameError as error:
            raise Misuse(f"{where}: an annotation cannot be resolved: {error}") from None
        given = [hints.get(name) for name in inspect.signature(function).parameters]
        if len(given) != 2 or not is_a(given[0], Command) or given[1] is not LocalTransaction:
            raise Misuse(f"{where}: it must take a command and `tx: LocalTransaction`, both annotated")
        self.command: MessageType = message_type(typing.cast("type[Any]", given[0]))
        if self.command.contract != contract:
            raise Misuse(f"{where}: it handles {self.command.stored}, which is a command of another contract")
        if not self.command.key_fields:
            raise Misuse(
                f"{where}: {self.command.cls.__name__} has no key; name the key field: @contract.command(key=...)"
            )
        returned = hints.get("return")
        answers = self.command.answers
        if returned is not None and not set(typing.get_args(returned) or (returned,)) <= {*answers}:
            names = " or ".join(answer.__name__ for answer in answers)
            raise Misuse(f"{where}: it returns {returned!r}, but {self.command.cls.__name__} is answered by {names}")
        for answer in answers:
            message_type(answer)
        if not 0 < seconds <= 3600:
            raise Misuse(f"{where}: seconds={seconds:g} must be more than 0 and at most 3600")
        self.function: Callable[[Any, LocalTransaction], Awaitable[Any]] = function
        self.seconds = seconds

    def answer(self, found: Any) -> Event:
        """The event that the function returned, if it answers the command. Raises CommandFailed on anything else."""
        if type(found) not in self.command.answers:
            names = " or ".join(answer.__name__ for answer in self.command.answers)
            raise CommandFailed(f"{self.name} must return {names}; it returned {found!r:.200}")
        return found
