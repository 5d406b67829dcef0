"""The edge: commands from callers outside, their idempotency keys and their answers.

A command that comes in here begins a transaction. Its caller waits for the flush, or for the end of the saga it began,
for a bounded time; after that the outcome is unknown to the caller (`Pending`), never lost. The same key gets the
recorded answer for as long as the log lives (G3). Comes before the writer; fails with `CommandError`s only.
"""

import asyncio
import bisect
from collections import OrderedDict
from typing import Any

import msgspec

from holdfast.core.batch import Batch, Duplicate, Row
from holdfast.core.effect import EffectType
from holdfast.core.key import label
from holdfast.core.message import Command, MessageType, Rejection, decode_stored, encode, message_of
from holdfast.core.record import REJECTED, Record
from holdfast.core.saga import SagaType
from holdfast.errors import Busy, CommandError, CommandFailed, KeyReused, NotFound, Pending, StoreError, Unavailable
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.stages import StreamHeld
from holdfast.runtime.execute.handlers import Transactions
from holdfast.runtime.inbox.waiting import Waiting
from holdfast.runtime.log.streams import Memory
from holdfast.runtime.log.writer import Writer

KEYS_IN_MEMORY_MAX = 10_000
WAIT_SECONDS = 30.0
PARKED_MAX = 1_000
"""Commands from the edge that may wait for one stream."""
SAGAS_OPEN_MAX = 100_000
"""Sagas that may be on their way in one service; past it the edge is told to come back later."""


class Outcome(msgspec.Struct, frozen=True):
    """The final answer to a command from the edge."""

    tx: str
    answer: Any
    """An event, or a Rejection."""
    position: int
    """Of the answer's record in the service's log; 0 where a saga's end is not looked up."""


class Request(msgspec.Struct):
    """An idempotency key as it is stored: what was asked with it."""

    tx: str
    type: str
    data: msgspec.Raw


