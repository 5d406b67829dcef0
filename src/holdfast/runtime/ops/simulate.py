"""Foretelling: how a transaction would go on after a repair, played to its end on copies, in memory.

The streams that the rest of it touches are folded from their records, wherever they are; the same deciders, sagas and
reactions as in the services run on them, and messages go from one to the other at once. What lies outside (an effect, a
handler's tables, a service that is not declared, staged commit) is not guessed: it is named in `unknown`, and the
transaction stays open there. Nothing is written. Comes after `runtime.ops.plan`, which says what one service would do.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from holdfast.core.frame import WireRecord, to_wire
from holdfast.core.mending import Verb
from holdfast.core.message import Context, Rejection, decode_stored, encode, message_of
from holdfast.core.record import CALL_OFF, REJECTED, Headers, Record, record_id
from holdfast.core.service import System
from holdfast.core.stage import CANCEL, CONFIRM
from holdfast.errors import HoldfastError
from holdfast.ports.store import Loaded
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.saga_records import Target
from holdfast.runtime.inbox.receive import handle_message, stream_of
from holdfast.runtime.log.streams import Memory

MESSAGES_MAX = 1_000
"""Messages that are played; a chain that is longer is said to be unknown."""
FIRST_POSITION = 10**15
"""Records that would be written get positions from here on: no log has come so far."""

Read = Callable[[str, str], list[Record]]
"""The records of a stream of a service, oldest first."""


class Foretelling:
    """The rest of one transaction, as it would be."""

    def __init__(self, system: System, read: Read, now_us: int) -> None:
        self._system, self._read, self._now = system, read, now_us
        self._dispatch = {name: Dispatch(service) for name, service in system.services.items()}
        self._memory = {name: Memory(one.folder_of) for name, one in self._dispatch.items()}
        self._todo: deque[tuple[str, Record]] = deque()
        self._position = FIRST_POSITION
        self._played = 0
        self.records: list[tuple[str, Record]] = []
        """(service, record) of all that would be recorded, causes before effects."""
        self.unknown: list[str] = []
        """What cannot be foretold, in sentences."""

    def mend(self, service: str, stream: str, verb: Verb, by: str, why: str) -> None:
        """A person's word on a saga, and all that follows. Raises Contradicted where it cannot be."""
        self._load(service, stream)
        first = self._read(service, stream)[0]
        envelope = Envelope(record_id(service, first.position), first.tx, self._now, first.correlation)
        handled = Handled()
        self._dispatch[service].sagas.mend(stream, verb, by, why, envelope, self._memory[service], handled)
        self._took(service, handled)
        self._play()

    def message(self, service: str, producer: str, record: WireRecord) -> None:
        """A message that waits is decided, and all that follows."""
        self._deliver(service, producer, record)
        self._play()

    def said(self, service: str, stored: str, data: bytes, command: Record) -> None:
        """An effect's outcome by a person's word: the event that it records; nothing for a no."""
        if stored != REJECTED:
            cause = record_id(service, command.position)
            event = Record(0, "event", stored, data, command.tx, cause, self._now, command.correlation)
            handled = Handled()
            handled.records.append(event)
            self._took(service, handled)

    def answer(self, service: str, stream: str, version: int, stored: str, data: bytes, tx: str) -> None:
        """A command of a saga is answered by a person's word, and all that follows."""
        self._answer(service, stream, version, stored, data, Envelope("repair", tx, self._now))
        self._play()

    def open_sagas(self, known: Iterable[tuple[str, str]]) -> list[str]:
        """Of these (service, stream), and of those that began, the sagas that would not have ended."""
        began = {(name, r.stream) for name, r in self.records if r.type == "holdfast.saga.begun"}
        found: list[str] = []
        for name, stream in dict.fromkeys((*known, *sorted(began))):
            self._load(name, stream)
            state = self._memory[name][stream].state
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
        dispatch, memory = self._dispatch[service], self._memory[service]
        stream = stream_of(dispatch, producer, record)
        if record.type == CALL_OFF:
            self._call_off(producer, record)
        elif record.headers.stage or record.type in (CONFIRM, CANCEL):
            self.unknown.append(f"how {service} votes on {record.type}: it is staged")
        elif stream.partition("/")[0] in dispatch.apart:
            self.unknown.append(f"what becomes of {record.type} in {service}: it is carried out outside of its log")
        else:
            try:
                if stream and not stream.startswith("?/"):
                    self._load(service, stream)
                self._took(service, handle_message(dispatch, memory, producer, record, stream, self._now))
            except (HoldfastError, LookupError) as error:
                self.unknown.append(f"{service} fails at {record.type}: {error}")
            except Exception as error:  # noqa: BLE001 - a handler's own failure is what would happen
                self.unknown.append(f"{service} fails at {record.type}: {type(error).__name__}: {error}")

    def _call_off(self, producer: str, record: WireRecord) -> None:
        """What is called off waits, or it would have been answered: it is answered `cancelled`."""
        version = msgspec.json.decode(record.data, type=Target).version
        no = Rejection("cancelled", "its caller called it off")
        envelope = Envelope(record_id(producer, record.position), record.tx, self._now, record.correlation)
        self._answer(producer, record.stream, version, REJECTED, encode(no), envelope)

    def _answer(self, service: str, stream: str, version: int, stored: str, data: bytes, envelope: Envelope) -> None:
        self._load(service, stream)
        handled = Handled()
        sagas, memory = self._dispatch[service].sagas, self._memory[service]
        sagas.answer(stream, version, stored, data, envelope, memory, handled)
        self._took(service, handled)

    def _load(self, service: str, stream: str) -> None:
        memory = self._memory[service]
        if memory.get(stream) is None:
            records = [record for record in self._read(service, stream) if record.version]
            memory.put(stream, Loaded(None, tuple(records)))

    def _took(self, service: str, handled: Handled) -> None:
        """Give positions to what was decided, and send it on its way."""
        for made in handled.records:
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
        handled = Handled()
        try:
            commands = reaction.react(decode_stored(home, record.type, record.data), context)
        except Exception as error:  # noqa: BLE001 - a reaction's own failure is what would happen
            self.unknown.append(f"{service} fails at {record.type}: {type(error).__name__}: {error}")
            return
        for command in commands:
            kind = message_of(command)
            headers = Headers(key=kind.key_of(command) if kind.key_fields else "")
            handled.records.append(
                Record(0, "command", kind.stored, encode(command), record.tx, cause, self._now, record.correlation,
                       destination=kind.contract, headers=headers)
            )  # fmt: skip
        self._took(service, handled)

    def _begin(self, service: str, saga: Any, producer: str, record: Record) -> None:
        cause = record_id(producer, record.position)
        stream, handled = f"{saga.name}/{cause}", Handled()
        self._memory[service].fresh(stream)
        event = decode_stored(saga.begin.home, record.type, record.data)
        envelope = Envelope(cause, record.tx, self._now, record.correlation)
        self._dispatch[service].sagas.begin(saga, event, stream, envelope, self._memory[service], handled)
        self._took(service, handled)
