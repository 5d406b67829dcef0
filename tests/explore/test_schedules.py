"""Which schedules the fault explorer chooses, checked against what single runs show, one by one."""

import itertools
from collections import Counter

import pytest

from holdfast import System
from holdfast.testing import Fault, Schedule, VirtualSystem, explore
from holdfast.testing.explorer.schedules import FAULTS_MAX, Choice
from holdfast.testing.explorer.search import RunResult, _Explorer
from holdfast.testing.simulation.faults import kinds_at
from shop.contracts import Restock
from support.scenarios import shop

Point = tuple[str, int]
Pair = tuple[Fault, Fault]
PLENTY = 1 << 20


def two_of_the_shop() -> System:
    """Two services of the shop, which say nothing to each other."""
    services = shop().services
    return System([services["stock"], services["payment"]], name="two")


async def restocked(system: VirtualSystem) -> None:
    """One command."""
    await system.ask(Restock("tea", 1))


def run(schedule: Schedule) -> RunResult:
    """One run, as an exploration makes it."""
    return _Explorer(two_of_the_shop, restocked, (), stuck=False).run(schedule)


def seen_with(*faults: Fault) -> list[Point]:
    """The points that a run with these faults comes by."""
    return run(Schedule(faults)).seen


@pytest.fixture(scope="module")
def singles() -> list[Fault]:
    """Every kind of fault at every point of the undisturbed run."""
    return [Fault(kind, where, number) for where, number in seen_with() for kind in kinds_at(where)]


@pytest.fixture(scope="module")
def pairs(singles: list[Fault]) -> set[Pair]:
    """To every one of them what may follow it: at the same point the kinds after its own, all at every later point."""
    found: set[Pair] = set()
    for first in singles:
        at, kinds = (first.where, first.number), kinds_at(first.where)
        seen = seen_with(first)
        found |= {(first, Fault(kind, *at)) for kind in kinds[kinds.index(first.kind) + 1 :]}
        for where, number in seen[seen.index(at) + 1 :]:
            found |= {(first, Fault(kind, where, number)) for kind in kinds_at(where)}
    return found


def chosen(wanted: int, stages: int, seed: int = 0) -> list[Schedule]:
    """The schedules of the first stages, each of them run."""
    found: list[Schedule] = []
    choice = Choice(seed)
    for stage in itertools.islice(choice.stages(wanted), stages):
        for schedule in stage:
            outcome = run(schedule)
            assert outcome.hit == list(schedule.faults), "what was chosen systematically did not happen"
            choice.note(schedule, outcome.seen)
            found.append(schedule)
    assert len(found) == len(set(found)), "one was chosen twice"
    return found


def test_every_pair_that_can_happen_is_run(singles: list[Fault], pairs: set[Pair]) -> None:
    """Every single fault, and to each every second one that its run allows, those among them that only the first has
    led to; all of them happen, and none is run twice."""
    assert {(second.where, second.number) for _, second in pairs} > set(seen_with()), "no fault leads to a new point"
    found = chosen(PLENTY, 3)
    assert [schedule.faults for schedule in found[: 1 + len(singles)]] == [(), *((fault,) for fault in singles)]
    assert {schedule.faults for schedule in found[1 + len(singles) :]} == pairs


def test_explore_runs_what_was_chosen(singles: list[Fault], pairs: set[Pair]) -> None:
    """An exploration of as many schedules as there are singles and pairs twice over counts them all, and drawn ones."""
    explored = explore(two_of_the_shop, restocked, schedules=1 + len(singles) + 2 * len(pairs))
    assert (explored.singles, explored.pairs, explored.drawn) == (len(singles), len(pairs), len(pairs))
    assert all(explored.hit[fault] >= 1 for fault in singles)


def test_pairs_are_drawn_evenly_where_there_are_too_many(singles: list[Fault], pairs: set[Pair]) -> None:
    """Half of what is left is for pairs: all different, each of those that can happen, of all over the run."""
    many = len(pairs) // 3
    found = {schedule.faults for schedule in chosen(1 + len(singles) + 2 * many, 3, seed=5)[1 + len(singles) :]}
    assert len(found) == many and found < pairs
    taken = Counter(first.where for first, _ in found)
    offered = Counter(first.where for first, _ in pairs)
    assert all(offered[where] / 6 < taken[where] < offered[where] / 1.5 for where in offered)


def test_what_is_drawn_is_of_all_that_was_met() -> None:
    """Up to six faults, of points that any run before has come by, also such as the undisturbed one has not."""
    choice = Choice(seed=3)
    for stage in itertools.islice(choice.stages(0), 3):
        for schedule in stage:
            choice.note(schedule, seen_with(*schedule.faults))
    (drawn,) = itertools.islice(choice.stages(0), 3, 4)
    some = list(itertools.islice(drawn, 400))
    points = {(fault.where, fault.number) for schedule in some for fault in schedule.faults}
    assert points > set(seen_with())
    assert {len(schedule.faults) for schedule in some} == set(range(1, 1 + min(FAULTS_MAX, len(points))))
    assert all(schedule.jitter for schedule in some) and len({schedule.seed for schedule in some}) == len(some)
