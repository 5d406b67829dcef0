"""Closed-loop load: each caller waits for its answer before it asks again.

A measurement runs for a time, the first part of which is not counted (connections, caches, the first WAL pages).
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

WARM_SHARE = 0.2


@dataclass
class Measured:
    """One measurement: answers per second and what callers waited."""

    per_s: float
    p50_ms: float
    p99_ms: float
    counted: int


async def closed_loop(one: Callable[[int], Awaitable[object]], callers: int, seconds: float) -> Measured:
    """Let `callers` call `one(number)` again and again for so long."""
    begin = time.perf_counter()
    counts_from, end = begin + seconds * WARM_SHARE, begin + seconds
    waited: list[float] = []
    number = 0

    async def caller() -> None:
        nonlocal number
        while (asked := time.perf_counter()) < end:
            number += 1
            await one(number)
            answered = time.perf_counter()
            if counts_from <= answered < end:
                waited.append(answered - asked)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return measured(waited, end - counts_from)


def measured(waited: list[float], seconds: float) -> Measured:
    """What the times that callers waited (seconds) come to."""
    if not waited:
        return Measured(0.0, 0.0, 0.0, 0)
    waited.sort()
    p99 = waited[min(len(waited) - 1, int(len(waited) * 0.99))]
    return Measured(len(waited) / seconds, statistics.median(waited) * 1000, p99 * 1000, len(waited))


def median(rounds: list[Measured]) -> Measured:
    """The medians of several rounds."""
    return Measured(
        statistics.median(one.per_s for one in rounds),
        statistics.median(one.p50_ms for one in rounds),
        statistics.median(one.p99_ms for one in rounds),
        sum(one.counted for one in rounds),
    )
