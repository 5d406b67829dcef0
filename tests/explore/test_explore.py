"""The fault explorer: what it runs, what it says it ran, what it makes of a failure, and that it always comes back."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import Command, Contract, Event, Rejected, Service, System, answer, decide, step, undo
from holdfast.core.audit.audit import Audit
from holdfast.core.audit.cut import NOTHING, Seen
from holdfast.core.audit.happened import Happened
from holdfast.runtime.node import Node
from holdfast.testing import Fault, Found, Schedule, VirtualSystem, explore, explored, replay, run_virtual
from holdfast.testing.explorer import search
from holdfast.testing.explorer.search import Scenario, _Explorer
from holdfast.testing.simulation.faults import COMMIT_FAULTS, FEED_FAULTS, MESSAGE_FAULTS, Faults, kinds_at
from shop.contracts import Charged, CheckedOut, Checkout, Item, Restock, Restocked
from support import scenarios
from support.scenarios import DAYS_SEEDS, HUNTS, in_shop, in_trading, shop, trading

FAULTED = (Fault("crash_after", "order", 5), Fault("lose_answer", "order>stock", 2), Fault("slow", "payment", 1))
SCHEDULES = {
    "plain": Schedule(),
    "faulted": Schedule(FAULTED),
    "jittered": Schedule((), 7, jitter=True),
    "both": Schedule(FAULTED, 7, jitter=True),
}
BREAKABLE = Fault("crash_before", "order", 3)


def flawed(*needs: Fault) -> Scenario:
    """A scenario that fails where these faults were met, and only there."""

    async def scenario(system: VirtualSystem) -> None:
        await in_shop(system)
        await asyncio.sleep(5)
        if system.faults is not None and set(needs) <= set(system.faults.hit):
            raise AssertionError("flawed")

    return scenario


def bought_twice(tx: Happened) -> Any:
    """Never so: for tests that want an invariant to be broken by what is fine."""
    if CheckedOut in tx:
        yield f"{tx.of(Charged)[0].order_id} was bought"


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_same_schedule_gives_the_same_logs(name: str) -> None:
    """One seed decides all: a schedule replayed gives the same logs, byte for byte."""
    one, other = (replay(shop, in_shop, SCHEDULES[name]) for _ in range(2))
    assert len(one.digest) == 64 and one.digest == other.digest
    assert one.seen == other.seen and one.hit == other.hit == list(SCHEDULES[name].faults)


def test_the_same_schedule_gives_the_same_logs_in_any_process() -> None:
    """Nothing hangs on the order of a set or the hash of a string: another process finds the same logs."""
    program = (
        "import sys; sys.path[:0] = ['.', 'tests', 'examples'];"
        "import tests.explore.test_explore as t;"
        "print(*(t.replay(t.shop, t.in_shop, one).digest for one in t.SCHEDULES.values()))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120,
            cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.split()
        for seed in ("1", "2")
    ]  # fmt: skip
    assert len(set(said[0])) == 4 and said[0] == said[1]


def test_another_seed_gives_another_run() -> None:
    """Latencies come from the seed: with them another seed gives other logs; and each fault changes the logs."""
    digests = {replay(shop, in_shop, Schedule((), seed, jitter=True)).digest for seed in range(6)}
    digests |= {replay(shop, in_shop, one).digest for one in SCHEDULES.values()}
    assert len(digests) == 6 + 4


def test_batches_grow_while_they_are_quick_and_shrink_where_they_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker gets more and more runs at a time, up to a bound, while they take little time, and fewer where they take
    long, so that a bound in seconds is kept; all schedules come, in their order."""
    now = [0.0]
    monkeypatch.setattr(search.time, "monotonic", lambda: now[0])
    wanted = [Schedule(seed=number) for number in range(3_000)]
    sizes: list[int] = []
    come: list[Schedule] = []
    for batch in search._batches([wanted[:1], wanted[1:]], 2_500, 2):
        sizes.append(len(batch))
        come += batch
        now[0] += 0.1 if len(come) < 1_000 else 5.0
    assert sizes == [1, 100, 200, 400, 400, 200, 100, 50, 24, 12, 6, 2] + [2] * 502 + [1]
    assert come == wanted[:2_500]


def test_workers_find_the_same() -> None:
    """In this process or in two, the first failing schedule is the same one, and what was explored before it too."""
    found: list[tuple[Any, ...]] = []
    for workers in (0, 1, 2):
        with pytest.raises(Found) as caught:
            explore(shop, flawed(BREAKABLE), schedules=150, workers=workers)
        exploration = caught.value.exploration
        found.append((caught.value.schedule, caught.value.violations, exploration.runs, exploration.seen))
    assert found[0] == found[1] == found[2]
    assert found[0][0] == Schedule((BREAKABLE,))


