"""What waits: a received message as it is stored, and its place in the queue of its stream.

Values for `runtime.inbox.waiting`, which keeps the queues, and for who tries, cancels, repairs or shows what is in
them.
"""

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping

import msgspec

from holdfast.core.batch import Row
from holdfast.core.frame import WireRecord
from holdfast.core.message import encode


class Held(msgspec.Struct, omit_defaults=True):
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
    called_off: bool = False
    """A cancel came while it was carried out: it is answered `cancelled` once it is known that nothing was done."""
    unread: bool = False
    """Its type, in its version, was not known here when it failed: a later release may know it."""
    unknown: bool = False
    """Of an effect: an attempt was made, and what became of it is not known."""

    @property
    def id(self) -> str:
        """Of the message: `producer@position`."""
        return f"{self.producer}@{self.record.position}"


class Place:
    """A message's place in the queue of its stream. Compared by identity."""

    __slots__ = ("blocked", "changing", "durable", "held", "key", "running")

    def __init__(self, key: str, held: Held, durable: bool) -> None:
        self.key, self.held, self.durable = key, held, durable
        """`durable`: its row is committed; until then it is not tried."""
        self.blocked = False
        """It was tried, and waits until who holds the stream has let go."""
        self.changing = False
        """A person's changed payload is on its way to it: until that is durable it is not tried."""
        self.running = False
        """Its handler is at work on it now."""


def in_the_air(places: Iterable[tuple[str, Place]], effects: Container[str]) -> dict[str, Place]:
    """By key, the places of effects that are being carried out."""
    return {place.key: place for stream, place in places if place.running and stream.partition("/")[0] in effects}


def placed(key: str, data: bytes, calls: Mapping[str, Place]) -> Place:
    """The place of a message as it is stored. That of a call in the air stays the same, so that nobody decides on it
    before the call has ended; what is known of it is what was flushed."""
    held = msgspec.json.decode(data, type=Held)
    place = calls.get(key) or Place(key, held, True)
    place.held = held
    return place


def rehome(
    queues: dict[str, deque[Place]], home: Callable[[str, Held], str], known: Callable[[Held], bool]
) -> list[Row]:
    """What this release can decide and an earlier one could not is tried anew, in the queue of the stream that it is
    for now, in the order received; the rows that change with it. An effect whose call may have been made stays as it
    is: by another name it would have another key."""
    rows: list[Row] = []
    for stream, place in [(stream, place) for stream, queue in queues.items() for place in queue]:
        now, held = home(stream, place.held), place.held
        if held.started or held.unknown or (now == stream and not (held.unread and known(held))):
            continue
        held.parked, held.attempts, held.next_at, held.unread = 0, 0, 0, False
        held.error, held.where, held.fingerprint = "", "", ""
        if now != stream:
            rows.append(Row("waiting", place.key, None))
            queues[stream].remove(place)
            place.key = f"{now}#{_number(place)}"
            queues[now] = deque(sorted((*queues.get(now, ()), place), key=_number))
        rows.append(Row("waiting", place.key, encode(held)))
    for stream in [stream for stream, queue in queues.items() if not queue]:
        del queues[stream]
    return rows


def _number(place: Place) -> str:
    return place.key.rpartition("#")[2]
