"""One side of a comparison of costs: run one scenario on the holdfast that is imported, and print what it cost.

`bench.cost` starts this in a process of its own, with one revision's sources on the path. It uses promised names alone,
so that it runs on revisions whose modules lie elsewhere; where a promised name changes, `import` the new one and, where
there is none, the old. For each line with a number of seconds it lets callers work so long and prints what that cost:
commands, seconds of processor time, and what callers waited. Between lines it rests, and the other side works.
"""

import argparse
import asyncio
import gc
import itertools
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import uvloop

import holdfast
from bench.load import measured
from bench.services import First, Travel, first_service, system
from holdfast import Attempt, Client, Command, Contract, Event, Service, System, start

try:
    from holdfast import LocalTransaction as Transaction  # type: ignore[attr-defined,unused-ignore]
except ImportError:
    from holdfast import Transaction

CALLERS = 64
COLLECT, SWITCH_SECONDS = (20_000, 20, 50), 0.0005
"""As `holdfast run` sets them: with Python's own the collector's runs are most of the noise."""


@dataclass
class Cost:
    """What one slice of a scenario cost on one side."""

    commands: int
    cpu_seconds: float
    per_s: float
    p99_ms: float


own = Contract("own")


@own.event
class Paid(Event):
    id: str


@own.command(key="id")
class Pay(Command[Paid]):
    id: str


@own.event
class Prepared(Event):
    id: str


@own.command(key="id")
class Prepare(Command[Prepared]):
    id: str


outside = Contract("outside")


@outside.event
class Charged(Event):
    id: str


@outside.command(key="id")
class Charge(Command[Charged]):
    id: str


handled, called = Service(own), Service(outside)


@handled.handle
async def prepare(command: Prepare, tx: Transaction) -> Prepared:
    tx.connection.execute("CREATE TABLE own (id TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
    return Prepared(command.id)


@handled.handle
async def pay(command: Pay, tx: Transaction) -> Paid:
    tx.connection.execute("INSERT INTO own VALUES (?, 1)", (command.id,))
    return Paid(command.id)


@called.effect
async def charge(command: Charge, attempt: Attempt) -> Charged:
    return Charged(command.id)


class Load(NamedTuple):
    """What one scenario does again and again."""

    one: Callable[[int], Awaitable[object]]
    cpu: Callable[[], float] = time.process_time
    """Seconds of processor time that have been spent."""
    end: Callable[[], Awaitable[None]] | None = None
    """What still has to happen before all that was asked for is paid for."""


@asynccontextmanager
async def in_process(folder: Path, of: System) -> AsyncGenerator[Client]:
    """A client of the system in this process, on SQLite with fsync."""
    async with start(of, store=f"sqlite:{folder}/") as running:
        client = Client.of(running)
        yield client
        await client.close()


@asynccontextmanager
async def commands(folder: Path) -> AsyncGenerator[Load]:
    """One command, one event, a new stream each time."""
    async with in_process(folder, System([first_service])) as client:
        yield Load(lambda number: client.run(First(f"{number}")))


@asynccontextmanager
async def saga(folder: Path) -> AsyncGenerator[Load]:
    """Three steps over four services in this process."""
    async with in_process(folder, system) as client:
        yield Load(lambda number: client.run(Travel(f"{number}")))


@asynccontextmanager
async def handlers(folder: Path) -> AsyncGenerator[Load]:
    """One row in a table of the team's own, and one event."""
    async with in_process(folder, System([handled])) as client:
        await client.run(Prepare("table"))
        yield Load(lambda number: client.run(Pay(f"{number}")))


@asynccontextmanager
async def effects(folder: Path) -> AsyncGenerator[Load]:
    """One call of something outside, which answers at once."""
    async with in_process(folder, System([called])) as client:
        yield Load(lambda number: client.run(Charge(f"{number}")))


@asynccontextmanager
async def views(folder: Path) -> AsyncGenerator[Load]:
    """A command to one service, and the row that its event makes in another's view: both are paid for."""
    last = 0
    async with in_process(folder, system) as client:

        async def one(number: int) -> None:
            nonlocal last
            last = max(last, (await client.send(First(f"{number}"))).position)

        async def end() -> None:
            found = await client.query("trip", "Arrivals", "1", at_least={"first": last}, wait_seconds=60)
            if found.behind or not found.row:
                raise RuntimeError(f"the view did not catch up: {found}")

        yield Load(one, end=end)


@asynccontextmanager
async def saga_over_http(folder: Path) -> AsyncGenerator[Load]:
    """The same saga, a process for each service; the callers, here, are not counted."""
    state = folder / "state.json"
    program = "import sys; from holdfast.cli import main; sys.exit(main())"
    run = [sys.executable, "-c", program, "run", "bench.services:system", "--processes", "--state", str(state)]
    run += ["--store", f"sqlite:{folder}/", "--log-level", "error"]
    root = subprocess.Popen(run, stdout=subprocess.DEVNULL, cwd=folder)  # noqa: ASYNC220 - it is what is measured
    try:
        urls = await _urls(state)
        tree = [psutil.Process(root.pid), *psutil.Process(root.pid).children(recursive=True)]

        def cpu() -> float:
            return sum(times.user + times.system for times in (one.cpu_times() for one in tree))

        client = Client.http(urls)
        yield Load(lambda number: client.run(Travel(f"{number}")), cpu)
        await client.close()
    finally:
        root.terminate()
        root.wait(30)


async def _urls(state: Path) -> dict[str, str]:
    """Service -> URL, once all answer."""
    for _ in range(600):
        if state.exists() and (found := json.loads(state.read_text("utf-8") or "{}")):
            return {name: one["url"] for name, one in found["services"].items()}
        await asyncio.sleep(0.05)
    raise RuntimeError("the services did not start")


SCENARIOS = {
    "commands": commands,
    "saga": saga,
    "saga over HTTP": saga_over_http,
    "handlers": handlers,
    "effects": effects,
    "views": views,
}


async def slice_of(load: Load, numbers: Iterator[int], seconds: float) -> Cost:
    """Let callers call `one(number)` for so long, and say what the processor did for it."""
    begin, spent = time.perf_counter(), load.cpu()
    until, waited = begin + seconds, list[float]()

    async def caller() -> None:
        while (asked := time.perf_counter()) < until:
            await load.one(next(numbers))
            waited.append(time.perf_counter() - asked)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    taken = time.perf_counter() - begin
    if load.end is not None:
        await load.end()
    found = measured(waited, taken)
    return Cost(found.counted, load.cpu() - spent, found.per_s, found.p99_ms)


async def run(scenario: str, folder: Path) -> None:
    """Print a cost for each line with a number of seconds that comes in; the end of lines is the end."""
    numbers = itertools.count(1)
    async with SCENARIOS[scenario](folder) as load:
        while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
            print(json.dumps(asdict(await slice_of(load, numbers, float(line)))), flush=True)


def main() -> None:
    """Run one scenario."""
    parser = argparse.ArgumentParser(prog="python -m bench.cost_side", description=__doc__)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    sources = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    if not (holdfast.__file__ or "").startswith(sources):
        raise RuntimeError(f"holdfast is imported from {holdfast.__file__}, not from {sources}")
    logging.getLogger("holdfast").setLevel(logging.ERROR)
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(*COLLECT)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(asked.scenario, asked.folder))


if __name__ == "__main__":
    main()
