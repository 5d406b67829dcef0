"""The measurements of holdfast itself, through its public face: `Client`, `start`, `holdfast run`'s processes.

Every store is SQLite with synchronous=FULL; every message is encoded and decoded as between strangers.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bench.load import Measured, closed_loop, measured
from bench.services import First, Travel, first_service, system
from holdfast import Client, System, start
from holdfast.core.declare.message import Rejection
from holdfast.host.supervisor import Supervisor

EVENTS = 20_000


@asynccontextmanager
async def in_process(folder: Path, of: System) -> AsyncGenerator[Client]:
    """A client of the system in this process."""
    async with start(of, store=f"sqlite:{folder}/") as running:
        client = Client.of(running)
        yield client
        await client.close()


@asynccontextmanager
async def in_processes(folder: Path) -> AsyncGenerator[Client]:
    """A client over HTTP of the system with one process per service."""
    supervisor = Supervisor("bench.services:system", list(system.services), folder=folder)
    await supervisor.start()
    client = Client.http(supervisor.urls)
    try:
        yield client
    finally:
        await client.close()
        await supervisor.stop()


async def commands(folder: Path, callers: int, seconds: float) -> Measured:
    """One command, one event, a new stream each time."""
    async with in_process(folder, System([first_service])) as client:
        return await closed_loop(lambda number: client.run(First(f"{number}")), callers, seconds)


def travel(client: Client, fails: bool) -> Callable[[int], Awaitable[object]]:
    """Run one saga to its end, and look at the end."""

    async def one(number: int) -> None:
        outcome = await client.send(Travel(f"{number}", fails))
        if isinstance(outcome.answer, Rejection) is not fails:
            raise RuntimeError(f"saga {number} ended otherwise: {outcome.answer}")

    return one


async def sagas(folder: Path, callers: int, seconds: float, *, fails: bool = False) -> Measured:
    """The saga, four services in one process."""
    async with in_process(folder, system) as client:
        return await closed_loop(travel(client, fails), callers, seconds)


async def sagas_over_http(folder: Path, callers: int, seconds: float, *, fails: bool = False) -> Measured:
    """The saga, one process per service."""
    async with in_processes(folder) as client:
        await asyncio.gather(*(client.run(First(f"w{number}")) for number in range(callers)))
        return await closed_loop(travel(client, fails), callers, seconds)


async def commands_over_http(folder: Path, callers: int, seconds: float) -> Measured:
    """One command to a service in another process."""
    async with in_processes(folder) as client:
        return await closed_loop(lambda number: client.run(First(f"{number}")), callers, seconds)


async def feed_drain(folder: Path, seconds: float) -> Measured:
    """Events of one service to the rows of another's view: all at once, from the log's beginning."""
    count = max(500, int(EVENTS * min(1.0, seconds / 4)))
    async with start(System([first_service]), store=f"sqlite:{folder}/") as running:
        client = Client.of(running)
        for begin in range(0, count, 500):
            await asyncio.gather(*(client.run(First(f"{number}")) for number in range(begin, begin + 500)))
    async with start(system, store=f"sqlite:{folder}/") as running:
        client = Client.of(running)
        begin = time.perf_counter()
        found = await client.query("trip", "Arrivals", f"{count - 1}", at_least={"first": count}, wait_seconds=30)
        taken = time.perf_counter() - begin
        if found.behind or found.row != {"seen": 1}:
            raise RuntimeError(f"the view did not catch up: {found}")
    return Measured(count / taken, 0.0, 0.0, count)


async def feed_lag(folder: Path, seconds: float) -> Measured:
    """One event at a time: from the command's call to the row in another service's view."""
    waited: list[float] = []
    async with in_process(folder, system) as client:
        begin = time.perf_counter()
        while (asked := time.perf_counter()) < begin + seconds:
            outcome = await client.send(First(f"{len(waited)}"))
            found = await client.query(
                "trip", "Arrivals", f"{len(waited)}", at_least={"first": outcome.position}, wait_seconds=10
            )
            if found.row is None:
                raise RuntimeError(f"the view did not catch up: {found}")
            waited.append(time.perf_counter() - asked)
    return measured(waited, seconds)
