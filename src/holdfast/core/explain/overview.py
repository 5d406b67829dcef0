"""Overviews of a service for its operators: log, sagas, waiting messages, held streams, state and progress.

They are made of the values of `core.explain.status`, and their fields have the same names in JSON. A list is a page
that says where the next page begins. A service makes them (`runtime.ops.why`, `web.ops`), and the client decodes the
same types again. All times are in microseconds since 1970-01-01 UTC, by the clock of the service that answers. This
module has values only; decoding fails on any other value. A field that is added later needs a default.
"""

from typing import Any

import msgspec

from holdfast.core.declare.message import Rejection
from holdfast.core.explain.status import RecordStatus, SagaStatus, WaitingStatus
from holdfast.core.saga.progress import Stuck
from holdfast.core.saga.stage import Carried, Standing


class RecordList(msgspec.Struct, frozen=True):
    """The records of one service that belong to an id, in log order."""

    records: tuple[RecordStatus, ...]
    complete: bool
    """False if there may be more records than were asked for."""


class LogPage(msgspec.Struct, frozen=True):
    """Records of every kind after a position."""

    records: tuple[RecordStatus, ...]
    upto: int
    """The position up to which all records were searched: the next page begins after it."""
    head: int
    """The position of the last record of the log."""


class MessageStatus(msgspec.Struct, frozen=True):
    """A message as a saga keeps it, masked."""

    type: str
    """The stored type."""
    data: Any
    """Its fields; `***` replaces each sensitive value."""


class ListedSaga(SagaStatus, frozen=True):
    """A saga in a list, with the service and team that own it."""

    service: str = ""
    owner: str = ""
    """The team that owns the service."""
    now: int = 0
    """The service's clock when it answered."""

    @property
    def target(self) -> str:
        """The id that a repair of it names."""
        return self.id

    @property
    def counted_from(self) -> int:
        """When its age begins."""
        return self.begun


class SagaList(msgspec.Struct, frozen=True):
    """A page of sagas that are stuck, or have not ended."""

    items: tuple[ListedSaga, ...]
    totals: dict[str, int]
    """Why a saga does not go on -> how many sagas of this page."""
    next: str | None
    """The id after which the next page begins; null on the last one."""


class SagaEntry(msgspec.Struct, frozen=True):
    """A saga in the list of those that have not ended, in short."""

    id: str
    """Its stream, `Type/id`."""
    status: str
    step: str = ""
    """The step that it is stuck at."""
    cause: str = ""
    """Why it is stuck, or the code of the rejection for which it is undone."""
    overdue: tuple[str, ...] = ()
    """Steps whose deadline has passed without an answer."""
    tx: str = ""
    at: int = 0
    """When it reached this status."""


class SagaEntries(msgspec.Struct, frozen=True):
    """A page of the sagas that have not ended."""

    items: tuple[SagaEntry, ...]
    next: str | None
    """The id after which the next page begins; null on the last one."""


class StepDetail(msgspec.Struct, frozen=True):
    """One command that a saga has asked, and its answer."""

    version: int
    """Its number in the saga's stream."""
    step: str
    index: int
    """Its place in the group of the step."""
    attempt: int
    """0 for the first time that it was asked."""
    undoes: int | None
    """The version of the command that it undoes."""
    command: MessageStatus
    answer: MessageStatus | None
    """An event, or a rejection; null while there is none."""


class SagaDetail(msgspec.Struct, frozen=True):
    """One saga, ended or not: what was asked, answered and undone."""

    id: str
    """Its stream, `Type/id`."""
    status: str
    tx: str
    correlation: str
    begun_at: int
    at: int
    """When its last record was written."""
    version: int
    """How many records it has."""
    message: MessageStatus | None
    """What began it."""
    steps: tuple[StepDetail, ...]
    """In the order asked."""
    skipped: tuple[str, ...]
    """Steps that asked nothing."""
    overdue: tuple[str, ...]
    """Steps whose deadline has passed without an answer."""
    cause: Rejection | None
    """The rejection for which it is undone or cancelled, with its facts masked."""
    stuck: Stuck | None
    """Why it needs an operator."""


class ListedWaiting(WaitingStatus, frozen=True):
    """A waiting message in a list, with the service and team that have to decide it."""

    service: str = ""
    owner: str = ""
    """The team that owns the service."""
    now: int = 0
    """The service's clock when it answered."""

    @property
    def target(self) -> str:
        """The id that a repair of it names."""
        return self.message

    @property
    def counted_from(self) -> int:
        """When its age begins."""
        return self.since


