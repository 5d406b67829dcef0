"""A waiting message: its stored form, and its slot in the queue of its stream.

`runtime.inbox.waiting` keeps the queues. Other modules try, cancel, repair or show the messages in them. Nothing here
can fail.
"""

import msgspec

from holdfast.core.declare.message import encode
from holdfast.core.log.batch import Row
from holdfast.core.wire.frame import WireRecord


class WaitingMessage(msgspec.Struct, omit_defaults=True):
    """A waiting message, as it is stored."""

    producer: str
    record: WireRecord
    since: int
    attempts: int = 0
    next_at: int = 0
    error: str = ""
    """The error of the last attempt; empty if the message only waits behind another message."""
    where: str = ""
    fingerprint: str = ""
    """The fingerprint of that error, see `runtime.inbox.failure`."""
    parked: int = 0
    """When the message was parked, µs since 1970-01-01 UTC; 0: it is not parked."""
    feed: str = ""
    """For an event: the consumer that takes it, `reaction:NAME` or `saga:NAME`."""
    edited: str = ""
    """The id of the repair that changed the payload; empty if none has."""
    started: int = 0
    """For an effect: how many attempts were flushed."""
    cancel_came: bool = msgspec.field(default=False, name="called_off")
    """A cancel came while the command was carried out: the command is answered `cancelled` as soon as it is known that
    nothing was done. The stored name is the first name that this field had."""
    unread: bool = False
    """The release that failed did not know this type in this version; a later release may know it."""
    unknown: bool = False
    """For an effect: an attempt was made, and its outcome is unknown."""

    @property
    def id(self) -> str:
        """The id of the message: `producer@position`."""
        return f"{self.producer}@{self.record.position}"


class Slot:
    """A message's place in the queue of its stream. Compared by identity."""

    __slots__ = ("blocked", "changing", "durable", "key", "message", "running", "stream")

    def __init__(self, key: str, message: WaitingMessage, *, durable: bool) -> None:
        self.key = key
        """The key of the row: `stream#number`, in the order in which messages were received."""
        self.stream = key.rpartition("#")[0]
        self.message = message
        self.durable = durable
        """True as soon as the row is committed; until then the message is not tried."""
        self.blocked = False
        """The message was tried, and is blocked until the transaction that holds the stream releases it."""
        self.changing = False
        """An operator is changing the payload; the message is not tried until the change is durable."""
        self.running = False
        """Its handler runs now."""

    @property
    def number(self) -> str:
        """The place of the message among all received messages, as text that sorts."""
        return self.key.rpartition("#")[2]

    def row(self, message: WaitingMessage | None = None) -> Row:
        """The row of the message; `message`: with this content instead."""
        return Row("waiting", self.key, encode(message or self.message))

    def gone(self) -> Row:
        """The row that removes the message from the waiting messages."""
        return Row("waiting", self.key, None)
