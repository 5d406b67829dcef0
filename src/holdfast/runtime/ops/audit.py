"""Auditing: pages of a service's log and what it has received, as an audit wants them, and an audit in this process.

What was received is asked of the store before its head is: cursors first, then what waits; then the group that is
being flushed is awaited, and the head taken. A message at or before a cursor that does not wait any more was decided by
a commit, and that commit is at or before the head. Comes after the store; before `core.audit.audit`. Fails with
StoreError and Unavailable.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from holdfast.core.audit.audit import Audit, Report
from holdfast.core.audit.cut import Seen, seen
from holdfast.core.audit.settled import Mark
from holdfast.core.system import System
from holdfast.errors import Unavailable

if TYPE_CHECKING:
    from holdfast.runtime.node import Node

PAGE_RECORDS_MAX = 2_000
SETTLE_SECONDS = 0.1


class Reading(msgspec.Struct, frozen=True):
    """A page of a log, and what the service had received before `head`."""

    records: tuple[Seen, ...]
    upto: int
    head: int
    mark: Mark


class _Waits(msgspec.Struct):
    producer: str
    record: "_Position"


class _Position(msgspec.Struct, array_like=True):
    position: int


async def mark(node: "Node") -> Mark:
    """What a service has received, and the head of its log afterwards."""
    if not node.takes_work:
        raise Unavailable(f"{node.name} is not running")
    cursors = {
        name: cursor.position for name, cursor in (await node.store.cursors()).items() if not name.startswith("view:")
    }
    waiting: list[tuple[str, int]] = []
    after = ""
    while rows := await node.store.scan("waiting", after=after):
        held = [msgspec.json.decode(data, type=_Waits) for _, data in rows]
        waiting += [(one.producer, one.record.position) for one in held]
        after = rows[-1][0]
    async with node.writer.paused():  # what the store has shown of a group is in the head once that group has landed
        if node.writer.shut:  # of a commit in doubt the store may show the cursors, and the head not know it
            raise Unavailable(
                f"{node.name} reads its store again after a failed commit; try again", retry_after_seconds=1.0
            )
        head = node.writer.head
    return Mark(head, cursors, frozenset(waiting))


async def reading(node: "Node", after: int, limit: int = PAGE_RECORDS_MAX) -> Reading:
    """A page of a service's log after a position."""
    received = await mark(node)
    head = received.head
    page = await node.store.read(after, limit, upto=head) if after < head else None
    records = tuple(seen(record) for record in page.records) if page is not None else ()
    return Reading(records, page.upto if page is not None else after, head, received)


async def read_all(audit: Audit, nodes: Mapping[str, "Node"]) -> None:
    """Read every log to its head and check the invariants."""
    for name, node in nodes.items():
        while True:
            found = await reading(node, audit.cut.read[name])
            audit.take(name, found.records, found.upto, head=found.head, mark=found.mark)
            if found.upto >= found.head:
                break
    audit.check()


async def audit(system: System, nodes: Mapping[str, "Node"], *, seconds: float = 0.0) -> Report:
    """Check the invariants of a system on its logs; wait at most so long until open sagas have settled."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    found = Audit(system)
    await read_all(found, nodes)
    while (found.stale or found.settling.open) and loop.time() < end:
        await asyncio.sleep(SETTLE_SECONDS)
        if found.stale:
            found = Audit(system)
        await read_all(found, nodes)
    return found.report()
