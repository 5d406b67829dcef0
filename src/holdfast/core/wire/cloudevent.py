"""CloudEvents 1.0: encodes an event record for other programs, and decodes it again without loss.

Fields without a CloudEvents attribute travel as extension attributes (small letters and digits only). Comes after the
store, before a feed's reader; fails with `Garbled` if the bytes are not a batch of events.
(CloudEvents 1.0.2, JSON event format 3 and 4; distributed tracing extension.)
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from holdfast.core.log.record import Headers, Record, parse_record_id, record_id
from holdfast.errors import Garbled

BATCH_TYPE = "application/cloudevents-batch+json"
EVENT_TYPE = "application/cloudevents+json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class CloudEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event record; `id` is `service@position`, `subject` its stream."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    transaction: str
    cause: str
    data: msgspec.Raw
    datacontenttype: str = ""
    subject: str = ""
    correlation: str = ""
    streamversion: int = 0
    destination: str = ""
    traceparent: str = ""
    hop: int = 0
    debug: bool = False
    answers: str = ""
    outcome: bool = False


_decoder = msgspec.json.Decoder(list[CloudEvent])


def to_event(log: str, record: Record) -> CloudEvent:
    """An event record of a log."""
    head = record.headers
    time = (_EPOCH + timedelta(microseconds=record.at)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return CloudEvent(
        "1.0",
        record_id(log, record.position),
        f"/{log}",
        record.type,
        time,
        record.tx,
        record.cause,
        msgspec.Raw(record.data),
        "application/json",
        record.stream,
        record.correlation,
        record.version,
        record.destination,
        head.traceparent,
        head.hop,
        head.debug,
        head.answers,
        head.outcome,
    )


def to_batch(log: str, records: Sequence[Record]) -> bytes:
    """Event records of a log as one JSON batch."""
    return msgspec.json.encode([to_event(log, record) for record in records])


def from_batch(log: str, data: bytes) -> tuple[Record, ...]:
    """The records in a batch that a log's feed answered. Raises Garbled."""
    try:
        return tuple(_record(log, event) for event in _decoder.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError, RecursionError) as error:
        raise Garbled(f"the answer is not a page of the feed of {log!r}: {error}") from None


def _record(log: str, event: CloudEvent) -> Record:
    found = parse_record_id(event.id)
    if found is None or found[0] != log or event.specversion != "1.0":
        raise ValueError(f"{event.id!r} is not an event of this log")
    at = (datetime.fromisoformat(event.time) - _EPOCH) // _MICROSECOND
    headers = Headers(event.hop, event.debug, event.traceparent, "", event.answers, event.outcome)
    return Record(
        found[1],
        "event",
        event.type,
        bytes(event.data),
        event.transaction,
        event.cause,
        at,
        event.correlation,
        event.subject,
        event.streamversion,
        event.destination,
        headers,
    )
