"""The edge: commands from callers outside, their idempotency keys and their answers.

A command that comes in here begins a transaction. Its caller waits for the flush, or for the end of the saga it began,
for a bounded time; after that the outcome is unknown to the caller (`Pending`), never lost. The same key gets the
recorded answer for as long as the log lives (G3). Comes before the writer; fails with `CommandError`s only.
"""

import asyncio
from collections import OrderedDict
from typing import Any

import msgspec

from holdfast.core.declare.effect import EffectType
from holdfast.core.declare.handler import HandlerType
from holdfast.core.declare.message import Command, MessageType, Rejection, decode_stored, encode, message_of
from holdfast.core.declare.saga import SagaType
from holdfast.core.log.batch import Batch, Duplicate, Row
from holdfast.core.log.key import label
from holdfast.core.log.record import REJECTED, Record
from holdfast.errors import Busy, CommandError, CommandFailed, KeyReused, NotFound, Pending, StoreError, Unavailable
from holdfast.ports.store import Store
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.decide.locks import StreamLocked
from holdfast.runtime.decide.outcomes import Outcome
from holdfast.runtime.execute.handlers import Handlers
from holdfast.runtime.inbox.receive import Inbox
from holdfast.runtime.log.writer import Writer

KEYS_IN_MEMORY_MAX = 10_000
WAIT_SECONDS = 30.0
SAGAS_OPEN_MAX = 100_000
"""How many sagas may be open in one service; beyond this limit, commands that begin sagas are refused."""


class KeyedRequest(msgspec.Struct, frozen=True):
    """An idempotency key as it is stored: what was asked with it."""

    tx: str
    type: str
    data: msgspec.Raw


