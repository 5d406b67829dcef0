"""Simulating: how a transaction would go on after a repair, played to its end on copies, in memory.

The streams that the rest of it touches are folded from their records, wherever they are; the same deciders, sagas and
reactions as in the services run on them, and messages go from one to the other at once. What lies outside (an effect, a
handler's tables, a service that is not declared, staged commit) is not guessed: it is named in `unknown`, and the
transaction stays open there. Nothing is written. Comes after `runtime.ops.plan`, which says what one service would do.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from holdfast.core.declare.message import Context, Rejection, decode_stored, encode, message_of
from holdfast.core.log.record import BEGUN, CANCEL_COMMAND, REJECTED, Headers, Record, record_id
from holdfast.core.saga.repair import Verb
from holdfast.core.saga.stage import CANCEL, CONFIRM
from holdfast.core.system import System
from holdfast.core.wire.frame import WireRecord, to_wire
from holdfast.errors import HoldfastError
from holdfast.ports.store import Loaded
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.saga_records import Target
from holdfast.runtime.inbox.deliver import deliver, envelope_of, stream_of
from holdfast.runtime.log.streams import Streams

MESSAGES_MAX = 1_000
"""Messages that are played; a chain that is longer is said to be unknown."""
FIRST_POSITION = 10**15
"""Records that would be written get positions from here on: no log has come so far."""

Read = Callable[[str, str], list[Record]]
"""The records of a stream of a service, oldest first."""


class Simulation:
    """The rest of one transaction, as it would be."""

    def __init__(self, system: System, read: Read, now_us: int) -> None:
        self._system, self._read, self._now = system, read, now_us
        self._dispatch = {name: Dispatch(service) for name, service in system.services.items()}
        self._streams = {name: Streams(one.folder_of) for name, one in self._dispatch.items()}
        self._todo: deque[tuple[str, Record]] = deque()
        self._position = FIRST_POSITION
        self._played = 0
        self.records: list[tuple[str, Record]] = []
        """(service, record) of all that would be recorded, causes before effects."""
        self.unknown: list[str] = []
        """What cannot be simulated, in sentences."""

    def repair(self, service: str, stream: str, verb: Verb, by: str, why: str) -> None:
        """An operator's repair of a saga, and all that follows. Raises Contradicted where it cannot be."""
        self._load(service, stream)
        first = self._read(service, stream)[0]
        envelope = Envelope(record_id(service, first.position), first.tx, self._now, first.correlation)
        decision = Decision(envelope, self._streams[service])
        self._dispatch[service].sagas.repair(stream, verb, by, why, decision)
        self._took(service, decision.records)
        self._play()

    def message(self, service: str, producer: str, record: WireRecord) -> None:
        """A message that waits is decided, and all that follows."""
        self._deliver(service, producer, record)
        self._play()

    def said(self, service: str, stored: str, data: bytes, command: Record) -> None:
        """An effect's outcome by an operator: the event that it records; nothing for a no."""
        if stored != REJECTED:
            cause = record_id(service, command.position)
            event = Record(0, "event", stored, data, command.tx, cause, self._now, command.correlation)
            self._took(service, [event])

    def answer(self, service: str, stream: str, version: int, stored: str, data: bytes, tx: str) -> None:
        """A command of a saga is answered by an operator, and all that follows."""
        self._answer(service, stream, version, stored, data, Envelope("repair", tx, self._now))
        self._play()

    def open_sagas(self, known: Iterable[tuple[str, str]]) -> list[str]:
        """Of these (service, stream), and of those that began, the sagas that would not have ended."""
        began = {(name, r.stream) for name, r in self.records if r.type == BEGUN}
        found: list[str] = []
        for name, stream in dict.fromkeys((*known, *sorted(began))):
            self._load(name, stream)
            state = self._streams[name][stream].state
            if state is not None and not state.ended:
                found.append(f"{stream} would be {state.status}")
        return found

    def _play(self) -> None:
        while self._todo:
            self._played += 1
            if self._played > MESSAGES_MAX:
                self.unknown.append(f"more than {MESSAGES_MAX} messages follow")
                return
            producer, record = self._todo.popleft()
            if record.destination in self._dispatch:
                self._deliver(record.destination, producer, to_wire(record))
            else:
                self.unknown.append(f"what {record.destination} makes of {record.type}: it is not declared here")

    def _deliver(self, service: str, producer: str, record: WireRecord) -> None:
        dispatch, streams = self._dispatch[service], self._streams[service]
        stream = stream_of(dispatch, producer, record)
        if record.type == CANCEL_COMMAND:
            self._cancel(producer, record)
        elif record.headers.stage or record.type in (CONFIRM, CANCEL):
            self.unknown.append(f"how {service} votes on {record.type}: it is staged")
        elif stream.partition("/")[0] in dispatch.apart:
            self.unknown.append(f"what becomes of {record.type} in {service}: it is carried out outside of its log")
        else:
            try:
                if stream and not stream.startswith("?/"):
                    self._load(service, stream)
                decision = Decision(envelope_of(producer, record, self._now), streams)
                self._took(service, deliver(dispatch, producer, record, stream, decision).records)
            except (HoldfastError, LookupError) as error:
                self.unknown.append(f"{service} fails at {record.type}: {error}")
            except Exception as error:  # noqa: BLE001 - a handler's own failure is what would happen
                self.unknown.append(f"{service} fails at {record.type}: {type(error).__name__}: {error}")

    def _cancel(self, producer: str, record: WireRecord) -> None:
        """What is cancelled waits, or it would have been answered: it is answered `cancelled`."""
        version = msgspec.json.decode(record.data, type=Target).version
        no = Rejection("cancelled", "its caller called it off")
        envelope = Envelope(record_id(producer, record.position), record.tx, self._now, record.correlation)
        self._answer(producer, record.stream, version, REJECTED, encode(no), envelope)

    def _answer(self, service: str, stream: str, version: int, stored: str, data: bytes, envelope: Envelope) -> None:
        self._load(service, stream)
        decision = Decision(envelope, self._streams[service])
        self._dispatch[service].sagas.answer(stream, version, stored, data, decision)
        self._took(service, decision.records)

    def _load(self, service: str, stream: str) -> None:
        streams = self._streams[service]
        if streams.get(stream) is None:
            records = [record for record in self._read(service, stream) if record.version]
            streams.put(stream, Loaded(None, tuple(records)))

    def _took(self, service: str, records: Iterable[Record]) -> None:
        """Give positions to what was decided, and send it on its way."""
        for made in records:
            self._position += 1
            record = msgspec.structs.replace(made, position=self._position)
            self.records.append((service, record))
            if record.destination:
                self._todo.append((service, record))
            if record.kind == "event":
                self._feed(service, record)

    def _feed(self, producer: str, record: Record) -> None:
        """Reactions to an event, and the sagas that it begins."""
        for name, service in self._system.services.items():
            for reaction in service.reactions.values():
                if record.type in reaction.events:
                    self._react(name, reaction.events[record.type].home, reaction, producer, record)
            for saga in service.sagas.values():
                if saga.begin.stored == record.type:
                    self._begin(name, saga, producer, record)

    def _react(self, service: str, home: Any, reaction: Any, producer: str, record: Record) -> None:
        cause = record_id(producer, record.position)
        label = record.correlation or record.tx
        context = Context(self._now, cause, record.stream.partition("/")[2], label, record.tx)
        try:
            commands = reaction.react(decode_stored(home, record.type, record.data), context)
        except Exception as error:  # noqa: BLE001 - a reaction's own failure is what would happen
            self.unknown.append(f"{service} fails at {record.type}: {type(error).__name__}: {error}")
            return
        self._took(service, [self._sent(command, cause, record) for command in commands])

    def _sent(self, command: Any, cause: str, event: Record) -> Record:
        """The record of a command that a reaction sends."""
        kind, data = message_of(command), encode(command)
        headers = Headers(key=kind.key_of(command) if kind.key_fields else "")
        tx, at, correlation = event.tx, self._now, event.correlation
        return Record(
            0, "command", kind.stored, data, tx, cause, at, correlation, destination=kind.contract, headers=headers
        )

    def _begin(self, service: str, saga: Any, producer: str, record: Record) -> None:
        cause, streams = record_id(producer, record.position), self._streams[service]
        stream = f"{saga.name}/{cause}"
        streams.fresh(stream)
        event = decode_stored(saga.begin.home, record.type, record.data)
        decision = Decision(Envelope(cause, record.tx, self._now, record.correlation), streams)
        self._dispatch[service].sagas.begin(saga, event, stream, decision)
        self._took(service, decision.records)