class Edge:
    """The commands of one service that come from outside."""

    def __init__(
        self, dispatch: Dispatch, memory: Memory, writer: Writer, waiting: Waiting, store: Store, clock: Clock
    ) -> None:
        self.dispatch, self.memory, self.writer = dispatch, memory, writer
        self.waiting, self.store, self.clock = waiting, store, clock
        self.transactions: Transactions | None = None
        """Where commands that have a handler run."""
        self._parked: dict[str, list[_CommandWork]] = {}
        """Commands that wait for their turn on a stream, in the order they came."""
        self._sequence = 0
        self.sagas_open_max = SAGAS_OPEN_MAX
        self._awaiting: dict[str, list[asyncio.Future[Outcome]]] = {}
        self._keys: OrderedDict[str, tuple[str, str, bytes]] = OrderedDict()

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
        Pending when a saga has not ended within `wait_seconds`. A business no is returned, as a Rejection."""
        message = message_of(command)
        if (
            self.dispatch.service.deciders.get(message.name) is None
            or message.home is not self.dispatch.service.contract
        ):
            raise NotFound(f"{self.dispatch.service.name} decides no command {message.stored}")
        key, correlation = label(key, "key"), label(correlation, "correlation")
        if key and (known := self._keys.get(key)):
            return await self._again(key, known, message, encode(command), wait_seconds)
        by = self.dispatch.service.deciders[message.name]
        waits = isinstance(by, SagaType | EffectType)
        if isinstance(by, SagaType) and self.dispatch.sagas.open >= self.sagas_open_max:
            raise Busy(f"{self.dispatch.sagas.open} sagas are on their way", retry_after_seconds=1.0)
        tx = self.clock.unique()
        envelope = Envelope(tx, tx, self.clock.now_us(), correlation, debug=debug, traceparent=traceparent, edge=True)
        work = _CommandWork(self, command, message, envelope, key)
        if key:
            self._remember(key, (tx, message.stored, encode(command)))
        ending = self.outcome_of(tx) if waits else None
        try:
            self.writer.submit(work, edge=True)
            first = await work.future
        except CommandError as error:
            self._keys.pop(key, None)
            self.fail(tx, error)
            raise
        if isinstance(first, Duplicate):
            found = msgspec.json.decode(first.data, type=Request)
            known = (found.tx, found.type, bytes(found.data))
            self._awaiting.pop(tx, None)
            self._remember(key, known)
            return await self._again(key, known, message, encode(command), wait_seconds)
        if first.answer is not None or ending is None:
            self._awaiting.pop(tx, None)
            return first
        return await self._wait(tx, ending, wait_seconds)

    def outcome_of(self, tx: str) -> "asyncio.Future[Outcome]":
        """A future of a transaction's outcome, for when a saga lands it."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._awaiting.setdefault(tx, []).append(future)
        return future

    def settle(self, tx: str, answer: Any, position: int) -> None:
        """A transaction begun at the edge has its answer: all who wait for it get it."""
        for future in self._awaiting.pop(tx, ()):
            if not future.done():
                future.set_result(Outcome(tx, answer, position))

    def fail(self, tx: str, error: CommandError) -> None:
        """A command from the edge came to nothing: all who wait for it are told."""
        for future in self._awaiting.pop(tx, ()):
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen: its waiter may have gone

    async def status(self, tx: str) -> Outcome | None:
        """The outcome of a transaction begun here; None when it has none yet. Raises NotFound."""
        records = await self.store.related(tx=tx)
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

    def park(self, stream: str, work: "_CommandWork") -> None:
        """Let a command wait for its turn on a stream. Raises Busy when too many do."""
        parked = self._parked.setdefault(stream, [])
        if len(parked) >= PARKED_MAX:
            raise Busy(f"{PARKED_MAX} commands wait for {stream}", retry_after_seconds=1.0)
        self._sequence += not work.number
        work.number, work.turn = work.number or self._sequence, False
        bisect.insort(parked, work, key=lambda one: one.number)

    def parked(self, stream: str, before: int = 0) -> bool:
        """True while commands wait for the stream (that came before one of that number): later ones wait behind."""
        parked = self._parked.get(stream)
        return bool(parked) and (not before or parked[0].number < before)

    def freed(self, stream: str, before: int) -> None:
        """It is the turn of what came before a time (0: of all) on a stream: it is tried, in order."""
        parked = self._parked.get(stream, [])
        mine = [work for work in parked if not before or work.at < before]
        if len(mine) == len(parked):
            self._parked.pop(stream, None)
        else:
            self._parked[stream] = parked[len(mine) :]
        for work in mine:
            work.turn = True
            self.writer.submit(work)

    def waiters(self) -> "list[tuple[str, str, str, int]]":
        """(stream, transaction, command's type, since when) of the commands that wait for their turn."""
        return [(stream, work.tx, work.stored, work.at) for stream, works in self._parked.items() for work in works]

    def crashed(self, error: Unavailable) -> None:
        """The store could not commit, or the service stops: what keys in memory say may not be in the log."""
        self._keys.clear()
        parked, self._parked = self._parked, {}
        for work in (work for works in parked.values() for work in works):
            work.failed(error)

    async def _again(
        self, key: str, known: tuple[str, str, bytes], message: MessageType, data: bytes, wait_seconds: float
    ) -> Outcome:
        tx, stored, content = known
        if stored not in message.stored_all:
            raise KeyReused(key, "type")
        if stored != message.stored:  # asked for before a new version of the command came
            content = encode(decode_stored(message.home, stored, content))
        if content != data:
            raise KeyReused(key, _first_difference(content, data))
        ending = self.outcome_of(tx)
        try:
            found = await self.status(tx)
        except NotFound:
            found = None
        except StoreError as error:
            raise Unavailable(str(error)) from None
        return found if found is not None else await self._wait(tx, ending, wait_seconds)

    async def _wait(self, tx: str, future: "asyncio.Future[Outcome]", seconds: float) -> Outcome:
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise Pending(tx) from None
        finally:
            if not future.done():
                future.cancel()

    def _remember(self, key: str, known: tuple[str, str, bytes]) -> None:
        self._keys[key] = known
        if len(self._keys) > KEYS_IN_MEMORY_MAX:
            self._keys.popitem(last=False)


