"""Timers: durable due times that wake sagas.

A timer is a row in the batch that sets it. This module reads the rows at start, keeps them in order, and submits a work
for each timer that is due. A timer that fires twice or too late changes nothing. Dispatch comes before it, the writer
after it. If a timer cannot be handled, this module logs it and tries again.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Container

import msgspec

from holdfast.core.log.batch import Batch, Row
from holdfast.errors import StoreError
from holdfast.ports.clock import Clock
from holdfast.ports.store import Store
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.sagas import Setting
from holdfast.runtime.log.rows import scanned
from holdfast.runtime.log.streams import Streams
from holdfast.runtime.log.writer import Writer
from holdfast.runtime.tasks import cancel_all

logger = logging.getLogger("holdfast.timers")

RETRY_SECONDS = 5.0
JUDGE_SECONDS = 0.05


class Timers:
    """The timers of one service."""

    def __init__(
        self,
        dispatch: Dispatch,
        streams: Streams,
        store: Store,
        clock: Clock,
        writer: Writer,
        *,
        landed: Callable[[Decision | None, int], None],
        may_judge: Callable[[], bool],
    ) -> None:
        self.dispatch, self.streams, self.store, self.clock = dispatch, streams, store, clock
        self.service = dispatch.service.name
        self.landed = landed
        """It is called with each decision of a timer when the decision is durable."""
        self._writer = writer
        self._name = dispatch.service.name
        self._may_judge = may_judge
        """False while answers from before the start may still be on their way; until then no deadline fires."""
        self._keys: list[str] = []
        self._going = False
        """True between `go` and `stop`."""
        self._alarm: asyncio.TimerHandle | None = None
        self._firing: asyncio.Task[None] | None = None

    async def reload(self, store: Store) -> None:
        """Read the timers from the store."""
        self._keys.clear()  # first, since timers that are set meanwhile are noted; to note one twice does no harm
        async for key, _ in scanned(store, "timer"):
            if key[:16].isdecimal():
                self._keys.append(key)
            else:
                self._warn_unreadable(key, "its key does not begin with a due time")
        heapq.heapify(self._keys)
        self._arm()

    def go(self) -> None:
        """Begin to fire the timers that are due."""
        self._going = True
        self._arm()

    async def stop(self) -> None:
        """Stop firing timers."""
        self._going = False
        self._arm()
        await cancel_all((self._firing,), self.service)

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, streams: Container[str]) -> dict[str, list[tuple[str, int]]]:
        """The timers of these sagas: saga stream -> (name, due in µs since 1970-01-01 UTC)."""
        found: dict[str, list[tuple[str, int]]] = {}
        for key in self._keys:
            due, _, rest = key.partition("/")
            stream, _, name = rest.rpartition("#")
            if stream in streams:
                found.setdefault(stream, []).append((name, int(due)))
        return {stream: sorted(set(all_of), key=lambda one: one[1]) for stream, all_of in found.items()}

    def note(self, key: str) -> None:
        """Take a timer whose row is in the store now."""
        first = not self._keys or key < self._keys[0]
        heapq.heappush(self._keys, key)
        if first:
            self._arm()

    def _left_us(self) -> int:
        """How long it is until the first timer is due, in µs."""
        return int(self._keys[0][:16]) - self.clock.now_us()

    def _arm(self, seconds: float = 0.0) -> None:
        """Set the alarm for the first timer, but not earlier than in so many seconds."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._keys and self._going and self._firing is None:
            left = max(seconds, self._left_us() / 1e6)
            self._alarm = asyncio.get_running_loop().call_later(left, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if not self._keys or self._left_us() > 0:
            self._arm()  # the timers are being read again, or the two clocks differ
        elif not self._may_judge():
            self._arm(JUDGE_SECONDS)
        else:
            self._firing = asyncio.get_running_loop().create_task(self._fire())
            self._firing.add_done_callback(self._fired)

    def _fired(self, task: "asyncio.Task[None]") -> None:
        self._firing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "unexpected error while %s fires its timers; they fire after the next reading of the store",
                self.service,
                extra={"service": self.service},
                exc_info=error,
            )
        self._arm()

    async def _fire(self) -> None:
        due: list[str] = []
        while self._keys and int(self._keys[0][:16]) <= self.clock.now_us():
            due.append(heapq.heappop(self._keys))
        try:
            rows = await self.store.get("timer", due)
        except Exception as error:
            level, what = logging.WARNING, "the store failed"
            if not isinstance(error, StoreError):
                level, what = logging.ERROR, "unexpected error"
            logger.log(
                level,
                "%s while %s reads its due timers; it tries again in %g s: %s",
                what,
                self.service,
                RETRY_SECONDS,
                error,
                extra={"service": self.service, "timer": due[0] if due else ""},
                exc_info=error if level == logging.ERROR else None,
            )
            for key in due:
                self.again(key)
            return
        for key, data in zip(due, rows, strict=True):
            if data is None:
                continue
            try:
                setting = msgspec.json.decode(data, type=Setting)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._warn_unreadable(key, str(error))
                continue
            self._writer.submit(_WakeWork(self, key, setting))

    def _warn_unreadable(self, key: str, reason: str) -> None:
        logger.error(
            "the row of the timer %s of %s cannot be read and stays in the store: %s",
            key,
            self.service,
            reason,
            extra={"service": self.service, "timer": key},
        )

    def again(self, key: str) -> None:
        """Try a timer again later, since it could not be handled."""
        loop = asyncio.get_running_loop()
        loop.call_later(RETRY_SECONDS, self._fire_again, key)

    def _fire_again(self, key: str) -> None:
        heapq.heappush(self._keys, key)
        self._arm()


class _WakeWork:
    """A due timer on its way through the writer."""

    __slots__ = ("_decision", "_key", "_name", "_setting", "_timers", "streams")
    lane = ""

    def __init__(self, timers: Timers, key: str, setting: Setting) -> None:
        self._timers, self._key, self._setting = timers, key, setting
        stream, _, self._name = key.partition("/")[2].rpartition("#")
        self.streams = (stream,)
        self._decision: Decision | None = None

    def handle(self) -> Batch | None:
        timers, (stream,), setting = self._timers, self.streams, self._setting
        envelope = Envelope(
            setting.cause,
            setting.tx,
            timers.clock.now_us(),
            setting.correlation,
            setting.hop,
            setting.debug,
            setting.traceparent,
        )
        decision = self._decision = Decision(envelope, timers.streams)
        timers.dispatch.sagas.wake(stream, self._name, decision)
        return decision.batch(rows=(Row("timer", self._key, None),))

    def landed(self, position: int) -> None:
        self._timers.landed(self._decision, position)

    def taken_back(self) -> None:
        self._decision = None

    def failed(self, error: Exception) -> None:
        service = self._timers.service
        logger.warning(
            "%s could not handle the timer %s; it tries again in %g s: %s",
            service,
            self._key,
            RETRY_SECONDS,
            error,
            extra={"service": service, "stream": self.streams[0], "timer": self._key},
        )
        self._timers.again(self._key)
