"""Doubt: a participant finds out how a staged transaction ended while its coordinator cannot be reached.

The coordinator sends its decision by exchange as soon as it can be reached. Until then, a participant with locks asks
the other peers, because one of them may have received the decision. If no peer knows the decision, the locks stay (the
transaction is not cancelled) until an operator resolves it (`runtime.ops.resolve`). `runtime.decide.stages` comes
before it. Fails with `Contradicted`, `Unavailable` and `StoreError`.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from holdfast.core.declare.message import encode
from holdfast.core.declare.service import Service
from holdfast.core.log.batch import Batch
from holdfast.core.saga.stage import CANCEL, CONFIRM, DONE, Carried, Hold, StageAttempt, Standing, stage_of
from holdfast.errors import Contradicted, ExchangeError, HoldfastError, Unavailable
from holdfast.ports.store import Store
from holdfast.ports.transport import Transport
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.inbox.receive import Inbox
from holdfast.runtime.inbox.stage_end import end_stage
from holdfast.runtime.inbox.waiting import Removed
from holdfast.runtime.log.work import AwaitedWork
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.tasks import Periodic

logger = logging.getLogger("holdfast.resolving")

ASK_SECONDS = 5.0
DOUBT_SECONDS = 15.0
"""How long a lock must be held before the peers are asked, while the coordinator cannot be reached."""
RESOLVED = "holdfast.repair.resolved"
RELATED_MAX = 10_000


class Doubts:
    """The staged transactions that lock streams of this service and whose decision is not known here."""

    def __init__(
        self,
        service: Service,
        inbox: Inbox,
        writer: Writer,
        store: Store,
        transport: Transport,
        peers: frozenset[str],
        *,
        away: Callable[[str], bool],
    ) -> None:
        self.service, self.inbox, self.writer = service, inbox, writer
        self._store, self._transport, self._peers = store, transport, peers
        self._away = away
        """Whether a service cannot be reached."""
        stages = inbox.dispatch.stages
        self._asking = Periodic(ASK_SECONDS, lambda: bool(stages.held), self._ask, service=service.name)

    def start(self) -> None:
        """Begin to ask at regular times."""
        self._asking.start()

    async def stop(self) -> None:
        """Stop asking."""
        await self._asking.stop()

    async def standing(self, tx: str) -> Standing:
        """What this service knows of a transaction: its locks, and the decisions that it was told or has made."""
        service, dispatch = self.service, self.inbox.dispatch
        held = tuple(dict.fromkeys(hold.stage for hold in dispatch.stages.of_tx(tx)))
        records = await self._store.related(tx=tx, limit=RELATED_MAX)
        decided: dict[str, Carried] = {}
        undecided: list[str] = []
        streams: dict[str, None] = {}
        for record in records:
            if record.type in (DONE, RESOLVED) and record.kind in ("answer", "repair"):
                found = msgspec.json.decode(record.data, type=Carried)
                decided.setdefault(found.stage, found)
            elif record.kind == "command" and record.type in (CONFIRM, CANCEL):
                attempt = msgspec.json.decode(record.data, type=StageAttempt).attempt
                stage = stage_of(service.name, record.stream, attempt)
                decided[stage] = Carried(stage, record.type == CONFIRM)
            elif (saga := service.sagas.get(record.stream.partition("/")[0])) and saga.staged:
                streams[record.stream] = None
        loaded = await self._store.load(list(streams)) if streams else []
        for stream, found in zip(streams, loaded, strict=True):
            state, _ = dispatch.folder_of(stream).fold(stream, found)
            if state is not None and not state.ended and (state.status == "running" or state.again):
                undecided.append(stage_of(service.name, stream, state.attempt))
        position = records[-1].position if records else 0
        return Standing(service.name, position, held, tuple(decided.values()), tuple(undecided))

    async def ask(self, peer: str, tx: str) -> Standing:
        """Ask a peer what it knows of a transaction. Raises ExchangeError, Unavailable."""
        return await self._transport.standing(peer, tx)

    async def ask_peers(self, hold: Hold) -> Carried | None:
        """The decision that a peer other than the coordinator knows; `by` names the peer. None if no peer knows it, or
        if two peers contradict each other."""
        found: dict[bool, Carried] = {}
        for peer in sorted(self._peers - {coordinator_of(hold.stage)}):
            try:
                told = await self.ask(peer, hold.tx)
            except (ExchangeError, Unavailable):
                continue
            for one in told.decided:
                if one.stage == hold.stage:
                    found[one.commit] = Carried(one.stage, one.commit, peer)
        if len(found) > 1:
            logger.error(
                "%s has learned that the staged transaction %s is mixed: some peers committed it, others cancelled it",
                self.service.name,
                hold.tx,
                extra={
                    "service": self.service.name,
                    "stage": hold.stage,
                    "correlation_id": hold.correlation or hold.tx,
                },
            )
        return next(iter(found.values())) if len(found) == 1 else None

    async def carry_out(self, told: Carried, *, why: str = "", signed: bool = False) -> bool:
        """Carry out a decision that did not come from the coordinator. `signed`: an operator (`told.by`) forces the
        decision, and this is recorded. False if the transaction has no lock here any more. Raises Contradicted for a
        commit if a command of the transaction has no vote yet, and Unavailable."""
        work = _EndWork(self, told, why, signed)
        self.writer.submit(work)
        return await asyncio.shield(work.done)

    async def _ask(self) -> None:
        inbox = self.inbox
        longest = inbox.clock.now_us() - round(DOUBT_SECONDS * 1e6)
        doubtful = {hold.stage: hold for _, hold in inbox.dispatch.stages.items() if hold.since < longest}
        try:
            for stage, hold in doubtful.items():
                if not self._away(coordinator_of(stage)):
                    continue
                known = await self.ask_peers(hold)
                if known is not None:
                    await self.carry_out(known)
        except HoldfastError as error:
            logger.warning(
                "%s could not ask its peers how its staged transactions ended; it asks again: %s",
                self.service.name,
                error,
                extra={"service": self.service.name},
            )


def coordinator_of(stage: str) -> str:
    """The service that decides about a stage."""
    return stage.partition(":")[0]


def note_resolved(told: Carried, why: str, decision: Decision) -> None:
    """Record that an operator ended a staged transaction."""
    decision.note("repair", RESOLVED, encode(msgspec.to_builtins(told) | {"why": why}))


class _EndWork(AwaitedWork[bool]):
    """The end of a staged transaction that did not come by exchange, on its way through the writer."""

    __slots__ = ("_decision", "_doubts", "_removed", "_signed", "_told", "_why", "streams")

    def __init__(self, doubts: Doubts, told: Carried, why: str, signed: bool) -> None:
        super().__init__()
        self._doubts, self._told, self._why, self._signed = doubts, told, why, signed
        self.streams = doubts.inbox.dispatch.stages.streams_of(told.stage)
        self._decision: Decision | None = None
        self._removed: list[Removed] = []

    def handle(self) -> Batch | None:
        told, inbox = self._told, self._doubts.inbox
        stages = inbox.dispatch.stages
        streams = stages.streams_of(told.stage)
        if not streams or not set(streams) <= set(self.streams):
            self.finish(False)
            return None
        if told.commit and inbox.waiting.awaits(told.stage):
            raise Contradicted(
                f"{told.stage} cannot be committed: {self._doubts.service.name} has not voted on all its commands"
            )
        hold = stages.held[streams[0]][told.stage].hold
        envelope = Envelope(hold.parts[0].cause, hold.tx, inbox.clock.now_us(), hold.correlation)
        decision = Decision(envelope, inbox.streams)
        self._removed = end_stage(stages, inbox.waiting, told.stage, told.commit, decision, by=told.by)
        self._decision = decision
        stages.remember(told, decision)
        if self._signed:
            note_resolved(told, self._why, decision)
        return decision.batch()

    def landed(self, position: int) -> None:
        unlocked = self._decision.unlocked if self._decision is not None else ()
        self._doubts.inbox.retrier.released([*unlocked, *(slot.stream for slot, _ in self._removed)])
        self.finish(True)

    def taken_back(self) -> None:
        if self._decision is not None:
            self._doubts.inbox.dispatch.stages.take_back(self._decision)
            self._decision = None
        self._doubts.inbox.retrier.restored(self._removed)
        self._removed = []
