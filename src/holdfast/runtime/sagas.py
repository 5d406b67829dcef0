"""Sagas at run time: progress turned into records, and records back into progress.

`core.advance` decides what happens next; here it becomes rows of the log (a command record for what is asked, an event
for the final answer, `holdfast.saga.*` for the rest) with the timers that go along, in the batch of the message that
led to it. Comes between dispatch and the writer. Fails with what a user's step raises.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.core.advance import advance, answered, resolved, timers, woken
from holdfast.core.batch import Row
from holdfast.core.message import HOPS_MAX, Rejection, decode_stored, encode, message_of
from holdfast.core.progress import (
    Again,
    Answered,
    Asked,
    Begun,
    Cancelled,
    Committed,
    Completed,
    Overdue,
    Progress,
    SagaState,
    Settled,
    Skipped,
    Stuck,
    Told,
    Undoing,
    Undone,
    apply,
)
from holdfast.core.record import REJECTED, Headers, Record
from holdfast.core.saga import SagaType
from holdfast.core.service import Service
from holdfast.core.stage import CANCEL, CONFIRM, DONE, HELD, Decision, Vote, written
from holdfast.errors import CommandFailed
from holdfast.ports.store import Loaded
from holdfast.runtime.memory import Memory

if TYPE_CHECKING:
    from holdfast.runtime.envelope import Envelope, Handled

SAGA = "holdfast.saga."
_BODIES: dict[str, type[Any]] = {
    "skipped": Skipped, "overdue": Overdue, "stuck": Stuck, "undoing": Undoing, "again": Again, "settled": Settled,
    "cancelled": Cancelled,
}  # fmt: skip
NOTED = (Undoing, Stuck, Overdue, Committed, Cancelled, Again)
"""Progress with which a saga's entry in the list of those that have not ended changes."""
_NAMES = {cls: name for name, cls in _BODIES.items()}


class _Begun(msgspec.Struct):
    type: str
    message: msgspec.Raw
    shape: str
    destination: str = ""
    answers: str = ""
    at: int = 0


class _Answered(msgspec.Struct):
    to: int
    type: str
    answer: msgspec.Raw


class OpenSaga(msgspec.Struct, omit_defaults=True):
    """A saga that has not ended, as it stands in the list of those."""

    status: str
    tx: str
    at: int
    """Microseconds since 1970-01-01 UTC: when it came to this status."""
    step: str = ""
    cause: str = ""
    overdue: tuple[str, ...] = ()

    @staticmethod
    def of(state: SagaState, tx: str, at: int) -> "OpenSaga":
        """The entry of a saga in that state."""
        if state.stuck is not None:
            return OpenSaga(state.status, tx, at, state.stuck.step, state.stuck.cause)
        return OpenSaga(
            state.status, tx, at, cause=state.cause.code if state.cause else "", overdue=tuple(sorted(state.overdue))
        )


class Setting(msgspec.Struct, omit_defaults=True):
    """A timer's row: the message that set it, and what all that follows inherits from that."""

    tx: str
    cause: str
    correlation: str = ""
    hop: int = 0
    debug: bool = False
    traceparent: str = ""


class SagaFolder:
    """Folds the records of a saga's stream into its state."""

    shape = ""  # sagas are short: they have no snapshots

    def __init__(self, saga: SagaType) -> None:
        self._saga = saga

    def fold(self, stream: str, loaded: Loaded) -> tuple[Any, int]:
        """(SagaState, version); None where the saga has not begun. One of another shape is folded as far as it is
        known and stands stuck, cause `unknown_shape`."""
        if not loaded.records:
            return None, 0
        state = SagaState()
        for record in loaded.records:
            try:
                apply(self._saga, state, from_record(self._saga, record))
            except Exception as error:  # noqa: BLE001 - a saga that cannot be folded is stuck, in view
                state.version = loaded.records[-1].version
                state.status, state.stuck = "stuck", Stuck("", f"unknown_shape: {error}")
                break
        if state.begun is not None and state.begun.shape != self._saga.fingerprint and not state.ended:
            state.status, state.stuck = "stuck", Stuck("", "unknown_shape: its steps are declared otherwise now")
        return state, state.version


def from_record(saga: SagaType, record: Record) -> Progress:
    """The progress that a saga's record stands for."""
    if record.kind == "command":
        headers = record.headers
        if record.type in (CONFIRM, CANCEL):
            attempt = msgspec.json.decode(record.data, type=Decision).attempt
            return Told(record.destination, record.type == CONFIRM, attempt)
        command = decode_stored(saga.contracts[record.type.partition(".")[0]], record.type, record.data)
        return Asked(headers.step, headers.index, command, headers.attempt, headers.undoes)
    if record.kind == "event":
        event = decode_stored(saga.contracts[record.type.partition(".")[0]], record.type, record.data)
        return Committed(event) if saga.staged else Completed(event)
    if record.type == REJECTED:
        cause = msgspec.json.decode(record.data, type=Rejection)
        return Cancelled(cause) if saga.staged else Undone(cause)
    name = record.type.removeprefix(SAGA)
    if name == "begun":
        body = msgspec.json.decode(record.data, type=_Begun)
        message = decode_stored(saga.begin.home, body.type, bytes(body.message))
        return Begun(message, body.shape, body.destination, body.answers, body.at)
    if name == "answered":
        found = msgspec.json.decode(record.data, type=_Answered)
        return Answered(found.to, decode_answer(saga, found.type, bytes(found.answer)))
    if name == "committed":
        return Committed()
    if name in ("completed", "undone"):
        return Completed() if name == "completed" else Undone(msgspec.json.decode(record.data, type=Rejection))
    return msgspec.json.decode(record.data, type=_BODIES[name])


