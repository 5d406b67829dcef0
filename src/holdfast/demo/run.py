"""The demonstration: an example as processes under load and SIGKILL, until it has settled, and its audit.

It starts a process per service in a fresh folder, puts the example's load on them over HTTP, kills some, waits, and
judges the example's invariants. An example is a package with a `demo` module: TITLE, TARGET, JUDGED, SERVICES, NOUN and
a `Load`. `cli.verbs.demo` comes after it and shows what it found. Only the folder outlives it, if something was wrong.
Fails with `ConfigInvalid` if the example or a process cannot be started.
"""

import asyncio
import importlib
import itertools
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import holdfast
from holdfast.config import ServiceSettings, Settings
from holdfast.core.audit.audit import CAUSES
from holdfast.core.system import System
from holdfast.errors import ConfigInvalid
from holdfast.host.supervisor import CHILD, Supervisor
from holdfast.host.target import load_target
from holdfast.operator.audit import audit_urls, line_of

if TYPE_CHECKING:
    from holdfast.testing.servers import Server

Example = Literal["marketplace", "shop"]
Stores = Literal["sqlite", "postgres", "mariadb", "mixed"]
SERVER_DOWN_SECONDS = 0.5
"""How long a server that was killed stays down."""
PATIENCE_SECONDS = 20.0
"""How long the load waits for its last answers."""
MORE_SECONDS_MAX = 30.0
"""How much longer than asked a load may last on a slow machine, until there is enough to judge."""
STILL_SECONDS = 6.0
"""How long nothing may move before the run counts as not settled."""
SETTLE_SECONDS_MAX = 75.0
"""How long it may go on after the load without coming to rest: a system that goes round in a circle never rests."""
LOOK_SECONDS = 0.25
AUDIT_SECONDS, NO_MORE_SECONDS = 10.0, 1.0
"""How long the audit waits for the last records; the second if the system stands still with something open."""


@dataclass
class Check:
    """One thing an audit looked at."""

    name: str
    counted: int
    violations: list[str]

    @property
    def passed(self) -> bool:
        """True if something was counted and nothing was wrong."""
        return self.counted > 0 and not self.violations


class Load(Protocol):
    """What an example brings: its customers, and its checks of what they were told."""

    submitted: int
    completed: int
    undone: int
    in_flight: int

    async def prepare(self) -> None:
        """Enter the data that must be there before the first customer."""
        ...

    async def run(self, until: float, last: float, patience: float) -> None:
        """Use the services until `until`, or up to `last` while a check has nothing to judge; then wait up to
        `patience` seconds for the last answers."""
        ...

    def latencies_ms(self) -> list[float]:
        """How long each answer took, sorted."""
        ...

    async def get(self, service: str, path: str) -> Any:
        """What a service answers to a GET; None if it does not answer."""
        ...

    async def checks(self, patience: float) -> list[tuple[str, int, list[str]]]:
        """(name, counted, violations) of each check of what customers were told and shown, which no log holds. Waits up
        to `patience` seconds for views that are behind."""
        ...

    def telling(self, wrong: list[str]) -> str:
        """The correlation id of something worth a look: one of the wrong, if anything is wrong."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


@dataclass
class Status:
    """The state of a run, to be shown while it runs."""

    phase: str = "starting"
    seconds: float = 0.0
    submitted: int = 0
    completed: int = 0
    undone: int = 0
    kills: list[str] = field(default_factory=list[str])
    services: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Service -> up, pid, restarts, head, sagas_open."""


@dataclass
class DemoReport:
    """The result of a run."""

    submitted: int
    completed: int
    undone: int
    in_flight: int
    kills: int
    throughput_per_s: float
    latency_ms: dict[str, float]
    checks: list[Check]
    settled: bool
    correlation_id: str

    @property
    def violations(self) -> list[str]:
        """Everything that is wrong, in words."""
        found = [text for check in self.checks for text in check.violations]
        empty = [f"{check.name}: there was nothing to count" for check in self.checks if not check.counted]
        late = [] if self.settled else [f"not settled: {self.in_flight} have not ended"]
        return [*late, *empty, *found]

    def as_value(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "submitted": self.submitted,
            "completed": self.completed,
            "undone": self.undone,
            "in_flight": self.in_flight,
            "kills": self.kills,
            "throughput_per_s": round(self.throughput_per_s, 1),
            "latency_ms": self.latency_ms,
            "checks": [{"name": one.name, "passed": one.passed, "counted": one.counted} for one in self.checks],
            "violations": self.violations,
            "correlation_id": self.correlation_id,
        }


