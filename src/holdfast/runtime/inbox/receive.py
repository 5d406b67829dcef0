"""Received messages on their way through the writer: which stream one is for, and how it is decided or set aside.

Comes between what receives (exchange, and waiting for what was set aside) and dispatch, sagas and stages. What a
handler raises sets its message aside, where it waits; a staged command that fails votes no. The cursor of the
conversation moves in the same batch.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.core.batch import Batch, Cursor, Duplicate, Move, Row
from holdfast.core.frame import WireRecord
from holdfast.core.message import decode_stored, encode
from holdfast.core.record import record_id
from holdfast.core.saga import SagaType
from holdfast.core.stage import CANCEL, CONFIRM, DIED, HELD, Carried, Decision, Vote, gives_way, read, stage_of
from holdfast.errors import Rejected, StoreError
from holdfast.runtime.decide.decision import Envelope, Handled
from holdfast.runtime.decide.dispatch import Dispatch
from holdfast.runtime.decide.stages import StreamHeld
from holdfast.runtime.log.streams import Memory

if TYPE_CHECKING:
    from holdfast.runtime.inbox.message import Held, Place
    from holdfast.runtime.inbox.waiting import Waiting

logger = logging.getLogger("holdfast.received")

CONFLICTS_MAX = 5
"""Tries of a work whose cursor is not where it was left: a neighbour in its group may have been the reason once."""

Ended = Callable[[Exception | None], None]
"""Told that a received message is durable, or why it is not."""


def once_more(tries: int, producer: str) -> int:
    """One more try of a work that moves a cursor. Raises StoreError after too many: then it does not stand where this
    process left it, and who sent the message is told, so that both look anew."""
    if tries >= CONFLICTS_MAX:
        raise StoreError(f"the cursor of {producer} stands elsewhere than this process left it")
    return tries + 1


def stream_of(dispatch: Dispatch, producer: str, record: WireRecord) -> str:
    """The stream a message is for; `?/...` when this service has none for it; empty for an answer nobody waits for."""
    if record.kind != "command":
        stream = record.headers.answers.rpartition("#")[0]
        if not stream:
            return ""
        return stream if stream.partition("/")[0] in dispatch.service.sagas else f"?/{stream}"
    found = dispatch.service.contract.find(record.type)
    by = dispatch.service.deciders.get(found[0].name) if found else None
    if by is None:
        return f"?/{record.type}/{record.headers.key}"
    if isinstance(by, SagaType):
        return f"{by.name}/{record_id(producer, record.position)}"
    return f"{by.name}/{record.headers.key}"


def stream_now(dispatch: Dispatch, stream: str, held: "Held") -> str:
    """The stream that a message waits on by what this service is now; it may have been another once."""
    return stream if held.feed else stream_of(dispatch, held.producer, held.record) or stream


def known(dispatch: Dispatch, held: "Held") -> bool:
    """Whether this release knows the type of a message that waits, in its version."""
    record, service = held.record, dispatch.service
    stored, contract = record.type, service.contract
    if stored == HELD:
        with contextlib.suppress(msgspec.DecodeError):
            stored = msgspec.json.decode(record.data, type=Vote).type
    if record.kind != "command":
        saga = service.sagas.get(record.headers.answers.partition("/")[0])
        contract = saga.contracts.get(stored.partition(".")[0]) if saga else None
    return bool(held.feed) or stored.startswith("holdfast.") or bool(contract and contract.find(stored))


def _told(producer: str, record: WireRecord) -> str:
    """Of which transaction's attempt a decision is."""
    try:
        return stage_of(producer, record.stream, msgspec.json.decode(record.data, type=Decision).attempt)
    except msgspec.DecodeError:
        return "?"


def envelope_of(producer: str, record: WireRecord, at: int, edited: str = "") -> Envelope:
    """The envelope of a received message; its id is that of the repair that changed it, where one has."""
    headers = record.headers
    asked = record.kind == "command" and bool(record.stream)  # a reaction's command has no stream: nobody waits
    return Envelope(
        edited or record_id(producer, record.position), record.tx, at, record.correlation, headers.hop, headers.debug,
        headers.traceparent, producer if asked else "", f"{record.stream}#{record.version}" if asked else "",
        headers.edge,
    )  # fmt: skip


def open_message(dispatch: Dispatch, held: "Held", at: int) -> tuple[Any, Envelope]:
    """A command that waits, and its envelope. Raises Invalid."""
    command = decode_stored(dispatch.service.contract, held.record.type, bytes(held.record.data))
    return command, envelope_of(held.producer, held.record, at, held.edited)


