"""Dispatch: which handler a message is for, and what its handling writes.

Takes a message in an `Envelope` and the streams in memory; gives back `Handled`: records, reads and rows for one batch,
and the answers that may leave when it has landed. Edge, exchange and feeds come before it, the writer after. What a
handler raises (other than `Rejected`) is passed on: whoever brought the message decides whether it waits.
"""

from collections.abc import Iterable
from typing import Any

from holdfast.core.aggregate import AggregateType, as_events
from holdfast.core.effect import EffectType
from holdfast.core.escrow import decide
from holdfast.core.handler import HandlerType
from holdfast.core.message import Command, Context, Event, MessageType, Rejection, decode_stored, encode, message_of
from holdfast.core.record import REJECTED, Headers, Record
from holdfast.core.saga import SagaType
from holdfast.core.service import Service
from holdfast.errors import CommandFailed, Rejected
from holdfast.ports.store import Loaded
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.decide.sagas import SagaFolder, Sagas
from holdfast.runtime.decide.stages import Stages, snapshot_due
from holdfast.runtime.log.streams import Memory

SNAPSHOT_EVERY = 200
"""Versions between two snapshots of an aggregate."""


class AggregateFolder:
    """Folds the records of an aggregate's stream."""

    def __init__(self, aggregate: AggregateType, service: Service) -> None:
        self._aggregate, self._service = aggregate, service
        self.shape = aggregate.shape.fingerprint

    def fold(self, stream: str, loaded: Loaded) -> tuple[Any, int]:
        """(state, version). Raises what an evolver raises, and Invalid for a record that does not decode."""
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
    """Which handler of one service is for what."""

    def __init__(self, service: Service, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self.service = service
        self.sagas = Sagas(service)
        self.stages = Stages(service, snapshot_every)
        self._snapshot_every = snapshot_every
        self.apart = frozenset((*service.handlers, *service.effects))
        """Names of what is carried out beside the writer."""
        self._folders: dict[str, AggregateFolder | HandlerFolder | SagaFolder] = {
            **{name: HandlerFolder() for name in self.apart},
            **{name: AggregateFolder(found, service) for name, found in service.aggregates.items()},
            **{name: SagaFolder(found) for name, found in service.sagas.items()},
        }

    def folder_of(self, stream: str) -> AggregateFolder | HandlerFolder | SagaFolder:
        """How a stream of that name is folded."""
        return self._folders[stream.partition("/")[0]]

    def folds(self, stream: str) -> bool:
        """Whether a stream of that name is kept in memory."""
        return stream.partition("/")[0] in self._folders

    def target(self, message: MessageType, command: Command[Any], envelope: Envelope) -> str:
        """The stream a command is for: the aggregate's by its key, a new one for a saga that it begins."""
        by = self.service.deciders[message.name]
        return f"{by.name}/{envelope.id}" if isinstance(by, SagaType) else f"{by.name}/{message.key_of(command)}"

    def command(self, command: Command[Any], stream: str, envelope: Envelope, memory: Memory) -> Handled:
        """Handle a command whose stream is in memory."""
        by = self.service.deciders[message_of(command).name]
        handled = Handled()
        if isinstance(by, SagaType):
            self.sagas.begin(by, command, stream, envelope, memory, handled)
        elif isinstance(by, HandlerType):
            raise CommandFailed(f"{by.name} works in a transaction")
        elif isinstance(by, EffectType):
            self._send_own(command, envelope, handled)
        else:
            self._decide(by, command, stream, envelope, memory, handled)
        return handled

    def _send_own(self, command: Any, envelope: Envelope, handled: Handled) -> None:
        """An effect asked for at the edge is a command that this service sends itself: durable before it is tried."""
        message = message_of(command)
        headers = Headers(
            envelope.hop, envelope.debug, envelope.traceparent, key=message.key_of(command), edge=envelope.edge
        )
        handled.records.append(
            Record(0, "command", message.stored, encode(command), envelope.tx, envelope.id, envelope.at,
                   envelope.correlation, destination=self.service.name, headers=headers)
        )  # fmt: skip

    def _decide(
        self, by: AggregateType, command: Any, stream: str, envelope: Envelope, memory: Memory, handled: Handled
    ) -> None:
        entry = memory[stream]
        handled.reads.append((stream, entry.version))
        context = Context(
            envelope.at, envelope.id, stream[len(by.name) + 1 :], envelope.correlation or envelope.tx, envelope.tx
        )
        state = entry.state
        try:
            if stream in self.stages.held:
                events = self.stages.plain(by, command, stream, envelope, memory)
                state = by.shape.new() if state is None else state
            else:
                if state is None:
                    if not by.deciders[type(command)].creates:
                        raise Rejected("not_found", f"there is no {stream}", stream=stream)
                    state = by.shape.new()
                events = decide(by, state, command, context)
        except Rejected as error:
            self.reject(error, by, stream, envelope, memory, handled)
            return
        answers = message_of(command).answers
        answer = events[0] if len(events) == 1 else next(event for event in events if isinstance(event, answers))
        handled.answer = answer
        self._append(by, events, answer, stream, state, envelope, memory, handled)

    def _append(
        self, by: AggregateType, events: tuple[Any, ...], answer: Any, stream: str, state: Any,
        envelope: Envelope, memory: Memory, handled: Handled,
    ) -> None:  # fmt: skip
        entry = memory[stream]
        before = entry.version
        handled.records += _event_records(events, answer, stream, before, envelope)
        for event in events:
            by.evolve(state, event)
        entry.version += len(events)
        entry.state = state
        handled.rows += snapshot_due(by, stream, entry, before, self._snapshot_every)

    def reject(
        self, error: Rejected, by: AggregateType | None, stream: str, envelope: Envelope, memory: Memory,
        handled: Handled,
    ) -> None:  # fmt: skip
        """Record a no: the events that go with it, and the answer, which counts as no version."""
        if error.events:
            if by is None:
                raise CommandFailed(f"{stream}: a rejection with events needs an aggregate to append them to")
            state = memory[stream].state or by.shape.new()
            self._append(by, error.events, None, stream, state, envelope, memory, handled)
        handled.answer = Rejection(error.code, error.message, error.facts)
        handled.records.append(_rejection_record(handled.answer, stream, envelope))

    def handler_of(self, command: MessageType) -> HandlerType | None:
        """The handler of a command that is handled in a transaction."""
        by = self.service.deciders.get(command.name)
        return by if isinstance(by, HandlerType) else None

    def accept_handled(
        self, events: tuple[Event, ...], answer: Event, stream: str, version: int, envelope: Envelope, handled: Handled
    ) -> None:
        """Record what a handler emitted, on its stream, which is at that version."""
        handled.answer = answer
        handled.records += _event_records(events, answer, stream, version, envelope)

    def reject_handled(self, no: Rejected, stream: str, version: int, envelope: Envelope, handled: Handled) -> None:
        """Record a handler's no, with the events that go with it."""
        handled.records += _event_records(as_events(no.events, stream), None, stream, version, envelope)
        handled.answer = Rejection(no.code, no.message, no.facts)
        handled.records.append(_rejection_record(handled.answer, stream, envelope))


def _event_records(events: Iterable[Any], answer: Any, stream: str, version: int, envelope: Envelope) -> list[Record]:
    """Records of events on a stream that is at that version; the answer's goes to the caller."""
    found: list[Record] = []
    for number, event in enumerate(events, version + 1):
        mine = event is answer
        found.append(
            Record(
                0, "event", message_of(event).stored, encode(event), envelope.tx, envelope.id, envelope.at,
                envelope.correlation, stream, number, envelope.caller if mine else "",
                envelope.headers(outcome=mine and envelope.edge, answers=mine and bool(envelope.answers)),
            )
        )  # fmt: skip
    return found


def _rejection_record(no: Rejection, stream: str, envelope: Envelope) -> Record:
    return Record(
        0, "answer", REJECTED, encode(no), envelope.tx, envelope.id, envelope.at,
        envelope.correlation, stream, 0, envelope.caller,
        envelope.headers(outcome=envelope.edge, answers=bool(envelope.answers)),
    )  # fmt: skip
