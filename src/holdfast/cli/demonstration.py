"""The demonstration: the shop as four processes under load and SIGKILL, until it has settled, and its audit.

Starts the processes in a fresh folder, lets customers buy over HTTP, kills, waits, reads the feeds and checks them.
`cli.demo` comes after it and shows what it found. Nothing of it outlives it but, where something was wrong, the folder.
Fails with `ConfigInvalid` where the example or a process cannot be started.
"""

import asyncio
import importlib
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import holdfast
from holdfast.cli.processes import CHILD, Supervisor
from holdfast.errors import ConfigInvalid

if TYPE_CHECKING:
    from shop.audit import Check
    from shop.drive import Order, Shoppers

SERVICES = ("order", "stock", "payment", "shipping")
"""In the order they end: first the one that sends commands."""
PATIENCE_SECONDS = 20.0
"""How long, after the load, everything may stand still before it is said not to settle."""
STILL_SECONDS = 6.0
LOOK_SECONDS = 0.25


@dataclass
class Status:
    """What there is to see while it runs."""

    phase: str = "starting"
    seconds: float = 0.0
    submitted: int = 0
    completed: int = 0
    undone: int = 0
    kills: list[str] = field(default_factory=list[str])
    services: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Service -> up, pid, restarts, head, sagas_open."""


@dataclass
class Report:
    """What was found."""

    submitted: int
    completed: int
    undone: int
    in_flight: int
    kills: int
    throughput_per_s: float
    latency_ms: dict[str, float]
    checks: list["Check"]
    settled: bool
    correlation_id: str

    @property
    def violations(self) -> list[str]:
        """Everything that must not be, in words."""
        found = [text for check in self.checks for text in check.violations]
        empty = [f"{check.name}: nothing was there to count" for check in self.checks if not check.counted]
        late = [] if self.settled else [f"not settled: {self.in_flight} orders have no end"]
        return [*late, *empty, *found]

    def as_value(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "submitted": self.submitted, "completed": self.completed, "undone": self.undone,
            "in_flight": self.in_flight, "kills": self.kills,
            "throughput_per_s": round(self.throughput_per_s, 1), "latency_ms": self.latency_ms,
            "checks": [{"name": one.name, "passed": one.passed, "counted": one.counted} for one in self.checks],
            "violations": self.violations, "correlation_id": self.correlation_id,
        }  # fmt: skip


def examples_folder() -> Path:
    """Where the example services are: shipped with an installed holdfast, beside the source in a checkout."""
    package = Path(holdfast.__file__).resolve().parent
    for folder in (package / "_examples", package.parent.parent / "examples"):
        if (folder / "shop" / "services.py").is_file():
            return folder
    raise ConfigInvalid("the example shop is not installed with this holdfast")


class Demonstration:
    """One run. `status` may be looked at while it runs."""

    def __init__(self, *, seconds: float, kills: int, seed: int, sabotage: str = "") -> None:
        self.seconds, self.kills, self.sabotage = seconds, kills, sabotage
        self.status = Status()
        self._random = random.Random(seed)
        if (examples := str(examples_folder())) not in sys.path:
            sys.path.insert(0, examples)
        drive = importlib.import_module("shop.drive")
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
        child = (sys.executable, "-m", "holdfast.testing.sabotage", sabotage) if sabotage else CHILD
        self.supervisor = Supervisor("shop.services:shop", SERVICES, folder=self.folder, child=child)
        self.shoppers: Shoppers = drive.Shoppers(self.supervisor.urls, seed)
        self.tasks: list[asyncio.Task[Any]] = []

    async def run(self) -> Report:
        """Load, kills, settling, audit. Raises ConfigInvalid, and HoldfastError where the shop answers nonsense."""
        await self.supervisor.start()
        watching = asyncio.create_task(self._watch())
        self.tasks.append(watching)
        await self.shoppers.stock_up()
        self.status.phase = "under load"
        begun = time.monotonic()
        until = begun + self.seconds
        killing = asyncio.create_task(self._kill(until))
        self.tasks.append(killing)
        buying = asyncio.create_task(self.shoppers.shop(until, PATIENCE_SECONDS))
        self.tasks.append(buying)
        await asyncio.wait({buying}, timeout=self.seconds)
        in_time = len(self.shoppers.totals.latencies_ms())
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
        await self.shoppers.close()
        await self.supervisor.stop()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _kill(self, until: float) -> None:
        """SIGKILL at moments spread over the load, every service in turn in an order drawn by lot, and order, which
        coordinates, always among them."""
        left = until - time.monotonic()
        moments = sorted(self._random.uniform(0.1, 0.9) * left for _ in range(self.kills))
        begun = time.monotonic()
        victims = (
            [*self._random.sample(SERVICES[1:], min(self.kills, len(SERVICES)) - 1), SERVICES[0]] if moments else []
        )
        self._random.shuffle(victims)
        for moment in moments:
            victims = victims or self._random.sample(SERVICES, len(SERVICES))
            await asyncio.sleep(max(0.0, begun + moment - time.monotonic()))
            name = victims.pop()
            await self.supervisor.ready(name)
            if self.supervisor.kill(name):
                self.status.kills.append(name)

    async def _settle(self, buying: "asyncio.Task[None]") -> bool:
        """Wait until every customer has an answer and no saga is open; False when nothing moves any more."""
        still, before = time.monotonic(), -1
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if buying.done():
                buying.result()
            seen = [self.status.services.get(name, {}) for name in SERVICES]
            calm = all(one.get("up") and not one["sagas_open"] and not one["waiting"] for one in seen)
            if buying.done() and calm and self.shoppers.totals.count(None) == 0:
                return True
            moved = sum(one.get("head", 0) for one in seen)
            if moved != before:
                still, before = time.monotonic(), moved
            elif time.monotonic() - still > STILL_SECONDS:
                buying.cancel()
                return False

    async def _audit(self, settled: bool, per_s: float) -> Report:
        checks = importlib.import_module("shop.audit")
        feeds = {name: await self.shoppers.feed(name) for name in SERVICES}
        totals = self.shoppers.totals
        found: list[Check] = checks.audit(feeds, {order.id: order.told for order in totals.orders.values()})
        waited = totals.latencies_ms()
        latency = {
            "p50": round(statistics.median(waited), 1) if waited else 0.0,
            "p99": round(waited[int(len(waited) * 0.99)], 1) if waited else 0.0,
        }
        return Report(
            len(totals.orders), totals.count("completed"), totals.count("rejected"), totals.count(None),
            len(self.status.kills), per_s, latency, found, settled, self._telling(found),
        )  # fmt: skip

    def _telling(self, checks: list["Check"]) -> str:
        """The correlation id of one order worth looking at: one that is wrong, one that had to be asked again, or one
        that was undone."""
        orders = self.shoppers.totals.orders
        wrong = [text.split(": ", 1)[1].split(" ", 1)[0].rstrip(":") for check in checks for text in check.violations]
        rank = {order: 3 for order in wrong if order in orders}

        def telling(order: "Order") -> tuple[int, int]:
            return rank.get(order.id, 0) + (order.told == "rejected"), min(order.tries, 5)

        told = [order for order in orders.values() if order.correlation]
        return max(told, key=telling).correlation if told else ""

    async def _watch(self) -> None:
        """Look at every service a few times a second."""
        begun = time.monotonic()
        while True:
            found = await asyncio.gather(*(self.shoppers.get(name, "/ops/progress") for name in SERVICES))
            totals, status = self.shoppers.totals, self.status
            for name, one in zip(SERVICES, found, strict=True):
                pid, before = self.supervisor.pids.get(name), status.services.get(name, {})
                row = {"up": one is not None, "pid": pid, "restarts": self.supervisor.restarts[name]}
                known = one or before
                kept = {key: known.get(key, 0) for key in ("head", "sagas_open")}
                waiting = len(one["waiting"]) if one is not None else before.get("waiting", 0)
                status.services[name] = row | kept | {"waiting": waiting}
            status.seconds = time.monotonic() - begun
            status.submitted = len(totals.orders)
            status.completed, status.undone = totals.count("completed"), totals.count("rejected")
            await asyncio.sleep(LOOK_SECONDS)
