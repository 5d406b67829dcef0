"""The fault explorer: it hunts for the schedule of faults that breaks a system, and prints it as a test.

`explore` runs a scenario in virtual time: without faults, with every single fault, with pairs, with several at once
(`testing.explorer.schedules`). After each run the system must settle and its invariants must hold. A failure is shrunk
to the fewest faults that still show it, and raised as `Found`: what is wrong, a ready test, and the trail of the
transaction. One seed decides everything: the same seed gives the same runs, and the same logs. (TigerBeetle's and
FoundationDB's simulators are the models.)
"""

import asyncio
import contextlib
import functools
import inspect
import itertools
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

import msgspec

from holdfast.core.audit.audit import Audit, Report
from holdfast.core.audit.invariant import Violation
from holdfast.core.declare.service import Service
from holdfast.core.system import System
from holdfast.errors import CommandError, StoreError
from holdfast.runtime.ops.audit import read_all
from holdfast.testing.explorer.report import as_test, told
from holdfast.testing.explorer.run import EndlessRun, in_virtual_time, quiet
from holdfast.testing.explorer.schedules import Choice
from holdfast.testing.explorer.workers import run_all
from holdfast.testing.simulation.faults import Fault, Faults, Schedule
from holdfast.testing.simulation.system import VirtualSystem

Scenario = Callable[[VirtualSystem], Coroutine[Any, Any, None]]
Made = System | Service | Callable[[], System | Service]

SCHEDULES = 1_000
SETTLE_SECONDS = 2_700.0
"""Virtual seconds within which everything has to come to an end once the scenario has: several times the longest delay
before something is tried again, while clocks go back as often as they may."""
SCENARIO_SECONDS = 7_200.0
READ_TRIES = 10
"""A service may crash once all is settled too: at the commit that saves a cursor."""
JITTER = (0.0, 0.0, 0.0, 0.001, 0.004, 0.02)
BATCH, BATCH_MOST, BATCH_SECONDS = 25, 200, 0.5
"""Runs of one worker between two looks at the results: few at first, so that an early failure is shown early. The
number doubles up to a bound while a batch takes less than BATCH_SECONDS, since every new process pays for its memory,
and is halved if a batch takes more than twice that."""


class RunResult(msgspec.Struct):
    """The result of one run."""

    schedule: Schedule
    seen: list[tuple[str, int]]
    hit: list[Fault]
    violations: tuple[Violation, ...]
    digest: str = ""
    """Of all logs."""
    told: str = ""
    """The trails of the transactions that are wrong."""
    seconds: float = 0.0
    """Of processor time."""


class Exploration(msgspec.Struct):
    """What was explored."""

    runs: int = 0
    seconds: float = 0.0
    """Of processor time."""
    singles: int = 0
    pairs: int = 0
    drawn: int = 0
    """Runs with one fault, with two, and drawn by chance."""
    seen: dict[tuple[str, int], int] = {}
    """Point -> runs that met it."""
    hit: dict[Fault, int] = {}
    """Fault -> runs in which it happened."""
    chosen: dict[Fault, None] = {}
    """Every fault of a run, in the order they were chosen first."""

    @property
    def missed(self) -> tuple[Fault, ...]:
        """Faults that were chosen, whose point no run with them reached."""
        return tuple(fault for fault in self.chosen if fault not in self.hit)

    @property
    def never_hit(self) -> list[tuple[str, int]]:
        """Points that were met and at which nothing ever went wrong."""
        where = {(fault.where, fault.number) for fault in self.hit}
        return [point for point in self.seen if point not in where]

    def __str__(self) -> str:
        rate = self.runs / self.seconds if self.seconds else 0.0
        parts = f"{self.singles} with one fault, {self.pairs} with two, {self.drawn} drawn"
        text = f"{self.runs} schedules ({parts}), {rate:.0f} per second of processor time; "
        text += f"{len(self.seen)} points seen, faults at {len(self.seen) - len(self.never_hit)} of them"
        for what, points in (
            ("nothing went wrong at", [f"{where}#{number}" for where, number in self.never_hit]),
            ("never reached", [str(fault) for fault in self.missed]),
        ):
            if points:
                text += f"; {what} {', '.join(points[:20])}" + (f" and {len(points) - 20} more" if points[20:] else "")
        return text


class Found(AssertionError):
    """A schedule that breaks the system: what is wrong, a test that shows it, and the trail."""

    def __init__(self, text: str, outcome: RunResult, exploration: Exploration) -> None:
        super().__init__(text)
        self.schedule, self.violations, self.exploration = outcome.schedule, outcome.violations, exploration


