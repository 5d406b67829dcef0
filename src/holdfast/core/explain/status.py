"""What a service tells its operators: where a saga stands, what waits and why, what is held, what a person can do.

Each is a value whose fields have the names that they have as JSON. A service makes these values (`runtime.ops.why`),
the web encodes them, and whoever asks decodes the same types again: `core.explain.story` tells them in sentences,
`core.explain.overview` makes lists of them. All times are in microseconds since 1970-01-01 UTC, by the clock of the
service that tells them. Values only: nothing here fails but the decoding of what is no such value. A field that is
added later needs a default, so that what an earlier release says can still be decoded.
"""

from typing import Any, cast

import msgspec

from holdfast.core.log.record import NO_HEADERS, Headers, Kind, Record, record_id
from holdfast.core.saga.repair import Action


class RecordStatus(msgspec.Struct, frozen=True):
    """One record of a log, its payload as a JSON value with sensitive fields masked."""

    id: str
    """`service@position`."""
    position: int
    """Its place in the log of its service: 1, 2, ..."""
    kind: str
    """See `core.log.record.Kind`; a later release may know more kinds."""
    type: str
    """The stored type."""
    data: Any
    """The payload; `***` in the place of what may not be shown."""
    tx: str
    """The transaction that it belongs to."""
    cause: str
    """The id of the message whose handling wrote it."""
    at: int
    """When that message was handled."""
    correlation: str = ""
    """The label that the caller gave."""
    stream: str = ""
    """`Type/key`; empty when it belongs to none."""
    version: int = 0
    """Its number in the stream, from 1; 0 for a record that does not count."""
    destination: str = ""
    """The service that it is for; empty when it stays at home."""
    headers: Headers = NO_HEADERS
    """What it carries beside its payload."""

    @classmethod
    def of(cls, log: str, record: Record, data: Any) -> "RecordStatus":
        """A record of a log, with that to show as its payload."""
        return cls(
            id=record_id(log, record.position),
            position=record.position,
            kind=record.kind,
            type=record.type,
            data=data,
            tx=record.tx,
            cause=record.cause,
            at=record.at,
            correlation=record.correlation,
            stream=record.stream,
            version=record.version,
            destination=record.destination,
            headers=record.headers,
        )

    def record(self) -> Record:
        """The record again, as far as it is shown."""
        return Record(
            position=self.position,
            kind=cast(Kind, self.kind),
            type=self.type,
            data=msgspec.json.encode(self.data),
            tx=self.tx,
            cause=self.cause,
            at=self.at,
            correlation=self.correlation,
            stream=self.stream,
            version=self.version,
            destination=self.destination,
            headers=self.headers,
        )


class StepStatus(msgspec.Struct, frozen=True):
    """A command of a saga that has no answer yet."""

    step: str
    service: str
    """Who is to answer it."""
    type: str
    """The stored type of the command."""
    key: str
    """The key of the stream that it is for; empty for a command without one."""
    since: int
    """When it was asked."""
    undo: bool
    """It undoes the step."""
    overdue: bool
    """The deadline of the step has passed."""

    @property
    def what(self) -> str:
        """The step, or the undo of it, and who is to answer."""
        return f"{'undo of ' if self.undo else ''}{self.step} of {self.service}"


class TimerStatus(msgspec.Struct, frozen=True):
    """A timer that will wake a saga."""

    name: str
    """`deadline:STEP`, `retry:...`, `stage:...` or `again:...`."""
    due: int
    """When it wakes it."""


class SagaStatus(msgspec.Struct, frozen=True):
    """Where a saga stands that has not ended."""

    id: str
    """Its stream, `Type/id`."""
    tx: str
    correlation: str
    status: str
    """`running`, `undoing` or `stuck`; of a staged saga also `committed` or `cancelling`."""
    begun: int
    """When it began."""
    since: int
    """When it was last written to."""
    cause: str = ""
    """The code for which it is undone or cancelled."""
    stuck: str = ""
    """Why it needs a person; empty while it does not."""
    step: str = ""
    """The step that it is stuck at."""
    waits: tuple[StepStatus, ...] = ()
    """The commands that have no answer yet."""
    next: tuple[str, ...] = ()
    """What its declared steps say comes next, in order."""
    timers: tuple[TimerStatus, ...] = ()
    actions: tuple[Action, ...] = ()
    """What a person can do."""

    @property
    def blocked_by(self) -> str:
        """What it does not go on for: why it is stuck, or what it waits for."""
        waits = ", ".join(sorted({one.what for one in self.waits}))
        return self.stuck or (f"waits for {waits}" if waits else self.status)


class WaitingStatus(msgspec.Struct, frozen=True):
    """A message that was received and is not decided: it is parked, tried again, or waits its turn."""

    stream: str
    """The stream that it is for."""
    message: str
    """Its id, `service@position`."""
    producer: str = msgspec.field(name="from")
    """The service that sent it."""
    type: str
    """Its stored type."""
    tx: str
    correlation: str
    since: int
    """When it was received."""
    attempts: int
    """How often it has failed since a person last said that it be tried again."""
    next_at: int
    """When it is tried again; 0 when no time is set."""
    error: str
    """Of the last attempt; empty when it has not failed."""
    where: str
    """The function that failed."""
    fingerprint: str
    """Of the error: the same for failures of the same kind at the same place."""
    parked: int
    """When it was parked; 0 while it is not."""
    unknown: bool
    """Of an effect: an attempt was made, and what became of it is not known."""
    running: bool
    """Its handler is at work on it."""
    behind: str = ""
    """The id of the first message of its stream, which it waits for; empty for that one itself."""
    first: "WaitingStatus | None" = None
    """That message."""
    locked: str = ""
    """The staged transaction that holds its stream."""
    actions: tuple[Action, ...] = ()
    """What a person can do."""


class HoldStatus(msgspec.Struct, frozen=True):
    """What a staged transaction holds of a stream."""

    stream: str
    tx: str
    stage: str
    """Which attempt of which saga: `coordinator:Saga/id#attempt`."""
    coordinator: str
    """The service that decides it."""
    since: int
    """When the stream was locked."""
    waiting: int
    """How many received messages wait on the stream."""


class PeerStatus(msgspec.Struct, frozen=True):
    """A conversation that fails or owes something."""

    failure: str = ""
    """Why the peer cannot be reached."""
    owed: int = 0
    """Records for the peer that it has not received."""
    behind: int = 0
    """Positions of the peer's log that this service has not seen."""


class WhyAnswer(msgspec.Struct, frozen=True):
    """All that one service knows of an id."""

    service: str
    owner: str = ""
    """The team that owns the service."""
    now: int = 0
    """The service's clock when it answered."""
    named: str = ""
    """What the id names here: `transaction`, `correlation`, `idempotency key`, `record`, `stream`, `key`, `waiting`;
    empty: it is unknown here."""
    transactions: tuple[str, ...] = ()
    """The transactions that it names, the newest last."""
    more: bool = False
    """There are more transactions than are named."""
    complete: bool = True
    """Every record of these transactions is here."""
    sagas: tuple[SagaStatus, ...] = ()
    """Those that have not ended."""
    waiting: tuple[WaitingStatus, ...] = ()
    held: tuple[HoldStatus, ...] = ()
    """What staged transactions hold."""
    peers: dict[str, PeerStatus] = {}
    """The conversations that fail or owe something."""
    store: str = ""
    """Why the store takes no commits; empty while it does."""
    records: tuple[RecordStatus, ...] = ()
    """In log order."""
