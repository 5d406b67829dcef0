"""Stages: the locks of staged transactions on streams of this service, and what is allowed beside them.

A staged command is decided like any other command, on the committed state and the staged events of its own transaction.
Its events go into a row beside the log, its stream is locked, and the answer is a vote. Several transactions may lock
one stream if all of them only move escrow fields. The coordinator's decision moves all staged events of the transaction
into the log in one batch, or drops them. Dispatch comes before it, the writer after it. Fails with the error of a
decider that raises (then the vote is no) and with `StreamLocked`.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.core.declare.aggregate import AggregateType
from holdfast.core.declare.escrow import Differs, Moves, beside, decide, moves_of
from holdfast.core.declare.message import Command, Event, Rejection, decode_stored, encode, message_of
from holdfast.core.declare.service import Service
from holdfast.core.log.batch import Row
from holdfast.core.log.record import REJECTED, Record
from holdfast.core.saga.stage import DONE, HELD, Carried, Hold, Part
from holdfast.errors import Rejected
from holdfast.ports.store import Store
from holdfast.runtime.decide.decision import Decision, Envelope
from holdfast.runtime.decide.locks import Lock, StreamLocked
from holdfast.runtime.decide.snapshots import snapshot_due
from holdfast.runtime.log.rows import scanned


class Stages:
    """The locks of one service."""

    def __init__(self, service: Service, snapshot_every: int) -> None:
        self.service, self._snapshot_every = service, snapshot_every
        self.held: dict[str, dict[str, Lock]] = {}
        """Locks by stream, then by transaction; a stream has several only if all of them only move escrow fields."""
        self._of: dict[str, dict[str, Lock]] = {}
        """The same locks by transaction, then by stream."""
        self.decisions: dict[str, Carried] = {}
        """Decisions of transactions that were resolved here; each stays until the coordinator has sent
        its own decision."""
        self._sequence = 0

    async def reload(self, store: Store) -> None:
        """Read the locks from the store."""
        holds = [row async for row in scanned(store, "stage")]
        decisions = [row async for row in scanned(store, "decided")]
        self.held.clear()
        self._of.clear()
        for key, data in holds:
            stream, _, number = key.rpartition("#")
            self._sequence = max(self._sequence, int(number))
            self._put(stream, Lock(key, msgspec.json.decode(data, type=Hold)))
        self.decisions = {stage: msgspec.json.decode(data, type=Carried) for stage, data in decisions}

    def _put(self, stream: str, lock: Lock) -> None:
        stage = lock.hold.stage
        self.held.setdefault(stream, {})[stage] = lock
        self._of.setdefault(stage, {})[stream] = lock

    def _drop(self, stream: str, stage: str) -> None:
        for index, first, second in ((self.held, stream, stage), (self._of, stage, stream)):
            if (found := index.get(first)) is not None:
                found.pop(second, None)
                if not found:
                    del index[first]

    def holds(self, stream: str, stage: str) -> bool:
        """True if that transaction has a lock on the stream."""
        return stage in self.held.get(stream, ())

    def ages(self, stream: str) -> list[tuple[int, str]]:
        """The ages of the transactions that lock a stream."""
        return [lock.hold.age for lock in self.held.get(stream, {}).values()]

    def streams_of(self, stage: str) -> list[str]:
        """The streams that a transaction locks here."""
        return list(self._of.get(stage, ()))

    def of_tx(self, tx: str) -> list[Hold]:
        """All locks of a transaction, found by the transaction id that its records have."""
        return [lock.hold for locks in self._of.values() for lock in locks.values() if lock.hold.tx == tx]

    def items(self) -> Iterable[tuple[str, Hold]]:
        """(stream, hold) of every lock."""
        return ((stream, lock.hold) for stream, locks in self.held.items() for lock in locks.values())

    def hold(self, command: Command[Any], stream: str, stage: str, at: int, decision: Decision) -> None:
        """Decide a staged command and lock its stream; `at`: when its transaction began. Raises StreamLocked, and the
        error of a decider that raises."""
        decider = self.service.deciders[message_of(command).name]
        entry = decision.read(stream)
        mine = self.held.get(stream, {}).get(stage)
        try:
            if not isinstance(decider, AggregateType):
                raise Rejected("not_staged", f"{decider.name} is no aggregate: its commands cannot be staged")
            state = self._state(decider, entry.state, mine)
            if state is None and not decider.deciders[type(command)].creates:
                raise Rejected("not_found", f"there is no {stream}", stream=stream)
            state = decider.shape.new() if state is None else state
            events, moves = self._decide(decider, state, command, stream, stage, decision)
        except Rejected as no:
            answer = decision.answer = Rejection(no.code, no.message, no.facts)
            decision.vote(REJECTED, encode(answer), stream)
            return
        for event in events:
            decider.evolve(state, event)
        vote = next(event for event in events if isinstance(event, message_of(command).answers))
        kept = tuple((message_of(event).stored, msgspec.Raw(encode(event))) for event in events)
        envelope = decision.envelope
        part = Part(envelope.id, kept, envelope.hop, envelope.debug, envelope.traceparent)
        hold = mine.hold if mine else Hold(stage, at, envelope.at, envelope.tx, envelope.correlation)
        hold = msgspec.structs.replace(hold, parts=(*hold.parts, part), beside=moves is not None)
        lock = Lock(mine.key if mine else self._key(stream), hold, None, None if moves else state)
        decision.locked = (stream, stage, mine)
        self._put(stream, lock)
        decision.rows.append(Row("stage", lock.key, encode(hold)))
        decision.vote(HELD, encode({"type": message_of(vote).stored, "event": vote}), stream)

    def _key(self, stream: str) -> str:
        self._sequence += 1
        return f"{stream}#{self._sequence:012d}"

    def _decide(
        self, aggregate: AggregateType, state: Any, command: Any, stream: str, stage: str, decision: Decision
    ) -> tuple[tuple[Event, ...], Moves | None]:
        """(events, their escrow moves if they do nothing else). Raises StreamLocked and the decider's error."""
        locks = self.held.get(stream, {})
        mine = locks.get(stage)
        others = [lock for name, lock in locks.items() if name != stage]
        if not others:
            context = decision.envelope.context(stream[len(aggregate.name) + 1 :])
            events = decide(aggregate, state, command, context)
            alone = mine is not None and not mine.hold.beside
            return events, None if alone else moves_of(aggregate, state, events)
        return self._beside(aggregate, state, command, stream, others, decision)

    def _beside(
        self, aggregate: AggregateType, state: Any, command: Any, stream: str, others: list[Lock], decision: Decision
    ) -> tuple[tuple[Event, ...], Moves]:
        if not all(lock.hold.beside for lock in others):
            raise StreamLocked
        committed = decision.streams[stream].state
        try:
            moves = [self._moves(aggregate, committed, lock) for lock in others]
            context = decision.envelope.context(stream[len(aggregate.name) + 1 :])
            return beside(aggregate, state, command, context, moves)
        except Differs:
            raise StreamLocked from None

    def plain(self, aggregate: AggregateType, command: Any, stream: str, decision: Decision) -> tuple[Any, ...]:
        """The events of an ordinary command on a locked stream. Raises StreamLocked, or Rejected by its decider."""
        state = decision.streams[stream].state
        if state is None and not aggregate.deciders[type(command)].creates:
            raise StreamLocked  # the locking transaction may create the aggregate
        state = aggregate.shape.new() if state is None else state
        locks = list(self.held[stream].values())
        events, _ = self._beside(aggregate, state, command, stream, locks, decision)
        return events

    def _moves(self, aggregate: AggregateType, committed: Any, lock: Lock) -> Moves:
        """The escrow moves of a transaction on a stream; they do not depend on the state."""
        if lock.moves is None:
            events = [self._event(stored, data) for part in lock.hold.parts for stored, data in part.events]
            lock.moves = moves_of(aggregate, aggregate.shape.new() if committed is None else committed, events)
        if lock.moves is None:
            raise Differs
        return lock.moves

    def _event(self, stored: str, data: Any) -> Any:
        return decode_stored(self.service.contract, stored, bytes(data))

    def _state(self, aggregate: AggregateType, committed: Any, lock: Lock | None) -> Any:
        """A copy of the state as the transaction of the lock sees it; None if the stream does not exist."""
        if lock is None:
            return None if committed is None else aggregate.shape.copied(committed)
        if lock.state is not None:
            return aggregate.shape.copied(lock.state)
        state = aggregate.shape.new() if committed is None else aggregate.shape.copied(committed)
        for part in lock.hold.parts:
            for stored, data in part.events:
                aggregate.evolve(state, self._event(stored, data))
        return state

    def take_back(self, decision: Decision) -> None:
        """Undo the locks and remembered decisions of a decision that is not committed."""
        if decision.locked is not None:
            stream, stage, before = decision.locked
            self._drop(stream, stage)
            if before is not None:
                self._put(stream, before)
        for stream, lock in decision.unlocked.items():
            self._put(stream, lock)
        if decision.remembered is not None:
            stage, known = decision.remembered
            if known is None:
                self.decisions.pop(stage, None)
            else:
                self.decisions[stage] = known

    def remember(self, known: Carried, decision: Decision) -> None:
        """Keep a decision that did not come from the coordinator until the coordinator sends its own."""
        decision.remembered = (known.stage, self.decisions.get(known.stage))
        self.decisions[known.stage] = known
        decision.rows.append(Row("decided", known.stage, encode(known)))

    def forget(self, stage: str, decision: Decision) -> None:
        """Drop a remembered decision, since the coordinator has sent its own."""
        decision.remembered = (stage, self.decisions.pop(stage, None))
        decision.rows.append(Row("decided", stage, None))

    def carry_out(self, stage: str, decision: Decision, *, commit: bool, by: str = "") -> None:
        """End a transaction on all streams that it locks here. `by`: who decided, if not the coordinator."""
        for stream, lock in list(self._of.get(stage, {}).items()):
            decision.unlocked[stream] = lock
            if (entry := decision.streams.get(stream)) is not None:
                decision.reads.append((stream, entry.version))
            self._drop(stream, stage)
            decision.rows.append(Row("stage", lock.key, None))
            if commit:
                self._confirm(stream, lock.hold, decision)
        decision.vote(DONE, encode(Carried(stage, commit, by)))

    def _confirm(self, stream: str, hold: Hold, decision: Decision) -> None:
        aggregate = self.service.aggregates[stream.partition("/")[0]]
        entry, at = decision.streams[stream], decision.envelope.at
        before = entry.version
        if entry.state is None:
            entry.state = aggregate.shape.new()
        tx, correlation = hold.tx, hold.correlation
        for part in hold.parts:
            cause = part.cause
            headers = Envelope(cause, tx, at, correlation, part.hop, part.debug, part.traceparent).headers()
            for stored, data in part.events:
                entry.version += 1
                version = entry.version
                decision.records.append(
                    Record(0, "event", stored, bytes(data), tx, cause, at, correlation, stream, version, "", headers)
                )
                aggregate.evolve(entry.state, self._event(stored, data))
        decision.rows += snapshot_due(aggregate, stream, entry, before, self._snapshot_every)