def decode_answer(saga: SagaType, stored: str, data: bytes) -> Any:
    """The event or Rejection that answers one of the saga's commands."""
    if stored == REJECTED:
        return msgspec.json.decode(data, type=Rejection)
    if stored == DONE:
        return Done()
    if stored == HELD:
        vote = msgspec.json.decode(data, type=Vote)
        stored, data = vote.type, bytes(vote.event)
    return decode_stored(saga.contracts[stored.partition(".")[0]], stored, data)


class Done(msgspec.Struct, frozen=True):
    """A participant's answer to the decision that it was told."""


class Sagas:
    """The sagas of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.on_timer: Callable[[str], None] = lambda key: None
        """Told the key of every timer that is set; the timers listen."""
        self.open = 0
        """Sagas of this service that have not ended."""

    def begin(
        self, saga: SagaType, message: Any, stream: str, envelope: "Envelope", memory: Memory, handled: "Handled"
    ) -> None:
        """Begin a saga with the command or event that it waits for; nothing where it has begun already."""
        entry = memory[stream]
        handled.reads.append((stream, entry.version))
        if entry.state is not None:
            return
        if envelope.hop >= HOPS_MAX:
            raise CommandFailed(
                f"{saga.where}: {HOPS_MAX} hops from the edge: the services answer each other in a loop"
            )
        envelope = msgspec.structs.replace(envelope, hop=envelope.hop + 1)
        state = SagaState()
        at = envelope.at if saga.staged else 0
        begun = Begun(message, saga.fingerprint, envelope.caller, envelope.answers, at)
        apply(saga, state, begun)
        progress = [begun, *advance(saga, state)]
        handled.opened += not state.ended
        entry.state = state
        self._write(saga, stream, state, progress, envelope, handled)
        entry.version = state.version

    def answer(
        self, stream: str, to: int, stored: str, data: bytes, envelope: "Envelope", memory: Memory, handled: "Handled"
    ) -> None:
        """Take an answer to a command of that version; nothing where it is not awaited."""
        saga = self._service.sagas[stream.partition("/")[0]]
        entry = memory[stream]
        if entry.state is None:
            return
        before = entry.version
        progress = answered(saga, entry.state, to, decode_answer(saga, stored, data))
        self._take(saga, stream, before, progress, envelope, memory, handled)

    def wake(self, stream: str, name: str, envelope: "Envelope", memory: Memory, handled: "Handled") -> None:
        """Take a timer that has come due; nothing where what it was set for has passed."""
        saga = self._service.sagas[stream.partition("/")[0]]
        entry = memory[stream]
        if entry.state is None:
            return
        before = entry.version
        self._take(saga, stream, before, woken(saga, entry.state, name), envelope, memory, handled)

    def resolve(self, stream: str, cause: Rejection, envelope: "Envelope", memory: Memory, handled: "Handled") -> None:
        """Cancel a staged saga by a person's word; nothing where it is decided."""
        saga = self._service.sagas[stream.partition("/")[0]]
        entry = memory[stream]
        if entry.state is not None:
            progress = resolved(saga, entry.state, cause)
            self._take(saga, stream, entry.version, progress, envelope, memory, handled)

    def _take(
        self, saga: SagaType, stream: str, before: int, progress: list[Progress], envelope: "Envelope",
        memory: Memory, handled: "Handled",
    ) -> None:  # fmt: skip
        if not progress:
            return
        handled.reads.append((stream, before))
        entry = memory[stream]
        handled.opened -= entry.state.ended
        self._write(saga, stream, entry.state, progress, envelope, handled)
        entry.version = entry.state.version

    def _write(
        self, saga: SagaType, stream: str, state: SagaState, progress: list[Progress], envelope: "Envelope",
        handled: "Handled",
    ) -> None:  # fmt: skip
        version = state.version - len(progress)
        for item in progress:
            version += 1
            record = _record(saga, stream, version, item, state, envelope)
            handled.records.append(record)
            if record.headers.outcome:
                handled.settled.append((envelope.tx, _outcome(item), len(handled.records) - 1))
        opened = any(isinstance(item, Begun) for item in progress)
        if state.ended and not opened:
            handled.rows.append(Row("saga", stream, None))
        elif not state.ended and (opened or any(isinstance(item, NOTED) for item in progress)):
            handled.rows.append(Row("saga", stream, encode(OpenSaga.of(state, envelope.tx, envelope.at))))
        for timer in timers(saga, state, progress):
            key = timer_key(envelope.at + timer.delay_ms * 1000, stream, timer.name)
            state.timers[timer.name] = key
            self.on_timer(key)
            setting = Setting(
                envelope.tx, envelope.id, envelope.correlation, envelope.hop, envelope.debug, envelope.traceparent
            )
            handled.rows.append(Row("timer", key, encode(setting)))
        if state.timers:
            handled.rows.extend(Row("timer", key, None) for key in _passed(state, progress))


