"""Effects at work: calls of others' APIs, never repeated while what became of them is unknown.

A command with an effect waits in its stream like any that fails would; here it is carried out. Each attempt is flushed
before the call leaves, and its outcome after. A call that ends in neither yes nor no, or whose process died, is
unknown: the probe is asked before anything is repeated; what cannot be asked and is not idempotent is parked, in view.
Comes after `runtime.inbox.waiting`; the writer commits. Whatever a call raises stays here.
"""

import asyncio
import logging
from typing import Any

from holdfast.core.batch import Batch, Duplicate, Row
from holdfast.core.effect import ATTEMPTED, PROBED, UNKNOWN, Attempt, EffectType, key_of
from holdfast.core.message import Context, encode
from holdfast.core.record import Record
from holdfast.errors import CommandFailed, Contradicted, HoldfastError, NotDone, Rejected, Unavailable
from holdfast.ports.clock import Clock
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.ending import end
from holdfast.runtime.inbox.message import Place
from holdfast.runtime.inbox.receive import open_message
from holdfast.runtime.inbox.waiting import Waiting
from holdfast.runtime.log.streams import Memory
from holdfast.runtime.log.work import BatchWork
from holdfast.runtime.log.writer import Writer

logger = logging.getLogger("holdfast.effects")

CALLS_MAX = 64
"""Calls at a time; the rest waits."""


