"""Names of logs, and which log a key belongs to.

A service has one log today and may have several later: its partitions. Partition 0 is always printed as the service's
name, so that no id, cause or cursor changes when a service grows. Each key falls into one of 4,096 slots, and a
`SlotMap` says which log owns which slot: a command goes to `log_of` its key. Only this module builds and parses these
names. It comes before everything else in the flow; parsing fails with ValueError.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

SLOTS = 4_096
"""The number of slots. It never changes, because stored data depends on it."""
_EXCHANGE = "exchange:"


class LogName(NamedTuple):
    """One log: a partition of a service."""

    service: str
    partition: int = 0

    def __str__(self) -> str:
        return self.service if self.partition == 0 else f"{self.service}.{self.partition}"

    @staticmethod
    def parse(text: str) -> "LogName":
        """The log of that name: `stock`, `stock.1`. Raises ValueError."""
        service, dot, number = text.partition(".")
        if not service or (dot and not _is_partition(number)):
            raise ValueError(
                f"{text[:200]!r} is not the name of a log; write SERVICE, or SERVICE.NUMBER with a number from 1"
            )
        return LogName(service, int(number) if dot else 0)


def _is_partition(text: str) -> bool:
    return text.isascii() and text.isdigit() and text[0] != "0"


def slot_of(key: str) -> int:
    """The slot of a key, written as in a stream's name: the lowest 12 bits of the CRC-32 (IEEE 802.3, as in zlib and
    PNG) of its UTF-8 bytes."""
    return zlib.crc32(key.encode()) % SLOTS


class SlotMap:
    """Which log of a service owns which slot."""

    __slots__ = ("_logs", "_owners", "version")

    def __init__(self, service: str, owners: Sequence[int] = (0,), *, version: int = 1) -> None:
        """`owners`: the partition that owns each slot; if there are fewer than SLOTS, each owns an equal range of
        slots."""
        if not owners or SLOTS % len(owners) or min(owners) < 0:
            raise ValueError(
                f"a slot map needs 1 to {SLOTS} owners, a number that divides {SLOTS} evenly; it got {len(owners)}"
            )
        self.version = version
        self._owners = tuple(owners)
        self._logs = {partition: LogName(service, partition) for partition in self._owners}

    def log_of(self, key: str) -> LogName:
        """The log that a key belongs to."""
        if len(self._owners) == 1:
            return self._logs[self._owners[0]]
        return self._logs[self._owners[slot_of(key) * len(self._owners) // SLOTS]]

    @property
    def logs(self) -> tuple[LogName, ...]:
        """All logs that own at least one slot, ordered by partition."""
        return tuple(self._logs[partition] for partition in sorted(self._logs))


def exchange_cursor(peer: str) -> str:
    """The name of the cursor that says how far a peer's log was received."""
    return _EXCHANGE + peer


def peer_of(cursor: str) -> str:
    """The peer of an exchange cursor; empty for a cursor of another kind."""
    return cursor.removeprefix(_EXCHANGE) if cursor.startswith(_EXCHANGE) else ""
