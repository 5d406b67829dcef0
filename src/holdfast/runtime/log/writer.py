"""The writer: sequencer and group commit of one log.

Every message comes here as a `Work` to be decided. The writer decides the waiting works one after another against the
streams in memory, and commits them as one durable group while the next group forms. Answers leave after the flush.
Edge, exchange, feeds and timers come before it; the store comes after it. If one batch fails, the writer drops the
state that the batch made, and decides all works again that used this state. If the store cannot commit at all, every
work on its way fails with `Unavailable`, memory is emptied, and nothing is decided until the node has read the log
again (`resume`).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext

import msgspec

from holdfast.core.log.batch import Batch, CommitOutcome, Committed, Duplicate
from holdfast.core.log.record import Record
from holdfast.errors import Busy, StoreError, StoreFailed, TransactionLost, TransactionRefused, Unavailable
from holdfast.ports.store import Lent, Loaded, Store
from holdfast.runtime.log.streams import Streams
from holdfast.runtime.log.work import Work, tell_duplicate
from holdfast.runtime.tasks import cancel_all

logger = logging.getLogger("holdfast.writer")

GROUP_BATCHES_MAX = 512
INBOX_MAX = 20_000
"""How many works may wait to be decided; beyond this limit, commands from the edge are refused with `Busy`."""


class Writer:
    """One log's sequencer."""

    def __init__(
        self,
        store: Store,
        streams: Streams,
        *,
        flushed: Callable[[list[Record]], None],
        crashed: Callable[[], None] | None = None,
        inbox_max: int = INBOX_MAX,
        service: str,
    ) -> None:
        self.service = service
        """The service whose log this is; log lines name it."""
        self._store = store
        self._streams = streams
        self._flushed = flushed
        self._crashed = crashed
        self._inbox: deque[Work] = deque()
        self._inbox_max = inbox_max
        self._deferred: list[Work] = []
        """Works that wait until their streams are loaded, in order."""
        self._deferred_lanes: set[str] = set()
        self._wanted: set[str] = set()
        self._forming: list[tuple[Work, Batch]] = []
        self._turning = False
        self._shut: Unavailable | None = None
        """Why no work is taken: the writer is closed, or memory may differ from the log. None: works are taken."""
        self._idle: asyncio.Future[None] | None = None
        """Set while there is nothing to commit; it is done as soon as there is."""
        self._task: asyncio.Task[None] | None = None
        self._load = False
        """True if more streams must be loaded than when loading began."""
        self._loading: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self.head = 0
        self.failure: StoreError | None = None
        """Why the last group could not be committed; None if it was committed."""
        self.crashes = 0
        """How often the store has failed and all works on their way have failed with it."""
        self.groups = 0
        self.batches = 0

    def start(self, head: int) -> None:
        """Begin to work on a log whose last position is `head`."""
        self.head = head
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self, *, drain: bool = True) -> None:
        """Commit the waiting works (unless `drain` is False) and stop. Works that are not committed fail, also if this
        call is cancelled because it takes too long."""
        try:
            if drain and self.failure is None:
                await self._drain()
        finally:
            await self._stop()

    async def _drain(self) -> None:
        while self.failure is None and (self._inbox or self._forming or self._deferred):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        async with self._flushing:
            pass  # the last group has landed

    async def _stop(self) -> None:
        await cancel_all((self._task, self._loading), self.service)
        await cancel_all((self._loading,), self.service)  # a turn that was due meanwhile may have begun to load again
        self._shut = Unavailable("the service is stopping")
        lost = [*(work for work, _ in self._forming), *self._deferred, *self._inbox]
        self._forming.clear()
        self._deferred.clear()
        self._inbox.clear()
        for work in lost:
            work.failed(self._shut)

    def paused(self) -> asyncio.Lock:
        """Use it with `async with`: inside, the writer commits no group; works that are decided meanwhile wait."""
        return self._flushing

    async def commit_within(
        self, lent: Lent, group: list[tuple[Work, Batch]], crashes: int, *, paused: bool
    ) -> list[CommitOutcome]:
        """Commit works that were decided elsewhere, within a lent transaction, all or none. `crashes`: the value of
        `self.crashes` when they were decided. `paused`: the caller has paused this writer.

        Raises Unavailable if the store has failed since the works were decided, and what the store's `commit` raises;
        if the store fails, all works on their way have failed too.
        """
        async with nullcontext() if paused else self._flushing:
            if self._shut is not None or crashes != self.crashes:
                raise self._shut or Unavailable("the store has failed since this command was decided; try again")
            try:
                outcomes = await self._store.commit([batch for _, batch in group], within=lent)
            except (TransactionLost, TransactionRefused):
                raise
            except StoreError as error:
                self._crash(error, [])
                raise
            if all(isinstance(outcome, Committed) for outcome in outcomes):
                self.groups += 1
                self.batches += len(group)
                self._publish(group, outcomes)
            return outcomes

    @property
    def waiting(self) -> int:
        """How many works are not decided yet."""
        return len(self._inbox) + len(self._deferred)

    def submit(self, work: Work, *, edge: bool = False) -> None:
        """Take a work. The work fails at once while the writer takes none. Raises Busy for the edge if
        too many wait."""
        if self._shut is not None:
            work.failed(self._shut)
            return
        if edge and self.waiting >= self._inbox_max:
            raise Busy(
                f"{self.waiting} commands wait in {self.service or 'the service'}, which is its limit; try again later",
                retry_after_seconds=1.0,
            )
        self._inbox.append(work)
        self._turn_soon()

    @property
    def shut(self) -> bool:
        """True after a failed flush until memory is read again; meanwhile `head` may be behind the store."""
        return self._shut is not None

    def resume(self) -> None:
        """Take works again: memory agrees with the log."""
        self._shut = None

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        inbox, streams, forming = self._inbox, self._streams, self._forming
        while inbox and len(forming) < GROUP_BATCHES_MAX:
            work = inbox.popleft()
            if self._deferred and self._must_defer(work):
                continue
            if missing := streams.missing(work.streams):
                self._defer(work, missing)
                continue
            try:
                batch = work.handle()
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is for its work to judge
                streams.forget(work.streams)
                work.failed(error)
                continue
            if batch is not None:
                for stream, _ in batch.reads:
                    streams.pin(stream)
                forming.append((work, batch))
        if forming and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _must_defer(self, work: Work) -> bool:
        """Defer a work if a work of its lane, or one of its streams, waits for loading. True if it was deferred."""
        if (work.lane and work.lane in self._deferred_lanes) or any(stream in self._wanted for stream in work.streams):
            self._defer(work, self._streams.missing(work.streams))
            return True
        return False

    def _defer(self, work: Work, missing: list[str]) -> None:
        self._deferred.append(work)
        if work.lane:
            self._deferred_lanes.add(work.lane)
        self._wanted.update(missing)
        self._load_soon()

    def _load_soon(self) -> None:
        self._load = True
        if self._loading is None or self._loading.done():
            self._loading = asyncio.get_running_loop().create_task(self._run_loads())

    async def _run_loads(self) -> None:
        while self._load:
            self._load = False
            wanted = sorted(stream for stream in self._wanted if not self._streams.busy(stream))
            try:
                loaded = await self._loaded(wanted)
            except Exception as error:  # whatever it was, the works that wait for these streams must hear it
                if not isinstance(error, StoreError):
                    logger.exception(
                        "unexpected error while %s loads the streams %s; the messages that wait for these streams fail",
                        self.service,
                        wanted,
                        extra={"service": self.service},
                    )
                deferred, self._deferred = self._deferred, []
                self._deferred_lanes.clear()
                self._wanted.clear()
                for work in deferred:
                    work.failed(_unavailable(error))
                continue
            for stream, found in zip(wanted, loaded, strict=True):
                self._wanted.discard(stream)
                if self._streams.get(stream) is None and not self._streams.busy(stream):
                    self._streams.put(stream, found)
            if self._wanted and not wanted:
                continue
            deferred, self._deferred = self._deferred, []
            self._deferred_lanes.clear()
            self._inbox.extendleft(reversed(deferred))
            self._turn_soon()

    async def _loaded(self, streams: list[str]) -> list[Loaded]:
        """Load streams from the store; a snapshot of another shape is not used."""
        loaded = await self._store.load(streams) if streams else []
        unfit = [number for number, found in enumerate(loaded) if not self._streams.fits(streams[number], found)]
        if unfit:
            again = await self._store.load([streams[number] for number in unfit], snapshots=False)
            for number, found in zip(unfit, again, strict=True):
                loaded[number] = found
        return loaded

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._forming:
                self._idle = loop.create_future()
                await self._idle
            group, self._forming = self._forming, []
            if self._inbox:
                self._turn_soon()
            try:
                outcomes = await self._commit(group)
                self.failure = None
                self.groups += 1
                self.batches += len(group)
                self._land(group, outcomes)
            except StoreError as error:
                self._crash(error, group)
                continue
            except Exception as error:
                logger.exception(
                    "unexpected error in the writer of %s; reloading state from the log",
                    self.service,
                    extra={"service": self.service},
                )
                self._crash(StoreFailed(f"{type(error).__name__}: {error}"), group)
                continue
            if self._wanted:
                self._load_soon()
            self._streams.trim()

    async def _commit(self, group: list[tuple[Work, Batch]]) -> list[CommitOutcome]:
        try:
            await self._flushing.acquire()
            try:
                if self._shut is not None:
                    raise StoreFailed(str(self._shut))
                return await self._store.commit([batch for _, batch in group])
            finally:
                self._flushing.release()
        except asyncio.CancelledError:
            for work, _ in group:  # it may be durable or not: a caller who asks again with the same key learns it
                work.failed(Unavailable("the service is stopping"))
            raise

    def _land(self, group: list[tuple[Work, Batch]], outcomes: list[CommitOutcome]) -> None:
        bad: list[tuple[Work, Batch, CommitOutcome]] = []
        unpin = self._streams.unpin
        for (work, batch), outcome in zip(group, outcomes, strict=True):
            for stream, _ in batch.reads:
                unpin(stream)
            if type(outcome) is not Committed:
                bad.append((work, batch, outcome))
        if bad:
            self._take_back(bad)
        self._publish(group, outcomes)
        for (work, _), outcome in zip(group, outcomes, strict=True):
            if type(outcome) is Committed:
                work.landed(outcome.position)

    def _publish(self, group: list[tuple[Work, Batch]], outcomes: list[CommitOutcome]) -> None:
        """Move `head`, and report the durable records that have a destination."""
        sent: list[Record] = []
        wrote = False
        for (_, batch), outcome in zip(group, outcomes, strict=True):
            if batch.records and type(outcome) is Committed:
                wrote, position = True, outcome.position
                for record in batch.records:
                    if record.destination:
                        sent.append(msgspec.structs.replace(record, position=position))
                    position += 1
                if position > self.head:
                    self.head = position - 1
        if wrote:
            self._flushed(sent)

    def _take_back(self, bad: list[tuple[Work, Batch, CommitOutcome]]) -> None:
        """Drop the state that failed batches made, and decide all works again that used this state."""
        again: list[Work] = []
        tainted: set[str] = set()
        lanes: set[str] = set()
        for work, batch, outcome in bad:
            tainted.update(stream for stream, _ in batch.reads)
            if not isinstance(outcome, Duplicate):
                again.append(work)
                lanes.add(work.lane)
        lanes.discard("")
        kept: list[tuple[Work, Batch]] = []
        for work, batch in self._forming:
            if work.lane in lanes or any(stream in tainted for stream, _ in batch.reads):
                again.append(work)
                lanes.update({work.lane} - {""})
                for stream, _ in batch.reads:
                    tainted.add(stream)
                    self._streams.unpin(stream)
            else:
                kept.append((work, batch))
        self._forming[:] = kept
        self._streams.forget(tainted)
        duplicates = [(work, outcome) for work, _, outcome in bad if isinstance(outcome, Duplicate)]
        for work in [*reversed(again), *(work for work, _ in duplicates)]:
            work.taken_back()
        for work, outcome in duplicates:
            tell_duplicate(work, outcome)
        self._inbox = deque([*again, *self._deferred, *self._inbox])
        self._deferred.clear()
        self._deferred_lanes.clear()
        self._wanted.clear()
        self._turn_soon()

    def _crash(self, error: StoreError, group: list[tuple[Work, Batch]]) -> None:
        logger.error(
            "the store of %s could not commit; all messages on their way fail, and memory is read again: %s",
            self.service,
            error,
            extra={"service": self.service, "batches": len(group)},
        )
        self.failure = error
        self.crashes += 1
        lost = [*(work for work, _ in [*group, *self._forming]), *self._deferred, *self._inbox]
        self._forming.clear()
        self._deferred.clear()
        self._deferred_lanes.clear()
        self._wanted.clear()
        self._inbox.clear()
        self._streams.clear()
        self._shut = _unavailable(error) if self._crashed is not None else None
        for work in lost:
            work.failed(_unavailable(error))
        if self._crashed is not None:
            self._crashed()


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        f"the store does not take commits; nothing was recorded, try again: {error}", retry_after_seconds=2.0
    )
