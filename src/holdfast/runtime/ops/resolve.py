"""Resolving: an operator ends a hanging staged transaction; the decision is recorded and never contradicts another.

The coordinator can cancel a transaction that it has not decided. A participant carries out the decision that the
coordinator or a peer knows; only if nobody who can be reached knows one, the operator's own decision is forced.
`runtime.inbox.doubt` comes before it, the writer after it.
Fails with `Contradicted`, `NotFound`, `Invalid` and `Unavailable`.
"""

import asyncio
import logging

import msgspec

from holdfast.core.declare.message import Rejection
from holdfast.core.log.batch import Batch
from holdfast.core.saga.stage import Carried, attempt_of
from holdfast.errors import Contradicted, Invalid, NotFound, Unavailable, Unreachable
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.inbox.doubt import coordinator_of, note_resolved
from holdfast.runtime.log.work import AwaitedWork
from holdfast.runtime.node import Node

logger = logging.getLogger("holdfast.resolving")


class Resolution(msgspec.Struct, frozen=True):
    """What an operator's decision did in one service."""

    service: str
    stage: str
    commit: bool
    how: str
    """`decided` by the coordinator, `told` by a peer, `forced` by the operator, or `already` decided so."""


async def resolve(node: Node, tx: str, *, commit: bool, by: str, why: str) -> Resolution:
    """Resolve what this service decides or holds of a transaction; the decision is recorded with who and why.

    Raises Contradicted if another decision exists or this one is not possible, NotFound, Invalid and Unavailable.
    """
    if missing := next((name for name, value in (("by", by), ("why", why)) if not value.strip()), ""):
        raise Invalid(f"a repair says who and why: {missing} is missing", errors=[(missing, "missing")])
    here = await node.doubts.standing(tx)
    if here.undecided:
        return await _cancel(node, here.undecided[0], commit, by, why)
    if here.held:
        return await _force(node, tx, Carried(here.held[0], commit, by), why)
    if not here.decided:
        raise NotFound(f"{node.name} knows no staged transaction {tx[:200]}")
    last = max(here.decided, key=lambda one: attempt_of(one.stage))
    _agree(last, commit, node.name)
    return Resolution(node.name, last.stage, commit, "already")


def _agree(known: Carried, commit: bool, who: str) -> None:
    if known.commit != commit:
        raise Contradicted(f"{who} knows that it was {'committed' if known.commit else 'cancelled'}: {known.stage}")


async def _cancel(node: Node, stage: str, commit: bool, by: str, why: str) -> Resolution:
    """Cancel a transaction at its coordinator, which has not decided it."""
    if commit:
        raise Contradicted(f"{stage} is undecided: not all have voted, so it can be cancelled and not committed")
    stream = stage.partition(":")[2].rpartition("#")[0]
    first = (await node.store.related(stream=stream, limit=1))[0]
    envelope = Envelope(first.tx, first.tx, node.clock.now_us(), first.correlation)
    work = _CancelSagaWork(node, stream, Carried(stage, False, by), envelope, why)
    node.writer.submit(work)
    if not await asyncio.shield(work.done):
        raise Contradicted(f"{stage} has been decided meanwhile: ask again")
    return Resolution(node.name, stage, False, "decided")


async def _force(node: Node, tx: str, wanted: Carried, why: str) -> Resolution:
    """Carry out at a participant the decision that others know, or otherwise the operator's decision."""
    stage, doubts = wanted.stage, node.doubts
    hold = next(hold for hold in node.dispatch.stages.of_tx(tx) if hold.stage == stage)
    coordinator = coordinator_of(stage)
    known: Carried | None = None
    try:
        told = await doubts.ask(coordinator, tx)
        known = next((Carried(one.stage, one.commit, coordinator) for one in told.decided if one.stage == stage), None)
        if known is None and stage in told.undecided:
            raise Contradicted(f"{coordinator} is there and has not decided yet: resolve it there")
    except (Unreachable, Unavailable):
        logger.warning(
            "%s cannot reach the coordinator %s of the staged transaction %s; it asks the other peers",
            node.name,
            coordinator,
            tx,
            extra={"service": node.name, "peer": coordinator, "stage": stage, "correlation_id": hold.correlation or tx},
        )
    known = known or await doubts.ask_peers(hold)
    if known is not None:
        _agree(known, wanted.commit, known.by)
    if not await doubts.carry_out(known or wanted, why=why, signed=known is None):
        raise Contradicted(f"{stage} has been decided meanwhile: ask again")
    return Resolution(node.name, stage, wanted.commit, "told" if known else "forced")


class _CancelSagaWork(AwaitedWork[bool]):
    """An operator's cancel of an undecided staged saga, on its way through the writer."""

    __slots__ = ("_decision", "_envelope", "_node", "_told", "_why", "streams")

    def __init__(self, node: Node, stream: str, told: Carried, envelope: Envelope, why: str) -> None:
        super().__init__()
        self._node, self._told, self._envelope, self._why = node, told, envelope, why
        self.streams = (stream,)
        self._decision: Decision | None = None

    def handle(self) -> Batch | None:
        node, by, why = self._node, self._told.by, self._why
        decision = self._decision = Decision(self._envelope, node.streams)
        note_resolved(self._told, why, decision)
        cause = Rejection("resolved", f"cancelled by {by}: {why}", {"by": by, "why": why})
        node.dispatch.sagas.cancel(self.streams[0], cause, decision)
        if len(decision.records) == 1:
            self.finish(False)
            return None
        return decision.batch()

    def landed(self, position: int) -> None:
        self._node.outcomes.landed(self._decision, position)
        self.finish(True)
