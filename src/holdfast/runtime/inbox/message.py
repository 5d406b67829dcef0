"""A message that waits: as it is stored, and its slot in the queue of its stream.

Values for `runtime.inbox.waiting`, which keeps the queues, and for all that tries, cancels, repairs or shows what is in
them. Nothing here can fail.
"""

import msgspec

from holdfast.core.declare.message import encode
from holdfast.core.log.batch import Row
from holdfast.core.wire.frame import WireRecord


class WaitingMessage(msgspec.Struct, omit_defaults=True):
    """A message that waits, as it is stored."""

    producer: str
    record: WireRecord
    since: int
    attempts: int = 0
    next_at: int = 0
    error: str = ""
    """Of the last attempt; empty for one that only waits behind another."""
    where: str = ""
    fingerprint: str = ""
    """Of that error, see `runtime.inbox.failure`."""
    parked: int = 0
    """When it was parked, µs since 1970-01-01 UTC; 0: it is not."""
    feed: str = ""
    """Of an event: the consumer that takes it, `reaction:NAME` or `saga:NAME`."""
    edited: str = ""
    """The id of the repair that changed its payload."""
    started: int = 0
    """Of an effect: the attempts that were flushed."""
    cancel_came: bool = msgspec.field(default=False, name="called_off")
    """A cancel came while it was carried out: it is answered `cancelled` once it is known that nothing was done. Stored
    under the name that it had first."""
    unread: bool = False
    """Its type, in its version, was not known here when it failed: a later release may know it."""
    unknown: bool = False
    """Of an effect: an attempt was made, and what became of it is not known."""

    @property
    def id(self) -> str:
        """Of the message: `producer@position`."""
        return f"{self.producer}@{self.record.position}"


class Slot:
    """A message's place in the queue of its stream. Compared by identity."""

    __slots__ = ("blocked", "changing", "durable", "key", "message", "running", "stream")

    def __init__(self, key: str, message: WaitingMessage, *, durable: bool) -> None:
        self.key = key
        """Of its row: `stream#number`, in the order received."""
        self.stream = key.rpartition("#")[0]
        self.message = message
        self.durable = durable
        """Its row is committed; until then it is not tried."""
        self.blocked = False
        """It was tried, and is blocked until the transaction that holds the stream releases it."""
        self.changing = False
        """An operator's changed payload is on its way to it: until that is durable it is not tried."""
        self.running = False
        """Its handler is at work on it now."""

    @property
    def number(self) -> str:
        """Its place among all that were received, as text that sorts."""
        return self.key.rpartition("#")[2]

    def row(self, message: WaitingMessage | None = None) -> Row:
        """The row of the message, or of what it is to be."""
        return Row("waiting", self.key, encode(message or self.message))

    def gone(self) -> Row:
        """That the message waits no more."""
        return Row("waiting", self.key, None)