class Effects:
    """The effects of one service."""

    def __init__(self, dispatch: Dispatch, memory: Memory, writer: Writer, waiting: Waiting, clock: Clock) -> None:
        self.dispatch, self.memory, self.writer, self.waiting, self.clock = dispatch, memory, writer, waiting, clock
        self._ready: dict[str, None] = {}
        """Streams whose first message is to be tried, in order."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def take(self, stream: str) -> None:
        """Carry out what is first on a stream, when there is room, and after a call that still runs for it."""
        self._ready[stream] = None
        self._open()

    async def close(self, seconds: float) -> None:
        """Begin no more calls. What runs may end for so long; what is cut off is unknown."""
        self._closed = True
        tasks = list(self._running.values())
        if seconds and tasks:
            await asyncio.wait(tasks, timeout=seconds)
        await end(tasks)

    def _open(self) -> None:
        for stream in list(self._ready):
            if self._closed or len(self._running) >= CALLS_MAX:
                return
            if stream not in self._running:
                del self._ready[stream]
                task = self._running[stream] = asyncio.get_running_loop().create_task(self._run(stream))
                task.add_done_callback(lambda done, stream=stream: self._ended(stream, done))

    def _ended(self, stream: str, task: "asyncio.Task[None]") -> None:
        del self._running[stream]
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, HoldfastError):
                logger.error("an effect ended in a way nobody foresaw", exc_info=error, extra={"stream": stream})
            self.waiting.retried(stream, later=True)
        self._open()

    async def _run(self, stream: str) -> None:
        """One attempt at what is first on a stream; or its probe. Raises HoldfastError where none can be committed."""
        place = self.waiting.first(stream)
        if place is None:
            return self.waiting.retried(stream)
        if self.writer.shut:
            return None  # all that waits is read again, and then tried
        if place.key in self.waiting.leaving:
            return None  # a person has said what became of it: that goes on when it has landed
        place.running = True
        try:
            await self._carry_out(stream, place)
        finally:
            place.running = False

    async def _carry_out(self, stream: str, place: Place) -> None:
        # What a place holds is read again where it may have changed meanwhile: after a failed flush it is another.
        effect = self.dispatch.service.effects[stream.partition("/")[0]]
        try:
            command, envelope = open_message(self.dispatch, place.held, self.clock.now_us())
        except Exception as error:  # noqa: BLE001 - it does not decode: it waits, like any other
            return self._keep(stream, place, error)
        held = place.held
        if held.unknown and effect.probe is not None:
            if await self._probe(effect.probe, effect, stream, place, command, envelope):
                return None
        elif held.unknown and not effect.idempotent and held.started:
            held.attempts = self.dispatch.service.retry_of(held.record.type).attempts_max  # nothing more can be done
            unknown = f"what became of attempt {held.started} is unknown, and there is no probe to ask"
            return self._keep(stream, place, CommandFailed(unknown))
        held = place.held
        if held.called_off and not held.unknown:
            return self._keep(stream, place, NotDone("it was called off"))
        held.started, held.unknown = held.started + 1, True
        attempt = {"attempt": held.started}
        await self._note(ATTEMPTED, attempt, stream, place, envelope)
        try:
            found: Any = await self._call(effect.function, effect, stream, place, command, envelope)
        except (NotDone, Rejected) as no:
            if isinstance(no, Rejected):
                return await self._settle(stream, place, envelope, no)
            place.held.unknown = False
            return self._keep(stream, place, no)
        except Exception as error:  # noqa: BLE001 - neither yes nor no
            await self._note(UNKNOWN, attempt | {"error": _short(error)}, stream, place, envelope)
            return self._keep(stream, place, error)
        return await self._settle(stream, place, envelope, found)

    async def _probe(
        self, probe: Any, effect: EffectType, stream: str, place: Place, command: Any, envelope: Envelope
    ) -> bool:
        """Ask what became of an attempt. False where nothing did, so that it may be made again."""
        try:
            found = await self._call(probe, effect, stream, place, command, envelope, may_be_none=True)
        except Rejected as no:
            await self._settle(stream, place, envelope, no, probed="refused")
            return True
        except Exception as error:  # noqa: BLE001 - still unknown
            self._keep(stream, place, error)
            return True
        if found is not None:
            await self._settle(stream, place, envelope, found, probed="done")
            return True
        place.held.unknown = False
        await self._note(PROBED, {"attempt": place.held.started, "found": "not done"}, stream, place, envelope)
        return False

    async def _call(
        self, function: Any, effect: EffectType, stream: str, place: Place, command: Any, envelope: Envelope,
        *, may_be_none: bool = False,
    ) -> Any:  # fmt: skip
        """What a call returned, checked. Raises what it raises, CommandFailed when it takes too long."""
        key, label = stream.partition("/")[2], envelope.correlation or envelope.tx
        context = Context(envelope.at, envelope.id, key, label, envelope.tx)
        attempt = Attempt(key_of(envelope.tx, envelope.id, effect.name), max(1, place.held.started), context)
        limit = asyncio.timeout(effect.seconds)
        mine = asyncio.current_task()
        try:
            async with limit:
                found = await function(command, attempt)
        except asyncio.CancelledError as error:
            if mine is not None and mine.cancelling():
                raise
            raise CommandFailed(f"{function.__name__} was cancelled from within") from error
        except TimeoutError as error:
            if limit.expired():
                raise CommandFailed(f"{function.__name__} took longer than {effect.seconds:g} s") from error
            raise
        return None if found is None and may_be_none else effect.answer(found)

    def _current(self, stream: str, place: Place) -> None:
        """Raise Unavailable where the message does not wait here any more: its row must not be put again."""
        if self.waiting.first(stream) is not place:
            raise Unavailable(f"{place.held.id} does not wait any more")

    def _keep(self, stream: str, place: Place, error: Exception) -> None:
        self._current(stream, place)
        self.waiting.keep_failed(stream, place, error)

    async def _note(self, stored: str, body: dict[str, Any], stream: str, place: Place, envelope: Envelope) -> None:
        """Put on record how far it has come, with the row of what waits. Raises Unavailable."""
        self._current(stream, place)
        record = Record(
            0, "effect", stored, encode(body), envelope.tx, envelope.id, self.clock.now_us(), envelope.correlation,
            stream, headers=envelope.headers(),
        )  # fmt: skip
        work = BatchWork(Batch((record,), rows=(self.waiting.row_of(place),)))
        self.writer.submit(work)
        await asyncio.shield(work.done)

    async def _settle(self, stream: str, place: Place, envelope: Envelope, outcome: Any, *, probed: str = "") -> None:
        """Commit the outcome; its message waits no more. Raises Unavailable."""
        work = OutcomeWork(self, stream, place.key, place.held.started, envelope, outcome, probed)
        self.writer.submit(work)
        await asyncio.shield(work.done)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]


class OutcomeWork:
    """What became of an effect, on its way through the writer: said by its call, its probe, or a person."""

    __slots__ = ("_at", "_effects", "_envelope", "_handled", "_key", "_outcome", "_probed", "_started", "_stream",
                 "_word", "done", "lane", "streams")  # fmt: skip

    def __init__(
        self, effects: Effects, stream: str, key: str, started: int, envelope: Envelope, outcome: Any, probed: str = "",
        word: Record | None = None,
    ) -> None:  # fmt: skip
        self._effects, self._stream, self._key, self._started = effects, stream, key, started
        self._envelope, self._outcome, self._probed, self._word = envelope, outcome, probed, word
        self._at = effects.clock.now_us()
        self.lane, self.streams = "", (stream,)
        self._handled: Handled | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def handle(self) -> Batch | None:
        """The answer, and that nothing waits for it any more."""
        dispatch, stream, envelope = self._effects.dispatch, self._stream, self._envelope
        if not self._effects.waiting.has(stream, self._key):
            self.done.set_exception(Contradicted(f"{envelope.id} has an outcome already"))
            return None
        self._effects.waiting.leaving.add(self._key)
        entry = self._effects.memory[stream]
        handled = self._handled = Handled()
        handled.reads.append((stream, entry.version))
        handled.records += [self._word] if self._word is not None else []
        if self._probed:
            body = encode({"attempt": self._started, "found": self._probed})
            handled.records.append(
                Record(0, "effect", PROBED, body, envelope.tx, envelope.id, self._at, envelope.correlation, stream,
                       headers=envelope.headers())
            )  # fmt: skip
        if isinstance(self._outcome, Rejected):
            dispatch.reject_handled(self._outcome, stream, entry.version, envelope, handled)
        else:
            dispatch.accept_handled((self._outcome,), self._outcome, stream, entry.version, envelope, handled)
        entry.version = max([entry.version, *(record.version for record in handled.records)])
        if envelope.edge:
            at = next(n for n, record in enumerate(handled.records) if record.headers.outcome)
            handled.settled.append((envelope.tx, handled.answer, at))
        return Batch(tuple(handled.records), tuple(handled.reads), (), (Row("waiting", self._key, None),))

    def landed(self, position: int) -> None:
        """It is durable."""
        waiting = self._effects.waiting
        waiting.gone(self._stream, self._key)
        waiting.leaving.discard(self._key)
        waiting.settled(self._handled, position)
        waiting.retried(self._stream)
        if not self.done.done():
            self.done.set_result(None)

    def taken_back(self) -> None:
        """It waits as before."""
        self._handled = None
        self._effects.waiting.leaving.discard(self._key)

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self.failed(RuntimeError("an outcome has no fresh rows"))

    def failed(self, error: Exception) -> None:
        """Nothing of it was written: it is unknown still."""
        self._effects.waiting.leaving.discard(self._key)
        self._effects.waiting.retried(self._stream, later=True)
        if not self.done.done():
            self.done.set_exception(error)
