"""Status of a service for its operators: sagas, waiting messages and why, held streams, possible repairs.

Each is a value whose fields have the same names in JSON. A service makes these values (`runtime.ops.why`), the web
encodes them, and the client decodes the same types again: `core.explain.story` tells them in sentences,
`core.explain.overview` makes lists of them. All times are in microseconds since 1970-01-01 UTC, by the clock of the
service that answers. This module has values only; decoding fails on any other value. A field that is added later needs
a default, so that the answer of an earlier release can still be decoded.
"""

from typing import Any, cast

import msgspec

from holdfast.core.log.record import NO_HEADERS, Headers, Kind, Record, record_id
from holdfast.core.saga.repair import Action


class RecordStatus(msgspec.Struct, frozen=True):
    """One record of a log; its payload is a JSON value with sensitive fields masked."""

    id: str
    """`service@position`."""
    position: int
    """Its place in the log of its service: 1, 2, ..."""
    kind: str
    """See `core.log.record.Kind`; a later release may know more kinds."""
    type: str
    """The stored type."""
    data: Any
    """The payload; `***` replaces each sensitive value."""
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
    """Its number in the stream, from 1; 0 for a record that does not count as a version."""
    destination: str = ""
    """The service that it is for; empty for a record that stays in this service."""
    headers: Headers = NO_HEADERS
    """The headers of the record."""

    @classmethod
    def of(cls, log: str, record: Record, data: Any) -> "RecordStatus":
        """The status value of a record, with `data` as its payload."""
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
        """The record again, as far as this value holds it."""
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
    """The service that has to answer it."""
    type: str
    """The stored type of the command."""
    key: str
    """The key of the stream that it is for; empty for a command without one."""
    since: int
    """When it was asked."""
    undo: bool
    """True if it undoes the step."""
    overdue: bool
    """True if the deadline of the step has passed."""

    @property
    def what(self) -> str:
        """The step or its undo, and the service that has to answer."""
        return f"{'undo of ' if self.undo else ''}{self.step} of {self.service}"


class TimerStatus(msgspec.Struct, frozen=True):
    """A timer that will wake a saga."""

    name: str
    """`deadline:STEP`, `retry:...`, `stage:...` or `again:...`."""
    due: int
    """When the timer is due."""


class SagaStatus(msgspec.Struct, frozen=True):
    """The status of a saga that has not ended."""

    id: str
    """Its stream, `Type/id`."""
    tx: str
    correlation: str
    status: str
    """`running`, `undoing` or `stuck`; of a staged saga also `committed` or `cancelling`."""
    begun: int
    """When it began."""
    since: int
    """When its last record was written."""
    cause: str = ""
    """The code for which it is undone or cancelled."""
    stuck: str = ""
    """Why it needs an operator; empty if it does not."""
    step: str = ""
    """The step that it is stuck at."""
    waits: tuple[StepStatus, ...] = ()
    """The commands that have no answer yet."""
    next: tuple[str, ...] = ()
    """What its declared steps say comes next, in order."""
    timers: tuple[TimerStatus, ...] = ()
    actions: tuple[Action, ...] = ()
    """The repairs that are possible."""

    @property
    def blocked_by(self) -> str:
        """Why it does not go on: why it is stuck, or what it waits for."""
        waits = ", ".join(sorted({one.what for one in self.waits}))
        return self.stuck or (f"waits for {waits}" if waits else self.status)


class WaitingStatus(msgspec.Struct, frozen=True):
    """A message that is received and not decided: it is parked, is tried again, or waits for its turn."""

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
    """How often it has failed since an operator last retried it."""
    next_at: int
    """When it is tried again; 0 when no time is set."""
    error: str
    """The error of the last attempt; empty if it has not failed."""
    where: str
    """The function that failed."""
    fingerprint: str
    """The fingerprint of the error: the same for failures of the same kind at the same place."""
    parked: int
    """When it was parked; 0 while it is not."""
    unknown: bool
    """For an effect: true if an attempt was made whose outcome is unknown."""
    running: bool
    """True while its handler is working on it."""
    behind: str = ""
    """The id of the first message of its stream, which it waits for; empty for that one itself."""
    first: "WaitingStatus | None" = None
    """The message that it waits for."""
    locked: str = ""
    """The staged transaction that holds its stream."""
    actions: tuple[Action, ...] = ()
    """The repairs that are possible."""


class HoldStatus(msgspec.Struct, frozen=True):
    """A stream that a staged transaction holds."""

    stream: str
    tx: str
    stage: str
    """The saga and its attempt: `coordinator:Saga/id#attempt`."""
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
    """All that one service knows about an id."""

    service: str
    owner: str = ""
    """The team that owns the service."""
    now: int = 0
    """The service's clock when it answered."""
    named: str = ""
    """What the id means in this service: `transaction`, `correlation`, `idempotency key`, `record`, `stream`, `key`,
    `waiting`; empty: it is unknown here."""
    transactions: tuple[str, ...] = ()
    """The transactions that the id names, the newest last."""
    more: bool = False
    """True if there are more transactions than are listed."""
    complete: bool = True
    """True if every record of these transactions is here."""
    sagas: tuple[SagaStatus, ...] = ()
    """The sagas that have not ended."""
    waiting: tuple[WaitingStatus, ...] = ()
    held: tuple[HoldStatus, ...] = ()
    """The streams that staged transactions hold."""
    peers: dict[str, PeerStatus] = {}
    """The conversations that fail or owe something."""
    store: str = ""
    """Why the store takes no commits; empty while it does."""
    records: tuple[RecordStatus, ...] = ()
    """The records in log order."""