def handle_message(
    dispatch: Dispatch, memory: Memory, producer: str, record: WireRecord, stream: str, at: int, *, edited: str = ""
) -> Handled:
    """Decide one received message for a stream, which is in memory; `edited`: the id of the repair that changed it.
    Raises what the handler raises."""
    headers, is_command = record.headers, record.kind == "command"
    envelope = envelope_of(producer, record, at, edited)
    if is_command and record.type == CONFIRM:
        raise LookupError(f"nothing is held for {_told(producer, record)}, and it is to be confirmed")
    if stream.startswith("?/"):
        raise LookupError(f"{dispatch.service.name} has no handler for {record.type} ({stream[2:]})")
    if is_command and headers.stage:
        return hold_message(dispatch, memory, producer, record, stream, envelope)
    if is_command:
        command = decode_stored(dispatch.service.contract, record.type, bytes(record.data))
        return dispatch.command(command, stream, envelope, memory)
    handled = Handled()
    if stream:
        version = int(headers.answers.rpartition("#")[2])
        dispatch.sagas.answer(stream, version, record.type, bytes(record.data), envelope, memory, handled)
    return handled


def hold_message(
    dispatch: Dispatch, memory: Memory, producer: str, record: WireRecord, stream: str, envelope: Envelope
) -> Handled:
    """Decide a staged command and hold what comes of it; whatever its decider raises is a no."""
    handled = Handled()
    try:
        stage, (began, _) = read(producer, record.stream, record.headers.stage)
        command = decode_stored(dispatch.service.contract, record.type, bytes(record.data))
        dispatch.stages.hold(command, stream, stage, began, envelope, memory, handled)
    except StreamHeld:
        raise
    except Exception as error:
        logger.warning("a staged command failed, and so votes no", extra={"stream": stream}, exc_info=error)
        handled = Handled()
        dispatch.reject(Rejected("failed", type(error).__name__), None, stream, envelope, memory, handled)
    return handled


def decide_stage(
    waiting: "Waiting", stage: str, commit: bool, envelope: Envelope, *, by: str = ""
) -> "tuple[Handled, list[tuple[str, int, Place]]]":
    """Carry out a decision on all that its transaction holds here, and on what of it waits, which is taken out."""
    dispatch, handled = waiting.dispatch, Handled()
    gone = waiting.take_out(stage)
    for stream, _, place in gone:
        held = place.held
        handled.rows.append(Row("waiting", place.key, None))
        cancelled = Rejected("cancelled", "its transaction was cancelled")
        there = envelope_of(held.producer, held.record, envelope.at)
        dispatch.reject(cancelled, None, stream, there, waiting.memory, handled)
    dispatch.stages.decided(stage, commit=commit, envelope=envelope, memory=waiting.memory, handled=handled, by=by)
    return handled, gone


def told_again(waiting: "Waiting", known: Carried, commit: bool, envelope: Envelope) -> Handled:
    """Answer the coordinator about what was resolved here before it could tell: done, or mixed."""
    handled = Handled()
    if known.commit == commit:
        waiting.dispatch.stages.done(known.stage, commit, envelope, handled)
    else:
        how = "committed" if known.commit else "cancelled"
        logger.error("%s was %s here by %s, and its coordinator decided otherwise", known.stage, how, known.by)
        no = Rejected("mixed", f"it was {how} here by {known.by}")
        waiting.dispatch.reject(no, None, "", envelope, waiting.memory, handled)
    waiting.dispatch.stages.forget(known.stage, handled)
    return handled


def answer_unheard(waiting: "Waiting", place: "Place", no: Rejected, at: int, handled: Handled) -> None:
    """Answer a command that waits, in the place of its decider, and let it wait no more."""
    held = place.held
    envelope = envelope_of(held.producer, held.record, at, held.edited)
    waiting.dispatch.reject(no, None, place.key.rpartition("#")[0], envelope, waiting.memory, handled)
    if envelope.edge:
        handled.settled.append((envelope.tx, handled.answer, len(handled.records) - 1))
    handled.rows.append(Row("waiting", place.key, None))


