"""Stages: what this service holds for staged transactions, and what may go on beside it.

A staged command is decided like any other, against the committed state and what its own transaction holds; its events
become a row beside the log, its stream is locked, and the answer is a vote. Moves of escrow fields are held side by
side. The coordinator's decision puts all that a transaction holds here into the log, in one batch, or drops it. Comes
between dispatch and the writer. Fails with what a decider raises (that is a no), and `StreamHeld`.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.core.aggregate import AggregateType
from holdfast.core.batch import Row
from holdfast.core.escrow import Differs, Moves, beside, decide, moves_of
from holdfast.core.message import Command, Context, Event, Rejection, decode_stored, encode, message_of
from holdfast.core.record import REJECTED, Record
from holdfast.core.service import Service
from holdfast.core.stage import DONE, HELD, Carried, Hold, Part
from holdfast.errors import Rejected
from holdfast.ports.store import Store
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.log.streams import Entry, Memory


class StreamHeld(Exception):
    """Another transaction holds the stream, and what is asked must wait for it."""


class Held:
    """What one transaction holds of a stream: its row, and what it means."""

    __slots__ = ("hold", "key", "moves", "state")

    def __init__(self, key: str, hold: Hold, moves: Moves | None = None, state: Any = None) -> None:
        self.key, self.hold, self.moves = key, hold, moves
        """`moves`: of escrow fields, where it holds nothing else; others may then move them too."""
        self.state = state
        """As it would be, of a stream held alone; None until it is needed: it is made of the row then."""


class Stages:
    """The locks of one service."""

    def __init__(self, service: Service, snapshot_every: int) -> None:
        self._service, self._snapshot_every = service, snapshot_every
        self.held: dict[str, dict[str, Held]] = {}
        """By stream, then by transaction; several only where all of them move escrow fields."""
        self._of: dict[str, dict[str, Held]] = {}
        """The same by transaction, then by stream."""
        self.decisions: dict[str, Carried] = {}
        """Of transactions that were resolved here, until their coordinator has told its decision."""
        self._sequence = 0

    async def start(self, store: Store) -> None:
        """Read the locks from the store."""
        self.held.clear()
        self._of.clear()
        after = ""
        while rows := await store.scan("stage", after=after):
            for key, data in rows:
                stream, _, number = key.rpartition("#")
                self._sequence = max(self._sequence, int(number))
                self._put(stream, Held(key, msgspec.json.decode(data, type=Hold)))
                after = key
        self.decisions.clear()
        after = ""
        while rows := await store.scan("decided", after=after):
            self.decisions |= {stage: msgspec.json.decode(data, type=Carried) for stage, data in rows}
            after = rows[-1][0]

    def _put(self, stream: str, held: Held) -> None:
        stage = held.hold.stage
        self.held.setdefault(stream, {})[stage] = held
        self._of.setdefault(stage, {})[stream] = held

    def _drop(self, stream: str, stage: str) -> None:
        for index, first, second in ((self.held, stream, stage), (self._of, stage, stream)):
            if (found := index.get(first)) is not None:
                found.pop(second, None)
                if not found:
                    del index[first]

    def holds(self, stream: str, stage: str) -> bool:
        """True when that transaction holds something of the stream."""
        return stage in self.held.get(stream, ())

    def ages(self, stream: str) -> list[tuple[int, str]]:
        """Of the transactions that hold a stream."""
        return [held.hold.age for held in self.held.get(stream, {}).values()]

    def streams_of(self, stage: str) -> list[str]:
        """What a transaction holds here."""
        return list(self._of.get(stage, ()))

    def of_tx(self, tx: str) -> list[Hold]:
        """All that is held for a transaction, by the id that its records have."""
        return [held.hold for helds in self._of.values() for held in helds.values() if held.hold.tx == tx]

    def items(self) -> Iterable[tuple[str, Hold]]:
        """(stream, hold) of all that is held."""
        return ((stream, held.hold) for stream, helds in self.held.items() for held in helds.values())

    def hold(
        self, command: Command[Any], stream: str, stage: str, at: int, envelope: Envelope, memory: Memory,
        handled: Handled,
    ) -> None:  # fmt: skip
        """Decide a staged command, and hold what it decides. Raises StreamHeld, and what the decider raises."""
        by = self._service.deciders[message_of(command).name]
        entry = memory[stream]
        handled.reads.append((stream, entry.version))
        mine = self.held.get(stream, {}).get(stage)
        try:
            if not isinstance(by, AggregateType):
                raise Rejected("not_staged", f"{by.name} is no aggregate: its commands cannot be staged")
            state = self._state(by, entry.state, mine)
            if state is None and not by.deciders[type(command)].creates:
                raise Rejected("not_found", f"there is no {stream}", stream=stream)
            state = by.shape.new() if state is None else state
            events, moves = self._decide(by, state, command, stream, stage, envelope, memory)
        except Rejected as no:
            answer = Rejection(no.code, no.message, no.facts)
            handled.answer = answer
            handled.records.append(_answer(REJECTED, encode(answer), stream, envelope))
            return
        for event in events:
            by.evolve(state, event)
        vote = next(event for event in events if isinstance(event, message_of(command).answers))
        kept = tuple((message_of(event).stored, msgspec.Raw(encode(event))) for event in events)
        part = Part(envelope.id, kept, envelope.hop, envelope.debug, envelope.traceparent)
        hold = mine.hold if mine else Hold(stage, at, envelope.at, envelope.tx, envelope.correlation)
        hold = msgspec.structs.replace(hold, parts=(*hold.parts, part), beside=moves is not None)
        held = Held(mine.key if mine else self._key(stream), hold, None, None if moves else state)
        handled.held = (stream, stage, mine)
        self._put(stream, held)
        handled.rows.append(Row("stage", held.key, encode(hold)))
        answer = encode({"type": message_of(vote).stored, "event": vote})
        handled.records.append(_answer(HELD, answer, stream, envelope))

    def _key(self, stream: str) -> str:
        self._sequence += 1
        return f"{stream}#{self._sequence:012d}"

    def _decide(
        self, by: AggregateType, state: Any, command: Any, stream: str, stage: str, envelope: Envelope, memory: Memory
    ) -> tuple[tuple[Event, ...], Moves | None]:
        """(events, what they move where that is all they do). Raises StreamHeld, and what the decider raises."""
        helds = self.held.get(stream, {})
        mine = helds.get(stage)
        others = [held for name, held in helds.items() if name != stage]
        if not others:
            events = decide(by, state, command, self._context(by, stream, envelope))
            alone = mine is not None and not mine.hold.beside
            return events, None if alone else moves_of(by, state, events)
        return self._beside(by, state, command, stream, others, envelope, memory)

    def _beside(
        self, by: AggregateType, state: Any, command: Any, stream: str, others: list[Held], envelope: Envelope,
        memory: Memory,
    ) -> tuple[tuple[Event, ...], Moves]:  # fmt: skip
        if not all(held.hold.beside for held in others):
            raise StreamHeld
        committed = memory[stream].state
        try:
            moves = [self._moves(by, committed, held) for held in others]
            return beside(by, state, command, self._context(by, stream, envelope), moves)
        except Differs:
            raise StreamHeld from None

    def plain(
        self, by: AggregateType, command: Any, stream: str, envelope: Envelope, memory: Memory
    ) -> tuple[Any, ...]:
        """The events of a command that is not staged, on a stream that is held. Raises StreamHeld, or its no."""
        state = memory[stream].state
        if state is None and not by.deciders[type(command)].creates:
            raise StreamHeld  # it may come to be
        state = by.shape.new() if state is None else state
        events, _ = self._beside(by, state, command, stream, list(self.held[stream].values()), envelope, memory)
        return events

    @staticmethod
    def _context(by: AggregateType, stream: str, envelope: Envelope) -> Context:
        key, label = stream[len(by.name) + 1 :], envelope.correlation or envelope.tx
        return Context(envelope.at, envelope.id, key, label, envelope.tx)

    def _moves(self, by: AggregateType, committed: Any, held: Held) -> Moves:
        """What a transaction holds of a stream's escrow fields: the same from whatever state it is looked at."""
        if held.moves is None:
            events = [self._event(stored, data) for part in held.hold.parts for stored, data in part.events]
            held.moves = moves_of(by, by.shape.new() if committed is None else committed, events)
        if held.moves is None:
            raise Differs
        return held.moves

    def _event(self, stored: str, data: Any) -> Any:
        return decode_stored(self._service.contract, stored, bytes(data))

    def _state(self, by: AggregateType, committed: Any, held: Held | None) -> Any:
        """A copy of the state as its transaction sees it; None where the stream is absent."""
        if held is None:
            return None if committed is None else by.shape.copied(committed)
        if held.state is not None:
            return by.shape.copied(held.state)
        state = by.shape.new() if committed is None else by.shape.copied(committed)
        for part in held.hold.parts:
            for stored, data in part.events:
                by.evolve(state, self._event(stored, data))
        return state

    def take_back(self, handled: Handled) -> None:
        """What was held, or let go, is not committed: as before."""
        if handled.held is not None:
            stream, stage, before = handled.held
            self._drop(stream, stage)
            if before is not None:
                self._put(stream, before)
        for stream, held in handled.let_go.items():
            self._put(stream, held)
        if handled.decided is not None:
            self._decide_again(*handled.decided)

    def _decide_again(self, stage: str, known: Carried | None) -> None:
        if known is None:
            self.decisions.pop(stage, None)
        else:
            self.decisions[stage] = known

    def remember(self, known: Carried, handled: Handled) -> None:
        """Keep a decision that did not come from the coordinator until it tells its own."""
        handled.decided = (known.stage, self.decisions.get(known.stage))
        self.decisions[known.stage] = known
        handled.rows.append(Row("decided", known.stage, encode(known)))

    def forget(self, stage: str, handled: Handled) -> None:
        """The coordinator has told its decision."""
        handled.decided = (stage, self.decisions.pop(stage, None))
        handled.rows.append(Row("decided", stage, None))

    def decided(
        self, stage: str, *, commit: bool, envelope: Envelope, memory: Memory, handled: Handled, by: str = ""
    ) -> None:
        """Carry out a decision on all that a transaction holds here. `by`: who took it, if not the coordinator."""
        for stream, held in list(self._of.get(stage, {}).items()):
            handled.let_go[stream] = held
            if (entry := memory.get(stream)) is not None:
                handled.reads.append((stream, entry.version))
            self._drop(stream, stage)
            handled.rows.append(Row("stage", held.key, None))
            if commit:
                self._confirm(stream, held.hold, envelope, memory, handled)
        self.done(stage, commit, envelope, handled, by=by)

    @staticmethod
    def done(stage: str, commit: bool, envelope: Envelope, handled: Handled, *, by: str = "") -> None:
        """Record that a decision is carried out; where the coordinator told it, this answers it."""
        handled.records.append(_answer(DONE, encode(Carried(stage, commit, by)), "", envelope))

    def _confirm(self, stream: str, hold: Hold, envelope: Envelope, memory: Memory, handled: Handled) -> None:
        by = self._service.aggregates[stream.partition("/")[0]]
        entry = memory[stream]
        before = entry.version
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
                by.evolve(entry.state, self._event(stored, data))
        handled.rows += snapshot_due(by, stream, entry, before, self._snapshot_every)


def snapshot_due(by: AggregateType, stream: str, entry: Entry, before: int, every: int) -> list[Row]:
    """The row of a snapshot, where the stream has come past the next one since version `before`."""
    if entry.version // every == before // every:
        return []
    shape, data = by.shape.fingerprint, msgspec.Raw(by.shape.encode(entry.state))
    return [Row("snapshot", stream, encode({"version": entry.version, "shape": shape, "data": data}))]


def _answer(stored: str, data: bytes, stream: str, envelope: Envelope) -> Record:
    return Record(
        0, "answer", stored, data, envelope.tx, envelope.id, envelope.at, envelope.correlation, stream, 0,
        envelope.caller, envelope.headers(answers=bool(envelope.answers)),
    )  # fmt: skip
