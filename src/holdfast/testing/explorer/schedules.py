"""Which schedules an exploration runs: the simplest first, each stage made of what those before have shown.

No fault at all, which shows the points at which something can go wrong. Every single fault at every one of these. Then
pairs: to each fault a second one, at every point that its own run met from there on, so that it may hit what only the
first has led to: a retry, a recovery, an undo. Then several faults and latencies, drawn by chance from all points
that were ever met. `testing.explorer.search` runs them and tells what they met.
"""

import bisect
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence

from holdfast.testing.simulation.faults import Fault, Schedule, kinds_at

Point = tuple[str, int]
"""Where, and the number of the commit or message there; the first is 1."""
FAULTS_MAX = 6
"""The most faults of a run that is drawn by chance."""


class Choice:
    """The schedules of one exploration. One seed decides them all."""

    def __init__(self, seed: int) -> None:
        self._seed, self._chance = seed, random.Random(seed)
        self._runs = 0
        self._met: dict[Point, Point] = {}
        """Every point that was met, in the order of their first meeting; its name is kept once, for all runs."""
        self._after: dict[Fault, list[Point]] = {}
        """Single fault -> its point, and those that its run met afterwards."""

    def note(self, schedule: Schedule, seen: Sequence[Point]) -> None:
        """A schedule was run, and met these points."""
        self._runs += 1
        points = [self._met.setdefault(point, point) for point in seen]
        if len(schedule.faults) == 1 and not schedule.jitter:
            (fault,) = schedule.faults
            where = (fault.where, fault.number)
            self._after[fault] = points[points.index(where) :] if where in points else []

    def stages(self, wanted: int) -> Iterator[Iterable[Schedule]]:
        """The schedules, of which `wanted` are run. Ask for a stage when all runs of the one before are noted."""
        yield [Schedule(seed=self._seed)]
        yield [Schedule((fault,), self._seed) for where, number in self._met for fault in faults_at(where, number)]
        # Half of what is left is for pairs: of all of them, or as many as fit, evenly over the run.
        yield (Schedule(pair, self._seed) for pair in self._pairs(max(0, wanted - self._runs) // 2))
        yield self._drawn(list(self._met))

    def _pairs(self, most: int) -> Iterator[tuple[Fault, Fault]]:
        """Two faults, the earlier first: all pairs, or `most` of them, drawn evenly."""
        ends = list(itertools.accumulate(map(self._count, self._after)))
        count = ends[-1] if ends else 0
        if count <= most:
            yield from ((fault, second) for fault in self._after for second in self._seconds(fault))
            return
        firsts = list(self._after)
        for number in self._chance.sample(range(count), most):
            place = bisect.bisect_right(ends, number)
            first = firsts[place]
            yield first, next(itertools.islice(self._seconds(first), number - (ends[place - 1] if place else 0), None))

    def _seconds(self, first: Fault) -> Iterator[Fault]:
        """What can go wrong once this has: at the same point what is named after it, and all at every later one."""
        for place, (where, number) in enumerate(self._after[first]):
            faults = faults_at(where, number)
            yield from faults if place else faults[faults.index(first) + 1 :]

    def _count(self, first: Fault) -> int:
        """How many `_seconds` there are."""
        points = self._after[first]
        rest = sum(len(kinds_at(where)) for where, _ in points[1:])
        return rest + len(kinds_at(first.where)) - kinds_at(first.where).index(first.kind) - 1 if points else 0

    def _drawn(self, met: list[Point]) -> Iterator[Schedule]:
        chance = self._chance
        while True:
            chosen = chance.sample(met, min(len(met), chance.randint(1, FAULTS_MAX)))
            faults = tuple(Fault(chance.choice(kinds_at(where)), where, number) for where, number in chosen)
            yield Schedule(faults, chance.getrandbits(32), jitter=True)


def faults_at(where: str, number: int) -> list[Fault]:
    """All that can go wrong at a point."""
    return [Fault(kind, where, number) for kind in kinds_at(where)]