class MessageWork:
    """One received message on its way through the writer."""

    __slots__ = (
        "_before",
        "_ended",
        "_gone",
        "_handled",
        "_incarnation",
        "_place",
        "_producer",
        "_record",
        "_stage",
        "_stream",
        "_tries",
        "_waiting",
        "lane",
        "streams",
    )  # fmt: skip

    def __init__(
        self, waiting: "Waiting", producer: str, incarnation: str, before: int, record: WireRecord,
        ended: Ended | None,
    ) -> None:  # fmt: skip
        self._waiting, self._producer, self._incarnation = waiting, producer, incarnation
        self._before, self._record, self._ended, self._tries = before, record, ended, 0
        self._stream = stream_of(waiting.dispatch, producer, record)
        self.lane = producer
        self.streams: Sequence[str] = (self._stream,) if self._stream and not self._stream.startswith("?/") else ()
        self._stage = ""
        self._gone: list[tuple[str, int, Place]] = []
        if record.kind == "command" and record.type in (CONFIRM, CANCEL):
            self._stage = _told(producer, record)
            self.streams = waiting.dispatch.stages.streams_of(self._stage)
        self._handled: Handled | None = None
        self._place: Place | None = None

    def handle(self) -> Batch | None:
        """Decide the message, or set it aside; the cursor moves in either case."""
        waiting, record, stream = self._waiting, self._record, self._stream
        self._handled = None
        self._tries = once_more(self._tries, self._producer)
        move = Move(f"exchange:{self._producer}", self._before, Cursor(self._incarnation, record.position))
        if self._stage:
            return self._decided(move)
        try:
            staged = read(self._producer, record.stream, record.headers.stage) if self._is_staged else None
        except ValueError as error:
            return self._hold(move, error)
        if staged and staged[0] in waiting.dispatch.stages.decisions:
            return self._no(move, Rejected("resolved", "its transaction was resolved here, by force"))
        mine = staged is not None and waiting.dispatch.stages.holds(stream, staged[0])
        if stream and not mine and (waiting.holds(stream) or (staged and waiting.parked(stream))):
            return self._behind(move, staged)
        if waiting.apart(stream):
            return self._hold(move, None)  # so that a handler or an effect holds up nothing but its own stream
        try:
            at = waiting.clock.now_us()
            handled = self._handled = handle_message(
                waiting.dispatch, waiting.memory, self._producer, record, stream, at
            )
        except StreamHeld:
            return self._behind(move, staged)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, its message waits
            waiting.memory.forget(self.streams)
            self._handled = None
            return self._hold(move, error)
        return Batch(tuple(handled.records), tuple(handled.reads), (move,), tuple(handled.rows))

    @property
    def _is_staged(self) -> bool:
        return bool(self._record.headers.stage) and self._record.kind == "command"

    def _behind(self, move: Move, staged: tuple[str, tuple[int, str]] | None) -> Batch:
        """It waits for who is before it, or says no at once: staged and younger, or one too many."""
        waiting, stream = self._waiting, self._stream
        if staged is not None:
            if waiting.failing(stream) or gives_way(staged[1], waiting.ages(stream)):
                return self._no(move, Rejected(DIED, f"an older transaction is before it on {stream}"))
        elif self._record.headers.early and waiting.full(stream):
            return self._no(move, Rejected("busy", f"too many messages wait on {stream}"))
        return self._hold(move, None)

    def _no(self, move: Move, no: Rejected) -> Batch:
        handled = self._handled = Handled()
        waiting = self._waiting
        envelope = envelope_of(self._producer, self._record, waiting.clock.now_us())
        waiting.dispatch.reject(no, None, self._stream, envelope, waiting.memory, handled)
        return Batch(tuple(handled.records), moves=(move,))

    def _decided(self, move: Move) -> Batch:
        waiting, stage, commit = self._waiting, self._stage, self._record.type == CONFIRM
        stages = waiting.dispatch.stages
        envelope = envelope_of(self._producer, self._record, waiting.clock.now_us())
        if (known := stages.decisions.get(stage)) is not None:
            handled = told_again(waiting, known, commit, envelope)
        elif commit and not stages.streams_of(stage):
            return self._hold(move, LookupError(f"nothing is held for {stage}, and it is to be confirmed"))
        else:
            handled, self._gone = decide_stage(waiting, stage, commit, envelope)
        self._handled = handled
        return Batch(tuple(handled.records), tuple(handled.reads), (move,), tuple(handled.rows))

    def _hold(self, move: Move, error: Exception | None) -> Batch:
        place = self._place = self._waiting.hold(self._stream, self._producer, self._record, error)
        return Batch(moves=(move,), rows=(Row("waiting", place.key, encode(place.held)),))

    def taken_back(self) -> None:
        """It is not set aside after all; and what it held, let go or took out is as before."""
        if self._place is not None:
            self._waiting.unhold(self._stream, self._place)
            self._place = None
        if self._handled is not None:
            self._waiting.dispatch.stages.take_back(self._handled)
        self._waiting.put_in(self._gone)
        self._gone = []

    def landed(self, position: int) -> None:
        """It is durable."""
        self._waiting.settled(self._handled, position)
        self._waiting.let_go(self._handled, self._gone)
        if self._place is not None:
            self._waiting.kept(self._stream, self._place)
        if self._ended is not None:
            self._ended(None)

    def duplicate(self, found: Duplicate) -> None:
        """It has no fresh rows: this cannot be."""
        self.failed(Rejected("duplicate"))

    def failed(self, error: Exception) -> None:
        """Nothing of it was written; the sender will say it again."""
        if self._ended is not None:
            self._ended(error)