def explore(
    system: Made,
    scenario: Scenario,
    *,
    invariants: Iterable[Any] = (),
    schedules: int = SCHEDULES,
    seconds: float | None = None,
    seed: int = 0,
    stuck: bool = False,
    workers: int | None = None,
) -> Exploration:
    """Hunt for a schedule that breaks the system, until `schedules` runs are done or `seconds` have passed.

    `system` is a System, or a function that makes one if its services keep state of their own. `scenario` is what
    callers do; `VirtualSystem.ask` asks until there is an answer. A run is good if the scenario raises nothing, if
    everything settles (no saga is stuck unless `stuck` allows it), and if the system's invariants hold, and those in
    `invariants`. Runs are made in `workers` forked processes. None: one per core, if this process has one thread. 0: in
    this process; only then does the caller see what a scenario keeps outside of the system. Raises Found.
    """
    explorer, choice = _Explorer(system, scenario, tuple(invariants), stuck=stuck), Choice(seed)
    many = _workers() if workers is None else workers
    with quiet():
        limit = None if seconds is None else time.monotonic() + seconds
        for batch in _batches(choice.stages(schedules), schedules, max(1, many)):
            for outcome in run_all(explorer.run, batch, many, RunResult):
                choice.note(outcome.schedule, outcome.seen)
                explorer.note(outcome)
                if outcome.violations:
                    raise explorer.found(outcome)
            if limit is not None and time.monotonic() > limit:
                break
    return explorer.exploration