def examples_folder() -> Path:
    """Where the examples are: shipped with an installed holdfast, beside the source in a checkout."""
    package = Path(holdfast.__file__).resolve().parent
    for folder in (package / "_examples", package.parent.parent / "examples"):
        if (folder / "shop" / "services.py").is_file() and (folder / "marketplace" / "system.py").is_file():
            return folder
    raise ConfigInvalid("the examples are not installed with this holdfast")


class Demonstration:
    """One run. `status` may be looked at while it runs."""

    def __init__(
        self,
        *,
        seconds: float,
        kills: int,
        seed: int,
        sabotage: str = "",
        example: Example = "marketplace",
        stores: Stores = "sqlite",
    ) -> None:
        self.seconds, self.kills, self.sabotage, self.stores = seconds, kills, sabotage, stores
        self.status = Status()
        self._random = random.Random(seed)
        if (examples := str(examples_folder())) not in sys.path:
            sys.path.insert(0, examples)
        chosen = importlib.import_module(f"{example}.demo")
        self.title, self.noun = str(chosen.TITLE), str(chosen.NOUN)
        self.services: tuple[str, ...] = chosen.SERVICES
        self._judged = str(chosen.JUDGED)
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
        child = (sys.executable, "-m", "holdfast.testing.sabotage", sabotage) if sabotage else CHILD
        self.servers: dict[str, Server] = {}
        """Engine -> the server that was started for it."""
        try:
            settings = self._settings()
        except BaseException:
            self._end_servers()
            raise
        self.supervisor = Supervisor(chosen.TARGET, self.services, folder=self.folder, child=child, settings=settings)
        self.load: Load = chosen.Load(self.supervisor.urls, seed)
        self.tasks: list[asyncio.Task[Any]] = []

    def _settings(self) -> Settings:
        """Settings that say which engine keeps which service's log; servers are started as needed. Raises Missing."""
        if self.stores == "sqlite":
            return Settings()
        from holdfast.testing.servers import ENGINES

        engines = ["", *ENGINES] if self.stores == "mixed" else [self.stores]
        for engine in filter(None, engines):
            self.servers[engine] = ENGINES[engine]()
            self.servers[engine].start()
        used = dict(zip(self.services, itertools.cycle(engines), strict=False))
        return Settings(
            services={name: ServiceSettings(store=self.servers[one].url(name)) for name, one in used.items() if one}
        )

    def _end_servers(self) -> None:
        for server in self.servers.values():
            server.stop()

    async def run(self) -> DemoReport:
        """Load, kills, settling, audit. Raises ConfigInvalid, and HoldfastError if an answer cannot be read."""
        await self.supervisor.start()
        watching = asyncio.create_task(self._watch())
        self.tasks.append(watching)
        await self.load.prepare()
        self.status.phase = "under load"
        begun = time.monotonic()
        until = begun + self.seconds
        killing = asyncio.create_task(self._kill(until))
        self.tasks.append(killing)
        buying = asyncio.create_task(self.load.run(until, until + MORE_SECONDS_MAX, PATIENCE_SECONDS))
        self.tasks.append(buying)
        await asyncio.wait({buying}, timeout=self.seconds)
        in_time = len(self.load.latencies_ms())
        self.status.phase = "settling"
        await killing
        settled = await self._settle(buying)
        self.status.phase = "auditing"
        report = await self._audit(settled, in_time / self.seconds)
        watching.cancel()
        self.status.phase = "done"
        return report

    async def close(self, *, keep: bool = False) -> None:
        """End everything; `keep` leaves the folder with stores and logs where it is."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.load.close()
        await self.supervisor.stop()
        await asyncio.to_thread(self._end_servers)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _kill(self, until: float) -> None:
        """SIGKILL at moments spread over the load: services and servers in random order, each once before any is killed
        again; the first service, the coordinator, is always among them."""
        left = until - time.monotonic()
        moments = sorted(self._random.uniform(0.1, 0.9) * left for _ in range(self.kills))
        begun = time.monotonic()
        others = [*self.services[1:], *self.servers]
        victims = [*self._random.sample(others, min(self.kills - 1, len(others))), self.services[0]] if moments else []
        self._random.shuffle(victims)
        for moment in moments:
            victims = victims or self._random.sample([*self.services, *self.servers], len(others) + 1)
            await asyncio.sleep(max(0.0, begun + moment - time.monotonic()))
            name = victims.pop()
            if server := self.servers.get(name):
                await asyncio.to_thread(server.kill)
                self.status.kills.append(name)
                await asyncio.sleep(SERVER_DOWN_SECONDS)
                await asyncio.to_thread(server.start)
                continue
            await self.supervisor.ready(name)
            if self.supervisor.kill(name):
                self.status.kills.append(name)

    async def _settle(self, buying: "asyncio.Task[None]") -> bool:
        """Wait until every customer has an answer and no saga is open; False if nothing moves any more, or if the
        system moves and does not come to rest."""
        still, before = time.monotonic(), -1
        end = still + MORE_SECONDS_MAX + SETTLE_SECONDS_MAX
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if buying.done():
                _raise_unless_late(buying)
            seen = [self.status.services.get(name, {}) for name in self.services]
            calm = all(one.get("up") and not one["sagas_open"] and not one["waiting"] for one in seen)
            if buying.done() and calm and self.load.in_flight == 0:
                return True
            moved = sum(one.get("head", 0) for one in seen)
            if moved != before:
                still, before = time.monotonic(), moved
            if time.monotonic() - still > STILL_SECONDS or time.monotonic() > end:
                buying.cancel()
                return False

    async def _audit(self, settled: bool, per_s: float) -> DemoReport:
        load = self.load
        system = load_target(self._judged, pins=False)
        patience = AUDIT_SECONDS if settled else NO_MORE_SECONDS
        judging = asyncio.to_thread(judged, system, self.supervisor.urls, seconds=patience)
        found = [*await judging, *(Check(*one) for one in await load.checks(patience))]
        waited = load.latencies_ms()
        latency = {
            "p50": round(statistics.median(waited), 1) if waited else 0.0,
            "p99": round(waited[int(len(waited) * 0.99)], 1) if waited else 0.0,
        }
        return DemoReport(
            load.submitted,
            load.completed,
            load.undone,
            load.in_flight,
            len(self.status.kills),
            per_s,
            latency,
            found,
            settled,
            load.telling([text for one in found for text in one.violations]),
        )

    async def _watch(self) -> None:
        """Look at every service a few times a second."""
        begun = time.monotonic()
        while True:
            found = await asyncio.gather(*(self.load.get(name, "/ops/progress") for name in self.services))
            load, status = self.load, self.status
            for name, one in zip(self.services, found, strict=True):
                pid, before = self.supervisor.pids.get(name), status.services.get(name, {})
                row = {"up": one is not None, "pid": pid, "restarts": self.supervisor.restarts[name]}
                known = one or before
                kept = {key: known.get(key, 0) for key in ("head", "sagas_open")}
                waiting = len(one["waiting"]) if one is not None else before.get("waiting", 0)
                status.services[name] = row | kept | {"waiting": waiting}
            status.seconds = time.monotonic() - begun
            status.submitted = load.submitted
            status.completed, status.undone = load.completed, load.undone
            await asyncio.sleep(LOOK_SECONDS)


def judged(system: System, urls: Mapping[str, str], *, seconds: float) -> list[Check]:
    """The invariants of a system, judged on what its services recorded, and that all of it settled within `seconds`."""
    report, silent = audit_urls(system, urls, Settings(), seconds=seconds)
    lines: dict[str, list[str]] = {name: [] for name in (*report.counted, CAUSES)}
    for one in report.violations:
        lines[one.invariant].append(line_of(one))
    found = [Check(system.invariants[name].doc, counted, lines[name]) for name, counted in report.counted.items()]
    left = [f"{report.open} transactions have not settled"] if report.open else []
    left += [f"{name} did not answer: {why}" for name, why in silent.items()]
    return [Check("Every transaction settled", report.settled, [*left, *lines[CAUSES]]), *found]


def _raise_unless_late(done: "asyncio.Task[None]") -> None:
    """Raise what went wrong with the load; if it only ran out of patience, what is left in flight shows it."""
    error = done.exception()
    if error is not None and not isinstance(error, TimeoutError):
        raise error
