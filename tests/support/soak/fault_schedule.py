"""Faults for services that run as processes, drawn by lot while they work: what goes wrong, for whom, and how long.

Every kind comes in every round, in an order drawn from the seed, and once more if it has met nobody. The next one is
due when the load has come so far, so that a slow machine sees as many as a fast one; one in four comes at once, on top
of the last. A fault is counted when it has met somebody: a signal that was sent to a process, a write that was refused,
a sync that was slow.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from holdfast.host.supervisor import Supervisor
from support.soak.faulty_process import DIE_AFTER, DIE_BEFORE, Switches

KINDS = ("kill", "kill_all", "pause", "full", "slow", "undecided", "decided")
"""SIGKILL of one process or of all; SIGSTOP, and SIGCONT later; a full disk; slow fsync; the coordinator's death right
before the commit of a decision, and right after it."""
ROUND = (*KINDS, "kill", "kill", "pause", "full", "slow", "decided")
TOGETHER = 0.25
MET_SECONDS, BACK_SECONDS = 10.0, 30.0
"""How long a switch waits to meet somebody, and a service may take to go on once its disk has space again."""


class Faults:
    """Faults for the processes of one supervisor. The first service coordinates."""

    def __init__(
        self, supervisor: Supervisor, switches: dict[str, Switches], seed: int,
        progress: Callable[[str], Awaitable[Any]],
    ) -> None:  # fmt: skip
        self.supervisor, self.switches, self._progress = supervisor, switches, progress
        self._random = random.Random(seed)
        self.met: Counter[str] = Counter()
        self.went_on = 0
        """How often a service whose disk had been full went on by itself, in the same process."""
        self.stayed_down: list[str] = []
        self._next: deque[str] = deque()
        self._running: set[asyncio.Task[None]] = set()

    @property
    def every_kind(self) -> bool:
        """True when every kind has met somebody, and a service whose disk was full has gone on."""
        return all(self.met[kind] for kind in KINDS) and self.went_on > 0

    async def run(self, done: Callable[[], int], every: int, kinds: Sequence[str]) -> None:
        """Let things go wrong until cancelled: one fault whenever the load has come some `every` further."""
        due = done() + every
        while True:
            if not self._next:
                self._next.extend(self._random.sample(kinds, len(kinds)))
            together = self._random.random() < TOGETHER
            while done() < due and not together:  # noqa: ASYNC110 - asked, not told
                await asyncio.sleep(0.02)
            due = max(due, done()) + round(every * self._random.uniform(0.3, 1.7))
            await asyncio.sleep(self._random.uniform(0.0, 0.2))
            task = asyncio.get_running_loop().create_task(self._fault(self._next.popleft()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _fault(self, kind: str) -> None:
        met, name, chance = self.met[kind], self._random.choice(self.supervisor.services), self._random.random()
        await getattr(self, f"_{kind}")(name, chance)
        if self.met[kind] == met or (kind == "full" and not self.went_on):
            self._next.append(kind)

    async def end(self) -> None:
        """Wait until those under way are over."""
        while self._running:
            await asyncio.gather(*self._running)

    async def _kill(self, name: str, chance: float) -> None:
        self.met["kill"] += self.supervisor.kill(name)

    async def _kill_all(self, name: str, chance: float) -> None:
        hit = [self.supervisor.kill(one) for one in self.supervisor.services]
        self.met["kill_all"] += all(hit)

    async def _pause(self, name: str, chance: float) -> None:
        pid = self.supervisor.pids.get(name)
        if pid is None or not self.supervisor.kill(name, signal.SIGSTOP):
            return
        self.met["pause"] += 1
        await asyncio.sleep(0.5 + 3.5 * chance**2)
        if self.supervisor.pids.get(name) == pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _full(self, name: str, chance: float) -> None:
        pid = self.supervisor.pids.get(name)
        if not await self._switched(name, "full", 1, "refused", 0.3 + 2.5 * chance):
            return
        self.met["full"] += 1
        end = time.monotonic() + BACK_SECONDS
        while self.supervisor.pids.get(name) == pid:
            found = await self._progress(name)
            if found is not None and found["store"] == "":
                self.went_on += 1
                return
            if time.monotonic() > end:
                self.stayed_down.append(f"{name}: {found and found['store']}")
                return
            await asyncio.sleep(0.2)

    async def _slow(self, name: str, chance: float) -> None:
        slow_ms = self._random.randint(20, 200)
        self.met["slow"] += await self._switched(name, "sync_ms", slow_ms, "slowed", 0.5 + 2.5 * chance)

    async def _switched(self, name: str, switch: str, value: int, counter: str, seconds: float) -> bool:
        """Set a switch for so long, and longer until it has met somebody; whether it has."""
        switches = self.switches[name]
        before, end = switches.get(counter), time.monotonic() + MET_SECONDS
        switches.set(switch, value)
        try:
            await asyncio.sleep(seconds)
            while switches.get(counter) == before and time.monotonic() < end:  # noqa: ASYNC110 - asked, not told
                await asyncio.sleep(0.02)
        finally:
            switches.set(switch, 0)
        return switches.get(counter) > before

    async def _undecided(self, name: str, chance: float) -> None:
        self.met["undecided"] += await self._die(DIE_BEFORE, "died_before")

    async def _decided(self, name: str, chance: float) -> None:
        self.met["decided"] += await self._die(DIE_AFTER, "died_after")

    async def _die(self, how: int, counter: str) -> bool:
        return await self._switched(self.supervisor.services[0], "die", how, counter, 0.0)