def timer_key(due_us: int, stream: str, name: str) -> str:
    """The key of a timer's row: due times in order, then what is to be woken."""
    return f"{due_us:016d}/{stream}#{name}"


def _passed(state: SagaState, progress: list[Progress]) -> list[str]:
    """Timers of steps that have all their answers now, and of what is decided."""
    keys: list[str] = []
    for item in progress:
        if isinstance(item, Committed | Cancelled):
            keys += [key] if (key := state.timers.pop(f"stage:{state.attempt}", "")) else []
        if isinstance(item, Answered) and item.to in state.asked and not state.asked[item.to].undoes:
            step = state.asked[item.to].step
            if all(version in state.answers for version in state.latest.get(step, {}).values()):
                keys += [key] if (key := state.timers.pop(f"deadline:{step}", "")) else []
    return keys


def _record(
    saga: SagaType, stream: str, version: int, item: Progress, state: SagaState, envelope: "Envelope"
) -> Record:
    kind, stored, data, destination = "saga", "", b"{}", ""
    headers = envelope.headers()
    begun = state.begun or Begun(None, "")
    if isinstance(item, Asked):
        message = message_of(item.command)
        kind, stored, data, destination = "command", message.stored, encode(item.command), message.contract
        key = message.key_of(item.command) if message.key_fields else ""
        headers = Headers(
            envelope.hop, envelope.debug, envelope.traceparent, key,
            step=item.step, index=item.index, attempt=item.attempt, undoes=item.undoes,
            early=not item.undoes and saga.by_name[item.step] < saga.pivot,
            stage=written(begun.at, state.attempt) if saga.staged else "",
        )  # fmt: skip
    elif isinstance(item, Told):
        kind, stored, destination = "command", CONFIRM if item.commit else CANCEL, item.service
        data = encode(Decision(item.attempt))
    elif isinstance(item, Answered):
        stored = SAGA + "answered"
        data = encode({"to": item.to, "type": _type_of(item.answer), "answer": item.answer})
        if (asked := state.asked.get(item.to)) is not None:
            headers = msgspec.structs.replace(headers, step=asked.step, index=asked.index)
    elif isinstance(item, Begun):
        stored = SAGA + "begun"
        body = {"type": saga.begin.stored, "message": item.message, "shape": item.shape,
                "destination": item.destination, "answers": item.answers}  # fmt: skip
        data = encode(body | {"at": item.at} if item.at else body)
    elif isinstance(item, Completed | Undone | Committed | Cancelled) and not getattr(item, "again", False):
        edge = saga.begin.kind == "command" and not begun.destination
        kind, stored, data = _end(item)
        if saga.begin.kind == "event" and isinstance(item, Undone | Cancelled):
            kind, stored = "saga", SAGA + _END_NAMES[type(item)]
            data = encode(item) if isinstance(item, Cancelled) else data
        destination = begun.destination
        headers = msgspec.structs.replace(headers, answers=begun.answers, outcome=edge)
    else:
        stored, data = SAGA + _NAMES[type(item)], encode(item)
        if isinstance(item, Skipped | Overdue | Stuck | Undoing):
            headers = msgspec.structs.replace(headers, step=item.step)
    return Record(
        0, kind, stored, data, envelope.tx, envelope.id, envelope.at, envelope.correlation, stream, version,
        destination, headers,
    )  # fmt: skip


def _outcome(item: Progress) -> Any:
    """What a caller at the edge gets of a saga's end."""
    match item:
        case Undone() | Cancelled():
            return item.cause
        case Completed() | Committed():
            return item.answer
        case _:
            raise TypeError(f"{type(item).__name__} is no end of a saga")


_END_NAMES: dict[type[Any], str] = {
    Completed: "completed", Committed: "committed", Undone: "undone", Cancelled: "cancelled",
}  # fmt: skip


def _type_of(answer: Any) -> str:
    if isinstance(answer, Rejection | Done):
        return REJECTED if isinstance(answer, Rejection) else DONE
    return message_of(answer).stored


def _end(item: Completed | Undone | Committed | Cancelled) -> tuple[Any, str, bytes]:
    if isinstance(item, Undone | Cancelled):
        return "answer", REJECTED, encode(item.cause)
    if item.answer is None:
        return "saga", SAGA + _END_NAMES[type(item)], b"{}"
    return "event", message_of(item.answer).stored, encode(item.answer)
