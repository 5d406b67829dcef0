"""A soak: services as processes, customers who ask until they are answered, faults meanwhile, and the files in the end.

`Work` says what is asked of which services; `soak` runs it: the load, the faults of `fault_schedule`, calm, some keys
asked again, and SIGKILL for all. What is left are the store files and what customers were told, for a judge that shares
no code with the runtime. Fails with TimeoutError only where nothing moves any more.
"""

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from holdfast.host import supervisor as processes
from holdfast.host.supervisor import Supervisor
from support.soak.fault_schedule import Faults
from support.soak.faulty_process import FOLDER, Switches

REQUEST_SECONDS = 15.0
AGAIN_SECONDS, AGAIN_SECONDS_MAX = 0.05, 1.0
STILL_SECONDS = 60.0
"""How long nothing may move before it is said not to settle."""
ASKED_AGAIN = 250


@dataclass(frozen=True)
class Ask:
    """One command from a customer: to whom, what, and the key that it is asked with, however often."""

    service: str
    path: str
    body: dict[str, Any]
    key: str


@dataclass(frozen=True)
class Told:
    """The answer that a customer was given: accepted or not, the code of a no, and where its record is said to be."""

    service: str
    accepted: bool
    code: str
    tx: str
    position: int


@dataclass(frozen=True)
class Work:
    """What a soak does: the first service coordinates; `opening` is asked before anything fails; `ask` draws one."""

    target: str
    services: tuple[str, ...]
    opening: list[Ask]
    ask: Callable[[int, random.Random], Ask]


@dataclass
class Ended:
    """A soak that is over."""

    folder: Path
    asked: dict[str, Ask] = field(default_factory=dict[str, Ask])
    told: dict[str, Told] = field(default_factory=dict[str, Told])
    met: Counter[str] = field(default_factory=Counter[str])
    """Faults by kind."""
    went_on: int = 0
    wrong: list[str] = field(default_factory=list[str])
    """What was seen to be wrong while it ran."""
    seconds: float = 0.0
    tries: int = 0


class Customers:
    """Customers who each wait for an answer before they ask the next; all share one session."""

    def __init__(self, urls: dict[str, str], ended: Ended, seed: int) -> None:
        self._urls, self._ended, self._random = urls, ended, random.Random(seed)
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def close(self) -> None:
        """Let go of connections."""
        await self._session.close()

    async def run(self, asks: "list[Ask] | Callable[[], Ask | None]", customers: int) -> None:
        """Ask all of them, so many at a time."""
        left = iter(asks) if isinstance(asks, list) else iter(asks, None)

        async def customer() -> None:
            for ask in left:
                self._ended.asked[ask.key] = ask
                self._ended.told[ask.key] = await self.until_told(ask)

        async with asyncio.TaskGroup() as group:
            for _ in range(customers):
                group.create_task(customer())

    async def until_told(self, ask: Ask) -> Told:
        """Ask with the same key until there is an answer."""
        pause = AGAIN_SECONDS
        while True:
            self._ended.tries += 1
            told = await self._try(ask)
            if told is not None:
                return told
            await asyncio.sleep(pause * (0.5 + self._random.random()))
            pause = min(AGAIN_SECONDS_MAX, pause * 2)

    async def _try(self, ask: Ask) -> Told | None:
        url = self._urls[ask.service] + ask.path
        try:
            async with self._session.post(url, json=ask.body, headers={"Idempotency-Key": ask.key}) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None  # what became of it is not known
        if answer.status in (503, 504):
            return None
        if answer.status not in (200, 409):
            self._ended.wrong.append(f"{ask.key} was answered {answer.status}: {data[:300]!r}")
            return None
        code = "" if answer.status == 200 else json.loads(data)["code"]
        tx, position = answer.headers["Holdfast-Transaction"], int(answer.headers["Holdfast-Position"])
        return Told(ask.service, answer.status == 200, code, tx, position)

    async def progress(self, service: str) -> Any:
        """What a service says of how far it is; None where it does not answer."""
        try:
            async with self._session.get(f"{self._urls[service]}/ops/progress") as answer:
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None