def test_a_drawn_failure_is_the_same_with_workers() -> None:
    """The same of what is drawn by chance: three faults at once, which no single and no pair has."""

    async def scenario(system: VirtualSystem) -> None:
        await asyncio.gather(*(system.ask(Restock("tea", n + 1)) for n in range(3)))
        if system.faults is not None and len({fault.kind for fault in system.faults.hit}) == 3:
            raise AssertionError("three kinds")

    found: list[Schedule] = []
    for workers in (0, 2):
        with pytest.raises(Found) as caught:
            explore(stock_alone, scenario, schedules=400, seed=5, workers=workers)
        found.append(caught.value.schedule)
    assert found[0] == found[1] and len(found[0].faults) == 3


def stock_alone() -> System:
    """One service of the shop."""
    return System([shop().services["stock"]], name="stock")


def test_every_single_fault_is_run() -> None:
    """Every kind of fault is run at every point of the undisturbed run, and each happens; counted, none left out."""
    base = replay(shop, in_shop, Schedule()).seen
    singles = [Fault(kind, where, number) for where, number in base for kind in kinds_at(where)]
    kinds = {fault.kind for fault in singles}
    assert kinds == {*COMMIT_FAULTS, *MESSAGE_FAULTS, *FEED_FAULTS}
    commits = Counter(where for where, _ in base if where.isalpha())
    assert set(commits) == {"order", "stock", "payment", "shipping"} and commits["order"] >= 5
    explored = explore(shop, in_shop, schedules=1 + len(singles))
    assert (explored.runs, explored.singles) == (1 + len(singles), len(singles))
    assert (explored.pairs, explored.drawn, explored.missed) == (0, 0, ())
    assert {fault: explored.hit.get(fault) for fault in singles} == dict.fromkeys(singles, 1)
    assert not set(base) & set(explored.never_hit)
    assert explored.never_hit, "a run with faults comes by points that the undisturbed one does not have"
    assert f"{len(singles)} with one fault" in str(explored) and "nothing went wrong at" in str(explored)


def test_what_is_never_reached_is_named() -> None:
    """A fault whose point no run came to is named as missed, and is not counted as one that happened."""
    far = Fault("crash_before", "order", 9_999)
    outcome = replay(shop, in_shop, Schedule((far,)))
    assert outcome.hit == [] and (far.where, far.number) not in outcome.seen
    explored = explore(shop, in_shop, schedules=300, seed=3)
    assert explored.pairs and explored.drawn and explored.missed
    assert not set(explored.missed) & set(explored.hit)
    assert f"never reached {explored.missed[0]!r}" in str(explored)


FIVE = (*FAULTED, Fault("delay", "order>payment", 1), Fault("clock_ahead", "stock", 1))


@pytest.mark.parametrize("needs", [FIVE[:1], FIVE[2:3], FIVE[4:], FIVE[::4], FIVE[1:3]], ids=str)
def test_a_failure_is_shrunk_to_what_it_needs(needs: tuple[Fault, ...]) -> None:
    """Of five faults exactly those are left that the failure needs, be it one or two; latencies and seed go too."""
    with pytest.raises(Found) as caught:
        replay(shop, flawed(*needs), Schedule(FIVE, 11, jitter=True))
    explorer = _Explorer(shop, flawed(*needs), (), stuck=False)
    outcome = explorer.run(Schedule(FIVE, 11, jitter=True))
    assert outcome.violations == caught.value.violations
    assert explorer.found(outcome).schedule == Schedule(needs)


MENDED = "HOLDFAST_TEST_MENDED"


async def breakable(system: VirtualSystem) -> None:
    """Fails at one fault, as long as the bug is in."""
    await in_shop(system)
    if system.faults is not None and BREAKABLE in system.faults.hit and not os.environ.get(MENDED):
        raise AssertionError('a "bug" \\ planted')


def test_the_printed_test_fails_and_passes_once_mended(tmp_path: Path) -> None:
    """What is printed is a test: written to a file it fails with the same violation, and passes once the bug is out."""
    with pytest.raises(Found) as caught:
        explore(shop, breakable, schedules=150)
    text = str(caught.value)
    assert caught.value.violations[0].says in text and "saga.begun" in text, "with the trail"
    assert _run_printed(tmp_path, text) == (1, True)
    assert _run_printed(tmp_path, text, **{MENDED: "1"}) == (0, False)


