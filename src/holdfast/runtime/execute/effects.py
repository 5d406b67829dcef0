"""Effects at work: calls of external APIs, which are never repeated while their outcome is unknown.

A command with an effect waits on its stream until it is carried out here. Each attempt is flushed before the call
leaves, and its outcome is flushed afterwards. If a call ends without a clear answer, or its process dies, the outcome
is unknown: the probe is asked before the call is repeated. An effect that has no probe and is not idempotent is parked,
and operators see it. `runtime.inbox.retry` comes before it, the writer after it. An error of a call is stored with its
message and not raised.
"""

import asyncio
import logging
from typing import Any

from holdfast.core.declare.effect import ATTEMPTED, PROBED, UNKNOWN, Attempt, EffectType, key_of
from holdfast.core.declare.message import encode
from holdfast.core.log.batch import Batch, Row
from holdfast.core.log.record import Record
from holdfast.errors import CommandFailed, Contradicted, HoldfastError, NotDone, Rejected, Unavailable
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.decide.dispatch import accept_done, reject_done
from holdfast.runtime.inbox.deliver import open_message
from holdfast.runtime.inbox.message import Slot
from holdfast.runtime.inbox.retry import Retrier
from holdfast.runtime.log.work import AwaitedWork, BatchWork
from holdfast.runtime.tasks import cancel_all

logger = logging.getLogger("holdfast.effects")

CALLS_MAX = 64
"""How many calls run at a time; further calls wait."""