async def soak(
    work: Work, folder: Path, *, count: int, customers: int, every: int, kinds: Sequence[str], seed: int
) -> Ended:
    """Run a soak of `count` asks (more, until every kind of fault has met somebody), one fault each time some `every`
    of them are answered. The folder keeps the files."""
    ended, begun = Ended(folder), time.monotonic()
    switches = {name: Switches(folder, name) for name in work.services}
    supervisor = Supervisor(
        work.target, work.services, folder=folder, child=(sys.executable, "-m", "support.soak.faulty_process"),
        environ={FOLDER: str(folder)},
    )  # fmt: skip
    people = Customers(supervisor.urls, ended, seed)
    faults = Faults(supervisor, switches, seed, people.progress)
    numbers, rng = itertools.count(), random.Random(seed)

    def next_ask() -> Ask | None:
        number = next(numbers)
        return None if number >= count and (faults.every_kind or number > 10 * count) else work.ask(number, rng)

    try:
        await supervisor.start()
        await people.run(work.opening, customers)
        failing = asyncio.create_task(faults.run(lambda: len(ended.told), every, kinds))
        try:
            await moving(people.run(next_ask, customers), lambda: len(ended.told))
        finally:
            failing.cancel()
            await asyncio.gather(failing, return_exceptions=True)
        await faults.end()
        ended.wrong += [f"not settled: {text}" for text in await settled(people, work.services)]
        await asked_again(people, ended, seed)
        supervisor.kill_all()
    finally:
        await people.close()
        await supervisor.stop()
    ended.met, ended.went_on = faults.met, faults.went_on
    ended.wrong += [f"stayed down with space on its disk: {text}" for text in faults.stayed_down]
    ended.seconds = time.monotonic() - begun
    return ended


async def moving(load: Any, done: Callable[[], int]) -> None:
    """Run a load; raises TimeoutError where nothing is answered for long."""
    running = asyncio.ensure_future(load)
    still, before = time.monotonic(), done()
    while not running.done():
        await asyncio.wait({running}, timeout=1.0)
        if done() != before:
            still, before = time.monotonic(), done()
        elif time.monotonic() - still > STILL_SECONDS:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            raise TimeoutError(f"nothing was answered for {STILL_SECONDS:.0f} s, after {before} answers")
    await running


async def settled(people: Customers, services: tuple[str, ...]) -> list[str]:
    """Wait until nothing is open, waiting, owed or behind; what is left when nothing moves any more."""
    still, before = time.monotonic(), ""
    while True:
        found = {name: await people.progress(name) for name in services}
        left = [text for name, one in found.items() for text in unsettled(name, one)]
        if not left:
            return []
        if (now := json.dumps([one and one["head"] for one in found.values()]) + str(left)) != before:
            still, before = time.monotonic(), now
        elif time.monotonic() - still > STILL_SECONDS:
            return left
        await asyncio.sleep(0.25)


def unsettled(name: str, progress: Any) -> list[str]:
    """What one service has left to do, in words."""
    if progress is None:
        return [f"{name} does not answer"]
    found = [f"{name}: {what} {progress[what]}" for what in ("sagas_open", "store", "inbox") if progress[what]]
    found += [f"{name}: {one['stream']} waits, {one['error']}" for one in progress["waiting"]]
    for peer, one in progress["exchange"].items():
        found += [f"{name} with {peer}: {what} {one[what]}" for what in ("owed", "behind", "failure") if one[what]]
    found += [f"{name}: {feed['consumer']} lags {feed['lag']}" for feed in progress["feeds"] if feed["lag"]]
    return found


async def asked_again(people: Customers, ended: Ended, seed: int) -> None:
    """Ask some again with their old keys: the answer is the one that was given."""
    keys = random.Random(seed).sample(sorted(ended.told), min(ASKED_AGAIN, len(ended.told)))
    answers = await asyncio.gather(*(people.until_told(ended.asked[key]) for key in keys))
    for key, told in zip(keys, answers, strict=True):
        if told != ended.told[key]:
            ended.wrong.append(f"{key} was told {ended.told[key]}, and asked again {told}")


def quick_restarts(monkeypatch: Any) -> None:
    """A process that is killed again and again is not kept waiting for it."""
    monkeypatch.setattr(processes, "RESTART_SECONDS_MAX", 0.2)