def test_the_printed_test_judges_what_was_judged(tmp_path: Path) -> None:
    """Invariants that came with the exploration come with the test; and they are not left behind in the system."""
    made = shop()
    before = set(made.invariants)
    for _ in range(2):  # a second exploration may bring one of the same name
        with pytest.raises(Found) as caught:
            explore(made, in_shop, invariants=[bought_twice], schedules=1, workers=0)
        assert set(made.invariants) == before
    with pytest.raises(Found) as caught:
        explore(shop, in_shop, invariants=[bought_twice], schedules=1)
    assert "invariants=[bought_twice]" in str(caught.value)
    assert _run_printed(tmp_path, str(caught.value), says="bought_twice: ") == (1, True)


def _run_printed(folder: Path, text: str, says: str = "planted", **env: str) -> tuple[int, bool]:
    """(what pytest ended with, whether it named the violation) of the test that is in a failure's text."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("from "))
    last = next(n for n, line in enumerate(lines) if line.lstrip().startswith("replay("))
    path = folder / "test_printed.py"
    path.write_text("\n".join(lines[first : last + 1]) + "\n")
    root = Path(__file__).parents[2]
    places = os.pathsep.join(str(root / name) for name in (".", "tests", "examples"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", str(root / "pyproject.toml"), "--rootdir", str(folder), str(path)],
        capture_output=True, text=True, timeout=120, env={**os.environ, **env, "PYTHONPATH": places}, check=False,
    )  # fmt: skip
    return done.returncode, "Found" in done.stdout and says in done.stdout


@explored(shop, schedules=25)
async def test_explored_is_a_test(system: VirtualSystem) -> None:
    """`explored` makes a test of a scenario: this one, which pytest runs without any argument, passes."""
    await system.ask(Restock("tea", 5))
    assert (await system.ask(Checkout("o1", "ann", (Item("tea", 1, 300),)))).position


def test_explored_fails_as_it_must() -> None:
    """The decorated test raises what was found, keeps its name and docstring, and takes no argument; what it found can
    be replayed by its name."""
    failing = explored(shop, schedules=150)(breakable)
    assert (failing.__name__, failing.__doc__) == ("breakable", breakable.__doc__)
    with pytest.raises(Found, match="planted") as caught:
        failing()
    assert isinstance(caught.value, AssertionError)
    with pytest.raises(Found, match="planted"):
        replay(shop, failing, caught.value.schedule)  # type: ignore[arg-type]


async def raises(system: VirtualSystem) -> None:
    raise LookupError("nobody there")


async def fails_with_pytest(system: VirtualSystem) -> None:
    pytest.fail("it is not so")


async def is_cancelled(system: VirtualSystem) -> None:
    raise asyncio.CancelledError


async def never_returns(system: VirtualSystem) -> None:
    await asyncio.Event().wait()


async def goes_round(system: VirtualSystem) -> None:
    while system.stores:  # noqa: ASYNC110 - that is what is wrong with it
        await asyncio.sleep(0)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        (raises, "scenario: LookupError: nobody there"),
        (fails_with_pytest, "scenario: Failed: it is not so"),
        (is_cancelled, "scenario: CancelledError"),
        (never_returns, "scenario: TimeoutError:  (it had not ended after 7200 virtual seconds)"),
        (goes_round, "settles: it goes round and round and does not come to an end"),
    ],
)
def test_a_scenario_that_goes_wrong_is_said(scenario: Scenario, says: str, workers: int) -> None:
    """A scenario that raises, hangs or goes round for ever is found as such, in the first run; the explorer returns."""
    with pytest.raises(Found) as caught:
        explore(stock_alone, scenario, schedules=50, workers=workers)
    assert str(caught.value).startswith(says)
    assert caught.value.schedule == Schedule() and caught.value.exploration.runs == 1


lone, sink = Contract("lone"), Contract("sink")


@lone.event
class Done(Event):
    name: str


@lone.command(key="name")
class Do(Command[Done]):
    name: str


@sink.event
class Sunk(Event):
    name: str


@sink.command(key="name")
class Sink(Command[Sunk]):
    name: str


@sink.command(key="name")
class Raise(Command[Sunk]):
    name: str


def sinking(sinks: Callable[[], None], raises_again: Callable[[], None] = lambda: None) -> System:
    """A saga of two steps: sink, then sink what cannot be; so the first is raised again."""
    lones, sinking = Service(lone), Service(sink)

    @sinking.aggregate
    class Ship:
        @decide(creates=True)
        def sink(self, command: Sink) -> Sunk:
            if command.name.endswith("!"):
                sinks()
                raise Rejected("afloat")
            return Sunk(command.name)

        @decide(creates=True)
        def again(self, command: Raise) -> Sunk:
            raises_again()
            return Sunk(command.name)

    @lones.saga
    class Doing:
        do: Do

        @step
        def one(self) -> Sink:
            return Sink(self.do.name)

        @undo(one)
        def back(self, sunk: Sunk) -> Raise:
            return Raise(sunk.name)

        @step
        def two(self) -> Sink:
            return Sink(self.do.name + "!")

        @answer
        def done(self) -> Done:
            return Done(self.do.name)

    return System([lones, sinking], name="sinking")


async def do(system: VirtualSystem) -> None:
    """Begin, and do not wait for the end."""
    asking = asyncio.ensure_future(system.ask(Do("x")))
    await asyncio.sleep(1)
    asking.cancel()


def no() -> None:
    raise Rejected("no")


def fails() -> None:
    raise RuntimeError("a bug")


def test_what_is_left_unsettled_is_said() -> None:
    """A message that waits for a handler with a bug never settles; a saga that is stuck is named, unless that is
    allowed; what ends by itself is neither."""
    explore(lambda: sinking(lambda: None), do, schedules=3, workers=0)
    with pytest.raises(Found, match=r"settles: not settled after .* sink: Ship/x! waits: RuntimeError: a bug"):
        explore(lambda: sinking(fails), do, schedules=3, workers=0)
    with pytest.raises(Found, match=r"settles: Doing/\w+ of lone is stuck: undo of one was rejected 5 times: no"):
        explore(lambda: sinking(lambda: None, no), do, schedules=3, workers=0)
    explore(lambda: sinking(lambda: None, no), do, schedules=3, workers=0, stuck=True)


def only_tea(tx: Happened) -> Any:
    for event in tx.of(Restocked):
        if event.sku != "tea":
            yield f"{event.sku} came in"


class FewCups:
    """A fold."""

    cups: int = 0

    def settled(self, tx: Happened) -> None:
        self.cups += sum(event.quantity for event in tx.of(Restocked) if event.sku == "cup")

    def holds(self) -> Any:
        if self.cups:
            yield f"{self.cups} cups"


class FewOfEach:
    """A fold by key."""

    units: int = 0

    def settled(self, tx: Happened, sku: str) -> None:
        self.units += sum(event.quantity for event in tx.of(Restocked) if event.sku == sku)

    def holds(self) -> Any:
        if self.units > 4:
            yield f"{self.units} units"


class NoneLeft:
    """A fold that is given what is in flight."""

    units: int = 0

    def settled(self, tx: Happened) -> None:
        self.units += len(tx.of(Restocked))

    def holds(self, in_flight: list[Happened]) -> Any:
        if self.units or in_flight:
            yield f"{self.units} settled, {len(in_flight)} in flight"


def of_sku(tx: Happened) -> list[str]:
    return [event.sku for event in tx.of(Restocked)]


@pytest.mark.parametrize(
    ("declared", "key", "says"),
    [
        (only_tea, None, [("cup came in", "", 1)]),
        (FewCups, None, [("1 cups", "", 2)]),
        (FewOfEach, of_sku, [("5 units", "tea", 1)]),
        (NoneLeft, None, [("2 settled, 0 in flight", "", 2)]),
    ],
    ids=["alone", "folded", "by key", "in flight"],
)
def test_every_kind_of_invariant_is_judged(declared: Any, key: Any, says: list[tuple[str, str, int]]) -> None:
    """A function, a fold, a fold by key and one with what is in flight are judged after a run; each names the records
    that it was found in, and its transaction, whose trail is told."""

    def made() -> System:
        system = System([shop().services["stock"]])
        system.invariant(key=key)(declared) if key else system.invariant(declared)
        return system

    async def restock(system: VirtualSystem) -> None:
        await system.ask(Restock("tea", 5))
        await system.ask(Restock("cup", 1))

    with pytest.raises(Found) as caught:
        explore(made, restock, schedules=1)
    found = caught.value.violations
    assert [(one.says, one.key, len(one.records)) for one in found] == says
    assert {one.invariant for one in found} == {declared.__name__}
    named = {record for one in found for record in one.records}
    assert named <= {"stock@1", "stock@2"} and all(one.tx for one in found)
    assert all(record in str(caught.value) for record in named) and "event stock.restocked.v1" in str(caught.value)


@pytest.mark.parametrize("name", HUNTS)
def test_healthy_systems_survive(name: str) -> None:
    """G1, G3, G4, G5, G6, G7: whatever goes wrong where, sagas, staged commit, effects, reactions and views end whole
    or undone, nothing lost or twice; more than a hundred schedules each here."""
    made, scenario = HUNTS[name]
    assert explore(made, scenario, schedules=120, seed=1).runs == 120


@pytest.mark.soak
@pytest.mark.parametrize("seed", DAYS_SEEDS)
@pytest.mark.parametrize("name", HUNTS)
def test_healthy_systems_survive_for_longer(name: str, seed: int) -> None:
    """The same on thousands of schedules: every single fault, pairs, and what is drawn by chance."""
    made, scenario = HUNTS[name]
    explored = explore(made, scenario, schedules=3_000, seed=seed)
    assert explored.runs == 3_000 and explored.drawn > 500


def test_a_cut_goes_through_staged_transactions_at_one_instant() -> None:
    """G6, G7: where all of a staged transaction happens at one instant, its votes are still commits of their own: the
    cut comes to the end of every log, and nothing is left open."""

    async def main() -> None:
        async with VirtualSystem(trading(), flush_seconds=0.0, latency_seconds=0.0) as system:
            await in_trading(system)
            await system.settle()
            report = await system.audit()
            assert report.cut == {name: node.writer.head for name, node in system.nodes.items()}
            assert not report.open and not report.violations and report.settled >= 7

    run_virtual(main)


@pytest.mark.parametrize(
    ("causes", "named"),
    [
        ({"order": "order@2"}, {"order@2"}),
        ({"order": "stock@2", "stock": "order@2"}, {"order@2", "stock@2"}),
        ({"order": "stock@2", "stock": "payment@1"}, set[str]()),
    ],
)
def test_what_caused_itself_is_said(causes: dict[str, str], named: set[str]) -> None:
    """G7: records that were caused by one another are named, be it in one log or in two; where each has its cause
    before it, nothing is said."""
    audit = Audit(shop())
    for log in ("order", "stock", "payment", "shipping"):
        found = [(1, causes.get(log, "t")), (2, "t")]
        records = [Seen(n, "event", "x", "t", cause, n, "", "", 0, "", False, NOTHING) for n, cause in found]
        audit.take(log, records, 2, head=2, mark=None)
    audit.check()
    said = [one.says for one in audit.check()]
    assert {text.partition("was caused by ")[2].partition(",")[0] for text in said} == named
    assert all("which comes after it" in text for text in said)


def test_a_crash_while_all_is_read_is_survived() -> None:
    """A service that crashes once all has settled, at the commit that saves a cursor, comes back before it is judged:
    the explorer neither stumbles nor takes what it could not read for unfinished."""
    assert scenarios.provider
    base = replay(scenarios.cards, scenarios.in_cards, Schedule()).seen
    last = max(number for where, number in base if where == "order")
    for number in range(last, last + 3):
        for kind in ("crash_before", "crash_after"):
            replay(scenarios.cards, scenarios.in_cards, Schedule((Fault(kind, "order", number),)))


def test_a_crash_while_a_service_starts_ends_it() -> None:
    """A service that crashes in the middle of its start is gone, and starts again: never are there two of it."""

    async def main() -> None:
        system = VirtualSystem(scenarios.feeds(), faults=Faults((Fault("slow", "store", 1),)))
        asyncio.get_running_loop().call_later(1, system.crash_soon, "store")
        async with system:
            await scenarios.in_feeds(system)
            assert system.crashes == ["store"]
            running = [task.get_coro() for task in asyncio.all_tasks()]
            writers = [one for one in running if one is not None and one.__qualname__ == "Writer._run"]
            assert len(writers) == len(system.nodes) == 3

    run_virtual(main)


def test_a_crash_as_a_service_has_started_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that crashes again at the instant at which it is back starts once more. It speaks to its peers before
    whoever starts it hears so; in between it stayed up on a store that was cut, for ever."""
    start, starts = Node.start, list[str]()

    async def main() -> None:
        system = VirtualSystem(scenarios.feeds())

        async def started(node: Node) -> None:
            await start(node)
            starts.append(node.name)
            if starts.count("store") == 2 and node.name == "store":
                system.crash_soon("store")

        monkeypatch.setattr(Node, "start", started)
        async with system:
            system.crash_soon("store")
            await scenarios.in_feeds(system)
            await system.settle(within_seconds=60)

    run_virtual(main)
    assert starts.count("store") == 3
