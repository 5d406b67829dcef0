"""Sagas at run time: a message begins, answers, wakes, cancels or repairs a saga, and the progress goes into its batch.

`core.saga.advance` and `core.saga.repair` decide what happens next. This module turns it into records
(`runtime.decide.saga_records`), timers and the saga's row in the open-saga index, all in the batch of the message that
caused it. Dispatch comes before it, the writer after it. Fails with the error of a user's step that raises.
"""

from typing import Any

import msgspec

from holdfast.core.declare.message import HOPS_MAX, Rejection, encode
from holdfast.core.declare.saga import SagaType
from holdfast.core.declare.service import Service
from holdfast.core.log.batch import Row
from holdfast.core.saga.advance import advance, answered, cancelled, timers, woken
from holdfast.core.saga.progress import (
    Again,
    Answered,
    Begun,
    Cancelled,
    Overdue,
    Progress,
    Repaired,
    SagaCommitted,
    SagaState,
    Stuck,
    Undoing,
    apply,
)
from holdfast.core.saga.repair import Verb, repaired
from holdfast.errors import CommandFailed
from holdfast.ports.store import Loaded, Store
from holdfast.runtime.decide.decision import Decision
from holdfast.runtime.decide.saga_records import decode_answer, from_record, outcome, to_record
from holdfast.runtime.log.rows import scanned

NOTED = frozenset({Undoing, Stuck, Overdue, SagaCommitted, Cancelled, Again, Repaired})
"""Progress that updates a saga's row in the open-saga index."""


class OpenSaga(msgspec.Struct, omit_defaults=True):
    """An open saga, as its row in the open-saga index."""

    status: str
    tx: str
    at: int
    """When the saga got this status, µs since 1970-01-01 UTC."""
    step: str = ""
    cause: str = ""
    overdue: tuple[str, ...] = ()
    caller: str = ""
    """`service:stream#version` of the command that began it; empty where no other service waits for its answer."""

    @staticmethod
    def of(state: SagaState, tx: str, at: int) -> "OpenSaga":
        """The index entry of a saga in that state."""
        caller = caller_of(state)
        if state.stuck is not None:
            return OpenSaga(state.status, tx, at, state.stuck.step, state.stuck.cause, caller=caller)
        cause = state.cause.code if state.cause else ""
        return OpenSaga(state.status, tx, at, cause=cause, overdue=tuple(sorted(state.overdue)), caller=caller)


def caller_of(state: SagaState) -> str:
    """`service:stream#version` of the command that began a saga; empty where no other service waits for its answer."""
    begun = state.begun
    return f"{begun.destination}:{begun.answers}" if begun is not None and begun.destination else ""


class Setting(msgspec.Struct, omit_defaults=True):
    """The row of a timer: the message that set it, and the headers that all following records inherit from it."""

    tx: str
    cause: str
    correlation: str = ""
    hop: int = 0
    debug: bool = False
    traceparent: str = ""


class SagaFolder:
    """Folds the records of a saga's stream into its state."""

    shape = ""  # sagas are short, so they have no snapshots

    def __init__(self, saga: SagaType) -> None:
        self._saga = saga

    def fold(self, stream: str, loaded: Loaded) -> tuple[Any, int]:
        """(SagaState, version); the state is None if the saga has not begun. A saga that an earlier release declared
        with other steps is folded as far as possible and becomes stuck with the cause `unknown_shape`."""
        if not loaded.records:
            return None, 0
        state = SagaState()
        for record in loaded.records:
            try:
                apply(self._saga, state, from_record(self._saga, record))
            except Exception as error:  # noqa: BLE001 - a saga that cannot be folded is stuck, which operators see
                state.version = loaded.records[-1].version
                state.status, state.stuck = "stuck", Stuck("", f"unknown_shape: {error}")
                break
        if state.begun is not None and state.begun.shape != self._saga.fingerprint and not state.ended:
            state.status, state.stuck = "stuck", Stuck("", "unknown_shape: its steps are declared otherwise now")
        return state, state.version


