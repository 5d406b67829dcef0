"""Transactions: handlers at work, each in a transaction of the store.

A command whose handler is an `async def` leaves the writer's turn here, waits for the others of its stream, and runs in
a transaction that the store lends. What it decided comes back to the writer as a batch that is committed within that
transaction. Where transactions are shared (SQLite) several handlers run one after another in one of them, for one
flush, and no other group is committed meanwhile; else each has its own, LANES at a time. A handler that raises, runs
over its time, or leaves a transaction that cannot be committed is its job's failure; a store that fails is
`Unavailable`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Protocol

from holdfast.core.batch import Batch, Committed, Conflict, Duplicate
from holdfast.core.handler import HandlerType, Transaction
from holdfast.core.message import Context, message_of
from holdfast.errors import (
    Busy,
    CommandFailed,
    ConfigInvalid,
    Rejected,
    StoreError,
    TransactionLost,
    TransactionRefused,
    Unavailable,
)
from holdfast.ports.store import Lent, Store
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.ending import end
from holdfast.runtime.log.streams import Memory
from holdfast.runtime.log.writer import Work, Writer

logger = logging.getLogger("holdfast.transactions")

LANES = 8
"""Transactions at a time, where each handler has its own."""
SHARED_MAX = 32
"""Handlers in one shared transaction."""
SHARED_SECONDS = 0.05
"""After this long no further handler joins a shared transaction: others wait for its flush."""
WAITING_MAX = 1_000
"""Commands from the edge that may wait for a transaction; past it they are told to come back later."""
TRIES_MAX = 5


class Job(Work, Protocol):
    """A work whose command has a handler."""

    @property
    def key(self) -> str:
        """Its idempotency key; empty for none."""
        ...

    def begin(self) -> tuple[Any, Envelope] | None:
        """The command and its envelope, None where there is nothing to do any more. Raises what decoding raises."""
        ...

    def batch(self, handled: Handled) -> Batch:
        """What is to be committed when its handler has decided that."""
        ...

    def failed(self, error: Exception) -> None:
        """Nothing was written: the store could not, or the handler raised (then `error` is not a StoreError)."""
        ...


class Transactions:
    """The handlers of one service."""

    def __init__(self, dispatch: Dispatch, memory: Memory, writer: Writer, store: Store) -> None:
        self._dispatch, self._memory, self._writer, self._store = dispatch, memory, writer, store
        self._shared = store.capabilities.transactions == "shared"
        self._engine = store.capabilities.engine
        self._queues: dict[str, deque[_Place]] = {}
        """Jobs by stream; the first runs, or may."""
        self._ready: deque[str] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self.waiting = 0

    def start(self) -> None:
        """Raises ConfigInvalid where the service has handlers and the store lends no transactions."""
        handlers = self._dispatch.service.handlers
        if handlers and not self._store.capabilities.transactions:
            raise ConfigInvalid(
                f"{self._dispatch.service.name}: {next(iter(handlers))} works in a transaction, and this store has none"
                " to lend; give it a sqlite:, postgresql: or mysql: store"
            )

    async def close(self, *, drain: bool = True) -> None:
        """Let what runs and waits end, unless `drain` is False."""
        while drain and self._lanes:
            await asyncio.wait(self._lanes)
        await end(self._lanes)
        left = [place for queue in self._queues.values() for place in queue if not place.decided]
        self._fail(left, Unavailable("the service is stopping"))

    def take(self, stream: str, job: Job, *, edge: bool = False) -> None:
        """Run a job after those of its stream that are here. From the edge: Busy when too many wait."""
        if edge and self.waiting >= WAITING_MAX:
            raise Busy(f"{self.waiting} commands wait for a transaction already", retry_after_seconds=1.0)
        self.waiting += 1
        queue = self._queues.setdefault(stream, deque())
        queue.append(_Place(stream, job, self._writer.crashes))
        if len(queue) == 1:
            self._ready.append(stream)
            self._open_lane()

    def _open_lane(self) -> None:
        if self._ready and len(self._lanes) < (1 if self._shared else LANES):
            lane = asyncio.get_running_loop().create_task(self._run())
            self._lanes.add(lane)
            lane.add_done_callback(self._lane_ended)

    def _lane_ended(self, lane: "asyncio.Task[None]") -> None:
        self._lanes.discard(lane)
        if not lane.cancelled() and (error := lane.exception()) is not None:
            logger.error("a lane of transactions ended in a way nobody foresaw", exc_info=error)
        self._open_lane()

    async def _run(self) -> None:
        while self._ready:
            count = min(len(self._ready), SHARED_MAX if self._shared else 1)
            places = [self._queues[self._ready.popleft()][0]]
            while len(places) < count and not places[-1].alone:
                places.append(self._queues[self._ready.popleft()][0])
            try:
                async with self._writer.paused() if self._shared else nullcontext():
                    await self._transact(places)
            except asyncio.CancelledError:
                self._fail(places, Unavailable("the service is stopping"))
                raise
            except Unavailable as error:
                self._fail(places, error)
            except StoreError as error:
                self._fail(places, Unavailable(f"the store lends no transaction: {error}", retry_after_seconds=2.0))
            except Exception as error:
                logger.exception("a transaction failed in a way nobody foresaw")
                self._fail(places, CommandFailed(f"{type(error).__name__}: {error}"))

    async def _transact(self, places: "list[_Place]") -> None:
        """Run the handlers of some streams in one transaction, and see each to its end or its next try."""
        todo = [place for place in places if await self._may_run(place)]
        if not todo:
            return
        lent = await self._store.begin()
        done: list[tuple[_Place, Batch]] = []
        try:
            end = asyncio.get_running_loop().time() + SHARED_SECONDS
            for number, place in enumerate(todo):
                if done and asyncio.get_running_loop().time() > end:
                    self._again(todo[number:])
                    break
                if (batch := await self._handle(place, lent)) is not None:
                    done.append((place, batch))
            if done:
                await self._commit(done, lent)
        finally:
            await lent.end()

    async def _may_run(self, place: "_Place") -> bool:
        """False where the place is dealt with: asked before, or its stream is to be loaded first."""
        job = place.job
        if place.crashes != self._writer.crashes:
            self._fail([place], Unavailable("the store has failed meanwhile", retry_after_seconds=1.0))
            return False
        if job.key and not place.tries:
            # Asked before the handler runs: what it did the first time would be in its way.
            (known,) = await self._store.get("request", [job.key])
            if known is not None:
                self.leave(place)
                job.duplicate(Duplicate("request", job.key, known))
                return False
        if self._memory.get(place.stream) is None:
            self.leave(place)
            self._writer.submit(job)
            return False
        return True

    async def _handle(self, place: "_Place", lent: Lent) -> Batch | None:
        """Run one handler; what is to be committed with what it did, None where its job has ended otherwise."""
        try:
            begun, version = place.job.begin(), self._memory[place.stream].version
        except Exception as error:  # noqa: BLE001 - it does not decode, or its stream cannot be read
            self._fail([place], error)
            return None
        if begun is None:
            self.leave(place)
            return None
        command, envelope = begun
        handled = Handled()
        handled.reads.append((place.stream, version))
        await lent.mark()
        try:
            await self._decide(command, envelope, place.stream, version, lent, handled)
        except Rejected as no:
            await lent.undo()
            self._dispatch.reject_handled(no, place.stream, version, envelope, handled)
            place.decided = True
            self._writer.submit(_Decided(self, place, place.job.batch(handled)))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its job's failure
            await lent.undo()
            if lent.lost(error) and place.tries < TRIES_MAX:
                self._again([place])
            else:
                self._fail([place], error if not lent.lost(error) else Unavailable(f"the engine: {error}"))
        else:
            return place.job.batch(handled)
        return None

    async def _decide(
        self, command: Any, envelope: Envelope, stream: str, version: int, lent: Lent, handled: Handled
    ) -> None:
        by = self._dispatch.service.deciders[message_of(command).name]
        if not isinstance(by, HandlerType):
            raise CommandFailed(f"{by.name} is no handler")
        key, label = stream.partition("/")[2], envelope.correlation or envelope.tx
        tx = Transaction(lent.connection, Context(envelope.at, envelope.id, key, label, envelope.tx), self._engine)
        limit = asyncio.timeout(by.seconds)
        try:
            async with limit:
                found = await by.function(command, tx)
        except TimeoutError as error:
            if limit.expired():
                raise CommandFailed(f"{by.name} took longer than {by.seconds:g} s") from error
            raise
        finally:
            emitted = tx.end()
        answer = by.answer(found)
        self._dispatch.accept_handled((*emitted, answer), answer, stream, version, envelope, handled)

    async def _commit(self, done: "list[tuple[_Place, Batch]]", lent: Lent) -> None:
        group: list[tuple[Work, Batch]] = [(place.job, batch) for place, batch in done]
        places = [place for place, _ in done]
        try:
            outcomes = await self._writer.commit_within(lent, group, done[0][0].crashes, paused=self._shared)
        except TransactionRefused as error:
            if len(done) == 1:
                return self._fail(places, CommandFailed(str(error)))
            for place in places:  # one of them is to blame: each by itself
                place.alone = True
            return self._again(places)
        except TransactionLost as error:
            if max(place.tries for place in places) < TRIES_MAX:
                return self._again(places)
            raise Unavailable(str(error)) from error
        refused = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Committed)]
        for place, batch in done:
            if not refused:
                self._moved(place.stream, batch)
        again = [place for number, place in enumerate(places) if refused and number not in refused]
        for number, place in enumerate(places):
            outcome = outcomes[number]
            if isinstance(outcome, Conflict):
                self._memory.forget([place.stream])
                again.append(place)
            elif place not in again:
                self.leave(place)
                if isinstance(outcome, Duplicate):
                    place.job.duplicate(outcome)
                else:
                    place.job.landed(outcome.position)
        self._again(again)

    def _moved(self, stream: str, batch: Batch) -> None:
        """What memory says of a handler's stream is its version."""
        entry = self._memory.get(stream)
        if entry is not None and batch.records:
            entry.version = max(entry.version, *(record.version for record in batch.records))

    def _again(self, places: "Iterable[_Place]") -> None:
        """Run again, in another transaction."""
        for place in places:
            place.tries += 1
            if place.tries > TRIES_MAX:
                self._fail([place], Unavailable(f"{place.stream} was in the way of another {TRIES_MAX} times"))
            else:
                self._ready.append(place.stream)

    def decide_again(self, place: "_Place") -> None:
        """What its rejection rested on has moved."""
        place.decided = False
        self._again([place])
        self._open_lane()

    def leave(self, place: "_Place") -> None:
        """A job has ended, or is on its way elsewhere: the next one of its stream may run."""
        queue = self._queues.get(place.stream)
        if queue is None or place not in queue:
            return
        self.waiting -= 1
        queue.remove(place)
        if queue:
            self._ready.append(place.stream)
        else:
            del self._queues[place.stream]

    def _fail(self, places: "Iterable[_Place]", error: Exception) -> None:
        for place in places:
            if place in self._queues.get(place.stream, ()):
                self.leave(place)
                place.job.failed(error)


