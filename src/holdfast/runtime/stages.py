"""Stages: what this service holds for staged transactions, and whose turn it is.

A staged command is decided like any other, against the committed state and what its own transaction holds; its events
become a row beside the log, its stream is locked, and the answer is a vote. The coordinator's decision puts them into
the log, all that this service holds of the transaction in one batch, or drops them. Comes between dispatch and the
writer. Fails with what a decider raises; that is a no.
"""

from typing import Any

import msgspec

from holdfast.core.aggregate import AggregateType
from holdfast.core.batch import Row
from holdfast.core.message import Command, Context, Rejection, decode_stored, encode, message_of
from holdfast.core.record import REJECTED, Record
from holdfast.core.service import Service
from holdfast.core.stage import CONFIRM, DONE, HELD, Hold, Part
from holdfast.errors import Rejected
from holdfast.ports.store import Store
from holdfast.runtime.envelope import Envelope, Handled
from holdfast.runtime.memory import Memory


class Held:
    """A locked stream: its row, and the state as it would be."""

    __slots__ = ("hold", "state")

    def __init__(self, hold: Hold, state: Any = None) -> None:
        self.hold = hold
        self.state = state
        """None until it is needed: after a restart it is made of the row."""


class Stages:
    """The locks of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.held: dict[str, Held] = {}
        """By stream."""

    async def start(self, store: Store) -> None:
        """Read the locks from the store."""
        self.held.clear()
        after = ""
        while rows := await store.scan("stage", after=after):
            for stream, data in rows:
                self.held[stream] = Held(msgspec.json.decode(data, type=Hold))
                after = stream

    def locked(self, stream: str) -> bool:
        """True while a transaction holds the stream."""
        return stream in self.held

    def streams_of(self, stage: str) -> list[str]:
        """What a transaction holds here."""
        return [stream for stream, held in self.held.items() if held.hold.stage == stage]

    def hold(
        self, command: Command[Any], stream: str, stage: str, at: int, envelope: Envelope, memory: Memory,
        handled: Handled,
    ) -> None:  # fmt: skip
        """Decide a staged command on a stream that is free, or held by its own transaction; hold what it decides."""
        by = self._service.deciders[message_of(command).name]
        entry = memory[stream]
        handled.reads.append((stream, entry.version))
        held = self.held.get(stream)
        try:
            if not isinstance(by, AggregateType):
                raise Rejected("not_staged", f"{by.name} is no aggregate: its commands cannot be staged")
            state = self._state(by, entry.state, held)
            if state is None and not by.deciders[type(command)].creates:
                raise Rejected("not_found", f"there is no {stream}", stream=stream)
            state = by.shape.new() if state is None else state
            key, label = stream[len(by.name) + 1 :], envelope.correlation or envelope.tx
            events = by.decide(state, command, Context(envelope.at, envelope.id, key, label, envelope.tx))
        except Rejected as no:
            answer = Rejection(no.code, no.message, no.facts)
            handled.answer = answer
            handled.records.append(_answer(REJECTED, encode(answer), stream, envelope))
            return
        for event in events:
            by.evolve(state, event)
        mine = next(event for event in events if isinstance(event, message_of(command).answers))
        kept = tuple((message_of(event).stored, msgspec.Raw(encode(event))) for event in events)
        part = Part(envelope.id, kept, envelope.hop, envelope.debug, envelope.traceparent)
        hold = held.hold if held else Hold(stage, at, envelope.at, envelope.tx, envelope.correlation)
        hold = msgspec.structs.replace(hold, parts=(*hold.parts, part))
        handled.held = (stream, held)
        self.held[stream] = Held(hold, state)
        handled.rows.append(Row("stage", stream, encode(hold)))
        vote = encode({"type": message_of(mine).stored, "event": mine})
        handled.records.append(_answer(HELD, vote, stream, envelope))

    def _state(self, by: AggregateType, committed: Any, held: Held | None) -> Any:
        """A copy of the state as its transaction sees it; None where the stream is absent."""
        if held is None:
            return None if committed is None else by.shape.decode(by.shape.encode(committed))
        if held.state is not None:
            return by.shape.decode(by.shape.encode(held.state))
        state = by.shape.new() if committed is None else by.shape.decode(by.shape.encode(committed))
        for part in held.hold.parts:
            for stored, data in part.events:
                by.evolve(state, decode_stored(self._service.contract, stored, bytes(data)))
        return state

    def take_back(self, handled: Handled) -> None:
        """What was held, or let go, is not committed: as before."""
        if handled.held is not None:
            stream, before = handled.held
            if before is None:
                self.held.pop(stream, None)
            else:
                self.held[stream] = before
        self.held |= handled.let_go

    def decided(
        self, stage: str, decision: str, streams: list[str], envelope: Envelope, memory: Memory, handled: Handled
    ) -> None:
        """Carry out the coordinator's decision on all that a transaction holds here."""
        for stream in streams:
            held = handled.let_go[stream] = self.held.pop(stream)
            handled.rows.append(Row("stage", stream, None))
            if decision == CONFIRM:
                self._confirm(stream, held.hold, envelope, memory, handled)
        handled.records.append(_answer(DONE, b"{}", "", envelope))

    def _confirm(self, stream: str, hold: Hold, envelope: Envelope, memory: Memory, handled: Handled) -> None:
        by = self._service.aggregates[stream.partition("/")[0]]
        entry = memory[stream]
        handled.reads.append((stream, entry.version))
        if entry.state is None:
            entry.state = by.shape.new()
        for part in hold.parts:
            inherited = Envelope(
                part.cause, hold.tx, envelope.at, hold.correlation, part.hop, part.debug, part.traceparent
            )
            for stored, data in part.events:
                entry.version += 1
                handled.records.append(
                    Record(
                        0, "event", stored, bytes(data), hold.tx, part.cause, envelope.at, hold.correlation, stream,
                        entry.version, "", inherited.headers(),
                    )
                )  # fmt: skip
                by.evolve(entry.state, decode_stored(self._service.contract, stored, bytes(data)))


def _answer(stored: str, data: bytes, stream: str, envelope: Envelope) -> Record:
    return Record(
        0, "answer", stored, data, envelope.tx, envelope.id, envelope.at, envelope.correlation, stream, 0,
        envelope.caller, envelope.headers(answers=bool(envelope.answers)),
    )  # fmt: skip
