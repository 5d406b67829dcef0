"""Doubt and its end: what became of a staged transaction, asked of those who may know, or said by an operator.

The coordinator tells its decision by exchange, as soon as it can be reached. While it cannot, a participant that holds
something asks the other peers: who was told knows. Not known is not cancelled: what nobody knows stays held, in view,
until an operator resolves it, on record, and never against a decision that exists. Comes after `runtime.decide.stages`;
`runtime.node` starts it. Fails with `Contradicted`, `NotFound`, `Invalid`.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from holdfast.core.batch import Batch, Duplicate
from holdfast.core.message import Rejection, encode
from holdfast.core.record import Record
from holdfast.core.stage import CANCEL, CONFIRM, DONE, Carried, Decision, Hold, Standing, attempt_of, stage_of
from holdfast.errors import Contradicted, ExchangeError, HoldfastError, Invalid, NotFound, Unavailable, Unreachable
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.inbox.receive import decide_stage
from holdfast.runtime.tasks import Chore

if TYPE_CHECKING:
    from holdfast.runtime.inbox.message import Place
    from holdfast.runtime.node import Node

logger = logging.getLogger("holdfast.resolving")

ASK_SECONDS = 5.0
DOUBT_SECONDS = 15.0
"""How long something is held before the peers are asked, the coordinator being out of reach."""
RESOLVED = "holdfast.repair.resolved"
RELATED_MAX = 10_000


class Resolution(msgspec.Struct, frozen=True):
    """What an operator's word did in one service."""

    service: str
    stage: str
    commit: bool
    how: str
    """`decided` by the coordinator; `told` by who knew; `forced`, nobody reachable knowing; `already` so."""


async def standing(node: "Node", tx: str) -> Standing:
    """What this service knows of a transaction: what it holds, what it was told or has decided."""
    held = tuple(dict.fromkeys(hold.stage for hold in node.dispatch.stages.of_tx(tx)))
    records = await node.store.related(tx=tx, limit=RELATED_MAX)
    decided: dict[str, Carried] = {}
    undecided: list[str] = []
    streams: dict[str, None] = {}
    for record in records:
        if record.type in (DONE, RESOLVED) and record.kind in ("answer", "repair"):
            found = msgspec.json.decode(record.data, type=Carried)
            decided.setdefault(found.stage, found)
        elif record.kind == "command" and record.type in (CONFIRM, CANCEL):
            attempt = msgspec.json.decode(record.data, type=Decision).attempt
            stage = stage_of(node.name, record.stream, attempt)
            decided[stage] = Carried(stage, record.type == CONFIRM)
        elif (saga := node.service.sagas.get(record.stream.partition("/")[0])) and saga.staged:
            streams[record.stream] = None
    for stream, loaded in zip(streams, await node.store.load(list(streams)) if streams else [], strict=True):
        state, _ = node.dispatch.folder_of(stream).fold(stream, loaded)
        if state is not None and not state.ended and (state.status == "running" or state.again):
            undecided.append(stage_of(node.name, stream, state.attempt))
    position = records[-1].position if records else 0
    return Standing(node.name, position, held, tuple(decided.values()), tuple(undecided))


