"""Works: what goes through the writer, and what the writer tells each of them.

A work decides one message when its turn has come (`handle`), and hears what became of its batch. The works themselves
stand beside what they are about: receiving, retries, the edge, timers, repairs. Here is the contract, the work that
only carries a batch made beforehand, and the base of those whose end somebody waits for. Before the writer.
"""

import asyncio
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

from holdfast.core.log.batch import Batch, Duplicate
from holdfast.errors import StoreError

Result = TypeVar("Result")


class Work(Protocol):
    """One message to decide. Works of one lane are decided strictly in the order given, whatever fails in between."""

    @property
    def lane(self) -> str:
        """The conversation it belongs to; empty for none."""
        ...

    @property
    def streams(self) -> Sequence[str]:
        """Streams that must be in memory before `handle`."""
        ...

    def handle(self) -> Batch | None:
        """Decide, changing the state in memory; None when there is nothing to commit. `failed` gets what it raises."""
        ...

    def landed(self, position: int) -> None:
        """The batch is durable; its first record has this position."""
        ...

    def taken_back(self) -> None:
        """What `handle` decided is not committed: undo what it changed beside the streams in memory. It is decided
        again, or told that it is a `duplicate`."""
        ...

    def failed(self, error: Exception) -> None:
        """`handle` raised, or the store could not commit; nothing was written."""
        ...


@runtime_checkable
class KeyedWork(Work, Protocol):
    """A work whose batch may hold a fresh row: an idempotency key that was used before makes it a duplicate."""

    def duplicate(self, found: Duplicate) -> None:
        """The batch had a row that exists already; nothing was written."""
        ...


def tell_duplicate(work: Work, found: Duplicate) -> None:
    """Tell a work that its batch had a row that exists already: one that has no key has failed by that."""
    if isinstance(work, KeyedWork):
        work.duplicate(found)
    else:
        work.failed(StoreError(f"the store says that the row {found.key} exists already, and this work adds no row"))


class AwaitedWork(Generic[Result]):
    """The base of works whose end somebody waits for: `done` gets what it came to, or why nothing was written."""

    __slots__ = ("done",)
    lane = ""

    def __init__(self) -> None:
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def finish(self, result: Result) -> None:
        """Tell who waits; nothing where they were told already, or have gone."""
        if not self.done.done():
            self.done.set_result(result)

    def taken_back(self) -> None:
        """It has changed nothing beside the streams in memory."""

    def failed(self, error: Exception) -> None:
        """Nothing of it was written."""
        if not self.done.done():
            self.done.set_exception(error)


class BatchWork(AwaitedWork[int]):
    """A batch made beforehand (checkpoints, a view's rows, a row of what waits), which commits in a group with the
    rest; `done` gets its first position."""

    __slots__ = ("_batch", "_given")
    streams: Sequence[str] = ()

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._batch = batch
        self._given = False

    def handle(self) -> Batch | None:
        """The batch; a second time means that its checkpoint is not where it was read."""
        if self._given:
            raise StoreError("a checkpoint stands elsewhere than this process left it")
        self._given = True
        return self._batch

    def landed(self, position: int) -> None:
        """It is durable."""
        self.finish(position)
