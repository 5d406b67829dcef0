"""A sweep: one command to every aggregate of a type, each decided and recorded by itself.

A sweep goes through the streams in order and runs the command of each one at the edge, several at a time. It is not
atomic: each command is its own transaction. With an idempotency key, an interrupted sweep can go on where it stopped,
since each command has a key that is made from it. The edge comes next. Fails with the edge's `CommandError`s, and with
`Invalid` if a stream's key does not fit the command.
"""

import asyncio
import hashlib
from typing import Any, cast

import msgspec

from holdfast.core.declare.message import Command, MessageType, Rejection, message_type
from holdfast.core.declare.service import Every
from holdfast.core.log.key import split_key
from holdfast.errors import CommandFailed, Invalid, StoreError, Unavailable
from holdfast.ports.store import Store
from holdfast.runtime.edge.commands import Edge

AT_ONCE = 64
PAGE = 512


class Swept(msgspec.Struct):
    """The result of a sweep: the number of commands for each kind of answer."""

    accepted: int = 0
    rejected: int = 0


async def swept(edge: Edge, store: Store, sweep: Every, done: Swept, *, key: str = "", correlation: str = "") -> None:
    """Run a sweep to its end, counting in `done`. Aggregates that are created meanwhile may be left out."""
    aggregate, message = sweep.aggregate.__name__, message_type(sweep.command)
    by = edge.dispatch.service.deciders.get(message.name)
    if by is None or by.name != aggregate or message.home is not edge.dispatch.service.contract:
        raise CommandFailed(f"{message.stored} is decided by {by.name if by else 'nobody'}, not by {aggregate}")
    after = ""
    while True:
        try:
            page = await store.streams(f"{aggregate}/", after=after, limit=PAGE)
        except StoreError as error:
            raise Unavailable(str(error)) from None
        if not page:
            return
        streams = iter([stream for stream, _ in page])
        after = page[-1][0]

        async def worker(streams: Any = streams) -> None:
            for stream in streams:
                command = _command(message, stream.partition("/")[2], sweep.values)
                own = f"{key}#{hashlib.sha256(stream.encode()).hexdigest()[:16]}" if key else ""
                outcome = await edge.run(command, key=own, correlation=correlation)
                if isinstance(outcome.answer, Rejection):
                    done.rejected += 1
                else:
                    done.accepted += 1

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(page))):
                    group.create_task(worker())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None


def _command(message: MessageType, key: str, values: dict[str, Any]) -> Command[Any]:
    """The command to the aggregate of that key."""
    try:
        fields = dict(zip(message.key_fields, split_key(key), strict=True))
        found = msgspec.convert(fields | values, message.cls, strict=False)
    except ValueError as error:
        raise Invalid(f"{message.stored} to {key!r}: {error}", errors=[("$", str(error))]) from None
    return cast(Command[Any], found)
