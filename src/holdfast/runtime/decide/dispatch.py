"""Dispatch: finds the handler of a message, and fills a decision with its result.

It takes a message for a stream that is in memory, and a `Decision` that was opened with the envelope of the message. It
fills the decision with the records, reads and rows of one batch, and with the answer, which may leave when the batch is
durable. Edge, inbox and feeds come before it, the writer after it. An error of a handler, except `Rejected`, is passed
on: the caller decides whether the message waits.
"""

from collections.abc import Iterable
from typing import Any

from holdfast.core.declare.aggregate import AggregateType, as_events
from holdfast.core.declare.effect import EffectType
from holdfast.core.declare.escrow import decide
from holdfast.core.declare.message import Command, Event, MessageType, decode_stored, encode, message_of
from holdfast.core.declare.saga import SagaType
from holdfast.core.declare.service import Service
from holdfast.core.log.record import Headers, Record
from holdfast.errors import CommandFailed, Rejected
from holdfast.ports.store import Loaded
from holdfast.runtime.decide.decision import Decision
from holdfast.runtime.decide.sagas import SagaFolder, Sagas
from holdfast.runtime.decide.snapshots import snapshot_due
from holdfast.runtime.decide.stages import Stages

SNAPSHOT_EVERY = 200
"""Versions between two snapshots of an aggregate."""


class AggregateFolder:
    """Folds the records of an aggregate's stream."""

    def __init__(self, aggregate: AggregateType, service: Service) -> None:
        self._aggregate, self._service = aggregate, service
        self.shape = aggregate.shape.fingerprint

    def fold(self, stream: str, loaded: Loaded) -> tuple[Any, int]:
        """(state, version). Raises the error of an evolver, and Invalid for a record that does not decode."""
        state, version = None, 0
        if loaded.snapshot is not None:
            state, version = self._aggregate.shape.decode(bytes(loaded.snapshot.data)), loaded.snapshot.version
        for record in loaded.records:
            if state is None:
                state = self._aggregate.shape.new()
            if record.kind == "event":
                self._aggregate.evolve(state, decode_stored(self._service.contract, record.type, record.data))
            version = record.version
        return state, version


class HandlerFolder:
    """Counts the records on a handler's stream: its state is in the team's own tables."""

    shape = ""

    def fold(self, stream: str, loaded: Loaded) -> tuple[Any, int]:
        """(None, version)."""
        return None, loaded.records[-1].version if loaded.records else 0


class Dispatch:
    """The handlers of one service, and which of them handles which message."""

    def __init__(self, service: Service, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self.service = service
        self.sagas = Sagas(service)
        self.stages = Stages(service, snapshot_every)
        self._snapshot_every = snapshot_every
        self.apart = frozenset((*service.handlers, *service.effects))
        """The names of handlers and effects, which run outside the writer."""
        self._folders: dict[str, AggregateFolder | HandlerFolder | SagaFolder] = {
            **{name: HandlerFolder() for name in self.apart},
            **{name: AggregateFolder(found, service) for name, found in service.aggregates.items()},
            **{name: SagaFolder(found) for name, found in service.sagas.items()},
        }

    def folder_of(self, stream: str) -> AggregateFolder | HandlerFolder | SagaFolder:
        """The folder of a stream with that name."""
        return self._folders[stream.partition("/")[0]]

    def folds(self, stream: str) -> bool:
        """Whether streams with that name are kept in memory."""
        return stream.partition("/")[0] in self._folders

    def stream_of(self, message: MessageType, command_id: str, key: str) -> str:
        """The stream that a command is for: its decider's, by the command's key, or a new one for a saga that it
        begins; empty if this service decides no such command."""
        decider = self.service.deciders.get(message.name)
        if decider is None:
            return ""
        return f"{decider.name}/{command_id if isinstance(decider, SagaType) else key}"

    def command(self, command: Command[Any], stream: str, decision: Decision) -> None:
        """Handle a command whose stream is in memory."""
        decider = self.service.deciders[message_of(command).name]
        if isinstance(decider, AggregateType):
            self._decide(decider, command, stream, decision)
        elif isinstance(decider, SagaType):
            self.sagas.begin(decider, command, stream, decision)
        elif isinstance(decider, EffectType):
            self._send_own(command, decision)
        else:
            raise CommandFailed(f"{decider.name} needs a transaction of the store; it cannot run inside the writer")

    def _send_own(self, command: Any, decision: Decision) -> None:
        """Turn an effect from the edge into a command to this service itself, so that it is durable
        before it is tried."""
        message, envelope = message_of(command), decision.envelope
        headers = Headers(
            envelope.hop, envelope.debug, envelope.traceparent, key=message.key_of(command), edge=envelope.edge
        )
        tx, cause, at, correlation = envelope.tx, envelope.id, envelope.at, envelope.correlation
        own, data = self.service.name, encode(command)
        decision.records.append(
            Record(0, "command", message.stored, data, tx, cause, at, correlation, destination=own, headers=headers)
        )

    def _decide(self, aggregate: AggregateType, command: Any, stream: str, decision: Decision) -> None:
        entry = decision.read(stream)
        state = entry.state
        try:
            if stream in self.stages.held:
                events = self.stages.plain(aggregate, command, stream, decision)
                state = aggregate.shape.new() if state is None else state
            else:
                if state is None:
                    if not aggregate.deciders[type(command)].creates:
                        raise Rejected("not_found", f"there is no {stream}", stream=stream)
                    state = aggregate.shape.new()
                context = decision.envelope.context(stream[len(aggregate.name) + 1 :])
                if aggregate.bounded:
                    events = decide(aggregate, state, command, context)
                else:
                    events = aggregate.decide(state, command, context)
        except Rejected as no:
            if no.events:
                state = entry.state or aggregate.shape.new()
                self._append(aggregate, no.events, None, stream, state, decision)
            decision.reject(no, stream)
            return
        answers = message_of(command).answers
        answer = events[0] if len(events) == 1 else next(event for event in events if isinstance(event, answers))
        decision.answer = answer
        self._append(aggregate, events, answer, stream, state, decision)

    def _append(
        self,
        aggregate: AggregateType,
        events: tuple[Any, ...],
        answer: Any,
        stream: str,
        state: Any,
        decision: Decision,
    ) -> None:
        entry = decision.streams[stream]
        before = entry.version
        decision.emit(events, answer, stream, before)
        for event in events:
            aggregate.evolve(state, event)
        entry.version += len(events)
        entry.state = state
        decision.rows += snapshot_due(aggregate, stream, entry, before, self._snapshot_every)


def accept_done(events: Iterable[Event], answer: Event, stream: str, version: int, decision: Decision) -> None:
    """Record the events of a handler or an effect on its stream, which is at that version."""
    decision.answer = answer
    decision.emit(events, answer, stream, version)


def reject_done(no: Rejected, stream: str, version: int, decision: Decision) -> None:
    """Record the rejection by a handler or an effect, with the events that belong to it."""
    decision.emit(as_events(no.events, stream), None, stream, version)
    decision.reject(no, stream)