class Effects:
    """The effects of one service."""

    def __init__(self, retrier: Retrier) -> None:
        self.retrier = retrier
        self.dispatch, self.streams, self.writer = retrier.dispatch, retrier.streams, retrier.writer
        self.waiting, self.clock = retrier.waiting, retrier.clock
        self._ready: dict[str, None] = {}
        """Streams whose first message must be tried, in order."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def take(self, stream: str) -> None:
        """Carry out the first message of a stream as soon as there is room and no call runs for this stream."""
        self._ready[stream] = None
        self._open()

    async def close(self, seconds: float) -> None:
        """Begin no more calls. Running calls may take so long to end; the outcome of a call that is cut
        off is unknown."""
        self._closed = True
        tasks = list(self._running.values())
        if seconds and tasks:
            await asyncio.wait(tasks, timeout=seconds)
        await cancel_all(tasks, self.dispatch.service.name)

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
                logger.error(
                    "unexpected error while %s attempts the effect on the stream %s; it tries again",
                    self.dispatch.service.name,
                    stream,
                    extra={"service": self.dispatch.service.name, "stream": stream},
                    exc_info=error,
                )
            self.retrier.tried(stream, later=True)
        self._open()

    async def _run(self, stream: str) -> None:
        """Make one attempt at the first message of a stream, or ask its probe. Raises HoldfastError if
        nothing commits."""
        slot = self.waiting.ready(stream)
        if slot is None:
            return self.retrier.tried(stream)
        if self.writer.shut:
            return None  # all waiting messages are read again and then tried
        if slot.key in self.waiting.leaving:
            return None  # an operator has decided its outcome: the stream goes on when that is durable
        slot.running = True
        try:
            await self._carry_out(slot)
        finally:
            slot.running = False

    async def _carry_out(self, slot: Slot) -> None:
        # The message of the slot is read again after each await: after a failed flush it is another object.
        effect = self.dispatch.service.effects[slot.stream.partition("/")[0]]
        try:
            command, envelope = open_message(self.dispatch, slot.message, self.clock.now_us())
        except Exception as error:  # noqa: BLE001 - it does not decode: it waits, like any other
            return self._keep(slot, error)
        message = slot.message
        if message.unknown and effect.probe is not None:
            if await self._probe(effect.probe, effect, slot, command, envelope):
                return None
        elif message.unknown and not effect.idempotent and message.started:
            policy = self.dispatch.service.retry_of(message.record.type)
            message.attempts = policy.attempts_max  # nothing more can be done
            unknown = f"what became of attempt {message.started} is unknown, and there is no probe to ask"
            return self._keep(slot, CommandFailed(unknown))
        message = slot.message
        if message.cancel_came and not message.unknown:
            return self._keep(slot, NotDone("it was called off"))
        message.started, message.unknown = message.started + 1, True
        attempt = {"attempt": message.started}
        await self._note(ATTEMPTED, attempt, slot, envelope)
        try:
            found: Any = await self._call(effect.function, effect, slot, command, envelope)
        except (NotDone, Rejected) as no:
            if isinstance(no, Rejected):
                return await self._finish(slot, envelope, no)
            slot.message.unknown = False
            return self._keep(slot, no)
        except Exception as error:  # noqa: BLE001 - neither yes nor no
            await self._note(UNKNOWN, attempt | {"error": _short(error)}, slot, envelope)
            return self._keep(slot, error)
        return await self._finish(slot, envelope, found)

    async def _probe(self, probe: Any, effect: EffectType, slot: Slot, command: Any, envelope: Envelope) -> bool:
        """Ask the probe for the outcome of an attempt. False if nothing was done, so that the call may
        be made again."""
        try:
            found = await self._call(probe, effect, slot, command, envelope, may_be_none=True)
        except Rejected as no:
            await self._finish(slot, envelope, no, probed="refused")
            return True
        except Exception as error:  # noqa: BLE001 - still unknown
            self._keep(slot, error)
            return True
        if found is not None:
            await self._finish(slot, envelope, found, probed="done")
            return True
        slot.message.unknown = False
        await self._note(PROBED, {"attempt": slot.message.started, "found": "not done"}, slot, envelope)
        return False

    async def _call(
        self,
        function: Any,
        effect: EffectType,
        slot: Slot,
        command: Any,
        envelope: Envelope,
        *,
        may_be_none: bool = False,
    ) -> Any:
        """The checked result of a call. Raises the error of the call, and CommandFailed if it takes too long."""
        context = envelope.context(slot.stream.partition("/")[2])
        attempt = Attempt(key_of(envelope.tx, envelope.id, effect.name), max(1, slot.message.started), context)
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

    def _current(self, slot: Slot) -> None:
        """Raise Unavailable if the message does not wait here any more: its row must not be written again."""
        if self.waiting.ready(slot.stream) is not slot:
            raise Unavailable(f"{slot.message.id} does not wait any more")

    def _keep(self, slot: Slot, error: Exception) -> None:
        self._current(slot)
        self.retrier.keep_failed(slot, error)

    async def _note(self, stored: str, body: dict[str, Any], slot: Slot, envelope: Envelope) -> None:
        """Record the progress of an effect together with the row of its message. Raises Unavailable."""
        self._current(slot)
        decision = Decision(envelope, self.streams)
        decision.note("effect", stored, encode(body), slot.stream, at=self.clock.now_us())
        work = BatchWork(decision.batch(rows=(slot.row(),)))
        self.writer.submit(work)
        await asyncio.shield(work.done)

    async def _finish(self, slot: Slot, envelope: Envelope, outcome: Any, *, probed: str = "") -> None:
        """Commit the outcome and remove the message from the waiting messages. Raises Unavailable."""
        work = OutcomeWork(self, slot, envelope, outcome, probed)
        self.writer.submit(work)
        await asyncio.shield(work.done)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]


class OutcomeWork(AwaitedWork[None]):
    """The outcome of an effect on its way through the writer; its call, its probe or an operator has given it."""

    __slots__ = (
        "_at",
        "_decision",
        "_effects",
        "_envelope",
        "_key",
        "_outcome",
        "_probed",
        "_repair",
        "_started",
        "_stream",
        "streams",
    )

    def __init__(
        self,
        effects: Effects,
        slot: Slot,
        envelope: Envelope,
        outcome: Any,
        probed: str = "",
        repair: Record | None = None,
    ) -> None:
        super().__init__()
        self._effects, self._envelope, self._outcome = effects, envelope, outcome
        self._stream, self._key, self._started = slot.stream, slot.key, slot.message.started
        self._probed, self._repair = probed, repair
        self._at = effects.clock.now_us()
        self.streams = (self._stream,)
        self._decision: Decision | None = None

    def handle(self) -> Batch | None:
        """The batch with the answer, which also removes the waiting message."""
        effects, stream, envelope, outcome = self._effects, self._stream, self._envelope, self._outcome
        if not effects.waiting.waits(self._key):
            super().failed(Contradicted(f"{envelope.id} has an outcome already"))
            return None
        effects.waiting.leaving.add(self._key)
        decision = self._decision = Decision(envelope, effects.streams)
        entry = decision.read(stream)
        if self._repair is not None:
            decision.records.append(self._repair)
        if self._probed:
            body = encode({"attempt": self._started, "found": self._probed})
            decision.note("effect", PROBED, body, stream, at=self._at)
        if isinstance(outcome, Rejected):
            reject_done(outcome, stream, entry.version, decision)
        else:
            accept_done((outcome,), outcome, stream, entry.version, decision)
        entry.version = max([entry.version, *(record.version for record in decision.records)])
        if envelope.edge:
            at = next(n for n, record in enumerate(decision.records) if record.headers.outcome)
            decision.outcomes.append((envelope.tx, decision.answer, at))
        return decision.batch(rows=(Row("waiting", self._key, None),))

    def landed(self, position: int) -> None:
        """It is durable."""
        waiting, retrier = self._effects.waiting, self._effects.retrier
        if (slot := waiting.slot(self._key)) is not None:
            waiting.remove(slot)
        waiting.leaving.discard(self._key)
        retrier.outcomes.landed(self._decision, position)
        retrier.tried(self._stream)
        self.finish(None)

    def taken_back(self) -> None:
        """It waits as before."""
        self._decision = None
        self._effects.waiting.leaving.discard(self._key)

    def failed(self, error: Exception) -> None:
        """Nothing of it was written: it is unknown still."""
        self._effects.waiting.leaving.discard(self._key)
        self._effects.retrier.tried(self._stream, later=True)
        super().failed(error)