class Sagas:
    """The sagas of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.open = 0
        """How many sagas of this service have not ended."""
        self.stuck: set[str] = set()
        """The streams of the open sagas that are stuck."""
        self.called: dict[str, str] = {}
        """Streams of the open sagas that another service began, keyed by the command that began them (`caller_of`)."""

    async def reload(self, store: Store) -> None:
        """Count the open sagas from the store."""
        count = 0
        called: dict[str, str] = {}
        stuck: set[str] = set()
        async for stream, data in scanned(store, "saga"):
            entry = msgspec.json.decode(data, type=OpenSaga)
            count += 1
            if entry.caller:
                called[entry.caller] = stream
            if entry.status == "stuck":
                stuck.add(stream)
        self.open, self.called, self.stuck = count, called, stuck

    def begin(self, saga: SagaType, message: Any, stream: str, decision: Decision) -> None:
        """Begin a saga with the command or event that it waits for; do nothing if it has begun already."""
        entry = decision.read(stream)
        if entry.state is not None:
            return
        envelope = decision.envelope
        if envelope.hop >= HOPS_MAX:
            raise CommandFailed(
                f"{saga.where}: {HOPS_MAX} hops from the edge: the services answer each other in a loop"
            )
        decision.envelope = envelope = msgspec.structs.replace(envelope, hop=envelope.hop + 1)
        state = SagaState()
        at = envelope.at if saga.staged else 0
        begun = Begun(message, saga.fingerprint, envelope.caller, envelope.answers, at)
        apply(saga, state, begun)
        progress = [begun, *advance(saga, state)]
        decision.opened += not state.ended
        entry.state = state
        self._write(saga, stream, state, progress, decision)
        entry.version = state.version

    def answer(self, stream: str, to: int, stored: str, data: bytes, decision: Decision) -> None:
        """Take an answer to a command of that version; do nothing if the saga does not wait for it."""
        saga, entry = self._saga_of(stream), decision.streams[stream]
        if entry.state is None:
            return
        before, ended = entry.version, entry.state.ended
        progress = answered(saga, entry.state, to, decode_answer(saga, stored, data))
        self._take(saga, stream, before, progress, decision, ended=ended)

    def wake(self, stream: str, name: str, decision: Decision) -> None:
        """Take a timer that is due; do nothing if the saga does not need it any more."""
        saga, entry = self._saga_of(stream), decision.streams[stream]
        if entry.state is not None:
            before = entry.version
            self._take(saga, stream, before, woken(saga, entry.state, name), decision)

    def cancel(self, stream: str, cause: Rejection, decision: Decision) -> None:
        """Turn a saga back by its caller's cancel or an operator's repair; do nothing if it is too late for that."""
        saga, entry = self._saga_of(stream), decision.streams[stream]
        if entry.state is not None:
            before = entry.version
            self._take(saga, stream, before, cancelled(saga, entry.state, cause), decision)

    def repair(self, stream: str, verb: Verb, by: str, why: str, decision: Decision) -> None:
        """Carry out an operator's repair of a saga. Raises Contradicted if it is not possible, or the
        error of a step."""
        saga, entry = self._saga_of(stream), decision.streams[stream]
        before, ended = entry.version, entry.state.ended
        progress = repaired(saga, entry.state, verb, by, why)
        self._take(saga, stream, before, progress, decision, ended=ended)

    def _saga_of(self, stream: str) -> SagaType:
        return self._service.sagas[stream.partition("/")[0]]

    def _take(
        self,
        saga: SagaType,
        stream: str,
        before: int,
        progress: list[Progress],
        decision: Decision,
        *,
        ended: bool = False,
    ) -> None:
        """Write the progress that follows from a message; the saga was at version `before`."""
        if not progress:
            return
        decision.reads.append((stream, before))
        entry = decision.streams[stream]
        decision.opened += ended - entry.state.ended
        self._write(saga, stream, entry.state, progress, decision)
        entry.version = entry.state.version

    def _write(
        self, saga: SagaType, stream: str, state: SagaState, progress: list[Progress], decision: Decision
    ) -> None:
        envelope, records = decision.envelope, decision.records
        version = state.version - len(progress)
        opened = noted = False
        for item in progress:
            version += 1
            record = to_record(saga, stream, version, item, state, envelope)
            records.append(record)
            if record.headers.outcome:
                decision.outcomes.append((envelope.tx, outcome(item), len(records) - 1))
            kind = type(item)
            opened = opened or kind is Begun
            noted = noted or kind in NOTED
        self._note(stream, state)
        if state.ended and not opened:
            decision.rows.append(Row("saga", stream, None))
        elif not state.ended and (opened or noted):
            decision.rows.append(Row("saga", stream, encode(OpenSaga.of(state, envelope.tx, envelope.at))))
        for timer in timers(saga, state, progress):
            key = timer_key(envelope.at + timer.delay_ms * 1000, stream, timer.name)
            state.timers[timer.name] = key
            decision.timers.append(key)
            setting = Setting(
                envelope.tx, envelope.id, envelope.correlation, envelope.hop, envelope.debug, envelope.traceparent
            )
            decision.rows.append(Row("timer", key, encode(setting)))
        if state.timers:
            decision.rows.extend(Row("timer", key, None) for key in _passed(state, progress))

    def _note(self, stream: str, state: SagaState) -> None:
        """Keep the indexes of open sagas. What is noted too early, or once too often, does no harm: the saga's own
        state decides."""
        if state.status == "stuck":
            self.stuck.add(stream)
        elif self.stuck:
            self.stuck.discard(stream)
        if caller := caller_of(state):
            if state.ended:
                self.called.pop(caller, None)
            else:
                self.called[caller] = stream


def timer_key(due_us: int, stream: str, name: str) -> str:
    """The key of a timer's row: the due time, which sorts, then the stream and the name of the timer."""
    return f"{due_us:016d}/{stream}#{name}"


def _passed(state: SagaState, progress: list[Progress]) -> list[str]:
    """Remove and return the timers of steps that have all their answers now, and of decided stages."""
    keys: list[str] = []
    for item in progress:
        if isinstance(item, SagaCommitted | Cancelled):
            keys += [key] if (key := state.timers.pop(f"stage:{state.attempt}", "")) else []
        if isinstance(item, Answered) and item.to in state.asked and not state.asked[item.to].undoes:
            step = state.asked[item.to].step
            if all(version in state.answers for version in state.latest.get(step, {}).values()):
                keys += [key] if (key := state.timers.pop(f"deadline:{step}", "")) else []
    return keys