class _CommandWork:
    """One command from the edge on its way through the writer."""

    __slots__ = (
        "_command", "_edge", "_envelope", "_handled", "_message", "future", "key", "lane", "number", "streams", "turn",
    )  # fmt: skip

    def __init__(self, edge: Edge, command: Any, message: MessageType, envelope: Envelope, key: str) -> None:
        self._edge, self._command, self._message, self._envelope, self.key = edge, command, message, envelope, key
        self.future: asyncio.Future[Outcome | Duplicate] = asyncio.get_running_loop().create_future()
        self.lane = ""
        stream = edge.dispatch.target(message, command, envelope)
        if isinstance(edge.dispatch.service.deciders[message.name], SagaType):
            edge.memory.fresh(stream)
        self.streams = (stream,)
        self.number = 0
        """Its place among those that wait."""
        self.turn = False
        """It has waited, and now nobody is before it."""
        self._handled: Handled | None = None

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
        if edge.waiting.failing(stream):
            how = "a message parked" if edge.waiting.parked_at(stream) else "messages waiting"
            raise Busy(f"{stream} has {how}; nothing passes what is before it", retry_after_seconds=5.0)
        if stream.partition("/")[0] in edge.dispatch.service.effects:
            if edge.waiting.full(stream):
                raise Busy(f"too many messages wait on {stream}", retry_after_seconds=1.0)
            return self.batch(edge.dispatch.command(self._command, stream, self._envelope, edge.memory))
        if (not self.turn and edge.waiting.holds(stream)) or edge.parked(stream, before=self.number):
            edge.park(stream, self)
            return None
        if edge.transactions is not None and edge.dispatch.handler_of(self._message):
            edge.transactions.take(stream, self, edge=True)
            return None
        try:
            return self.batch(edge.dispatch.command(self._command, stream, self._envelope, edge.memory))
        except StreamHeld:
            edge.park(stream, self)
            return None

    def begin(self) -> tuple[Any, Envelope]:
        return self._command, self._envelope

    def batch(self, handled: Handled) -> Batch:
        self._handled = handled
        if self.key:
            request = {"tx": self._envelope.tx, "type": self._message.stored, "data": self._command}
            handled.rows.append(Row("request", self.key, encode(request), fresh=True))
        return Batch(tuple(handled.records), tuple(handled.reads), (), tuple(handled.rows))

    def landed(self, position: int) -> None:
        handled, envelope = self._handled, self._envelope
        if handled is None:
            return
        self._edge.dispatch.sagas.landed(handled)
        for tx, answer, number in handled.settled:
            handled.answer = answer
            self._edge.settle(tx, answer, position + number)
        at = next((n for n, record in enumerate(handled.records) if record.headers.outcome), 0)
        if handled.answer is not None:
            self._edge.settle(envelope.tx, handled.answer, position + at)
        if not self.future.done():
            self.future.set_result(Outcome(envelope.tx, handled.answer, position + at))

    def duplicate(self, found: Duplicate) -> None:
        if not self.future.done():
            self.future.set_result(found)

    def taken_back(self) -> None:
        self._handled = None

    def failed(self, error: Exception) -> None:
        if not isinstance(error, CommandError):
            found = CommandFailed(f"{self._message.name} failed: {type(error).__name__}; nothing was recorded")
            found.__cause__ = error
            error = found
        self._edge.fail(self._envelope.tx, error)
        if not self.future.done():
            self.future.set_exception(error)


def _first_difference(before: bytes, after: bytes) -> str:
    old, new = msgspec.json.decode(before), msgspec.json.decode(after)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return name
    return "content"
