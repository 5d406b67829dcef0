"""Faults: what can go wrong at one point of a run in virtual time, and what shall go wrong in this run.

A point is a commit of a service, or a message from one to another, counted from 1 in the order they come; in a run of
the same seed and the same faults before it, the same point is the same moment. `VirtualSystem` asks at each point what
shall happen there and does it; the points that were met are kept in order. `testing.explorer.search` chooses.
"""

import msgspec

COMMIT_FAULTS = ("crash_before", "crash_after", "refuse", "doubt", "slow", "clock_ahead", "clock_back")
"""At a commit: its service crashes before or after it; the store refuses it; it is carried out and the store says that
it failed; it takes `SLOW_SECONDS`; the service's clock jumps an hour ahead, or five minutes back, and stays so."""
MESSAGE_FAULTS = (
    "lose_request",
    "lose_answer",
    "duplicate",
    "late_copy",
    "delay",
    "crash_receiver",
    "crash_sender",
    "partition",
)
"""At a message: it or its answer is lost; it is delivered twice, or again when `DELAY_SECONDS` have passed; it is
delayed, so that others pass it; its receiver, or its sender, crashes before the answer arrives; the two do not reach
each other for `PARTITION_SECONDS`."""
FEED_FAULTS = ("lose_answer", "delay")
"""At a page of a feed, and at a question to a peer."""
SLOW_SECONDS, DELAY_SECONDS, PARTITION_SECONDS, DOWN_SECONDS = 3.0, 1.5, 12.0, 0.2
CLOCK_JUMPS_US = {"clock_ahead": 3_600_000_000, "clock_back": -300_000_000}
"""Ahead: past every deadline. Back: a timer that is set already waits that much longer, so it is less."""


class Fault(msgspec.Struct, frozen=True, order=True):
    """One thing that goes wrong, where, and at the how-many-th commit or message there."""

    kind: str
    where: str
    """`stock`: a commit of stock. `order>stock`: a frame from order to stock. `order<stock`: a page of stock's feed to
    order. `order?stock`: a question of order's about a staged transaction."""
    number: int = 1

    def __repr__(self) -> str:
        return f"Fault({self.kind!r}, {self.where!r}, {self.number})"


def kinds_at(where: str) -> tuple[str, ...]:
    """What can go wrong at such a point."""
    if ">" in where:
        return MESSAGE_FAULTS
    return FEED_FAULTS if "<" in where or "?" in where else COMMIT_FAULTS


class Schedule(msgspec.Struct, frozen=True):
    """One run: which faults where, and the seed of all the rest."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0
    jitter: bool = False
    """Messages and flushes take times drawn by chance."""


class Faults:
    """The faults of one run, and what has been met so far."""

    def __init__(self, chosen: tuple[Fault, ...] = ()) -> None:
        self._chosen: dict[tuple[str, int], list[Fault]] = {}
        for fault in chosen:
            self._chosen.setdefault((fault.where, fault.number), []).append(fault)
        self._counts: dict[str, int] = {}
        self.seen: list[tuple[str, int]] = []
        """Every point that was met, in order."""
        self.hit: list[Fault] = []
        """Those of the chosen that were met."""

    def meet(self, where: str) -> tuple[str, ...]:
        """Count a point, and say what shall go wrong at it."""
        number = self._counts[where] = self._counts.get(where, 0) + 1
        self.seen.append((where, number))
        found = self._chosen.get((where, number))
        if found is None:
            return ()
        self.hit += found
        return tuple(fault.kind for fault in found)
