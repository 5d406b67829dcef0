"""The store of a service in virtual time: in memory, with a flush that takes time and may go wrong.

`testing.simulation.system` gives each service one. Faults are met at each commit. What was committed outlives its
service, as a disk does. Fails with `StoreFailed` if a fault says so.
"""

import asyncio
from collections.abc import Callable, Sequence

from holdfast.core.log.batch import Batch, CommitOutcome, RowKind
from holdfast.core.log.record import Record
from holdfast.errors import StoreFailed
from holdfast.ports.store import Lent
from holdfast.stores.memory import MemoryStore
from holdfast.testing.simulation.faults import CLOCK_JUMPS_US, SLOW_SECONDS, Faults
from holdfast.testing.simulation.loop import VirtualClock, next_round


class VirtualStore(MemoryStore):
    """A memory store whose flush takes time, and whose service can crash before or after any of its commits."""

    def __init__(
        self,
        log: str,
        *,
        flush_seconds: float,
        clock: VirtualClock,
        faults: Faults | None,
        crash_soon: Callable[[str], None],
    ) -> None:
        super().__init__(log)
        self.flush_seconds = flush_seconds
        self._clock, self._faults, self._crash_soon = clock, faults, crash_soon
        self.commits = 0
        self.crash_before: set[int] = set()
        self.crash_after: set[int] = set()
        """Numbers of commits, the first is 1."""
        self.failing = False
        """While True no commit succeeds, as on a full disk."""

    async def commit(self, batches: Sequence[Batch], *, within: Lent | None = None) -> list[CommitOutcome]:
        """Commit, or crash."""
        met = self._faults.meet(self.log) if self._faults is not None else ()
        await (asyncio.sleep(self.flush_seconds) if self.flush_seconds else next_round())
        if met:
            await self._before(met)
        self._check_open()
        if self.failing or "refuse" in met:
            raise StoreFailed("the disk is full")
        self.commits += 1
        if self.commits in self.crash_before or "crash_before" in met:
            self._crash()
        outcomes = await super().commit(batches, within=within)
        if self.commits in self.crash_after or "crash_after" in met:
            self._crash()
        if "doubt" in met:
            raise StoreFailed("the connection broke before it was said that the commit is done")
        return outcomes

    async def _before(self, met: tuple[str, ...]) -> None:
        if "slow" in met:
            await asyncio.sleep(SLOW_SECONDS)
        self._clock.skew_us += sum(CLOCK_JUMPS_US.get(kind, 0) for kind in met)

    async def scan(
        self, kind: RowKind, *, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[tuple[str, bytes]]:
        """Rows in key order; other tasks run meanwhile, as they do while an engine reads."""
        await next_round()
        return await super().scan(kind, prefix=prefix, after=after, limit=limit)

    def sends(self, destination: str, after: int) -> bool:
        """True if there is a record for a service after a position."""
        for record in reversed(self._records):
            if record.position <= after:
                return False
            if record.destination == destination:
                return True
        return False

    def records(self) -> list[Record]:
        """All records that were ever committed, also while the service is down."""
        return list(self._records)

    @property
    def reachable(self) -> bool:
        """True if it was opened, and not cut since."""
        return self._open

    def cut(self) -> None:
        """Take no commits and answer no reads until the next `open`."""
        self._open = False

    def _crash(self) -> None:
        self._crash_soon(self.log)
        raise StoreFailed(f"{self.log} crashed at commit {self.commits}")
