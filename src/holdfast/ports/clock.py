"""The clock port: the source of time and of randomness, so that a test can control both.

Waiting is not here: it goes through the event loop's own timers, which a virtual loop drives (`holdfast.testing`).
"""

from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """Time of day and unique ids."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC; may step backwards when the machine's clock is set."""
        ...

    def unique(self) -> str:
        """A new id, 26 characters, unique without coordination, sorting roughly by time."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...
