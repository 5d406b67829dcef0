"""The machine's clock: time of day, and ids that need no coordination.

The implementation of the clock port for real runs; `holdfast.testing` has one in virtual time. It cannot fail.
"""

import os
import random
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


class SystemClock:
    """The clock port on the real machine."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def unique(self) -> str:
        """A new id: 48 bits of milliseconds and 80 random bits, in Crockford's base 32 (the layout of a ULID)."""
        return base32((time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big"))

    def random(self) -> float:
        """A number in [0, 1)."""
        return random.random()


def base32(number: int) -> str:
    """A number of 128 bits as 26 characters, which sort in the same order as the numbers."""
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])
