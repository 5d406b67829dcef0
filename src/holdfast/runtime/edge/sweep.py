"""A sweep: one command to every aggregate of a type, each decided and recorded by itself.

Goes through the streams in their order and runs the command of each at the edge, some at once. Not atomic, and not a
transaction: each command is one. With an idempotency key a sweep that broke off goes on where it was, since every
command has a key made of it. Comes after the edge; fails with the edge's `CommandError`s, `Invalid` for a key that is
none of the command's.
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
    """What a sweep came to: commands by their answer."""

    accepted: int = 0
    rejected: int = 0


async def swept(edge: Edge, store: Store, sweep: Every, done: Swept, *, key: str = "", correlation: str = "") -> None:
    """Run a sweep to its end, counting in `done`. Aggregates that come to be meanwhile may be left out."""
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
