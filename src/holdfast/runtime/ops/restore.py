"""Repair of a restored store (G11): an operator's declaration is recorded and then carried out.

A store that was restored from a backup has lost the end of its log; its peers hold cursors past that end, and those
conversations stand still with `Forked`. `restored` begins a new incarnation above every peer's cursor, so that no id is
given twice; `peer_restored`, on each peer, accepts that the restored service asks again for what it had received.
Both write a `repair` record with who and why; a second call changes nothing. Fails with `Invalid`, `NotFound` and
`StoreError`.
"""

import asyncio
from collections.abc import Mapping

from holdfast.core.declare.message import encode
from holdfast.core.log.batch import Batch
from holdfast.core.log.record import Record
from holdfast.errors import Invalid, NotFound
from holdfast.runtime.log.work import BatchWork
from holdfast.runtime.node import Node

LEAP = 1_000
"""How far above the highest cursor the new incarnation begins."""
RESTORED, PEER_RESTORED = "holdfast.repair.restored", "holdfast.repair.peer_restored"


async def restored(node: Node, cursors: Mapping[str, int], *, by: str, why: str) -> int:
    """Declare this service's store restored. `cursors`: how far each peer (exchange and feeds) had come in this log.

    Returns the first position of the new incarnation. Raises Invalid without `by` and `why`, StoreError.
    """
    _signed(by, why)
    highest = max([0, *cursors.values()])
    if highest > node.writer.head:
        await node.leap(highest + LEAP)
    await _record(node, RESTORED, {"by": by, "why": why, "cursors": dict(cursors)})
    return node.incarnations.current.first


async def peer_restored(node: Node, peer: str, *, by: str, why: str) -> None:
    """Accept that a peer's store was restored: its next cursor is believed, what follows is sent again."""
    _signed(by, why)
    if peer not in node.conversations.conversations:
        raise NotFound(f"{node.name} has no conversation with {peer!r}")
    await _record(node, PEER_RESTORED, {"by": by, "why": why, "peer": peer})
    node.conversations.conversations[peer].forgive()


def _signed(by: str, why: str) -> None:
    missing = [name for name, value in (("by", by), ("why", why)) if not value.strip()]
    if missing:
        raise Invalid(f"a repair says who and why: {missing[0]} is missing", errors=[(missing[0], "missing")])


async def _record(node: Node, stored: str, body: Mapping[str, object]) -> None:
    tx = node.clock.unique()
    work = BatchWork(Batch((Record(0, "repair", stored, encode(body), tx, tx, node.clock.now_us()),)))
    node.writer.submit(work)
    await asyncio.shield(work.done)