class Keys:
    """The idempotency keys used last, in memory, so that one that is repeated at once is not lost between its command
    and the flush. Those that have left memory are found in the store, by the writer's batch."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, KeyedRequest] = OrderedDict()

    def get(self, key: str) -> KeyedRequest | None:
        """The request that used a key."""
        return self._known.get(key)

    def put(self, key: str, request: KeyedRequest) -> None:
        """Remember the request that uses a key."""
        self._known[key] = request
        if len(self._known) > KEYS_IN_MEMORY_MAX:
            self._known.popitem(last=False)

    def discard(self, key: str) -> None:
        """Forget a key, since its command failed."""
        self._known.pop(key, None)

    def clear(self) -> None:
        """Forget all keys, since they may not be in the log."""
        self._known.clear()


class Edge:
    """The commands of one service that come from outside."""

    def __init__(self, inbox: Inbox, writer: Writer, handlers: Handlers, store: Store) -> None:
        self.dispatch, self.streams, self.outcomes = inbox.dispatch, inbox.streams, inbox.outcomes
        self.waiting, self.turns = inbox.waiting, inbox.turns
        self.writer, self.handlers = writer, handlers
        self._store, self._clock = store, inbox.clock
        self._keys = Keys()
        self.sagas_open_max = SAGAS_OPEN_MAX

    async def run(
        self,
        command: Command[Any],
        *,
        key: str = "",
        correlation: str = "",
        debug: bool = False,
        traceparent: str = "",
        wait_seconds: float = WAIT_SECONDS,
    ) -> Outcome:
        """Run a command to its answer. Raises Busy, Unavailable, CommandFailed, KeyReused, NotFound, Invalid, or
        Pending when a saga has not ended within `wait_seconds`. A business rejection is returned as a Rejection."""
        message = message_of(command)
        decider = self.dispatch.service.deciders.get(message.name)
        if decider is None or message.home is not self.dispatch.service.contract:
            raise NotFound(f"{self.dispatch.service.name} decides no command {message.stored}")
        key, correlation = label(key, "key"), label(correlation, "correlation")
        if key and (known := self._keys.get(key)):
            return await self._again(key, known, message, encode(command), wait_seconds)
        if isinstance(decider, SagaType) and self.dispatch.sagas.open >= self.sagas_open_max:
            raise Busy(
                f"{self.dispatch.service.name} has {self.dispatch.sagas.open} open sagas, its limit; try later",
                retry_after_seconds=1.0,
            )
        tx = self._clock.unique()
        envelope = Envelope(tx, tx, self._clock.now_us(), correlation, debug=debug, traceparent=traceparent, edge=True)
        work = _CommandWork(self, command, message, decider, envelope, key)
        if key:
            self._keys.put(key, KeyedRequest(tx, message.stored, msgspec.Raw(encode(command))))
        ending = self.outcomes.of(tx) if isinstance(decider, SagaType | EffectType) else None
        try:
            self.writer.submit(work, edge=True)
            first = await work.future
        except CommandError as error:
            self._keys.discard(key)
            self.outcomes.fail(tx, error)
            known = await self._stored(key) if key and isinstance(error, Busy) else None
            if known is None:
                raise
            return await self._again(key, known, message, encode(command), wait_seconds)
        if isinstance(first, Duplicate):
            known = msgspec.json.decode(first.data, type=KeyedRequest)
            self.outcomes.forget(tx)
            self._keys.put(key, known)
            return await self._again(key, known, message, encode(command), wait_seconds)
        if first.answer is not None or ending is None:
            self.outcomes.forget(tx)
            return first
        return await _wait(tx, ending, wait_seconds)

    async def _stored(self, key: str) -> KeyedRequest | None:
        """What was asked with a key, as the store knows it: a command that was answered once is answered again, though
        its stream takes nothing now."""
        try:
            (row,) = await self._store.get("request", [key])
        except StoreError:
            return None
        return None if row is None else msgspec.json.decode(row, type=KeyedRequest)

    async def status(self, tx: str) -> Outcome | None:
        """The outcome of a transaction begun here; None when it has none yet. Raises NotFound."""
        records = await self._store.related(tx=tx)
        for record in records:
            if record.headers.outcome:
                return Outcome(tx, self.decode(record), record.position)
        if not records:
            raise NotFound(f"{self.dispatch.service.name} knows no transaction {tx}")
        return None

    def decode(self, record: Record) -> Any:
        """The answer in a record: an event or a Rejection."""
        if record.type == REJECTED:
            return msgspec.json.decode(record.data, type=Rejection)
        return decode_stored(self.dispatch.service.contract, record.type, record.data)

    def crashed(self, error: Unavailable) -> None:
        """Forget all keys and fail all waiting commands, since the store failed or the service stops."""
        self._keys.clear()
        self.turns.fail(error)

    async def _again(
        self, key: str, known: KeyedRequest, message: MessageType, data: bytes, wait_seconds: float
    ) -> Outcome:
        """The outcome of a command whose key was used before. Raises KeyReused if it was another one."""
        content = bytes(known.data)
        if known.type not in message.stored_all:
            raise KeyReused(key, "type")
        if known.type != message.stored:  # asked for before a new version of the command came
            content = encode(decode_stored(message.home, known.type, content))
        if content != data:
            raise KeyReused(key, _first_difference(content, data))
        ending = self.outcomes.of(known.tx)
        try:
            found = await self.status(known.tx)
        except NotFound:
            found = None
        except StoreError as error:
            raise Unavailable(str(error)) from None
        return found if found is not None else await _wait(known.tx, ending, wait_seconds)


async def _wait(tx: str, future: "asyncio.Future[Outcome]", seconds: float) -> Outcome:
    try:
        async with asyncio.timeout(seconds):
            return await future
    except TimeoutError:
        raise Pending(tx) from None
    finally:
        if not future.done():
            future.cancel()


class _CommandWork:
    """One command from the edge on its way through the writer."""

    __slots__ = (
        "_command",
        "_decider",
        "_decision",
        "_edge",
        "_envelope",
        "_message",
        "future",
        "key",
        "number",
        "streams",
        "turn",
    )
    lane = ""

    def __init__(
        self, edge: Edge, command: Any, message: MessageType, decider: Any, envelope: Envelope, key: str
    ) -> None:
        self._edge, self._command, self._message, self._decider = edge, command, message, decider
        self._envelope = envelope
        self.key = key
        self.future: asyncio.Future[Outcome | Duplicate] = asyncio.get_running_loop().create_future()
        if isinstance(decider, SagaType):
            stream = f"{decider.name}/{envelope.id}"
            edge.streams.fresh(stream)
        else:
            stream = f"{decider.name}/{message.key_of(command)}"
        self.streams = (stream,)
        self.number = 0
        self.turn = False
        self._decision: Decision | None = None

    @property
    def at(self) -> int:
        """When it came, µs since 1970-01-01 UTC."""
        return self._envelope.at

    @property
    def tx(self) -> str:
        """The transaction that it begins."""
        return self._envelope.tx

    @property
    def stored(self) -> str:
        """The stored type of its command."""
        return self._message.stored

    def handle(self) -> Batch | None:
        edge, (stream,) = self._edge, self.streams
        waiting, turns = edge.waiting, edge.turns
        if waiting.failing(stream):
            how = "a message parked" if waiting.parked(stream) else "messages waiting"
            raise Busy(f"{stream} has {how}; nothing passes what is before it", retry_after_seconds=5.0)
        if isinstance(self._decider, EffectType):
            if waiting.full(stream):
                raise Busy(f"too many messages wait on {stream}", retry_after_seconds=1.0)
            return self._decide(stream)
        if (not self.turn and waiting.holds(stream)) or turns.queued(stream, before=self.number):
            turns.queue(stream, self)
            return None
        if isinstance(self._decider, HandlerType):
            edge.handlers.take(stream, self, edge=True)
            return None
        try:
            return self._decide(stream)
        except StreamLocked:
            turns.queue(stream, self)
            return None

    def _decide(self, stream: str) -> Batch:
        decision = Decision(self._envelope, self._edge.streams)
        self._edge.dispatch.command(self._command, stream, decision)
        return self.batch(decision)

    def begin(self) -> tuple[Any, Envelope]:
        return self._command, self._envelope

    def batch(self, decision: Decision) -> Batch:
        self._decision = decision
        if self.key:
            request = {"tx": self._envelope.tx, "type": self._message.stored, "data": self._command}
            decision.rows.append(Row("request", self.key, encode(request), fresh=True))
        return decision.batch()

    def landed(self, position: int) -> None:
        decision, tx = self._decision, self._envelope.tx
        if decision is None:
            return
        outcomes = self._edge.outcomes
        outcomes.landed(decision, position)
        if decision.outcomes:  # a saga that it began has ended in the same batch
            decision.answer = decision.outcomes[-1][1]
        at = next((n for n, record in enumerate(decision.records) if record.headers.outcome), 0)
        outcome = Outcome(tx, decision.answer, position + at)
        if decision.answer is not None:
            outcomes.tell(outcome)
        if not self.future.done():
            self.future.set_result(outcome)

    def duplicate(self, found: Duplicate) -> None:
        if not self.future.done():
            self.future.set_result(found)

    def taken_back(self) -> None:
        self._decision = None

    def failed(self, error: Exception) -> None:
        if not isinstance(error, CommandError):
            found = CommandFailed(f"{self._message.name} failed: {type(error).__name__}; nothing was recorded")
            found.__cause__ = error
            error = found
        self._edge.outcomes.fail(self._envelope.tx, error)
        if not self.future.done():
            self.future.set_exception(error)


def _first_difference(before: bytes, after: bytes) -> str:
    old, new = msgspec.json.decode(before), msgspec.json.decode(after)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return name
    return "content"
