"""Handlers at work, each in a transaction of the store.

A command whose handler is an `async def` leaves the writer, waits here for earlier commands of its stream, and runs in
a transaction that the store lends. Its decision goes back to the writer as a batch that commits within this
transaction. If the store shares transactions (SQLite), several handlers run one after another in one transaction and
one flush, and no other group commits meanwhile. Otherwise each handler has its own transaction, and LANES of them run
at a time. Edge and retry come before it, the writer after it. A job fails if its handler raises, takes too long, or
leaves a transaction that cannot be committed; it fails with `Unavailable` if the store fails.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Protocol

from holdfast.core.declare.handler import HandlerType, LocalTransaction
from holdfast.core.declare.message import message_of
from holdfast.core.log.batch import Batch, Committed, Conflict, Duplicate
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
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.decide.dispatch import Dispatch, accept_done, reject_done
from holdfast.runtime.log.streams import Streams
from holdfast.runtime.log.work import Work, tell_duplicate
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.tasks import cancel_all

logger = logging.getLogger("holdfast.transactions")

LANES = 8
"""How many transactions run at a time if each handler has its own."""
SHARED_MAX = 32
"""How many handlers may run in one shared transaction."""
SHARED_SECONDS = 0.05
"""After this long no further handler joins a shared transaction: others wait for its flush."""
WAITING_MAX = 1_000
"""How many commands from the edge may wait for a transaction; further commands are refused with `Busy`."""
TRIES_MAX = 5


class Job(Work, Protocol):
    """A work whose command has a handler."""

    @property
    def key(self) -> str:
        """Its idempotency key; empty for none."""
        ...

    def begin(self) -> tuple[Any, Envelope] | None:
        """The command and its envelope; None if there is nothing to do any more. Raises the error of decoding."""
        ...

    def batch(self, decision: Decision) -> Batch:
        """The batch that commits a decision of its handler."""
        ...


class Handlers:
    """The handlers of one service."""

    def __init__(self, dispatch: Dispatch, streams: Streams, writer: Writer, store: Store) -> None:
        self._dispatch, self._streams, self._writer, self._store = dispatch, streams, writer, store
        self._shared = store.capabilities.transactions == "shared"
        self._engine = store.capabilities.engine
        self._queues: dict[str, deque[_Turn]] = {}
        """Jobs by stream; the first one runs or may run."""
        self._ready: deque[str] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self.waiting = 0

    def check(self) -> None:
        """Raise ConfigInvalid if the service has handlers but the store cannot lend transactions."""
        handlers = self._dispatch.service.handlers
        if handlers and not self._store.capabilities.transactions:
            raise ConfigInvalid(
                f"{self._dispatch.service.name}: {next(iter(handlers))} works in a transaction, and this store has none"
                " to lend; give it a sqlite:, postgresql: or mysql: store"
            )

    async def close(self, *, drain: bool = True) -> None:
        """Let all running and waiting jobs end, unless `drain` is False."""
        while drain and self._lanes:
            await asyncio.wait(self._lanes)
        await cancel_all(self._lanes, self._dispatch.service.name)
        left = [turn for queue in self._queues.values() for turn in queue if not turn.decided]
        self._fail(left, Unavailable("the service is stopping"))

    def take(self, stream: str, job: Job, *, edge: bool = False) -> None:
        """Run a job after the earlier jobs of its stream. Raises Busy for the edge if too many jobs wait."""
        if edge and self.waiting >= WAITING_MAX:
            raise Busy(f"{self.waiting} commands wait for a transaction already", retry_after_seconds=1.0)
        self.waiting += 1
        queue = self._queues.setdefault(stream, deque())
        queue.append(_Turn(stream, job, self._writer.crashes))
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
            logger.error(
                "unexpected error in a task that runs handlers of %s; another task takes its place",
                self._dispatch.service.name,
                extra={"service": self._dispatch.service.name},
                exc_info=error,
            )
        self._open_lane()

    async def _run(self) -> None:
        while self._ready:
            count = min(len(self._ready), SHARED_MAX if self._shared else 1)
            turns = [self._queues[self._ready.popleft()][0]]
            while len(turns) < count and not turns[-1].alone:
                turns.append(self._queues[self._ready.popleft()][0])
            try:
                async with self._writer.paused() if self._shared else nullcontext():
                    await self._transact(turns)
            except asyncio.CancelledError:
                self._fail(turns, Unavailable("the service is stopping"))
                raise
            except Unavailable as error:
                self._fail(turns, error)
            except StoreError as error:
                self._fail(turns, Unavailable(f"the store lends no transaction: {error}", retry_after_seconds=2.0))
            except Exception as error:
                streams = [turn.stream for turn in turns]
                logger.exception(
                    "unexpected error in a handlers' transaction of %s on the streams %s; their commands fail",
                    self._dispatch.service.name,
                    streams,
                    extra={"service": self._dispatch.service.name},
                )
                self._fail(turns, CommandFailed(f"{type(error).__name__}: {error}"))

    async def _transact(self, turns: "list[_Turn]") -> None:
        """Run the handlers of some streams in one transaction, and see each to its end or its next try."""
        todo = [turn for turn in turns if await self._may_run(turn)]
        if not todo:
            return
        lent = await self._store.begin()
        done: list[tuple[_Turn, Batch]] = []
        try:
            end = asyncio.get_running_loop().time() + SHARED_SECONDS
            for number, turn in enumerate(todo):
                if done and asyncio.get_running_loop().time() > end:
                    self._again(todo[number:])
                    break
                if (batch := await self._handle(turn, lent)) is not None:
                    done.append((turn, batch))
            if done:
                await self._commit(done, lent)
        finally:
            await lent.end()

    async def _may_run(self, turn: "_Turn") -> bool:
        """False if the turn must not run now: its key was used before, or its stream must be loaded first."""
        job = turn.job
        if turn.crashes != self._writer.crashes:
            self._fail([turn], Unavailable("the store has failed meanwhile", retry_after_seconds=1.0))
            return False
        if job.key and not turn.tries:
            # Asked before the handler runs: what it did the first time would be in its way.
            (known,) = await self._store.get("request", [job.key])
            if known is not None:
                self.leave(turn)
                tell_duplicate(job, Duplicate("request", job.key, known))
                return False
        if self._streams.get(turn.stream) is None:
            self.leave(turn)
            self._writer.submit(job)
            return False
        return True

    async def _handle(self, turn: "_Turn", lent: Lent) -> Batch | None:
        """Run one handler and return the batch to commit; None if its job has ended in another way."""
        try:
            begun, version = turn.job.begin(), self._streams[turn.stream].version
        except Exception as error:  # noqa: BLE001 - it does not decode, or its stream cannot be read
            self._fail([turn], error)
            return None
        if begun is None:
            self.leave(turn)
            return None
        command, envelope = begun
        decision = Decision(envelope, self._streams)
        decision.reads.append((turn.stream, version))
        await lent.mark()
        try:
            await self._decide(command, turn.stream, version, lent, decision)
        except Rejected as no:
            await lent.undo()
            reject_done(no, turn.stream, version, decision)
            turn.decided = True
            self._writer.submit(_RejectionWork(self, turn, turn.job.batch(decision)))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its job's failure
            await lent.undo()
            if lent.lost(error) and turn.tries < TRIES_MAX:
                self._again([turn])
            else:
                self._fail([turn], error if not lent.lost(error) else Unavailable(f"the engine: {error}"))
        else:
            return turn.job.batch(decision)
        return None

    async def _decide(self, command: Any, stream: str, version: int, lent: Lent, decision: Decision) -> None:
        by = self._dispatch.service.deciders[message_of(command).name]
        if not isinstance(by, HandlerType):
            raise CommandFailed(f"{by.name} is no handler")
        context = decision.envelope.context(stream.partition("/")[2])
        tx = LocalTransaction(lent.connection, context, self._engine)
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
        accept_done((*emitted, answer), answer, stream, version, decision)

    async def _commit(self, done: "list[tuple[_Turn, Batch]]", lent: Lent) -> None:
        group: list[tuple[Work, Batch]] = [(turn.job, batch) for turn, batch in done]
        turns = [turn for turn, _ in done]
        try:
            outcomes = await self._writer.commit_within(lent, group, done[0][0].crashes, paused=self._shared)
        except TransactionRefused as error:
            if len(done) == 1:
                return self._fail(turns, CommandFailed(str(error)))
            for turn in turns:  # one of them is to blame: each by itself
                turn.alone = True
            return self._again(turns)
        except TransactionLost as error:
            if max(turn.tries for turn in turns) < TRIES_MAX:
                return self._again(turns)
            raise Unavailable(str(error)) from error
        refused = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Committed)]
        for turn, batch in done:
            if not refused:
                self._moved(turn.stream, batch)
        again = [turn for number, turn in enumerate(turns) if refused and number not in refused]
        for number, turn in enumerate(turns):
            outcome = outcomes[number]
            if isinstance(outcome, Conflict):
                self._streams.forget([turn.stream])
                again.append(turn)
            elif turn not in again:
                self.leave(turn)
                if isinstance(outcome, Duplicate):
                    tell_duplicate(turn.job, outcome)
                else:
                    turn.job.landed(outcome.position)
        self._again(again)

    def _moved(self, stream: str, batch: Batch) -> None:
        """Set the version of a handler's stream in memory."""
        entry = self._streams.get(stream)
        if entry is not None and batch.records:
            entry.version = max(entry.version, *(record.version for record in batch.records))

    def _again(self, turns: "Iterable[_Turn]") -> None:
        """Run again, in another transaction."""
        for turn in turns:
            turn.tries += 1
            if turn.tries > TRIES_MAX:
                self._fail([turn], Unavailable(f"{turn.stream} was in the way of another {TRIES_MAX} times"))
            else:
                self._ready.append(turn.stream)

    def decide_again(self, turn: "_Turn") -> None:
        """Run a turn again, since its stream has changed after its rejection was decided."""
        turn.decided = False
        self._again([turn])
        self._open_lane()

    def leave(self, turn: "_Turn") -> None:
        """Remove a job that has ended or runs elsewhere; the next job of its stream may run."""
        queue = self._queues.get(turn.stream)
        if queue is None or turn not in queue:
            return
        self.waiting -= 1
        queue.remove(turn)
        if queue:
            self._ready.append(turn.stream)
        else:
            del self._queues[turn.stream]

    def _fail(self, turns: "Iterable[_Turn]", error: Exception) -> None:
        for turn in turns:
            if turn in self._queues.get(turn.stream, ()):
                self.leave(turn)
                turn.job.failed(error)


class _Turn:
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


class _RejectionWork:
    """A rejection on its way through the writer: what its handler did is rolled back, so it needs no transaction."""

    __slots__ = ("_batch", "_given", "_handlers", "_turn", "streams")
    lane = ""

    def __init__(self, handlers: Handlers, turn: _Turn, batch: Batch) -> None:
        self._handlers, self._turn, self._batch = handlers, turn, batch
        self._given = False
        self.streams = (turn.stream,)

    def handle(self) -> Batch | None:
        """The batch; a second time means that its stream has moved, so that it is decided again."""
        if self._given:
            self._handlers.decide_again(self._turn)
            return None
        self._given = True
        return self._batch

    def landed(self, position: int) -> None:
        self._handlers.leave(self._turn)
        self._turn.job.landed(position)

    def duplicate(self, found: Duplicate) -> None:
        self._handlers.leave(self._turn)
        tell_duplicate(self._turn.job, found)

    def taken_back(self) -> None:
        self._turn.job.taken_back()

    def failed(self, error: Exception) -> None:
        self._handlers.leave(self._turn)
        self._turn.job.failed(error)