class Doubts:
    """Asks what became of transactions whose coordinator is out of reach."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._asking = Chore(ASK_SECONDS, lambda: bool(node.dispatch.stages.held), self._ask)

    def start(self) -> None:
        """Begin to look, now and then."""
        self._asking.start()

    async def stop(self) -> None:
        """Ask no more."""
        await self._asking.stop()

    async def _ask(self) -> None:
        node = self._node
        longest = node.clock.now_us() - round(DOUBT_SECONDS * 1e6)
        doubtful = {hold.stage: hold for _, hold in node.dispatch.stages.items() if hold.since < longest}
        try:
            for stage, hold in doubtful.items():
                if not self._away(coordinator_of(stage)):
                    continue
                known = await _ask_peers(node, hold)
                if known is not None:
                    await carry_out(node, stage, known.commit, by=known.by)
        except HoldfastError as error:
            logger.warning("what is in doubt could not be asked about: %s", error)

    def _away(self, coordinator: str) -> bool:
        conversations = self._node.conversations.conversations if self._node.conversations else {}
        found = conversations.get(coordinator)
        return found is None or found.failure is not None


def coordinator_of(stage: str) -> str:
    """The service that decides."""
    return stage.partition(":")[0]


async def _ask_peers(node: "Node", hold: Hold) -> Carried | None:
    """What a peer other than the coordinator knows; `by` names it. None where none knows, or they contradict."""
    found: dict[bool, Carried] = {}
    for peer in sorted(node.peers - {coordinator_of(hold.stage)}):
        try:
            told = await node.transport.standing(peer, hold.tx)
        except (ExchangeError, Unavailable):
            continue
        for one in told.decided:
            if one.stage == hold.stage:
                found[one.commit] = Carried(one.stage, one.commit, peer)
    if len(found) > 1:
        logger.error("transaction %s is mixed: its peers carried out both decisions", hold.tx)
    return next(iter(found.values())) if len(found) == 1 else None


async def carry_out(node: "Node", stage: str, commit: bool, *, by: str, why: str = "", signed: str = "") -> bool:
    """Carry out a decision that did not come from the coordinator. `signed`: the operator who forces it. False where
    nothing is held any more. Raises Contradicted for a commit of what has not voted, Unavailable."""
    work = _DecisionWork(node, Carried(stage, commit, by), why, signed)
    node.writer.submit(work)
    return await asyncio.shield(work.done)


async def resolve(node: "Node", tx: str, *, commit: bool, by: str, why: str) -> Resolution:
    """Resolve what this service decides or holds of a transaction; the decision is recorded with who and why.

    Raises Contradicted where a decision exists that says otherwise, or cannot be this one; NotFound, Unavailable.
    """
    if missing := next((name for name, value in (("by", by), ("why", why)) if not value.strip()), ""):
        raise Invalid(f"a repair says who and why: {missing} is missing", errors=[(missing, "missing")])
    here = await standing(node, tx)
    if here.undecided:
        return await _decide(node, here.undecided[0], commit, by, why)
    if here.held:
        return await _force(node, tx, here.held[0], commit, by, why)
    if not here.decided:
        raise NotFound(f"{node.name} knows no staged transaction {tx[:200]}")
    last = max(here.decided, key=lambda one: attempt_of(one.stage))
    _agree(last, commit, node.name)
    return Resolution(node.name, last.stage, commit, "already")


def _agree(known: Carried, commit: bool, who: str) -> None:
    if known.commit != commit:
        raise Contradicted(f"{who} knows that it was {'committed' if known.commit else 'cancelled'}: {known.stage}")


async def _decide(node: "Node", stage: str, commit: bool, by: str, why: str) -> Resolution:
    if commit:
        raise Contradicted(f"{stage} is undecided: not all have voted, so it can be cancelled and not committed")
    stream = stage.partition(":")[2].rpartition("#")[0]
    first = (await node.store.related(stream=stream, limit=1))[0]
    envelope = Envelope(first.tx, first.tx, node.clock.now_us(), first.correlation)
    work = _CancelWork(node, stream, stage, envelope, by, why)
    node.writer.submit(work)
    if not await asyncio.shield(work.done):
        raise Contradicted(f"{stage} has been decided meanwhile: ask again")
    return Resolution(node.name, stage, False, "decided")


async def _force(node: "Node", tx: str, stage: str, commit: bool, by: str, why: str) -> Resolution:
    hold = next(hold for hold in node.dispatch.stages.of_tx(tx) if hold.stage == stage)
    coordinator = coordinator_of(stage)
    known: Carried | None = None
    try:
        told = await node.transport.standing(coordinator, tx)
        known = next((Carried(one.stage, one.commit, coordinator) for one in told.decided if one.stage == stage), None)
        if known is None and stage in told.undecided:
            raise Contradicted(f"{coordinator} is there and has not decided yet: resolve it there")
    except (Unreachable, Unavailable):
        logger.warning("%s cannot be asked what became of %s", coordinator, stage)
    known = known or await _ask_peers(node, hold)
    if known is not None:
        _agree(known, commit, known.by)
    signed = "" if known else by
    if not await carry_out(node, stage, commit, by=known.by if known else by, why=why, signed=signed):
        raise Contradicted(f"{stage} has been decided meanwhile: ask again")
    return Resolution(node.name, stage, commit, "told" if known else "forced")


def _said(told: Carried, why: str, envelope: Envelope) -> Record:
    body = encode(msgspec.to_builtins(told) | {"why": why})
    return Record(0, "repair", RESOLVED, body, envelope.tx, envelope.id, envelope.at, envelope.correlation)


class _DecisionWork:
    """A decision that did not come by exchange, on its way through the writer."""

    __slots__ = ("_gone", "_handled", "_node", "_signed", "_told", "_why", "done", "lane", "streams")

    def __init__(self, node: "Node", told: Carried, why: str, signed: str) -> None:
        self._node, self._told, self._why, self._signed = node, told, why, signed
        self.lane, self.streams = "", node.dispatch.stages.streams_of(told.stage)
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._handled: Handled | None = None
        self._gone: list[tuple[str, int, Place]] = []

    def handle(self) -> Batch | None:
        node, told = self._node, self._told
        stages = node.dispatch.stages
        streams = stages.streams_of(told.stage)
        if not streams or not set(streams) <= set(self.streams):
            self.done.set_result(False)
            return None
        if told.commit and node.waiting.awaits(told.stage):
            raise Contradicted(f"{told.stage}: not all that it asks of {node.name} has been voted on")
        hold = stages.held[streams[0]][told.stage].hold
        envelope = Envelope(hold.parts[0].cause, hold.tx, node.clock.now_us(), hold.correlation)
        handled, self._gone = decide_stage(node.waiting, told.stage, told.commit, envelope, by=told.by)
        self._handled = handled
        stages.remember(told, handled)
        if self._signed:
            handled.records.append(_said(told, self._why, envelope))
        return Batch(tuple(handled.records), tuple(handled.reads), (), tuple(handled.rows))

    def landed(self, position: int) -> None:
        self._node.waiting.let_go(self._handled, self._gone)
        self.done.set_result(True)

    def taken_back(self) -> None:
        if self._handled is not None:
            self._node.dispatch.stages.take_back(self._handled)
            self._handled = None
        self._node.waiting.put_in(self._gone)
        self._gone = []

    def duplicate(self, found: Duplicate) -> None:
        self.failed(RuntimeError("a decision has no fresh rows"))

    def failed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _CancelWork:
    """An operator's word to the coordinator, on its way through the writer."""

    __slots__ = ("_by", "_envelope", "_handled", "_node", "_stage", "_why", "done", "lane", "streams")

    def __init__(self, node: "Node", stream: str, stage: str, envelope: Envelope, by: str, why: str) -> None:
        self._node, self._stage, self._envelope, self._by, self._why = node, stage, envelope, by, why
        self.lane, self.streams = "", (stream,)
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._handled: Handled | None = None

    def handle(self) -> Batch | None:
        node, envelope = self._node, self._envelope
        handled = self._handled = Handled()
        handled.records.append(_said(Carried(self._stage, False, self._by), self._why, envelope))
        cause = Rejection("resolved", f"cancelled by {self._by}: {self._why}", {"by": self._by, "why": self._why})
        node.dispatch.sagas.call_off(self.streams[0], cause, envelope, node.memory, handled)
        if len(handled.records) == 1:
            self.done.set_result(False)
            return None
        return Batch(tuple(handled.records), tuple(handled.reads), (), tuple(handled.rows))

    def landed(self, position: int) -> None:
        self._node.waiting.settled(self._handled, position)
        self.done.set_result(True)

    def taken_back(self) -> None:
        self._handled = None

    def duplicate(self, found: Duplicate) -> None:
        self.failed(RuntimeError("a decision has no fresh rows"))

    def failed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