def _workers() -> int:
    """How many processes to run in: forking is for a process with one thread."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "fork") and threading.active_count() == 1 else 0


def _batches(stages: Iterable[Iterable[Schedule]], wanted: int, workers: int) -> Iterator[list[Schedule]]:
    """Schedules in the order of their stages, some at a time. A stage is asked for when the one before is done."""
    size = BATCH
    for stage in stages:
        schedules = iter(stage)
        while batch := list(itertools.islice(schedules, min(size * workers, wanted))):
            wanted, begun = wanted - len(batch), time.monotonic()
            yield batch
            if not wanted:
                return
            seconds = time.monotonic() - begun
            if seconds < BATCH_SECONDS:
                size = min(BATCH_MOST, size * 2)
            elif seconds > 2 * BATCH_SECONDS:
                size = max(1, size // 2)


def replay(
    system: Made, scenario: Scenario, schedule: Schedule, *, invariants: Iterable[Any] = (), stuck: bool = False
) -> RunResult:
    """One run, as an exploration made it. Raises Found if it breaks the system."""
    explorer = _Explorer(system, scenario, tuple(invariants), stuck=stuck)
    with quiet():
        outcome = explorer.run(schedule, keep=True)
    if outcome.violations:
        raise Found(explorer.text(outcome), outcome, explorer.exploration)
    return outcome


def explored(system: Made, **options: Any) -> Callable[[Scenario], Callable[[], None]]:
    """Make a scenario a test, under any runner: `@explored(shop, schedules=500)`. Takes the options of `explore`."""

    def make(scenario: Scenario) -> Callable[[], None]:
        @functools.wraps(scenario)
        def run() -> None:
            explore(system, scenario, **options)

        # A test runner must not take the scenario's parameter for a fixture.
        run.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
        return run

    return make


class _Explorer:
    def __init__(self, system: Made, scenario: Scenario, invariants: tuple[Any, ...], *, stuck: bool) -> None:
        self._made, self._more, self._stuck = system, invariants, stuck
        self._scenario: Scenario = inspect.unwrap(scenario)  # of a test that `explored` made, what it runs
        self.exploration = Exploration(seen={}, hit={}, chosen={})

    def run(self, schedule: Schedule, *, keep: bool = False) -> RunResult:
        """Run the scenario on one schedule. `keep`: with the logs' digest, and the trail if something is wrong."""
        begun, faults = time.process_time(), Faults(schedule.faults)
        try:
            outcome = in_virtual_time(lambda: self._play(schedule, faults, keep=keep), schedule.seed)
        except EndlessRun as error:  # nobody knows at which moment: it went round and round
            outcome = RunResult(schedule, faults.seen, faults.hit, (Violation("settles", str(error)),))
        outcome.seconds = time.process_time() - begun
        return outcome

    def note(self, outcome: RunResult) -> None:
        """Count a run among all of them."""
        exploration, schedule = self.exploration, outcome.schedule
        exploration.runs += 1
        exploration.seconds += outcome.seconds
        exploration.drawn += schedule.jitter
        exploration.singles += not schedule.jitter and len(schedule.faults) == 1
        exploration.pairs += not schedule.jitter and len(schedule.faults) == 2
        for point in outcome.seen:
            exploration.seen[point] = exploration.seen.get(point, 0) + 1
        for fault in outcome.hit:
            exploration.hit[fault] = exploration.hit.get(fault, 0) + 1
        exploration.chosen.update(dict.fromkeys(schedule.faults))

    async def _play(self, schedule: Schedule, faults: Faults, *, keep: bool) -> RunResult:
        made: Any = self._made if isinstance(self._made, System | Service) else self._made()
        system = VirtualSystem(self._with_more(made), flush_seconds=0.0, latency_seconds=0.0, faults=faults)
        if schedule.jitter:
            system.transport.jitter = JITTER
            for store in system.stores.values():
                store.flush_seconds = system.random.choice(JITTER)
        violations = await self._judged(system)
        outcome = RunResult(schedule, faults.seen, faults.hit, violations)
        if keep:
            outcome.digest = system.digest()
            outcome.told = told(system, violations) if violations else ""
        return outcome

    def _with_more(self, made: System | Service) -> System:
        """A system with the invariants of this exploration beside its own, which stays as it is."""
        if isinstance(made, System) and not self._more:
            return made
        services = [made] if isinstance(made, Service) else made.services.values()
        system = System(services, name=made.name)
        system.invariants.update(made.invariants if isinstance(made, System) else {})
        for declared in self._more:
            system.invariant(declared)
        return system

    async def _judged(self, system: VirtualSystem) -> tuple[Violation, ...]:
        """Run, wait until all is settled, and say what is wrong."""
        limit = asyncio.timeout(SCENARIO_SECONDS)
        try:
            await system.__aenter__()
            async with limit:
                await self._scenario(system)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the scenario raises is what is wrong: pytest's too
            late = f" (it had not ended after {SCENARIO_SECONDS:g} virtual seconds)" if limit.expired() else ""
            failed = Violation("scenario", f"{type(error).__name__}: {error}{late}"[:2000])
            return (failed, *await self._why(system, timed_out=isinstance(error, TimeoutError)))
        for _ in range(READ_TRIES):
            try:
                await system.settle(within_seconds=SETTLE_SECONDS)
            except AssertionError as error:
                return (Violation("settles", str(error)[:2000]),)
            if (found := await self._read(system)) is not None:
                return found
        return (Violation("settles", "it is never quiet for long enough to read all logs"),)

    async def _why(self, system: VirtualSystem, *, timed_out: bool) -> tuple[Violation, ...]:
        """What else is wrong after a scenario failed: what it waited for in vain, and which invariants do not hold."""
        try:
            await system.settle(within_seconds=SETTLE_SECONDS if timed_out else 0.0)
        except AssertionError as error:
            left = (Violation("settles", str(error)[:2000]),) if timed_out else ()
        else:
            left = ()
        audit = Audit(system.system)
        with contextlib.suppress(CommandError, StoreError):
            await _read_whole(audit, system)
        return (*left, *audit.report().violations)

    async def _read(self, system: VirtualSystem) -> tuple[Violation, ...] | None:
        """The violations in the logs; None if a service crashed while they were read."""
        crashes, audit = len(system.crashes), Audit(system.system)
        try:
            stuck = () if self._stuck else await _stuck(system)
            await _read_whole(audit, system)
        except (CommandError, StoreError):
            return None
        report = audit.report()
        return None if len(system.crashes) > crashes else (*stuck, *report.violations, *self._open(audit, report))

    def _open(self, audit: Audit, report: Report) -> list[Violation]:
        """Transactions that have not settled although nothing moves any more."""
        if self._stuck or not report.open:
            return []
        return [
            Violation("settles", f"transaction {one.tx} has not ended", (), one.tx, one.correlation)
            for one in audit.settling.open.values()
        ]

    def found(self, outcome: RunResult) -> Found:
        """Shrink a schedule that breaks the system, and say what it shows."""
        names = {one.invariant for one in outcome.violations}
        shrunk = self._shrink(outcome.schedule, names)
        shown = self.run(shrunk, keep=True)
        return Found(self.text(shown), shown, self.exploration)

    def _shrink(self, schedule: Schedule, names: set[str]) -> Schedule:
        """The fewest faults that break the same invariant, without random latencies if it breaks without them too."""

        def breaks(candidate: Schedule) -> bool:
            return bool(names & {one.invariant for one in self.run(candidate).violations})

        faults, seed, jitter = schedule.faults, schedule.seed, schedule.jitter
        if jitter and breaks(Schedule(faults, seed)):
            jitter = False
        place = 0
        while place < len(faults):
            rest = (*faults[:place], *faults[place + 1 :])
            if breaks(Schedule(rest, seed, jitter)):
                faults, place = rest, 0
            else:
                place += 1
        return Schedule(faults, 0 if seed and breaks(Schedule(faults, 0, jitter)) else seed, jitter)

    def text(self, outcome: RunResult) -> str:
        """What is wrong, as text for the developer."""
        wrong = [_as_line(violation) for violation in outcome.violations[:10]]
        test = as_test(self._made, self._scenario, outcome.schedule, wrong[0], invariants=self._more, stuck=self._stuck)
        return "\n".join((*wrong, "", test, "", outcome.told, "", str(self.exploration)))


def _as_line(violation: Violation) -> str:
    records = f"  [{', '.join(violation.records)}]" if violation.records else ""
    return f"{violation.invariant}: {violation.says}{records}"


async def _read_whole(audit: Audit, system: VirtualSystem) -> None:
    """Read all logs, and once more if a transaction is unfinished: only what the second read lacks is missing."""
    await read_all(audit, dict(system.nodes))
    if audit.unfinished:
        await read_all(audit, dict(system.nodes))


async def _stuck(system: VirtualSystem) -> tuple[Violation, ...]:
    found = [
        Violation("settles", f"{stream} of {name} is stuck: {entry.cause}", (), entry.tx)
        for name, node in system.nodes.items()
        if node.dispatch.sagas.stuck
        for stream, entry in await node.sagas(status="stuck")
    ]
    return tuple(found)
