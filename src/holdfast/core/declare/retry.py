"""Retry: how often a message whose handler fails is tried again, and when it is parked.

A policy is declared per service and per command (`Service(retry=...)`, `service.retry(Command, ...)`); the runtime
applies it to waiting messages. A parked message waits for an operator. Pure; fails with `Misuse` when it is declared.
"""

import msgspec

from holdfast.errors import Misuse


class Retry(msgspec.Struct, frozen=True):
    """How a failed message is tried again: after `first_seconds`, each delay `growth` times the one before, at most
    `last_seconds`, each longer or shorter by chance by up to its part `jitter`; parked after `attempts_max` tries."""

    attempts_max: int = 12
    first_seconds: float = 0.5
    last_seconds: float = 60.0
    growth: float = 2.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        rules = (
            ("attempts_max: 1 or more", self.attempts_max >= 1),
            ("first_seconds: more than 0", self.first_seconds > 0),
            ("last_seconds: not less than first_seconds", self.last_seconds >= self.first_seconds),
            ("growth: 1 or more", self.growth >= 1),
            ("jitter: from 0 to less than 1", 0 <= self.jitter < 1),
        )
        for rule, holds in rules:
            if not holds:
                raise Misuse(f"Retry.{rule}")

    def delay_us(self, failures: int, chance: float) -> int:
        """Microseconds until the next try after so many failures, 1 or more; `chance` in [0, 1)."""
        seconds = min(self.last_seconds, self.first_seconds * self.growth ** min(failures - 1, 64))
        return round(seconds * (1 - self.jitter + 2 * self.jitter * chance) * 1e6)