class WaitingList(msgspec.Struct, frozen=True):
    """Parked messages, or all waiting messages."""

    items: tuple[ListedWaiting, ...]
    totals: dict[str, int]
    """The error -> how many of these."""
    next: str | None = None
    """Null: all of them are here."""


class Waiter(msgspec.Struct, frozen=True):
    """What waits for a stream that a staged transaction holds."""

    tx: str
    type: str
    """The stored type of the message."""
    producer: str = msgspec.field(name="from")
    """The service that sent it; empty for a caller at the edge."""
    since: int


class StageStatus(msgspec.Struct, frozen=True):
    """What a staged transaction holds of a stream, with who waits for it."""

    stream: str
    tx: str
    correlation: str
    stage: str
    """Which attempt of which saga: `coordinator:Saga/id#attempt`."""
    coordinator: str
    """The service that decides it."""
    began: int
    """When the transaction began: its age, which it keeps over all attempts."""
    since: int
    """When the stream was locked."""
    beside: bool
    """True if it only moves escrow fields: then other transactions may move them at the same time."""
    commands: int
    """How many staged commands it has decided on the stream."""
    waiting: tuple[Waiter, ...]


class StageList(msgspec.Struct, frozen=True, omit_defaults=True):
    """What staged transactions hold in one service."""

    held: tuple[StageStatus, ...]
    resolved: tuple[Carried, ...]
    """Decisions that an operator or a peer told, until the coordinator has told its own."""
    standing: Standing | None = None
    """For one transaction: what this service knows about it."""


class ExchangeStatus(msgspec.Struct, frozen=True):
    """How far the conversation with a peer has come."""

    received: int
    """The cursor: the position of the peer's log up to which its messages were received."""
    incarnation: str
    """The incarnation of the peer's log at that cursor."""
    peer_head: int
    """The position of the last record in the peer's log, as the peer has told it."""
    behind: int
    """Positions of the peer's log that this service has not seen."""
    acknowledged: int
    """The position of this service's log that the peer has received."""
    owed: int
    """Records for the peer that it has not received."""
    failure: str
    """Why the peer cannot be reached."""
    halted: bool
    """True if it is halted until an operator repairs it, because the peer's log is not the same as before."""


class FeedStatus(msgspec.Struct, frozen=True):
    """How far a consumer of events has come in a producer's log."""

    consumer: str
    """`reaction:NAME`, `saga:NAME` or `view:NAME`."""
    producer: str
    position: int
    """Its checkpoint in the producer's log."""
    lag: int
    """Positions of the producer's log that it has not seen."""
    failure: str


class WaitingEntry(msgspec.Struct, frozen=True):
    """A waiting message in short; see `WaitingStatus`."""

    stream: str
    message: str
    type: str
    tx: str
    since: int
    attempts: int
    next_at: int
    error: str
    parked: int
    unknown: bool


class ProgressStatus(msgspec.Struct, frozen=True):
    """The progress of everything in a service."""

    service: str
    owner: str
    """The team that owns the service."""
    head: int
    """The position of the last record of the log."""
    incarnation: str
    """The incarnation of the log since this process opened it."""
    store: str
    """Why the store takes no commits; empty while it does."""
    inbox: int
    """How many decisions wait for the writer."""
    timers: int
    sagas_open: int
    sagas_stuck: int
    exchange: dict[str, ExchangeStatus]
    """The conversations by peer."""
    feeds: tuple[FeedStatus, ...]
    waiting: tuple[WaitingEntry, ...]
    rebuilding: dict[str, int]
    """View -> the generation that is being built."""


class AggregateStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One aggregate, now or as it was at a position of the log."""

    key: str
    version: int
    """How many of its records were folded."""
    state: Any
    """Its fields, masked; null when it cannot be folded."""
    error: str = ""
    """Why it cannot be folded."""
    at: int = 0
    """The position that was asked for, or the head of the log."""


class AggregateList(msgspec.Struct, frozen=True):
    """A page of the aggregates of one type, by key."""

    items: tuple[AggregateStatus, ...]
    next: str | None
    """The key after which the next page begins; null on the last one."""


class ViewRebuild(msgspec.Struct, frozen=True):
    """A view that is being rebuilt."""

    view: str
    generation: int | None
    """The generation that is being built; null if it is already built."""