class _Place:
    """A job's place in the queue of its stream. Compared by identity."""

    __slots__ = ("alone", "crashes", "decided", "job", "stream", "tries")

    def __init__(self, stream: str, job: Job, crashes: int) -> None:
        self.stream, self.job, self.crashes = stream, job, crashes
        """`crashes`: of the writer when it came; past that what it rests on may not be what the log says."""
        self.tries = 0
        self.alone = False
        """No other handler works in its transaction."""
        self.decided = False
        """Its rejection is on its way through the writer."""


class _Decided:
    """A rejection on its way through the writer: what its handler did is rolled back, so it needs no transaction."""

    __slots__ = ("_batch", "_given", "_place", "_transactions", "lane", "streams")

    def __init__(self, transactions: Transactions, place: _Place, batch: Batch) -> None:
        self._transactions, self._place, self._batch, self._given = transactions, place, batch, False
        self.lane, self.streams = "", (place.stream,)

    def handle(self) -> Batch | None:
        """The batch; a second time means that its stream has moved, so that it is decided again."""
        if self._given:
            self._transactions.decide_again(self._place)
            return None
        self._given = True
        return self._batch

    def landed(self, position: int) -> None:
        self._transactions.leave(self._place)
        self._place.job.landed(position)

    def duplicate(self, found: Duplicate) -> None:
        self._transactions.leave(self._place)
        self._place.job.duplicate(found)

    def taken_back(self) -> None:
        self._place.job.taken_back()

    def failed(self, error: Exception) -> None:
        self._transactions.leave(self._place)
        self._place.job.failed(error)
