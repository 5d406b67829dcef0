"""Frames: the messages between two services in an exchange, and their JSON form.

A frame holds every record for the receiver in (after, upto] of the sender's log, and the sender's own cursor in the
receiver's log. Comes after the writer (only flushed records are framed); before a transport. `check` raises an
`ExchangeError` that names what is wrong with a frame; nothing of such a frame is applied.
"""

import msgspec

from holdfast.core.log.batch import Cursor
from holdfast.core.log.record import NO_HEADERS, Headers, Kind, Record
from holdfast.errors import Gap, Garbled, Misdirected, ProtocolMismatch

PROTOCOL = 1
"""Version of the exchange protocol; both sides must speak the same."""
FRAME_RECORDS_MAX = 512
FRAME_BYTES_MAX = 8 * 1024 * 1024


class WireRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record on the wire: the fields of `Record` that the receiver needs, with the payload embedded as it is."""

    position: int
    kind: Kind
    type: str
    data: msgspec.Raw
    tx: str
    cause: str
    at: int
    correlation: str = ""
    stream: str = ""
    version: int = 0
    headers: Headers = NO_HEADERS


class Frame(msgspec.Struct, frozen=True):
    """One side of a conversation at one moment."""

    sender: str
    receiver: str
    incarnation: str
    """The incarnation that wrote the records; the current one if there are none."""
    first: int
    """The first position of that incarnation."""
    after: int
    upto: int
    ack: Cursor
    """The sender's durable cursor in the receiver's log."""
    have: int
    """Position in the receiver's log up to which the sender holds records, durable or on the way to be."""
    records: tuple[WireRecord, ...] = ()
    protocol: int = PROTOCOL


class _Protocol(msgspec.Struct):
    protocol: int = 0


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decoder = msgspec.json.Decoder(Frame)
_protocol = msgspec.json.Decoder(_Protocol)


def to_wire(record: Record) -> WireRecord:
    """A flushed record in its wire form."""
    return WireRecord(
        record.position,
        record.kind,
        record.type,
        msgspec.Raw(record.data),
        record.tx,
        record.cause,
        record.at,
        record.correlation,
        record.stream,
        record.version,
        record.headers,
    )


def encode_frame(frame: Frame) -> bytes:
    """The frame as UTF-8 JSON."""
    return msgspec.json.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """The frame in these bytes. Raises Garbled, or ProtocolMismatch if the sender speaks another version."""
    try:
        frame = _decoder.decode(data)
        spoken = frame.protocol if data.rfind(b'"protocol"') >= 0 else 0  # a missing field is not the default
    except _UNREADABLE as error:
        frame = None
        spoken = _spoken(data)
        if spoken in (None, PROTOCOL):
            raise Garbled(f"the bytes are not a frame: {error}") from None
    if frame is None or spoken != PROTOCOL:
        raise ProtocolMismatch(f"the peer speaks exchange protocol {spoken}, but this service speaks {PROTOCOL}")
    return frame


def _spoken(data: bytes) -> int | None:
    """The protocol version of bytes that are not a frame of this version."""
    try:
        return _protocol.decode(data).protocol
    except _UNREADABLE:
        return None


def check(frame: Frame, me: str, peers: frozenset[str], received: int) -> tuple[WireRecord, ...]:
    """The records of a frame that are new to a receiver that has received up to `received`.

    Raises Misdirected, Garbled (positions out of order or outside the frame's bounds) or Gap.
    """
    if frame.receiver != me:
        raise Misdirected(f"the frame is for {frame.receiver!r}, but this service is {me!r}")
    if frame.sender not in peers or frame.sender == me:
        raise Misdirected(f"the frame is from {frame.sender!r}, which is not a peer of {me!r}")
    if frame.after < 0 or frame.upto < frame.after or frame.have < 0 or frame.ack.position < 0:
        raise Garbled(f"the frame from {frame.sender!r} has impossible bounds ({frame.after}, {frame.upto}]")
    last = frame.after
    for record in frame.records:
        if not last < record.position <= frame.upto:
            raise Garbled(f"in the frame from {frame.sender!r}, position {record.position} does not follow {last}")
        last = record.position
    if frame.after > received:
        raise Gap(f"the frame begins after {frame.after}, but only {received} has been received from {frame.sender!r}")
    return frame.records if frame.after == received else tuple(r for r in frame.records if r.position > received)


class FeedRequest(msgspec.Struct, frozen=True):
    """A consumer's request to a producer's feed: event records after a position, of certain types (none: all)."""

    after: int
    types: tuple[str, ...] = ()
    limit: int = 512
    wait_ms: int = 0
    """How long the producer may delay the answer while there are no events."""
    incarnation: str = ""
    """The incarnation of the consumer's checkpoint; the producer refuses an unknown one (Forked)."""


class FeedPage(msgspec.Struct, frozen=True):
    """Events in commit order, how far the search went, and the incarnation that stands at `upto`."""

    records: tuple[Record, ...]
    upto: int
    incarnation: str
    head: int
